//! Expressions of rules (nft_*.c in net/netfilter): what nft(8) calls statements and matches. A rule is a list of them; a
//! match that fails ends it for this packet.

use super::encode::{VERDICT_REGISTER, expression, number, register, value, verdict};
use super::field::{CT_MARK, CT_ZONE, META_MARK, load_all, look_up, store_ct, store_meta};
use super::{Field, Translation, Value, Verdict};
use crate::netlink::attribute::{push, push_text};

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// They are the same.
    Equal,
    /// They are not.
    Different,
}

/// Which direction of a connection a zone is for. A connection whose two directions are in different zones is found by
/// each direction's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The one that opened it.
    Original,
    /// The other one.
    Reply,
    /// Both.
    Both,
}

/// To what the largest segment of a TCP connection is lowered; it is never raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clamp {
    /// What the route takes. In the hooks forward, output and postrouting only.
    RouteMtu,
    /// So many bytes.
    Size(u16),
}

/// What a refused sender hears. But for `Reset`, in the families inet, bridge and netdev only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each says itself")]
pub enum Reject {
    /// A TCP reset; the rule looks for TCP before.
    Reset,
    NoRoute,
    PortUnreachable,
    HostUnreachable,
    AdminProhibited,
}

/// One expression, or several that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expr {
    /// All of these, in order.
    All(Vec<Expr>),
    /// Goes on if a field, with only the bits of a mask if there is one, compares so.
    Compare {
        /// What is looked at.
        field: Field,
        /// The bits that count, as long as the field.
        mask: Option<Value>,
        /// How.
        comparison: Comparison,
        /// With what, already masked.
        value: Value,
    },
    /// Goes on if a field lies between two values, both included, or if it does not; of types in network byte order.
    Range {
        /// What is looked at.
        field: Field,
        /// The first.
        from: Value,
        /// The last.
        to: Value,
        /// Shall it lie inside?
        inside: bool,
    },
    /// Goes on if the fields, one behind the other, are in a set, or if they are not.
    Lookup {
        /// The fields of its key.
        fields: Vec<Field>,
        /// Its name.
        set: String,
        /// Shall they be in it?
        inside: bool,
    },
    /// `add @SET { FIELD }`: notes the field in a set that remembers ([`super::Set::remembering`]).
    Remember {
        /// What is noted.
        field: Field,
        /// The set's name.
        set: String,
    },
    /// Ends the rule so.
    Verdict(Verdict),
    /// Ends the rule as a map says; a packet that it does not know goes on behind this rule.
    VerdictMap {
        /// The fields of its key.
        fields: Vec<Field>,
        /// Its name.
        map: String,
    },
    /// `meta mark set mark and ~mask or value`: writes these bits of the packet's mark and no others.
    SetMark {
        /// What they shall be.
        value: u32,
        /// Which ones.
        mask: u32,
    },
    /// Sets the whole mark of the packet to what a map says. A masked form, with bits of two registers put together,
    /// needs Linux 6.13.
    SetMarkFromMap {
        /// The fields of its key.
        fields: Vec<Field>,
        /// Its name.
        map: String,
    },
    /// As [`Expr::SetMark`], of the connection's mark.
    SetCtMark {
        /// What the bits shall be.
        value: u32,
        /// Which ones.
        mask: u32,
    },
    /// Sets the connection's mark to these bits of the packet's, and its others to 0.
    SaveMark {
        /// Which bits.
        mask: u32,
    },
    /// Sets the packet's mark to these bits of the connection's, and its others to 0.
    RestoreMark {
        /// Which bits.
        mask: u32,
    },
    /// Puts the connection that this packet may open into a zone; before connection tracking sees it (priority below
    /// -200, as -300 in prerouting and output).
    SetZone {
        /// Of which direction.
        direction: Direction,
        /// The zone.
        zone: u16,
    },
    /// The same, into the zone that a map says.
    SetZoneFromMap {
        /// Of which direction.
        direction: Direction,
        /// The fields of the map's key.
        fields: Vec<Field>,
        /// Its name.
        map: String,
    },
    /// Translates the source; in chains of [`super::ChainKind::Nat`] at postrouting or input.
    Snat(Translation),
    /// Translates the destination; in chains of [`super::ChainKind::Nat`] at prerouting or output.
    Dnat(Translation),
    /// Translates the source to an address of the device that the packet leaves by.
    Masquerade,
    /// Counts packets and bytes.
    Counter,
    /// Goes on for so many packets a second; the others end the rule.
    Limit {
        /// How many, on the long run.
        per_second: u64,
        /// How many more at once.
        burst: u32,
    },
    /// Keeps the packet from connection tracking; before that sees it.
    Notrack,
    /// Lowers the largest segment that a TCP packet with this option names; see [`super::idiom::clamp_mss`].
    ClampMss(Clamp),
    /// Drops the packet and says so to its sender.
    Reject(Reject),
}

