//! Foreign bits pass fief's datapath: none is cleared, and none is added to later packets.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};

use fief_testkit::{Dial, Echo, EchoOptions, Ns};

use crate::room::{PORT, Room, SOON, echo};

/// Somebody else's bits. By the client's port:
///
/// - 40000 to 44999: on every packet, in both directions;
/// - 45000 to 49999: on the first one of a connection, saved with the connection, and restored on what comes;
/// - 50000 and above: never.
///
/// Counted behind everything that changes a mark; answers of a server of everybody pass postrouting twice, hence at the
/// device.
fn somebody(host: &Ns, mask: u32, foreign: u32) {
    host.nft(&format!(
        "table inet somebody {{
         counter kept {{ }}
         counter cleared {{ }}
         counter restored {{ }}
         counter forgotten {{ }}
         counter added {{ }}
         chain pre {{ type filter hook prerouting priority -150;
           th dport != {{ {PORT}, 8001 }} accept
           th sport 40000-44999 meta mark set meta mark or {foreign:#x}
           th sport 45000-49999 tcp flags & (syn|ack) == syn meta mark set meta mark or {foreign:#x}
           th sport 45000-49999 tcp flags & (syn|ack) == syn ct mark set meta mark and {keep:#x}
           th sport 45000-49999 ct mark {foreign:#x} meta mark set meta mark or {foreign:#x}; }}
         chain in {{ type filter hook input priority 400;
           th dport != {{ {PORT}, 8001 }} accept
           th sport 40000-44999 meta mark and {keep:#x} == {foreign:#x} counter name kept
           th sport 40000-44999 meta mark and {keep:#x} != {foreign:#x} counter name cleared
           th sport 45000-49999 meta mark and {keep:#x} == {foreign:#x} counter name restored
           th sport 45000-49999 meta mark and {keep:#x} != {foreign:#x} counter name forgotten
           th sport >= 50000 meta mark and {keep:#x} != 0 counter name added; }}
         chain out {{ type route hook output priority -150;
           th sport != {{ {PORT}, 8001 }} accept
           th dport 40000-44999 meta mark set meta mark or {foreign:#x}; }}
        }}
        table netdev somebody {{
         counter kept_out {{ }}
         counter cleared_out {{ }}
         counter added_out {{ }}
         chain post {{ type filter hook egress device eth0 priority 0;
           th sport != {{ {PORT}, 8001 }} accept
           th dport 40000-44999 meta mark and {keep:#x} == {foreign:#x} counter name kept_out
           th dport 40000-44999 meta mark and {keep:#x} != {foreign:#x} counter name cleared_out
           th dport >= 45000 meta mark and {keep:#x} != 0 counter name added_out; }}
        }}\n",
        keep = !mask,
    ));
}

/// What a named counter says.
#[track_caller]
fn counted(host: &Ns, name: &str) -> u64 {
    let family = if name.ends_with("_out") { "netdev" } else { "inet" };
    let listed = host.run(&["nft", "-j", "list", "counter", family, "somebody", name]).ok().json();
    let of =
        listed["nftables"].as_array().expect("a list").iter().find_map(|o| o["counter"]["packets"].as_u64());
    of.unwrap_or_else(|| panic!("no counter {name} in {listed}"))
}

/// Datagrams to and fro, as many as are asked for, one after the other.
#[track_caller]
fn datagrams(client: &Ns, to: SocketAddr, port: u16, count: usize) {
    client.enter(|| {
        let any: std::net::IpAddr = if to.is_ipv6() { [0_u16; 8].into() } else { [0_u8; 4].into() };
        let socket = UdpSocket::bind((any, port)).expect("free");
        socket.set_read_timeout(Some(SOON)).expect("an option");
        socket.connect(to).expect("a route");
        let mut answer = [0; 16];
        for i in 0..count {
            socket.send(&i.to_ne_bytes()).unwrap_or_else(|e| panic!("{to} {i}: {e}"));
            let length = socket.recv(&mut answer).unwrap_or_else(|e| panic!("{to} {i}: {e}"));
            assert_eq!(answer[..length], i.to_ne_bytes());
        }
    });
}

#[track_caller]
fn stream(client: &Ns, to: SocketAddr, port: u16, count: usize) {
    client.enter(|| {
        let any: std::net::IpAddr = if to.is_ipv6() { [0_u16; 8].into() } else { [0_u8; 4].into() };
        let mut stream = Dial::to(to).bind((any, port).into()).timeout(SOON).connect().expect("answered");
        stream.set_nodelay(true).expect("an option");
        let mut answer = [0; 8];
        for i in 0..count {
            stream
                .write_all(&i.to_ne_bytes())
                .and_then(|()| stream.read_exact(&mut answer))
                .expect("answered");
            assert_eq!(answer, i.to_ne_bytes());
        }
    });
}

#[test]
fn a_hundred_thousand_packets_keep_their_foreign_bits_and_give_none_away() {
    // Per layout: two tenants, two families, each so many there and back; and two layouts.
    const EACH: usize = 6_250;
    for (mask, foreign) in [(0xffff_u32, 0x8421_0000_u32), (0xffff_0000, 0x8421)] {
        let Some(room) = Room::open("field-pass", 2, &format!("markMask: \"{mask:#x}\"\n")) else { return };
        somebody(room.host(), mask, foreign);
        let _asks = room.server();
        // One that is told aliases of senders: its answers take the way through the programs of routes.
        let _told = room.inside(room.host(), || {
            let plain = EchoOptions::default();
            Echo::listen("[::]:8001".parse().expect("an address"), plain).expect("free")
        });
        for tenant in [0, 1] {
            let client = room.street.client(tenant);
            for v6 in [false, true] {
                let to = room.local(tenant, v6);
                datagrams(client, to, 40_001, EACH);
                datagrams(client, (to.ip(), 8001).into(), 40_002, 500);
                stream(client, to, 45_001, 250);
                datagrams(client, to, 50_001, 250);
                datagrams(client, (to.ip(), 8001).into(), 50_002, 250);
                stream(client, to, 50_003, 250);
            }
        }
        let host = room.host();
        let marked = 4 * (EACH as u64 + 500);
        assert_eq!((counted(host, "kept"), counted(host, "kept_out")), (marked, marked), "{mask:#x}");
        assert_eq!((counted(host, "cleared"), counted(host, "cleared_out")), (0, 0), "{mask:#x}");
        assert!(counted(host, "restored") >= 4 * 250, "{mask:#x}: the positive control of what is saved");
        assert_eq!(counted(host, "forgotten"), 0, "{mask:#x}");
        assert_eq!((counted(host, "added"), counted(host, "added_out")), (0, 0), "{mask:#x}");
    }
}

/// The positive control of `added_out`: without fief an accepted socket answers with the whole mark of its SYN where the
/// kernel is told to.
#[test]
fn without_fief_a_foreign_bit_comes_back_from_an_accepted_socket() {
    let Some(lab) = fief_testkit::Lab::new("field-pass-bare") else { return };
    let (host, client) = (lab.ns("host"), lab.ns("client"));
    lab.veth((&host, "eth0"), (&client, "eth0"));
    host.ip("addr add 192.0.2.1/24 dev eth0\n");
    client.ip("addr add 192.0.2.2/24 dev eth0\n");
    host.set_sysctl("net.ipv4.tcp_fwmark_accept", 1);
    somebody(&host, 0xffff, 0x8421_0000);
    let _server = host.enter(|| echo(&format!("0.0.0.0:{PORT}")));
    stream(&client, (std::net::Ipv4Addr::new(192, 0, 2, 1), PORT).into(), 45_001, 10);
    assert!(counted(&host, "added_out") > 0);
}

/// What the host and its neighbour know, for a failure.
fn state(room: &Room) -> String {
    let ask = "ss -tan; nft list ruleset; ip -s -s neigh; nstat -az | grep -v ' 0 '; ip -6 addr; ip -4 route; ip rule";
    let host = room.host().sh(ask).stdout;
    let router = room.street.router(0).sh("ss -tan; ip neigh; ip -6 addr").stdout;
    format!("--- host\n{host}--- router\n{router}--- log\n{}", room.daemon.log())
}

/// The host's own listener accepts as it did before fief: without its SYN's mark, or with, as the host's switch was.
#[test]
fn the_hosts_own_accepted_sockets_have_the_marks_they_had_before_fief() {
    for before in [0, 1] {
        let room = Room::with("field-pass-host", 1, "", |_, street| {
            street.host.set_sysctl("net.ipv4.tcp_fwmark_accept", before);
            street.documents()
        });
        let Some(room) = room else { return };
        somebody(room.host(), 0xffff, 0x8421_0000);
        let listener = room.inside(room.host(), || std::net::TcpListener::bind(("::", PORT)).expect("free"));
        for v6 in [false, true] {
            let from: std::net::IpAddr = if v6 { [0_u16; 8].into() } else { [0_u8; 4].into() };
            let to = crate::room::host_address(v6);
            let dial = Dial::to(to).bind((from, 45_001).into()).timeout(SOON);
            let held = room.street.router(0).enter(|| dial.connect());
            let held =
                held.unwrap_or_else(|e| panic!("v6 {v6}, the switch was {before}: {e}\n{}", state(&room)));
            let (accepted, _) = listener.accept().expect("a connection");
            let mark = fief_testkit::mark(&accepted).expect("an option");
            assert_eq!(mark, before * 0x8421_0000, "v6 {v6}, the switch was {before}");
            drop(held);
            // A client of the host itself, over loopback, that has marked its own socket.
            let to = crate::room::loopback(v6);
            let own = Dial::to(to).bind((to.ip(), 50_001).into()).mark(0x1080_0000).timeout(SOON);
            let held = room.host().enter(|| own.connect().expect("answered"));
            let (accepted, _) = listener.accept().expect("a connection");
            let mark = fief_testkit::mark(&accepted).expect("an option");
            assert_eq!(mark, before * 0x1080_0000, "over loopback, v6 {v6}, the switch was {before}");
            drop(held);
        }
    }
}
