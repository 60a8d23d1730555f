//! What changes on the host, as it happens (rtnetlink(7) multicast groups).

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_bindings::rt_rule::OpNewruleDo;

use super::attribute::find;
use super::{Socket, messages_in};
use crate::{Address, Family, HostError, Link, Route, Rule};

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A device appeared or changed.
    Link(Link),
    /// A device is gone.
    LinkGone(u32),
    /// An address appeared or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route of ours appeared or changed.
    Route(Route),
    /// A route of ours is gone.
    RouteGone(Route),
    /// Somebody else's route in the main table appeared or changed; `true` where it took the place of another one with the
    /// same key.
    Main(Route, bool),
    /// Somebody else's route in the main table is gone.
    MainGone(Route),
    /// The kernel listens to an IPv6 address on a device: its own route of type `local`, whatever its table is.
    Local(u32, Ipv6Addr),
    /// It does so no longer.
    LocalGone(u32, Ipv6Addr),
    /// A rule of ours appeared.
    Rule(Family, Rule),
    /// A rule of ours is gone.
    RuleGone(Family, Rule),
    /// The `local` rule came to preference 0 (true) or went from there (false).
    LocalRule(Family, bool),
    /// The rule for VRFs that the kernel makes came (true) or went (false).
    VrfRule(Family, bool),
    /// Is rp_filter in force on a device now, by its own switch? The number is 0 for the switch of all devices.
    ReversePath(u32, bool),
}

/// A subscription to everything fief depends on.
pub struct Monitor {
    socket: Socket,
}

/// RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF
/// (linux/rtnetlink.h).
const GROUPS: [u32; 8] = [1, 5, 7, 8, 9, 11, 19, 24];
const RTM_NEWNETCONF: u16 = 80;
// NETCONFA_IFINDEX, NETCONFA_RP_FILTER and NETCONFA_IFINDEX_ALL (linux/netconf.h).
const IFINDEX: u16 = 1;
const RP_FILTER: u16 = 3;
const ALL_DEVICES: i32 = -1;

impl Monitor {
    /// Subscribes. Subscribe first, list second: then nothing falls between.
    pub fn open() -> Result<Monitor, HostError> {
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        // 16,384 tenants put back after a flap are some 10^5 messages of about 200 bytes, counted with overhead.
        socket.grow_receive_buffer(128 * 1024 * 1024);
        socket.bind()?;
        for group in GROUPS {
            socket.subscribe(group)?;
        }
        Ok(Monitor { socket })
    }

    /// Hands every waiting event to `each` without waiting for more.
    ///
    /// Errors: [`HostError::Overrun`] when events were lost; list again.
    pub fn drain(&mut self, mut each: impl FnMut(Event)) -> Result<(), HostError> {
        while let Some(length) = self.socket.try_receive()? {
            for (header, body) in messages_in(&self.socket.buffer[..length]) {
                if let Some(event) = event(header.kind, header.flags, body) {
                    each(event);
                }
                if let Some(event) = event_of_main(header.kind, header.flags, body) {
                    each(event);
                }
                if let Some(event) = event_of_local(header.kind, body) {
                    each(event);
                }
            }
        }
        Ok(())
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn event(kind: u16, flags: u16, body: &[u8]) -> Option<Event> {
    match kind {
        libc::RTM_NEWLINK => Link::decode(body).map(Event::Link),
        libc::RTM_DELLINK => Link::decode(body).map(|link| Event::LinkGone(link.index)),
        libc::RTM_NEWADDR => Address::decode(body).map(Event::Address),
        libc::RTM_DELADDR => Address::decode(body).map(Event::AddressGone),
        libc::RTM_NEWROUTE => match Route::decode(body) {
            Some(ours) => Some(Event::Route(ours)),
            // Somebody's route took the place of one with the same key, which may have been ours.
            None if flags & libc::NLM_F_REPLACE as u16 != 0 => Route::decode_any(body).map(Event::RouteGone),
            None => None,
        },
        libc::RTM_DELROUTE => Route::decode(body).map(Event::RouteGone),
        libc::RTM_NEWRULE => rule_event(body, Event::Rule, true),
        libc::RTM_DELRULE => rule_event(body, Event::RuleGone, false),
        RTM_NEWNETCONF => reverse_path(body),
        _ => None,
    }
}

/// `struct netconfmsg`, filled up, and NETCONFA_*. A new device's switches are told as well (devinet_sysctl_register).
fn reverse_path(body: &[u8]) -> Option<Event> {
    let attributes = body.get(4..)?;
    let number = |kind| Some(i32::from_ne_bytes(*find(attributes, kind)?.first_chunk()?));
    let value = number(RP_FILTER)?;
    let device = match number(IFINDEX)? {
        ALL_DEVICES => 0,
        // What new devices begin with.
        negative if negative < 0 => return None,
        device => device.cast_unsigned(),
    };
    Some(Event::ReversePath(device, value != 0))
}

/// The same message, where it is about a route in the main table that is not ours.
fn event_of_main(kind: u16, flags: u16, body: &[u8]) -> Option<Event> {
    let route = || Route::decode_others(body).filter(|route| route.table == Route::MAIN);
    match kind {
        libc::RTM_NEWROUTE => Some(Event::Main(route()?, flags & libc::NLM_F_REPLACE as u16 != 0)),
        libc::RTM_DELROUTE => route().map(Event::MainGone),
        _ => None,
    }
}

/// The same message, where it is about an IPv6 address that the kernel listens to.
fn event_of_local(kind: u16, body: &[u8]) -> Option<Event> {
    let event = match kind {
        libc::RTM_NEWROUTE => Event::Local,
        libc::RTM_DELROUTE => Event::LocalGone,
        _ => return None,
    };
    Route::decode_local(body).map(|(device, address)| event(device, address))
}

fn rule_event(body: &[u8], ours: impl Fn(Family, Rule) -> Event, came: bool) -> Option<Event> {
    if let Some((family, rule)) = Rule::decode(body) {
        return Some(ours(family, rule));
    }
    let family = Family::from_af(OpNewruleDo::decode_request(body).0.family)?;
    if Rule::is_kernels_vrf(body) {
        return Some(Event::VrfRule(family, came));
    }
    Rule::is_local_first(body).then_some(Event::LocalRule(family, came))
}
