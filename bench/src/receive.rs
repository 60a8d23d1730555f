//! One datagram from the wire for the last tenant, until an unmodified server has read it.
//!
//! The far end puts a finished frame on its device, and the veth pair carries it through the host's tcx program, the
//! routing decision and into the server's queue within that call. Something of that call is not the host's part, and is
//! measured apart and subtracted. Which part that is, there are two answers to, and both are measured:
//!
//! - the sender's call: the same frame on a device that drops what it is given (ifb). What is left is what the host
//!   does for a datagram, from its device's interrupt on;
//! - the device too: a frame of the same length whose EtherType nobody serves (0x88b5, for experiments, IEEE 802), which
//!   is dropped where tcx ends. What is left is the stack alone.

use std::mem::{size_of, zeroed};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use fief_testkit::Frame;

use crate::compare::cost;
use crate::world::{FAR, Family, SINK, World};

/// Frames on their way at once; the server's buffer holds many more.
const BATCH: u32 = 32;
const BATCHES: u32 = 150;
const PORT: u16 = 9000;
const EXPERIMENTAL: u16 = 0x88b5;

/// A server on the host, and frames for it at the far end.
pub struct Receiver {
    server: UdpSocket,
    device: OwnedFd,
    wire: libc::sockaddr_ll,
    sink: libc::sockaddr_ll,
    frame: Vec<u8>,
    nobody: Vec<u8>,
}

/// What is subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Less {
    /// The sender's call.
    Sender,
    /// And what the host's device does with any frame.
    Device,
}

impl Receiver {
    /// A server on every address, in the host's namespace and cgroup, that asks which address was called or does not.
    pub fn new(world: &World, family: Family, asks: bool) -> Receiver {
        let server = world.inside(|| {
            let server = UdpSocket::bind(("::", PORT)).expect("the port is free");
            if asks {
                crate::alias::ask(&server);
            }
            server
        });
        server.set_nonblocking(true).expect("a socket can be told not to wait");
        let device = world.far.enter(bypass);
        let (source, destination) = (world.far.mac("eth0"), world.host.mac("eth0"));
        let ip = Frame::new(source, destination).ip(FAR[family as usize], world.local(family));
        let frame = ip.udp(4000, PORT, &[0; 32]);
        let nobody = Frame::new(source, destination).payload(EXPERIMENTAL, &frame[14..]);
        let (wire, sink) = (by(world.far.ifindex("eth0")), by(world.far.ifindex(SINK)));
        Receiver { server, device, wire, sink, frame, nobody }
    }

    /// Nanoseconds a datagram.
    pub fn run(&self, less: Less) -> f64 {
        let count = BATCH * BATCHES;
        let all = cost(count, || {
            for _ in 0..BATCHES {
                self.inject(&self.frame, &self.wire);
                self.read();
            }
        });
        let (frame, device) = match less {
            Less::Sender => (&self.frame, &self.sink),
            Less::Device => (&self.nobody, &self.wire),
        };
        all - cost(count, || (0..BATCHES).for_each(|_| self.inject(frame, device)))
    }

    fn inject(&self, frame: &[u8], device: &libc::sockaddr_ll) {
        let to: *const libc::sockaddr_ll = device;
        let (fd, length) = (self.device.as_raw_fd(), size_of::<libc::sockaddr_ll>() as libc::socklen_t);
        for _ in 0..BATCH {
            // SAFETY: both pointers are to live values of the lengths that go with them.
            let sent = unsafe { libc::sendto(fd, frame.as_ptr().cast(), frame.len(), 0, to.cast(), length) };
            assert!(sent > 0, "cannot send a frame: {}", std::io::Error::last_os_error());
        }
    }

    /// A datagram that is not there was lost, and then the measurement is worth nothing.
    fn read(&self) {
        let mut text = [0; 64];
        for i in 0..BATCH {
            let length = self.server.recv(&mut text);
            assert!(length.as_ref().is_ok_and(|l| *l == 32), "datagram {i} of {BATCH}: {length:?}");
        }
    }
}

/// The device of this index, to a packet socket.
fn by(index: u32) -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll is plain C data, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index.cast_signed();
    address
}

/// A packet socket that hears nothing and hands frames to the driver at once.
fn bypass() -> OwnedFd {
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "no packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to a live value of the length that goes with it.
    let done = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, (&raw const on).cast(), length)
    };
    assert!(done == 0, "no bypass: {}", std::io::Error::last_os_error());
    socket
}
