//! The verdict machine (bpf/policy.bpf.c) and its tables: loaded, filled change by change, asked. Attached nowhere yet.
//!
//! A change is carried out as docs/policy.md says: new sets beside the old ones, then the subjects, then the
//! generation, then, when no program can be looking at them any more, the old ones out. What would not fit is refused
//! beforehand; the compiler is told of [`Policy::ROOM`] too, and can say whose rule it is.

mod entries;
mod generation;
mod judged;
mod table;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use fief_policy::tables::RuleNumber;
use fief_policy::{Delta, Direction, Identity, Sizes};

use crate::maps::{map_error, take};
use crate::{DatapathError, chain};
use entries::{Address, Block, Last, Owner, PeerKey, PortKey, RankKey, Set, Subject, SubjectKey, VerdictKey};
use generation::{Generation, wait_for_programs};
pub use judged::Judged;
use table::Table;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/policy.bpf.o"));

/// Addresses that can have identities.
const ADDRESSES: usize = crate::maps::CAPACITY;
/// Ports of endpoints.
const DEVICES: usize = 65_536;

type Hash<K, V> = Table<HashMap<MapData, K, V>>;

/// The programs, loaded, and their tables.
pub struct Policy {
    programs: Ebpf,
    devices: Hash<u32, u32>,
    addresses: Hash<Address, Owner>,
    subjects: Hash<SubjectKey, Subject>,
    sets: Hash<u32, Set>,
    ports: Hash<PortKey, u32>,
    peers: Hash<PeerKey, u32>,
    blocks: Table<LpmTrie<MapData, Block, u32>>,
    verdicts: Hash<VerdictKey, [u32; 4]>,
    ranks: Hash<RankKey, u32>,
    last: PerCpuArray<MapData, Last>,
    generation: Generation,
    /// What is in `subjects`.
    written: std::collections::HashMap<SubjectKey, Subject>,
    stage: Stage,
}

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// None is under way.
    Whole,
    /// Everything is there but the moment.
    Prepared,
    /// It was begun and not ended: subjects may wait for a generation whose sets are not whole.
    Half,
}

impl Policy {
    /// How many entries the tables have room for.
    pub const ROOM: Sizes = Sizes {
        subjects: 65_536,
        sets: 65_536,
        ports: 131_072,
        peers: 262_144,
        blocks: 131_072,
        verdicts: 262_144,
        ranks: 131_072,
    };

    /// Loads and verifies the programs, with new tables for so many entries.
    pub fn load(room: &Sizes) -> Result<Policy, DatapathError> {
        let mut loader = EbpfLoader::new();
        for (name, most) in [
            ("policy_device", DEVICES),
            ("policy_address", ADDRESSES),
            ("policy_subject", room.subjects),
            ("policy_set", room.sets),
            ("policy_port", room.ports),
            ("policy_peer", room.peers),
            ("policy_block", room.blocks),
            ("policy_verdict", room.verdicts),
            ("policy_rank", room.ranks),
        ] {
            let most =
                u32::try_from(most).map_err(|_| DatapathError::Load(format!("{name}: {most} entries")))?;
            loader.map_max_entries(name, most);
        }
        let mut programs = loader.load(OBJECT).map_err(|e| DatapathError::Load(chain(&e)))?;
        for direction in Direction::BOTH {
            let program = program(&mut programs, direction)?;
            program.load().map_err(|e| DatapathError::Load(format!("{}: {}", name(direction), chain(&e))))?;
        }
        let last = take(&mut programs, "policy_last")?;
        Ok(Policy {
            devices: Table::open(&mut programs, "policy_device", DEVICES)?,
            addresses: Table::open(&mut programs, "policy_address", ADDRESSES)?,
            subjects: Table::open(&mut programs, "policy_subject", room.subjects)?,
            sets: Table::open(&mut programs, "policy_set", room.sets)?,
            ports: Table::open(&mut programs, "policy_port", room.ports)?,
            peers: Table::open(&mut programs, "policy_peer", room.peers)?,
            blocks: Table::open(&mut programs, "policy_block", room.blocks)?,
            verdicts: Table::open(&mut programs, "policy_verdict", room.verdicts)?,
            ranks: Table::open(&mut programs, "policy_rank", room.ranks)?,
            last: PerCpuArray::try_from(last).map_err(|e| map_error("policy_last", &e))?,
            generation: Generation::open(&mut programs)?,
            written: std::collections::HashMap::new(),
            stage: Stage::Whole,
            programs,
        })
    }

