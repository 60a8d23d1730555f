//! Routes.

use crate::{IFACE, ROUTE, SPEC, complaints, refuse};

#[test]
fn routes_that_cannot_be() {
    refuse(&[
        (
            ROUTE,
            "{ to: ▸x, via: 192.0.2.1 }",
            "{ to: 198.51.100.1, via: 192.0.2.1 }",
            "`x` is not a destination",
            "`default`, a prefix",
        ),
        (
            ROUTE,
            "{ to: ▸198.51.100.7/24, via: 192.0.2.1 }",
            "{ to: 198.51.100.0/24, via: 192.0.2.1 }",
            "inside 198.51.100.0/24",
            "write 198.51.100.0/24, or 198.51.100.7",
        ),
        (
            ROUTE,
            "{ to: ▸default, type: blackhole }",
            "{ to: 0.0.0.0/0, type: blackhole }",
            "has no family",
            "`0.0.0.0/0` for IPv4 or `::/0`",
        ),
        (
            ROUTE,
            "{ to: ▸default, interface: eth0 }",
            "{ to: \"::/0\", interface: eth0 }",
            "has no family",
            "::/0",
        ),
        (
            ROUTE,
            "{ to: 198.51.100.0/24, via: ▸\"2001:db8:1::1\" }",
            "{ to: 198.51.100.0/24, via: 192.0.2.1 }",
            "one is IPv4, the other IPv6",
            "an IPv4 address",
        ),
        (
            ROUTE,
            "{ to: default, via: 192.0.2.1, from: ▸\"2001:db8:1::11\" }",
            "{ to: default, via: 192.0.2.1, from: 192.0.2.11 }",
            "one is IPv4",
            "an IPv4 address",
        ),
        (
            ROUTE,
            "{ to: default, via: 192.0.2.1, from: ▸192.0.2.12 }",
            "{ to: default, via: 192.0.2.1, from: 192.0.2.11 }",
            "192.0.2.12 is not an address of this tenant",
            "list it",
        ),
        (
            ROUTE,
            "{ to: default, via: ▸192.0.2.11 }",
            "{ to: default, via: 192.0.2.1 }",
            "own address, not a gateway",
            "the router's address",
        ),
        (
            ROUTE,
            "{ to: default, via: ▸192.0.2.255 }",
            "{ to: default, via: 192.0.2.254 }",
            "network or broadcast address of 192.0.2.0/24",
            "the router's",
        ),
        (
            ROUTE,
            "{ to: default, via: ▸224.0.0.1 }",
            "{ to: default, via: 192.0.2.1 }",
            "multicast address, not a gateway",
            "a router",
        ),
        (
            ROUTE,
            "{ to: \"::/0\", via: ▸\"::ffff:192.0.2.1\" }",
            "{ to: \"::/0\", via: \"2001:db8:1::1\" }",
            "IPv6 writing",
            "write 192.0.2.1",
        ),
        (
            ROUTE,
            "{ to: ▸198.51.100.0/24 }",
            "{ to: 198.51.100.0/24, interface: eth0 }",
            "leads nowhere",
            "interface: eth0",
        ),
        (
            ROUTE,
            "{ to: 198.51.100.0/24, interface: eth0, on-link: ▸true }",
            "{ to: 198.51.100.0/24, interface: eth0 }",
            "there is none",
            "delete `on-link`",
        ),
        (
            ROUTE,
            "{ to: 198.51.100.0/24, type: blackhole, via: ▸192.0.2.1 }",
            "{ to: 198.51.100.0/24, type: blackhole }",
            "has no `via`",
            "delete `via`",
        ),
        (
            ROUTE,
            "{ to: 198.51.100.0/24, type: prohibit, interface: ▸eth0 }",
            "{ to: 198.51.100.0/24, type: prohibit }",
            "has no `interface`",
            "delete `type: prohibit`",
        ),
        (
            ROUTE,
            "{ to: 198.51.100.0/24, type: unreachable, on-link: ▸true }",
            "{ to: 198.51.100.0/24, type: unreachable }",
            "has no `on-link`",
            "delete",
        ),
        (
            ROUTE,
            "{ to: default, via: 192.0.2.1, interface: ▸eth7 }",
            "{ to: default, via: 192.0.2.1, interface: eth0 }",
            "`eth7` is not an interface",
            "one of eth0, eth1, eth2",
        ),
        (
            ROUTE,
            "{ to: default, via: ▸203.0.113.1 }",
            "{ to: default, via: 203.0.113.1, interface: eth0, on-link: true }",
            "no network of this tenant contains the gateway 203.0.113.1",
            "`on-link: true`",
        ),
        (
            ROUTE,
            "{ to: default, via: ▸192.0.2.1, interface: eth1 }",
            "{ to: default, via: 192.0.2.1, interface: eth0 }",
            "no network on `eth1`",
            "write `interface: eth0`",
        ),
        (
            ROUTE,
            "{ to: default, via: ▸203.0.113.1, on-link: true }",
            "{ to: default, via: 203.0.113.1, on-link: true, interface: eth1 }",
            "on which link",
            "interface: eth0",
        ),
        (
            ROUTE,
            "{ to: default, via: ▸\"fe80::1\" }",
            "{ to: default, via: \"fe80::1\", interface: eth0 }",
            "may exist on every device",
            "interface: eth0",
        ),
        (
            ROUTE,
            "{ to: default, via: ▸10.0.0.1 }",
            "{ to: default, via: 10.0.0.1, interface: eth1 }",
            "networks on eth1 and eth2",
            "add `interface`",
        ),
        (
            ROUTE,
            "{ to: ▸100.64.0.0/10, via: 192.0.2.1, metric: 7 }",
            "{ to: 100.64.0.0/10, via: 192.0.2.1, metric: 8 }",
            "a second route to 100.64.0.0/10 with metric 7",
            "the first is on line 10",
        ),
        (
            ROUTE,
            "{ to: default, via: 192.0.2.1, metric: ▸4294967295 }",
            "{ to: default, via: 192.0.2.1, metric: 4294967294 }",
            "fief's own",
            "4294967294 or less",
        ),
        (
            ROUTE,
            "{ to: default, via: 192.0.2.1, mtu: ▸67 }",
            "{ to: default, via: 192.0.2.1, mtu: 68 }",
            "67 is not an MTU for IPv4",
            "68 to 65535",
        ),
        (
            ROUTE,
            "{ to: default, via: 192.0.2.1, mtu: ▸65536 }",
            "{ to: default, via: 192.0.2.1, mtu: 65535 }",
            "65536 is not an MTU",
            "65535",
        ),
        (
            ROUTE,
            "{ to: \"::/0\", via: \"2001:db8:1::1\", mtu: ▸1279 }",
            "{ to: \"::/0\", via: \"2001:db8:1::1\", mtu: 1280 }",
            "1279 is not an MTU for IPv6",
            "1280",
        ),
        (
            ROUTE,
            "{ to: ▸224.0.0.0/4, interface: eth0 }",
            "{ to: 198.51.100.0/24, interface: eth0 }",
            "is multicast",
            "delete this route",
        ),
        (
            ROUTE,
            "{ to: ▸127.0.0.0/8, type: blackhole }",
            "{ to: 198.51.100.0/24, type: blackhole }",
            "is loopback",
            "delete this route",
        ),
        (
            ROUTE,
            "{ to: ▸169.254.0.0/16, interface: eth0 }",
            "{ to: 169.254.169.254/32, interface: eth0 }",
            "is link-local",
            "delete this route",
        ),
        (
            ROUTE,
            "{ to: ▸\"fe80::/64\", interface: eth0 }",
            "{ to: \"2001:db8::/64\", interface: eth0 }",
            "is link-local",
            "delete this route",
        ),
        (
            ROUTE,
            "{ to: ▸192.0.2.11/32, interface: eth0 }",
            "{ to: 192.0.2.12/32, interface: eth0 }",
            "this tenant's own address",
            "delivered locally",
        ),
        (
            ROUTE,
            "{ to: ▸\"2001:db8:1::11\", interface: eth0 }",
            "{ to: \"2001:db8:1::12\", interface: eth0 }",
            "this tenant's own address",
            "delivered locally",
        ),
    ]);
}

