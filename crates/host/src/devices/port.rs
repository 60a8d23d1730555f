//! Ports of bridges (bridge(8); IFLA_BRPORT_* of linux/if_link.h).

use super::Named;
use super::settings::name_device;
use crate::netlink::Message;
use crate::netlink::attribute::{find, nest, push, push_text};

/// What to change of a port; what is left out stays. As [`super::list`] gives it, nothing is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Port {
    /// Does it take frames only from addresses that have an entry at this port (IFLA_BRPORT_LOCKED)?
    pub locked: Option<bool>,
    /// Does it forward to no other isolated port?
    pub isolated: Option<bool>,
    /// Does it learn addresses from what comes in?
    pub learning: Option<bool>,
    /// Does a spanning tree message shut it?
    pub bpdu_guard: Option<bool>,
    /// May a frame leave by the port it came in by?
    pub hairpin: Option<bool>,
    /// Does it get frames to unknown addresses?
    pub flood: Option<bool>,
    /// Does it get multicast that nobody asked for?
    pub multicast_flood: Option<bool>,
    /// Does it get broadcast?
    pub broadcast_flood: Option<bool>,
    /// Does the bridge answer ARP and neighbour solicitation for those it knows, instead of sending it here?
    pub neigh_suppress: Option<bool>,
    /// Can it never be the way to the root of the spanning tree?
    pub root_block: Option<bool>,
}

impl Port {
    /// Each switch with its attribute and its name for bridge(8).
    fn switches(&self) -> [(u16, &'static str, Option<bool>); 10] {
        [
            (39, "locked", self.locked),
            (33, "isolated", self.isolated),
            (8, "learning", self.learning),
            (5, "guard", self.bpdu_guard),
            (4, "hairpin", self.hairpin),
            (9, "flood", self.flood),
            (27, "mcast_flood", self.multicast_flood),
            (30, "bcast_flood", self.broadcast_flood),
            (32, "neigh_suppress", self.neigh_suppress),
            (6, "root_block", self.root_block),
        ]
    }

    /// The request: RTM_NEWLINK that makes nothing, because AF_BRIDGE's own takes no names.
    pub(super) fn message(&self, device: &Named, what: String) -> Message {
        Message::new(libc::RTM_NEWLINK, 0, what, |body| {
            name_device(body, device, 0, 0);
            nest(body, libc::IFLA_LINKINFO, |info| {
                push_text(info, libc::IFLA_INFO_SLAVE_KIND, "bridge");
                nest(info, libc::IFLA_INFO_SLAVE_DATA, |data| {
                    for (kind, _, value) in self.switches() {
                        if let Some(value) = value {
                            push(data, kind, &[value.into()]);
                        }
                    }
                });
            });
        })
    }

    /// Reads IFLA_INFO_SLAVE_DATA of a bridge's port.
    pub(super) fn decode(data: &[u8]) -> Port {
        let [locked, isolated, learning, bpdu_guard, hairpin, flood, multicast, broadcast, suppress, root] =
            Port::default()
                .switches()
                .map(|(kind, ..)| find(data, kind).and_then(|v| v.first().map(|byte| *byte != 0)));
        Port {
            locked,
            isolated,
            learning,
            bpdu_guard,
            hairpin,
            flood,
            multicast_flood: multicast,
            broadcast_flood: broadcast,
            neigh_suppress: suppress,
            root_block: root,
        }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.switches().iter().try_for_each(|(_, name, value)| match value {
            Some(value) => write!(f, " {name} {}", if *value { "on" } else { "off" }),
            None => Ok(()),
        })
    }
}
