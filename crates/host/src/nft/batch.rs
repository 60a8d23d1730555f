//! Messages about one table, collected for one transaction.

use super::encode::number;
use super::{Element, Expr, Family, Hook, Set, comment};
use crate::HostError;
use crate::netlink::attribute::{nest, push, push_text};
use crate::netlink::{Message, Socket};

/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u8 = 10;
/// Elements of one message, in bytes: an attribute's length has 16 bits, and headers come before them.
const ELEMENTS: usize = 32 * 1024;

// `enum nf_tables_msg_types`.
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;

/// Changes of one table, to happen all together or not at all. Chains and sets come before what names them.
#[must_use = "nothing happens before it is committed"]
pub struct Batch {
    family: Family,
    table: String,
    messages: Vec<Message>,
}

impl Batch {
    /// An empty one about this table.
    pub fn new(family: Family, table: &str) -> Batch {
        Batch { family, table: table.to_owned(), messages: Vec::new() }
    }

    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Makes the table; no error if it is there.
    pub fn add_table(&mut self) {
        self.push(NEW_TABLE, libc::NLM_F_CREATE, "add", "", |_| ());
    }

    /// Removes the table with everything in it; no error if it is not there.
    pub fn delete_table_if_there(&mut self) {
        // Made first, because a deletion that finds nothing fails the whole transaction.
        self.add_table();
        self.push(DELETE_TABLE, 0, "delete", "", |_| ());
    }

    /// Makes a chain that rules send packets to; no error if it is there.
    pub fn add_chain(&mut self, name: &str) {
        self.push(NEW_CHAIN, libc::NLM_F_CREATE, "add", &format!("chain {name}"), |body| {
            push_text(body, 3, name);
        });
    }

    /// Makes a chain that sees packets at a hook. If it is there its policy is set, and anything else must be the same.
    pub fn add_base_chain(&mut self, name: &str, hook: &Hook) {
        let family = self.family;
        self.push(NEW_CHAIN, libc::NLM_F_CREATE, "add", &format!("chain {name}"), |body| {
            push_text(body, 3, name);
            hook.encode(family, body);
        });
    }

    /// Removes every rule of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.push(DELETE_RULE, 0, "flush", &format!("chain {name}"), |body| push_text(body, 2, name));
    }

    /// Removes a chain, which no rule or element may name any more, with its rules.
    pub fn delete_chain(&mut self, name: &str) {
        self.flush_chain(name);
        self.push(DELETE_CHAIN, 0, "delete", &format!("chain {name}"), |body| push_text(body, 3, name));
    }

    /// Makes a set or a map; no error if the same one is there.
    pub fn add_set(&mut self, set: &Set) {
        self.push(NEW_SET, libc::NLM_F_CREATE, "add", &format!("set {}", set.name()), |body| {
            set.encode(body)
        });
    }

    /// Removes every element of a set.
    pub fn flush_set(&mut self, set: &Set) {
        let what = format!("set {}", set.name());
        self.push(DELETE_ELEMENTS, 0, "flush", &what, |body| push_text(body, 2, set.name()));
    }

    /// Removes a set, which no rule may name any more.
    pub fn delete_set(&mut self, set: &Set) {
        let what = format!("set {}", set.name());
        self.push(DELETE_SET, 0, "delete", &what, |body| push_text(body, 2, set.name()));
    }

    /// Adds elements. One that is there is no error if it leads to the same; else EEXIST: delete it first.
    pub fn add_elements(&mut self, set: &Set, elements: &[Element]) {
        self.elements(NEW_ELEMENTS, libc::NLM_F_CREATE, "add", set, elements);
    }

    /// Removes elements. Refused with ENOENT if one is not there.
    pub fn delete_elements(&mut self, set: &Set, elements: &[Element]) {
        self.elements(DELETE_ELEMENTS, 0, "delete", set, elements);
    }

    /// Adds a rule at the end of a chain. A comment is cut to nft's 127 bytes.
    pub fn add_rule(&mut self, chain: &str, rule: &[Expr], comment: Option<&str>) {
        let what = match comment {
            Some(comment) => format!("rule {comment:?} of chain {chain}"),
            None => format!("rule of chain {chain}"),
        };
        self.push(NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, "add", &what, |body| {
            push_text(body, 2, chain);
            nest(body, 4, |list| rule.iter().for_each(|expr| expr.encode(list)));
            if let Some(text) = comment {
                push(body, 7, &comment::of_rule(text));
            }
        });
    }

    /// Adds what is in another batch, which may be about another table, behind this one.
    pub fn append(&mut self, mut other: Batch) {
        self.messages.append(&mut other.messages);
    }

    /// Does all of it, or nothing, in the network namespace of a NETLINK_NETFILTER socket.
    ///
    /// Errors: the first refusal, in words as `add chain forward in table inet fief`.
    pub fn commit(self, socket: &mut Socket) -> Result<(), HostError> {
        socket.transact(SUBSYSTEM, self.messages)
    }

    fn elements(&mut self, kind: u16, flags: i32, verb: &str, set: &Set, elements: &[Element]) {
        let what = format!("elements of set {}", set.name());
        let mut waiting = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            element.encode(set, &mut waiting);
            if waiting.len() >= ELEMENTS || index + 1 == elements.len() {
                let list = std::mem::take(&mut waiting);
                self.push(kind, flags, verb, &what, |body| {
                    push_text(body, 2, set.name());
                    nest(body, 3, |elements| elements.extend(list));
                });
            }
        }
    }

    /// Adds a message about the table; `object` is what of it in words, or nothing for the table itself. Everything of
    /// it but the table's own attributes has the table's name as its first.
    fn push(&mut self, kind: u16, flags: i32, verb: &str, object: &str, encode: impl FnOnce(&mut Vec<u8>)) {
        let (family, table) = (self.family, &self.table);
        let table_text = format!("table {family} {table}");
        let what = match object {
            "" => format!("{verb} {table_text}"),
            object => format!("{verb} {object} in {table_text}"),
        };
        let kind = u16::from(SUBSYSTEM) << 8 | kind;
        self.messages.push(Message::new(kind, flags, what, |body| {
            // `struct nfgenmsg`: family, version, resource.
            body.extend([family.number(), 0, 0, 0]);
            push_text(body, 1, table);
            if kind == u16::from(SUBSYSTEM) << 8 {
                number(body, 2, 0);
            }
            encode(body);
        }));
    }
}
