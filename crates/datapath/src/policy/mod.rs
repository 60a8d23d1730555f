//! The verdict machine (bpf/lib/verdict.h) and its tables: filled change by change, asked at ports.
//!
//! A change is carried out as docs/policy.md says: new sets beside the old ones, then the subjects, then the
//! generation, then, when no program can be looking at them any more, the old ones out. What would not fit is refused
//! beforehand; the compiler is told of [`Policy::ROOM`] too, and can say whose rule it is.

mod entries;
mod generation;
mod judged;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use aya::Ebpf;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{MapData, PerCpuArray};
use fief_policy::tables::RuleNumber;
use fief_policy::{Delta, Identity, Sizes};

use crate::maps::{map_error, take};
use crate::ports::{self, Hash, Judging, Ports, Room};
use crate::table::Table;
use crate::{DatapathError, digest, directory, remove_others};
use entries::{Block, Last, PeerKey, PortKey, RankKey, Set, Subject, SubjectKey, VerdictKey};
use generation::{Generations, SLOTS, wait_for_programs};
pub use judged::Judged;

/// What conversations look like; another text means that they are forgotten.
static ABI: &str = concat!(include_str!("../../bpf/lib/track.h"), include_str!("../../bpf/lib/flow.h"));

/// The programs that judge, loaded, and their tables.
pub struct Policy {
    programs: Ebpf,
    ports: Ports,
    subjects: Hash<SubjectKey, Subject>,
    sets: Hash<u32, Set>,
    port_classes: Hash<PortKey, u32>,
    peers: Hash<PeerKey, u32>,
    blocks: Table<LpmTrie<MapData, Block, u32>>,
    verdicts: Hash<VerdictKey, [u32; 4]>,
    ranks: Hash<RankKey, u32>,
    last: PerCpuArray<MapData, Last>,
    generations: Generations,
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

    /// How many conversations they remember on a host.
    pub const CONVERSATIONS: Room = Room { answered: 262_144, waiting: 131_072 };

    /// Loads and verifies the programs, with new tables for so many entries. What is known of conversations is pinned below
    /// `pins`, if there is such a directory, and found there again.
    pub fn load(room: &Sizes, conversations: Room, pins: Option<&Path>) -> Result<Policy, DatapathError> {
        let tables = [
            ("policy_subject", room.subjects),
            ("policy_set", room.sets),
            ("policy_port", room.ports),
            ("policy_peer", room.peers),
            ("policy_block", room.blocks),
            ("policy_verdict", room.verdicts),
            ("policy_rank", room.ranks),
        ];
        let mut sizes = vec![("policy_now", SLOTS)];
        for (name, most) in tables {
            let most = u32::try_from(most);
            sizes.push((name, most.map_err(|_| DatapathError::Load(format!("{name} is too large")))?));
        }
        let name = format!("known-{}", digest(&[ABI.as_bytes()]));
        let known = pins.map(|pins| pins.join(&name));
        if let (Some(pins), Some(known)) = (pins, &known) {
            directory(known)?;
            remove_others(pins, "known-", &name);
        }
        // Another number each time: the numbers of generations begin anew.
        let load = RandomState::new().hash_one(room.subjects) as u32;
        let judging = Judging { load, room: conversations, pins: known.as_deref() };
        let (mut programs, ports) = ports::load(Some(judging), &sizes)?;
        let last = take(&mut programs, "policy_last")?;
        Ok(Policy {
            ports,
            subjects: Table::open(&mut programs, "policy_subject", room.subjects)?,
            sets: Table::open(&mut programs, "policy_set", room.sets)?,
            port_classes: Table::open(&mut programs, "policy_port", room.ports)?,
            peers: Table::open(&mut programs, "policy_peer", room.peers)?,
            blocks: Table::open(&mut programs, "policy_block", room.blocks)?,
            verdicts: Table::open(&mut programs, "policy_verdict", room.verdicts)?,
            ranks: Table::open(&mut programs, "policy_rank", room.ranks)?,
            last: PerCpuArray::try_from(last).map_err(|e| map_error("policy_last", &e))?,
            generations: Generations::open(&mut programs)?,
            written: std::collections::HashMap::new(),
            stage: Stage::Whole,
            programs,
        })
    }

    /// The programs for ports, and whom they know. Whoever changes that calls [`Policy::renew`] afterwards.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// From now on the rules count for the ports of a slot's space, and changes of its policies for its endpoints; until
    /// then everything passes that says who it is. To be called when all ports have programs that judge.
    pub fn enforce(&mut self, slot: u16) {
        if !self.is_enforced(slot) {
            self.generations.raise(slot);
        }
    }

    /// Do the rules count there?
    pub fn is_enforced(&self, slot: u16) -> bool {
        self.generations.get(slot) != 0
    }

    /// Whoever is at the ports of these spaces has changed: what was judged before is judged again.
    pub fn renew(&mut self, slots: &BTreeSet<u16>) {
        slots.iter().filter(|slot| self.is_enforced(**slot)).for_each(|slot| self.generations.raise(*slot));
    }

    /// Carries out a change; for packets it happens in one moment for each tenant, or not at all. Where a tenant's endpoints
    /// are on networks of others, those spaces are to be renewed afterwards.
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
        // Whoever waits for a change of labels would wait for this as well: most take nothing out.
        if !delta.gone.is_empty() {
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
        self.port_classes.has_room(delta.ports.iter().map(|(key, _)| key.into()))?;
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
            self.port_classes.put(key.into(), (*class).into())?;
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
        for (key, sets) in &delta.subjects {
            let Some(sets) = *sets else { continue };
            let now = self.generations.get(key.0.into());
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
        let slots: BTreeSet<u16> = delta.subjects.keys().map(|key| key.0.into()).collect();
        self.renew(&slots);
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
        gone.ports.iter().try_for_each(|key| self.port_classes.remove(key.into()))?;
        gone.sets.iter().try_for_each(|set| self.sets.remove(set.0))?;
        gone.ranks.iter().try_for_each(|(set, rank)| self.ranks.remove(RankKey { set: set.0, rank: *rank }))
    }

    /// How many entries there are.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            subjects: self.subjects.held(),
            sets: self.sets.held(),
            ports: self.port_classes.held(),
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
