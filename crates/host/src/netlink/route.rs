//! Routes of our protocol (ip-route(8), rtnetlink(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_bindings::rt_route::{IterableRouteAttrs, OpDelrouteDo, OpNewrouteDo, PushRouteAttrs, Rtmsg};

use super::Message;
use super::detour::{self, Detour, Programs};
use crate::{Family, PROTOCOL};

const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_HOST: u8 = 254;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTNH_F_ONLINK: u32 = 4;
/// Made by the kernel itself (linux/rtnetlink.h).
pub(crate) const RTPROT_KERNEL: u8 = 2;

/// What a route does (`rtm_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the kernel's own words, RTN_*")]
pub enum RouteKind {
    Unicast,
    Local,
    Broadcast,
    Multicast,
    Blackhole,
    Unreachable,
    Prohibit,
}

/// What makes a route one of its kind in its table: a second one with the same key replaces the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// The table's id.
    pub table: u32,
    /// Where it leads; host bits are zero.
    pub prefix: IpNet,
    /// `RTA_PRIORITY`; lower wins.
    pub metric: u32,
}

/// One route of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Its table.
    pub table: u32,
    /// Where it leads; host bits are zero.
    pub prefix: IpNet,
    /// `RTA_PRIORITY`; lower wins.
    pub metric: u32,
    /// What it does.
    pub kind: RouteKind,
    /// The device, by index.
    pub device: Option<u32>,
    /// The gateway.
    pub via: Option<IpAddr>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// Is the gateway on the link whatever the addresses say (RTNH_F_ONLINK)?
    pub on_link: bool,
    /// The path's MTU.
    pub mtu: Option<u32>,
    /// The programs that its packets go through.
    pub detour: Option<Detour>,
}

