//! Names of users and groups, and who asks.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fief_model::TenantSpec;
use nix::unistd::{Gid, Group, User};

use crate::store::MemberIds;

/// Turns names and numbers into ids, at apply: members, and whom the tenant selects. What is unknown comes back as
/// (path, message, help).
pub fn resolve(spec: &TenantSpec) -> (MemberIds, MemberIds, Vec<(String, String, String)>) {
    let mut unknown = Vec::new();
    let members = resolve_lists("members", &spec.members.users, &spec.members.groups, &mut unknown);
    let selected = resolve_lists("select", &spec.select.users, &spec.select.groups, &mut unknown);
    (members, selected, unknown)
}

fn resolve_lists(
    of: &str,
    users: &[String],
    groups: &[String],
    unknown: &mut Vec<(String, String, String)>,
) -> MemberIds {
    let mut ids = MemberIds::default();
    for (i, name) in users.iter().enumerate() {
        let id = name.parse().ok().or_else(|| User::from_name(name).ok().flatten().map(|u| u.uid.as_raw()));
        match id {
            Some(id) => ids.users.push(id),
            None => unknown.push(complaint(&format!("{of}.users"), i, "user", name, "useradd")),
        }
    }
    for (i, name) in groups.iter().enumerate() {
        let id = name.parse().ok().or_else(|| Group::from_name(name).ok().flatten().map(|g| g.gid.as_raw()));
        match id {
            Some(id) => ids.groups.push(id),
            None => unknown.push(complaint(&format!("{of}.groups"), i, "group", name, "groupadd")),
        }
    }
    ids
}

/// Who asks, as the kernel saw it when the connection was made (SO_PEERCRED, SO_PEERGROUPS; unix(7)).
#[derive(Debug, Clone)]
pub struct Caller {
    /// Effective user id.
    pub user: u32,
    /// Effective group id and the supplementary ones.
    pub groups: Vec<u32>,
    /// The process, by a descriptor that no other one ever gets; `None` if it cannot be had.
    pub process: Option<Arc<OwnedFd>>,
}

impl Caller {
    /// May write: root, and members of the group `fief`.
    pub fn may_write(&self) -> bool {
        let fief = || Group::from_name("fief").ok().flatten().map(|g: Group| g.gid);
        self.user == 0 || fief().is_some_and(|gid: Gid| self.groups.contains(&gid.as_raw()))
    }

    /// May read this tenant: who may write, and its members.
    pub fn is_member(&self, members: &MemberIds) -> bool {
        members.users.contains(&self.user) || self.groups.iter().any(|g| members.groups.contains(g))
    }
}

fn complaint(field: &str, i: usize, what: &str, name: &str, remedy: &str) -> (String, String, String) {
    (
        format!("spec.{field}[{i}]"),
        format!("there is no {what} `{name}` on this host"),
        format!("make it first ({remedy} {name}), or write its number"),
    )
}

#[cfg(test)]
mod tests {
    use fief_model::Members;

    use super::*;

    #[test]
    fn names_and_numbers_become_ids_and_unknown_names_are_told_where() {
        let members =
            Members { users: vec!["root".into(), "4711".into()], groups: vec!["no-such-group".into()] };
        let (ids, _, unknown) = resolve(&TenantSpec { members, ..TenantSpec::default() });
        assert_eq!(ids.users, [0, 4711]);
        assert_eq!(unknown.len(), 1);
        assert_eq!(unknown[0].0, "spec.members.groups[0]");
    }

    #[test]
    fn members_are_known_by_user_or_by_any_group() {
        let ids = MemberIds { users: vec![1000], groups: vec![50] };
        let caller = |user, groups: &[u32]| Caller { user, groups: groups.to_vec(), process: None };
        assert!(caller(1000, &[]).is_member(&ids));
        assert!(caller(1001, &[7, 50]).is_member(&ids));
        assert!(!caller(1001, &[7]).is_member(&ids));
        assert!(caller(0, &[]).may_write() && !caller(1000, &[50]).may_write());
    }
}
