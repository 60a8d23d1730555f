//! The programs at the ports of networks' bridges, and at the links that lead out (bpf/ports.bpf.c). They are in no link and
//! on no pin: a port keeps its programs, and they their maps, until it goes or gets others.
//!
//! [`Ports::load`] is for tenants that have no policies: their ports find out lies, and know the short way. Those of a
//! [`Policy`](crate::policy::Policy) judge as well.

mod denied;
pub(crate) mod entries;
mod host;
mod numbers;
mod sweep;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};

use crate::table::Table;
use crate::{DatapathError, chain};
pub use denied::{Denied, Reason};
use entries::{AUDITED, Address, GUARDED, Holder};
pub use host::HostWay;
pub use numbers::{EACH, TAPS, VETHS, first, link};
pub use sweep::Conversing;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ports.bpf.o"));

/// Addresses that can be known.
const ADDRESSES: u32 = crate::maps::CAPACITY as u32;
/// Ports that can be known.
const DEVICES: u32 = 65_536;

/// Fragments that may be under way.
const PIECES: u32 = 4096;

pub(crate) type Hash<K, V> = Table<HashMap<MapData, K, V>>;

/// Programs for both directions at one kind of device.
#[derive(Debug, Clone)]
pub struct Pair {
    /// For what comes in.
    pub ingress: Arc<OwnedFd>,
    /// For what goes out.
    pub egress: Arc<OwnedFd>,
}

/// How many conversations are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Those that were answered.
    pub answered: u32,
    /// Those that were not yet.
    pub waiting: u32,
}

/// How programs judge.
pub(crate) struct Judging<'a> {
    /// Another number each time that they are loaded.
    pub(crate) load: u32,
    /// What they may remember.
    pub(crate) room: Room,
    /// Where that is pinned, if it is to outlive them.
    pub(crate) pins: Option<&'a Path>,
}

/// Whose port it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupant {
    /// The slot whose addresses are spoken at the port.
    pub space: u16,
    /// The endpoint's tenant.
    pub slot: u16,
    /// The endpoint's identity among its tenant's; 0: none.
    pub identity: u32,
    /// A number for the endpoint, the same at all of its ports.
    pub owner: u32,
    /// Is it to be what it says it is?
    pub is_guarded: bool,
    /// Does what policies forbid pass, and is it only written down?
    pub is_audited: bool,
}

/// The programs, loaded, and whom they know.
pub struct Ports {
    /// For ports that know the short way.
    pub port: Pair,
    /// For ports that do not.
    pub gate: Pair,
    /// For the end of a link in a namespace.
    pub link: Pair,
    known: Mutex<Known>,
    pub(crate) records: Mutex<sweep::Records>,
    pub(crate) denied: Mutex<denied::Records>,
}

struct Known {
    devices: Hash<u32, entries::Port>,
    addresses: Hash<Address, Holder>,
}

impl Ports {
    /// Loads and verifies the programs for ports where nothing is judged, with new maps, and those for the short way on the
    /// host, which is the same for everybody.
    pub fn load() -> Result<(Ports, Result<HostWay, DatapathError>), DatapathError> {
        let tables = [
            "policy_subject",
            "policy_set",
            "policy_port",
            "policy_peer",
            "policy_block",
            "policy_verdict",
            "policy_rank",
        ];
        let unused: Vec<_> = tables.into_iter().map(|name| (name, 1)).collect();
        let (programs, ports) = load(None, &unused)?;
        Ok((ports, HostWay::load(programs)))
    }

    /// Whose port a device is, now or instead of somebody else. A port without this passes nothing.
    pub fn place(&self, device: u32, occupant: &Occupant) -> Result<(), DatapathError> {
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let port = entries::Port {
            space: occupant.space.into(),
            slot: occupant.slot.into(),
            identity: occupant.identity,
            owner: occupant.owner,
            flags: flag(occupant.is_guarded, GUARDED) | flag(occupant.is_audited, AUDITED),
            device,
        };
        lock(&self.records).open_port(device, occupant.space.into())?;
        let mut known = lock(&self.known);
        known.devices.has_room([device].into_iter())?;
        known.devices.put(device, port)
    }

    /// The device is nobody's: what it brings is dropped.
    pub fn remove(&self, device: u32) -> Result<(), DatapathError> {
        lock(&self.records).close_port(device)?;
        lock(&self.known).devices.remove(device)
    }

    /// Whose an address is: the port's, or with 0 the network's own.
    pub fn hold(&self, slot: u16, address: IpAddr, device: u32) -> Result<(), DatapathError> {
        let whose = Address::new(slot, address);
        let mut known = lock(&self.known);
        known.addresses.has_room([whose].into_iter())?;
        known.addresses.put(whose, Holder { device, whose })
    }

