//! Making a socket, setting an option of it, and switching a thread's tenant.

use std::os::fd::{AsFd, OwnedFd};

use libfief::Whose;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

use crate::compare::cost;
use crate::world::World;

const COUNT: u32 = 20_000;

/// Nanoseconds for socket(2) and close(2) of a TCP socket, by a thread that is the last tenant's.
pub fn socket_and_close(world: &World) -> f64 {
    as_last_tenant(world, || cost(COUNT, || (0..COUNT).for_each(|_| drop(stream()))))
}

/// Nanoseconds for setsockopt(2) of an option that is not fief's.
pub fn other_option(world: &World) -> f64 {
    as_last_tenant(world, || {
        let socket = stream();
        let set = |_| setsockopt(&socket, sockopt::ReuseAddr, &true).expect("an ordinary option");
        cost(COUNT, || (0..COUNT).for_each(set))
    })
}

/// Nanoseconds for a thread to become another tenant's, by the socket option.
pub fn switch(world: &World) -> f64 {
    as_last_tenant(world, || {
        let any = libfief::any_socket().expect("a socket can be made");
        let enter = |i| switch_to(&any, i % 2);
        cost(COUNT, || (0..COUNT).for_each(enter))
    })
}

/// Slot 1, which the one tenant has, and back to the process's tenant.
fn switch_to(any: &impl AsFd, slot: u32) {
    libfief::set_number(any, Whose::Thread, slot).expect("an administrator may");
}

fn as_last_tenant(world: &World, work: impl FnOnce() -> f64 + Send) -> f64 {
    world.inside(|| {
        if world.mark != 0 {
            let any = libfief::any_socket().expect("a socket can be made");
            libfief::set_number(&any, Whose::Thread, world.mark).expect("an administrator may");
            assert_eq!(fief_testkit::mark(&stream()).expect("an option"), world.mark);
        }
        work()
    })
}

fn stream() -> OwnedFd {
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    made.expect("a socket can be made")
}
