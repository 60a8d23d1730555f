//! Which address a client gets.

use std::net::Ipv4Addr;
use std::time::SystemTime;

use super::state::State;
use crate::{Lease, NetworkConfig};

/// There is no address for this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAddress;

impl State {
    /// The address for a client: its own; or that of its lease, of its offer, the one it wants; or the first of the range
    /// that nobody ever had; or the one that nobody has for the longest time.
    pub(super) fn choose(
        &self,
        config: &NetworkConfig,
        now: SystemTime,
        mac: &[u8; 6],
        wanted: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr, NoAddress> {
        let own = self.endpoints.get(mac).copied().flatten();
        let leased = self.by_mac.get(mac).copied();
        let offered = self.offers.get(mac).map(|offer| offer.0);
        let first = [own, leased, offered, wanted].into_iter().flatten();
        let mut first = first.filter(|address| self.may_have(config, now, mac, *address));
        first.next().map_or_else(|| self.search(config, now, mac), Ok)
    }

    /// May this client have this address now?
    pub(super) fn may_have(
        &self,
        config: &NetworkConfig,
        now: SystemTime,
        mac: &[u8; 6],
        address: Ipv4Addr,
    ) -> bool {
        let fits = match self.endpoints.get(mac) {
            None => false,
            Some(Some(own)) => *own == address,
            Some(None) => in_range(config, address) && !self.reserved.contains(&address),
        };
        let declined = || self.declined.iter().any(|it| it.address == address && it.until > now);
        fits && usable(config, address) && !declined() && self.is_free(now, mac, address)
    }

    /// Every step passes over an address that somebody has, so that a wide range costs no more than its clients do.
    fn search(&self, config: &NetworkConfig, now: SystemTime, mac: &[u8; 6]) -> Result<Ipv4Addr, NoAddress> {
        let range = config.dhcp.as_ref().and_then(|dhcp| dhcp.range.clone()).ok_or(NoAddress)?;
        if self.endpoints.get(mac).copied().flatten().is_some() {
            return Err(NoAddress);
        }
        // Nothing outside of the subnet is looked at, whatever the range says.
        let first = u32::from(*range.start()).max(config.subnet.network().into());
        let last = u32::from(*range.end()).min(config.subnet.broadcast().into());
        let mut oldest: Option<&Lease> = None;
        for address in (first..=last).map(Ipv4Addr::from) {
            if !self.may_have(config, now, mac, address) {
                continue;
            }
            let Some(ended) = self.leases.get(&address) else { return Ok(address) };
            if oldest.is_none_or(|oldest| ended.expires < oldest.expires) {
                oldest = Some(ended);
            }
        }
        oldest.map(|lease| lease.address).ok_or(NoAddress)
    }

    fn is_free(&self, now: SystemTime, mac: &[u8; 6], address: Ipv4Addr) -> bool {
        let leased = self.leases.get(&address).is_some_and(|it| it.mac != *mac && it.expires > now);
        let offered = || {
            self.offers
                .iter()
                .any(|(other, (offer, until))| other != mac && *offer == address && *until > now)
        };
        !leased && !offered()
    }
}

fn in_range(config: &NetworkConfig, address: Ipv4Addr) -> bool {
    config.dhcp.as_ref().and_then(|dhcp| dhcp.range.as_ref()).is_some_and(|range| range.contains(&address))
}

/// Is it a host's address on this network, and not the gateway's? In a /31 both are (RFC 3021).
fn usable(config: &NetworkConfig, address: Ipv4Addr) -> bool {
    let subnet = config.subnet;
    let edge = subnet.prefix_len() < 31 && [subnet.network(), subnet.broadcast()].contains(&address);
    subnet.contains(&address) && !edge && address != config.gateway
}
