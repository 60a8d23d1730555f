//! The routes by which answers to aliases of UDP senders find their way (bpf/lib/alias.h).

use std::collections::{BTreeSet, HashMap};

use fief_host::{Family, Route, RouteKind};
use fief_model::Slot;
use ipnet::IpNet;

use super::{Desired, Tree};
use crate::observed::Observed;

/// A datagram becomes fragments behind the detour, where its real way is known. The largest MTU that a route can have
/// (ip_metrics_convert).
const WHOLE: u32 = 65_520;

/// One on each device by which tenants may answer, since a server may name the device; in the table of slot 0.
///
/// Where reverse paths are filtered, a tenant's table must know its way to an alias as well.
pub fn routes(tree: &Tree, tenants: &HashMap<Slot, Desired>, observed: &Observed) -> Vec<Route> {
    let mut ways = BTreeSet::new();
    let mut routes = Vec::new();
    // A server for everybody gets no datagrams of a VRF.
    for (slot, desired) in tenants.iter().filter(|(_, desired)| desired.vrf.is_none()) {
        for (address, owner) in &desired.owned {
            if !observed.is_up(owner.ifindex) {
                continue;
            }
            let family = Family::of(*address);
            ways.insert((tree.table_base, family, owner.ifindex));
            if family == Family::V4 && observed.filters_reverse_path {
                ways.insert((tree.table_base + u32::from(slot.number()), family, owner.ifindex));
            }
        }
    }
    for (table, family, device) in ways {
        let prefix = match family {
            Family::V4 => IpNet::V4(tree.aliases.v4),
            Family::V6 => IpNet::V6(tree.aliases.v6),
        };
        routes.push(Route {
            table,
            prefix,
            metric: device,
            kind: RouteKind::Unicast,
            device: Some(device),
            via: None,
            source: None,
            on_link: false,
            mtu: Some(WHOLE),
            detour: Some(tree.detour),
        });
    }
    routes
}
