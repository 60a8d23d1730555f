//! Answers that the kernel gives by itself: RST, unreachable, echo, SYN cookies, TIME_WAIT.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use fief_testkit::{Capture, Captured, Dial, Frame, Street, eventually, inject};

use crate::room::{MODES, NEVER, PORT, Room, SOON, answered, client, outcome};

/// Captures on both clients, which look the same to the host.
fn captures(street: &Street) -> [Capture; 2] {
    [0, 1].map(|i| Capture::on(street.client(i), "eth0"))
}

fn local(street: &Street, i: usize, v6: bool) -> IpAddr {
    if v6 { street.local6(i).into() } else { street.local4(i).into() }
}

/// A packet from the host that arrived, of this protocol.
fn arrived(frame: &Captured, v6: bool, protocol: u8) -> bool {
    let (kind, at) = if v6 { ([0x86, 0xdd], 20) } else { ([8, 0], 23) };
    !frame.outgoing && frame.bytes[12..14] == kind && frame.bytes.get(at) == Some(&protocol)
}

/// Neighbour discovery is ICMPv6 too.
fn is_icmp(frame: &Captured, v6: bool, kind: u8) -> bool {
    arrived(frame, v6, if v6 { 58 } else { 1 }) && frame.bytes.get(if v6 { 54 } else { 34 }) == Some(&kind)
}

#[test]
fn a_closed_port_answers_with_rst_and_unreachable_through_the_callers_router() {
    for mode in MODES {
        let Some(room) = Room::open("kernel-closed", 2, mode) else { return };
        let street = &room.street;
        for tenant in [0, 1] {
            for v6 in [false, true] {
                let seen = captures(street);
                let to = SocketAddr::new(local(street, tenant, v6), 9);
                let tcp = street.client(tenant).enter(|| Dial::to(to).timeout(SOON).connect());
                assert_eq!(outcome(&tcp), "ECONNREFUSED", "{mode:?} tenant {tenant} v6 {v6}");
                let udp = street.client(tenant).enter(|| {
                    let socket = UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" })?;
                    socket.set_read_timeout(Some(SOON))?;
                    socket.connect(to)?;
                    socket.send(b"anybody?")?;
                    socket.recv(&mut [0; 16])
                });
                assert_eq!(outcome(&udp), "ECONNREFUSED", "{mode:?} tenant {tenant} v6 {v6}");
                let unreachable = if v6 { 1 } else { 3 };
                eventually(SOON, || {
                    let count = |which: &dyn Fn(&Captured) -> bool| seen[tenant].count(which);
                    match (count(&|f| arrived(f, v6, 6)), count(&|f| is_icmp(f, v6, unreachable))) {
                        (1, 1) => Ok(()),
                        other => Err(format!("(RST, unreachable): {other:?}")),
                    }
                });
                crate::room::wait(NEVER / 4);
                let other = &seen[1 - tenant];
                assert_eq!(other.count(|f| arrived(f, v6, 6) || is_icmp(f, v6, unreachable)), 0);
            }
        }
    }
}

#[test]
fn echo_replies_go_through_the_callers_router() {
    for mode in MODES {
        let Some(room) = Room::open("kernel-echo", 2, mode) else { return };
        let street = &room.street;
        for v6 in [false, true] {
            let seen = captures(street);
            let ask = |tenant: usize| {
                let frame = Frame::new(street.router_mac(tenant), street.host_mac());
                let text = format!("echo of tenant {tenant} v6 {v6}");
                let frame = frame.ip(client(v6).ip(), local(street, tenant, v6));
                inject(street.router(tenant), "eth0", &frame.echo_request(7, 7, text.as_bytes()));
                text
            };
            // The same client, identifier and sequence number, both outstanding.
            let texts = [0, 1].map(ask);
            for tenant in [0, 1] {
                assert!(seen[tenant].wait_for(texts[tenant].as_bytes(), SOON), "{mode:?} {}", texts[tenant]);
                assert!(!seen[tenant].contains(texts[1 - tenant].as_bytes()));
            }
        }
    }
}

#[test]
fn syn_cookies_keep_the_tenant() {
    for mode in MODES {
        let Some(room) = Room::with("kernel-cookies", 2, mode, |_, street| {
            // 2: a cookie for every SYN, without waiting for a flood (ip-sysctl.rst).
            street.host.set_sysctl("net.ipv4.tcp_syncookies", 2);
            street.documents()
        }) else {
            return;
        };
        let server = room.server();
        for tenant in [0, 1] {
            for v6 in [false, true] {
                let to = room.local(tenant, v6);
                room.street.client(tenant).enter(|| answered(&format!("cookie for {to}"), &Dial::to(to)));
            }
            let mark = format!("mark {:#x}", room.mark(tenant));
            let with_mark = server.heard().iter().filter(|line| line.ends_with(&mark)).count();
            assert_eq!(with_mark, 2, "{:?}", server.heard());
        }
        let counted = room.host().sh("grep -h ^TcpExt: /proc/net/netstat").ok().stdout;
        let mut lines = counted.lines().map(str::split_whitespace);
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let received = names.zip(values).find(|(name, _)| *name == "SyncookiesRecv").expect("a counter").1;
        assert_eq!(received, "4", "every connection came by a cookie");
    }
}

#[test]
fn time_wait_answers_through_the_tenants_router() {
    for mode in MODES {
        let Some(room) = Room::open("kernel-timewait", 2, mode) else { return };
        let street = &room.street;
        let listener = room.inside(room.host(), || TcpListener::bind(("::", PORT)).expect("free"));
        for tenant in [0, 1] {
            for v6 in [false, true] {
                let to = room.local(tenant, v6);
                let mut stream =
                    street.client(tenant).enter(|| Dial::to(to).timeout(SOON).connect()).expect("open");
                let port = stream.local_addr().expect("bound").port();
                let (accepted, _) = listener.accept().expect("a connection");
                // Who closes first waits.
                drop(accepted);
                assert_eq!(stream.read(&mut [0; 1]).expect("the end"), 0);
                drop(stream);
                eventually(SOON, || {
                    let states = room.host().run(&["ss", "-Htan", "state", "time-wait"]).ok().stdout;
                    if states.contains(&format!(":{port}")) { Ok(()) } else { Err(states) }
                });
                let seen = captures(street);
                // Far outside of the window: TIME_WAIT says where it is (RFC 9293, 3.10.7.4).
                let frame =
                    Frame::new(street.router_mac(tenant), street.host_mac()).ip(client(v6).ip(), to.ip());
                let late = frame.tcp((port, PORT), fief_testkit::frame::ACK, (0x7000_0000, 1), b"late");
                inject(street.router(tenant), "eth0", &late);
                eventually(SOON, || match seen[tenant].count(|f| arrived(f, v6, 6)) {
                    0 => Err(format!("{mode:?} tenant {tenant} v6 {v6}: no answer")),
                    _ => Ok(()),
                });
                crate::room::wait(NEVER / 4);
                assert_eq!(seen[1 - tenant].count(|f| arrived(f, v6, 6)), 0);
            }
        }
    }
}
