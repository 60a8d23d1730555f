//! The maps, typed. The C side is bpf/lib/abi.h; both change together.

use std::collections::{HashMap as Table, HashSet};
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuHashMap, PerCpuValues};
use aya::{Ebpf, Pod};

use crate::syscall::lookup_all;
use crate::{DatapathError, chain};

/// Entries that each of the maps of addresses, exits and neighbours can hold.
pub const CAPACITY: usize = 131_072;

/// Only listed source MACs bring packets.
pub const NEIGHBOURS: u32 = 1;
/// May reach the host's own addresses.
pub const HOST_ACCESS: u32 = 2;

/// Servers that do not ask which address was called get aliases for senders.
pub const UDP_ALIAS: u32 = 4;
/// Such servers get no datagram.
pub const UDP_REFUSE: u32 = 8;

/// Of a default: no other tenant has this device.
pub const ALONE: u32 = 16;

/// A user is selected.
pub const SELECT_USER: u32 = 0;
/// A group is selected.
pub const SELECT_GROUP: u32 = 1;
/// Bytes of a control group's name, with the zero behind it.
pub const CGROUP_NAME: usize = 128;

/// Devices that the map of devices can hold, by index.
const DEVICES: u32 = 16_384;

/// Some tenant names this device.
pub const NAMED: u32 = 1;
/// Its frames have an Ethernet header.
pub const ETHERNET: u32 = 2;
/// Above: the slot of the tenant whose alone it is.
pub const ALONE_SHIFT: u32 = 16;

/// Whose an address is: `struct owner`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The slot; 0 is the host itself.
    pub slot: u32,
    /// The device that carries it.
    pub ifindex: u32,
    /// [`NEIGHBOURS`], [`UDP_ALIAS`], [`UDP_REFUSE`].
    pub flags: u32,
}

/// By which device a tenant may leave: `struct exit_key`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exit {
    /// The slot.
    pub slot: u32,
    /// The device.
    pub ifindex: u32,
}

/// Who brings packets for a tenant on a device: `struct neighbour_key`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// The slot.
    pub slot: u32,
    /// The device.
    pub ifindex: u32,
    /// The source MAC.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
}

/// Who may act as a tenant: `struct member_key`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    /// The slot.
    pub slot: u32,
    /// [`USER`] or [`GROUP`].
    pub kind: u32,
    /// The id, as the initial user namespace sees it.
    pub id: u32,
}

/// A [`Member`] that is a user.
pub const USER: u32 = 0;
/// A [`Member`] that is a group.
pub const GROUP: u32 = 1;

/// A local address of a tenant with a VRF: `struct vrf_address`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VrfAddress {
    /// The slot.
    pub slot: u32,
    /// The address; an IPv4 one is mapped (RFC 4291, 2.5.5.2).
    pub address: [u8; 16],
}

/// A device's name with zeroes behind: `union device_name`.
pub type DeviceName = [u8; 16];

/// A tenant's name with zeroes behind: `union tenant_name`.
pub type Name = [u8; 64];

/// `struct counters`, one tenant's on one processor, or summed up.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the wire types, where each is explained")]
pub struct Counters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub drop_device_in: u64,
    pub drop_neighbour: u64,
    pub drop_crossing: u64,
    pub drop_device_out: u64,
    pub drop_spoof: u64,
    pub drop_listener: u64,
    pub drop_redirect: u64,
    pub drop_unmarked: u64,
    pub drop_alias: u64,
    pub refused: u64,
}

/// A step of a control group's path: `struct step`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    /// The node above; 0 is the watched group.
    pub above: u64,
    /// The group's name, filled up with zeroes.
    pub name: [u8; CGROUP_NAME],
}

/// What a step leads to: `struct node`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node {
    /// The node's number.
    pub id: u64,
    /// Whose processes there are; 0 if it is only on the way.
    pub slot: u32,
    /// Zero.
    pub pad: u32,
}

/// Whose new sockets are selected: `struct selector`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Selector {
    /// [`SELECT_USER`] or [`SELECT_GROUP`].
    pub kind: u32,
    /// The id, as the initial user namespace sees it.
    pub id: u32,
}

// SAFETY: repr(C), integers and bytes only, no padding: every bit pattern is a value and every byte is initialised.
unsafe impl Pod for Step {}
// SAFETY: as above.
unsafe impl Pod for Node {}
// SAFETY: as above.
unsafe impl Pod for Selector {}
// SAFETY: repr(C), integers only, no padding: every bit pattern is a value and every byte is initialised.
unsafe impl Pod for Owner {}
// SAFETY: as above.
unsafe impl Pod for VrfAddress {}
// SAFETY: as above.
unsafe impl Pod for Exit {}
// SAFETY: as above; the two bytes behind the MAC are a field of their own.
unsafe impl Pod for Neighbour {}
// SAFETY: as above.
unsafe impl Pod for Member {}
// SAFETY: as above.
unsafe impl Pod for Counters {}

