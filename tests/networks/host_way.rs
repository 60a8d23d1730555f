//! The short way on the host: most packets of a conversation with the outside pass neither its routes nor its filters, and
//! nobody notices.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use fief_testkit::{Ns, eventually};

use crate::app::App;
use crate::flow::{Flow, Talk};
use crate::node::{Node, in_vrfs, network, tenant};
use crate::room::{SOON, wait};
use crate::town::Town;

pub const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
pub const ECHO: u16 = 7000;
const OWN: u16 = 5555;
/// Packets follow one that took the whole way for so long.
pub const A_WHILE: Duration = Duration::from_secs(1);

/// A node whose packets may take a short way; tenants with VRFs have none.
pub fn open(name: &str, uplinks: usize) -> Option<Node> {
    if in_vrfs() {
        fief_testkit::skip("tenants with VRFs have no short way");
        return None;
    }
    Node::open(name, uplinks)
}

/// Counts what the host forwards from here on.
#[track_caller]
pub fn count(node: &Node) {
    node.town.host.nft(
        "add table inet probe; add counter inet probe passed; \
         add chain inet probe forwarded { type filter hook forward priority -200; }; \
         add rule inet probe forwarded counter name passed",
    );
}

/// What that is since it was asked last.
#[track_caller]
pub fn counted(node: &Node) -> u64 {
    let words = ["nft", "reset", "counter", "inet", "probe", "passed"];
    let listed = node.town.host.run(&words).ok().stdout;
    let (_, packets) = listed.split_once("packets ").expect("a counter counts packets");
    packets.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// A tenant with an endpoint `a` and this uplink.
#[track_caller]
pub fn settle(node: &Node, name: &str, more: &[&str]) -> App {
    node.apply(&[tenant(name), network(name, "10.10.1.0/24", more)]);
    node.place(name, "a", A)
}

#[test]
fn conversations_with_the_outside_take_the_short_way_through_the_host() {
    let Some(node) = open("host-way", 1) else { return };
    let map = "portMaps: [{ uplink: eth0, port: 8007, to: \"a:7000\", protocol: tcp }]";
    let a = settle(&node, "ni1", &["uplinks: [eth0]", map]);
    let site = App::of(&node.town, node.town.site.clone());
    let _echoes = [site.echo(ECHO), a.echo(ECHO)];
    count(&node);
    let flow = Flow::start(&a.ns, (Town::SITE, ECHO).into());
    wait(Duration::from_millis(2500));
    let sent = flow.lost_nothing().sent;
    let whole = counted(&node);
    assert!((2..40).contains(&whole), "{whole} of {sent} datagrams there and back took the whole way");
    // Out, and in by a port map.
    let inwards = SocketAddr::from((Town::host_address(0), 8007));
    for (from, to) in [(&a.ns, (Town::SITE, ECHO).into()), (&site.ns, inwards)] {
        let mut talk = Talk::open(from, to);
        // Long enough for connection tracking to lose sight of the window.
        let begin = Instant::now();
        let mut rounds = 0;
        while begin.elapsed() < 2 * A_WHILE {
            talk.goes_on();
            rounds += 1;
        }
        let whole = counted(&node);
        assert!(rounds > 500 && (3..60).contains(&whole), "{whole} packets of {rounds} rounds to {to}");
        let states = || node.host_entries().into_iter().map(|entry| format!("{entry:?}"));
        let is_open = |line: &String| line.contains("ESTABLISHED");
        assert!(states().any(|line| is_open(&line)), "{:?}", states().collect::<Vec<_>>());
        drop(talk);
        eventually(SOON, || match states().find(is_open) {
            Some(open) => Err(open),
            None => Ok(()),
        });
        counted(&node);
    }
    // What is no conversation has no short way.
    (0..20).for_each(|_| assert!(a.pings(Town::SITE)));
    assert!(counted(&node) >= 40, "each ping and its answer take the whole way");
}

#[test]
fn the_host_sees_all_packets_where_it_is_told_to() {
    let Some(town) = Town::open("host-whole", 1) else { return };
    let node = Node::in_town(town, "hostWay: whole\n");
    let a = settle(&node, "ni1", &["uplinks: [eth0]"]);
    let _echo = App::of(&node.town, node.town.site.clone()).echo(ECHO);
    count(&node);
    let flow = Flow::start(&a.ns, (Town::SITE, ECHO).into());
    wait(Duration::from_millis(500));
    let sent = flow.lost_nothing().sent;
    let whole = counted(&node);
    assert!(whole >= 2 * sent, "{whole} of {sent} datagrams there and back");
}

#[test]
fn what_the_host_lets_through_no_more_ends_on_its_short_way_too() {
    let Some(node) = open("host-end", 1) else { return };
    let a = settle(&node, "ni1", &["uplinks: [eth0]"]);
    let _echo = App::of(&node.town, node.town.site.clone()).echo(ECHO);
    count(&node);
    for which in ["dport", "sport"] {
        let flow = Flow::start(&a.ns, (Town::SITE, ECHO).into());
        wait(Duration::from_millis(500));
        node.town.host.nft(&format!("add rule inet probe forwarded udp {which} {ECHO} drop"));
        wait(Duration::from_secs(3));
        let tally = flow.finish();
        assert!(tally.lost.len() > 900, "most of what came in these three seconds is lost: {tally:?}");
        assert!(tally.returned > 300, "before, it was not: {tally:?}");
        node.town.host.nft("flush chain inet probe forwarded");
    }
}

/// Counts packets to or from the echo that are so, and all of them, where they arrive: before pieces are put together.
#[track_caller]
fn sort(ns: &Ns, port: &str, is_so: &str) {
    ns.nft(&format!(
        "add table inet sort; add counter inet sort so; add counter inet sort each; \
         add chain inet sort arriving {{ type filter hook prerouting priority -450; }}; \
         add rule inet sort arriving udp {port} {ECHO} {is_so} counter name so; \
         add rule inet sort arriving udp {port} {ECHO} counter name each"
    ));
}

/// How many there were, and of how many.
#[track_caller]
fn sorted(ns: &Ns) -> [u64; 2] {
    ["so", "each"].map(|counter| {
        let listed = ns.run(&["nft", "list", "counter", "inet", "sort", counter]).ok().stdout;
        let (_, packets) = listed.split_once("packets ").expect("a counter counts packets");
        packets.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    })
}

#[test]
fn the_short_way_takes_as_many_hops_as_the_whole_one() {
    let Some(node) = open("host-hops", 1) else { return };
    let a = settle(&node, "ni1", &["uplinks: [eth0]"]);
    let _echo = App::of(&node.town, node.town.site.clone()).echo(ECHO);
    // The namespace and the host on the way out, and the uplink's router before them on the way back.
    sort(&node.town.gateways[0], "dport", "ip ttl 62");
    sort(&a.ns, "sport", "ip ttl 61");
    let flow = Flow::start(&a.ns, (Town::SITE, ECHO).into());
    wait(Duration::from_millis(1500));
    flow.lost_nothing();
    for ns in [&node.town.gateways[0], &a.ns] {
        let [right, all] = sorted(ns);
        assert!(right > 1000 && right == all, "{right} of {all} came to {} as they should", ns.short());
    }
}

#[test]
fn a_packet_that_is_too_long_for_a_filter_does_not_follow_smaller_ones() {
    let Some(node) = open("host-long", 1) else { return };
    let a = settle(&node, "ni1", &["uplinks: [eth0]"]);
    let site = Site::open(&node);
    count(&node);
    let socket = caller(&a.ns, (Ipv4Addr::UNSPECIFIED, OWN));
    for is_open in [true, false] {
        if !is_open {
            node.town.host.nft("add rule inet probe forwarded ip length > 1300 drop");
            // What went before is forgotten.
            wait(A_WHILE + A_WHILE / 4);
        }
        let (begin, mut small, mut large) = (Instant::now(), 0, 0);
        while begin.elapsed() < 2 * A_WHILE {
            site.asked_by(&socket, b'A');
            small += 1;
            socket.send(&[b'A'; 1400]).expect("a datagram can be sent");
            large += u32::from(site.answers().is_some());
            heard(&socket);
        }
        assert!(small > 20, "small ones arrive");
        assert_eq!(large, if is_open { small } else { 0 }, "of {small}");
    }
}

#[test]
fn much_data_goes_by_few_looks() {
    const MUCH: usize = 32 << 20;
    let Some(node) = open("host-much", 1) else { return };
    let a = settle(&node, "ni1", &["uplinks: [eth0]"]);
    let listener = node.town.site.enter(|| TcpListener::bind((Town::SITE, ECHO))).expect("the port is free");
    let calling = a.ns.enter(|| TcpStream::connect((Town::SITE, ECHO))).expect("the site listens");
    let called = listener.accept().expect("somebody has called").0;
    count(&node);
    for [from, to] in [[&calling, &called], [&called, &calling]] {
        let sent = std::thread::scope(|scope| {
            scope.spawn(|| { &*from }.write_all(&vec![7; MUCH]).expect("the connection is open"));
            let mut all = vec![0; MUCH];
            { &*to }.read_exact(&mut all).expect("the connection is open");
            all
        });
        assert!(sent.iter().all(|byte| *byte == 7), "what was sent has come");
        let whole = counted(&node);
        assert!((1..200).contains(&whole), "{whole} packets took the whole way");
    }
}

/// A socket that calls the site.
#[track_caller]
fn caller(ns: &Ns, own: (Ipv4Addr, u16)) -> UdpSocket {
    let socket = ns.enter(|| UdpSocket::bind(own)).expect("the port is free");
    ns.enter(|| socket.connect((Town::SITE, ECHO))).expect("a route is there");
    socket.set_nonblocking(true).expect("a socket need not wait");
    socket
}

/// The site, and what callers said to it.
struct Site(UdpSocket);

impl Site {
    #[track_caller]
    fn open(node: &Node) -> Site {
        let socket = node.town.site.enter(|| UdpSocket::bind((Town::SITE, ECHO))).expect("the port is free");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket has a time-out");
        Site(socket)
    }

    /// Who said something last, and from where; it is said back.
    fn answers(&self) -> Option<(u8, SocketAddr)> {
        let mut said = [0; 1500];
        let (_, from) = self.0.recv_from(&mut said).ok()?;
        self.0.send_to(&said[..1], from).ok()?;
        Some((said[0], from))
    }

    /// Asks as `who` until the answer has come; says from where the site was asked.
    #[track_caller]
    fn asked_by(&self, socket: &UdpSocket, who: u8) -> SocketAddr {
        eventually(SOON, || {
            socket.send(&[who]).map_err(|error| error.to_string())?;
            let (_, from) = self.answers().ok_or("the site hears nothing")?;
            wait(Duration::from_millis(2));
            match heard(socket).contains(&who) {
                true => Ok(from),
                false => Err("no answer".to_owned()),
            }
        })
    }
}

/// All that has come to a socket.
fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut byte = [0; 1];
    std::iter::from_fn(|| match socket.recv(&mut byte) {
        Ok(_) => Some(byte[0]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("a socket has failed: {error}"),
    })
    .collect()
}

/// `former` has a place at the uplink and its packets are on the short way. The kernel forgets him, and `later` gets the
/// place. Then both go on speaking.
#[track_caller]
fn changes_hands(node: &Node, site: &Site, former: &UdpSocket, later: &UdpSocket) {
    // Neighbours are known, and the way is short.
    let before: Vec<SocketAddr> = (0..100).map(|_| site.asked_by(former, b'A')).collect();
    let place = before[0];
    assert!(before.iter().all(|from| *from == place), "{before:?}");
    assert_eq!(place, SocketAddr::V4(SocketAddrV4::new(Town::host_address(0), OWN)));
    let conntrack = node.town.tools.conntrack.display().to_string();
    let words = [conntrack.as_str(), "-D", "-p", "udp", "--sport", "5555", "--reply-port-dst", "5555"];
    let begin = Instant::now();
    node.town.host.run(&words).ok();
    let taken = eventually(SOON, || {
        later.send(b"B").map_err(|error| error.to_string())?;
        site.answers().ok_or_else(|| "the site hears nothing".to_owned())
    });
    assert_eq!(taken, (b'B', place), "who comes later has the place");
    assert!(begin.elapsed() < A_WHILE / 2, "the short way would be over by now");
    let mut others = 0;
    while begin.elapsed() < 3 * A_WHILE {
        for (who, socket) in [(b'A', former), (b'B', later)] {
            socket.send(&[who]).expect("a datagram can be sent");
            if let Some((said, from)) = site.answers() {
                assert_eq!(from == place, said == b'B', "{} comes from {from}", char::from(said));
                others += u32::from(said == b'A');
            }
        }
        wait(Duration::from_millis(1));
        let (to_former, to_later) = (heard(former), heard(later));
        assert!(!to_former.contains(&b'B'), "the former one hears what is for the later one");
        assert!(!to_later.contains(&b'A'), "the later one hears what is for the former one");
    }
    assert!(others > 100, "the former one goes on from another place");
}

#[test]
fn a_place_that_is_given_to_another_tenant_is_his_at_once() {
    let Some(node) = open("host-place", 1) else { return };
    let [a, b] = ["ni1", "ni2"].map(|name| settle(&node, name, &["uplinks: [eth0]"]));
    let site = Site::open(&node);
    let [former, later] = [&a, &b].map(|app| caller(&app.ns, (Ipv4Addr::UNSPECIFIED, OWN)));
    changes_hands(&node, &site, &former, &later);
}

#[test]
fn a_place_that_is_given_to_the_host_is_the_hosts_at_once() {
    let Some(node) = open("host-own", 1) else { return };
    let a = settle(&node, "ni1", &["uplinks: [eth0]"]);
    let site = Site::open(&node);
    let former = caller(&a.ns, (Ipv4Addr::UNSPECIFIED, OWN));
    let later = caller(&node.town.host, (Town::host_address(0), OWN));
    changes_hands(&node, &site, &former, &later);
}

#[test]
fn an_uplink_that_leads_nowhere_any_more_is_left_at_once() {
    let Some(node) = open("host-lost", 2) else { return };
    let a = settle(&node, "ni1", &["uplinks: [eth0, eth1]"]);
    let site = Site::open(&node);
    for round in 0..3 {
        let by = |uplink| IpAddr::from(Town::host_address(uplink));
        let socket = eventually(SOON, || {
            let socket = caller(&a.ns, (Ipv4Addr::UNSPECIFIED, 0));
            match site.asked_by(&socket, b'A').ip() {
                from if from == by(0) => Ok(socket),
                from => Err(format!("round {round}: the site sees {from}")),
            }
        });
        for _ in 0..50 {
            site.asked_by(&socket, b'A');
        }
        let route = format!("default via {} dev eth0 metric 100\n", Town::gateway_address(0));
        node.town.host.ip(&format!("route del {route}"));
        let begin = Instant::now();
        let mut last = Duration::ZERO;
        while begin.elapsed() < 2 * A_WHILE {
            // He may be told that it leads nowhere.
            let _ = socket.send(b"A");
            if site.answers().is_some() {
                last = begin.elapsed();
            }
        }
        assert!(last < A_WHILE / 3, "round {round}: by the old route {last:?} later");
        let fresh = caller(&a.ns, (Ipv4Addr::UNSPECIFIED, 0));
        assert_eq!(site.asked_by(&fresh, b'A').ip(), by(1), "round {round}");
        node.town.host.ip(&format!("route add {route}"));
    }
}
