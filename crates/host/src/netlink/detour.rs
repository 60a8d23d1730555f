//! Routes that lead through a bpf program (`lwt_xmit`): `struct nlattr`s of linux/lwtunnel.h, which the bindings hand
//! over as bytes.

use std::os::fd::{AsRawFd, OwnedFd};

use super::attribute::{find, push};
use crate::Family;

/// LWTUNNEL_ENCAP_BPF.
pub(crate) const TYPE: u16 = 6;
const LWT_BPF_XMIT: u16 = 3;
const LWT_BPF_PROG_FD: u16 = 1;
const LWT_BPF_PROG_NAME: u16 = 2;

/// Which programs a route leads through, by a digest of them: the name that the kernel shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Detour(pub u32);

/// The programs of a [`Detour`], IPv4's and IPv6's.
#[derive(Debug)]
pub struct Programs(pub [OwnedFd; 2]);

impl Detour {
    /// `RTA_ENCAP` of a new route.
    pub(crate) fn encode(self, family: Family, programs: Option<&Programs>) -> Vec<u8> {
        let mut inner = Vec::new();
        if let Some(Programs([v4, v6])) = programs {
            let program = if family == Family::V4 { v4 } else { v6 };
            push(&mut inner, LWT_BPF_PROG_FD, &(program.as_raw_fd() as u32).to_ne_bytes());
        }
        let mut name = self.to_string().into_bytes();
        name.push(0);
        push(&mut inner, LWT_BPF_PROG_NAME, &name);
        let mut outer = Vec::new();
        push(&mut outer, LWT_BPF_XMIT, &inner);
        outer
    }

    /// Reads `RTA_ENCAP`; `None` if it is none of ours.
    pub(crate) fn decode(encap: &[u8]) -> Option<Detour> {
        let xmit = find(encap, LWT_BPF_XMIT)?;
        let name = std::str::from_utf8(find(xmit, LWT_BPF_PROG_NAME)?).ok()?;
        let digest = name.trim_end_matches('\0').strip_prefix("fief-")?;
        Some(Detour(u32::from_str_radix(digest, 16).ok()?))
    }
}

impl std::fmt::Display for Detour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fief-{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let bytes = Detour(0xab12).encode(Family::V4, None);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(Detour::decode(&bytes), Some(Detour(0xab12)));
        assert_eq!(Detour::decode(&bytes[..7]), None);
        let mut foreign = Vec::new();
        push(&mut foreign, LWT_BPF_XMIT, &[8, 0, 2, 0, b'x', b'y', b'z', 0]);
        assert_eq!(Detour::decode(&foreign), None);
    }
}
