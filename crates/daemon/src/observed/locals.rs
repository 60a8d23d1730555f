//! IPv6 addresses that the kernel has and does not listen to.
//!
//! An address works by its route of type `local`. A device that goes down takes these routes and leaves the addresses
//! (keep_addr_on_down); when it rises the kernel makes them again, for each address that waits for it
//! (net/ipv6/addrconf.c, `fixup_permanent_addr`). But work on an address that was queued at an earlier rise and runs
//! while the device is down marks the address as done (`addrconf_dad_work`), and then nothing makes its route. It stays
//! so until somebody takes the address away and adds it again; replacing it is not enough. Devices that fall and rise
//! several times in a row, while others ask the kernel for things, meet that.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

/// How long the kernel may take to make the routes. It makes one after the other, each behind whoever changes devices,
/// addresses or routes at that time.
const GRACE: Duration = Duration::from_millis(500);

/// The kernel's own `local` routes of IPv6, by device and address.
#[derive(Debug, Default)]
pub struct Locals {
    routes: HashSet<(u32, Ipv6Addr)>,
    /// When to look whether every address has one.
    doubt: Option<Instant>,
}

impl Locals {
    /// A route came.
    pub fn came(&mut self, device: u32, address: Ipv6Addr) {
        self.routes.insert((device, address));
    }

    /// A route went.
    pub fn went(&mut self, device: u32, address: Ipv6Addr) -> bool {
        self.routes.remove(&(device, address))
    }

    /// The routes of a device went with it.
    pub fn forget(&mut self, device: u32) {
        self.routes.retain(|(on, _)| *on != device);
    }

    /// Something happened behind which a route may be missing.
    pub fn doubt(&mut self, now: Instant) {
        self.doubt = Some(now + GRACE);
    }

    /// Addresses come and go: what was in doubt stays so for a while.
    pub fn wait(&mut self, now: Instant) {
        self.doubt = self.doubt.map(|_| now + GRACE);
    }

    /// When to look.
    pub fn look_at(&self) -> Option<Instant> {
        self.doubt
    }

    /// Is it time to look? Once.
    pub fn is_due(&mut self, now: Instant) -> bool {
        self.doubt.take_if(|at| *at <= now).is_some()
    }

    /// Does the kernel listen to this address?
    pub fn has(&self, device: u32, address: Ipv6Addr) -> bool {
        self.routes.contains(&(device, address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_once_after_a_while_and_later_while_addresses_come() {
        let (mut locals, now) = (Locals::default(), Instant::now());
        locals.wait(now);
        assert_eq!(locals.look_at(), None, "nothing is in doubt");
        locals.doubt(now);
        assert!(!locals.is_due(now));
        let later = now + GRACE / 2;
        locals.wait(later);
        assert!(!locals.is_due(now + GRACE));
        assert!(locals.is_due(later + GRACE));
        assert!(!locals.is_due(later + GRACE), "once");
    }

    #[test]
    fn routes_go_with_their_device() {
        let mut locals = Locals::default();
        let [a, b] = ["fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
        locals.came(7, a);
        locals.came(7, b);
        locals.came(8, a);
        assert!(locals.went(7, b) && !locals.went(7, b));
        locals.forget(7);
        assert!(locals.has(8, a) && !locals.has(7, a));
    }
}
