//! Refused, and nothing changed.

use fief_testkit::{Snapshot, eventually};

use crate::node::{Node, endpoint, network, network_named, tenant};
use crate::room::SOON;

/// Refuses `documents` whatever is to be done with them, says every one of `says`, and changes nothing.
#[track_caller]
fn refuse(node: &Node, what: &str, documents: &[String], says: &[&str]) {
    let dump = node.daemon.cli(&["get", "all", "-o", "yaml"]).ok().stdout;
    let before = Snapshot::of(&node.town.host);
    for verb in [&["apply", "-f", "-"][..], &["apply", "--dry-run", "-f", "-"], &["diff", "-f", "-"]] {
        let output = node.daemon.cli_command(verb).input(documents.join("---\n")).run().fails();
        for part in says {
            assert!(output.stderr.contains(part), "{what}: {verb:?} does not say {part:?}: {output}");
        }
        assert!(output.stdout.is_empty(), "{what}: {output}");
    }
    assert_eq!(node.daemon.cli(&["get", "all", "-o", "yaml"]).ok().stdout, dump, "{what}");
    before.assert_same(&Snapshot::of(&node.town.host));
}

#[test]
fn networks_that_contradict_themselves_or_others_are_refused() {
    let Some(node) = Node::open("net-refused", 1) else { return };
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"])]);
    // A link has its carrier some time after it is up.
    eventually(SOON, || {
        let links = node.town.host.run(&["ip", "link", "show", "group", "241"]).ok().stdout;
        if links.contains("state UP") { Ok(()) } else { Err(links) }
    });
    let flat = tenant("flat") + "spec:\n  interfaces:\n    - { name: eth0, addresses: [192.168.0.99/24] }\n";
    let map = |to: &str| format!("portMaps: [{{ uplink: eth0, port: 8080, to: \"{to}\" }}]");
    let cases: [(&str, Vec<String>, &[&str]); 8] = [
        ("an unknown tenant", vec![network("nobody", "10.10.1.0/24", &[])], &["nobody"]),
        (
            "overlapping subnets in one tenant",
            vec![network_named("ni1", "wide", "10.10.0.0/16", &[])],
            &["10.10.0.0/16", "10.10.1.0/24"],
        ),
        (
            "a subnet that overlaps in the same file",
            vec![
                tenant("ni2"),
                network_named("ni2", "one", "10.20.0.0/24", &[]),
                network_named("ni2", "two", "10.20.0.128/25", &[]),
            ],
            &["10.20.0.128/25"],
        ),
        (
            "a network beside interfaces",
            vec![flat.clone(), network("flat", "10.30.0.0/24", &[])],
            &["interfaces"],
        ),
        (
            "a range outside of the subnet",
            vec![network("ni1", "10.10.1.0/24", &["dhcp: { range: 10.10.2.50-10.10.2.150 }"])],
            &["10.10.2.50"],
        ),
        (
            "an endpoint's address outside of the subnet",
            vec![endpoint(
                "ni1",
                "app",
                &["{ network: net, interface: eth0, address: 10.10.2.7 }".into()],
                "attach: { netns: app }",
            )],
            &["10.10.2.7"],
        ),
        (
            "one port mapped by two networks",
            vec![
                tenant("ni2"),
                network("ni1", "10.10.1.0/24", &["uplinks: [eth0]", &map("a:80")]),
                network("ni2", "10.10.1.0/24", &["uplinks: [eth0]", &map("b:80")]),
            ],
            &["8080"],
        ),
        ("an unknown field", vec![network("ni1", "10.10.1.0/24", &["uplink: eth0"])], &["uplink"]),
    ];
    for (what, documents, says) in &cases {
        refuse(&node, what, documents, says);
    }
    // The positive control: the same daemon takes both halves apart, and the same subnet in another tenant.
    if !fief_testkit::is_markless() {
        node.apply(&[flat]);
    }
    node.apply(&[tenant("ni2"), network("ni2", "10.10.1.0/24", &["uplinks: [eth0]", &map("10.10.1.9:80")])]);
    node.wait_phase("network", "ni2", "net", "Ready");
}
