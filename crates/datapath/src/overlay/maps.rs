//! The maps of the overlay's programs, as `bpf/lib/overlay.h` has them.

use std::collections::HashMap as Counted;
use std::net::IpAddr;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use aya::{Ebpf, Pod};

use crate::DatapathError;

/// How many ports a segment has on one host, at most: MEMBERS of the programs.
pub const MEMBERS: usize = 64;
/// How many peers the configuration names, at most: PEERS of the programs.
pub const PEERS: usize = 256;
/// How many Ethernet addresses all segments have together, at most: STATIONS of the programs.
pub const ADDRESSES: u32 = 262_144;

/// An address, IPv4 as ::ffff:0:0/96: `struct address`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Address([u8; 16]);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Address {
        match address {
            IpAddr::V4(v4) => Address(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Address(v6.octets()),
        }
    }
}

/// `struct settings`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// The IPv4 address of the underlay's device; zeros if it has none.
    pub own4: Address,
    /// Its IPv6 address; zeros if it has none.
    pub own6: Address,
    /// What sockets and tunnel of this host are to each other.
    pub alias4: Address,
    /// As `alias4`.
    pub alias6: Address,
    /// The number of the vxlan device of IPv4.
    pub vxlan4: u32,
    /// That of IPv6; 0 if there is none.
    pub vxlan6: u32,
    /// The number of the gate's inner end; 0 if there is none.
    pub gate_inside: u32,
    /// That of its outer end, in the underlay's namespace.
    pub gate: u32,
    /// That of the underlay's device there.
    pub card: u32,
    /// What passes the device in one piece, in bytes.
    pub mtu: u32,
    /// The port of groups, in network byte order.
    pub port: [u8; 2],
    /// That of the vxlan device of IPv4, in network byte order.
    pub own_port4: [u8; 2],
    /// That of the vxlan device of IPv6, in network byte order.
    pub own_port6: [u8; 2],
    /// `own_port6` of hosts that send by IPv4 too, in network byte order.
    pub dual_port: [u8; 2],
    /// The Ethernet address of the underlay's device.
    pub mac: [u8; 6],
    /// The time to live of what is sent.
    pub ttl: u8,
    /// Zero.
    pub pad: u8,
}

/// `struct port`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Port {
    /// The segment.
    pub vni: u32,
    /// How many Ethernet addresses behind it are remembered.
    pub macs: u32,
    /// Nanoseconds that a frame to everybody costs.
    pub interval: u64,
    /// How many nanoseconds it may be ahead.
    pub burst: u64,
    /// The programs'.
    pub next: u64,
    /// Frames that went to everybody.
    pub flooded: u64,
    /// Frames to everybody that were too many.
    pub limited: u64,
    /// The programs'.
    pub last: [u64; 2],
}

/// Frames to everybody go to `group4`.
pub const GROUP4: u32 = 1;
/// Frames to everybody go to `group6`.
pub const GROUP6: u32 = 2;

/// `struct segment`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// [`GROUP4`], [`GROUP6`].
    pub flags: u32,
    /// How many Ethernet addresses of other hosts are remembered.
    pub macs: u32,
    /// The multicast group of IPv4.
    pub group4: Address,
    /// That of IPv6.
    pub group6: Address,
    /// How many of `members` there are.
    pub count: u32,
    /// Numbers of ports.
    pub members: [u32; MEMBERS],
    /// Zero.
    pub pad: u32,
    /// The programs'.
    pub last: [u64; 4],
}

/// `struct peer`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: Address,
    /// Its port, in network byte order; 0 behind the last.
    pub port: [u8; 2],
    /// Zero.
    pub pad: u16,
}

// SAFETY: repr(C), integers and bytes only, no padding: every bit pattern is a value and every byte is initialised.
unsafe impl Pod for Address {}
// SAFETY: as above.
unsafe impl Pod for Settings {}
// SAFETY: as above.
unsafe impl Pod for Port {}
// SAFETY: as above.
unsafe impl Pod for Segment {}
// SAFETY: as above.
unsafe impl Pod for Peer {}

/// In the place of a port's number: all other hosts of a segment.
const REMOTE: u32 = 0x8000_0000;

