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
    hint("spec.isolation", "a kind of isolation", "write `auto`, `fib` or `netns`"),
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
    hint("spec.policyMode", "a way with policies", "write `enforce` or `audit`"),
    hint("spec.namespaces", "a mapping", "write `namespaces: { shop: { labels: { team: shop } } }`"),
    hint("spec.namespaces.*", "a mapping", "write `{ labels: { team: shop } }`, or `{}`"),
    hint("spec.namespaces.*.labels", "a mapping", "write `labels: { team: shop }`"),
    hint("spec.namespaces.*.labels.*", "a text", "write a text, as in `team: shop`; a number goes in quotes"),
];

const MAPPING: &str = "a mapping";
const LIST: &str = "a list";
const MAC: &str = "write six hexadecimal pairs, as in \"02:00:00:00:00:07\"";
const PLAIN_ADDRESS: &str = "write an address without a prefix length, as in 10.10.1.20";
const PORT: &str = "write a whole number, 1 to 65535";

/// Networks.
pub(super) const NETWORK: &[Hint] = &[
    hint("metadata", MAPPING, "write `metadata: { name: web, tenant: blue }`"),
    hint("metadata.name", "a name", NAME),
    hint("metadata.tenant", "a tenant's name", "write the tenant that it belongs to, as in `tenant: blue`"),
    hint("metadata.labels", MAPPING, "write `labels: { tier: gold }`"),
    hint("metadata.labels.*", "a text", "write a text, as in `tier: gold`; a number goes in quotes"),
    hint("spec", MAPPING, "write the network's fields below it, as in `spec: { subnets: [10.10.1.0/24] }`"),
    hint("spec.type", "a kind of network", "write `local` or `switch`"),
    hint("spec.subnets", LIST, "write a list, as in `subnets: [10.10.1.0/24]`"),
    hint("spec.subnets[]", "a prefix", "write a prefix, as in 10.10.1.0/24 or \"fd00:10:1::/64\""),
    hint("spec.gateways", LIST, "write a list, as in `gateways: [10.10.1.254]`"),
    hint("spec.gateways[]", "an address", PLAIN_ADDRESS),
    hint("spec.uplinks", LIST, "write a list of devices, as in `uplinks: [eth0]`"),
    hint("spec.uplinks[]", "a device's name", DEVICE),
    hint("spec.vlan", "a VLAN", "write a whole number, 1 to 4094"),
    hint("spec.stp", FLAG, WRITE_FLAG),
    hint("spec.dhcp", MAPPING, "write `dhcp: { range: 10.10.1.50-10.10.1.150 }`, or `dhcp: {}`"),
    hint("spec.dhcp.range", "a range of addresses", "write two addresses, as in 10.10.1.50-10.10.1.150"),
    hint("spec.dhcp.lease", "a time", "write a number with `s`, `m`, `h` or `d`, as in `lease: 60m`"),
    hint(
        "spec.dhcp.reservations",
        LIST,
        "write a list, as in `reservations: [{ mac: \"02:00:00:00:00:07\", address: 10.10.1.7 }]`",
    ),
    hint("spec.dhcp.reservations[]", MAPPING, "write `{ mac: \"02:00:00:00:00:07\", address: 10.10.1.7 }`"),
    hint("spec.dhcp.reservations[].mac", "an Ethernet address", MAC),
    hint("spec.dhcp.reservations[].address", "an address", PLAIN_ADDRESS),
    hint("spec.dns", MAPPING, "write `dns: { names: { gw: 10.10.1.1 }, servers: [192.0.2.53] }`"),
    hint("spec.dns.names", MAPPING, "write `names: { gw: 10.10.1.1 }`"),
    hint("spec.dns.names.*", "an address", PLAIN_ADDRESS),
    hint("spec.dns.servers", LIST, "write a list, as in `servers: [192.0.2.53]`"),
    hint("spec.dns.servers[]", "an address", PLAIN_ADDRESS),
    hint(
        "spec.portMaps",
        LIST,
        "write a list, as in `portMaps: [{ uplink: eth0, port: 8080, to: \"app2:80\" }]`",
    ),
    hint("spec.portMaps[]", MAPPING, "write `{ uplink: eth0, port: 8080, to: \"app2:80\", protocol: tcp }`"),
    hint("spec.portMaps[].uplink", "a device's name", DEVICE),
    hint("spec.portMaps[].port", "a port", PORT),
    hint("spec.portMaps[].to", "an endpoint with a port", "write `to: \"app2:80\"`, in quotes"),
    hint("spec.portMaps[].protocol", "a protocol", "write `tcp` or `udp`"),
    hint("spec.ntp", LIST, "write a list, as in `ntp: [192.0.2.123]`"),
    hint("spec.ntp[]", "an address", PLAIN_ADDRESS),
    hint("spec.mtu", "an MTU", "write a whole number of bytes, 576 to 65535"),
    hint("spec.mss", "a segment's size", "write `auto`, or a whole number of bytes, as in `mss: 1360`"),
    hint("spec.allowEndpoints", LIST, "write a list of tenants, as in `allowEndpoints: [red]`"),
    hint("spec.allowEndpoints[]", "a tenant's name", NAME),
];

