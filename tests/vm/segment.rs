//! A segment's guarded sockets on the kernel that is fief's floor, and in the hands of a part of the kernel.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};

use fief_testkit::{Daemon, DaemonOptions, Lab, skip};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// L2TP makes a tunnel of a UDP socket that it is given by its descriptor (linux/l2tp.h): what it then sends passes no
/// program of the socket's control group.
#[test]
fn guarded_socket_hole_16() {
    let Some(lab) = Lab::new("hole-16") else { return };
    let (host, wire) = (lab.ns("host"), lab.wire("wire"));
    wire.attach(&host, "eth0");
    host.ip("addr add 10.0.0.1/24 dev eth0\naddr add fd00::1/64 dev eth0 nodad\n");
    let config_yaml = Some("overlay: { device: eth0 }\n".to_owned());
    let daemon = Daemon::start(&lab, &host, DaemonOptions { config_yaml, ..DaemonOptions::default() });
    let at = daemon.root().join("run/fief/sockets.sock");
    for family in [libc::AF_INET, libc::AF_INET6] {
        let sockets = as_group(1000, || libfief::segment_by(&at, family, None)).unwrap_or_else(|error| {
            panic!("no sockets of a segment: {error}\n{}", daemon.log());
        });
        let said = send_to_its_group(&sockets);
        assert!(said.is_ok(), "what is allowed: {said:?}");
        let outcome = host.enter(|| {
            let plain = UdpSocket::bind("[::]:0")?;
            let Some(l2tp) = L2tp::find()? else { return Ok(None) };
            l2tp.tunnel(1, plain.as_raw_fd()).expect("a socket that is nobody's may be a tunnel");
            let tries = [&sockets.unicast, &sockets.group].map(|socket| l2tp.tunnel(2, socket.as_raw_fd()));
            Ok::<_, io::Error>(Some(
                tries.map(|outcome| outcome.err().and_then(|error| error.raw_os_error())),
            ))
        });
        match outcome.expect("netlink can be spoken") {
            Some(errors) => assert_eq!(errors, [Some(libc::EBUSY); 2], "a guarded socket became a tunnel"),
            None => {
                assert!(std::env::var_os("FIEF_TEST_VM").is_none(), "the virtual machine's kernel has L2TP");
                return skip("this kernel has no L2TP; `make test-vm` runs it");
            }
        }
        assert!(send_to_its_group(&sockets).is_ok(), "the socket is none the worse");
    }
}

/// A thread of this effective group.
fn as_group<T: Send>(group: u32, work: impl FnOnce() -> T + Send) -> T {
    let inside = move || {
        // SAFETY: the system call takes three numbers; libc's wrapper would change all threads.
        let set = unsafe { libc::syscall(libc::SYS_setresgid, -1, group, -1) };
        assert_eq!(set, 0, "root may have any group");
        work()
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).expect("the thread does not panic")
}

fn send_to_its_group(sockets: &libfief::Segment) -> io::Result<()> {
    let (sender, hearing) = (sockets.unicast.try_clone()?, sockets.group.try_clone()?);
    let to = UdpSocket::from(hearing).local_addr()?;
    UdpSocket::from(sender).send_to(&sockets.header, to).map(drop)
}

/// L2TP's generic netlink family (linux/genetlink.h).
struct L2tp {
    netlink: OwnedFd,
    family: u16,
}

impl L2tp {
    fn find() -> io::Result<Option<L2tp>> {
        let (kind, protocol) = (SockType::Raw, SockProtocol::NetlinkGeneric);
        let netlink = socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
        // GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME; CTRL_ATTR_FAMILY_ID is the first of what comes back that
        // has its number.
        let answer = ask(&netlink, 16, 3, &attribute(2, b"l2tp\0"));
        match answer {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
            Ok(answer) => {
                let family =
                    attributes(answer.get(20..).unwrap_or_default()).find(|(number, _)| *number == 1);
                let id =
                    family.and_then(|(_, value)| Some(u16::from_ne_bytes(value.get(..2)?.try_into().ok()?)));
                Ok(id.map(|family| L2tp { netlink, family }))
            }
        }
    }

    /// L2TP_CMD_TUNNEL_CREATE of version 2 over UDP (L2TP_ATTR_CONN_ID, PEER_CONN_ID, PROTO_VERSION, ENCAP_TYPE, FD).
    fn tunnel(&self, number: u32, socket: i32) -> io::Result<()> {
        let mut attributes = attribute(9, &number.to_ne_bytes());
        attributes.extend(attribute(10, &number.to_ne_bytes()));
        attributes.extend(attribute(7, &[2]));
        attributes.extend(attribute(2, &0_u16.to_ne_bytes()));
        attributes.extend(attribute(23, &socket.to_ne_bytes()));
        ask(&self.netlink, self.family, 1, &attributes).map(drop)
    }
}

fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(number.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let number = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((number, value))
    })
}

/// One question and the first message of the answer; an error is one.
fn ask(netlink: &OwnedFd, family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    // NLM_F_REQUEST; with NLM_F_ACK where nothing else is the answer.
    let flags: u16 = if command == 1 { 5 } else { 1 };
    let mut question = (20 + attributes.len() as u32).to_ne_bytes().to_vec();
    question.extend(family.to_ne_bytes());
    question.extend(flags.to_ne_bytes());
    question.extend([0; 8]);
    question.extend([command, 1, 0, 0]);
    question.extend(attributes);
    send(netlink.as_raw_fd(), &question, MsgFlags::empty())?;
    let mut answer = vec![0; 8192];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    let number =
        |at: usize| answer.get(at..at + 4).and_then(|four| four.try_into().ok()).map(i32::from_ne_bytes);
    // NLMSG_ERROR, which is 0 where all went well.
    let is_error = answer.get(4..6) == Some(&2_u16.to_ne_bytes()[..]);
    match number(16) {
        Some(error) if is_error && error != 0 => Err(io::Error::from_raw_os_error(-error)),
        _ => Ok(answer),
    }
}
