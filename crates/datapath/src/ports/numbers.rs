//! Numbers (ifindex) of devices that programs sit at or send packets to: each once on the whole host.

use std::ops::Range;

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