/// What the programs count: COUNT_* of the programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames without sense, or of no port's.
    pub malformed: u64,
    /// Ethernet addresses that were forgotten for new ones of the same owner.
    pub evicted: u64,
    /// Goodbyes of peers.
    pub goodbyes: u64,
    /// Those of peers that had just said one.
    pub ignored: u64,
}

/// The maps.
pub struct Maps {
    settings: Array<MapData, Settings>,
    groups: HashMap<MapData, Address, u32>,
    ports: HashMap<MapData, u32, Port>,
    segments: HashMap<MapData, u32, Segment>,
    peers: Array<MapData, Peer>,
    counts: PerCpuArray<MapData, u64>,
    stations: HashMap<MapData, [u8; 12], [u8; 32]>,
    slots: HashMap<MapData, [u32; 2], u64>,
}

impl Maps {
    pub(crate) fn open(programs: &mut Ebpf) -> Result<Maps, DatapathError> {
        let mut take = |name: &'static str| {
            programs
                .take_map(name)
                .ok_or_else(|| DatapathError::Map { map: name, error: "not in the object".into() })
        };
        let settings = take(SETTINGS)?.try_into().map_err(|e| failed(SETTINGS, &e))?;
        let groups = take(GROUPS)?.try_into().map_err(|e| failed(GROUPS, &e))?;
        let ports = take(PORTS)?.try_into().map_err(|e| failed(PORTS, &e))?;
        let segments = take(SEGMENTS)?.try_into().map_err(|e| failed(SEGMENTS, &e))?;
        let peers = take(OF_PEERS)?.try_into().map_err(|e| failed(OF_PEERS, &e))?;
        let counts = take(COUNTS)?.try_into().map_err(|e| failed(COUNTS, &e))?;
        let stations = take(STATIONS)?.try_into().map_err(|e| failed(STATIONS, &e))?;
        let slots = take(SLOTS)?.try_into().map_err(|e| failed(SLOTS, &e))?;
        Ok(Maps { settings, groups, ports, segments, peers, counts, stations, slots })
    }

    /// Sets what holds for all segments.
    pub fn set_settings(&mut self, settings: &Settings) -> Result<(), DatapathError> {
        self.settings.set(0, settings, 0).map_err(|e| failed(SETTINGS, &e))
    }

    /// Sets the peers, [`PEERS`] at most.
    pub fn set_peers(&mut self, peers: &[Peer]) -> Result<(), DatapathError> {
        for index in 0..PEERS {
            let peer = peers.get(index).copied().unwrap_or_default();
            self.peers.set(index as u32, peer, 0).map_err(|e| failed(OF_PEERS, &e))?;
        }
        Ok(())
    }

    /// Makes this port a member of its segment's; one that is there keeps its counters.
    pub fn set_port(&mut self, device: u32, port: &Port) -> Result<(), DatapathError> {
        let before = self.ports.get(&device, 0).unwrap_or_default();
        let Port { vni, macs, interval, burst, .. } = *port;
        let port = Port { vni, macs, interval, burst, ..before };
        self.ports.insert(device, port, 0).map_err(|e| failed(PORTS, &e))
    }

    /// A port as it is.
    pub fn port(&self, device: u32) -> Option<Port> {
        self.ports.get(&device, 0).ok()
    }

    /// Sets a segment, and that its groups are its.
    pub fn set_segment(&mut self, vni: u32, segment: &Segment) -> Result<(), DatapathError> {
        self.segments.insert(vni, segment, 0).map_err(|e| failed(SEGMENTS, &e))?;
        for (flag, group) in [(GROUP4, segment.group4), (GROUP6, segment.group6)] {
            if segment.flags & flag != 0 {
                self.groups.insert(group, vni, 0).map_err(|e| failed(GROUPS, &e))?;
            }
        }
        Ok(())
    }

    /// Forgets every port and segment that is not among these.
    pub fn retain(
        &mut self,
        is_port: impl Fn(u32) -> bool,
        is_segment: impl Fn(u32) -> bool,
    ) -> Result<(), DatapathError> {
        let ports: Vec<u32> = self.ports.keys().filter_map(Result::ok).filter(|key| !is_port(*key)).collect();
        for port in &ports {
            let _ = self.ports.remove(port);
        }
        let groups: Vec<(Address, u32)> = self.groups.iter().filter_map(Result::ok).collect();
        for (group, _) in groups.into_iter().filter(|(_, vni)| !is_segment(*vni)) {
            let _ = self.groups.remove(&group);
        }
        let segments: Vec<u32> =
            self.segments.keys().filter_map(Result::ok).filter(|key| !is_segment(*key)).collect();
        for segment in &segments {
            let _ = self.segments.remove(segment);
        }
        if !ports.is_empty() || !segments.is_empty() {
            self.forget(is_port, is_segment);
        }
        Ok(())
    }

    /// Forgets the addresses behind ports and segments that there are no more, and gives back the room that they had: numbers
    /// of ports come once.
    fn forget(&mut self, is_port: impl Fn(u32) -> bool, is_segment: impl Fn(u32) -> bool) {
        let gone = |(key, place): &([u8; 12], [u8; 32])| {
            // `vni` of `struct station`, `device` of `struct place`.
            let [v0, v1, v2, v3, ..] = *key;
            let [_, _, _, _, _, _, _, _, d0, d1, d2, d3, ..] = *place;
            let (vni, device) = (u32::from_ne_bytes([v0, v1, v2, v3]), u32::from_ne_bytes([d0, d1, d2, d3]));
            !is_segment(vni) || device != 0 && !is_port(device)
        };
        let stations: Vec<[u8; 12]> =
            self.stations.iter().filter_map(Result::ok).filter(gone).map(|(key, _)| key).collect();
        for station in stations {
            let _ = self.stations.remove(&station);
        }
        let is_owner =
            |owner: u32| if owner & REMOTE != 0 { is_segment(owner & !REMOTE) } else { is_port(owner) };
        let slots: Vec<[u32; 2]> =
            self.slots.keys().filter_map(Result::ok).filter(|[owner, _]| !is_owner(*owner)).collect();
        for slot in slots {
            let _ = self.slots.remove(&slot);
        }
    }

    /// The VNIs of all segments.
    pub fn vnis(&self) -> Vec<u32> {
        self.segments.keys().filter_map(Result::ok).collect()
    }

    /// How many Ethernet addresses are known behind each port, by its number; 0 is all other hosts.
    pub fn addresses(&self) -> Counted<u32, u32> {
        // A walk begins anew when the entry it stands at goes (bpf_map_get_next_key), so each is counted by its key.
        let known: Counted<_, _> = self.stations.iter().filter_map(Result::ok).collect();
        let mut counted = Counted::new();
        for place in known.into_values() {
            // `device` of `struct place`.
            let [_, _, _, _, _, _, _, _, d0, d1, d2, d3, ..] = place;
            *counted.entry(u32::from_ne_bytes([d0, d1, d2, d3])).or_default() += 1;
        }
        counted
    }

    /// What was counted, over all processors.
    pub fn counts(&self) -> Counts {
        let sum = |index: u32| self.counts.get(&index, 0).map_or(0, |values| values.iter().sum());
        Counts { malformed: sum(0), evicted: sum(1), goodbyes: sum(2), ignored: sum(3) }
    }
}

const SETTINGS: &str = "fief_ov_settings";
const GROUPS: &str = "fief_ov_groups";
const PORTS: &str = "fief_ov_ports";
const SEGMENTS: &str = "fief_ov_segments";
const OF_PEERS: &str = "fief_ov_peers";
const COUNTS: &str = "fief_ov_counts";
const SLOTS: &str = "fief_ov_slots";
const STATIONS: &str = "fief_ov_stations";

fn failed(map: &'static str, error: &MapError) -> DatapathError {
    DatapathError::Map { map, error: crate::chain(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_have_the_same_numbers() {
        let text = include_str!("../../bpf/lib/overlay.h");
        for (name, number) in [("MEMBERS", MEMBERS), ("PEERS", PEERS), ("STATIONS", ADDRESSES as usize)] {
            assert!(text.contains(&format!("#define {name} {number}\n")), "{name} is not {number}");
        }
    }
}
