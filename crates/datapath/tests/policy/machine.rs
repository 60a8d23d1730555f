//! The programs with their tables, kept beside a host in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::path::Path;

use fief_datapath::policy::{Judged, Policy};
use fief_datapath::ports::{Occupant, Room};
use fief_policy::{Direction, Identity, Sizes};
use fief_policykit::host::Host;
use fief_policykit::scene::{End, Scene, Trip};
use fief_testkit::Frame;

/// What frames seem to come from: the loopback device.
pub const DEVICE: u32 = 1;
/// Where the ports of endpoints are, which nothing is sent to.
const FIRST: u32 = 1000;

pub struct Machine {
    pub policy: Policy,
    pub host: Host,
    addresses: BTreeMap<IpAddr, (u32, Identity)>,
    ports: u32,
    asked: u16,
}

impl Machine {
    /// `None`, and said so, without root.
    pub fn new() -> Option<Machine> {
        let mut machine = Machine::dormant()?;
        machine.policy.enforce(machine.host.tenant.into());
        Some(machine)
    }

    /// One in which the rules do not count yet.
    pub fn dormant() -> Option<Machine> {
        Machine::with_room(Policy::CONVERSATIONS, None)
    }

    /// One in which the rules do not count yet, and that remembers so many conversations, there if they are to outlive it.
    pub fn with_room(conversations: Room, pins: Option<&Path>) -> Option<Machine> {
        let policy = load_with(&Policy::ROOM, conversations, pins)?;
        Some(Machine { policy, host: Host::new(), addresses: BTreeMap::new(), ports: FIRST, asked: 0 })
    }

    /// Makes everything as the scene has it, by a change of what is there: addresses go before what they lead to, and
    /// come after it.
    pub fn reach(&mut self, scene: &Scene) {
        let slot = self.host.tenant.into();
        let delta = self.host.plan(scene).unwrap();
        let wanted = self.host.at.clone();
        let ports = self.policy.ports();
        self.addresses.retain(|address, (device, identity)| {
            let stays = wanted.get(address) == Some(identity);
            if !stays {
                ports.release(slot, *address).unwrap();
                ports.remove(*device).unwrap();
            }
            stays
        });
        self.policy.apply(&delta).unwrap();
        self.host.tables.apply(&delta);
        let ports = self.policy.ports();
        for (address, identity) in wanted {
            if let Entry::Vacant(vacant) = self.addresses.entry(address) {
                self.ports = FIRST + (self.ports - FIRST + 1) % 60_000;
                ports.place(self.ports, &occupant(slot, identity)).unwrap();
                ports.hold(slot, address, self.ports).unwrap();
                vacant.insert((self.ports, identity));
            }
        }
        self.policy.renew(&[slot].into());
        assert_eq!(self.policy.sizes(), self.host.tables.sizes());
    }

    /// Who has the port that frames are asked about.
    pub fn occupy(&mut self, address: IpAddr) {
        let identity = self.addresses.get(&address).map_or(Identity::ANY, |(_, identity)| *identity);
        self.policy.ports().place(DEVICE, &occupant(self.host.tenant.into(), identity)).unwrap();
    }

    /// What the program says of one end of a trip. Both ends have addresses of one family.
    pub fn judge(&mut self, scene: &Scene, trip: &Trip, direction: Direction) -> Judged {
        self.occupy(address(scene, trip.seen(direction).0));
        // One that nobody remembers.
        self.asked = self.asked.wrapping_add(1);
        let icmp = if address(scene, trip.from).is_ipv4() { 1 } else { 58 };
        if ![icmp, 6, 17, 132].contains(&trip.protocol) {
            self.policy.ports().forget().unwrap();
        }
        let judged = self.policy.try_frame(direction, &frame(scene, trip, self.asked | 0x8000)).unwrap();
        let verdict = judged.verdict.expect("the tables were asked");
        assert_eq!(verdict.passes(), judged.passes, "{trip:?}");
        judged
    }
}

pub fn occupant(slot: u16, identity: Identity) -> Occupant {
    Occupant {
        space: slot,
        slot,
        identity: identity.0,
        owner: identity.0,
        is_guarded: false,
        is_audited: false,
    }
}

/// The programs, loaded, for the tenant of most tests.
pub fn load(room: &Sizes) -> Option<Policy> {
    load_with(room, Policy::CONVERSATIONS, None)
}

fn load_with(room: &Sizes, conversations: Room, pins: Option<&Path>) -> Option<Policy> {
    if !rustix::process::geteuid().is_root() {
        fief_testkit::missing("loading bpf programs needs root");
        return None;
    }
    Some(Policy::load(room, conversations, pins).unwrap())
}

pub fn address(scene: &Scene, end: End) -> IpAddr {
    match end {
        End::Pod(pod) => scene.pods[pod].address,
        End::World(address) => address,
    }
}

pub fn from_to(from: IpAddr, to: IpAddr) -> fief_testkit::frame::Packet {
    Frame::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ip(from, to)
}

/// A packet such as the trip is about, from a port.
fn frame(scene: &Scene, trip: &Trip, port: u16) -> Vec<u8> {
    let packet = from_to(address(scene, trip.from), address(scene, trip.to));
    match trip.protocol {
        6 => packet.tcp_syn(port, trip.port),
        17 => packet.udp(port, trip.port, b"hello"),
        // RFC 9260, 3.1: ports, verification tag, checksum, which nobody looks at here.
        132 => {
            let ports = [port.to_be_bytes(), trip.port.to_be_bytes()].concat();
            packet.payload(132, &[&ports[..], &[0; 24]].concat())
        }
        protocol @ (1 | 58) => {
            let [high, low] = port.to_be_bytes();
            packet.payload(protocol, &[if protocol == 1 { 8 } else { 128 }, 0, 0, 0, high, low, 0, 1])
        }
        other => packet.payload(other, &[0; 16]),
    }
}
