//! The truth table: kind of server, same or different client port, one at a time or all outstanding, family.

use std::net::{SocketAddr, UdpSocket};

use fief_testkit::{Capture, Child, Lab, Ns, Street};

use crate::room::{MODES, Room, SOON};

/// A server as anybody would write it. It waits for this many datagrams and answers the last one first, so that all
/// are outstanding at once.
const SERVER: &str = r#"
import socket, struct, sys
family, address, port, outstanding, kind = sys.argv[1:6]
v6 = family == "6"
sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
if v6:
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
if kind == "pktinfo":
    sock.setsockopt(socket.IPPROTO_IP, 8, 1)
    if v6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
if kind == "connect":
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind((address, int(port)))
print("ready", flush=True)
def info(ancillary):
    out = []
    for level, name, data in ancillary:
        if level == socket.IPPROTO_IP:
            index, local, called = struct.unpack("I4s4s", data[:12])
            out = out or [(level, name, struct.pack("I4s4s", 0, called, called))]
        else:
            out = [(level, name, data[:16] + bytes(4))]
    return out
while True:
    heard = [sock.recvmsg(65535, 256) for _ in range(int(outstanding))]
    for data, ancillary, _, peer in reversed(heard):
        if kind == "pktinfo":
            sock.sendmsg([data], info(ancillary), 0, peer)
        elif kind == "connect":
            own = socket.socket(sock.family, socket.SOCK_DGRAM)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if v6:
                own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            own.bind((address, int(port)))
            own.connect(peer)
            print("connected to", own.getpeername()[0], "from", own.getsockname()[0], flush=True)
            own.send(data)
            own.close()
        else:
            try:
                sock.sendto(data, peer)
            except OSError as error:
                print("no way to", peer[0], error, flush=True)
"#;

/// What a server does with its socket.
const KINDS: [&str; 3] = ["plain", "pktinfo", "connect"];
const TENANTS: usize = 3;

/// Starts the server, in the daemon's cgroup.
#[track_caller]
pub fn serve(room: &Room, family: &str, port: u16, outstanding: usize, kind: &str) -> Child {
    serve_in(&room.lab, room.host(), family, port, outstanding, kind)
}

/// The same, before there is a room.
#[track_caller]
pub fn serve_in(lab: &Lab, host: &Ns, family: &str, port: u16, outstanding: usize, kind: &str) -> Child {
    let address = if family == "6" { "::" } else { "0.0.0.0" };
    let (port, outstanding) = (port.to_string(), outstanding.to_string());
    let argv = ["python3", "-u", "-c", SERVER, family, address, &port, &outstanding, kind];
    let mut server = host.spawn_in_cgroup(lab.cgroup(), &argv);
    server.wait_for_output("ready", SOON);
    server
}

/// A client's socket, whose address is every client's.
#[track_caller]
pub fn client(room: &Room, tenant: usize, v6: bool, port: u16) -> UdpSocket {
    let from: SocketAddr =
        if v6 { (Street::CLIENT_V6, port).into() } else { (Street::CLIENT_V4, port).into() };
    let socket = room.street.client(tenant).enter(|| UdpSocket::bind(from)).expect("the port is free");
    socket.set_read_timeout(Some(SOON)).expect("a time-out");
    socket
}

