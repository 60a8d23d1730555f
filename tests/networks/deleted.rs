//! What is deleted leaves nothing.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use fief_testkit::{Snapshot, eventually};

use crate::app::App;
use crate::flow::Flow;
use crate::node::{Node, at, by_dhcp, endpoint, http, network, tenant};
use crate::room::SOON;
use crate::town::Town;

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);

/// The files of namespaces that fief keeps.
fn namespaces(node: &Node) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(node.daemon.root().join("run/netns"));
    listed.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn a_host_without_networks_is_as_it_was() {
    let Some(node) = Node::open("deleted", 2) else { return };
    let before = Snapshot::of(&node.town.host);
    let apps = ["ni1", "ni2"].map(|tenant| node.workload(tenant, "app"));
    let bare = Snapshot::of(&apps[0].ns);
    let map = "portMaps: [{ uplink: eth0, port: 8080, to: \"app:80\", protocol: tcp }]";
    let spec = ["uplinks: [eth0, eth1]", "dhcp: { range: 10.10.1.50-10.10.1.150 }"];
    // Twice: the second time must not find what the first has left.
    for round in 0..2 {
        node.apply(&[
            tenant("ni1"),
            tenant("ni2"),
            network("ni1", "10.10.1.0/24", &[&spec[..], &[map]].concat()),
            network("ni2", "10.10.1.0/24", &spec),
            endpoint("ni1", "app", &[at(A)], &apps[0].attach()),
            endpoint("ni2", "app", &[by_dhcp("net", "eth0")], &apps[1].attach()),
        ]);
        let lease = apps[1].udhcpc("eth0");
        for app in &apps {
            app.reaches(&http(Town::SITE), "site");
        }
        assert_eq!(namespaces(&node).len(), 2, "round {round}");
        assert!(
            before.diff(&Snapshot::of(&node.town.host)).is_some(),
            "a host with networks looks otherwise"
        );
        drop(lease);
        for (kind, names) in [
            ("endpoint", ["ni1/app", "ni2/app"]),
            ("network", ["ni1/net", "ni2/net"]),
            ("tenant", ["ni1", "ni2"]),
        ] {
            names.iter().for_each(|name| drop(node.daemon.cli(&["delete", kind, name]).ok()));
        }
        eventually(SOON, || match before.diff(&Snapshot::of(&node.town.host)) {
            None => Ok(()),
            Some(diff) => Err(format!("round {round}: {diff}")),
        });
        assert_eq!(namespaces(&node), [] as [PathBuf; 0]);
        assert!(apps.iter().all(|app| !app.has("eth0")));
        bare.assert_same(&Snapshot::of(&apps[0].ns));
    }
}

#[test]
fn an_endpoint_goes_and_comes_and_its_neighbours_do_not_notice() {
    let Some(node) = Node::open("endpoint", 1) else { return };
    let map = "portMaps: [{ uplink: eth0, port: 8080, to: \"b:80\", protocol: tcp }]";
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0]", map])]);
    let (a, b) = (node.place("ni1", "a", A), node.place("ni1", "b", B));
    let c = node.place("ni1", "c", Ipv4Addr::new(10, 10, 1, 13));
    let _echo = c.echo(7000);
    let _served = node.town.serve(&b.ns, "b");
    let (gateway, mapped) = (App::of(&node.town, node.town.gateways[0].clone()), "http://192.168.0.2:8080/");
    a.resolve_by(&[Ipv4Addr::new(10, 10, 1, 1)]);
    a.reaches("http://b/", "b");
    gateway.reaches(mapped, "b");
    let flow = Flow::start(&a.ns, (Ipv4Addr::new(10, 10, 1, 13), 7000).into());
    for _ in 0..3 {
        node.daemon.cli(&["delete", "endpoint", "ni1/b"]).ok();
        eventually(SOON, || if b.has("eth0") { Err("b has its device".into()) } else { Ok(()) });
        a.is_refused(&http(B));
        a.is_refused("http://b/");
        gateway.is_refused(mapped);
        node.apply(&[endpoint("ni1", "b", &[at(B)], &b.attach())]);
        a.reaches("http://b/", "b");
        gateway.reaches(mapped, "b");
    }
    println!("{:?}", flow.lost_nothing());
}
