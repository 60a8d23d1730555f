//! IPv6 inside of networks: workloads whose kernels make themselves addresses of what fief advertises.

use std::net::{Ipv6Addr, UdpSocket};

use fief_testkit::{Output, eventually};

use crate::app::App;
use crate::node::{Node, by_dhcp, endpoint, network, tenant};
use crate::room::SOON;
use crate::short::{count, counted};

const SUBNETS: &str = "10.10.1.0/24, fd00:10:1::/64";

/// A workload that takes advertisements, as most do.
fn workload(node: &Node, tenant: &str, name: &str) -> App {
    let app = node.workload(tenant, name);
    for (name, value) in [("accept_ra", 2), ("autoconf", 1), ("disable_ipv6", 0), ("addr_gen_mode", 0)] {
        app.ns.set_sysctl(&format!("net.ipv6.conf.default.{name}"), value);
    }
    app
}

/// An endpoint with fd00:10:1::LAST.
fn fixed(node: &Node, tenant: &str, name: &str, last: &str) -> App {
    let app = workload(node, tenant, name);
    let at = format!("{{ network: net, interface: eth0, address: 'fd00:10:1::{last}' }}");
    node.apply(&[endpoint(tenant, name, &[at], &app.attach())]);
    app.wait_for("eth0");
    app
}

/// An endpoint that has no IPv6 address from anybody but itself, and that address.
#[track_caller]
fn by_itself(node: &Node, tenant: &str, name: &str) -> (App, Ipv6Addr) {
    let app = workload(node, tenant, name);
    node.apply(&[endpoint(tenant, name, &[by_dhcp("net", "eth0")], &app.attach())]);
    app.wait_for("eth0");
    let address = eventually(SOON, || {
        let shown = app.ns.run(&["ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"]).ok();
        let found =
            shown.stdout.split_once("inet6 ").and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
        found.filter(|_| !shown.stdout.contains("tentative")).ok_or(shown.stdout)
    });
    (app, address)
}

fn ping(app: &App, address: Ipv6Addr) -> Output {
    app.ns.run(&["ping", "-6", "-n", "-c", "1", "-W", "2", &address.to_string()])
}

#[track_caller]
fn reaches(app: &App, address: Ipv6Addr) {
    eventually(SOON, || {
        let output = ping(app, address);
        if output.success() { Ok(()) } else { Err(format!("{} {output}", app.ns.short())) }
    });
}

/// The AAAA records of a name, as the network's own resolver has them.
fn resolves(node: &Node, app: &App, name: &str) -> String {
    let dig = node.town.tools.dig.display().to_string();
    let words = [&dig, "+short", "+tries=1", "+time=8", "@fd00:10:1::1", name, "AAAA"];
    app.ns.run(&words).ok().stdout.trim().to_owned()
}

/// What ISC's client writes down of an IPv6 lease; it changes nothing and ends.
#[track_caller]
fn dhclient(node: &Node, app: &App) -> String {
    let leases = node.town.lab.dir().join(format!("{}.leases6", app.ns.short()));
    let pid = leases.with_extension("pid6");
    let words = ["-6", "-1", "-d", "-v", "-sf", "/bin/true", "-cf", "/dev/null", "-lf"];
    let client = words.iter().fold(app.ns.command(&[&node.town.tools.dhclient]), |it, word| it.arg(word));
    let client = client.arg(&leases).arg("-pf").arg(&pid).arg("eth0").spawn();
    eventually(SOON, || {
        let text = std::fs::read_to_string(&leases).unwrap_or_default();
        if text.contains("iaaddr") { Ok(text) } else { Err(client.output()) }
    })
}