impl Expr {
    /// Adds it to NFTA_RULE_EXPRESSIONS.
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Expr::All(all) => all.iter().for_each(|expr| expr.encode(into)),
            Expr::Compare { field, mask, comparison, value } => {
                field.load(into, register(0));
                if let Some(mask) = mask {
                    let mask = mask.bytes();
                    bitwise(&mask, &vec![0; mask.len()], into);
                }
                compare(*comparison, &value.bytes(), into);
            }
            Expr::Range { field, from, to, inside } => {
                field.load(into, register(0));
                expression(into, "range", |range| {
                    number(range, 1, register(0));
                    number(range, 2, u32::from(!inside));
                    value(range, 3, &from.bytes());
                    value(range, 4, &to.bytes());
                });
            }
            Expr::Lookup { fields, set, inside } => {
                load_all(fields, into);
                expression(into, "lookup", |lookup| {
                    push_text(lookup, 1, set);
                    number(lookup, 2, register(0));
                    number(lookup, 5, u32::from(!inside));
                });
            }
            Expr::Remember { field, set } => {
                field.load(into, register(0));
                // NFT_DYNSET_OP_ADD.
                expression(into, "dynset", |dynset| {
                    push_text(dynset, 1, set);
                    number(dynset, 3, 0);
                    number(dynset, 4, register(0));
                });
            }
            Expr::Verdict(to) => expression(into, "immediate", |immediate| {
                number(immediate, 1, VERDICT_REGISTER);
                verdict(immediate, 2, to);
            }),
            Expr::VerdictMap { fields, map } => look_up(fields, map, VERDICT_REGISTER, into),
            Expr::Snat(to) => to.encode(0, into),
            Expr::Dnat(to) => to.encode(1, into),
            Expr::Masquerade => expression(into, "masq", |_| ()),
            Expr::Counter => expression(into, "counter", |_| ()),
            Expr::Limit { per_second, burst } => expression(into, "limit", |limit| {
                push(limit, 1, &per_second.to_be_bytes());
                push(limit, 2, &1_u64.to_be_bytes());
                number(limit, 3, *burst);
            }),
            Expr::Notrack => expression(into, "notrack", |_| ()),
            Expr::ClampMss(clamp) => clamp.encode(into),
            Expr::Reject(reject) => reject.encode(into),
            marks => marks.encode_marks(into),
        }
    }

    /// Those that write to a packet's or a connection's mark or zone.
    fn encode_marks(&self, into: &mut Vec<u8>) {
        match self {
            Expr::SetMark { value, mask } => {
                masked(Field::Mark, *value, *mask, into);
                store_meta(META_MARK, into);
            }
            Expr::SetCtMark { value, mask } => {
                masked(Field::CtMark, *value, *mask, into);
                store_ct(CT_MARK, None, into);
            }
            Expr::SetMarkFromMap { fields, map } => {
                look_up(fields, map, register(0), into);
                store_meta(META_MARK, into);
            }
            Expr::SaveMark { mask } => {
                bits_of(Field::Mark, *mask, into);
                store_ct(CT_MARK, None, into);
            }
            Expr::RestoreMark { mask } => {
                bits_of(Field::CtMark, *mask, into);
                store_meta(META_MARK, into);
            }
            Expr::SetZone { direction, zone } => {
                load_constant(&zone.to_ne_bytes(), into);
                store_ct(CT_ZONE, direction.number(), into);
            }
            Expr::SetZoneFromMap { direction, fields, map } => {
                look_up(fields, map, register(0), into);
                store_ct(CT_ZONE, direction.number(), into);
            }
            _ => {}
        }
    }
}

