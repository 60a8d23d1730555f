//! The town and the tools answer without fief, so that what the scenarios find missing is fief's doing.

use std::net::Ipv4Addr;
use std::time::Duration;

use fief_testkit::{Snapshot, eventually};

use crate::app::App;
use crate::conntrack::{all_in, entries, opened};
use crate::flow::{Flow, Talk};
use crate::machine::{Machine, in_namespace, tap};
use crate::node::http;
use crate::room::SOON;
use crate::town::Town;

#[test]
fn every_uplink_leads_outside_and_to_every_other() {
    let Some(mut town) = Town::whole("town") else { return };
    let host = App::of(&town, town.host.clone());
    host.resolve_by(&[Town::RESOLVER]);
    assert_eq!(host.reaches(&http(Town::SITE), "site"), Town::host_address(0), "the lowest metric");
    assert_eq!(host.reaches("http://site.example/", "site"), Town::host_address(0), "by name");
    for uplink in 0..4 {
        let own = Town::host_address(uplink).to_string();
        let curl = town.tools.curl.display().to_string();
        let device = format!("eth{uplink}");
        let words = [curl.as_str(), "-sS", "--noproxy", "*", "--max-time", "5", "--interface", &device];
        let page = town.host.run(&[&words[..], &[http(Town::SITE).as_str()]].concat()).ok().stdout;
        assert_eq!(page.trim_end(), format!("site sees {own}"));
        assert!(host.pings(Town::gateway_address(uplink)));
    }
    // The way of the scenario in which a packet leaves the box by one uplink and comes back by another.
    let _served = town.serve(&town.host, "host");
    let neighbour = App::of(&town, town.neighbour(1, "n1", 77));
    assert_eq!(neighbour.reaches(&http(Town::host_address(0)), "host"), Ipv4Addr::new(192, 168, 1, 77));
    assert_eq!(
        App::of(&town, town.gateways[0].clone()).reaches(&http(Town::host_address(0)), "host").octets()[2],
        0
    );
    town.assert_alive();
}

#[test]
fn a_source_that_nobody_knows_gets_no_answer() {
    let Some(town) = Town::open("town-source", 1) else { return };
    let neighbour = App::of(&town, town.neighbour(0, "n0", 77));
    neighbour.reaches(&http(Town::SITE), "site");
    // As a tenant's packet that was not translated.
    neighbour.ns.ip("addr add 10.10.1.50/32 dev eth0\n");
    let from = "route replace default via 192.168.0.1 src 10.10.1.50\n";
    neighbour.ns.ip(from);
    neighbour.is_refused(&http(Town::SITE));
}

#[test]
fn both_clouds_serve_the_same_address() {
    let Some(town) = Town::whole("town-clouds") else { return };
    let inside = Ipv4Addr::new(192, 168, 0, 1);
    // By another uplink than eth0: a cloud believes 192.168.0.0/24 to be its own.
    let outside = App::of(&town, town.neighbour(3, "n3", 20));
    for (number, cloud) in (1..).zip(&town.clouds) {
        let who = format!("cloud{number}");
        App::of(&town, cloud.clone()).reaches(&http(inside), &who);
        outside.reaches(&http(Ipv4Addr::new(192, 168, 111 * number, 1)), &who);
    }
    // And that address is somebody else's outside of them.
    App::of(&town, town.host.clone()).reaches(&http(inside), "gw0");
}

#[test]
fn clients_of_dhcp_get_leases_on_the_last_segment() {
    let Some(town) = Town::whole("town-dhcp") else { return };
    let app = App::new(&town, "app6");
    town.segments[3].attach(&app.ns, "eth0");
    let lease = app.udhcpc("eth0");
    assert!((50..=150).contains(&lease.address.octets()[3]), "{}", lease.address);
    assert_eq!(app.address("eth0"), Some(lease.address));
    let said = ["router", "lease", "mtu", "ntpsrv"].map(|name| lease.said(name));
    assert_eq!(said, ["192.168.3.1", "3600", "1400", "192.0.2.123"].map(Some));
    assert_eq!(app.reaches(&http(Town::SITE), "site"), lease.address);
    let other = App::new(&town, "other");
    town.segments[3].attach(&other.ns, "eth0");
    let second = other.dhclient("eth0");
    assert!((50..=150).contains(&second.octets()[3]) && second != lease.address, "{second}");
}

