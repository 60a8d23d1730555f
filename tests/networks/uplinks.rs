//! The first uplink that works, and none at all.

use std::net::Ipv4Addr;
use std::time::Duration;

use fief_testkit::eventually;

use crate::app::App;
use crate::flow::Talk;
use crate::node::{Node, http, network, tenant};
use crate::town::Town;

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);

/// The site sees the address of this uplink, soon: the kernel reports a lost carrier up to a second later
/// (net/core/link_watch.c).
#[track_caller]
fn leaves_by(app: &App, uplink: usize) {
    eventually(Duration::from_secs(2), || match app.glance(Town::SITE)?.from {
        seen if seen == Town::host_address(uplink) => Ok(()),
        seen => Err(format!("the site sees {seen}")),
    });
}

#[test]
fn the_next_uplink_takes_over_and_the_first_comes_back() {
    let Some(node) = Node::open("failover", 2) else { return };
    node.apply(&[
        tenant("ni1"),
        tenant("ni2"),
        network("ni1", "10.10.1.0/24", &["uplinks: [eth0, eth1]"]),
        network("ni2", "10.10.1.0/24", &["uplinks: [eth0]"]),
    ]);
    let (both, single) = (node.place("ni1", "a", A), node.place("ni2", "a", A));
    let beside = node.place("ni1", "b", B);
    let _echo = beside.echo(7000);
    let mut talk = Talk::open(&both.ns, (B, 7000).into());
    leaves_by(&both, 0);
    leaves_by(&single, 0);
    for _ in 0..2 {
        node.town.carrier(0, false);
        leaves_by(&both, 1);
        // A network that names one uplink waits for it, and takes no other.
        single.is_refused(&http(Town::SITE));
        talk.goes_on();
        node.town.carrier(0, true);
        leaves_by(&both, 0);
        leaves_by(&single, 0);
    }
}

#[test]
fn a_network_without_uplinks_reaches_nobody_outside() {
    let Some(node) = Node::open("airgap", 2) else { return };
    let dns = "dns: { servers: [192.0.2.53] }";
    node.apply(&[
        tenant("open"),
        tenant("shut"),
        network("open", "10.10.1.0/24", &["uplinks: [eth0]", dns]),
        network("shut", "10.10.1.0/24", &[dns]),
    ]);
    let (open, shut) = (node.place("open", "a", A), node.place("shut", "a", A));
    let peer = node.place("shut", "b", B);
    let _served = node.town.serve(&peer.ns, "b");
    let beyond = [Town::SITE, Town::gateway_address(0), Town::gateway_address(1)];
    assert!(open.pings(beyond[0]) && open.pings(beyond[1]));
    open.reaches(&http(Town::SITE), "site");
    assert_eq!(open.dig(GATEWAY, "site.example"), [Town::SITE]);
    // Inside it is a network like any.
    shut.reaches(&http(B), "b");
    assert_eq!(shut.dig(GATEWAY, "b"), [B]);
    for address in beyond.into_iter().chain([Town::host_address(0), Town::host_address(1)]) {
        assert!(!shut.pings(address), "{address} is outside");
    }
    shut.is_refused(&http(Town::SITE));
    assert_eq!(shut.dig(GATEWAY, "site.example"), [] as [Ipv4Addr; 0]);
}
