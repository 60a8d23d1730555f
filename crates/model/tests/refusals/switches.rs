//! Switches, and who else uses their devices.

use fief_model::{Document, Kept, Source, parse, validate};

use crate::refuse;

/// A tenant, and a network of it whose spec is the fragment.
const NET: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n---\n\
                   apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: lan, tenant: blue }\nspec: @\n";
/// A document behind two tenants, a switch on eth3, one on a VLAN of eth2, and a local network that leaves by eth1.
const MORE: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n---\n\
                    apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: red }\n---\n\
                    apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: lan, tenant: blue }\n\
                    spec: { type: switch, uplinks: [eth3] }\n---\n\
                    apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: tagged, tenant: blue }\n\
                    spec: { type: switch, uplinks: [eth2], vlan: 20 }\n---\n\
                    apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: web, tenant: blue }\n\
                    spec: { subnets: [10.10.0.0/16], uplinks: [eth1] }\n---\napiVersion: fief/v1alpha1\n@\n";

#[test]
fn one_switch() {
    refuse(&[
        (NET, "{ type: ▸hub }", "{ type: switch }", "`hub` is not a kind of network", "`local` or `switch`"),
        (
            NET,
            "{ type: switch, subnets: ▸[10.1.0.0/24] }",
            "{ subnets: [10.1.0.0/24] }",
            "a switch has no subnets",
            "delete `subnets`",
        ),
        (
            NET,
            "{ type: switch, gateways: ▸[10.1.0.1] }",
            "{ type: switch, uplinks: [eth3, eth4] }",
            "a switch has no gateways",
            "type: local",
        ),
        (
            NET,
            "{ type: switch, dhcp: ▸{} }",
            "{ type: switch, mtu: 9000 }",
            "no DHCP server",
            "delete `dhcp`",
        ),
        (
            NET,
            "{ type: switch, dns: ▸{ names: { gw: 10.1.0.1 } } }",
            "{ type: switch, allowEndpoints: [red] }",
            "a switch has no names",
            "delete `dns`",
        ),
        (
            NET,
            "{ type: switch, uplinks: [eth3], portMaps: ▸[{ uplink: eth3, port: 80, to: \"a:80\" }] }",
            "{ type: switch, uplinks: [eth3] }",
            "a switch has no port maps",
            "delete `portMaps`",
        ),
        (NET, "{ type: switch, ntp: ▸[192.0.2.1] }", "{ type: switch }", "no time servers", "delete `ntp`"),
        (
            NET,
            "{ type: switch, uplinks: [eth3], vlan: ▸4095 }",
            "{ type: switch, uplinks: [eth3], vlan: 4094 }",
            "4095 is no VLAN",
            "1 to 4094",
        ),
        (
            NET,
            "{ type: switch, uplinks: [eth3], vlan: ▸twenty }",
            "{ type: switch, uplinks: [eth3], vlan: 20 }",
            "`twenty` is not a VLAN",
            "1 to 4094",
        ),
        (
            NET,
            "{ type: switch, vlan: ▸20 }",
            "{ type: switch, vlan: 20, uplinks: [eth3] }",
            "VLAN 20 is of no uplink",
            "uplinks: [eth0]",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], vlan: ▸20 }",
            "{ type: switch, uplinks: [eth3, eth4], vlan: 20, stp: false }",
            "a local network has no VLAN of its own",
            "type: switch",
        ),
        (
            NET,
            "{ subnets: [10.1.0.0/24], stp: ▸true }",
            "{ type: switch, stp: true }",
            "no spanning tree of its own",
            "delete `stp`",
        ),
        (
            NET,
            "{ type: switch, stp: ▸rapid }",
            "{ type: switch, stp: true }",
            "`rapid` is not true or false",
            "`true` or `false`",
        ),
    ]);
}

#[test]
fn a_device_is_one_switchs_port() {
    let other = |spec: &str| format!("kind: Network\nmetadata: {{ name: x, tenant: red }}\nspec: {spec}");
    let rows = [
        (
            other("{ type: switch, uplinks: [eth4, ▸eth3] }"),
            other("{ type: switch, uplinks: [eth3], vlan: 7 }"),
            "`eth3` is a port of switch `blue/lan` already",
            "a `vlan`",
        ),
        (
            other("{ type: switch, uplinks: [▸eth2], vlan: 20 }"),
            other("{ type: switch, uplinks: [eth2], vlan: 21 }"),
            "`eth2` carries switch `blue/tagged` as VLAN 20 already",
            "another VLAN",
        ),
        (
            other("{ type: switch, uplinks: [▸eth1] }"),
            other("{ type: switch, uplinks: [eth1], vlan: 20 }"),
            "`eth1` is an uplink of network `blue/web`, which needs the host's address there",
            "another device",
        ),
        (
            other("{ subnets: [10.9.0.0/24], uplinks: [▸eth3] }"),
            other("{ subnets: [10.9.0.0/24], uplinks: [eth2, eth1] }"),
            "`eth3` is a port of switch `blue/lan` already",
            "give the switch a `vlan`",
        ),
        (
            "kind: Tenant\nmetadata: { name: x }\nspec: { interfaces: [{ name: ▸eth3, addresses: [192.0.2.7/24] }] }"
                .into(),
            "kind: Tenant\nmetadata: { name: x }\nspec: { interfaces: [{ name: eth2, addresses: [192.0.2.7/24] }] }"
                .into(),
            "`eth3` is a port of switch `blue/lan` already",
            "another device",
        ),
        (
            "kind: Tenant\nmetadata: { name: x }\nspec: { interfaces: [{ name: eth9 }] }\n---\n\
             apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: y, tenant: red }\n\
             spec: { type: switch, uplinks: [▸eth9] }"
                .into(),
            other("{ type: switch, uplinks: [eth9] }"),
            "`eth9` is an interface of tenant `x`",
            "another device",
        ),
        (
            "kind: Endpoint\nmetadata: { name: a, tenant: blue }\n\
             spec: { networks: [{ network: lan, address: ▸192.168.3.7 }], attach: { netns: a } }"
                .into(),
            "kind: Endpoint\nmetadata: { name: a, tenant: blue }\n\
             spec: { networks: [{ network: lan }], attach: { netns: a } }"
                .into(),
            "switch `lan` cannot give 192.168.3.7",
            "DHCP server outside",
        ),
    ];
    let leaked = rows.map(|(bad, good, message, help)| (MORE, &*bad.leak(), &*good.leak(), message, help));
    refuse(&leaked);
}

#[test]
fn what_was_applied_earlier_has_its_devices_unless_it_comes_in_again() {
    let text = |name: &str, tenant: &str| {
        format!(
            "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {tenant} }}\n---\n\
             apiVersion: fief/v1alpha1\nkind: Network\nmetadata: {{ name: {name}, tenant: {tenant} }}\n\
             spec: {{ type: switch, uplinks: [eth3] }}\n"
        )
    };
    let read = |text: String| parse(&[Source { name: "t.yaml".into(), text }]).unwrap();
    let stored = read(text("lan", "blue"));
    let Document::Network(lan) = &stored[1].document else { panic!("a network") };
    let kept = Kept { networks: vec![lan], ..Kept::default() };
    let found = validate(&read(text("lan", "red")), &kept);
    let found: Vec<_> = found.iter().map(|d| (d.line, d.column, d.message.as_str())).collect();
    assert_eq!(found, [(8, 33, "`eth3` is a port of switch `blue/lan` already")]);
    assert_eq!(validate(&read(text("lan", "blue")), &kept), []);
}