#[test]
fn a_machine_behind_a_tap_device_is_a_station_like_any() {
    let Some(town) = Town::whole("town-machine") else { return };
    let wire = &town.segments[3].ns;
    let card = in_namespace(&wire.path(), || tap("vm3")).expect("a namespace").expect("a TAP device");
    wire.ip("link set vm3 master br0 up\n");
    let guest = App::new(&town, "vm");
    let machine = Machine::start(card, &guest.ns, "02:00:00:00:03:03");
    let lease = guest.udhcpc("eth0");
    assert!(guest.pings(Town::gateway_address(3)));
    assert_eq!(guest.reaches(&http(Town::SITE), "site"), lease.address);
    drop(machine);
    guest.is_refused(&http(Town::SITE));
}

#[test]
fn names_are_those_of_the_resolver_that_is_asked() {
    let Some(town) = Town::open("town-names", 1) else { return };
    let host = App::of(&town, town.host.clone());
    assert_eq!(host.dig(Town::RESOLVER, "site.example"), [Town::SITE]);
    assert_eq!(host.dig(Town::RESOLVER, "nobody.example"), [] as [Ipv4Addr; 0]);
    assert!(town.asked().contains("site.example from 192.168.0.2"), "{}", town.asked());
    host.is_refused("http://site.example/");
    host.resolve_by(&[Town::RESOLVER]);
    host.reaches("http://site.example/", "site");
}

#[test]
fn zones_show_in_what_conntrack_lists() {
    let Some(town) = Town::open("town-zones", 1) else { return };
    let host = App::of(&town, town.host.clone());
    let conntrack = town.tools.conntrack.display().to_string();
    let list = |ns: &fief_testkit::Ns| entries(&ns.run(&[conntrack.as_str(), "-L"]));
    host.reaches(&http(Town::SITE), "site");
    all_in("no zone", &opened(&list(&town.gateways[0]), Town::SITE, 80), 0);
    assert!(list(&town.host).is_empty(), "the host keeps nothing yet");
    town.host.nft(
        "table ip zones { chain o { type filter hook output priority raw; ct zone set 7; }
         chain p { type filter hook prerouting priority raw; ct zone set 7; }
         chain c { type filter hook output priority 0; ct state invalid counter; }; }",
    );
    host.reaches(&http(Town::SITE), "site");
    all_in("zone 7", &opened(&list(&town.host), Town::SITE, 80), 7);
}

#[test]
fn a_flow_loses_nothing_and_sees_what_is_lost() {
    let Some(town) = Town::open("town-flow", 1) else { return };
    let host = App::of(&town, town.host.clone());
    let _echo = App::of(&town, town.site.clone()).echo(7000);
    let to = (Town::SITE, 7000).into();
    let mut talk = Talk::open(&host.ns, to);
    let flow = Flow::start(&host.ns, to);
    (0..200).for_each(|_| talk.goes_on());
    crate::room::wait(Duration::from_millis(300));
    println!("{:?}", flow.lost_nothing());
    // The positive control of every `lost_nothing`.
    let flow = Flow::start(&host.ns, to);
    town.carrier(0, false);
    crate::room::wait(Duration::from_millis(100));
    town.carrier(0, true);
    eventually(SOON, || host.hears(to, Duration::from_millis(500)));
    let tally = flow.finish();
    assert!(tally.returned < tally.sent, "{tally:?}");
    talk.goes_on();
}

#[test]
fn a_pulled_cable_takes_one_uplink_and_leaves_the_rest() {
    let Some(town) = Town::open("town-cable", 2) else { return };
    let host = App::of(&town, town.host.clone());
    let before = Snapshot::of(&town.host);
    before.assert_same(&Snapshot::of(&town.host));
    assert_eq!(host.get(&http(Town::SITE)), host.glance(Town::SITE));
    town.carrier(0, false);
    assert!(host.glance(Town::SITE).is_err());
    assert!(!host.pings(Town::gateway_address(0)) && host.pings(Town::gateway_address(1)));
    assert!(before.diff(&Snapshot::of(&town.host)).is_some(), "a lost carrier shows");
    town.carrier(0, true);
    eventually(SOON, || if host.pings(Town::gateway_address(0)) { Ok(()) } else { Err("no carrier".into()) });
    assert_eq!(host.reaches(&http(Town::SITE), "site"), Town::host_address(0));
    eventually(SOON, || before.diff(&Snapshot::of(&town.host)).map_or(Ok(()), Err));
}
