//! Policy routing rules (ip-rule(8), net/core/fib_rules.c), of our protocol only.

use ipnet::Ipv4Net;
use netlink_bindings::rt_rule::{
    FibRuleHdr, IterableFibRuleAttrs, OpDelruleDo, OpNewruleDo, PushFibRuleAttrs,
};

use super::Message;
use super::attribute::{find, push};
use super::route::RTPROT_KERNEL;
use crate::{Family, PROTOCOL};

const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_GOTO: u8 = 2;
const FR_ACT_UNREACHABLE: u8 = 7;
const FIB_RULE_INVERT: u32 = 2;
/// linux/fib_rules.h.
const FRA_SRC: u16 = 2;
const FRA_L3MDEV: u16 = 19;

/// One rule of ours: `[not] [from SOURCE] [fwmark MARK/MASK] ACTION` at a preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// Where in the list; lower comes first, equal ones in the order they were added.
    pub preference: u32,
    /// The mark to compare with, after masking.
    pub mark: u32,
    /// The bits that count; 0 matches everything.
    pub mask: u32,
    /// Where packets come from; `None` matches everything.
    pub source: Option<Ipv4Net>,
    /// Matches when the mark or the source does NOT compare.
    pub invert: bool,
    /// What follows.
    pub action: RuleAction,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleAction {
    /// Goes on at the first rule with this preference.
    Goto(u32),
    /// Looks into this table, and goes on if that has no answer.
    Lookup(u32),
    /// Ends with ENETUNREACH.
    Unreachable,
    /// Looks into the table of the VRF that the packet comes from or goes to, and goes on if there is none.
    Vrf,
}

impl Rule {
    /// Where the kernel puts its rule for VRFs (FIB_RULE_PREF of drivers/net/vrf.c).
    pub const VRF_PREFERENCE: u32 = 1000;

    /// A rule for every packet.
    pub const fn everything(preference: u32, action: RuleAction) -> Rule {
        Rule { preference, mark: 0, mask: 0, source: None, invert: false, action }
    }

    /// The request that adds it. Adding twice makes two: fib_rules has no notion of replacing.
    pub(crate) fn add(&self, family: Family) -> Message {
        Message::new(
            libc::RTM_NEWRULE,
            libc::NLM_F_CREATE,
            format!("add rule {}", self.show(family)),
            |body| {
                self.encode(OpNewruleDo::encode_request(body, &self.header(family)));
                self.finish(body);
            },
        )
    }

    /// The request that removes the first rule with this preference, selector and action.
    /// The kernel does not compare goto targets.
    pub(crate) fn delete(&self, family: Family) -> Message {
        Message::new(libc::RTM_DELRULE, 0, format!("delete rule {}", self.show(family)), |body| {
            self.encode(OpDelruleDo::encode_request(body, &self.header(family)));
            self.finish(body);
        })
    }