    /// Whose port a device is.
    pub fn add_device(&mut self, ifindex: u32, slot: u16) -> Result<(), DatapathError> {
        self.devices.has_room([ifindex].into_iter())?;
        self.devices.put(ifindex, slot.into())
    }

    /// The device is nobody's: what it brings is dropped.
    pub fn remove_device(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        self.devices.remove(ifindex)
    }

    /// Who has an address, now or instead of somebody else. To be called when the identity's entries are there.
    pub fn add_address(
        &mut self,
        slot: u16,
        address: IpAddr,
        identity: Identity,
    ) -> Result<(), DatapathError> {
        let key = Address::new(slot, address);
        self.addresses.has_room([key].into_iter())?;
        self.addresses.put(key, Owner { whose: key, identity: identity.0 })
    }

    /// Nobody has it. To be called before the change in which the identity's entries go.
    pub fn remove_address(&mut self, slot: u16, address: IpAddr) -> Result<(), DatapathError> {
        self.addresses.remove(Address::new(slot, address))
    }

    /// Carries out a change; for packets it happens in one moment, or not at all.
    ///
    /// After an error other than [`DatapathError::Full`] packets see either all of it or nothing, and no further change
    /// is taken: what was left half written must not come true. Then everything is to be loaded anew.
    pub fn apply(&mut self, delta: &Delta) -> Result<(), DatapathError> {
        self.prepare(delta)?;
        self.finish(delta)
    }

    /// The first half of [`Policy::apply`], up to the moment: no packet sees anything of it.
    pub fn prepare(&mut self, delta: &Delta) -> Result<(), DatapathError> {
        if self.stage != Stage::Whole {
            return Err(DatapathError::Unfinished);
        }
        self.has_room(delta)?;
        self.stage = Stage::Half;
        self.put(delta)?;
        self.announce(delta)?;
        self.stage = Stage::Prepared;
        Ok(())
    }

    /// The second half, for what was prepared: the moment, and what goes behind it.
    pub fn finish(&mut self, delta: &Delta) -> Result<(), DatapathError> {
        if self.stage != Stage::Prepared {
            return Err(DatapathError::Unfinished);
        }
        self.stage = Stage::Half;
        self.switch(delta)?;
        if !delta.subjects.is_empty() || !delta.gone.is_empty() {
            wait_for_programs();
        }
        self.take_out(delta)?;
        self.stage = Stage::Whole;
        Ok(())
    }

    fn has_room(&self, delta: &Delta) -> Result<(), DatapathError> {
        let subjects: Vec<SubjectKey> =
            delta.subjects.iter().filter(|(_, sets)| sets.is_some()).map(|(key, _)| subject(key)).collect();
        self.subjects.has_room(subjects.into_iter())?;
        self.sets.has_room(delta.sets.iter().map(|(set, _)| set.0))?;
        self.ports.has_room(delta.ports.iter().map(|(key, _)| key.into()))?;
        self.peers.has_room(delta.peers.iter().map(|(key, _)| key.into()))?;
        self.blocks.has_room(delta.blocks.iter().map(|(key, _)| entries::block(key)))?;
        self.verdicts.has_room(delta.verdicts.iter().map(|(key, _)| key.into()))?;
        self.ranks.has_room(delta.ranks.iter().map(|((set, rank), _)| RankKey { set: set.0, rank: *rank }))
    }

