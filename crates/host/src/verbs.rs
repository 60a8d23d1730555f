//! The verbs: what fief asks of a host, as a trait with a real and an in-memory implementation.

use std::net::{IpAddr, Ipv6Addr};

use netlink_bindings::rt_addr::OpGetaddrDump;
use netlink_bindings::rt_link::OpGetlinkDump;
use netlink_bindings::rt_route::OpGetrouteDump;
use netlink_bindings::rt_rule::OpGetruleDump;

use crate::devices::{self, Build, Named, NewLink, Settings};
use crate::netlink::detour::Programs;
use crate::netlink::route::RTPROT_KERNEL;
use crate::netlink::rule::push_l3mdev;
use crate::netlink::{Message, Socket};
use crate::{Address, HostError, Link, PROTOCOL, Route, Rule};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both of them.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// Those that this kernel has.
    pub fn present() -> &'static [Family] {
        if crate::kernel::has_ipv6() { &Family::BOTH } else { &[Family::V4] }
    }

    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub(crate) fn af(self) -> u8 {
        match self {
            Family::V4 => libc::AF_INET as u8,
            Family::V6 => libc::AF_INET6 as u8,
        }
    }

    pub(crate) fn from_af(af: u8) -> Option<Family> {
        match i32::from(af) {
            libc::AF_INET => Some(Family::V4),
            libc::AF_INET6 => Some(Family::V6),
            _ => None,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// Everything on the host that concerns fief.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Every device.
    pub links: Vec<Link>,
    /// Every address, ours and others'.
    pub addresses: Vec<Address>,
    /// Our routes.
    pub routes: Vec<Route>,
    /// Others' IPv4 routes in the main table.
    pub main: Vec<Route>,
    /// IPv6 addresses that the kernel listens to, by device.
    pub locals: Vec<(u32, Ipv6Addr)>,
    /// Our rules, in the kernel's order.
    pub rules: Vec<(Family, Rule)>,
    /// Families whose `local` rule is at preference 0.
    pub local_first: Vec<Family>,
    /// Families in which the kernel's own rule looks into the tables of VRFs.
    pub vrf_rules: Vec<Family>,
}

/// A VRF of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vrf {
    /// Its name.
    pub name: String,
    /// Its table.
    pub table: u32,
    /// Its text for people.
    pub alias: String,
}

/// The group of our devices.
pub const GROUP: u32 = PROTOCOL as u32;

/// One request to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each says itself")]
pub enum Change {
    AddRule(Family, Rule),
    DeleteRule(Family, Rule),
    SetRoute(Route),
    DeleteRoute(Route),
    AddAddress(Address),
    DeleteAddress(Address),
    /// Put the `local` rule back to preference 0.
    LocalRuleFirst(Family),
    /// Take the `local` rule away from preference 0; another lookup of `local` must stand somewhere.
    LocalRuleAway(Family),
    AddVrf(Vrf),
    DeleteVrf(Vrf),
    /// Set a VRF up, by index.
    RaiseVrf(u32),
    /// Make the first device a port of the second. It goes down and up again (cycle_netdev).
    Enslave(u32, u32),
    /// Take the first device from the second.
    Release(u32, u32),
    /// Take the rule for VRFs away that the kernel has made.
    VrfRuleAway(Family),
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::AddRule(family, rule) => write!(f, "add rule {}", rule.show(*family)),
            Change::DeleteRule(family, rule) => write!(f, "delete rule {}", rule.show(*family)),
            Change::SetRoute(route) => write!(f, "set route {}", route.show()),
            Change::DeleteRoute(route) => write!(f, "delete route {}", route.show()),
            Change::AddAddress(a) => write!(f, "add address {} to device #{}", a.net, a.device),
            Change::DeleteAddress(a) => write!(f, "delete address {} from device #{}", a.net, a.device),
            Change::LocalRuleFirst(family) => write!(f, "put the {family} local rule back to preference 0"),
            Change::LocalRuleAway(family) => write!(f, "take the {family} local rule away from preference 0"),
            Change::AddVrf(vrf) => write!(f, "add VRF {} with table {}", vrf.name, vrf.table),
            Change::DeleteVrf(vrf) => write!(f, "delete VRF {}", vrf.name),
            Change::RaiseVrf(vrf) => write!(f, "set VRF #{vrf} up"),
            Change::Enslave(device, vrf) => write!(f, "make device #{device} a port of #{vrf}"),
            Change::Release(device, vrf) => write!(f, "take device #{device} from #{vrf}"),
            Change::VrfRuleAway(family) => {
                write!(f, "take the {family} rule for VRFs away that the kernel has made")
            }
        }
    }
}

