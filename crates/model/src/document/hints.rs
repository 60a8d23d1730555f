//! What belongs in each field, in words for a person. One table for each kind.

use std::net::IpAddr;

/// What a field takes and how to write it.
pub(super) struct Hint {
    /// The field's path; `[]` stands for any item of a list, `*` for any key of a free mapping.
    pub(super) pattern: &'static str,
    /// Completes "… is not".
    pub(super) what: &'static str,
    /// A remedy.
    pub(super) write: &'static str,
}

const fn hint(pattern: &'static str, what: &'static str, write: &'static str) -> Hint {
    Hint { pattern, what, write }
}

const NAME: &str = "write `name: blue`: lower-case letters, digits and hyphens, 63 at most";
const DEVICE: &str = "write a device's name, as in `eth0`";
const MEMBER: &str = "write a name, or a number in quotes";
const FLAG: &str = "true or false";
const WRITE_FLAG: &str = "write `true` or `false`";
const ADDRESS_LIST: &str = "write a list, as in `addresses: [192.0.2.11/24, \"2001:db8::11/64\"]`";

/// Tenants.
pub(super) const TENANT: &[Hint] = &[
    hint("metadata", "a mapping", "write `metadata: { name: blue }`"),
    hint("metadata.name", "a name", NAME),
    hint("metadata.labels", "a mapping", "write `labels: { tier: gold }`"),
    hint("metadata.labels.*", "a text", "write a text, as in `tier: gold`; a number goes in quotes"),
    hint("spec", "a mapping", "write the tenant's fields below it, or `spec: {}` for none"),
    hint("spec.isolation", "a kind of isolation", "write `auto` or `fib`"),
    hint(
        "spec.interfaces",
        "a list",
        "write a list, as in `interfaces: [{ name: eth0, addresses: [192.0.2.11/24] }]`",
    ),
    hint("spec.interfaces[]", "a mapping", "write `{ name: eth0, addresses: [192.0.2.11/24] }`"),
    hint("spec.interfaces[].name", "a device's name", DEVICE),
    hint("spec.interfaces[].addresses", "a list", ADDRESS_LIST),
    hint(
        "spec.interfaces[].addresses[]",
        "an address with a prefix length",
        "write an address with its prefix length, as in 192.0.2.11/24 or \"2001:db8::11/64\"",
    ),
    hint("spec.interfaces[].manage", FLAG, WRITE_FLAG),
    hint("spec.interfaces[].default", FLAG, WRITE_FLAG),
    hint(
        "spec.interfaces[].neighbours",
        "a list",
        "write a list, as in `neighbours: [\"02:00:00:00:00:07\"]`; `[]` lets nobody in, without the key anybody may",
    ),
    hint(
        "spec.interfaces[].neighbours[]",
        "an Ethernet address",
        "write six hexadecimal pairs, as in \"02:00:00:00:00:07\"",
    ),
    hint("spec.routes", "a list", "write a list, as in `routes: [{ to: default, via: 192.0.2.1 }]`"),
    hint("spec.routes[]", "a mapping", "write `{ to: default, via: 192.0.2.1 }`"),
    hint(
        "spec.routes[].to",
        "a destination",
        "write `default`, a prefix as in 198.51.100.0/24, or an address",
    ),
    hint(
        "spec.routes[].via",
        "an address",
        "write the gateway's address without a prefix length, as in 192.0.2.1",
    ),
    hint("spec.routes[].interface", "a device's name", DEVICE),
    hint(
        "spec.routes[].from",
        "an address",
        "write one of the tenant's own addresses without its prefix length",
    ),
    hint(
        "spec.routes[].type",
        "a kind of route",
        "write `unicast`, `blackhole`, `unreachable` or `prohibit`",
    ),
    hint("spec.routes[].metric", "a metric", "write a whole number, 0 to 4294967294; the lower wins"),
    hint("spec.routes[].on-link", FLAG, WRITE_FLAG),
    hint("spec.routes[].mtu", "an MTU", "write a whole number of bytes, 68 to 65535"),
    hint("spec.members", "a mapping", "write `members: { users: [alice], groups: [blue-admins] }`"),
    hint("spec.members.users", "a list", "write a list, as in `users: [alice]`"),
    hint("spec.members.users[]", "a user", MEMBER),
    hint("spec.members.groups", "a list", "write a list, as in `groups: [blue-admins]`"),
    hint("spec.members.groups[]", "a group", MEMBER),
    hint(
        "spec.select",
        "a mapping",
        "write `select: { cgroups: [/system.slice/ldap-gw.service], users: [ldap-gw] }`",
    ),
    hint("spec.select.cgroups", "a list", "write a list, as in `cgroups: [/system.slice/ldap-gw.service]`"),
    hint(
        "spec.select.cgroups[]",
        "a control group",
        "write its path as in /proc/PID/cgroup: /system.slice/ldap-gw.service",
    ),
    hint("spec.select.users", "a list", "write a list, as in `users: [ldap-gw]`"),
    hint("spec.select.users[]", "a user", MEMBER),
    hint("spec.select.groups", "a list", "write a list, as in `groups: [ldap-gw]`"),
    hint("spec.select.groups[]", "a group", MEMBER),
    hint("spec.hostAccess", FLAG, WRITE_FLAG),
    hint("spec.udp", "a way with UDP servers", "write `alias`, `pktinfo` or `refuse`"),
];

impl Hint {
    /// What to write instead of this value.
    pub(super) fn remedy(&self, written: &str) -> String {
        if self.pattern.ends_with("addresses[]")
            && let Ok(address) = written.parse::<IpAddr>()
        {
            let length = if address.is_ipv6() { 64 } else { 24 };
            return format!("add the prefix length of its network, as in {written}/{length}");
        }
        if self.what == "an address"
            && let Some((address, _)) = written.split_once('/')
            && address.parse::<IpAddr>().is_ok()
        {
            return format!("leave the prefix length out: {address}");
        }
        self.write.into()
    }
}