/// Endpoints.
pub(super) const ENDPOINT: &[Hint] = &[
    hint("metadata", MAPPING, "write `metadata: { name: app1, tenant: blue }`"),
    hint("metadata.name", "a name", NAME),
    hint("metadata.tenant", "a tenant's name", "write the tenant that it belongs to, as in `tenant: blue`"),
    hint("metadata.namespace", "a namespace", "write a namespace of the tenant, as in `namespace: shop`"),
    hint("metadata.labels", MAPPING, "write `labels: { app: shop }`"),
    hint("metadata.labels.*", "a text", "write a text, as in `app: shop`; a number goes in quotes"),
    hint("spec", MAPPING, "write `spec: { networks: [{ network: web }], attach: { netns: app1 } }`"),
    hint("spec.networks", LIST, "write a list, as in `networks: [{ network: web, interface: eth0 }]`"),
    hint("spec.networks[]", MAPPING, "write `{ network: web, interface: eth0, address: 10.10.1.20 }`"),
    hint("spec.networks[].network", "a network's name", "write `web`, or another tenant's as `red/web`"),
    hint("spec.networks[].interface", "a device's name", DEVICE),
    hint("spec.networks[].address", "an address", PLAIN_ADDRESS),
    hint("spec.networks[].mac", "an Ethernet address", MAC),
    hint(
        "spec.attach",
        MAPPING,
        "write `attach: { netns: app1 }`, `attach: { pid: 4711 }` or `attach: { tap: app1 }`",
    ),
    hint(
        "spec.attach.netns",
        "a network namespace",
        "write its name, or a path, as in `netns: /run/netns/app1`",
    ),
    hint("spec.attach.pid", "a process", "write its number"),
    hint("spec.attach.tap", "a device's name", DEVICE),
    hint("spec.ports", LIST, "write a list, as in `ports: [{ name: http, port: 8080 }]`"),
    hint("spec.ports[]", MAPPING, "write `{ name: http, port: 8080, protocol: tcp }`"),
    hint("spec.ports[].name", "a port's name", PORT_NAME),
    hint("spec.ports[].port", "a port", PORT),
    hint("spec.ports[].protocol", "a protocol", "write `tcp`, `udp` or `sctp`"),
];

const PORT_NAME: &str = "write 1 to 15 lower-case letters, digits and hyphens, as in `http`";
const SELECTOR: &str = "write `{ matchLabels: { app: shop } }`, or `{}` for all";
const VALUE: &str = "write a text, as in `app: shop`; a number goes in quotes";
const CIDR: &str = "write a prefix, as in 10.0.0.0/8 or \"fd00::/8\"";
const PORT_LIST: &str =
    "write a list, as in `ports: [{ protocol: TCP, port: 80 }]`; without the key it is all ports";
const TRANSPORT: &str = "write `TCP`, `UDP` or `SCTP`";
const NUMBER_OR_NAME: &str = "write a number, 1 to 65535, or the name of a port";