/// A host whose configuration can be listed and changed.
pub trait Host {
    /// Lists everything that concerns fief.
    fn list(&mut self) -> Result<Listing, HostError>;
    /// Makes the changes in order and returns the answer to each; a refused one does not stop the others.
    fn change(&mut self, changes: &[Change]) -> Vec<Result<(), HostError>>;
}

/// The real one: the network namespace of the thread that opened it.
pub struct LinuxHost {
    socket: Socket,
    programs: Option<Programs>,
}

impl LinuxHost {
    /// Opens the current thread's network namespace.
    pub fn open() -> Result<LinuxHost, HostError> {
        Ok(LinuxHost { socket: Socket::open(libc::NETLINK_ROUTE)?, programs: None })
    }

    /// Lends the programs that routes with a detour lead through; without them such routes are refused.
    pub fn lend(&mut self, programs: Programs) {
        self.programs = Some(programs);
    }

    fn try_list(&mut self) -> Result<Listing, HostError> {
        let mut listing = Listing::default();
        let socket = &mut self.socket;
        let link_dump = |body: &mut Vec<u8>| drop(OpGetlinkDump::encode_request(body, &Default::default()));
        socket.dump(libc::RTM_GETLINK, "list devices", link_dump, |_, body| {
            listing.links.extend(Link::decode(body))
        })?;
        let address_dump =
            |body: &mut Vec<u8>| drop(OpGetaddrDump::encode_request(body, &Default::default()));
        socket.dump(libc::RTM_GETADDR, "list addresses", address_dump, |_, body| {
            listing.addresses.extend(Address::decode(body));
        })?;
        let mut header = netlink_bindings::rt_route::Rtmsg::new();
        header.rtm_family = Family::V4.af();
        let main_dump =
            |body: &mut Vec<u8>| drop(OpGetrouteDump::encode_request(body, &header).push_table(Route::MAIN));
        socket.dump(libc::RTM_GETROUTE, "list the main table", main_dump, |_, body| {
            listing.main.extend(Route::decode_others(body).filter(|route| route.table == Route::MAIN));
        })?;
        if crate::kernel::has_ipv6() {
            // Of any table: those of a device in a VRF are in the VRF's.
            header.rtm_family = Family::V6.af();
            header.rtm_type = libc::RTN_LOCAL;
            header.rtm_protocol = RTPROT_KERNEL;
            let dump = |body: &mut Vec<u8>| drop(OpGetrouteDump::encode_request(body, &header));
            socket.dump(libc::RTM_GETROUTE, "list local addresses", dump, |_, body| {
                listing.locals.extend(Route::decode_local(body));
            })?;
        }
        for family in Family::present().iter().copied() {
            let mut header = netlink_bindings::rt_route::Rtmsg::new();
            header.rtm_family = family.af();
            header.rtm_protocol = PROTOCOL;
            let route_dump = |body: &mut Vec<u8>| drop(OpGetrouteDump::encode_request(body, &header));
            socket.dump(libc::RTM_GETROUTE, "list routes", route_dump, |_, body| {
                listing.routes.extend(Route::decode(body));
            })?;
            let mut header = netlink_bindings::rt_rule::FibRuleHdr::new();
            header.family = family.af();
            let rule_dump = |body: &mut Vec<u8>| drop(OpGetruleDump::encode_request(body, &header));
            socket.dump(libc::RTM_GETRULE, "list rules", rule_dump, |_, body| {
                listing.rules.extend(Rule::decode(body));
                if Rule::is_local_first(body) {
                    listing.local_first.push(family);
                }
                if Rule::is_kernels_vrf(body) && !listing.vrf_rules.contains(&family) {
                    listing.vrf_rules.push(family);
                }
            })?;
        }
        Ok(listing)
    }
}

impl Host for LinuxHost {
    fn list(&mut self) -> Result<Listing, HostError> {
        // A dump that was interrupted by a change is asked for again; somebody who changes things without pause
        // must not keep us here for ever.
        for _ in 0..20 {
            match self.try_list() {
                Err(HostError::Overrun) => {}
                done => return done,
            }
        }
        Err(HostError::Overrun)
    }

