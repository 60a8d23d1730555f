//! One set of rules: what holds for every subject that the same rules select.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fief_model::Slot;
use fief_model::policy::IpBlock;

use super::blocks::Blocks;
use super::layout::{Layout, Named, Point, TooMany};
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
    /// Rules by the selectors of their peers.
    by_selector: HashMap<SelectorId, Vec<u32>>,
    /// Rules about any workload whose ports have names.
    by_names: Vec<u32>,
    /// What any workload gets, by class of ports.
    usual: Vec<Hits>,
}

/// What a set must know of a rule.
#[derive(Debug)]
struct Rank {
    tier: Tier,
    action: Action,
    peers: Arc<[PeerRef]>,
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
            peers: rule.named.as_ref().map_or_else(|| Arc::from([]), |named| named.peers.clone()),
            names: rule
                .says
                .ports
                .names()
                .filter_map(|name| Some((names.binary_search(&name).ok()?, name.1)))
                .collect(),
        };
        let ranks: Vec<Rank> = found.iter().map(|(_, rule)| rank(rule)).collect();
        let mut by_selector: HashMap<SelectorId, Vec<u32>> = HashMap::new();
        for (number, rank) in (0..).zip(&ranks) {
            for peer in &*rank.peers {
                if let PeerRef::Labels(id) = peer {
                    by_selector.entry(*id).or_default().push(number);
                }
            }
        }
        let named = (0..).zip(&ranks).filter(|(_, rank)| !rank.names.is_empty() && rank.is_about(is_wide));
        let by_names = named.map(|(number, _)| number).collect();
        let selectors: BTreeSet<SelectorId> = by_selector.keys().copied().collect();
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
            by_selector,
            by_names,
            usual: Vec::new(),
        };
        Ok((set, questions))
    }

    /// The blocks that its rules name, for each rule that does.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Vec<IpBlock>> {
        self.ranks.iter().map(Rank::blocks).filter(|blocks| !blocks.is_empty())
    }

    /// What a lookup must know of it.
    pub(super) fn header(&self) -> Header {
        Header { peers: self.peers, group: self.group, ..self.layout.header() }
    }

    /// Makes all entries; or, of more than there is room for, one that does not fit and some more: then the set cannot be
    /// used, and what it would have cost to make the rest is spared.
    pub(super) fn fill(&mut self, peers: Option<&Peers>, blocks: Option<&Blocks>, room: usize) {
        let about = |is: fn(&PeerRef) -> bool| -> Vec<(u32, Vec<Point>)> {
            let found = (0..).zip(&self.ranks).filter(|(_, rank)| rank.is_about(is));
            found.map(|(number, _)| (number, Vec::new())).collect()
        };
        let any = self.of_everybody(&about(|peer| matches!(peer, PeerRef::Any)));
        self.usual = self.of_everybody(&about(is_wide));
        let mut found: HashMap<(PeerClass, Class), Hits> = HashMap::new();
        for (peer, all) in [(PeerClass::ANY, &any), (PeerClass::WORKLOAD, &self.usual)] {
            let entries = self.layout.classes().zip(all).filter(|(_, hits)| **hits != Hits::NONE);
            found.extend(entries.map(|(class, hits)| ((peer, class), *hits)));
        }
        for (class, answers) in peers.into_iter().flat_map(Peers::classes) {
            if found.len() > room {
                break;
            }
            found.extend(self.of_peers(class, answers));
        }
        if let Some(blocks) = blocks {
            found.extend(self.of_blocks(blocks, room));
        }
        self.verdicts = found;
    }

    fn of_blocks(&self, blocks: &Blocks, room: usize) -> Vec<((PeerClass, Class), Hits)> {
        let mut by_list: HashMap<usize, Vec<u32>> = HashMap::new();
        for (number, rank) in (0..).zip(&self.ranks) {
            if let Some(place) = blocks.place(&rank.blocks()) {
                by_list.entry(place).or_default().push(number);
            }
        }
        let none = vec![Hits::NONE; self.usual.len()];
        let mut found = Vec::new();
        for (class, inside) in (Identity::FIRST_BLOCK.0..).map(PeerClass).zip(blocks.numbers()) {
            if found.len() > room {
                break;
            }
            let ranks: BTreeSet<u32> =
                inside.iter().filter_map(|place| by_list.get(place)).flatten().copied().collect();
            let matches: Vec<_> = ranks.into_iter().map(|number| (number, Vec::new())).collect();
            found.extend(self.entries(class, &matches, &none));
        }
        found
    }

    /// The entries for peers who answer so, where they differ from those for any workload.
    pub(super) fn of_peers(&self, class: PeerClass, answers: &Answers) -> Vec<((PeerClass, Class), Hits)> {
        let selected = answers.selectors.iter().filter_map(|id| self.by_selector.get(id)).flatten();
        let named = self.by_names.iter().filter(|_| !answers.ports.is_empty());
        let ranks: BTreeSet<u32> = selected.chain(named).copied().collect();
        let meant = |number: u32| {
            let rank = self.ranks.get(number as usize);
            rank.map(|rank| rank.meant(&answers.ports)).unwrap_or_default()
        };
        let matches: Vec<(u32, Vec<Point>)> =
            ranks.into_iter().map(|number| (number, meant(number))).collect();
        self.entries(class, &matches, &self.usual)
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

    /// What rules give by class of ports, given those that match and what their peers mean by names: the first of those
    /// about all ports, and for each class that others name, the first of these.
    fn matching(&self, matches: &[(u32, Vec<Point>)]) -> (Hits, BTreeMap<Class, Hits>) {
        let mut everywhere = Hits::NONE;
        let mut somewhere: BTreeMap<Class, Hits> = BTreeMap::new();
        for (number, meant) in matches {
            let Some(rank) = self.ranks.get(*number as usize) else { continue };
            let hit = Hit::new(*number, rank.action);
            let mut note = |class: Class| somewhere.entry(class).or_insert(Hits::NONE).note(rank.tier, hit);
            match self.layout.named_by(*number) {
                Named::All => everywhere.note(rank.tier, hit),
                Named::These(classes) => classes.iter().copied().for_each(&mut note),
            }
            meant.iter().filter_map(|point| self.layout.class_of(*point)).for_each(&mut note);
        }
        (everywhere, somewhere)
    }

    /// What everybody gets whom these rules match, for each class of ports.
    fn of_everybody(&self, matches: &[(u32, Vec<Point>)]) -> Vec<Hits> {
        let (everywhere, somewhere) = self.matching(matches);
        let of = |class| somewhere.get(&class).copied().unwrap_or(Hits::NONE).merge(everywhere);
        self.layout.classes().map(of).collect()
    }

    /// The entries for peers of one class, beside what is `usual`: with class 0 what rules about all ports give them, and
    /// with another class what others give them there.
    fn entries(
        &self,
        peer: PeerClass,
        matches: &[(u32, Vec<Point>)],
        usual: &[Hits],
    ) -> Vec<((PeerClass, Class), Hits)> {
        let (everywhere, somewhere) = self.matching(matches);
        let usual = |class: Class| usual.get(usize::from(class)).copied().unwrap_or(Hits::NONE);
        let always = everywhere.merge(usual(0));
        let mut entries = Vec::new();
        if always != usual(0) {
            entries.push(((peer, 0), always));
        }
        for (class, hits) in somewhere {
            // What a lookup that finds no entry makes of the two others.
            let otherwise = always.merge(usual(class));
            if hits.merge(otherwise) != otherwise {
                entries.push(((peer, class), hits.merge(otherwise)));
            }
        }
        entries
    }
}

/// Does it mean any workload?
fn is_wide(peer: &PeerRef) -> bool {
    matches!(peer, PeerRef::Any | PeerRef::Workloads)
}

impl Rank {
    fn is_about(&self, is: impl Fn(&PeerRef) -> bool) -> bool {
        self.peers.iter().any(is)
    }

    /// The blocks that it names, sorted.
    fn blocks(&self) -> Vec<IpBlock> {
        let blocks = self.peers.iter().filter_map(|peer| match peer {
            PeerRef::Block(block) => Some(block.clone()),
            _ => None,
        });
        let blocks: BTreeSet<IpBlock> = blocks.collect();
        blocks.into_iter().collect()
    }

    /// What a peer means by the rule's names of ports.
    fn meant(&self, ports: &[(usize, u16)]) -> Vec<Point> {
        let meant = |(place, protocol): &(usize, u8)| {
            let found = ports.iter().find(|(of, _)| of == place);
            found.map(|(_, port)| (*protocol, *port))
        };
        self.names.iter().filter_map(meant).collect()
    }
}
