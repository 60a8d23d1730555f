//! Fragments, errors, tenants that want it otherwise, aliases that end.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use fief_testkit::{Capture, Frame, eventually, inject_all};

use crate::room::{NEVER, Room, SOON};
use crate::truth::{client, serve, serve_in};

/// Datagrams larger than the wire, there and back, from both at once.
#[test]
fn fragments_go_the_same_way() {
    let Some(room) = Room::open("udp-fragments", 2, "") else { return };
    let _server = serve(&room, "6", 7000, 2, "plain");
    for v6 in [false, true] {
        let clients = [0, 1].map(|i| client(&room, i, v6, 5000));
        let words = [0u8, 1].map(|i| (0..7000u32).map(|n| (n % 251) as u8 ^ (i << 7)).collect::<Vec<u8>>());
        for (i, socket) in clients.iter().enumerate() {
            socket.send_to(&words[i], SocketAddr::new(room.local(i, v6).ip(), 7000)).expect("it may speak");
        }
        for (i, socket) in clients.iter().enumerate() {
            let mut answer = vec![0; 65_536];
            let (length, from) =
                socket.recv_from(&mut answer).unwrap_or_else(|e| panic!("tenant {i} v6 {v6}: {e}"));
            assert_eq!(from.ip(), room.local(i, v6).ip());
            assert_eq!(answer[..length], words[i], "tenant {i} v6 {v6}");
        }
    }
}

/// An answer to a client that is gone brings an error, and the server hears of it by the address it knows.
#[test]
fn an_error_about_an_answer_names_the_alias() {
    let Some(room) = Room::open("udp-errors", 2, "") else { return };
    for (family, port) in [("4", 7000u16), ("6", 7001)] {
        let v6 = family == "6";
        // A server that shows the address of each error (IP_RECVERR), which is an answer's destination.
        let script = r#"
import socket, sys
v6, port = sys.argv[1] == "6", int(sys.argv[2])
sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(*((socket.IPPROTO_IPV6, 25, 1) if v6 else (socket.IPPROTO_IP, 11, 1)))
sock.bind(("::" if v6 else "0.0.0.0", port))
print("ready", flush=True)
import select
data, peer = sock.recvfrom(100)
print("heard", peer[0], flush=True)
sock.sendto(data, peer)
poll = select.poll(); poll.register(sock, 0); poll.poll(8000)
_, _, _, about = sock.recvmsg(100, 500, socket.MSG_ERRQUEUE)
print("error about", about[0], "same" if about[0] == peer[0] else "another", flush=True)
"#;
        let argv = ["python3", "-u", "-c", script, family, &port.to_string()];
        let mut server = room.host().spawn_in_cgroup(room.lab.cgroup(), &argv);
        server.wait_for_output("ready", SOON);
        // From a port that nobody has: whoever answers is told so.
        let (street, from) = (&room.street, crate::room::client(v6).ip());
        let frame = Frame::new(street.router_mac(1), street.host_mac()).ip(from, room.local(1, v6).ip());
        inject_all(street.router(1), "eth0", &[frame.udp(5000, port, b"bye")]);
        server.wait_for_output("error about", SOON);
        assert!(server.output().contains("same"), "v6 {v6}: {}", server.output());
    }
}

