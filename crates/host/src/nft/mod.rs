//! nf_tables (nft(8), linux/netfilter/nf_tables.h) in-process: tables, chains, sets, maps and rules, written in one
//! transaction of NETLINK_NETFILTER.
//!
//! A [`Table`] says how a table shall be; a [`Batch`] collects messages about one table; [`Batch::commit`] does all of them or none. Rules are lists of
//! [`Expr`]s, which [`idiom`] puts together as nft(8) would, and which `nft list ruleset` shows in its own words.
//!
//! ```no_run
//! # use fief_host::nft::{Batch, Element, Family, Hook, HookPoint, ChainKind, Set, Type, Value, Verdict, Field, idiom};
//! # fn example() -> Result<(), fief_host::HostError> {
//! let mut batch = Batch::new(Family::Inet, "example");
//! let known = Set::new("known", &[Type::Ifindex]);
//! batch.delete_table_if_there();
//! batch.add_table();
//! batch.add_set(&known);
//! batch.add_elements(&known, &[Element::new(&[Value::Ifindex(7)])]);
//! batch.add_base_chain("forward", &Hook::new(ChainKind::Filter, HookPoint::Forward, 0).dropping());
//! batch.add_rule("forward", &[idiom::in_set(&[Field::Iif], &known), idiom::accept()], Some("only these"));
//! batch.commit(&mut fief_host::netlink::Socket::open(libc::NETLINK_NETFILTER)?)
//! # }
//! ```
//!
//! Everything here is encoded by hand: the bindings' builders have a type for each level of nesting, and a rule is a list
//! of a dozen different ones.

mod batch;
mod chain;
mod comment;
mod element;
mod encode;
mod expr;
mod field;
pub mod idiom;
mod nat;
mod set;
mod table;
mod value;

pub use batch::Batch;
pub use chain::{ChainKind, Hook, HookPoint, Verdict};
pub use element::{Element, Key};
pub use expr::{Clamp, Comparison, Direction, Expr, Reject};
pub use field::Field;
pub use nat::Translation;
pub use set::Set;
pub use table::{Exchange, Table, keys};
pub use value::{Type, Value};

/// Which packets a table sees (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 and IPv6 together.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Frames of bridges.
    Bridge,
    /// Frames of one device, before anything else.
    Netdev,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Netdev => 5,
            Family::Bridge => 7,
            Family::Ip6 => 10,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Bridge => "bridge",
            Family::Netdev => "netdev",
        })
    }
}
