//! Who does what with which bits, and how many of them are remembered.

use std::collections::BTreeMap;

use fief_marks::registry::{Mark, Masked};
use serde::Serialize;

use crate::word::{LOADED, PerMark, Word, index};

/// At most this many different uses are told apart; further ones are counted and their bits kept.
pub const MOST: usize = 65_536;

/// The kernel's part that a use was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subsystem {
    /// nf_tables rules, sets and maps.
    Nftables,
    /// Matches and targets of iptables within nf_tables (iptables-nft).
    IptablesNft,
    /// iptables and ip6tables as they were before nf_tables.
    IptablesLegacy,
    /// Policy routing rules (`ip rule`).
    Rule,
    /// Routes.
    Route,
    /// IPsec policies.
    XfrmPolicy,
    /// IPsec states.
    XfrmState,
    /// Traffic control: queues, filters and their actions.
    TrafficControl,
    /// Devices that mark what they send or carry marks on the wire.
    Device,
    /// Sockets with SO_MARK.
    Socket,
    /// Tracked connections.
    Connection,
    /// WireGuard's own packets.
    Wireguard,
    /// Flows of the Open vSwitch kernel datapath.
    OpenVswitch,
    /// bpf programs, by their instructions.
    Bpf,
}

/// What one rule, socket, program does with one kind of mark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// The network namespace.
    pub netns: String,
    /// The kernel's part.
    pub subsystem: Subsystem,
    /// Where in it, as its own tool would say.
    pub place: String,
    /// Which mark.
    pub mark: Mark,
    /// Bits that it compares, looks up or copies.
    #[serde(serialize_with = "hexadecimal")]
    pub reads: u32,
    /// Those of them that only go into a look-up of a route, where the rules say which bits count.
    #[serde(serialize_with = "hexadecimal", skip_serializing_if = "is_empty")]
    pub routes: u32,
    /// Bits that it may change.
    #[serde(serialize_with = "hexadecimal")]
    pub writes: u32,
    /// What it compares with, where that is one value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<Masked>,
    /// What it compares with, where it holds for everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excludes: Option<Masked>,
    /// What it sets, as far as that is one value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sets: Option<Masked>,
    /// It may be so, and may not: a bpf program's instructions do not say all.
    pub heuristic: bool,
    /// What it goes by, for recognising whose it is: `chain KUBE-SERVICES`, `process dnsmasq`.
    #[serde(skip)]
    pub names: Vec<String>,
}

impl Use {
    /// Does it change bits that it did not mean, because it writes the whole mark?
    pub fn is_unmasked(&self) -> bool {
        self.writes == u32::MAX
    }

    /// Bits that decide something here; what a look-up of a route makes of the others is a use of each rule.
    pub fn decides(&self) -> u32 {
        self.reads & !self.routes
    }
}

/// A number of equal uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What they have in common.
    #[serde(flatten)]
    pub what: Use,
    /// How many there are.
    pub count: u64,
    /// The first of them, where that has a number of its own (`handle 7`, `rule 3`, a socket's end).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub first: String,
}

/// Uses, equal ones together.
#[derive(Debug, Default)]
pub struct Uses {
    found: BTreeMap<Use, (u64, String)>,
    /// Uses beyond [`MOST`].
    pub left_out: u64,
}

impl Uses {
    /// Notes one more.
    pub fn add(&mut self, what: Use, at: impl FnOnce() -> String) {
        if let Some((count, _)) = self.found.get_mut(&what) {
            *count += 1;
        } else if self.found.len() < MOST {
            self.found.insert(what, (1, at()));
        } else {
            self.left_out += 1;
        }
    }

    /// Takes over what another has found.
    pub fn extend(&mut self, other: Uses) {
        self.left_out += other.left_out;
        for (what, (count, first)) in other.found {
            if let Some((known, _)) = self.found.get_mut(&what) {
                *known += count;
            } else if self.found.len() < MOST {
                self.found.insert(what, (count, first));
            } else {
                self.left_out += count;
            }
        }
    }

    /// All of them, in order.
    pub fn into_vec(self) -> Vec<Found> {
        self.found.into_iter().map(|(what, (count, first))| Found { what, count, first }).collect()
    }
}

/// What one rule does with all marks, while it is being read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Effects {
    reads: PerMark,
    routes: PerMark,
    writes: PerMark,
    matches: [Option<Masked>; 3],
    excludes: [Option<Masked>; 3],
    sets: [Option<Masked>; 3],
}

impl Effects {
    /// Something is decided by these bits.
    pub fn read(&mut self, bits: PerMark) {
        (0..3).for_each(|i| self.reads[i] |= bits[i]);
    }

    /// Bits of one mark decide something.
    pub fn read_mark(&mut self, mark: Mark, bits: u32) {
        self.reads[index(mark)] |= bits;
    }

    /// The packet's mark goes into a look-up of a route.
    pub fn routed(&mut self) {
        self.routes[index(Mark::Packet)] = u32::MAX;
    }

    /// A mark is compared with a value under a mask.
    pub fn matched(&mut self, mark: Mark, value: u32, mask: u32) {
        self.compared(mark, value, mask, true);
    }

    /// A mark is compared, and must be equal, or must not.
    pub fn compared(&mut self, mark: Mark, value: u32, mask: u32, is_equal: bool) {
        self.read_mark(mark, mask);
        if value & !mask == 0 && mask != 0 {
            let values = if is_equal { &mut self.matches } else { &mut self.excludes };
            values[index(mark)].get_or_insert(Masked { value, mask });
        }
    }

    /// A mark becomes this.
    pub fn store(&mut self, mark: Mark, word: Word) {
        let changes = word.changes(mark);
        self.writes[index(mark)] |= changes;
        // What is kept is not read; what comes from elsewhere is.
        let mut depends = word.depends_on();
        depends[index(mark)] &= changes;
        self.read(depends);
        let known = word.known & changes;
        if known == changes && changes != 0 {
            self.sets[index(mark)].get_or_insert(Masked { value: word.ones & known, mask: known });
        }
    }

    /// A mark becomes `value` under `mask`.
    pub fn set(&mut self, mark: Mark, value: u32, mask: u32) {
        self.store(mark, Word::mark(mark).and(Word::constant(!mask)).or(Word::constant(value & mask)));
    }

    /// One use for each mark that is touched.
    pub fn uses(self, template: &Use) -> impl Iterator<Item = Use> {
        LOADED.into_iter().filter_map(move |mark| {
            let i = index(mark);
            let touched = self.reads[i] | self.routes[i] | self.writes[i] != 0;
            touched.then(|| Use {
                mark,
                reads: self.reads[i] | self.routes[i],
                routes: self.routes[i] & !self.reads[i],
                writes: self.writes[i],
                matches: self.matches[i],
                excludes: self.excludes[i],
                sets: self.sets[i],
                ..template.clone()
            })
        })
    }
}

impl Use {
    /// A use that touches nothing yet.
    pub fn at(subsystem: Subsystem, place: impl Into<String>, names: Vec<String>) -> Use {
        Use {
            netns: String::new(),
            subsystem,
            place: place.into(),
            mark: Mark::Packet,
            reads: 0,
            routes: 0,
            writes: 0,
            matches: None,
            excludes: None,
            sets: None,
            heuristic: false,
            names,
        }
    }
}

fn is_empty(bits: &u32) -> bool {
    *bits == 0
}

fn hexadecimal<S: serde::Serializer>(bits: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format!("{bits:#x}"))
}