/// `udp: refuse` and `udp: pktinfo`, beside a tenant with aliases.
#[test]
fn a_tenant_chooses() {
    let room = Room::with("udp-choice", 3, "", |_, street| {
        [street.yaml(0), street.yaml_with(1, "  udp: refuse\n"), street.yaml_with(2, "  udp: pktinfo\n")]
            .join("---\n")
    });
    let Some(room) = room else { return };
    let plain = serve(&room, "6", 7000, 1, "plain");
    let _asking = serve(&room, "6", 7001, 1, "pktinfo");
    for v6 in [false, true] {
        for tenant in 0..3 {
            let socket = client(&room, tenant, v6, 5000);
            let ask = |port: u16, timeout| {
                socket.set_read_timeout(Some(timeout)).expect("a time-out");
                socket
                    .send_to(b"hello", SocketAddr::new(room.local(tenant, v6).ip(), port))
                    .expect("it may speak");
                socket.recv_from(&mut [0; 16]).is_ok()
            };
            assert!(
                ask(7001, SOON),
                "whoever asks which address was called serves everybody: {tenant} v6 {v6}"
            );
            // A server that does not ask has no way to tell the third one's client from the others'.
            let served = tenant == 0;
            assert_eq!(ask(7000, if served { SOON } else { NEVER }), served, "tenant {tenant} v6 {v6}");
        }
    }
    assert_eq!(room.count(1, "dropAlias"), 2, "each refused datagram is counted");
    assert_eq!(room.count(0, "dropAlias"), 0);
    drop(plain);
}

/// An idle alias is forgotten, and the same client gets another; those of a deleted tenant go at once.
#[test]
fn an_idle_alias_is_forgotten_and_never_given_to_another() {
    let Some(room) = Room::open("udp-idle", 2, "aliasIdle: 1\n") else { return };
    let server = room.inside(room.host(), || UdpSocket::bind("0.0.0.0:7000")).expect("a port");
    server.set_read_timeout(Some(SOON)).expect("a time-out");
    let alias_of = |tenant: usize| {
        let socket = client(&room, tenant, false, 5000);
        socket.send_to(b"hello", (room.local(tenant, false).ip(), 7000)).expect("it may speak");
        server.recv_from(&mut [0; 16]).expect("it arrives").1
    };
    let first = alias_of(0);
    assert_eq!(alias_of(0), first, "one client, one alias");
    let knows = |alias: SocketAddr| room.daemon.cli(&["explain", &alias.ip().to_string()]).success();
    assert!(knows(first));
    eventually(SOON, || if knows(first) { Err("still known".to_owned()) } else { Ok(()) });
    let seen = Capture::on(room.street.client(0), "eth0");
    let late = room.host().enter(|| server.send_to(b"too late", first));
    assert!(late.is_err(), "an alias that is forgotten leads nowhere: {late:?}");
    assert!(!seen.wait_for(b"too late", NEVER));
    let second = alias_of(0);
    assert_ne!(second, first, "a number is not given again at once");
    let other = alias_of(1);
    assert!(knows(other));
    room.daemon.cli(&["delete", "tenant", "t1"]).ok();
    assert!(!knows(other), "a deleted tenant's aliases go with it");
    assert!(server.send_to(b"gone", other).is_err(), "nor do they lead anywhere");
}

/// Servers that were bound before there was any fief, and a fief that came back.
#[test]
fn servers_from_before_are_answered_for() {
    let mut servers = Vec::new();
    let room = Room::with("udp-before", 2, "", |lab, street| {
        servers.push(serve_in(lab, &street.host, "6", 7000, 1, "plain"));
        servers.push(serve_in(lab, &street.host, "6", 7001, 1, "pktinfo"));
        street.documents()
    });
    let Some(mut room) = room else { return };
    for restarted in [false, true] {
        for (port, v6, tenant) in [7000, 7001]
            .into_iter()
            .flat_map(|port| [(port, false, 0), (port, false, 1), (port, true, 0), (port, true, 1)])
        {
            let (socket, to) =
                (client(&room, tenant, v6, 5000), SocketAddr::new(room.local(tenant, v6).ip(), port));
            socket.send_to(b"hello", to).expect("it may speak");
            let from = socket.recv_from(&mut [0; 16]).map(|(_, from)| from);
            assert_eq!(from.ok(), Some(to), "port {port} tenant {tenant} v6 {v6} restarted {restarted}");
        }
        if !restarted {
            room.daemon.restart();
        }
    }
}

