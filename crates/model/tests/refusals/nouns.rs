//! Names and addresses.

use crate::{ADDRESS, IFACE, MEMBERS, META, refuse};

#[test]
fn names_that_cannot_be() {
    refuse(&[
        (META, "{ name: ▸Blue_1 }", "{ name: blue-1 }", "`Blue_1` is not a name", "write `blue-1`"),
        (META, "{ name: ▸\"\" }", "{ name: a }", "`` is not a name", "lower-case"),
        (META, "{ name: ▸-a }", "{ name: a }", "`-a` is not a name", "write `a`"),
        (
            META,
            "{ name: ▸a0123456789012345678901234567890123456789012345678901234567890123 }",
            "{ name: a }",
            "is not a name",
            "63 at most",
        ),
        (
            META,
            "{ name: a, labels: { -x: ▸y } }",
            "{ name: a, labels: { x: y } }",
            "`-x` is not a label's name",
            "example.com/tier",
        ),
        (
            META,
            "{ name: a, labels: { e.com/x: ▸a b } }",
            "{ name: a, labels: { e.com/x: a.b } }",
            "`a b` is not a label's value",
            "a letter or digit",
        ),
        (
            META,
            "{ name: a, labels: { \"e.com/a b\": ▸y } }",
            "{ name: a, labels: { \"e.com/x\": \"\" } }",
            "is not a label's name",
            "as in",
        ),
        (
            IFACE,
            "{ name: ▸abcdefghijklmnop }",
            "{ name: abcdefghijklmno }",
            "too long for a device: 16 bytes",
            "ip link",
        ),
        (IFACE, "{ name: ▸\"\" }", "{ name: eth0 }", "name is empty", "eth0"),
        (IFACE, "{ name: ▸a/b }", "{ name: a.b }", "contains '/'", "eth0"),
        (IFACE, "{ name: ▸\"a b\" }", "{ name: a-b }", "contains ' '", "eth0"),
        (IFACE, "{ name: ▸\"eth0:1\" }", "{ name: eth0 }", "contains ':'", "eth0"),
        (IFACE, "{ name: ▸ethé }", "{ name: ethe }", "contains 'é'", "eth0"),
        (IFACE, "{ name: ▸.. }", "{ name: a.. }", "`..` is not a device's name", "eth0"),
        (IFACE, "{ name: ▸lo }", "{ name: dummy0 }", "`lo` belongs to the host", "hostAccess"),
        (IFACE, "{ name: ▸eth1 }", "{ name: eth0 }", "`eth1` is listed twice", "the first is on line 6"),
        (MEMBERS, "{ users: [▸\"\"] }", "{ users: [alice] }", "an empty name", "getent"),
        (MEMBERS, "{ groups: [a, ▸a] }", "{ groups: [a, b] }", "`a` is listed twice", "delete one"),
        (MEMBERS, "{ groups: [▸a:b] }", "{ groups: [a-b] }", "`a:b` is not a name", "getent"),
        (
            MEMBERS,
            "{ users: [▸\"4294967295\"] }",
            "{ users: [\"4294967294\"] }",
            "beyond the highest",
            "number in quotes",
        ),
    ]);
}

#[test]
fn addresses_that_cannot_be() {
    refuse(&[
        (ADDRESS, "0.0.0.0/32", "192.0.2.1/24", "unspecified", "192.0.2.11/24"),
        (ADDRESS, "224.0.0.1/32", "192.0.2.1/24", "multicast", "belongs to this tenant"),
        (ADDRESS, "127.0.0.2/8", "192.0.2.1/24", "loopback", "belongs to this tenant"),
        (ADDRESS, "255.255.255.255/32", "192.0.2.1/24", "the broadcast address", "belongs to this tenant"),
        (ADDRESS, "192.0.2.0/24", "192.0.2.1/24", "is the network itself", "the host's own address"),
        (ADDRESS, "192.0.2.255/24", "192.0.2.254/24", "broadcast address of 192.0.2.0/24", "below it"),
        (ADDRESS, "192.0.2.0/30", "192.0.2.0/31", "is the network itself", "the host's own"),
        (ADDRESS, "192.0.2.1/0", "192.0.2.1/24", "every address a neighbour", "192.0.2.1/24"),
        (ADDRESS, "\"2001:db8::1/0\"", "\"2001:db8::1/64\"", "every address a neighbour", "2001:db8::1/64"),
        (ADDRESS, "\"2001:db8::/64\"", "\"2001:db8::1/64\"", "is the network itself", "the host's own"),
        (ADDRESS, "\"::/128\"", "\"2001:db8::1/64\"", "unspecified", "belongs to this tenant"),
        (ADDRESS, "\"::1/128\"", "\"2001:db8::1/64\"", "loopback", "belongs to this tenant"),
        (ADDRESS, "\"ff02::1/64\"", "\"2001:db8::1/64\"", "multicast", "belongs to this tenant"),
        (ADDRESS, "\"fe80::1/64\"", "\"2001:db8::1/64\"", "link-local", "every device has one of its own"),
        (ADDRESS, "\"::ffff:192.0.2.1/128\"", "192.0.2.1/32", "IPv4 address in IPv6 writing", "192.0.2.1"),
        (ADDRESS, "10.9.9.9/32", "10.9.9.8/32", "listed twice in this tenant", "the first is on line 6"),
        (
            IFACE,
            "{ name: eth0, manage: ▸false }",
            "{ name: eth0, manage: false, addresses: [192.0.2.1/24] }",
            "lists none",
            "delete `manage: false`",
        ),
        (
            IFACE,
            "{ name: e, neighbours: [▸\"01:00:5e:00:00:01\"] }",
            "{ name: e, neighbours: [\"00:00:5e:00:00:01\"] }",
            "a group's address",
            "ip neigh",
        ),
        (
            IFACE,
            "{ name: e, neighbours: [▸\"00:00:00:00:00:00\"] }",
            "{ name: e, neighbours: [] }",
            "nobody's address",
            "ip neigh",
        ),
        (
            IFACE,
            "{ name: e, neighbours: [\"02:00:00:00:00:0a\", ▸\"02:00:00:00:00:0A\"] }",
            "{ name: e, neighbours: [\"02:00:00:00:00:0a\"] }",
            "listed twice",
            "delete one",
        ),
    ]);
}