/// What the maps hold, all but the counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// Every local IPv4 address.
    pub own4: Table<Ipv4Addr, Owner>,
    /// Every local IPv6 address.
    pub own6: Table<Ipv6Addr, Owner>,
    /// Whose what arrives on a device is, if it calls nobody.
    pub defaults: Table<u32, Owner>,
    /// Local addresses of tenants with a VRF.
    pub vrf_own: HashSet<VrfAddress>,
    /// Slot to the index of its VRF.
    pub vrfs: Table<u32, u32>,
    /// Names of VRFs and of the devices under them, with the slot.
    pub vrf_devices: Table<DeviceName, u32>,
    /// By which devices tenants may leave.
    pub exits: HashSet<Exit>,
    /// Index to flags, of the devices that tenants name.
    pub devices: Table<u32, u32>,
    /// Which MACs bring packets for whom.
    pub neighbours: HashSet<Neighbour>,
    /// Slot to flags.
    pub tenants: Table<u32, u32>,
    /// Slot to name.
    pub names: Table<u32, Name>,
    /// Who may act as whom.
    pub members: HashSet<Member>,
    /// Control groups whose processes are tenants'.
    pub paths: Table<Step, Node>,
    /// Users and groups whose new sockets are tenants', with the slot.
    pub selectors: Table<Selector, u32>,
}

impl Entries {
    /// Which kinds of selection there are: SELECT_PATHS, SELECT_USERS, SELECT_GROUPS of bpf/lib/select.h.
    fn selecting(&self) -> u32 {
        let has = |kind| self.selectors.keys().any(|selector| selector.kind == kind);
        u32::from(!self.paths.is_empty())
            | u32::from(has(SELECT_USER)) << 1
            | u32::from(has(SELECT_GROUP)) << 2
    }
}

/// The open maps, with what we know to be in them.
pub struct Maps {
    own4: Mirror<[u8; 4], Owner>,
    own6: Mirror<[u8; 16], Owner>,
    defaults: Mirror<u32, Owner>,
    vrf_own: Mirror<VrfAddress, u32>,
    vrfs: Mirror<u32, u32>,
    vrf_devices: Mirror<DeviceName, u32>,
    exits: Mirror<Exit, u32>,
    devices: Devices,
    neighbours: Mirror<Neighbour, u32>,
    tenants: Mirror<u32, u32>,
    names: Mirror<u32, Name>,
    slots: Mirror<Name, u32>,
    members: Mirror<Member, u32>,
    paths: Mirror<Step, Node>,
    selectors: Mirror<Selector, u32>,
    selecting: Array<MapData, u32>,
    counters: PerCpuHashMap<MapData, u32, Counters>,
    counted: HashSet<u32>,
    processors: usize,
}

impl Maps {
    pub(crate) fn open(programs: &mut Ebpf) -> Result<Maps, DatapathError> {
        let counters = take(programs, "fief_counters")?;
        let counters: PerCpuHashMap<_, u32, Counters> =
            PerCpuHashMap::try_from(counters).map_err(|e| map_error("fief_counters", &e))?;
        let counted = counters.keys().filter_map(Result::ok).collect();
        let processors = aya::util::nr_cpus().map_err(|(what, e)| DatapathError::Map {
            map: "fief_counters",
            error: format!("{what}: {e}"),
        })?;
        Ok(Maps {
            own4: Mirror::open(programs, "fief_own4")?,
            own6: Mirror::open(programs, "fief_own6")?,
            defaults: Mirror::open(programs, "fief_defaults")?,
            vrf_own: Mirror::open(programs, "fief_vrf_own")?,
            vrfs: Mirror::open(programs, "fief_vrfs")?,
            vrf_devices: Mirror::open(programs, "fief_vrf_devices")?,
            exits: Mirror::open(programs, "fief_exits")?,
            devices: Devices::open(programs)?,
            neighbours: Mirror::open(programs, "fief_neighbours")?,
            tenants: Mirror::open(programs, "fief_tenants")?,
            names: Mirror::open(programs, "fief_names")?,
            slots: Mirror::open(programs, "fief_slots")?,
            members: Mirror::open(programs, "fief_members")?,
            paths: Mirror::open(programs, "fief_paths")?,
            selectors: Mirror::open(programs, "fief_selectors")?,
            selecting: Array::try_from(take(programs, "fief_selecting")?)
                .map_err(|e| map_error("fief_selecting", &e))?,
            counters,
            counted,
            processors,
        })
    }

