//! A whole table as a value, which leads from one state to the next.
//!
//! A table could be replaced whole at every change, and that is one transaction. But a packet that looks into a set at that
//! moment may find the old one empty already: a lookup asks anew which generation counts (`nft_genmask_cur`). So what
//! stays is left alone, and only elements come and go; and a table that is as it should be is recognized by what it says
//! of itself. An exchange of elements costs what is exchanged, however many there are.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use sha2::{Digest, Sha256};

use super::{Batch, Element, Expr, Family, Hook, Set, Type, Value};
use crate::HostError;
use crate::netlink::Socket;
use crate::netlink::attribute::{all, find, push_text};

/// The set whose one element is the digest of its table.
const MADE_OF: &str = "made-of";
/// NFNL_SUBSYS_NFTABLES with NFT_MSG_GETSETELEM.
const GET_ELEMENTS: u16 = 10 << 8 | 13;

/// A table: its chains, its rules, its sets and what is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    family: Family,
    name: String,
    chains: Vec<(String, Option<Hook>)>,
    rules: Vec<(String, Vec<Expr>, Option<String>)>,
    sets: Vec<(Set, Elements)>,
}

/// What is in a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Elements {
    there: HashSet<Element>,
    /// Of the sums of all of them.
    sum: u64,
}

/// Elements of a set that go, and others that come.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The set.
    pub set: Set,
    /// These go. They are there.
    pub gone: Vec<Element>,
    /// These come.
    pub come: Vec<Element>,
}

impl Table {
    /// One with nothing in it.
    pub fn new(family: Family, name: &str) -> Table {
        Table { family, name: name.to_owned(), chains: Vec::new(), rules: Vec::new(), sets: Vec::new() }
    }

    /// Adds a chain that rules and elements send packets to.
    pub fn chain(&mut self, name: &str) {
        self.chains.push((name.to_owned(), None));
    }

    /// Adds a chain that sees packets at a hook.
    pub fn base_chain(&mut self, name: &str, hook: Hook) {
        self.chains.push((name.to_owned(), Some(hook)));
    }

    /// Adds a set or a map with what is in it; no key twice.
    pub fn set(&mut self, set: &Set, elements: Vec<Element>) {
        let mut all = Elements::default();
        elements.into_iter().for_each(|element| all.add(element));
        self.sets.push((set.clone(), all));
    }

    /// Exchanges elements in this value, and gives what does so in the kernel where it stands.
    pub fn exchange(&mut self, exchanges: Vec<Exchange>) -> Batch {
        let mut batch = Batch::new(self.family, &self.name);
        let before = self.digest();
        for Exchange { set, gone, come } in exchanges {
            batch.delete_elements(&set, &gone);
            batch.add_elements(&set, &come);
            let Some((_, elements)) = self.sets.iter_mut().find(|(other, _)| *other == set) else { continue };
            gone.iter().for_each(|element| elements.remove(element));
            come.into_iter().for_each(|element| elements.add(element));
        }
        batch.delete_elements(&made_of(), &[before]);
        batch.add_elements(&made_of(), &[self.digest()]);
        batch
    }

    /// Adds a rule at the end of a chain.
    pub fn rule(&mut self, chain: &str, rule: &[Expr], comment: Option<&str>) {
        self.rules.push((chain.to_owned(), rule.to_vec(), comment.map(str::to_owned)));
    }

    /// The table made anew, whatever is there.
    pub fn whole(&self) -> Batch {
        let mut batch = Batch::new(self.family, &self.name);
        batch.delete_table_if_there();
        batch.append(self.first());
        batch
    }

