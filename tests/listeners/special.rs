//! TCP Fast Open and Multipath TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use fief_testkit::{Dial, mark, skip};
use nix::sys::socket::{Backlog, MsgFlags, SockType, SockaddrStorage, bind, listen, sendto};

use crate::odd::set;
use crate::room::{PORT, Room, SOON};

/// Says back the first thing it hears, and gives the mark of the accepted socket.
fn serve_one(listener: &TcpListener) -> u32 {
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let carried = mark(&stream).expect("an option");
    let mut buffer = [0; 256];
    let length = stream.read(&mut buffer).expect("a request");
    stream.write_all(&buffer[..length]).expect("an answer");
    carried
}

#[test]
fn tcp_fast_open_keeps_the_tenant() {
    let Some(room) = Room::with("special-tfo", 2, "", |_, street| {
        street.host.set_sysctl("net.ipv4.tcp_fastopen", 3);
        for i in [0, 1] {
            street.client(i).set_sysctl("net.ipv4.tcp_fastopen", 3);
        }
        street.documents()
    }) else {
        return;
    };
    let listener = room.inside(room.host(), || TcpListener::bind(("::", PORT)).expect("free"));
    set(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &16).expect("an option");
    for tenant in [0, 1] {
        for v6 in [false, true] {
            let to = room.local(tenant, v6);
            // The first connection fetches the cookie, the second one has data in its SYN (RFC 7413).
            for round in ["cookie", "data in the SYN"] {
                let text = format!("{round} of {to}");
                let mut stream = room.street.client(tenant).enter(|| {
                    let socket = Dial::to(to).socket(SockType::Stream).expect("a socket");
                    let address = SockaddrStorage::from(to);
                    sendto(
                        socket.as_raw_fd(),
                        text.as_bytes(),
                        &address,
                        MsgFlags::from_bits_retain(libc::MSG_FASTOPEN),
                    )
                    .expect("fast open");
                    TcpStream::from(socket)
                });
                assert_eq!(serve_one(&listener), room.mark(tenant), "{text}");
                let mut answer = String::new();
                stream.set_read_timeout(Some(SOON)).expect("a timeout");
                stream.read_to_string(&mut answer).expect("an answer");
                assert_eq!(answer, text);
            }
        }
    }
    let counted = room.host().sh("grep -h ^TcpExt: /proc/net/netstat").ok().stdout;
    let mut lines = counted.lines().map(str::split_whitespace);
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let passive = names.zip(values).find(|(name, _)| *name == "TCPFastOpenPassive").expect("a counter").1;
    assert_eq!(passive, "4", "every second connection had its data in the SYN");
}

/// IPPROTO_MPTCP (RFC 8684); `None` where the kernel has it not.
fn multipath(to: SocketAddr) -> Option<OwnedFd> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP) };
    // SAFETY: the descriptor was just made and belongs to nobody else.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The answers go the right way; what the program may not do is ask SO_MARK whose the connection is.
#[test]
fn an_mptcp_listener_answers_its_tenants_though_so_mark_says_nothing() {
    let Some(room) = Room::open("special-mptcp", 2, "") else { return };
    let any: SocketAddr = ([0_u16; 8], PORT).into();
    let made = room.inside(room.host(), || {
        let socket = multipath(any)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(any)).expect("free");
        listen(&socket, Backlog::new(8).expect("eight")).expect("it listens");
        Some(TcpListener::from(socket))
    });
    let Some(listener) = made else { return skip("no MPTCP in this kernel") };
    for tenant in [0, 1] {
        for v6 in [false, true] {
            let to = room.local(tenant, v6);
            for with_mptcp in [false, true] {
                let text = format!("MPTCP {with_mptcp} to {to}");
                let mut stream = room.street.client(tenant).enter(|| {
                    let socket = if with_mptcp {
                        multipath(to).expect("the kernel has it")
                    } else {
                        Dial::to(to).socket(SockType::Stream).expect("a socket")
                    };
                    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).expect("open");
                    TcpStream::from(socket)
                });
                stream.write_all(text.as_bytes()).expect("the connection is open");
                let carried = serve_one(&listener);
                let mut answer = String::new();
                stream.set_read_timeout(Some(SOON)).expect("a timeout");
                stream.read_to_string(&mut answer).expect("an answer");
                assert_eq!(answer, text);
                // A plain client makes accept(2) give the plain socket, with its mark.
                let expected = if with_mptcp { 0 } else { room.mark(tenant) };
                assert_eq!(carried, expected, "{text}");
            }
        }
    }
}