    /// Puts everything beside what is in use. Peers come last: they lead to verdicts.
    fn put(&mut self, delta: &Delta) -> Result<(), DatapathError> {
        for ((set, rank), RuleNumber(rule)) in &delta.ranks {
            self.ranks.put(RankKey { set: set.0, rank: *rank }, *rule)?;
        }
        for (set, header) in &delta.sets {
            self.sets.put(set.0, header.into())?;
        }
        for (key, class) in &delta.ports {
            self.ports.put(key.into(), (*class).into())?;
        }
        for (key, identity) in &delta.blocks {
            self.blocks.put(entries::block(key), identity.0)?;
        }
        for (key, hits) in &delta.verdicts {
            self.verdicts.put(key.into(), entries::hits(hits))?;
        }
        delta.peers.iter().try_for_each(|(key, class)| self.peers.put(key.into(), class.0))
    }

    /// Gives each subject what it will have in the coming generation, and what it has until then.
    fn announce(&mut self, delta: &Delta) -> Result<(), DatapathError> {
        let now = self.generation.get();
        for (key, sets) in &delta.subjects {
            let Some(sets) = *sets else { continue };
            let (whose, after) = (subject(key), entries::sets(sets));
            let before = self.written.get(&whose).map_or(after, |written| written.at(now));
            let entry = Subject { whose, since: now + 1, before, after };
            self.subjects.put(whose, entry)?;
            self.written.insert(whose, entry);
        }
        Ok(())
    }

    fn switch(&mut self, delta: &Delta) -> Result<(), DatapathError> {
        if delta.subjects.is_empty() {
            return Ok(());
        }
        self.generation.raise(self.generation.get() + 1);
        for whose in delta.subjects.iter().filter(|(_, sets)| sets.is_none()).map(|(key, _)| subject(key)) {
            self.subjects.remove(whose)?;
            self.written.remove(&whose);
        }
        Ok(())
    }

    fn take_out(&mut self, delta: &Delta) -> Result<(), DatapathError> {
        let gone = &delta.gone;
        gone.peers.iter().try_for_each(|key| self.peers.remove(key.into()))?;
        gone.verdicts.iter().try_for_each(|key| self.verdicts.remove(key.into()))?;
        gone.blocks.iter().try_for_each(|key| self.blocks.remove(entries::block(key)))?;
        gone.ports.iter().try_for_each(|key| self.ports.remove(key.into()))?;
        gone.sets.iter().try_for_each(|set| self.sets.remove(set.0))?;
        gone.ranks.iter().try_for_each(|(set, rank)| self.ranks.remove(RankKey { set: set.0, rank: *rank }))
    }

    /// The program that judges one direction, for whoever attaches it.
    pub fn program(&mut self, direction: Direction) -> Result<OwnedFd, DatapathError> {
        let failed =
            |e: &dyn std::error::Error| DatapathError::Load(format!("{}: {}", name(direction), chain(e)));
        let program = program(&mut self.programs, direction)?.fd().map_err(|e| failed(&e))?;
        program.as_fd().try_clone_to_owned().map_err(|e| failed(&e))
    }

    /// How many entries there are.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            subjects: self.subjects.held(),
            sets: self.sets.held(),
            ports: self.ports.held(),
            peers: self.peers.held(),
            blocks: self.blocks.held(),
            verdicts: self.verdicts.held(),
            ranks: self.ranks.held(),
        }
    }
}

fn subject((tenant, identity): &(impl Copy + Into<u16>, Identity)) -> SubjectKey {
    let slot: u16 = (*tenant).into();
    SubjectKey { slot: slot.into(), identity: identity.0 }
}

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "policy_to",
        Direction::Egress => "policy_from",
    }
}

fn program(programs: &mut Ebpf, direction: Direction) -> Result<&mut SchedClassifier, DatapathError> {
    let name = name(direction);
    let program = programs.program_mut(name).ok_or_else(|| DatapathError::Load(format!("no {name}")))?;
    program.try_into().map_err(|e| DatapathError::Load(format!("{name}: {}", chain(&e))))
}