    /// Writes what is new or different, but for devices; deletes nothing. To be called before addresses appear.
    pub fn add(&mut self, wanted: &Entries) -> Result<(), DatapathError> {
        for slot in wanted.tenants.keys().copied().chain([0]) {
            self.count(slot)?;
        }
        self.tenants.add(wanted.tenants.iter().map(|(k, v)| (*k, *v)))?;
        self.names.add(wanted.names.iter().map(|(k, v)| (*k, *v)))?;
        self.slots.add(wanted.names.iter().map(|(k, v)| (*v, *k)))?;
        self.members.add(wanted.members.iter().map(|k| (*k, 1)))?;
        self.paths.add(wanted.paths.iter().map(|(k, v)| (*k, *v)))?;
        self.selectors.add(wanted.selectors.iter().map(|(k, v)| (*k, *v)))?;
        self.selecting.set(0, wanted.selecting(), 0).map_err(|e| map_error("fief_selecting", &e))?;
        self.vrf_own.add(wanted.vrf_own.iter().map(|k| (*k, 1)))?;
        self.vrfs.add(wanted.vrfs.iter().map(|(k, v)| (*k, *v)))?;
        self.vrf_devices.add(wanted.vrf_devices.iter().map(|(k, v)| (*k, *v)))?;
        self.exits.add(wanted.exits.iter().map(|k| (*k, 1)))?;
        self.neighbours.add(wanted.neighbours.iter().map(|k| (*k, 1)))?;
        self.defaults.add(wanted.defaults.iter().map(|(k, v)| (*k, *v)))?;
        self.own4.add(wanted.own4.iter().map(|(k, v)| (k.octets(), *v)))?;
        self.own6.add(wanted.own6.iter().map(|(k, v)| (k.octets(), *v)))
    }

    /// Says of devices that they are named. To be called when the programs sit there.
    pub fn name_devices(&mut self, wanted: &Entries) -> Result<(), DatapathError> {
        self.devices.add(&wanted.devices)
    }

    /// Takes away what is said of devices that nobody names any more. To be called before programs are detached.
    pub fn forget_devices(&mut self, wanted: &Entries) -> Result<(), DatapathError> {
        self.devices.prune(&wanted.devices)
    }

    /// Deletes what is not wanted. To be called after addresses are gone.
    pub fn prune(&mut self, wanted: &Entries) -> Result<(), DatapathError> {
        // Who may no longer act as a tenant, first.
        self.members.prune(|k| wanted.members.contains(k))?;
        self.paths.prune(|k| wanted.paths.contains_key(k))?;
        self.selectors.prune(|k| wanted.selectors.contains_key(k))?;
        let names: HashSet<&Name> = wanted.names.values().collect();
        self.slots.prune(|k| names.contains(k))?;
        self.names.prune(|k| wanted.names.contains_key(k))?;
        self.own4.prune(|k| wanted.own4.contains_key(&Ipv4Addr::from(*k)))?;
        self.own6.prune(|k| wanted.own6.contains_key(&Ipv6Addr::from(*k)))?;
        self.defaults.prune(|k| wanted.defaults.contains_key(k))?;
        self.neighbours.prune(|k| wanted.neighbours.contains(k))?;
        self.exits.prune(|k| wanted.exits.contains(k))?;
        self.vrf_own.prune(|k| wanted.vrf_own.contains(k))?;
        self.vrfs.prune(|k| wanted.vrfs.contains_key(k))?;
        self.vrf_devices.prune(|k| wanted.vrf_devices.contains_key(k))?;
        self.tenants.prune(|k| wanted.tenants.contains_key(k))?;
        let gone: Vec<u32> =
            self.counted.iter().copied().filter(|s| *s != 0 && !wanted.tenants.contains_key(s)).collect();
        for slot in gone {
            let _ = self.counters.remove(&slot);
            self.counted.remove(&slot);
        }
        Ok(())
    }

    /// What a slot's packets did, summed over the processors; zeros if it has no counters.
    pub fn counters(&self, slot: u32) -> Counters {
        let Ok(each) = self.counters.get(&slot, 0) else { return Counters::default() };
        each.iter().fold(Counters::default(), |sum, one| sum.plus(one))
    }

    fn count(&mut self, slot: u32) -> Result<(), DatapathError> {
        if self.counted.contains(&slot) {
            return Ok(());
        }
        let failed = |error: String| DatapathError::Map { map: "fief_counters", error };
        let zeros = vec![Counters::default(); self.processors];
        patiently(|| {
            let zeros = PerCpuValues::try_from(zeros.clone()).map_err(MapError::from)?;
            self.counters.insert(slot, zeros, 0)
        })
        .map_err(|e| failed(chain(&e)))?;
        self.counted.insert(slot);
        Ok(())
    }
}

