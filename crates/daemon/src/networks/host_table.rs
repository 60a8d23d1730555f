//! The host's own table of networks. A change of it costs what has changed, however many tenants there are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use fief_host::netlink::Socket;
use fief_host::nft::{Batch, Exchange, Family, Table};
use fief_host::{HostError, devices, sysctl};

use super::rules::{self, HostRules, OfTenant, TABLE};
use super::wanted::Space;
use super::{Networks, Wanted, Ways, links};

/// The table as it stands, and what it was made of.
pub struct HostTable {
    rules: HostRules,
    ways: Ways,
    tenants: BTreeMap<String, Part>,
    table: Table,
}

/// What a tenant's part of it is made of.
#[derive(Clone, PartialEq, Eq)]
struct Part {
    space: Arc<Space>,
    /// The number of the link's end.
    link: Option<u32>,
}

impl Networks {
    /// Makes the host's table as it is wanted.
    pub(super) fn set_rules(
        &mut self,
        wanted: &Wanted,
        ways: Ways,
        switched: &BTreeSet<String>,
        closing: &mut Vec<Socket>,
    ) -> bool {
        let is_linked = |space: &Arc<Space>| !space.transit.is_empty();
        if wanted.exits.is_empty() && !wanted.spaces.values().any(is_linked) {
            return self.remove_rules();
        }
        let rules = self.host_rules(wanted, ways, switched);
        let set = match self.table.take() {
            Some(before) if before.rules == rules && before.ways == ways && rules.are_apart() => {
                self.exchange(before, wanted, closing)
            }
            before => self.make_whole(before, rules, ways, wanted, closing),
        };
        match set {
            Ok((table, did)) => {
                self.table = Some(table);
                did
            }
            Err(error) => {
                tracing::error!(%error, "the host's table of networks could not be set");
                true
            }
        }
    }

    /// Only tenants have changed, if anything has.
    fn exchange(
        &self,
        mut table: HostTable,
        wanted: &Wanted,
        closing: &mut Vec<Socket>,
    ) -> Result<(HostTable, bool), HostError> {
        let adopted = self.adopted();
        let (mut gone, mut come) = (OfTenant::default(), OfTenant::default());
        let left: Vec<String> =
            table.tenants.keys().filter(|tenant| !wanted.spaces.contains_key(*tenant)).cloned().collect();
        for part in left.iter().filter_map(|tenant| table.tenants.remove(tenant)) {
            gone.extend(table.rules.of(&part, table.ways));
        }
        for (tenant, space) in &wanted.spaces {
            let link = self.link_of(tenant, space, &adopted);
            let before = table.tenants.get(tenant);
            if before.is_some_and(|part| part.link == link && part.space == *space) {
                continue;
            }
            gone.extend(before.map(|part| table.rules.of(part, table.ways)).unwrap_or_default());
            let part = Part { space: space.clone(), link };
            come.extend(table.rules.of(&part, table.ways));
            table.tenants.insert(tenant.clone(), part);
        }
        let exchanges = table.rules.elements(&gone).into_iter().zip(table.rules.elements(&come));
        let exchanges = exchanges.map(|((set, gone), (_, come))| {
            let (then, now): (HashSet<_>, HashSet<_>) =
                (gone.into_iter().collect(), come.into_iter().collect());
            Exchange {
                set,
                gone: then.difference(&now).cloned().collect(),
                come: now.difference(&then).cloned().collect(),
            }
        });
        let exchanges: Vec<Exchange> =
            exchanges.filter(|exchange| !exchange.gone.is_empty() || !exchange.come.is_empty()).collect();
        if exchanges.is_empty() {
            return Ok((table, false));
        }
        let batch = table.table.exchange(exchanges);
        let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
        if batch.commit(&mut socket).is_err() {
            // Elements that are not there, or there already: somebody else was at the table.
            table.table.whole().commit(&mut socket)?;
        }
        closing.push(socket);
        Ok((table, true))
    }

    fn make_whole(
        &self,
        before: Option<HostTable>,
        rules: HostRules,
        ways: Ways,
        wanted: &Wanted,
        closing: &mut Vec<Socket>,
    ) -> Result<(HostTable, bool), HostError> {
        let adopted = self.adopted();
        let mut all = OfTenant::default();
        let mut tenants = BTreeMap::new();
        for (tenant, space) in &wanted.spaces {
            let part = Part { space: space.clone(), link: self.link_of(tenant, space, &adopted) };
            all.extend(rules.of(&part, ways));
            tenants.insert(tenant.clone(), part);
        }
        let table = rules.table(&all);
        let before = before.map(|before| before.table);
        let mut did = false;
        if before.as_ref() != Some(&table) {
            let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
            did = rules::set(before.as_ref(), &table, &mut socket)?;
            closing.push(socket);
        }
        Ok((HostTable { rules, ways, tenants, table }, did))
    }

    fn link_of(&self, tenant: &str, space: &Space, adopted: &HashMap<String, u32>) -> Option<u32> {
        let standing = self.spaces.get(tenant).and_then(|standing| standing.link);
        standing.or_else(|| match adopted.is_empty() {
            true => None,
            false => adopted.get(&links::device(space.slot)).copied(),
        })
    }

    fn host_rules(&self, wanted: &Wanted, ways: Ways, switched: &BTreeSet<String>) -> HostRules {
        let closed =
            wanted.exits.iter().filter(|(name, exit)| exit.device.is_some() && is_closed(name, switched));
        HostRules {
            links: self.links,
            positions: ways.positions(),
            local_moved: self.local_moved,
            closed: closed.filter_map(|(_, exit)| exit.device).collect(),
            exits: wanted.exits.clone(),
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

impl HostRules {
    /// What a tenant adds.
    fn of(&self, part: &Part, ways: Ways) -> OfTenant {
        let Part { space, link } = part;
        let mapped: BTreeSet<Ipv4Addr> = space.mapped.keys().map(|(address, ..)| *address).collect();
        let served = space.segments.values().filter(|segment| segment.cable.is_none());
        let foreign = served.flat_map(|segment| {
            mapped.iter().map(|address| (segment.services.subnet, *address)).collect::<Vec<_>>()
        });
        // Nobody leaves by the host's own routes meanwhile.
        let device = link.filter(|_| ways != Ways::Missing);
        let sources = space.transit.iter().filter_map(|(index, address)| {
            let exit = self.exits.values().find(|exit| exit.uplink.index == *index)?;
            Some(((device?, *address), exit.uplink.slot.number()))
        });
        OfTenant { sources: sources.collect(), called: space.called.clone(), collisions: foreign.collect() }
    }

    /// Has each uplink addresses of its own? Else a port of one may be another's, and tenants are not to be told apart.
    fn are_apart(&self) -> bool {
        let mut addresses = self.exits.values().flat_map(|exit| &exit.addresses);
        let mut seen = BTreeSet::new();
        addresses.all(|address| seen.insert(address))
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
