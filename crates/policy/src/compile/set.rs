//! One set of rules: what holds for every subject that the same rules select.

use std::collections::{BTreeSet, HashMap};

use fief_model::Slot;
use fief_model::policy::IpBlock;

use super::blocks::Blocks;
use super::layout::{Layout, Point, TooMany};
use super::peers::{Answers, Peers, Questions};
use super::rules::{PeerRef, Rules};
use super::world::{SelectorId, World};
use crate::identity::Identity;
use crate::rule::{Direction, Ports};
use crate::tables::{Class, GroupId, Header, PeerClass, PeersId, RuleNumber};
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
    pub(super) peers: PeersId,
    pub(super) group: GroupId,
    pub(super) verdicts: HashMap<(PeerClass, Class), Hits>,
    pub(super) uses: usize,
    pub(super) is_fresh: bool,
    ranks: Vec<Rank>,
}

/// What a set must know of a rule.
#[derive(Debug)]
struct Rank {
    tier: Tier,
    action: Action,
    peers: Vec<PeerRef>,
    /// Names of ports that are the peer's to explain, by their places among those of the set.
    names: Vec<(usize, u8)>,
}

impl Set {
    /// Divides the ports; the entries come with [`Set::fill`].
    pub(super) fn new(
        tenant: Slot,
        direction: Direction,
        members: Vec<Member>,
        rules: &Rules,
    ) -> Result<(Set, Questions), TooMany> {
        let found = members.iter().filter_map(|member| Some((member, rules.get(member.rule)?)));
        let found: Vec<_> = found.collect();
        let ports: Vec<(&Member, &Ports)> =
            found.iter().map(|(member, rule)| (*member, &rule.says.ports)).collect();
        let layout = Layout::new(direction, &ports)?;
        let names: BTreeSet<(&str, u8)> = match direction {
            Direction::Ingress => BTreeSet::new(),
            Direction::Egress => found.iter().flat_map(|(_, rule)| rule.says.ports.names()).collect(),
        };
        let names: Vec<(&str, u8)> = names.into_iter().collect();
        let rank = |rule: &super::rules::Numbered| Rank {
            tier: rule.says.tier,
            action: rule.says.action,
            peers: rule.named.as_ref().map(|named| named.peers.clone()).unwrap_or_default(),
            names: rule
                .says
                .ports
                .names()
                .filter_map(|name| Some((names.binary_search(&name).ok()?, name.1)))
                .collect(),
        };
        let ranks: Vec<Rank> = found.iter().map(|(_, rule)| rank(rule)).collect();
        let selectors: BTreeSet<SelectorId> = ranks
            .iter()
            .flat_map(|rank| &rank.peers)
            .filter_map(|peer| match peer {
                PeerRef::Labels(id) => Some(*id),
                _ => None,
            })
            .collect();
        let questions = Questions {
            tenant,
            selectors: selectors.into_iter().collect(),
            names: names.into_iter().map(|(name, protocol)| (name.to_owned(), protocol)).collect(),
        };
        let set = Set {
            tenant,
            direction,
            members,
            layout,
            peers: PeersId::default(),
            group: GroupId::default(),
            verdicts: HashMap::new(),
            uses: 0,
            is_fresh: true,
            ranks,
        };
        Ok((set, questions))
    }

    /// The blocks that its rules name.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &IpBlock> {
        self.ranks.iter().flat_map(|rank| &rank.peers).filter_map(|peer| match peer {
            PeerRef::Block(block) => Some(block),
            _ => None,
        })
    }

    /// What a lookup must know of it.
    pub(super) fn header(&self) -> Header {
        Header { peers: self.peers, group: self.group, ..self.layout.header() }
    }

    /// Makes all entries.
    pub(super) fn fill(&mut self, peers: Option<&Peers>, blocks: Option<&Blocks>) {
        let mut found = self.entries(PeerClass::ANY, |peer| matches!(peer, PeerRef::Any), &[]);
        let is_wide = |peer: &PeerRef| matches!(peer, PeerRef::Any | PeerRef::Workloads);
        found.extend(self.entries(PeerClass::WORKLOAD, is_wide, &[]));
        for (class, answers) in peers.into_iter().flat_map(Peers::classes) {
            found.extend(self.of_peers(class, answers));
        }
        for (number, inside) in (Identity::FIRST_BLOCK.0..).zip(blocks.into_iter().flat_map(Blocks::numbers))
        {
            let is_inside = |peer: &PeerRef| matches!(peer, PeerRef::Block(block) if inside.contains(&block));
            found.extend(self.entries(PeerClass(number), is_inside, &[]));
        }
        self.verdicts = found.into_iter().collect();
    }

    /// The entries for peers who answer so.
    pub(super) fn of_peers(&self, class: PeerClass, answers: &Answers) -> Vec<((PeerClass, Class), Hits)> {
        let matches = |peer: &PeerRef| match peer {
            PeerRef::Any | PeerRef::Workloads => true,
            PeerRef::Labels(id) => answers.selectors.binary_search(id).is_ok(),
            PeerRef::Block(_) => false,
        };
        self.entries(class, matches, &answers.ports)
    }

    /// How many identities and prefixes a rule names.
    pub(super) fn breadth(&self, rank: usize, world: &World) -> usize {
        let Some(rank) = self.ranks.get(rank) else { return 0 };
        let count = |peer: &PeerRef| match peer {
            PeerRef::Labels(id) => world.selecting(*id).map_or(0, |selecting| selecting.matched.len()),
            PeerRef::Block(block) => 1 + block.except.len(),
            _ => 0,
        };
        rank.peers.iter().map(count).sum()
    }

    /// For each class of ports, the first rules whose peers match. `ports` are the places of names, and what is meant.
    fn entries(
        &self,
        peer: PeerClass,
        matches: impl Fn(&PeerRef) -> bool,
        ports: &[(usize, u16)],
    ) -> Vec<((PeerClass, Class), Hits)> {
        let found = (0..).zip(&self.ranks).filter(|(_, rank)| rank.peers.iter().any(&matches));
        let found: Vec<(u32, &Rank, Vec<Point>)> =
            found.map(|(number, rank)| (number, rank, rank.meant(ports))).collect();
        let mut entries = Vec::new();
        for class in self.layout.classes() {
            let mut hits = Hits::NONE;
            for (number, rank, meant) in &found {
                if self.layout.names(class, *number, meant) {
                    hits.note(rank.tier, Hit::new(*number, rank.action));
                }
            }
            if hits != Hits::NONE {
                entries.push(((peer, class), hits));
            }
        }
        entries
    }
}

impl Rank {
    /// What a peer means by the rule's names of ports.
    fn meant(&self, ports: &[(usize, u16)]) -> Vec<Point> {
        let meant = |(place, protocol): &(usize, u8)| {
            let found = ports.iter().find(|(of, _)| of == place);
            found.map(|(_, port)| (*protocol, *port))
        };
        self.names.iter().filter_map(meant).collect()
    }
}
