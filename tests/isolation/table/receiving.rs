//! Sockets that are a tenant's own: they get that tenant's packets and no other's.
//! Each is asked of a room, whatever keeps its tenants apart.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use fief_testkit::{Dial, Street, set_mark};
use nix::sys::socket::{Backlog, SockType, SockaddrStorage, bind, listen, setsockopt, sockopt};

use crate::odd::Datagram;
use crate::room::{NEVER, Room, SOON, outcome};

pub const OWN_PORT: u16 = 8100;

pub fn wildcard(v6: bool) -> SocketAddr {
    let text = if v6 { "[::]:8100" } else { "0.0.0.0:8100" };
    text.parse().expect("an address")
}

pub fn called(street: &Street, i: usize, v6: bool) -> SocketAddr {
    if v6 { (street.local6(i), OWN_PORT).into() } else { (street.local4(i), OWN_PORT).into() }
}

/// A listener on every address with a mark of its own.
pub fn listener(v6: bool, mark: u32) -> TcpListener {
    let socket = Dial::to(wildcard(v6)).mark(mark).socket(SockType::Stream).expect("a socket");
    setsockopt(&socket, sockopt::ReuseAddr, &true).expect("an option");
    bind(socket.as_raw_fd(), &SockaddrStorage::from(wildcard(v6))).expect("the port is free");
    listen(&socket, Backlog::new(8).expect("eight")).expect("it listens");
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true).expect("an option");
    listener
}

/// One that got its mark when it listened already: nobody is steered past it, so its packets are looked at.
pub fn marked_late(v6: bool, mark: u32) -> TcpListener {
    let listener = listener(v6, 0);
    set_mark(&listener, mark).expect("root may mark");
    listener
}

pub fn receiver(v6: bool, mark: u32) -> UdpSocket {
    let socket = UdpSocket::bind(wildcard(v6)).expect("the port is free");
    set_mark(&socket, mark).expect("root may mark");
    socket.set_read_timeout(Some(NEVER)).expect("a timeout");
    socket
}

pub fn own_listener(room: &Room, mode: &str) {
    {
        let (street, red) = (&room.street, room.mark(1));
        for v6 in [false, true] {
            for late in [false, true] {
                let make = || if late { marked_late(v6, red) } else { listener(v6, red) };
                let listener = room.inside(room.host(), make);
                let before = room.count(0, "dropListener");
                let to = called(street, 0, v6);
                let dial = Dial::to(to).timeout(Duration::from_millis(400));
                let blue = outcome(&street.client(0).enter(|| dial.connect()));
                // In another VRF it is not even found.
                let dropped = late && !room.has_vrfs();
                let expected = if dropped { "silence" } else { "ECONNREFUSED" };
                assert_eq!(blue, expected, "{mode:?} blue to red's listener");
                assert!(listener.accept().is_err(), "blue's connection was accepted");
                assert_eq!(room.count(0, "dropListener") > before, dropped);
                let to = called(street, 1, v6);
                street
                    .client(1)
                    .enter(|| Dial::to(to).timeout(SOON).connect())
                    .expect("red to red's listener");
                listener.accept().expect("red's connection");
            }
            // Without a mark of its own it would be everybody's: the mark is what keeps blue out.
            let plain = room.inside(room.host(), || listener(v6, 0));
            let to = called(street, 0, v6);
            street
                .client(0)
                .enter(|| Dial::to(to).timeout(SOON).connect())
                .expect("blue to a plain listener");
            plain.accept().expect("blue's connection");
        }
    }
}

pub fn own_receiver(room: &Room, mode: &str) {
    {
        let (street, red) = (&room.street, room.mark(1));
        for v6 in [false, true] {
            let socket = room.inside(room.host(), || receiver(v6, red));
            let before = room.count(0, "dropListener");
            let send = |i: usize, text: &str| {
                let to = called(street, i, v6);
                street.client(i).enter(|| Datagram::to(to, 0).send(text.as_bytes())).expect("it is sent");
            };
            send(0, "blue");
            assert!(socket.recv(&mut [0; 16]).is_err(), "{mode:?} blue's datagram for red's socket");
            assert_eq!(room.count(0, "dropListener"), before + u64::from(!room.has_vrfs()));
            send(1, "red");
            assert_eq!(socket.recv(&mut [0; 16]).expect("red's datagram"), 3);
        }
    }
}