/// All clients speak before anybody is answered; then each hears its own words from the address it called, and its
/// wire has carried nobody else's.
#[track_caller]
fn round(room: &Room, what: &str, v6: bool, port: u16, ports: [u16; TENANTS], interleaved: bool) {
    let clients: Vec<UdpSocket> = (0..TENANTS).map(|i| client(room, i, v6, ports[i])).collect();
    let captures: Vec<Capture> = (0..TENANTS).map(|i| Capture::on(room.street.client(i), "eth0")).collect();
    let words: Vec<String> = (0..TENANTS).map(|i| format!("<{what} of tenant {i}>")).collect();
    let to = |i: usize| SocketAddr::new(room.local(i, v6).ip(), port);
    let say = |i: usize| assert!(clients[i].send_to(words[i].as_bytes(), to(i)).is_ok());
    let hear = |i: usize| {
        let mut answer = [0; 256];
        let heard = clients[i].recv_from(&mut answer);
        let (length, from) = heard.unwrap_or_else(|e| panic!("{what}: tenant {i} is not answered: {e}"));
        assert_eq!(String::from_utf8_lossy(&answer[..length]), words[i], "{what}: tenant {i}");
        assert_eq!(from, to(i), "{what}: tenant {i} is answered from elsewhere");
    };
    if interleaved {
        (0..TENANTS).for_each(say);
        (0..TENANTS).for_each(hear);
    } else {
        (0..TENANTS).for_each(|i| {
            say(i);
            hear(i);
        });
    }
    for (i, capture) in captures.iter().enumerate() {
        assert!(capture.wait_for(words[i].as_bytes(), SOON), "{what}: wire of tenant {i}");
    }
    for (i, capture) in captures.iter().enumerate() {
        for (j, words) in words.iter().enumerate() {
            assert_eq!(
                capture.contains(words.as_bytes()),
                i == j,
                "{what}: wire of tenant {i}, words of {j}"
            );
        }
    }
}

#[test]
fn every_cell() {
    for (m, mode) in MODES.into_iter().enumerate() {
        let Some(room) = Room::open("udp-truth", TENANTS, mode) else { return };
        let mut port = 7000;
        for kind in KINDS {
            for family in ["4", "6"] {
                for interleaved in [false, true] {
                    port += 1;
                    let _server = serve(&room, family, port, if interleaved { TENANTS } else { 1 }, kind);
                    for ports in [[5000; TENANTS], [5001, 5002, 5003]] {
                        for v6 in if family == "6" { [false, true].as_slice() } else { [false].as_slice() } {
                            let what = format!("{kind} {family} {interleaved} {} {v6} mode {m}", ports[1]);
                            round(&room, &what, *v6, port, ports, interleaved);
                        }
                    }
                }
            }
        }
    }
}

/// A server that connects a socket to whom it answers sees addresses as they are, and `fief explain` knows an alias.
#[test]
fn a_connected_socket_shows_real_addresses_and_an_alias_is_explained() {
    let Some(room) = Room::open("udp-connect", 2, "") else { return };
    let server = serve(&room, "4", 7000, 1, "connect");
    let seen = room.inside(room.host(), || UdpSocket::bind("0.0.0.0:7001")).expect("the port is free");
    seen.set_read_timeout(Some(SOON)).expect("a time-out");
    let mut aliases = Vec::new();
    for tenant in [0, 1] {
        let socket = client(&room, tenant, false, 5000);
        let local = room.local(tenant, false).ip();
        socket.send_to(b"hello", (local, 7000)).expect("a client may speak");
        socket.recv(&mut [0; 16]).expect("it is answered");
        let line = format!("connected to {} from {local}", Street::CLIENT_V4);
        fief_testkit::eventually(SOON, || match server.output().contains(&line) {
            true => Ok(()),
            false => Err(format!("no {line:?} in {}", server.output())),
        });
        socket.send_to(b"who am I?", (local, 7001)).expect("a client may speak");
        let (_, alias) = seen.recv_from(&mut [0; 16]).expect("it arrives");
        let explained = room.daemon.cli(&["explain", &alias.ip().to_string(), "-o", "json"]).ok().json();
        assert_eq!(explained["tenant"], room.street.name(tenant));
        assert_eq!(explained["sender"], Street::CLIENT_V4.to_string());
        assert_eq!(explained["called"], local.to_string());
        assert_eq!(explained["port"], 7001);
        aliases.push(alias);
    }
    assert_ne!(aliases[0], aliases[1]);
    let text = room.daemon.cli(&["explain", &aliases[1].ip().to_string()]).ok().stdout;
    assert!(text.contains("10.0.0.1 of tenant t1"), "{text}");
    let unknown = room.daemon.cli(&["explain", "240.9.9.9"]).fails();
    assert!(unknown.stderr.contains("aliasIdle"), "{unknown}");
    let none = room.daemon.cli(&["explain", "192.0.2.1"]).fails();
    assert!(none.stderr.contains("is no alias") && none.stderr.contains("240.0.0.0/5"), "{none}");
}