impl Counters {
    fn plus(self, other: &Counters) -> Counters {
        Counters {
            rx_packets: self.rx_packets + other.rx_packets,
            rx_bytes: self.rx_bytes + other.rx_bytes,
            tx_packets: self.tx_packets + other.tx_packets,
            tx_bytes: self.tx_bytes + other.tx_bytes,
            drop_device_in: self.drop_device_in + other.drop_device_in,
            drop_neighbour: self.drop_neighbour + other.drop_neighbour,
            drop_crossing: self.drop_crossing + other.drop_crossing,
            drop_device_out: self.drop_device_out + other.drop_device_out,
            drop_spoof: self.drop_spoof + other.drop_spoof,
            drop_listener: self.drop_listener + other.drop_listener,
            drop_redirect: self.drop_redirect + other.drop_redirect,
            drop_unmarked: self.drop_unmarked + other.drop_unmarked,
            drop_alias: self.drop_alias + other.drop_alias,
            refused: self.refused + other.refused,
        }
    }
}

/// The array of devices and what is in it. A device whose index is beyond it is not there, and that is slower, not wrong.
struct Devices {
    map: Array<MapData, u32>,
    held: Table<u32, u32>,
}

impl Devices {
    const NAME: &'static str = "fief_devices";

    fn open(programs: &mut Ebpf) -> Result<Devices, DatapathError> {
        let map = take(programs, Self::NAME)?;
        let failed = |error: String| DatapathError::Map { map: Self::NAME, error };
        let Map::Array(data) = &map else { return Err(failed("not an array".into())) };
        // At once: one lookup each would be most of a start.
        let flags = lookup_all(data.fd().as_fd(), DEVICES).map_err(|e| failed(e.to_string()))?;
        let held = (0..).zip(flags).filter(|(_, flags)| *flags != 0).collect();
        let map = Array::try_from(map).map_err(|e| map_error(Self::NAME, &e))?;
        Ok(Devices { map, held })
    }

    fn add(&mut self, wanted: &Table<u32, u32>) -> Result<(), DatapathError> {
        for (index, flags) in wanted {
            if self.held.get(index) != Some(flags) {
                self.set(*index, *flags)?;
            }
        }
        Ok(())
    }

    fn prune(&mut self, wanted: &Table<u32, u32>) -> Result<(), DatapathError> {
        let gone: Vec<u32> = self.held.keys().filter(|index| !wanted.contains_key(index)).copied().collect();
        gone.into_iter().try_for_each(|index| self.set(index, 0))
    }

    fn set(&mut self, index: u32, flags: u32) -> Result<(), DatapathError> {
        if index < DEVICES {
            self.map.set(index, flags, 0).map_err(|e| map_error(Self::NAME, &e))?;
        }
        match flags {
            0 => self.held.remove(&index),
            _ => self.held.insert(index, flags),
        };
        Ok(())
    }
}

/// A hash map and what is in it, so that a change costs only what changed.
struct Mirror<K: Pod, V: Pod> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
    held: Table<K, V>,
}

impl<K: Pod + Eq + Hash, V: Pod + PartialEq> Mirror<K, V> {
    fn open(programs: &mut Ebpf, name: &'static str) -> Result<Mirror<K, V>, DatapathError> {
        let map = HashMap::try_from(take(programs, name)?).map_err(|e| map_error(name, &e))?;
        let held = map.iter().filter_map(Result::ok).collect();
        Ok(Mirror { name, map, held })
    }

    fn add(&mut self, wanted: impl Iterator<Item = (K, V)>) -> Result<(), DatapathError> {
        for (key, value) in wanted {
            if self.held.get(&key) != Some(&value) {
                patiently(|| self.map.insert(key, value, 0)).map_err(|e| map_error(self.name, &e))?;
                self.held.insert(key, value);
            }
        }
        Ok(())
    }

    fn prune(&mut self, keep: impl Fn(&K) -> bool) -> Result<(), DatapathError> {
        let gone: Vec<K> = self.held.keys().filter(|k| !keep(k)).copied().collect();
        for key in gone {
            match self.map.remove(&key) {
                Ok(()) | Err(MapError::KeyNotFound) => drop(self.held.remove(&key)),
                Err(error) => return Err(map_error(self.name, &error)),
            }
        }
        Ok(())
    }
}

pub(crate) fn take(programs: &mut Ebpf, name: &'static str) -> Result<Map, DatapathError> {
    programs.take_map(name).ok_or_else(|| DatapathError::Map { map: name, error: "not in the object".into() })
}

/// Tries again for a moment when memory is short: entries come from a small stock that the kernel fills up in the
/// background (bpf_mem_alloc, percpu), and hundreds in a row find it empty.
pub(crate) fn patiently(mut insert: impl FnMut() -> Result<(), MapError>) -> Result<(), MapError> {
    let mut tries = 0;
    loop {
        match insert() {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOMEM) && tries < 200 =>
            {
                tries += 1;
                std::thread::park_timeout(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

pub(crate) fn map_error(map: &'static str, error: &MapError) -> DatapathError {
    DatapathError::Map { map, error: chain(error) }
}
