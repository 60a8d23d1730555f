//! Who may act as a tenant, and whose new sockets are its.

use std::collections::HashSet;

use super::Findings;
use crate::TenantSpec;

/// Bytes of a control group's name that the datapath compares.
const LONGEST_GROUP: usize = 127;
/// Levels of control groups that it looks at.
const DEEPEST: usize = 15;

pub(super) fn check(spec: &TenantSpec, findings: &mut Findings<'_>) {
    let (members, select) = (&spec.members, &spec.select);
    let lists = [
        ("members.users", &members.users),
        ("members.groups", &members.groups),
        ("select.users", &select.users),
        ("select.groups", &select.groups),
    ];
    for (list, names) in lists {
        let mut seen = HashSet::new();
        for (index, name) in names.iter().enumerate() {
            let path = || format!("spec.{list}[{index}]");
            if let Some(flaw) = flaw_of(name) {
                findings.refuse(&path(), flaw, "write a name as `getent` shows it, or a number in quotes");
            } else if !seen.insert(name) {
                findings.refuse(&path(), format!("`{name}` is listed twice"), "delete one of them");
            }
        }
    }
    check_groups(&select.cgroups, findings);
}

fn check_groups(cgroups: &[String], findings: &mut Findings<'_>) {
    let mut seen = HashSet::new();
    for (index, group) in cgroups.iter().enumerate() {
        let path = || format!("spec.select.cgroups[{index}]");
        if let Some((flaw, help)) = flaw_of_group(group) {
            findings.refuse(&path(), flaw, help);
        } else if !seen.insert(group) {
            findings.refuse(&path(), format!("`{group}` is listed twice"), "delete one of them");
        }
    }
}

fn flaw_of_group(group: &str) -> Option<(String, &'static str)> {
    const HELP: &str =
        "write its path as /proc/PID/cgroup shows it behind `0::`: /system.slice/ldap-gw.service";
    let shown = group.escape_debug();
    let Some(steps) = group.strip_prefix('/').filter(|steps| !steps.is_empty()) else {
        return Some((format!("`{shown}` is not the path of a control group below the root"), HELP));
    };
    if steps.split('/').any(|step| matches!(step, "" | "." | "..") || step.contains(char::is_control)) {
        return Some((format!("`{shown}` is not the path of a control group"), HELP));
    }
    if steps.split('/').any(|step| step.len() > LONGEST_GROUP) || steps.split('/').count() > DEEPEST {
        return Some((
            format!("`{shown}` is longer than fief can compare: 15 steps of 127 bytes"),
            "select a group above it",
        ));
    }
    if steps.split('/').next() == Some("fief.slice") {
        return Some((
            format!("`{shown}` lies in fief.slice, where slices are tenants' by their names"),
            "delete it; whatever runs in fief-NAME.slice is tenant NAME's",
        ));
    }
    None
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
