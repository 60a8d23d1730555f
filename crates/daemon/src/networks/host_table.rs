//! The host's own table of networks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use fief_host::netlink::Socket;
use fief_host::nft::{Batch, Family};
use fief_host::{devices, sysctl};

use super::rules::{self, HostRules, TABLE};
use super::{Networks, Wanted, Ways, links};

impl Networks {
    /// Makes the host's table as it is wanted.
    pub(super) fn set_rules(
        &mut self,
        wanted: &Wanted,
        ways: Ways,
        switched: &BTreeSet<String>,
        closing: &mut Vec<Socket>,
    ) -> bool {
        let links = wanted.links();
        if !links.iter().any(|link| link.is_there) && wanted.exits.is_empty() {
            return self.remove_rules();
        }
        let next = self.host_rules(wanted, ways, switched).table();
        if self.table.as_ref() == Some(&next) {
            return false;
        }
        let set = Socket::open(libc::NETLINK_NETFILTER).and_then(|mut socket| {
            let set = rules::set(self.table.as_ref(), &next, &mut socket);
            closing.push(socket);
            set
        });
        match set {
            Ok(did) => {
                self.table = Some(next);
                did
            }
            Err(error) => {
                tracing::error!(%error, "the host's table of networks could not be set");
                self.table = None;
                true
            }
        }
    }

    fn host_rules(&self, wanted: &Wanted, ways: Ways, switched: &BTreeSet<String>) -> HostRules {
        let mut sources = BTreeMap::new();
        let mut called = BTreeMap::new();
        let mut collisions = BTreeSet::new();
        let by_index: HashMap<u8, u16> =
            wanted.exits.values().map(|exit| (exit.uplink.index, exit.uplink.slot.number())).collect();
        let adopted = self.adopted();
        for (tenant, space) in &wanted.spaces {
            called.extend(space.called.iter().map(|(at, to)| (*at, *to)));
            let mapped: BTreeSet<Ipv4Addr> = space.mapped.keys().map(|(address, ..)| *address).collect();
            for segment in space.segments.values().filter(|segment| segment.cable.is_none()) {
                collisions.extend(mapped.iter().map(|address| (segment.services.subnet, *address)));
            }
            let standing = self.spaces.get(tenant).and_then(|standing| standing.link);
            let Some(device) = standing.or_else(|| adopted.get(&links::device(space.slot)).copied()) else {
                continue;
            };
            // Nobody leaves by the host's own routes meanwhile.
            if ways == Ways::Missing {
                continue;
            }
            for (index, address) in &space.transit {
                if let Some(number) = by_index.get(index) {
                    sources.insert((device, *address), *number);
                }
            }
        }
        let closed =
            wanted.exits.iter().filter(|(name, exit)| exit.device.is_some() && is_closed(name, switched));
        HostRules {
            links: self.links,
            positions: ways.positions(),
            local_moved: self.local_moved,
            closed: closed.filter_map(|(_, exit)| exit.device).collect(),
            exits: wanted.exits.clone(),
            sources,
            called,
            collisions,
        }
    }

    /// Devices by name, until everything has been looked at once: an earlier daemon may have left links. Later a listing
    /// would only cost: for each link the kernel looks through all namespaces that the host knows (peernet2id).
    fn adopted(&self) -> HashMap<String, u32> {
        if self.begun {
            return HashMap::new();
        }
        let there = Socket::open(libc::NETLINK_ROUTE).and_then(|mut socket| devices::list(&mut socket));
        there.unwrap_or_default().into_iter().map(|device| (device.name, device.index)).collect()
    }

    fn remove_rules(&mut self) -> bool {
        if self.table.is_none() && self.begun {
            return false;
        }
        let mut batch = Batch::new(Family::Inet, TABLE);
        batch.delete_table_if_there();
        let removed = Socket::open(libc::NETLINK_NETFILTER).and_then(|mut socket| batch.commit(&mut socket));
        if let Err(error) = removed {
            // A kernel without nf_tables has no table of ours either.
            tracing::debug!(%error, "the host's table of networks was not removed");
        }
        self.table.take().is_some()
    }
}

/// Did this device forward nothing before fief?
fn is_closed(device: &str, switched: &BTreeSet<String>) -> bool {
    let name = forwarding(device);
    switched.contains(&name) || sysctl::read(&name).is_ok_and(|value| value.trim() == "0")
}

/// The switch that lets a device forward IPv4.
pub fn forwarding(device: &str) -> String {
    crate::plan::Setting::name_on("net.ipv4.conf.DEVICE.forwarding", device)
}
