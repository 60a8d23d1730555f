//! The links between the host and tenants' namespaces, and their addresses.
//!
//! ```text
//!   host                                        namespace of slot 7
//!   248.0.0.1 [fief7] ──────── veth ──────── [transit] 248.1.0.7 for uplink 0, 248.2.0.7 for uplink 1, ...
//! ```
//!
//! An address of a link says two things at once: whose packets they are, and by which uplink they leave. The tenant's
//! namespace translates what leaves a network to the address of the uplink that is in use; another uplink is another
//! address, so connections that are under way stay where they are. The uplink comes first, so that the addresses that
//! stand for it are one prefix, and one rule can send all tenants' packets its way; the first prefix is the host's.

use std::net::Ipv4Addr;

use fief_model::Slot;
use ipnet::Ipv4Net;

/// Uplinks that a host may have: four bits of a link's address, and the host itself is one of the sixteen.
pub const UPLINKS: u8 = 15;
const BITS: u8 = 4;
/// Bits of the slot.
const SLOT: u8 = 16;
/// The longest prefix that has room for the bits of the uplink and of the slot.
pub const LONGEST: u8 = 32 - SLOT - BITS;

/// The end in a tenant's namespace.
pub const TRANSIT: &str = "transit";
/// The Ethernet address of the host's end of every link, and of the other end: known, so that nobody asks.
pub const HOST_MAC: [u8; 6] = [0x02, 0xf1, 0xef, 0, 0, 1];
/// See [`HOST_MAC`].
pub const SPACE_MAC: [u8; 6] = [0x02, 0xf1, 0xef, 0, 0, 2];
/// The group of devices (`ip link`, IFLA_GROUP) that the host's ends are in: fief's protocol number.
pub const GROUP: u32 = fief_host::PROTOCOL as u32;

/// The groups of what a tenant with a VRF has on the host: one for its VRF, its bridges and their ports, one for the inner
/// end of its link, each with the slot in its low half. So a rule knows a tenant's devices before they are there.
pub const INSIDE: u32 = 0x00f1_0000;
/// See [`INSIDE`].
pub const DOOR: u32 = 0x00f2_0000;
/// The bits of such a group that say which kind it is.
pub const KIND: u32 = 0xffff_0000;

/// The group of a tenant's VRF, bridges and ports.
pub fn inside(slot: Slot) -> u32 {
    INSIDE | u32::from(slot.number())
}

/// The group of the inner end of a tenant's link.
pub fn door(slot: Slot) -> u32 {
    DOOR | u32::from(slot.number())
}

/// Is a device of this group in some tenant's VRF?
pub fn is_in_a_vrf(group: u32) -> bool {
    [INSIDE, DOOR].contains(&(group & KIND))
}

/// A tenant's VRF.
pub fn vrf(slot: Slot) -> String {
    format!("vrf{}", slot.number())
}

/// The inner end of the link of a tenant with a VRF.
pub fn inner(slot: Slot) -> String {
    format!("t{}", slot.number())
}

/// The range that addresses of links are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links(pub Ipv4Net);

impl Links {
    /// The host's address on every link.
    pub fn gateway(self) -> Ipv4Addr {
        self.at(1)
    }

    /// The addresses that stand for the host.
    pub fn of_host(self) -> Ipv4Net {
        Ipv4Net::new_assert(self.at(0), 32 - SLOT)
    }

    /// The addresses that stand for an uplink, one a tenant.
    pub fn of_uplink(self, uplink: u8) -> Ipv4Net {
        Ipv4Net::new_assert(self.at((u32::from(uplink % UPLINKS) + 1) << SLOT), 32 - SLOT)
    }

    /// The address of a tenant's end that stands for an uplink.
    pub fn address(self, slot: Slot, uplink: u8) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.of_uplink(uplink).network()) | u32::from(slot.number()))
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) | offset)
    }
}

/// The host's end of a tenant's link.
pub fn device(slot: Slot) -> String {
    format!("fief{}", slot.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenant_and_uplink_has_an_address_of_its_own() {
        let links = Links("248.0.0.0/12".parse().unwrap());
        let last = Slot::new(65_532).unwrap();
        assert_eq!(links.gateway(), Ipv4Addr::new(248, 0, 0, 1));
        assert_eq!(links.address(Slot::new(7).unwrap(), 1), Ipv4Addr::new(248, 2, 0, 7));
        assert_eq!(links.of_uplink(1).to_string(), "248.2.0.0/16");
        assert_eq!(links.address(last, UPLINKS - 1), Ipv4Addr::new(248, 15, 255, 252));
        assert!(links.0.contains(&links.of_uplink(UPLINKS - 1)));
        assert!((0..UPLINKS).all(|uplink| !links.of_uplink(uplink).contains(&links.gateway())));
    }
}