    fn change(&mut self, changes: &[Change]) -> Vec<Result<(), HostError>> {
        let mut answers = Vec::with_capacity(changes.len());
        // Few are about devices; the others go in as few writes as possible.
        let alike = |a: &Change, b: &Change| build(a).is_none() && build(b).is_none();
        for run in changes.chunk_by(alike) {
            if let Some(build) = run.first().and_then(build) {
                answers.extend(devices::carry_out(&mut self.socket, &[build]));
                continue;
            }
            let messages = run.iter().map(|change| message(change, self.programs.as_ref()));
            answers.extend(self.socket.execute(&mut messages.collect::<Vec<_>>()));
            // The kernel made rules for multicast routing as well, where it has tables for that.
            for change in run {
                if let Change::VrfRuleAway(family) = change {
                    self.socket.execute(&mut [vrf_rule_away(multicast(*family))]);
                }
            }
        }
        answers
    }
}

/// What a change does to a device, for the room that does such things.
fn build(change: &Change) -> Option<Build> {
    let set = |device: &u32, settings| Build::Set { device: Named::Index(*device), settings };
    let master = |master| Settings { master: Some(master), ..Settings::default() };
    Some(match change {
        Change::AddVrf(vrf) => {
            let (name, alias) = (vrf.name.clone(), Some(vrf.alias.clone()));
            let link = NewLink { name, alias, group: Some(GROUP), up: true, ..NewLink::default() };
            Build::AddVrf(devices::Vrf { link, table: vrf.table })
        }
        Change::DeleteVrf(vrf) => Build::DeleteLink(Named::Name(vrf.name.clone())),
        Change::RaiseVrf(vrf) => set(vrf, Settings { up: Some(true), ..Settings::default() }),
        Change::Enslave(device, vrf) => set(device, master(Some(Named::Index(*vrf)))),
        Change::Release(device, _) => set(device, master(None)),
        _ => return None,
    })
}

fn message(change: &Change, programs: Option<&Programs>) -> Message {
    match change {
        Change::AddRule(family, rule) => rule.add(*family),
        Change::DeleteRule(family, rule) => rule.delete(*family),
        Change::SetRoute(route) => route.set(programs),
        Change::DeleteRoute(route) => route.delete(),
        Change::AddAddress(address) => address.add(),
        Change::DeleteAddress(address) => address.delete(),
        Change::LocalRuleFirst(family) => local_rule(libc::RTM_NEWRULE, *family),
        Change::LocalRuleAway(family) => local_rule(libc::RTM_DELRULE, *family),
        Change::VrfRuleAway(family) => vrf_rule_away(family.af()),
        // Those of devices are not carried out here.
        change => Message::new(0, 0, change.to_string(), |_| {}),
    }
}

/// The kernel's own first rule, `0: from all lookup local` (fib_default_rules_init).
fn local_rule(kind: u16, family: Family) -> Message {
    use netlink_bindings::rt_rule::{FibRuleHdr, OpNewruleDo};
    let flags = if kind == libc::RTM_NEWRULE { libc::NLM_F_CREATE | libc::NLM_F_EXCL } else { 0 };
    Message::new(kind, flags, format!("move the {family} local rule"), |body| {
        let mut header = FibRuleHdr::new();
        header.family = family.af();
        header.action = 1;
        header.table = libc::RT_TABLE_LOCAL;
        let attributes = OpNewruleDo::encode_request(body, &header).push_priority(0);
        let attributes = attributes.push_table(u32::from(libc::RT_TABLE_LOCAL));
        // Whoever made it again after the kernel, it is to go.
        if kind == libc::RTM_NEWRULE {
            drop(attributes.push_protocol(RTPROT_KERNEL));
        }
    })
}

/// RTNL_FAMILY_IPMR or RTNL_FAMILY_IP6MR (linux/rtnetlink.h).
fn multicast(family: Family) -> u8 {
    match family {
        Family::V4 => 128,
        Family::V6 => 129,
    }
}

/// The kernel's own rule for VRFs, `1000: from all lookup [l3mdev-table]` (vrf_fib_rule).
fn vrf_rule_away(family: u8) -> Message {
    use netlink_bindings::rt_rule::{FibRuleHdr, OpDelruleDo};
    Message::new(libc::RTM_DELRULE, 0, "take the kernel's rule for VRFs away", |body| {
        let mut header = FibRuleHdr::new();
        header.family = family;
        header.action = 1;
        drop(
            OpDelruleDo::encode_request(body, &header)
                .push_priority(Rule::VRF_PREFERENCE)
                .push_protocol(RTPROT_KERNEL),
        );
        push_l3mdev(body);
    })
}