#[test]
fn workloads_give_themselves_addresses_of_their_network_and_of_no_other() {
    let Some(mut node) = Node::open("six", 0) else { return };
    node.apply(&[tenant("red"), tenant("blue")]);
    // The same prefix twice.
    node.apply(&["red", "blue"].map(|name| network(name, SUBNETS, &["dhcp: {}"])));
    let [gateway, b, c] = [1, 0xb, 0xc].map(|last| Ipv6Addr::new(0xfd00, 0x10, 1, 0, 0, 0, 0, last));
    let peers = [fixed(&node, "red", "b", "b"), fixed(&node, "blue", "c", "c")];
    let (red, reds) = by_itself(&node, "red", "a");
    let (blue, blues) = by_itself(&node, "blue", "a");
    for (app, address, own, foreign) in [(&red, reds, b, c), (&blue, blues, c, b)] {
        assert_eq!(address.segments()[..4], [0xfd00, 0x10, 1, 0], "{address}");
        assert_ne!(address, own);
        reaches(app, gateway);
        reaches(app, own);
        // The other tenant's peer has an address of this prefix, and is reached from its own network only.
        let output = ping(app, foreign);
        assert!(!output.success(), "{} reaches {foreign}: {output}", app.ns.short());
        // Nothing leads out: there is no route to send it by.
        let routes = app.ns.run(&["ip", "-6", "route", "show", "default"]).ok().stdout;
        assert_eq!(routes, "");
    }
    let [own, foreign] = ["b.net.red.internal", "c.net.blue.internal"];
    assert_eq!(resolves(&node, &red, own), "fd00:10:1::b");
    assert_eq!(resolves(&node, &blue, foreign), "fd00:10:1::c");
    assert_eq!((resolves(&node, &red, foreign), resolves(&node, &blue, own)), (String::new(), String::new()));

    // What a document fixes is to be had by DHCP as well, as a virtual machine asks for it.
    for (app, address, name) in [(&peers[0], b, "red"), (&peers[1], c, "blue")] {
        let leased = dhclient(&node, app);
        assert!(leased.contains(&format!("iaaddr {address} ")), "{leased}");
        assert!(leased.contains(&format!("\"net.{name}.internal.\"")), "{leased}");
    }

    // A daemon that comes back goes on where it was: nobody loses an address, and newcomers get one.
    node.daemon.restart();
    let (late, address) = by_itself(&node, "red", "late");
    reaches(&late, reds);
    reaches(&red, address);
    assert_eq!(address.segments()[..4], [0xfd00, 0x10, 1, 0], "{address}");
}

#[test]
fn a_network_has_an_address_of_the_link_only_with_ipv6() {
    let Some(node) = Node::open("six-link", 0) else { return };
    node.apply(&[tenant("red"), network("red", SUBNETS, &[])]);
    node.wait_phase("network", "red", "net", "Ready");
    let shown = || node.run_inside("red", &["ip", "-6", "-o", "addr", "show", "dev", "n-net"]).ok().stdout;
    assert!(shown().contains("fe80::1/64") && shown().contains("fd00:10:1::1/64"), "{}", shown());
    node.apply(&[tenant("blue"), network("blue", "10.10.1.0/24", &[])]);
    node.wait_phase("network", "blue", "net", "Ready");
    let without = node.run_inside("blue", &["ip", "-6", "-o", "addr", "show", "dev", "n-net"]).ok().stdout;
    assert_eq!(without, "", "not even one that the kernel makes");
}

#[test]
fn conversations_take_the_short_way() {
    let Some(node) = Node::open("six-short", 0) else { return };
    node.apply(&[tenant("red"), network("red", SUBNETS, &["dhcp: {}"])]);
    let (a, b) = (fixed(&node, "red", "a", "a"), fixed(&node, "red", "b", "b"));
    let [from, to] = [0xa, 0xb].map(|last| Ipv6Addr::new(0xfd00, 0x10, 1, 0, 0, 0, 0, last));
    reaches(&a, to);
    let asks = a.ns.enter(|| UdpSocket::bind((from, 5555))).expect("the address is there");
    let answers = b.ns.enter(|| UdpSocket::bind((to, 7000))).expect("the address is there");
    for socket in [&asks, &answers] {
        socket.set_read_timeout(Some(SOON)).expect("a socket has a time-out");
    }
    count(&node, "red");
    let mut buffer = [0; 4];
    for round in 0..200_u32 {
        asks.send_to(&round.to_be_bytes(), (to, 7000)).expect("a route is there");
        let (_, who) = answers.recv_from(&mut buffer).expect("the question comes");
        assert_eq!((buffer, who), (round.to_be_bytes(), (from, 5555).into()));
        answers.send_to(&buffer, who).expect("a route is there");
        assert_eq!(asks.recv_from(&mut buffer).expect("the answer comes").1, (to, 7000).into());
    }
    let whole = counted(&node, "red");
    assert!((2..50).contains(&whole), "{whole} of 400 packets took the whole way");
    // Each echo and its answer take it.
    (0..10).for_each(|_| reaches(&a, to));
    assert!(counted(&node, "red") >= 20);
}
