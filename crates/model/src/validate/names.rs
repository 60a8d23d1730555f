//! Names: of tenants, labels and devices.

use std::collections::BTreeMap;

use super::Findings;
use crate::Namespace;
use crate::policy::NAMESPACE_LABEL;

/// IFNAMSIZ less the terminating zero.
const MAX_DEVICE: usize = 15;

/// The name at `path` of a thing that `noun` names.
pub(super) fn check_name(path: &str, name: &str, noun: &str, findings: &mut Findings<'_>) {
    if is_dns_label(name) {
        return;
    }
    findings.refuse(
        path,
        format!("`{name}` is not a name for {noun}"),
        match dns_label_from(name) {
            Some(near) => format!("write `{near}`: lower-case letters, digits and inner hyphens, 63 at most"),
            None => "write lower-case letters, digits and inner hyphens, 63 at most, as in `blue`".into(),
        },
    );
}

/// The labels at `path`.
pub(super) fn check_labels(path: &str, labels: &BTreeMap<String, String>, findings: &mut Findings<'_>) {
    for (key, value) in labels {
        let path = format!("{path}[\"{key}\"]");
        check_label_key(&path, key, findings);
        check_label_value(&path, value, findings);
    }
}

pub(super) fn check_label_key(path: &str, key: &str, findings: &mut Findings<'_>) {
    if !is_label_key(key) {
        findings.refuse(
            path,
            format!("`{key}` is not a label's name"),
            "write letters, digits, `-`, `_` and `.`, 63 at most, with a domain and `/` before it if need be, \
             as in `example.com/tier`",
        );
    }
}

pub(super) fn check_label_value(path: &str, value: &str, findings: &mut Findings<'_>) {
    if !value.is_empty() && !is_label_part(value) {
        findings.refuse(
            path,
            format!("`{value}` is not a label's value"),
            "write letters, digits, `-`, `_` and `.`, 63 at most, a letter or digit at either end",
        );
    }
}

/// A tenant's namespaces.
pub(super) fn check_namespaces(namespaces: &BTreeMap<String, Namespace>, findings: &mut Findings<'_>) {
    for (name, namespace) in namespaces {
        let path = format!("spec.namespaces[\"{name}\"]");
        check_name(&path, name, "a namespace", findings);
        let path = format!("{path}.labels");
        check_labels(&path, &namespace.labels, findings);
        if namespace.labels.get(NAMESPACE_LABEL).is_some_and(|value| value != name) {
            findings.refuse(
                &format!("{path}[\"{NAMESPACE_LABEL}\"]"),
                format!("`{NAMESPACE_LABEL}` of namespace `{name}` is another name"),
                "delete it: it is there by itself",
            );
        }
    }
}

/// IANA_SVC_NAME, RFC 6335, lower case: what is wrong with a port's name, and what to write instead.
pub(super) fn flaw_of_port_name(name: &str) -> Option<(String, &'static str)> {
    let is_one = is_dns_label(name)
        && name.len() <= 15
        && !name.contains("--")
        && name.bytes().any(|b| b.is_ascii_lowercase());
    if is_one {
        return None;
    }
    let help = match name.parse::<u16>() {
        Ok(_) => "write a port's number without quotes",
        Err(_) => "write 1 to 15 lower-case letters, digits and single inner hyphens, one letter at least",
    };
    Some((format!("`{name}` is not a port's name"), help))
}

/// What is wrong with a device's name, and what to write instead.
///
/// The kernel's own rule (net/core/dev.c, `dev_valid_name`), and ASCII, so that two names that look alike are.
pub(super) fn flaw_of_device(name: &str) -> Option<(String, String)> {
    let help = "write the name that `ip link` shows, as in `eth0` or `eth1.20`";
    let flaw = if name.is_empty() {
        "a device's name is empty".into()
    } else if name.len() > MAX_DEVICE {
        format!("`{name}` is too long for a device: {} bytes, {MAX_DEVICE} at most", name.len())
    } else if name == "." || name == ".." {
        format!("`{name}` is not a device's name")
    } else if let Some(c) = name.chars().find(|c| matches!(c, '/' | ':') || !c.is_ascii_graphic()) {
        format!("`{}` is not a device's name: it contains {c:?}", name.escape_debug())
    } else if name == "lo" {
        let help = "leave `lo` out; loopback stays the host's, see `hostAccess`";
        return Some(("`lo` belongs to the host, not to a tenant".into(), help.into()));
    } else {
        return None;
    };
    Some((flaw, help.into()))
}

/// RFC 1123, lower case.
pub(super) fn is_dns_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The name somebody may have had in mind.
fn dns_label_from(name: &str) -> Option<String> {
    let near = name.to_lowercase().replace(['_', '.', ' '], "-");
    let near = near.trim_matches('-');
    is_dns_label(near).then(|| near.into())
}

/// RFC 1123, lower case: labels with dots between them.
pub(super) fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// `[domain/]name`
fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => is_subdomain(domain) && is_label_part(name),
        None => is_label_part(key),
    }
}

fn is_label_part(part: &str) -> bool {
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    (1..=63).contains(&part.len())
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && ends(part.bytes().next())
        && ends(part.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_kubernetes() {
        let long = "a".repeat(63);
        let longer = "a".repeat(64);
        for key in ["a", "A_b.c-d9", "example.com/tier", "e/t", long.as_str()] {
            assert!(is_label_key(key), "{key}");
        }
        for key in ["", "/a", "a/", "a/b/c", "-a", "a-", ".a", "a b", "Example.com/a", "é", longer.as_str()]
        {
            assert!(!is_label_key(key), "{key}");
        }
    }

    #[test]
    fn devices_follow_the_kernel() {
        for name in ["eth0", "eth1.20", "a", "...", "br-lan", "wg_0", "veth@x", "abcdefghijklmno"] {
            assert!(flaw_of_device(name).is_none(), "{name}");
        }
        for name in ["", ".", "..", "lo", "a/b", "a:b", "a b", "a\tb", "a\0b", "ethé", "abcdefghijklmnop"] {
            assert!(flaw_of_device(name).is_some(), "{name}");
        }
    }
}
