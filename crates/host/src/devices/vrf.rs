//! Does this kernel have VRFs (CONFIG_NET_VRF)?

use rustix::thread::UnshareFlags;

use super::{Build, NewLink, Vrf, carry_out};
use crate::HostError;
use crate::netlink::Socket;

/// Asks the kernel for a VRF in a network namespace of its own, which goes with the thread that asks. A module is loaded
/// for it (rtnl-link-vrf), where modules are.
///
/// Errors: what the kernel says; EOPNOTSUPP where it does not know the word.
pub fn has_vrf() -> Result<(), HostError> {
    let ask = || {
        // SAFETY: only this thread, which ends with the question, leaves its network namespace.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(|e| HostError::io("make a network namespace to ask for a VRF in", e))?;
        let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
        let link = NewLink { name: "vrf".into(), ..NewLink::default() };
        carry_out(&mut socket, &[Build::AddVrf(Vrf { link, table: 1 })]).into_iter().collect()
    };
    let ended = std::thread::scope(|scope| scope.spawn(ask).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