impl Route {
    /// The table that packets without a mark end up in (RT_TABLE_MAIN).
    pub const MAIN: u32 = 254;

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.prefix.addr())
    }

    /// What the kernel tells routes apart by.
    pub fn key(&self) -> RouteKey {
        RouteKey { table: self.table, prefix: self.prefix, metric: self.metric }
    }

    /// The request that adds it, or puts it in the place of the one with the same key; `programs` are those of its detour.
    pub(crate) fn set(&self, programs: Option<&Programs>) -> Message {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        Message::new(libc::RTM_NEWROUTE, flags, format!("set route {}", self.show()), |body| {
            self.encode(OpNewrouteDo::encode_request(body, &self.header()), programs);
        })
    }

    /// The request that removes it.
    pub(crate) fn delete(&self) -> Message {
        let mut header = self.header();
        header.rtm_scope = RT_SCOPE_NOWHERE;
        Message::new(libc::RTM_DELROUTE, 0, format!("delete route {}", self.show()), |body| {
            let route = Route { detour: None, ..self.clone() };
            route.encode(OpDelrouteDo::encode_request(body, &header), None);
        })
    }

    /// Reads a route from a listing or a notification; `None` if it is not ours.
    pub(crate) fn decode(body: &[u8]) -> Option<Route> {
        let ours = OpNewrouteDo::decode_request(body).0.rtm_protocol == PROTOCOL;
        Route::decode_any(body).filter(|_| ours)
    }

    /// Reads somebody else's route; `None` if it is ours.
    pub(crate) fn decode_others(body: &[u8]) -> Option<Route> {
        let ours = OpNewrouteDo::decode_request(body).0.rtm_protocol == PROTOCOL;
        Route::decode_any(body).filter(|_| !ours)
    }

    /// Reads the kernel's own route to an IPv6 address of this host: its device and the address.
    pub(crate) fn decode_local(body: &[u8]) -> Option<(u32, Ipv6Addr)> {
        let header = OpNewrouteDo::decode_request(body).0;
        let is_one = (header.rtm_type, header.rtm_protocol) == (libc::RTN_LOCAL, RTPROT_KERNEL);
        let route = is_one.then(|| Route::decode_any(body)).flatten()?;
        match route.prefix {
            IpNet::V6(prefix) if prefix.prefix_len() == 128 => Some((route.device?, prefix.addr())),
            _ => None,
        }
    }

    /// Reads anybody's route.
    pub(crate) fn decode_any(body: &[u8]) -> Option<Route> {
        let (header, attributes): (Rtmsg, IterableRouteAttrs<'_>) = OpNewrouteDo::decode_request(body);
        let any = match Family::from_af(header.rtm_family)? {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let destination = attributes.get_dst().unwrap_or(any);
        let kind = match header.rtm_type {
            libc::RTN_UNICAST => RouteKind::Unicast,
            libc::RTN_LOCAL => RouteKind::Local,
            libc::RTN_BROADCAST => RouteKind::Broadcast,
            libc::RTN_MULTICAST => RouteKind::Multicast,
            libc::RTN_BLACKHOLE => RouteKind::Blackhole,
            libc::RTN_UNREACHABLE => RouteKind::Unreachable,
            libc::RTN_PROHIBIT => RouteKind::Prohibit,
            _ => return None,
        };
        // IPv6 hangs unreachable and blackhole routes on the loopback device; we never name one there.
        let names_device =
            !matches!(kind, RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit);
        Some(Route {
            table: attributes.get_table().unwrap_or(u32::from(header.rtm_table)),
            prefix: IpNet::new(destination, header.rtm_dst_len).ok()?,
            metric: attributes.get_priority().unwrap_or(0),
            kind,
            device: attributes.get_oif().ok().filter(|_| names_device),
            via: attributes.get_gateway().ok(),
            source: attributes.get_prefsrc().ok(),
            on_link: header.rtm_flags & RTNH_F_ONLINK != 0,
            mtu: attributes.get_metrics().ok().and_then(|m| m.get_mtu().ok()),
            detour: attributes.get_encap().ok().and_then(Detour::decode),
        })
    }

    /// As `ip route` would take it, for people.
    pub fn show(&self) -> String {
        use std::fmt::Write;
        let mut text = match self.kind {
            RouteKind::Unicast => String::new(),
            kind => format!("{} ", format!("{kind:?}").to_lowercase()),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "{}", self.prefix);
        if let Some(via) = self.via {
            let _ = write!(text, " via {via}");
        }
        if let Some(device) = self.device {
            let _ = write!(text, " dev #{device}");
        }
        if let Some(source) = self.source {
            let _ = write!(text, " src {source}");
        }
        if let Some(detour) = self.detour {
            let _ = write!(text, " encap bpf xmit {detour}");
        }
        let _ = write!(text, " metric {} table {}", self.metric, self.table);
        text
    }

    fn header(&self) -> Rtmsg {
        let mut header = Rtmsg::new();
        header.rtm_family = self.family().af();
        header.rtm_dst_len = self.prefix.prefix_len();
        header.rtm_protocol = PROTOCOL;
        header.rtm_type = match self.kind {
            RouteKind::Unicast => libc::RTN_UNICAST,
            RouteKind::Local => libc::RTN_LOCAL,
            RouteKind::Broadcast => libc::RTN_BROADCAST,
            RouteKind::Multicast => libc::RTN_MULTICAST,
            RouteKind::Blackhole => libc::RTN_BLACKHOLE,
            RouteKind::Unreachable => libc::RTN_UNREACHABLE,
            RouteKind::Prohibit => libc::RTN_PROHIBIT,
        };
        header.rtm_scope = match self.kind {
            RouteKind::Local => RT_SCOPE_HOST,
            RouteKind::Broadcast => RT_SCOPE_LINK,
            RouteKind::Unicast if self.via.is_none() => RT_SCOPE_LINK,
            _ => RT_SCOPE_UNIVERSE,
        };
        header.rtm_flags = if self.on_link { RTNH_F_ONLINK } else { 0 };
        header
    }

    fn encode(&self, attributes: PushRouteAttrs<&mut Vec<u8>>, programs: Option<&Programs>) {
        let mut attributes = attributes.push_table(self.table);
        if self.prefix.prefix_len() > 0 {
            attributes = attributes.push_dst(self.prefix.addr());
        }
        if self.metric != 0 {
            attributes = attributes.push_priority(self.metric);
        }
        if let Some(device) = self.device {
            attributes = attributes.push_oif(device);
        }
        if let Some(via) = self.via {
            attributes = attributes.push_gateway(via);
        }
        if let Some(source) = self.source {
            attributes = attributes.push_prefsrc(source);
        }
        if let Some(mtu) = self.mtu {
            attributes = attributes.nested_metrics().push_mtu(mtu).end_nested();
        }
        if let Some(detour) = self.detour {
            let encap = detour.encode(self.family(), programs);
            attributes = attributes.push_encap_type(detour::TYPE).push_encap(&encap);
        }
        drop(attributes);
    }
}
