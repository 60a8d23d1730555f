//! One datagram from an unconnected UDP socket of the last tenant, until the far end has thrown it away.

use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, socket};

use crate::compare::cost;
use crate::world::{Family, World};

const COUNT: u32 = 10_000;
/// Discard (RFC 863).
const PORT: u16 = 9;

/// A socket and where it sends.
pub struct Sender {
    socket: OwnedFd,
    to: SockaddrStorage,
}

impl Sender {
    /// A socket with the mark of the world's last tenant, in its namespace and cgroup.
    pub fn new(world: &World, family: Family) -> Sender {
        let to = world.sink(family);
        let socket = world.inside(|| {
            let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        });
        let socket = socket.expect("a socket can be made");
        if world.mark != 0 {
            fief_testkit::set_mark(&socket, world.mark).expect("root may set marks");
        }
        Sender { socket, to: SockaddrStorage::from(SocketAddr::new(to, PORT)) }
    }

    /// Nanoseconds a datagram.
    pub fn run(&self) -> f64 {
        cost(COUNT, || (0..COUNT).for_each(|_| self.send()))
    }

    fn send(&self) {
        let payload = [0_u8; 32];
        let to: *const SockaddrStorage = &raw const self.to;
        let (fd, length) = (self.socket.as_raw_fd(), size_of::<SockaddrStorage>() as libc::socklen_t);
        // SAFETY: both pointers are to live values of the lengths that go with them.
        let sent = unsafe { libc::sendto(fd, payload.as_ptr().cast(), payload.len(), 0, to.cast(), length) };
        assert!(sent == 32, "cannot send: {}", std::io::Error::last_os_error());
    }
}

/// Is every datagram that is sent seen by the far end? What does not leave costs little and proves nothing.
pub fn proven(world: &World, family: Family) {
    let sender = Sender::new(world, family);
    let before = arrived(world);
    sender.run();
    let seen = arrived(world) - before;
    assert!(
        seen >= u64::from(COUNT),
        "of {COUNT} datagrams to {} with mark {:#x} only {seen} left the host:\n{}",
        world.sink(family),
        world.mark,
        world.log()
    );
}

fn arrived(world: &World) -> u64 {
    let output = world.far.run(&["ip", "-s", "-j", "link", "show", "eth0"]).ok();
    let packets = output.json()[0]["stats64"]["rx"]["packets"].as_u64();
    packets.unwrap_or_else(|| panic!("no count in {output}"))
}