/// The hints for one selector below a path.
macro_rules! selector {
    ($path:literal) => {
        [
            hint($path, MAPPING, SELECTOR),
            hint(concat!($path, ".matchLabels"), MAPPING, "write `matchLabels: { app: shop }`"),
            hint(concat!($path, ".matchLabels.*"), "a text", VALUE),
            hint(
                concat!($path, ".matchExpressions"),
                LIST,
                "write a list, as in `matchExpressions: [{ key: app, operator: In, values: [shop] }]`",
            ),
            hint(
                concat!($path, ".matchExpressions[]"),
                MAPPING,
                "write `{ key: app, operator: In, values: [shop] }`",
            ),
            hint(concat!($path, ".matchExpressions[].key"), "a label's name", "write `key: app`"),
            hint(
                concat!($path, ".matchExpressions[].operator"),
                "an operator",
                "write `In`, `NotIn`, `Exists` or `DoesNotExist`",
            ),
            hint(concat!($path, ".matchExpressions[].values"), LIST, "write a list, as in `values: [shop]`"),
            hint(concat!($path, ".matchExpressions[].values[]"), "a text", VALUE),
        ]
    };
}

/// The hints for the rules of one direction.
macro_rules! rules {
    ($rules:literal, $peers:literal) => {
        [
            hint($rules, LIST, "write a list of rules; without the key, or with `[]`, nothing is allowed"),
            hint(concat!($rules, "[]"), MAPPING, "write a rule, or `{}` for one that allows everything"),
            hint(
                concat!($rules, "[].", $peers),
                LIST,
                "write a list of peers; without the key, or with `[]`, it is everybody",
            ),
            hint(concat!($rules, "[].", $peers, "[]"), MAPPING, "write `{ podSelector: {} }`"),
            hint(
                concat!($rules, "[].", $peers, "[].ipBlock"),
                MAPPING,
                "write `ipBlock: { cidr: 10.0.0.0/8 }`",
            ),
            hint(concat!($rules, "[].", $peers, "[].ipBlock.cidr"), "a prefix", CIDR),
            hint(
                concat!($rules, "[].", $peers, "[].ipBlock.except"),
                LIST,
                "write a list, as in `except: [10.1.0.0/16]`",
            ),
            hint(concat!($rules, "[].", $peers, "[].ipBlock.except[]"), "a prefix", CIDR),
            hint(concat!($rules, "[].ports"), LIST, PORT_LIST),
            hint(concat!($rules, "[].ports[]"), MAPPING, "write `{ protocol: TCP, port: 80 }`"),
            hint(concat!($rules, "[].ports[].protocol"), "a protocol", TRANSPORT),
            hint(concat!($rules, "[].ports[].port"), "a port", NUMBER_OR_NAME),
            hint(concat!($rules, "[].ports[].endPort"), "a port", PORT),
        ]
    };
}

/// Network policies.
pub(super) const NETWORK_POLICY: &[&[Hint]] = &[
    &[
        hint(
            "metadata",
            MAPPING,
            "write `metadata: { name: web, namespace: shop, labels: { fief/tenant: blue } }`",
        ),
        hint("metadata.name", "a name", NAME),
        hint("metadata.namespace", "a namespace", "write a namespace of the tenant, as in `namespace: shop`"),
        hint("metadata.labels", MAPPING, "write `labels: { fief/tenant: blue }`"),
        hint("metadata.labels.*", "a text", VALUE),
        hint("spec", MAPPING, "write `spec: { podSelector: {}, policyTypes: [Ingress] }`"),
        hint("spec.policyTypes", LIST, "write a list, as in `policyTypes: [Ingress, Egress]`"),
        hint("spec.policyTypes[]", "a direction", "write `Ingress` or `Egress`"),
    ],
    &selector!("spec.podSelector"),
    &rules!("spec.ingress", "from"),
    &selector!("spec.ingress[].from[].podSelector"),
    &selector!("spec.ingress[].from[].namespaceSelector"),
    &rules!("spec.egress", "to"),
    &selector!("spec.egress[].to[].podSelector"),
    &selector!("spec.egress[].to[].namespaceSelector"),
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