#[test]
fn what_looks_odd_and_is_right() {
    let second = "---\napiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: red }\nspec:\n  interfaces:\n  \
                  - { name: eth0, addresses: [10.0.0.1/8], neighbours: [] }\n  routes:\n  \
                  - { to: 192.0.2.0/24, via: 10.0.0.2 }\n  - { to: 192.0.2.11/32, via: 10.0.0.2 }\n";
    let text = ROUTE.replace('@', "{ to: 10.0.0.0/8, type: blackhole }") + second;
    assert_eq!(complaints(&text), [], "networks of two tenants may overlap, whoever's addresses are in them");
    let unquoted =
        "{ to: ::/0, via: fe80::1, interface: eth0, on-link: true }\n  members: { users: [no, alice] }";
    assert_eq!(complaints(&ROUTE.replace('@', unquoted)), []);
    let neighbour = "{ name: eth0, addresses: [2001:db8::1/64], neighbours: [02:00:00:00:00:07] }";
    assert_eq!(complaints(&IFACE.replace('@', neighbour)), []);
    let json = format!(
        "{{\"apiVersion\":\"fief/v1alpha1\",\"kind\":\"Tenant\",\"metadata\":{{\"name\":\"blue\"}},\"spec\":{{\"members\":{{\"users\":[\"a{}\"]}}}}}}",
        "b".repeat(2000)
    );
    assert_eq!(complaints(&json), [], "JSON is YAML");
    let anchors = SPEC.replace(
        '@',
        "interfaces:\n  - { name: &dev eth0, addresses: [192.0.2.1/24] }\n  \
                                     routes: [{ to: 198.51.100.0/24, interface: *dev }]",
    );
    assert_eq!(complaints(&anchors), []);
}
