//! What comes from the wire and pretends: another's source, a road through the host, a better route.
//! Each is asked of a room, whatever keeps its tenants apart.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Mutex;

use fief_testkit::{Dial, Echo, Frame, Street, inject};
use nix::sys::socket::SockType;

use crate::room::{NEVER, PORT, Room, SOON, answered, outcome};

/// Addresses of a tenant on the host and of its router, as IpAddr.
pub fn pair(street: &Street, i: usize, v6: bool) -> (IpAddr, IpAddr) {
    if v6 {
        (street.local6(i).into(), street.router6(i).into())
    } else {
        (street.local4(i).into(), street.router4(i).into())
    }
}

/// Who hears datagrams.
pub enum Server {
    Everybodys(Echo),
    Own(UdpSocket, Mutex<Vec<String>>),
}

impl Server {
    fn heard(&self) -> Vec<String> {
        match self {
            Server::Everybodys(echo) => echo.heard(),
            Server::Own(socket, heard) => {
                socket.set_nonblocking(true).expect("an option");
                let mut heard = heard.lock().expect("nobody panics with it");
                while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                    heard
                        .push(format!("udp from {}", SocketAddr::new(from.ip().to_canonical(), from.port())));
                }
                heard.clone()
            }
        }
    }
}

/// With a VRF the host's own addresses are not on its tenant's wire.
pub fn called_elsewhere(room: &Room) {
    let (street, server) = (&room.street, room.server());
    for v6 in [false, true] {
        let (own, near) = pair(street, 0, v6);
        let before = (server.heard().len(), room.count(0, "dropDeviceIn"));
        for (to, text) in [(crate::room::host_address(v6).ip(), "elsewhere"), (own, "here")] {
            let frame = Frame::new(street.router_mac(0), street.host_mac());
            inject(street.router(0), "eth0", &frame.ip(near, to).udp(4000, PORT, text.as_bytes()));
        }
        fief_testkit::eventually(SOON, || match room.count(0, "dropDeviceIn") {
            // Those that called before are still trying.
            count if count > before.1 => Ok(()),
            count => Err(format!("{count} dropped, v6 {v6}")),
        });
        // A UDP server for everybody hears nothing of a VRF; a connection is what it gets.
        let dial = Dial::to(SocketAddr::new(crate::room::host_address(v6).ip(), PORT));
        let called = street.client(0).enter(|| outcome(&dial.timeout(NEVER).connect()));
        assert!(called == "silence" || called == "EHOSTUNREACH", "{called}");
        street.client(0).enter(|| answered("here", &Dial::to(SocketAddr::new(own, PORT))));
        assert_eq!(server.heard().len(), before.0 + 1, "{:?}", server.heard());
    }
}

pub fn spoofed(room: &Room) {
    let street = &room.street;
    // A VRF's datagrams come to its tenant's own sockets only.
    let server = match room.has_vrfs() {
        true => room.inside(room.host(), || {
            let address = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), PORT);
            let socket = Dial::to(address).mark(room.mark(0)).bind(address).socket(SockType::Datagram);
            Server::Own(UdpSocket::from(socket.expect("the port is free")), Mutex::default())
        }),
        false => Server::Everybodys(room.server()),
    };
    let (mac, router) = (street.host_mac(), street.router_mac(0));
    for v6 in [false, true] {
        let (own, near) = pair(street, 0, v6);
        let (other, _) = pair(street, 1, v6);
        let host = crate::room::host_address(v6).ip();
        let (heard, before) = (server.heard().len(), room.count(0, "dropSpoof"));
        // With VRFs another tenant's address is a remote one.
        let sources = if room.has_vrfs() { &[own, host][..] } else { &[own, other, host] };
        for source in sources {
            let frame = Frame::new(router, mac).ip(*source, own).udp(4000, PORT, b"spoofed");
            inject(street.router(0), "eth0", &frame);
        }
        // Behind the three, so its arrival says that they were seen.
        let frame = Frame::new(router, mac).ip(near, own).udp(4000, PORT, b"honest");
        inject(street.router(0), "eth0", &frame);
        fief_testkit::eventually(SOON, || {
            let now = server.heard();
            if now.len() > heard { Ok(()) } else { Err(format!("{now:?}")) }
        });
        crate::room::wait(NEVER);
        assert_eq!(server.heard().len(), heard + 1, "{:?}", server.heard());
        assert!(server.heard()[heard].contains(&near.to_string()), "{:?}", server.heard());
        assert_eq!(room.count(0, "dropSpoof"), before + sources.len() as u64);
    }
}
