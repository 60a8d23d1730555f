//! The ports that the rules of one set name, divided into classes.
//!
//! Two ports are in one class if every rule of the set either names both or neither. So the verdict table needs a class
//! where it would need a port, and ranges become a few prefixes. Class 0 is everything that is in no entry.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::set::Member;
use crate::rule::{Direction, PortMatch, PortSet, Ports};
use crate::tables::{Class, Header};

/// A protocol and a port.
pub(super) type Point = (u8, u16);

/// Rules and classes, both by number: whoever has more pairs of them than this tells too many ports apart.
const MOST_PAIRS: usize = 1 << 22;

/// The classes of a set.
#[derive(Debug)]
pub(super) struct Layout {
    /// For each rule, the classes that it names whoever the peer is.
    named: Vec<Named>,
    /// The classes of ports that peers may mean by a name.
    points: HashMap<Point, Class>,
    count: usize,
    /// Protocol, prefix length, prefix, class.
    pub(super) prefixes: Vec<(u8, u8, u16, Class)>,
}

/// The classes that a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    All,
    These(Vec<Class>),
}

/// What makes two ports the same: the rules that name them, ascending, and the port itself if a rule may mean it by a name
/// that its peer has for it.
type Alike = (Vec<u32>, Option<Point>);

/// The set tells more ports apart than a table can number.
#[derive(Debug)]
pub(super) struct TooMany;

impl Layout {
    /// Divides the ports of a set's members, given in the order of their ranks.
    pub(super) fn new(direction: Direction, members: &[(&Member, &Ports)]) -> Result<Layout, TooMany> {
        let mut protocols: BTreeMap<u8, Protocol> = BTreeMap::new();
        let mut named = Vec::with_capacity(members.len());
        for (rank, (member, ports)) in (0..).zip(members) {
            named.push(match ports {
                Ports::All => Named::All,
                Ports::Only(matches) => {
                    collect(rank, direction, member, matches, &mut protocols);
                    Named::These(Vec::new())
                }
            });
        }
        let mut numbering = Numbering::default();
        numbering.number((Vec::new(), None))?;
        let mut prefixes = Vec::new();
        for (protocol, found) in &protocols {
            found.divide(*protocol, &mut numbering, &mut prefixes)?;
        }
        let mut points = HashMap::new();
        let count = numbering.numbers.len();
        for ((ranks, point), class) in numbering.numbers {
            points.extend(point.map(|point| (point, class)));
            for rank in ranks {
                if let Some(Named::These(classes)) = named.get_mut(rank as usize) {
                    classes.push(class);
                }
            }
        }
        Ok(Layout { named, points, count, prefixes })
    }

    /// All classes.
    pub(super) fn classes(&self) -> impl Iterator<Item = Class> + use<> {
        (0..self.count).map(|class| class as Class)
    }

    /// The classes that a rule names, whoever the peer is.
    pub(super) fn named_by(&self, rank: u32) -> &Named {
        self.named.get(rank as usize).unwrap_or(&Named::All)
    }

    /// The class of a port that peers may mean by a name.
    pub(super) fn class_of(&self, point: Point) -> Option<Class> {
        self.points.get(&point).copied()
    }

    /// The masks of the prefix lengths.
    pub(super) fn header(&self) -> Header {
        let mut header = Header::default();
        self.prefixes.iter().for_each(|(protocol, length, ..)| header.add_length(*protocol, *length));
        header
    }
}

/// What the rules of a set name of one protocol.
#[derive(Default)]
struct Protocol {
    /// Rules about all its ports.
    wide: Vec<u32>,
    /// Rules by first and last port.
    ranges: Vec<(u32, u16, u16)>,
    /// Ports that peers may mean by a name.
    points: BTreeSet<u16>,
}

