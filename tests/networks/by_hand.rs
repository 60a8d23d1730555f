//! What the scenarios demand is possible in this town: three instances made by hand, with ip(8) and nft(8) only.
//!
//! ```text
//!   app ─ br0 ─ tenant I, zone I ─[transit]── 248.0.0.0/12 ──[fiefI]─ host, zone 0 ─ uplink
//! ```
//!
//! Nobody has to build it so; but an assertion that fails here is wrong, whoever builds what.

use std::net::Ipv4Addr;

use fief_testkit::{Capture, Ns};

use crate::app::App;
use crate::conntrack::{Entry, all_in, entries, opened};
use crate::node::http;
use crate::town::Town;

/// The port map, called from anywhere.
const PORT_MAP: &str = "http://192.168.0.2:8080/";

/// One instance: its namespace, and the workload in it.
struct Instance {
    ns: Ns,
    app: App,
}

/// Instance `i` of a subnet by an uplink, with an app at .50.
#[track_caller]
fn instance(town: &Town, i: usize, subnet: &str, uplink: usize) -> Instance {
    let ns = town.lab.ns(&format!("ni{i}"));
    let app = App::new(town, &format!("app{i}"));
    let [near, far] = [1, 2].map(|last| Ipv4Addr::new(248, 0, i as u8, last));
    town.lab.veth((&ns, "transit"), (&town.host, &format!("fief{i}")));
    ns.set_sysctl("net.ipv4.ip_forward", 1);
    ns.ip(&format!(
        "addr add {far}/30 dev transit\nroute add default via {near}\n\
         link add br0 type bridge\nlink set br0 up\naddr add {subnet}.1/24 dev br0\n\
         link add port type veth peer name eth0 netns {}\nlink set port master br0 up\n",
        app.ns.name()
    ));
    ns.nft(&format!(
        "table ip hand {{
           chain raw {{ type filter hook prerouting priority raw; ct zone set {i}; }}
           chain own {{ type filter hook output priority raw; ct zone set {i}; }}
           chain to {{ type nat hook prerouting priority dstnat; iif transit tcp dport 8080 dnat to {subnet}.50:80; }}
           chain from {{ type nat hook postrouting priority srcnat; oif transit masquerade; }}
         }}"
    ));
    app.ns.ip(&format!(
        "link set eth0 up\naddr add {subnet}.50/24 dev eth0\nroute add default via {subnet}.1\n"
    ));
    let gateway = Town::gateway_address(uplink);
    town.host.ip(&format!(
        "addr add {near}/30 dev fief{i}\nrule add pref 10 iif fief{i} lookup {i}\n\
         route add default via {gateway} dev eth{uplink} table {i}\n"
    ));
    Instance { ns, app }
}

/// The port map of eth0 to instance 2, for callers from eth0 and from the instances that leave by it; sources of what
/// goes into an instance become the host's, since they may be anybody's there.
#[track_caller]
fn open_host(town: &Town) {
    let host = &town.host;
    host.set_sysctl("net.ipv4.ip_forward", 1);
    for device in ["eth0", "eth1"] {
        host.set_sysctl(&format!("net.ipv4.conf.{device}.accept_local"), 1);
    }
    host.ip("rule add pref 4 to 248.0.0.0/12 lookup local\nrule add pref 5 to 248.0.0.0/12 lookup main\nrule add pref 20 lookup local\nrule del pref 0\n");
    host.nft(
        "table ip hand {
           chain to { type nat hook prerouting priority dstnat;
             iifname { eth0, fief1, fief2 } ip daddr 192.168.0.2 tcp dport 8080 dnat to 248.0.2.2; }
           chain from { type nat hook postrouting priority srcnat;
             oifname fief2 masquerade; oifname { eth0, eth1 } ip saddr 248.0.0.0/12 masquerade; }
         }",
    );
}

#[test]
fn port_maps_and_zones_can_be_had_by_hand() {
    let Some(town) = Town::open("by-hand", 2) else { return };
    let ni1 = instance(&town, 1, "10.10.1", 0);
    let ni2 = instance(&town, 2, "192.168.1", 0);
    let ni3 = instance(&town, 3, "10.10.1", 1);
    open_host(&town);
    let _served = town.serve(&ni2.app.ns, "app2");
    let conntrack = town.tools.conntrack.display().to_string();
    let list = |ns: &Ns| -> Vec<Entry> { entries(&ns.run(&[conntrack.as_str(), "-L"])) };
    let called = Town::host_address(0);

    assert_eq!(ni1.app.reaches(&http(Town::SITE), "site"), Town::host_address(0));
    assert_eq!(ni3.app.reaches(&http(Town::SITE), "site"), Town::host_address(1));
    all_in("a way out", &opened(&list(&ni1.ns), Town::SITE, 80), 1);
    all_in("translated", &opened(&list(&town.host), Town::SITE, 80), 0);
    // E5, E6, E19.
    for caller in [&ni1.app, &ni2.app, &App::of(&town, town.gateways[0].clone())] {
        caller.reaches(PORT_MAP, "app2");
    }
    all_in("NI1", &opened(&list(&ni1.ns), called, 8080), 1);
    all_in("the uplink", &opened(&list(&town.host), called, 8080), 0);
    // E10: it leaves by one uplink, comes back by the other, and its answers go the same way.
    let wires = [0, 1].map(|uplink| Capture::on(&town.gateways[uplink], "eth0"));
    let seen = ni3.app.reaches(PORT_MAP, "app2");
    assert_eq!(seen, Ipv4Addr::new(248, 0, 2, 1));
    assert!(wires.iter().all(|wire| wire.contains(b"app2 sees")), "the answer crosses both segments");
    all_in("NI3", &opened(&list(&ni3.ns), called, 8080), 3);
    all_in("NI2", &list(&ni2.ns).iter().filter(|entry| entry.back.from_port == 80).collect::<Vec<_>>(), 2);
    all_in("the uplink", &opened(&list(&town.host), called, 8080), 0);
}
