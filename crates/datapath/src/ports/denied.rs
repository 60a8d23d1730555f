//! What was not let through, and why (bpf/lib/denied.h).

use std::net::IpAddr;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use fief_policy::tables::RuleNumber;
use fief_policy::{Direction, Identity};

use super::entries::{self, Denials, address};
use super::{Ports, lock};
use crate::DatapathError;
use crate::maps::{map_error, take};

const NAME: &str = "fief_denied";

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A rule forbids it.
    Rule,
    /// Whose the port is is not known (yet).
    Unknown,
    /// Neither IP nor ARP, or it cannot be read.
    Unreadable,
    /// Its sender says that it is somebody else.
    Lie,
    /// A rule forbids it, and it passed: the tenant's policies are only audited.
    Audited,
}

/// Packets that have this in common and were not let through, or would not have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The port.
    pub device: u32,
    /// The endpoint's tenant.
    pub slot: u16,
    /// Who the endpoint was.
    pub subject: Identity,
    /// Who the other was, to the endpoint's tenant.
    pub peer: Identity,
    /// From the endpoint, or to it.
    pub direction: Direction,
    /// Why.
    pub reason: Reason,
    /// The rule that decided, where one did.
    pub rule: Option<RuleNumber>,
    /// The protocol of IP.
    pub protocol: u8,
    /// The port that was called; of ICMP the type.
    pub port: u16,
    /// The endpoint's address and the other's; `None` if they could not be read.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// How many packets.
    pub count: u64,
    /// When the first and the last of them came, since the host started.
    pub seen: (Duration, Duration),
}

pub(crate) struct Records {
    map: HashMap<MapData, entries::Denied, Denials>,
}

impl Records {
    pub(super) fn open(programs: &mut Ebpf) -> Result<Records, DatapathError> {
        let map = HashMap::try_from(take(programs, NAME)?).map_err(|e| map_error(NAME, &e))?;
        Ok(Records { map })
    }

    fn list(&self) -> Result<Vec<Denied>, DatapathError> {
        let mut list = Vec::new();
        for entry in self.map.iter() {
            match entry {
                Ok((key, value)) => list.push(denied(&key, &value)),
                // Displaced while the list was read.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(map_error(NAME, &error)),
            }
        }
        Ok(list)
    }
}

impl Ports {
    /// What was not let through lately: at most some thousand kinds of packets, those that were seen last.
    pub fn denied(&self) -> Result<Vec<Denied>, DatapathError> {
        lock(&self.denied).list()
    }
}

fn denied(key: &entries::Denied, value: &Denials) -> Denied {
    let reason = match key.reason {
        0 => Reason::Rule,
        1 => Reason::Unknown,
        2 => Reason::Unreadable,
        3 => Reason::Lie,
        _ => Reason::Audited,
    };
    let by_rule = matches!(reason, Reason::Rule | Reason::Audited);
    let addresses = (key.family != 0).then(|| (address(key.family, key.own), address(key.family, key.other)));
    Denied {
        device: key.device,
        slot: u16::try_from(value.slot).unwrap_or(0),
        subject: Identity(value.subject),
        peer: Identity(value.peer),
        direction: if key.direction == 0 { Direction::Ingress } else { Direction::Egress },
        reason,
        rule: by_rule.then_some(RuleNumber(key.rule)),
        protocol: key.protocol,
        port: key.port,
        addresses,
        count: value.count,
        seen: (Duration::from_nanos(value.first), Duration::from_nanos(value.last)),
    }
}
