//! Who may act as a tenant.

use std::collections::HashSet;

use super::Findings;
use crate::Members;

pub(super) fn check(members: &Members, findings: &mut Findings<'_>) {
    for (list, names) in [("users", &members.users), ("groups", &members.groups)] {
        let mut seen = HashSet::new();
        for (index, name) in names.iter().enumerate() {
            let path = || format!("spec.members.{list}[{index}]");
            if let Some(flaw) = flaw_of(name) {
                findings.refuse(&path(), flaw, "write a name as `getent` shows it, or a number in quotes");
            } else if !seen.insert(name) {
                findings.refuse(&path(), format!("`{name}` is listed twice"), "delete one of them");
            }
        }
    }
}

fn flaw_of(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("an empty name means nobody".into());
    }
    if name.starts_with('-')
        || name.chars().any(|c| matches!(c, ':' | ',' | '/') || c.is_whitespace() || c.is_control())
    {
        return Some(format!("`{}` is not a name of a user or group", name.escape_debug()));
    }
    // The highest number stands for "no change" in chown(2) and its kin, and is nobody's.
    let is_number = name.bytes().all(|b| b.is_ascii_digit());
    if is_number && !name.parse::<u32>().is_ok_and(|number| number != u32::MAX) {
        return Some(format!("{name} is beyond the highest number of a user or group, 4294967294"));
    }
    None
}