fn collect(
    rank: u32,
    direction: Direction,
    member: &Member,
    matches: &[PortMatch],
    protocols: &mut BTreeMap<u8, Protocol>,
) {
    for one in matches {
        let protocol = protocols.entry(one.protocol).or_default();
        match &one.ports {
            PortSet::All => protocol.wide.push(rank),
            PortSet::Range(first, last) => protocol.ranges.push((rank, *first, *last)),
            PortSet::Named(_) => {}
        }
    }
    for (protocol, port) in &member.named {
        let protocol = protocols.entry(*protocol).or_default();
        match direction {
            Direction::Ingress => protocol.ranges.push((rank, *port, *port)),
            Direction::Egress => drop(protocol.points.insert(*port)),
        }
    }
}

impl Protocol {
    fn divide(
        &self,
        protocol: u8,
        numbering: &mut Numbering,
        prefixes: &mut Vec<(u8, u8, u16, Class)>,
    ) -> Result<(), TooMany> {
        let mut always = self.wide.clone();
        always.dedup();
        let base = numbering.number((always.clone(), None))?;
        if base != 0 {
            prefixes.push((protocol, 0, 0, base));
        }
        // What begins and what ends at each port.
        let mut edges: BTreeMap<u32, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
        for (rank, first, last) in &self.ranges {
            edges.entry(u32::from(*first)).or_default().0.push(*rank);
            edges.entry(u32::from(*last) + 1).or_default().1.push(*rank);
        }
        for point in &self.points {
            edges.entry(u32::from(*point)).or_default();
            edges.entry(u32::from(*point) + 1).or_default();
        }
        let mut open: BTreeMap<u32, usize> = always.into_iter().map(|rank| (rank, 1)).collect();
        let ends = edges.keys().skip(1).copied().chain([1 << 16]).collect::<Vec<u32>>();
        let mut stretch: Option<(u32, u32, Class)> = None;
        for ((begin, (opened, closed)), end) in edges.into_iter().zip(ends) {
            opened.into_iter().for_each(|rank| *open.entry(rank).or_default() += 1);
            for rank in closed {
                if let Some(count) = open.get_mut(&rank) {
                    *count -= 1;
                    if *count == 0 {
                        open.remove(&rank);
                    }
                }
            }
            if begin == end {
                continue;
            }
            let point = u16::try_from(begin).ok().filter(|port| self.points.contains(port));
            let ranks = open.keys().copied().collect();
            let class = numbering.number((ranks, point.map(|port| (protocol, port))))?;
            match &mut stretch {
                Some((_, last, same)) if *last == begin && *same == class => *last = end,
                _ => {
                    cover(stretch.replace((begin, end, class)), base, protocol, prefixes);
                }
            }
        }
        cover(stretch, base, protocol, prefixes);
        Ok(())
    }
}

/// Covers the ports from `begin` to before `end` with the fewest prefixes.
fn cover(
    stretch: Option<(u32, u32, Class)>,
    base: Class,
    protocol: u8,
    prefixes: &mut Vec<(u8, u8, u16, Class)>,
) {
    let Some((mut begin, end, class)) = stretch else { return };
    if class == base {
        return;
    }
    while begin < end {
        // The largest block that begins here and does not end too late.
        let mut bits = begin.trailing_zeros().min(16);
        while begin + (1 << bits) > end {
            bits -= 1;
        }
        prefixes.push((protocol, (16 - bits) as u8, begin as u16, class));
        begin += 1 << bits;
    }
}

#[derive(Default)]
struct Numbering {
    numbers: HashMap<Alike, Class>,
    pairs: usize,
}

