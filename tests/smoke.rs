//! The shortest way through everything: two tenants on one wire, one server, both answered.

mod room;

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::time::Duration;

use fief_testkit::{Daemon, DaemonOptions, Dial, Families, Lab, Street};
use libfief::Whose;
use room::Room;

#[test]
fn one_server_answers_two_tenants_whose_clients_have_the_same_address() {
    let Some(lab) = Lab::new("smoke") else { return };
    let street = Street::new(&lab, 2, Families::Both);
    let daemon = Daemon::start(&lab, &street.host, DaemonOptions::default());
    daemon.apply(&street.documents()).ok();
    let peer = fief_testkit::peer();
    let mut server =
        street.host.spawn_in_cgroup(lab.cgroup(), &[peer.to_str().unwrap(), "serve", "[::]:8000"]);
    server.wait_for_output("8000", Duration::from_secs(5));
    for tenant in 0..2 {
        for address in [street.local4(tenant).to_string(), format!("[{}]", street.local6(tenant))] {
            let nonce = format!("nonce of tenant {tenant} {address}");
            let target = format!("{address}:8000").parse().unwrap();
            let answer = street
                .client(tenant)
                .enter(|| Dial::to(target).timeout(Duration::from_secs(3)).tcp(nonce.as_bytes()));
            let answer =
                answer.unwrap_or_else(|e| panic!("tenant {tenant} {address}: {e}\n{}", daemon.log()));
            assert_eq!(String::from_utf8_lossy(&answer), nonce);
        }
    }
}

/// Where the kernel's control-group programs cannot ask for task storage (Linux 6.12), a socket still has a tenant, and
/// a thread is told that it cannot.
#[test]
fn the_option_goes_as_far_as_the_kernel_does() {
    let Some(room) = Room::open("smoke-option", 2, "") else { return };
    let doctor = room.daemon.cli(&["doctor"]).ok().stdout;
    let follows = !doctor.contains("gives task storage to tracing programs only");
    assert!(doctor.contains("threads and processes"), "{doctor}");
    room.inside(room.host(), || {
        let socket: OwnedFd = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        )
        .expect("a socket");
        libfief::set(&socket, Whose::Socket, "t1").expect("an administrator may");
        assert_eq!(libfief::tenant(&socket, Whose::Socket).expect("an option"), "t1");
        assert_eq!(fief_testkit::mark(&socket).expect("an option"), room.mark(1));
        let entered = libfief::set(&libfief::any_socket().expect("a socket"), Whose::Thread, "t0");
        let made = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let tenant = libfief::tenant(&made, Whose::Socket).expect("an option");
        match entered {
            Ok(()) => assert_eq!((tenant.as_str(), follows), ("t0", true)),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
                assert_eq!((tenant.as_str(), follows), ("", false));
            }
        }
    });
    let ran = room.daemon.cli(&["exec", "t0", "--", "true"]);
    assert_eq!(ran.code(), if follows { 0 } else { 125 }, "{ran}");
    assert!(follows || ran.stderr.contains("cannot follow processes"), "{ran}");
}

/// The field moves while a connection is open and a socket of a tenant's is held; on every kernel that fief runs on.
#[test]
fn the_field_moves_under_open_sockets() {
    let Some(room) = Room::open("smoke-move", 2, "markMask: \"0xffff0000\"\n") else { return };
    let peer = fief_testkit::peer();
    let mut server =
        room.host().spawn_in_cgroup(room.lab.cgroup(), &[peer.to_str().unwrap(), "serve", "[::]:8000"]);
    server.wait_for_output("8000", Duration::from_secs(5));
    let to = room.local(1, false);
    let dial = Dial::to(to).timeout(Duration::from_secs(10));
    let mut open = room.street.client(1).enter(|| dial.connect().expect("answered"));
    let own = room.inside(room.host(), || UdpSocket::bind((room.local(1, false).ip(), 0)).expect("free"));
    assert_eq!(fief_testkit::mark(&own).expect("an option"), 2 << 16);
    let said = room.daemon.cli(&["marks", "move", "--to", "0xffff"]).ok().stdout;
    assert!(said.contains("the field is at 0xffff"), "{said}");
    assert_eq!(fief_testkit::mark(&own).expect("an option"), 2);
    let mut answer = [0; 5];
    open.write_all(b"after").and_then(|()| open.read_exact(&mut answer)).expect("answered");
    assert_eq!(&answer, b"after");
    let sockets = room.daemon.cli(&["sockets", "t1", "-o", "json"]).ok().json();
    let of_tenant = sockets.as_array().expect("a list").iter().filter(|s| s["state"] == "ESTABLISHED");
    assert_eq!(of_tenant.count(), 1, "{sockets}");
}
