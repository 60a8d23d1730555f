//! One set of rules: what holds for every subject that the same rules select.

use std::collections::{BTreeSet, HashMap};

use fief_model::Slot;
use fief_model::policy::IpBlock;

use super::layout::{Layout, Point, TooMany};
use super::rules::{PeerRef, Rules};
use super::world::{Known, SelectorId, World};
use crate::identity::{Identity, Workload};
use crate::rule::{Direction, PortSet, Ports};
use crate::tables::{Class, GroupId, Header, RuleNumber};
use crate::verdict::{Action, Hit, Hits, Tier};

/// A rule of a set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) rule: RuleNumber,
    /// What its names of ports mean: to the subject, for what reaches it; to anybody, for what leaves it.
    pub(super) named: Vec<Point>,
}

/// A set of rules with its entries.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) tenant: Slot,
    pub(super) direction: Direction,
    /// In the order of their ranks.
    pub(super) members: Vec<Member>,
    pub(super) layout: Layout,
    pub(super) group: GroupId,
    pub(super) verdicts: HashMap<(Identity, Class), Hits>,
    pub(super) uses: usize,
    pub(super) is_fresh: bool,
    /// Selectors that its rules name as peers.
    pub(super) selectors: BTreeSet<SelectorId>,
    /// Names of ports that are its peers' to explain.
    pub(super) names: BTreeSet<(String, u8)>,
    blocks: Vec<IpBlock>,
    ranks: Vec<Rank>,
    /// What matches anybody.
    any: Vec<Match>,
    /// What matches any workload.
    workload: Vec<Match>,
}

/// What a set must know of a rule.
#[derive(Debug)]
struct Rank {
    tier: Tier,
    action: Action,
    peers: Vec<PeerRef>,
    /// Does it mean anybody, or any workload?
    is_wide: bool,
    names: Vec<(String, u8)>,
}

/// A rule that matches a peer, and what the peer means by the rule's names of ports.
type Match = (u32, Vec<Point>);

impl Set {
    /// Divides the ports; the entries come with [`Set::fill`].
    pub(super) fn new(
        tenant: Slot,
        direction: Direction,
        members: Vec<Member>,
        rules: &Rules,
    ) -> Result<Set, TooMany> {
        let found = members.iter().filter_map(|member| Some((member, rules.get(member.rule)?)));
        let found: Vec<_> = found.collect();
        let ports: Vec<(&Member, &Ports)> =
            found.iter().map(|(member, rule)| (*member, &rule.says.ports)).collect();
        let layout = Layout::new(direction, &ports)?;
        let ranks: Vec<Rank> = found
            .iter()
            .map(|(_, rule)| {
                let peers = rule.named.as_ref().map(|named| named.peers.clone()).unwrap_or_default();
                let names = match direction {
                    Direction::Ingress => Vec::new(),
                    Direction::Egress => {
                        rule.says.ports.names().map(|(name, protocol)| (name.to_owned(), protocol)).collect()
                    }
                };
                let is_wide = peers.iter().any(|peer| matches!(peer, PeerRef::Any | PeerRef::Workloads));
                Rank { tier: rule.says.tier, action: rule.says.action, peers, is_wide, names }
            })
            .collect();
        let peers = || ranks.iter().flat_map(|rank| &rank.peers);
        let selectors = peers().filter_map(|peer| match peer {
            PeerRef::Labels(id) => Some(*id),
            _ => None,
        });
        let mut blocks: Vec<IpBlock> = peers()
            .filter_map(|peer| match peer {
                PeerRef::Block(block) => Some(block.clone()),
                _ => None,
            })
            .collect();
        blocks.sort();
        blocks.dedup();
        let matching = |is: fn(&PeerRef) -> bool| -> Vec<Match> {
            let found = (0..).zip(&ranks).filter(|(_, rank)| rank.peers.iter().any(is));
            found.map(|(rank, _)| (rank, Vec::new())).collect()
        };
        Ok(Set {
            tenant,
            direction,
            layout,
            group: GroupId::default(),
            verdicts: HashMap::new(),
            uses: 0,
            is_fresh: true,
            selectors: selectors.collect(),
            names: ranks.iter().flat_map(|rank| rank.names.iter().cloned()).collect(),
            any: matching(|peer| matches!(peer, PeerRef::Any)),
            workload: matching(|peer| matches!(peer, PeerRef::Any | PeerRef::Workloads)),
            members,
            blocks,
            ranks,
        })
    }

    /// The blocks that its rules name, sorted.
    pub(super) fn blocks(&self) -> &[IpBlock] {
        &self.blocks
    }

    /// What a lookup must know of it.
    pub(super) fn header(&self) -> Header {
        Header { group: self.group, ..self.layout.header() }
    }