impl Numbering {
    fn number(&mut self, alike: Alike) -> Result<Class, TooMany> {
        if let Some(class) = self.numbers.get(&alike) {
            return Ok(*class);
        }
        self.pairs += alike.0.len();
        let class = Class::try_from(self.numbers.len()).ok().filter(|_| self.pairs <= MOST_PAIRS);
        let class = class.ok_or(TooMany)?;
        self.numbers.insert(alike, class);
        Ok(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{RuleNumber, prefix_mask};

    fn class_of(layout: &Layout, protocol: u8, port: u16) -> Class {
        let hits = layout.prefixes.iter().filter(|(of, length, prefix, _)| {
            *of == protocol && port & prefix_mask(u32::from(*length)) == *prefix
        });
        hits.max_by_key(|(_, length, ..)| *length).map_or(0, |(.., class)| *class)
    }

    fn names(layout: &Layout, class: Class, rank: u32) -> bool {
        match layout.named_by(rank) {
            Named::All => true,
            Named::These(classes) => classes.contains(&class),
        }
    }

    fn only(matches: &[(u8, PortSet)]) -> Ports {
        let one = |(protocol, ports): &(u8, PortSet)| PortMatch { protocol: *protocol, ports: ports.clone() };
        Ports::Only(matches.iter().map(one).collect())
    }

    #[test]
    fn every_port_has_the_class_that_its_rules_make() {
        let rules = [
            Ports::All,
            only(&[(6, PortSet::Range(80, 80)), (17, PortSet::All)]),
            only(&[(6, PortSet::Range(1, 65535))]),
            only(&[(6, PortSet::Range(1024, 2047)), (6, PortSet::Range(2000, 3000)), (132, PortSet::All)]),
            only(&[(17, PortSet::Range(0, 0)), (6, PortSet::Range(65535, 65535))]),
        ];
        let member = Member { rule: RuleNumber(0), named: Vec::new() };
        let members: Vec<_> = rules.iter().map(|ports| (&member, ports)).collect();
        let layout = Layout::new(Direction::Ingress, &members).unwrap();
        for protocol in [1, 6, 17, 132] {
            for port in 0..=u16::MAX {
                let class = class_of(&layout, protocol, port);
                for (rank, rule) in (0..).zip(&rules) {
                    let expected = match rule {
                        Ports::All => true,
                        Ports::Only(matches) => matches.iter().any(|one| {
                            one.protocol == protocol
                                && match one.ports {
                                    PortSet::All => true,
                                    PortSet::Range(first, last) => (first..=last).contains(&port),
                                    PortSet::Named(_) => false,
                                }
                        }),
                    };
                    assert_eq!(names(&layout, class, rank), expected, "{protocol}/{port} rule {rank}");
                }
            }
        }
        assert_eq!(layout.header().lengths_of(1), 0, "ICMP costs no lookup");
    }

    #[test]
    fn a_name_of_the_peer_is_a_class_of_its_own() {
        let ports = only(&[(6, PortSet::Named("http".into()))]);
        let member = Member { rule: RuleNumber(0), named: vec![(6, 80), (6, 8080)] };
        let layout = Layout::new(Direction::Egress, &[(&member, &ports)]).unwrap();
        let [eighty, other] = [80, 8080].map(|port| class_of(&layout, 6, port));
        assert!(eighty != other && class_of(&layout, 6, 81) == 0 && class_of(&layout, 17, 80) == 0);
        assert_eq!(
            [(6, 80), (6, 8080), (6, 81)].map(|p| layout.class_of(p)),
            [Some(eighty), Some(other), None]
        );
        assert!(!names(&layout, eighty, 0) && !names(&layout, 0, 0), "whoever the peer is");
        let layout = Layout::new(Direction::Ingress, &[(&member, &ports)]).unwrap();
        assert!(names(&layout, class_of(&layout, 6, 80), 0), "the subject's own names are known");
    }

    #[test]
    fn more_classes_than_a_table_can_number_are_refused() {
        let rules: Vec<Ports> = (0..=u16::MAX).map(|port| only(&[(6, PortSet::Range(port, port))])).collect();
        let member = Member { rule: RuleNumber(0), named: Vec::new() };
        let members: Vec<_> = rules.iter().map(|ports| (&member, ports)).collect();
        assert!(Layout::new(Direction::Ingress, &members).is_err());
        assert!(Layout::new(Direction::Ingress, &members[1..]).is_ok());
        // And so are ranges that overlap so much that they multiply.
        let nested: Vec<Ports> = (1..5000).map(|n| only(&[(6, PortSet::Range(n, 65535 - n))])).collect();
        let members: Vec<_> = nested.iter().map(|ports| (&member, ports)).collect();
        assert!(Layout::new(Direction::Ingress, &members).is_err());
        assert!(Layout::new(Direction::Ingress, &members[..1000]).is_ok());
    }
}