/// A tenant's own client on this host, whose datagrams cross no wire.
#[test]
fn a_tenants_client_on_the_host_is_answered() {
    let Some(room) = Room::open("udp-own", 2, "") else { return };
    let _servers = [("plain", 7000), ("pktinfo", 7001)].map(|(kind, port)| serve(&room, "6", port, 1, kind));
    let (fief, peer) =
        (fief_testkit::bin("fief").display().to_string(), fief_testkit::peer().display().to_string());
    for port in [7000, 7001] {
        for (v6, tenant) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
            let to = SocketAddr::new(room.local(tenant, v6).ip(), port).to_string();
            let argv = [&fief, "exec", &room.street.name(tenant), "--", &peer, "udp", &to, "hello"];
            let said = room.host().command(&argv).cgroup(room.lab.cgroup()).run().ok().stdout;
            assert_eq!(said, format!("hello\nfrom {to}\n"), "port {port} tenant {tenant} v6 {v6}");
        }
    }
}

/// A tenant that has used up its aliases gets no more of them, and takes nobody else's.
#[test]
fn a_full_table_drops_and_counts() {
    /// ALIASES_EACH of bpf/lib/alias.h.
    const MOST: u32 = 16_384;
    const MORE: u32 = 40;
    let Some(room) = Room::open("udp-full", 2, "") else { return };
    let server = room.inside(room.host(), || UdpSocket::bind("0.0.0.0:7000")).expect("a port");
    server.set_read_timeout(Some(NEVER)).expect("a time-out");
    let (street, local) = (&room.street, room.local(0, false).ip());
    let frame = |from: u32| {
        let ip =
            Frame::new(street.router_mac(0), street.host_mac()).ip(Ipv4Addr::from(0x0a01_0000 + from), local);
        ip.udp(5000, 7000, b"one of many")
    };
    let (mut heard, mut sent) = (0, 0);
    while sent < MOST + MORE {
        // No more at once than the server's buffer holds.
        let frames: Vec<Vec<u8>> = (sent..(sent + 64).min(MOST + MORE)).map(frame).collect();
        inject_all(street.router(0), "eth0", &frames);
        sent += frames.len() as u32;
        while heard < sent && server.recv(&mut [0; 16]).is_ok() {
            heard += 1;
        }
    }
    assert_eq!(heard, MOST, "as many as there are aliases");
    assert_eq!(room.count(0, "dropAlias"), u64::from(MORE));
    let other = client(&room, 1, false, 5000);
    server.set_read_timeout(Some(SOON)).expect("a time-out");
    other.send_to(b"hello", (room.local(1, false).ip(), 7000)).expect("it may speak");
    assert!(server.recv(&mut [0; 16]).is_ok(), "another tenant has its own");
}

/// Nobody comes in with an alias for a sender, and none leaves the host.
#[test]
fn an_alias_is_nothing_on_the_wire() {
    let Some(room) = Room::open("udp-wire", 2, "") else { return };
    let _server = serve(&room, "4", 7000, 1, "plain");
    let router = room.street.router(0);
    router.ip("addr add 240.0.0.1/32 dev eth0\n");
    let before = room.count(0, "dropSpoof");
    let sender = router.enter(|| UdpSocket::bind("240.0.0.1:5000")).expect("its address");
    let seen = Capture::on(room.street.router(0), "eth0");
    sender.send_to(b"let me in", (room.local(0, false).ip(), 7000)).expect("it may speak");
    eventually(SOON, || match room.count(0, "dropSpoof") {
        now if now == before + 1 => Ok(()),
        now => Err(format!("{before}, then {now}")),
    });
    // The control: the same client by its own address.
    let socket = client(&room, 0, false, 5000);
    socket.send_to(b"hello", (room.local(0, false).ip(), 7000)).expect("it may speak");
    socket.recv(&mut [0; 16]).expect("it is answered");
    // Whoever is no server sends to an alias that stands for nobody: nothing leaves.
    for address in ["240.0.0.77", "247.1.2.3"] {
        let out = room.inside(room.host(), || {
            UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"astray", (address, 9)))
        });
        assert!(out.is_err(), "{address}: {out:?}");
    }
    assert!(!seen.wait_for(b"astray", NEVER));
    assert!(seen.contains(b"let me in"), "the capture sees this wire");
}
