//! The programs with their tables, kept beside a host in memory.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fief_datapath::policy::{Judged, Policy};
use fief_policy::{Direction, Identity, Sizes};
use fief_policykit::host::Host;
use fief_policykit::scene::{End, Scene, Trip};
use fief_testkit::Frame;

/// What frames seem to come from: the loopback device.
pub const DEVICE: u32 = 1;

pub struct Machine {
    pub policy: Policy,
    pub host: Host,
    addresses: BTreeMap<IpAddr, Identity>,
}

impl Machine {
    /// `None`, and said so, without root.
    pub fn new() -> Option<Machine> {
        let policy = load(&Policy::ROOM)?;
        Some(Machine { policy, host: Host::new(), addresses: BTreeMap::new() })
    }

    /// Makes everything as the scene has it, by a change of what is there: addresses go before what they lead to, and
    /// come after it.
    pub fn reach(&mut self, scene: &Scene) {
        let slot = self.host.tenant.into();
        let delta = self.host.plan(scene).unwrap();
        let wanted = &self.host.at;
        self.addresses.retain(|address, identity| {
            let stays = wanted.get(address) == Some(identity);
            if !stays {
                self.policy.remove_address(slot, *address).unwrap();
            }
            stays
        });
        self.policy.apply(&delta).unwrap();
        self.host.tables.apply(&delta);
        for (address, identity) in wanted {
            if self.addresses.insert(*address, *identity).is_none() {
                self.policy.add_address(slot, *address, *identity).unwrap();
            }
        }
        assert_eq!(self.policy.sizes(), self.host.tables.sizes());
    }

    /// What the program says of one end of a trip. Both ends have addresses of one family.
    pub fn judge(&mut self, scene: &Scene, trip: &Trip, direction: Direction) -> Judged {
        let judged = self.policy.try_frame(direction, &frame(scene, trip)).unwrap();
        let verdict = judged.verdict.expect("the tables were asked");
        assert_eq!(verdict.passes(), judged.passes, "{trip:?}");
        judged
    }
}

/// The programs, loaded, for the tenant of most tests.
pub fn load(room: &Sizes) -> Option<Policy> {
    if !rustix::process::geteuid().is_root() {
        fief_testkit::missing("loading bpf programs needs root");
        return None;
    }
    let mut policy = Policy::load(room).unwrap();
    policy.add_device(DEVICE, fief_policykit::scene::slot().into()).unwrap();
    Some(policy)
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

/// A packet such as the trip is about.
fn frame(scene: &Scene, trip: &Trip) -> Vec<u8> {
    let packet = from_to(address(scene, trip.from), address(scene, trip.to));
    match trip.protocol {
        6 => packet.tcp_syn(40_000, trip.port),
        17 => packet.udp(40_000, trip.port, b"hello"),
        // RFC 9260, 3.1: ports, verification tag, checksum, which nobody looks at here.
        132 => {
            let ports = [40_000_u16.to_be_bytes(), trip.port.to_be_bytes()].concat();
            packet.payload(132, &[&ports[..], &[0; 24]].concat())
        }
        protocol @ (1 | 58) => {
            packet.payload(protocol, &[if protocol == 1 { 8 } else { 128 }, 0, 0, 0, 0, 1, 0, 1])
        }
        other => packet.payload(other, &[0; 16]),
    }
}
