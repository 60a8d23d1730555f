//! Who is at the ports of tenants' places, as the programs there are told: whose port it is, whose addresses are whose.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};

use fief_api::Condition;
use fief_datapath::DatapathError;
use fief_datapath::policy::Policy;
use fief_datapath::ports::{Occupant, Pair, Ports};
use fief_host::HostError;
use fief_services::ROUTER;
use ipnet::Ipv6Net;

use super::make::Tools;
use super::space::{METADATA, Standing};
use super::wanted::{Port, Segment, Space, condition};

/// What policies know of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// Its tenant's slot.
    pub slot: u16,
    /// Its identity among its tenant's; 0: none.
    pub identity: u32,
    /// Are its tenant's policies only written down?
    pub is_audited: bool,
}

/// What policies know of all endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// By `TENANT/NAME`.
    pub endpoints: HashMap<String, Subject>,
    /// The slots of tenants that have policies.
    pub judged: BTreeSet<u16>,
}

/// Who judges, and what.
pub struct Judging<'a> {
    /// What policies know of endpoints.
    pub subjects: Subjects,
    /// The programs and their tables; `None` if there are none, whatever is to be judged.
    pub policy: Option<&'a mut Policy>,
}

/// The programs for a tenant's ports, and who is there.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    ports: &'a Ports,
    subjects: &'a Subjects,
    is_judging: bool,
    /// Ports that have the programs already, by their names; `None` if that is not known.
    equipped: Option<&'a BTreeMap<String, u32>>,
    /// Is there a short way between ports?
    is_short: bool,
}

/// What the programs were told of one tenant's place.
#[derive(Debug, Default)]
pub(super) struct Told {
    is_judged: bool,
    devices: BTreeMap<u32, Occupant>,
    addresses: BTreeMap<IpAddr, u32>,
}

impl Subjects {
    fn of(&self, endpoint: &str) -> Subject {
        let nobody = Subject { slot: 0, identity: 0, is_audited: false };
        self.endpoints.get(endpoint).copied().unwrap_or(nobody)
    }

    /// Has somebody there policies?
    pub(super) fn judges(&self, space: &Space) -> bool {
        let mut ports = space.segments.values().flat_map(|segment| segment.ports.values());
        !self.judged.is_empty() && ports.any(|port| self.judged.contains(&self.of(&port.endpoint).slot))
    }
}

impl<'a> Watch<'a> {
    /// `None` where programs are not to be had.
    pub(super) fn new(
        space: &Space,
        tools: Tools<'a>,
        equipped: Option<&'a BTreeMap<String, u32>>,
    ) -> Option<Watch<'a>> {
        let Tools { subjects, plain, judging, .. } = tools;
        let is_judging = subjects.judges(space);
        let ports = if is_judging { judging } else { plain };
        Some(Watch { ports: ports?, subjects, is_judging, equipped, is_short: space.vrf.is_none() })
    }

    /// Has this port the programs already?
    pub(super) fn is_at(&self, name: &str, device: u32) -> bool {
        self.equipped.and_then(|equipped| equipped.get(name)) == Some(&device)
    }

    /// Has everything that stands the programs already?
    pub(super) fn is_at_home(&self) -> bool {
        self.equipped.is_some()
    }

    /// Has somebody there policies?
    pub(super) fn is_judging(&self) -> bool {
        self.is_judging
    }

    /// For ports; the short way's programs want connection tracking that does not mind gaps, and the host's is the host's.
    pub(super) fn pair(&self) -> &'a Pair {
        if self.is_short { &self.ports.port } else { &self.ports.gate }
    }

    /// For links.
    pub(super) fn link(&self) -> Option<&'a Pair> {
        self.is_short.then_some(&self.ports.link)
    }

    /// Says whose port a device is, and its addresses: before it has programs, which let nothing pass otherwise.
    pub(super) fn place(
        &self,
        space: u16,
        segment: &Segment,
        port: &Port,
        device: u32,
    ) -> Result<(), Condition> {
        let placed =
            self.ports.place(device, &occupant(space, segment, port, self.subjects)).and_then(|()| {
                addresses_of(segment, port).try_for_each(|address| self.ports.hold(space, address, device))
            });
        placed.map_err(|error| condition("AttachRefused", error.to_string()))
    }

    /// Says all that about ports which are there already, by their names: before the first of them has programs, which
    /// judge the one by whom the other is.
    pub(super) fn introduce(&self, space: &Space, there: &BTreeMap<String, u32>) -> Result<(), HostError> {
        let slot = space.slot.number();
        let told = || -> Result<(), DatapathError> {
            for (device, occupant) in occupants(space, there, self.subjects) {
                self.ports.place(device, &occupant)?;
            }
            addresses(space, there).into_iter().try_for_each(|(a, device)| self.ports.hold(slot, a, device))
        };
        told().map_err(|error| HostError::Missing(error.to_string()))
    }
}

/// Who is at the ports of a place that are there, by their numbers.
fn occupants(space: &Space, there: &BTreeMap<String, u32>, subjects: &Subjects) -> BTreeMap<u32, Occupant> {
    let slot = space.slot.number();
    let ports =
        space.segments.values().flat_map(|segment| segment.ports.iter().map(move |port| (segment, port)));
    ports
        .filter_map(|(segment, (name, port))| {
            Some((*there.get(name)?, occupant(slot, segment, port, subjects)))
        })
        .collect()
}