    /// Nobody has the address any more.
    pub fn release(&self, slot: u16, address: IpAddr) -> Result<(), DatapathError> {
        lock(&self.known).addresses.remove(Address::new(slot, address))
    }
}

/// What a panic elsewhere left is as good as any other state: each change of it is one call.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Loads the object, which judges or does not. Some maps have these sizes.
pub(crate) fn load(
    judging: Option<Judging<'_>>,
    sizes: &[(&'static str, u32)],
) -> Result<(Ebpf, Ports), DatapathError> {
    #[cfg(feature = "teeth")]
    let teeth = teeth();
    #[cfg(not(feature = "teeth"))]
    let teeth = 0_u32;
    let pins = judging.as_ref().and_then(|judging| judging.pins);
    let is_judging = judging.is_some();
    let judges = u32::from(is_judging).to_ne_bytes();
    let (number, room, pieces, shares) = match &judging {
        Some(judging) => (judging.load, judging.room, PIECES, DEVICES),
        None => (0, Room { answered: 1, waiting: 1 }, 1, 1),
    };
    let [number, teeth, answered, waiting] =
        [number, teeth, room.answered, room.waiting].map(u32::to_ne_bytes);
    let mut loader = EbpfLoader::new();
    for (name, most) in sizes {
        loader.map_max_entries(name, *most);
    }
    if is_judging {
        loader.map_max_entries("fief_fronts", 1);
    }
    let of_conversations = [
        ("fief_conversation", room.answered),
        ("fief_young", room.waiting),
        ("fief_share", shares),
        ("fief_piece", pieces),
    ];
    for (name, most) in of_conversations {
        loader.map_max_entries(name, most);
        if let Some(pins) = pins {
            loader.map_pin_path(name, pins.join(name));
        }
    }
    loader.override_global("fief_judges", &judges[..], true);
    loader.override_global("fief_load", &number[..], true);
    loader.override_global("fief_teeth", &teeth[..], true);
    loader.override_global("fief_room_answered", &answered[..], true);
    loader.override_global("fief_room_waiting", &waiting[..], true);
    for (name, most) in [("fief_port", DEVICES), ("fief_usage", DEVICES), ("fief_address", ADDRESSES)] {
        loader.map_max_entries(name, most);
    }
    let mut programs = loader.load(OBJECT).map_err(|e| DatapathError::Load(chain(&e)))?;
    let mut take = |name| descriptor(&mut programs, name);
    let port = Pair { ingress: take("port_in")?, egress: take("port_out")? };
    let gate = Pair { ingress: take("gate_in")?, egress: take("gate_out")? };
    let link = Pair { ingress: take("link_in")?, egress: take("link_out")? };
    let known = Known {
        devices: Table::open(&mut programs, "fief_port", DEVICES as usize)?,
        addresses: Table::open(&mut programs, "fief_address", ADDRESSES as usize)?,
    };
    let records = sweep::Records::open(&mut programs, is_judging)?;
    let denied = denied::Records::open(&mut programs)?;
    let (known, records, denied) = (Mutex::new(known), Mutex::new(records), Mutex::new(denied));
    Ok((programs, Ports { port, gate, link, known, records, denied }))
}

pub(crate) fn program<'a>(
    programs: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    let program = programs.program_mut(name).ok_or_else(|| DatapathError::Load(format!("no {name}")))?;
    program.try_into().map_err(|e| DatapathError::Load(format!("{name}: {}", chain(&e))))
}

/// Loads a program.
fn descriptor(programs: &mut Ebpf, name: &str) -> Result<Arc<OwnedFd>, DatapathError> {
    let failed = |e: &dyn std::error::Error| DatapathError::Load(format!("{name}: {}", chain(e)));
    let program = program(programs, name)?;
    program.load().map_err(|e| failed(&e))?;
    let descriptor = program.fd().map_err(|e| failed(&e))?.as_fd().try_clone_to_owned();
    descriptor.map(Arc::new).map_err(|e| failed(&e))
}

/// As bpf/lib/teeth.h numbers them.
#[cfg(feature = "teeth")]
fn teeth() -> u32 {
    let names = ["port-lies", "port-verdict", "port-stamp", "port-ways", "host-fronts", "port-share"];
    let named = std::env::var("FIEF_TEETH").unwrap_or_default();
    names.iter().enumerate().map(|(bit, name)| if **name == named { 1 << bit } else { 0 }).sum()
}
