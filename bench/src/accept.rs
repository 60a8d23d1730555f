//! One TCP connection from the wire to the last tenant: opened, accepted by an unmodified server, reset and closed.
//!
//! The client's part is in it, and the same on both sides of a ratio. It resets, so that no connection stays behind in
//! TIME_WAIT to make the next one slower.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

use crate::compare::cost;
use crate::world::{Family, World};

const COUNT: u32 = 400;
const PORT: u16 = 8000;

/// A server on the host, and a client at the far end.
pub struct Acceptor<'a> {
    world: &'a World,
    server: TcpListener,
    to: SocketAddr,
}

impl Acceptor<'_> {
    /// A server on every address, in the host's namespace and cgroup.
    pub fn new(world: &World, family: Family) -> Acceptor<'_> {
        let server = world.inside(|| TcpListener::bind(("::", PORT))).expect("the port is free");
        server.set_nonblocking(true).expect("a socket can be told not to wait");
        Acceptor { world, server, to: SocketAddr::new(world.local(family), PORT) }
    }

    /// Nanoseconds a connection.
    pub fn run(&self) -> f64 {
        let to = SockaddrStorage::from(self.to);
        let work = || cost(COUNT, || (0..COUNT).for_each(|_| drop(self.one(&to))));
        self.world.far.enter(work)
    }

    fn one(&self, to: &SockaddrStorage) -> OwnedFd {
        let family = if self.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let client =
            socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket can be made");
        let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&client, sockopt::Linger, &at_once).expect("a socket can be told to reset");
        connect(client.as_raw_fd(), to)
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}\n{}", self.to, self.world.log()));
        let accepted = self.accept();
        drop(client);
        accepted
    }

    fn accept(&self) -> OwnedFd {
        let null = std::ptr::null_mut();
        // SAFETY: accept4(2) takes null pointers where nobody asks for the address.
        let fd = unsafe { libc::accept4(self.server.as_raw_fd(), null, null.cast(), libc::SOCK_CLOEXEC) };
        assert!(fd >= 0, "nothing to accept: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just made and belongs to nobody else.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    /// Does an accepted socket carry the tenant's mark?
    pub fn proven(&self) {
        let mark = self.world.far.enter(|| fief_testkit::mark(&self.one(&SockaddrStorage::from(self.to))));
        assert_eq!(mark.ok(), Some(self.world.mark), "the accepted socket is not the tenant's");
    }
}