fn occupant(space: u16, segment: &Segment, port: &Port, subjects: &Subjects) -> Occupant {
    let Subject { slot, identity, is_audited } = subjects.of(&port.endpoint);
    let mut hasher = DefaultHasher::new();
    port.endpoint.hash(&mut hasher);
    Occupant {
        space,
        slot,
        identity,
        owner: hasher.finish() as u32,
        // On a switch everybody is who he is elsewhere.
        is_guarded: segment.cable.is_none(),
        is_audited,
    }
}

/// The addresses of a port. Those that a workload makes of its Ethernet address (RFC 4291, appendix A) are among them; on a
/// switch nobody knows any.
fn addresses_of<'a>(segment: &'a Segment, port: &'a Port) -> impl Iterator<Item = IpAddr> + 'a {
    let services = &segment.services;
    let prefixes = services.subnet6.into_iter().chain([LINK_LOCAL]);
    let made = prefixes.filter(|prefix| prefix.prefix_len() == 64).map(|p| eui64(p, port.mac.0).into());
    let served = services.endpoints.iter().filter(|endpoint| endpoint.mac == port.mac.0);
    let served = served.flat_map(|endpoint| {
        endpoint.address.map(IpAddr::from).into_iter().chain(endpoint.address6.map(IpAddr::from))
    });
    let leased = segment.leased.iter().filter(|(_, mac)| **mac == port.mac).map(|(a, _)| IpAddr::from(*a));
    let all = made.chain(port.address.map(|net| net.addr())).chain(served).chain(leased);
    all.filter(|address| segment.cable.is_none() && !address.is_unspecified())
}

/// Addresses that are somebody's in a place, and the ports (0: the network's own).
fn addresses(space: &Space, there: &BTreeMap<String, u32>) -> BTreeMap<IpAddr, u32> {
    let mut addresses = BTreeMap::new();
    for segment in space.segments.values().filter(|segment| segment.cable.is_none()) {
        for (name, port) in &segment.ports {
            let Some(device) = there.get(name) else { continue };
            addresses.extend(addresses_of(segment, port).map(|address| (address, *device)));
        }
        addresses.extend(segment.gateways.iter().map(|net| (net.addr(), 0)));
        addresses.extend([METADATA.into(), ROUTER.into()].map(|address: IpAddr| (address, 0)));
    }
    addresses
}

const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);

fn eui64(prefix: Ipv6Net, [a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let interface = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from(prefix.network().to_bits() | u128::from(interface))
}

impl Told {
    /// Tells the programs what has changed of a place; says whether anything had.
    pub(super) fn tell(
        &mut self,
        standing: &Standing,
        subjects: &Subjects,
        plain: Option<&Ports>,
        policy: Option<&Policy>,
    ) -> Result<bool, DatapathError> {
        if self.is_judged != standing.is_judged {
            self.end(plain, policy)?;
            self.is_judged = standing.is_judged;
        }
        let Some(ports) = self.ports(plain, policy) else { return Ok(false) };
        let space = standing.space.slot.number();
        let devices = occupants(&standing.space, &standing.ports, subjects);
        let addresses = addresses(&standing.space, &standing.ports);
        let mut is_changed = false;
        // What nobody has goes before others have it.
        for address in self.addresses.keys().filter(|address| !addresses.contains_key(address)) {
            ports.release(space, *address)?;
            is_changed = true;
        }
        for device in self.devices.keys().filter(|device| !devices.contains_key(device)) {
            ports.remove(*device)?;
            is_changed = true;
        }
        for (device, occupant) in devices.iter().filter(|(d, occupant)| self.devices.get(d) != Some(occupant))
        {
            ports.place(*device, occupant)?;
            is_changed = true;
        }
        for (address, device) in addresses.iter().filter(|(a, device)| self.addresses.get(a) != Some(device))
        {
            ports.hold(space, *address, *device)?;
            is_changed = true;
        }
        (self.devices, self.addresses) = (devices, addresses);
        Ok(is_changed)
    }

    /// The port of whoever has an address.
    pub(super) fn port_of(&self, address: IpAddr) -> Option<u32> {
        self.addresses.get(&address).copied().filter(|device| *device != 0)
    }

    /// The programs that judged are others now, and know nobody.
    pub(super) fn forget_judges(&mut self) {
        if self.is_judged {
            *self = Told::default();
        }
    }

    /// Nobody is there any more.
    pub(super) fn end(
        &mut self,
        plain: Option<&Ports>,
        policy: Option<&Policy>,
    ) -> Result<(), DatapathError> {
        let Some(ports) = self.ports(plain, policy) else { return Ok(()) };
        let space = self.devices.values().next().map(|occupant| occupant.space);
        for address in self.addresses.keys() {
            if let Some(space) = space {
                ports.release(space, *address)?;
            }
        }
        self.devices.keys().try_for_each(|device| ports.remove(*device))?;
        self.devices.clear();
        self.addresses.clear();
        Ok(())
    }

    fn ports<'a>(&self, plain: Option<&'a Ports>, policy: Option<&'a Policy>) -> Option<&'a Ports> {
        if self.is_judged { policy.map(Policy::ports) } else { plain }
    }
}
