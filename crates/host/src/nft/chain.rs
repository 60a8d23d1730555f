//! Chains: where packets come from, and where a verdict sends them.

use super::encode::number;
use crate::netlink::attribute::{nest, push_text};

/// What a base chain is for (`type` of nft(8)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Everything that fits none of the others.
    Filter,
    /// Address translation; sees the first packet of a connection only.
    Nat,
    /// Packets of this host, which are routed again if it changed their mark or addresses.
    Route,
}

/// Where on a packet's way (`hook` of nft(8)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HookPoint {
    /// Before it is routed.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// Before it leaves.
    Postrouting,
    /// As soon as a device has it; needs [`Hook::on_device`]. In the families `inet` and `netdev` only.
    Ingress,
}

/// Where a base chain hangs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hook {
    kind: ChainKind,
    point: HookPoint,
    priority: i32,
    drops: bool,
    device: Option<String>,
}

impl Hook {
    /// At this point; chains of lower priority come first.
    pub fn new(kind: ChainKind, point: HookPoint, priority: i32) -> Hook {
        Hook { kind, point, priority, drops: false, device: None }
    }

    /// What no rule decides is dropped, not accepted (`policy drop`).
    pub fn dropping(mut self) -> Hook {
        self.drops = true;
        self
    }

    /// The device whose frames it sees.
    pub fn on_device(mut self, name: &str) -> Hook {
        self.device = Some(name.to_owned());
        self
    }

    /// NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY and NFTA_CHAIN_TYPE.
    pub(super) fn encode(&self, family: super::Family, into: &mut Vec<u8>) {
        nest(into, 4, |hook| {
            number(hook, 1, self.point.number(family));
            number(hook, 2, self.priority.cast_unsigned());
            if let Some(device) = &self.device {
                push_text(hook, 3, device);
            }
        });
        number(into, 5, if self.drops { 0 } else { 1 });
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        };
        push_text(into, 7, kind);
    }
}

impl HookPoint {
    /// NF_INET_*, NF_BR_* or NF_NETDEV_*.
    fn number(self, family: super::Family) -> u32 {
        match self {
            HookPoint::Prerouting => 0,
            HookPoint::Input => 1,
            HookPoint::Forward => 2,
            HookPoint::Output => 3,
            HookPoint::Postrouting => 4,
            HookPoint::Ingress if family == super::Family::Netdev => 0,
            HookPoint::Ingress => 5,
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on, past the rest of this base chain.
    Accept,
    /// It is gone.
    Drop,
    /// It goes on behind the rule that jumped here, or as the policy says.
    Return,
    /// It goes on in this chain, and comes back from its end.
    Jump(String),
    /// It goes on in this chain, and does not come back.
    Goto(String),
}

impl Verdict {
    /// NFTA_VERDICT_CODE (NF_DROP, NF_ACCEPT, NFT_JUMP, NFT_GOTO, NFT_RETURN) and the chain.
    pub(super) fn parts(&self) -> (u32, Option<&str>) {
        match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3_i32 as u32, Some(chain)),
            Verdict::Goto(chain) => (-4_i32 as u32, Some(chain)),
            Verdict::Return => (-5_i32 as u32, None),
        }
    }
}
