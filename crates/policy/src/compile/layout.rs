//! The ports that the rules of one set name, divided into classes.
//!
//! Two ports are in one class if every rule of the set either names both or neither. So the verdict table needs a class
//! where it would need a port, and ranges become a few prefixes. Class 0 is everything that is in no entry.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::set::Member;
use crate::rule::{Direction, PortSet, Ports};
use crate::tables::{Class, Header};

/// A protocol and a port.
pub(super) type Point = (u8, u16);

/// The classes of a set.
#[derive(Debug)]
pub(super) struct Layout {
    classes: Vec<Ranks>,
    /// Protocol, prefix length, prefix, class.
    pub(super) prefixes: Vec<(u8, u8, u16, Class)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ranks {
    /// The rules that name the class whoever the peer is, ascending.
    ranks: Vec<u32>,
    /// The only port of the class, if a rule may mean it by a name that its peer has for it.
    point: Option<Point>,
}

/// The set has more classes than a table can number.
#[derive(Debug)]
pub(super) struct TooMany;

impl Layout {
    /// Divides the ports of a set's members, given in the order of their ranks.
    pub(super) fn new(direction: Direction, members: &[(&Member, &Ports)]) -> Result<Layout, TooMany> {
        let mut collected = Collected::default();
        for (rank, (member, ports)) in (0..).zip(members) {
            collected.add(rank, direction, member, ports);
        }
        collected.wide.sort_unstable();
        let zero = Ranks { ranks: collected.wide.clone(), point: None };
        let mut numbering = Numbering { numbers: HashMap::new(), classes: Vec::new() };
        numbering.number(zero)?;
        let mut prefixes = Vec::new();
        for (protocol, found) in &collected.protocols {
            found.divide(*protocol, &collected.wide, &mut numbering, &mut prefixes)?;
        }
        Ok(Layout { classes: numbering.classes, prefixes })
    }

    /// All classes.
    pub(super) fn classes(&self) -> impl Iterator<Item = Class> + use<> {
        (0..self.classes.len()).map(|class| class as Class)
    }

    /// Does the rule with this rank name this class, given what its peer's names mean?
    pub(super) fn names(&self, class: Class, rank: u32, meant: &[Point]) -> bool {
        self.classes.get(usize::from(class)).is_some_and(|found| {
            found.ranks.binary_search(&rank).is_ok()
                || found.point.is_some_and(|point| meant.contains(&point))
        })
    }

    /// The masks of the prefix lengths.
    pub(super) fn header(&self) -> Header {
        let mut header = Header::default();
        self.prefixes.iter().for_each(|(protocol, length, ..)| header.add_length(*protocol, *length));
        header
    }
}

/// What the rules of a set name.
#[derive(Default)]
struct Collected {
    /// Rules about all protocols.
    wide: Vec<u32>,
    protocols: BTreeMap<u8, Protocol>,
}

#[derive(Default)]
struct Protocol {
    /// Rules about all its ports.
    wide: Vec<u32>,
    /// Rules by first and last port.
    ranges: Vec<(u32, u16, u16)>,
    /// Ports that peers may mean by a name.
    points: BTreeSet<u16>,
}

impl Collected {
    fn add(&mut self, rank: u32, direction: Direction, member: &Member, ports: &Ports) {
        let Ports::Only(matches) = ports else { return self.wide.push(rank) };
        for one in matches {
            let protocol = self.protocols.entry(one.protocol).or_default();
            match &one.ports {
                PortSet::All => protocol.wide.push(rank),
                PortSet::Range(first, last) => protocol.ranges.push((rank, *first, *last)),
                PortSet::Named(_) => {}
            }
        }
        for (protocol, port) in &member.named {
            let protocol = self.protocols.entry(*protocol).or_default();
            match direction {
                Direction::Ingress => protocol.ranges.push((rank, *port, *port)),
                Direction::Egress => drop(protocol.points.insert(*port)),
            }
        }
    }
}

impl Protocol {
    fn divide(
        &self,
        protocol: u8,
        wide: &[u32],
        numbering: &mut Numbering,
        prefixes: &mut Vec<(u8, u8, u16, Class)>,
    ) -> Result<(), TooMany> {
        let mut always: Vec<u32> = wide.iter().chain(&self.wide).copied().collect();
        always.sort_unstable();
        always.dedup();
        let base = numbering.number(Ranks { ranks: always.clone(), point: None })?;
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
            let class = numbering.number(Ranks { ranks, point: point.map(|port| (protocol, port)) })?;
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

struct Numbering {
    numbers: HashMap<Ranks, Class>,
    classes: Vec<Ranks>,
}

impl Numbering {
    fn number(&mut self, ranks: Ranks) -> Result<Class, TooMany> {
        if let Some(class) = self.numbers.get(&ranks) {
            return Ok(*class);
        }
        let class = Class::try_from(self.classes.len()).map_err(|_| TooMany)?;
        self.classes.push(ranks.clone());
        self.numbers.insert(ranks, class);
        Ok(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::PortMatch;
    use crate::tables::{RuleNumber, prefix_mask};

    fn class_of(layout: &Layout, protocol: u8, port: u16) -> Class {
        let hits = layout.prefixes.iter().filter(|(of, length, prefix, _)| {
            *of == protocol && port & prefix_mask(u32::from(*length)) == *prefix
        });
        hits.max_by_key(|(_, length, ..)| *length).map_or(0, |(.., class)| *class)
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
                    assert_eq!(layout.names(class, rank, &[]), expected, "{protocol}/{port} rule {rank}");
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
        assert!(layout.names(eighty, 0, &[(6, 80)]) && !layout.names(other, 0, &[(6, 80)]));
        assert!(!layout.names(eighty, 0, &[]) && !layout.names(0, 0, &[(6, 80)]));
        let layout = Layout::new(Direction::Ingress, &[(&member, &ports)]).unwrap();
        assert!(layout.names(class_of(&layout, 6, 80), 0, &[]), "the subject's own names are known");
    }

    #[test]
    fn more_classes_than_a_table_can_number_are_refused() {
        let rules: Vec<Ports> = (0..=u16::MAX).map(|port| only(&[(6, PortSet::Range(port, port))])).collect();
        let member = Member { rule: RuleNumber(0), named: Vec::new() };
        let members: Vec<_> = rules.iter().map(|ports| (&member, ports)).collect();
        assert!(Layout::new(Direction::Ingress, &members).is_err());
        assert!(Layout::new(Direction::Ingress, &members[1..]).is_ok());
    }
}
