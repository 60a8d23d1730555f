//! Who is at the ports of tenants' places, as the programs there are told: whose port it is, whose addresses are whose.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fief_api::Condition;
use fief_datapath::DatapathError;
use fief_datapath::policy::Policy;
use fief_datapath::ports::{Occupant, Pair, Ports};
use fief_services::ROUTER;
use ipnet::Ipv6Net;

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
#[derive(Debug, Default)]
pub struct Subjects {
    /// By `TENANT/NAME`.
    pub endpoints: HashMap<String, Subject>,
    /// The slots of tenants that have policies.
    pub judged: BTreeSet<u16>,
}

/// Who judges, and what.
pub struct Judging<'a> {
    /// What policies know of endpoints.
    pub subjects: &'a Subjects,
    /// The programs and their tables; `None` if there are none, whatever is to be judged.
    pub policy: Option<&'a mut Policy>,
}

/// The programs for a tenant's ports, and who is there.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    ports: &'a Ports,
    subjects: &'a Subjects,
    is_judging: bool,
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
        subjects: &'a Subjects,
        plain: Option<&'a Ports>,
        policy: Option<&'a Policy>,
    ) -> Option<Watch<'a>> {
        let is_judging = subjects.judges(space);
        let ports = if is_judging { policy.map(Policy::ports) } else { plain };
        Some(Watch { ports: ports?, subjects, is_judging, is_short: space.vrf.is_none() })
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

    /// Says whose port a device is: before it has programs, which let nothing pass otherwise.
    pub(super) fn place(&self, space: u16, segment: &Segment, port: &Port, device: u32) -> Result<(), Condition> {
        let placed = self.ports.place(device, &occupant(space, segment, port, self.subjects));
        placed.map_err(|error| condition("AttachRefused", error.to_string()))
    }
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

/// Addresses that are somebody's, and the ports (0: the network's own). Those that a workload makes of its Ethernet address
/// (RFC 4291, appendix A) are among them.
fn addresses(standing: &Standing) -> BTreeMap<IpAddr, u32> {
    let mut addresses = BTreeMap::new();
    for segment in standing.space.segments.values().filter(|segment| segment.cable.is_none()) {
        let services = &segment.services;
        let mut devices = HashMap::new();
        for (name, port) in &segment.ports {
            let Some(device) = standing.ports.get(name) else { continue };
            devices.insert(port.mac.0, *device);
            let prefixes = services.subnet6.into_iter().chain([LINK_LOCAL]);
            let made = prefixes.filter(|prefix| prefix.prefix_len() == 64);
            addresses.extend(made.map(|prefix| (eui64(prefix, port.mac.0).into(), *device)));
            addresses.extend(port.address.map(|net| (net.addr(), *device)));
        }
        for endpoint in &services.endpoints {
            let Some(device) = devices.get(&endpoint.mac) else { continue };
            let v4 = endpoint.address.map(IpAddr::from);
            addresses.extend(v4.into_iter().chain(endpoint.address6.map(IpAddr::from)).map(|a| (a, *device)));
        }
        let leased = segment.leased.iter();
        addresses.extend(leased.filter_map(|(a, mac)| Some(((*a).into(), *devices.get(&mac.0)?))));
        addresses.extend(segment.gateways.iter().map(|net| (net.addr(), 0)));
        addresses.extend([METADATA.into(), ROUTER.into()].map(|address: IpAddr| (address, 0)));
    }
    addresses.remove(&Ipv4Addr::UNSPECIFIED.into());
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
        let mut devices = BTreeMap::new();
        for segment in standing.space.segments.values() {
            for (name, port) in &segment.ports {
                let device = standing.ports.get(name);
                devices.extend(device.map(|device| (*device, occupant(space, segment, port, subjects))));
            }
        }
        let addresses = addresses(standing);
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
        for (device, occupant) in devices.iter().filter(|(d, occupant)| self.devices.get(d) != Some(occupant)) {
            ports.place(*device, occupant)?;
            is_changed = true;
        }
        for (address, device) in addresses.iter().filter(|(a, device)| self.addresses.get(a) != Some(device)) {
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
    pub(super) fn end(&mut self, plain: Option<&Ports>, policy: Option<&Policy>) -> Result<(), DatapathError> {
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