    /// Makes all entries. `numbers` are the blocks of the set's group that each of its numbers stands for.
    pub(super) fn fill(&mut self, world: &World, numbers: &[Vec<usize>]) {
        self.fill_fallbacks();
        self.fill_blocks(numbers);
        let mut found: HashMap<Identity, Vec<Match>> = HashMap::new();
        for (rank, of) in (0..).zip(&self.ranks) {
            let mut note = |identity: Identity| {
                let Some(known) = world.identities.get(&identity) else { return };
                let matches = found.entry(identity).or_default();
                if matches.last().is_none_or(|(last, _)| *last != rank) {
                    matches.push((rank, of.meant(&known.workload)));
                }
            };
            for peer in &of.peers {
                if let PeerRef::Labels(id) = peer
                    && let Some(selecting) = world.selecting(*id)
                {
                    selecting.matched.iter().copied().for_each(&mut note);
                }
            }
            if of.is_wide && !of.names.is_empty() {
                let names = of.names.iter().map(|(name, protocol)| (name.as_str(), *protocol));
                world.names.holders(names).into_iter().for_each(note);
            }
        }
        // Most peers are one of a few kinds.
        let mut kinds: HashMap<Vec<Match>, Vec<(Class, Hits)>> = HashMap::new();
        let mut verdicts = std::mem::take(&mut self.verdicts);
        for (identity, matches) in found {
            let values = kinds.entry(matches).or_insert_with_key(|matches| self.differing(matches));
            verdicts.extend(values.iter().map(|(class, hits)| ((identity, *class), *hits)));
        }
        self.verdicts = verdicts;
    }

    /// The entries of one identity.
    pub(super) fn of_identity(&self, known: &Known) -> Vec<(Class, Hits)> {
        let mut matches = Vec::new();
        for (rank, of) in (0..).zip(&self.ranks) {
            let selected = of.peers.iter().any(|peer| match peer {
                PeerRef::Labels(id) => known.selectors.binary_search(id).is_ok(),
                _ => false,
            });
            let meant = of.meant(&known.workload);
            if selected || (of.is_wide && !meant.is_empty()) {
                matches.push((rank, meant));
            }
        }
        self.differing(&matches)
    }

    /// How many identities a rule names.
    pub(super) fn breadth(&self, rank: usize, world: &World) -> usize {
        let Some(rank) = self.ranks.get(rank) else { return 0 };
        let count = |peer: &PeerRef| match peer {
            PeerRef::Labels(id) => world.selecting(*id).map_or(0, |selecting| selecting.matched.len()),
            PeerRef::Block(block) => 1 + block.except.len(),
            _ => 1,
        };
        rank.peers.iter().map(count).sum()
    }

    fn fill_fallbacks(&mut self) {
        for (identity, matches) in [(Identity::ANY, &self.any), (Identity::WORKLOAD, &self.workload)] {
            for class in self.layout.classes() {
                let hits = self.hits(class, matches);
                if hits != Hits::NONE {
                    self.verdicts.insert((identity, class), hits);
                }
            }
        }
    }

    fn fill_blocks(&mut self, numbers: &[Vec<usize>]) {
        for (identity, inside) in (Identity::FIRST_BLOCK.0..).map(Identity).zip(numbers) {
            let is_inside = |block: &IpBlock| {
                self.blocks.binary_search(block).is_ok_and(|index| inside.binary_search(&index).is_ok())
            };
            let matches: Vec<Match> = (0..)
                .zip(&self.ranks)
                .filter(|(_, rank)| {
                    rank.peers.iter().any(|peer| matches!(peer, PeerRef::Block(block) if is_inside(block)))
                })
                .map(|(rank, _)| (rank, Vec::new()))
                .collect();
            for class in self.layout.classes() {
                let hits = self.hits(class, &matches);
                if hits != Hits::NONE {
                    self.verdicts.insert((identity, class), hits);
                }
            }
        }
    }

    /// What holds for a workload that these rules match beside those for any workload, where it differs from those.
    fn differing(&self, matches: &[Match]) -> Vec<(Class, Hits)> {
        let mut values = Vec::new();
        for class in self.layout.classes() {
            let usual = self.verdicts_of_workloads(class);
            let hits = self.hits(class, matches).merge(usual);
            if hits != usual {
                values.push((class, hits));
            }
        }
        values
    }

    fn verdicts_of_workloads(&self, class: Class) -> Hits {
        self.hits(class, &self.workload)
    }

    fn hits(&self, class: Class, matches: &[Match]) -> Hits {
        let mut hits = Hits::NONE;
        for (rank, meant) in matches {
            if let Some(of) = self.ranks.get(*rank as usize)
                && self.layout.names(class, *rank, meant)
            {
                hits.note(of.tier, Hit::new(*rank, of.action));
            }
        }
        hits
    }
}

impl Rank {
    /// What a peer means by the rule's names of ports.
    fn meant(&self, workload: &Workload) -> Vec<Point> {
        let meant = |(name, protocol): &(String, u8)| Some((*protocol, workload.port(name, *protocol)?));
        self.names.iter().filter_map(meant).collect()
    }
}

/// Does a rule name ports by names?
pub(super) fn has_names(ports: &Ports) -> bool {
    ports.only().iter().any(|one| matches!(one.ports, PortSet::Named(_)))
}