    /// The table where none of its name is, as in a namespace that is new. Nothing is removed, so nothing has to wait
    /// until the last packet has left what was (nft_rcv_nl_event in net/netfilter/nf_tables_api.c).
    pub fn first(&self) -> Batch {
        let mut batch = Batch::new(self.family, &self.name);
        batch.add_table();
        for (name, hook) in &self.chains {
            match hook {
                Some(hook) => batch.add_base_chain(name, hook),
                None => batch.add_chain(name),
            }
        }
        for (set, elements) in &self.sets {
            batch.add_set(set);
            batch.add_elements(set, &elements.there.iter().cloned().collect::<Vec<_>>());
        }
        batch.add_set(&made_of());
        batch.add_elements(&made_of(), &[self.digest()]);
        for (chain, rule, comment) in &self.rules {
            batch.add_rule(chain, rule, comment.as_deref());
        }
        batch
    }

    /// What leads here from a table that stands as `before`; whole, where more than elements differs.
    pub fn from(&self, before: &Table) -> Batch {
        let same_sets = || {
            let names = |table: &Table| table.sets.iter().map(|(set, _)| set.clone()).collect::<Vec<_>>();
            names(self) == names(before)
        };
        if self.name != before.name
            || self.family != before.family
            || self.chains != before.chains
            || self.rules != before.rules
            || !same_sets()
        {
            return self.whole();
        }
        let mut batch = Batch::new(self.family, &self.name);
        if self == before {
            return batch;
        }
        for ((set, now), (_, then)) in self.sets.iter().zip(&before.sets) {
            batch.delete_elements(set, &then.without(now));
            batch.add_elements(set, &now.without(then));
        }
        batch.delete_elements(&made_of(), &[before.digest()]);
        batch.add_elements(&made_of(), &[self.digest()]);
        batch
    }

    /// Does such a table stand in the socket's network namespace, as far as it says of itself? What somebody did to its
    /// rules since is not seen.
    pub fn stands(&self, socket: &mut Socket) -> bool {
        let wanted = Value::Bytes(self.sum()).bytes();
        keys(self.family, &self.name, MADE_OF, socket).is_ok_and(|keys| keys.contains(&wanted))
    }

    fn digest(&self) -> Element {
        Element::new(&[Value::Bytes(self.sum())])
    }

    /// Of everything in it, in the words of this version of the program: another one makes its tables anew.
    fn sum(&self) -> Vec<u8> {
        let sets: Vec<(&Set, u64)> = self.sets.iter().map(|(set, elements)| (set, elements.sum)).collect();
        let rest = (self.family, &self.name, &self.chains, &self.rules, sets);
        let text = format!("{} {rest:?}", env!("CARGO_PKG_VERSION"));
        Sha256::digest(text.as_bytes())[..8].to_vec()
    }
}

/// The keys of a set's elements, as the kernel has them: what packets have put there, see [`Set::remembering`].
pub fn keys(family: Family, table: &str, set: &str, socket: &mut Socket) -> Result<Vec<Vec<u8>>, HostError> {
    let request = |body: &mut Vec<u8>| {
        body.extend([family.number(), 0, 0, 0]);
        push_text(body, 1, table);
        push_text(body, 2, set);
    };
    let mut keys = Vec::new();
    socket.dump(GET_ELEMENTS, "list the elements of a set", request, |_, body| {
        let list = body.get(4..).and_then(|attributes| find(attributes, 3)).unwrap_or_default();
        let elements = all(list).filter_map(|(_, element)| find(find(element, 1)?, 1));
        keys.extend(elements.map(<[u8]>::to_vec));
    })?;
    Ok(keys)
}

fn made_of() -> Set {
    Set::new(MADE_OF, &[Type::Integer(8)])
}

impl Elements {
    fn add(&mut self, element: Element) {
        let sum = sum_of(&element);
        if self.there.insert(element) {
            self.sum = self.sum.wrapping_add(sum);
        }
    }

    fn remove(&mut self, element: &Element) {
        if self.there.remove(element) {
            self.sum = self.sum.wrapping_sub(sum_of(element));
        }
    }

    fn without(&self, others: &Elements) -> Vec<Element> {
        self.there.difference(&others.there).cloned().collect()
    }
}

/// The same in every run of one build: DefaultHasher has no seed.
fn sum_of(element: &Element) -> u64 {
    let mut hasher = DefaultHasher::new();
    element.hash(&mut hasher);
    hasher.finish()
}
