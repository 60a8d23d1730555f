//! The links between the host and tenants' namespaces, and their addresses.
//!
//! ```text
//!   host                                        namespace of slot 7
//!   248.0.0.1 [fief7] ──────── veth ──────── [transit] 248.0.0.112 for uplink 0, .113 for uplink 1, ...
//! ```
//!
//! An address of a link says two things at once: whose packets they are, and by which uplink they leave. The tenant's
//! namespace translates what leaves a network to the address of the uplink that is in use; another uplink is another
//! address, so connections that are under way stay where they are.

use std::net::Ipv4Addr;

use fief_model::Slot;
use ipnet::Ipv4Net;

/// Uplinks that a host may have: four bits of a link's address.
pub const UPLINKS: u8 = 16;
const BITS: u8 = 4;
/// Bits of the slot and of the uplink.
pub const LONGEST: u8 = 32 - 16 - BITS;

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
    /// The host's address on every link; slot 0 is the host.
    pub fn gateway(self) -> Ipv4Addr {
        self.at(1)
    }

    /// The addresses of a tenant's end.
    pub fn block(self, slot: Slot) -> Ipv4Net {
        Ipv4Net::new_assert(self.at(u32::from(slot.number()) << BITS), 32 - BITS)
    }

    /// The address of a tenant's end that stands for an uplink.
    pub fn address(self, slot: Slot, uplink: u8) -> Ipv4Addr {
        self.at(u32::from(slot.number()) << BITS | u32::from(uplink % UPLINKS))
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
        assert_eq!(links.address(Slot::new(7).unwrap(), 1), Ipv4Addr::new(248, 0, 0, 0x71));
        assert_eq!(links.block(last).to_string(), "248.15.255.192/28");
        assert!(links.0.contains(&links.address(last, UPLINKS - 1)));
        assert!(!links.block(Slot::new(1).unwrap()).contains(&links.gateway()));
    }
}