impl Direction {
    /// IP_CT_DIR_ORIGINAL or IP_CT_DIR_REPLY.
    fn number(self) -> Option<u8> {
        match self {
            Direction::Original => Some(0),
            Direction::Reply => Some(1),
            Direction::Both => None,
        }
    }
}

impl Clamp {
    fn encode(self, into: &mut Vec<u8>) {
        match self {
            Clamp::Size(bytes) => load_constant(&bytes.to_be_bytes(), into),
            Clamp::RouteMtu => {
                // NFT_RT_TCPMSS, which comes in the host's byte order.
                expression(into, "rt", |rt| {
                    number(rt, 1, register(0));
                    number(rt, 2, 3);
                });
                // NFT_BYTEORDER_HTON of one number of two bytes.
                expression(into, "byteorder", |order| {
                    for (kind, value) in [(1, register(0)), (2, register(0)), (3, 1), (4, 2), (5, 2)] {
                        number(order, kind, value);
                    }
                });
            }
        }
        // NFT_EXTHDR_OP_TCPOPT of TCPOPT_MAXSEG: two bytes behind its kind and length.
        expression(into, "exthdr", |option| {
            push(option, 2, &[2]);
            for (kind, value) in [(3, 2), (4, 2), (6, 1), (7, register(0))] {
                number(option, kind, value);
            }
        });
    }
}

impl Reject {
    fn encode(self, into: &mut Vec<u8>) {
        // NFT_REJECT_TCP_RST, or NFT_REJECT_ICMPX_UNREACH with its code.
        let (kind, code) = match self {
            Reject::Reset => (1, None),
            Reject::NoRoute => (2, Some(0)),
            Reject::PortUnreachable => (2, Some(1)),
            Reject::HostUnreachable => (2, Some(2)),
            Reject::AdminProhibited => (2, Some(3)),
        };
        expression(into, "reject", |reject| {
            number(reject, 1, kind);
            if let Some(code) = code {
                push(reject, 2, &[code]);
            }
        });
    }
}

/// Adds `register = register & mask ^ xor`.
fn bitwise(mask: &[u8], xor: &[u8], into: &mut Vec<u8>) {
    expression(into, "bitwise", |bitwise| {
        number(bitwise, 1, register(0));
        number(bitwise, 2, register(0));
        number(bitwise, 3, mask.len() as u32);
        value(bitwise, 4, mask);
        value(bitwise, 5, xor);
    });
}

/// NFT_CMP_EQ or NFT_CMP_NEQ.
fn compare(comparison: Comparison, with: &[u8], into: &mut Vec<u8>) {
    expression(into, "cmp", |cmp| {
        number(cmp, 1, register(0));
        number(cmp, 2, u32::from(comparison == Comparison::Different));
        value(cmp, 3, with);
    });
}

fn load_constant(bytes: &[u8], into: &mut Vec<u8>) {
    expression(into, "immediate", |immediate| {
        number(immediate, 1, register(0));
        value(immediate, 2, bytes);
    });
}

/// Adds what loads a mark with some of its bits written.
fn masked(field: Field, value: u32, mask: u32, into: &mut Vec<u8>) {
    if mask == u32::MAX {
        return load_constant(&value.to_ne_bytes(), into);
    }
    field.load(into, register(0));
    bitwise(&(!mask).to_ne_bytes(), &(value & mask).to_ne_bytes(), into);
}

/// Adds what loads some bits of a mark.
fn bits_of(field: Field, mask: u32, into: &mut Vec<u8>) {
    field.load(into, register(0));
    if mask != u32::MAX {
        bitwise(&mask.to_ne_bytes(), &[0; 4], into);
    }
}