    /// Reads a rule from a listing or a notification; `None` if it is not ours or not of our kind.
    pub(crate) fn decode(body: &[u8]) -> Option<(Family, Rule)> {
        let (header, attributes): (FibRuleHdr, IterableFibRuleAttrs<'_>) = OpNewruleDo::decode_request(body);
        let family = Family::from_af(header.family)?;
        if attributes.get_protocol().ok()? != PROTOCOL {
            return None;
        }
        let action = match header.action {
            FR_ACT_TO_TBL if asks_vrf(body) => RuleAction::Vrf,
            FR_ACT_TO_TBL => RuleAction::Lookup(attributes.get_table().unwrap_or(u32::from(header.table))),
            FR_ACT_GOTO => RuleAction::Goto(attributes.get_goto().ok()?),
            FR_ACT_UNREACHABLE => RuleAction::Unreachable,
            _ => return None,
        };
        let rule = Rule {
            preference: attributes.get_priority().unwrap_or(0),
            mark: attributes.get_fwmark().unwrap_or(0),
            mask: attributes.get_fwmask().unwrap_or(0),
            source: source(header.src_len, body),
            invert: header.flags & FIB_RULE_INVERT != 0,
            action,
        };
        Some((family, rule))
    }

    /// Is this the kernel's own first rule, `0: from all lookup local`?
    pub(crate) fn is_local_first(body: &[u8]) -> bool {
        let (header, attributes) = OpNewruleDo::decode_request(body);
        let table = attributes.get_table().unwrap_or(u32::from(header.table));
        attributes.get_priority().unwrap_or(0) == 0 && table == u32::from(libc::RT_TABLE_LOCAL)
    }

    /// Is this the rule that looks into the table of a packet's VRF, and that the kernel makes with the first VRF of a
    /// namespace (vrf_add_fib_rules)?
    pub(crate) fn is_kernels_vrf(body: &[u8]) -> bool {
        let (header, attributes) = OpNewruleDo::decode_request(body);
        header.action == FR_ACT_TO_TBL
            && attributes.get_protocol().ok() == Some(RTPROT_KERNEL)
            && attributes.get_priority().ok() == Some(Rule::VRF_PREFERENCE)
            && asks_vrf(body)
    }

    /// As `ip rule` would take it, for people.
    pub fn show(&self, family: Family) -> String {
        let not = if self.invert { "not " } else { "" };
        let selector = match (self.source, self.mask) {
            (None, 0) => "from all".to_owned(),
            (None, mask) => format!("{not}fwmark {:#x}/{mask:#x}", self.mark),
            (Some(source), 0) => format!("{not}from {source}"),
            (Some(source), mask) => format!("{not}from {source} fwmark {:#x}/{mask:#x}", self.mark),
        };
        let action = match self.action {
            RuleAction::Goto(target) => format!("goto {target}"),
            RuleAction::Lookup(table) => format!("lookup {table}"),
            RuleAction::Unreachable => "unreachable".to_owned(),
            RuleAction::Vrf => "lookup [l3mdev-table]".to_owned(),
        };
        format!("{family} {}: {selector} {action}", self.preference)
    }

    fn header(&self, family: Family) -> FibRuleHdr {
        let mut header = FibRuleHdr::new();
        header.family = family.af();
        header.flags = if self.invert { FIB_RULE_INVERT } else { 0 };
        header.src_len = self.source.map_or(0, |source| source.prefix_len());
        header.action = match self.action {
            RuleAction::Goto(_) => FR_ACT_GOTO,
            RuleAction::Lookup(_) | RuleAction::Vrf => FR_ACT_TO_TBL,
            RuleAction::Unreachable => FR_ACT_UNREACHABLE,
        };
        header
    }

    fn encode(&self, attributes: PushFibRuleAttrs<&mut Vec<u8>>) {
        let mut attributes = attributes.push_priority(self.preference).push_protocol(PROTOCOL);
        if self.mask != 0 {
            attributes = attributes.push_fwmark(self.mark).push_fwmask(self.mask);
        }
        match self.action {
            RuleAction::Goto(target) => drop(attributes.push_goto(target)),
            RuleAction::Lookup(table) => drop(attributes.push_table(table)),
            RuleAction::Unreachable | RuleAction::Vrf => {}
        }
    }

    /// What the bindings have no word for, or another type.
    fn finish(&self, body: &mut Vec<u8>) {
        if let Some(source) = self.source {
            body.resize(body.len().next_multiple_of(4), 0);
            push(body, FRA_SRC, &source.network().octets());
        }
        if self.action == RuleAction::Vrf {
            push_l3mdev(body);
        }
    }
}

/// Behind attributes of the bindings, which leave the last one without its padding.
pub(crate) fn push_l3mdev(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
    push(body, FRA_L3MDEV, &[1]);
}

/// The source that an IPv4 rule asks for.
fn source(length: u8, body: &[u8]) -> Option<Ipv4Net> {
    let raw = body.get(FibRuleHdr::len()..).and_then(|raw| find(raw, FRA_SRC))?;
    Ipv4Net::new(<[u8; 4]>::try_from(raw).ok()?.into(), length).ok()
}

fn asks_vrf(body: &[u8]) -> bool {
    body.get(FibRuleHdr::len()..).and_then(|raw| find(raw, FRA_L3MDEV)) == Some(&[1])
}
