//! The programs at the ports of networks' bridges, and at the links that lead out (bpf/ports.bpf.c). They are in no link and on no pin: a port keeps its
//! programs, and they their maps, until it goes or gets others.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya::EbpfLoader;
use aya::programs::SchedClassifier;

use crate::{DatapathError, chain};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ports.bpf.o"));

/// How many numbers a tenant has for devices that the programs sit at or send packets to. All of them have numbers (ifindex)
/// of their own on a host, whatever namespace they are in, because the programs know a device by its number.
pub const EACH: u32 = 4096;
/// Within a tenant's: the end of its link in its namespace. Below are numbers for the end on the host.
const INNER: u32 = 256;
/// Within a tenant's: ports that are ends of veth pairs, and ports that are TAP devices (FIRST_TAP of the programs).
pub const VETHS: Range<u32> = INNER + 1..3072;
/// See [`VETHS`].
pub const TAPS: Range<u32> = VETHS.end..EACH;

/// The first number of a tenant's. The kernel counts from 1 in every namespace and does not come so far.
pub fn first(slot: u16) -> u32 {
    (u32::from(slot) + 1) * EACH
}

/// The ends of a tenant's link, on the host and in its namespace. The kernel finds a device by the low byte of its number
/// (dev_index_hash in net/core/dev.c), so those of the host differ in it.
pub fn link(slot: u16) -> [u32; 2] {
    [first(slot) + u32::from(slot) % INNER, first(slot) + INNER]
}

/// The programs, loaded.
#[derive(Debug, Clone)]
pub struct Ports {
    /// For what comes in.
    pub ingress: Arc<OwnedFd>,
    /// For what goes out.
    pub egress: Arc<OwnedFd>,
}

impl Ports {
    /// Loads and verifies the programs, with new maps.
    pub fn load() -> Result<Ports, DatapathError> {
        let mut programs = EbpfLoader::new().load(OBJECT).map_err(|e| DatapathError::Load(chain(&e)))?;
        let mut take = |name: &str| -> Result<Arc<OwnedFd>, DatapathError> {
            let failed = |e: &dyn std::error::Error| DatapathError::Load(format!("{name}: {}", chain(e)));
            let absent = || DatapathError::Load(format!("no {name}"));
            let program = programs.program_mut(name).ok_or_else(absent)?;
            let program: &mut SchedClassifier = program.try_into().map_err(|e| failed(&e))?;
            program.load().map_err(|e| failed(&e))?;
            let descriptor = program.fd().map_err(|e| failed(&e))?.as_fd().try_clone_to_owned();
            descriptor.map(Arc::new).map_err(|e| failed(&e))
        };
        Ok(Ports { ingress: take("way_in")?, egress: take("way_out")? })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn links_of_many_tenants_are_spread_and_nobody_elses() {
        let mut low = HashMap::<u32, usize>::new();
        for slot in 1..=1024 {
            let [outer, inner] = link(slot);
            *low.entry(outer & 0xff).or_default() += 1;
            let own = [VETHS, TAPS].map(|range| first(slot) + range.start..first(slot) + range.end);
            assert!(
                outer != inner && own.iter().all(|range| !range.contains(&outer) && !range.contains(&inner))
            );
        }
        assert!(low.values().all(|count| *count == 4), "{low:?}");
    }
}
