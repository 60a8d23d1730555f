//! What is on the host, as far as fief knows: a listing, kept current by events.

mod leaving;
mod locals;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use fief_host::{
    Address, Change, Event, Family, Link, Listing, Route, RouteKey, RouteKind, Rule, RuleAction,
};
use leaving::Leaving;
use locals::Locals;

/// The host as last seen.
#[derive(Debug, Default)]
pub struct Observed {
    links: BTreeMap<u32, Link>,
    names: HashMap<String, u32>,
    addresses: HashMap<(u32, IpAddr), Address>,
    foreign: HashMap<IpAddr, Address>,
    awaited: HashSet<(u32, IpAddr)>,
    routes: HashMap<RouteKey, Route>,
    /// Others' IPv4 routes in the main table over devices that somebody asks about.
    main: BTreeSet<(RouteKey, Option<u32>, Option<IpAddr>)>,
    /// Those devices, by name.
    asked: BTreeSet<String>,
    rules: BTreeMap<(Family, Rule), usize>,
    /// Families whose `local` rule is at preference 0.
    pub local_first: BTreeSet<Family>,
    /// Families in which the kernel's own rule looks into the tables of VRFs.
    pub vrf_rules: BTreeSet<Family>,
    /// Addresses that went and whose consequences are still to be drawn.
    gone: Vec<Address>,
    leaving: Leaving,
    locals: Locals,
    /// Is there IPv6 in this kernel?
    pub has_ipv6: bool,
    /// Is rp_filter in force on some device?
    pub filters_reverse_path: bool,
    /// On which, by number; 0 is the switch of all of them.
    filtering: BTreeSet<u32>,
    /// Did a device come, go or change since somebody last asked ([`Observed::devices_changed`])?
    devices_changed: bool,
}

impl Observed {
    /// What a listing says.
    pub fn from_listing(listing: Listing, asked: BTreeSet<String>) -> Observed {
        let local_first = listing.local_first.into_iter().collect();
        let vrf_rules = listing.vrf_rules.into_iter().collect();
        let mut observed = Observed { local_first, vrf_rules, asked, ..Observed::default() };
        observed.has_ipv6 = fief_host::kernel::has_ipv6();
        let events = listing.links.into_iter().map(Event::Link);
        let events = events.chain(listing.addresses.into_iter().map(Event::Address));
        let events = events.chain(listing.routes.into_iter().map(Event::Route));
        let events = events.chain(listing.main.into_iter().map(|route| Event::Main(route, false)));
        let events = events.chain(listing.locals.into_iter().map(|(device, a)| Event::Local(device, a)));
        let events = events.chain(listing.rules.into_iter().map(|(f, r)| Event::Rule(f, r)));
        events.for_each(|event| {
            observed.apply(event);
        });
        observed.look_at_filters();
        observed.locals.doubt(Instant::now());
        observed
    }

    /// Believes a new listing. Devices count as changed only if they did.
    pub fn renew(&mut self, listing: Listing) {
        let before = std::mem::take(self);
        *self = Observed { leaving: before.leaving, ..Observed::from_listing(listing, before.asked) };
        self.devices_changed = before.devices_changed || before.links != self.links;
    }

    /// Takes an event in; says whether it concerns fief. Behind the last one of a series belongs [`Observed::settle`].
    pub fn apply(&mut self, event: Event) -> bool {
        if !matches!(event, Event::AddressGone(_)) {
            self.settle_addresses();
        }
        match event {
            // Routes of others that replace routes of others are reported so as well.
            Event::RouteGone(route) => return self.routes.remove(&route.key()).is_some(),
            Event::Local(device, address) => {
                self.locals.came(device, address);
                return false;
            }
            Event::LocalGone(device, address) => {
                let was = self.locals.went(device, address);
                if was && self.addresses.get(&(device, address.into())).is_some_and(|a| a.ours) {
                    self.locals.doubt(Instant::now());
                }
                return false;
            }
            Event::Link(link) => self.link_changed(link),
            Event::LinkGone(index) => self.link_gone(index),
            // What is in a tenant's VRF is no address of the host's.
            Event::Address(address) if self.is_in_a_vrf(address.device) => return false,
            Event::Address(address) => {
                self.awaited.remove(&(address.device, address.net.addr()));
                self.addresses.insert((address.device, address.net.addr()), address);
                self.locals.wait(Instant::now());
                if !address.ours {
                    self.foreign.insert(address.net.addr(), address);
                }
            }
            Event::AddressGone(address) => self.address_gone(address),
            Event::Route(route) => drop(self.routes.insert(route.key(), route)),
            Event::Main(route, replaced) => return self.main_changed(&route, replaced),
            Event::MainGone(route) => return self.main.remove(&(route.key(), route.device, route.via)),
            Event::Rule(family, rule) => *self.rules.entry((family, rule)).or_default() += 1,
            Event::RuleGone(family, rule) => {
                if let Some(count) = self.rules.get_mut(&(family, rule)) {
                    *count -= 1;
                    if *count == 0 {
                        self.rules.remove(&(family, rule));
                    }
                }
            }
            Event::LocalRule(family, true) => drop(self.local_first.insert(family)),
            Event::LocalRule(family, false) => drop(self.local_first.remove(&family)),
            Event::VrfRule(family, true) => drop(self.vrf_rules.insert(family)),
            Event::VrfRule(family, false) => drop(self.vrf_rules.remove(&family)),
            Event::ReversePath(device, filters) => self.filter_changed(device, filters),
        }
        true
    }

    /// Draws the conclusions from a series of events that take one pass for all of them.
    pub fn settle(&mut self) {
        self.settle_addresses();
    }

    /// Draws the conclusions from addresses that went: the kernel does not announce them. IPv6 takes the source away from
    /// routes that prefer it (fib6_remove_prefsrc). IPv4 drops such routes from `main` only (fib_sync_down_addr, since
    /// Linux 6.1), but with a device's last address go all routes over that device (fib_disable_ip).
    ///
    /// One pass over the routes for a whole series of addresses: thousands go at once.
    fn settle_addresses(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let gone = std::mem::take(&mut self.gone);
        let (v6, v4): (Vec<Address>, Vec<Address>) = gone.into_iter().partition(|a| a.net.addr().is_ipv6());
        let sources: HashSet<IpAddr> = v6.iter().map(|a| a.net.addr()).collect();
        let mut bare: HashSet<u32> = v4.iter().map(|a| a.device).collect();
        bare.retain(|device| !self.addresses.keys().any(|(on, other)| on == device && other.is_ipv4()));
        self.forget_routes(|route| {
            let lost_device = route.device.is_some_and(|device| bare.contains(&device));
            route.source.is_some_and(|source| sources.contains(&source))
                || (lost_device && route.family() == Family::V4)
        });
        self.main.retain(|(_, by, _)| by.is_none_or(|device| !bare.contains(&device)));
    }

    /// Did a device come, go, rise, fall or change its name since this was last asked?
    pub fn devices_changed(&mut self) -> bool {
        std::mem::take(&mut self.devices_changed)
    }

    /// The address families of this kernel.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let has_ipv6 = self.has_ipv6;
        Family::BOTH.into_iter().filter(move |family| has_ipv6 || *family == Family::V4)
    }

    /// A device by its name now.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.names.get(name).and_then(|index| self.links.get(index))
    }

    /// Every device.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// What a device is a port of, by index.
    pub fn master_of(&self, index: u32) -> Option<u32> {
        self.links.get(&index).and_then(|link| link.master)
    }

    /// A device's name now.
    pub fn link_name(&self, index: u32) -> &str {
        self.links.get(&index).map_or("?", |link| &link.name)
    }

    /// Is there a device with this index?
    pub fn has_link(&self, index: u32) -> bool {
        self.links.contains_key(&index)
    }

    /// Do the rules that VRFs of ours need stand, in both families?
    pub fn asks_vrfs_first(&self) -> bool {
        self.families().all(|family| {
            // Not the one that comes behind everything, for what has no mark.
            let is_first =
                |rule: &Rule| rule.action == RuleAction::Vrf && rule.preference != Rule::VRF_PREFERENCE;
            let asks = self.rules(family).any(|rule| is_first(&rule));
            asks && !self.local_first.contains(&family)
        })
    }

    fn is_in_a_vrf(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| crate::networks::links::is_in_a_vrf(link.group))
    }

    /// Is this device up?
    pub fn is_up(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| link.up)
    }

    /// Do this device's frames have an Ethernet header?
    pub fn is_ethernet(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| link.ethernet)
    }

    /// Every address.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        self.addresses.values().copied()
    }

    /// Is this address of ours on its device, with this length?
    pub fn has_address(&self, address: &Address) -> bool {
        self.addresses.get(&(address.device, address.net.addr())) == Some(address)
    }

    /// An address that is on some device and not ours.
    pub fn foreign_address(&self, address: IpAddr) -> Option<Address> {
        self.foreign.get(&address).copied()
    }

    /// Every route of ours.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    /// Keeps an eye on others' routes over these devices; says whether that takes a new listing.
    pub fn ask(&mut self, devices: BTreeSet<String>) -> bool {
        let is_new = !devices.is_subset(&self.asked);
        self.asked = devices;
        is_new
    }

    /// The host's own IPv4 routes over a device that was asked about, as routes for another table.
    pub fn routes_by(&self, device: Option<u32>) -> Vec<Route> {
        let over = self.main.iter().filter(|(_, by, _)| device.is_some() && *by == device);
        over.map(|(key, device, via)| Route {
            table: 0,
            prefix: key.prefix,
            metric: key.metric,
            kind: RouteKind::Unicast,
            device: *device,
            via: *via,
            source: None,
            // Its neighbour may be one by a route that is not there for this packet.
            on_link: via.is_some(),
            mtu: None,
            detour: None,
        })
        .collect()
    }

    /// When to look for addresses that the kernel does not listen to.
    pub fn doubts_until(&self) -> Option<Instant> {
        self.locals.look_at()
    }

    /// Addresses of ours that the kernel does not listen to ([`locals`]), if it is time to look for such.
    pub fn deaf(&mut self, now: Instant) -> Vec<Address> {
        if !self.locals.is_due(now) {
            return Vec::new();
        }
        let is_deaf = |(key, address): (&(u32, IpAddr), &Address)| {
            let (device, IpAddr::V6(v6)) = *key else { return false };
            // Without a carrier the kernel waits with the routes.
            let works = self.links.get(&device).is_some_and(|link| link.up && link.carrier);
            address.ours && works && !self.awaited.contains(key) && !self.locals.has(device, v6)
        };
        self.addresses.iter().filter(|entry| is_deaf(*entry)).map(|(_, address)| *address).collect()
    }

    /// Are there IPv6 addresses that were acknowledged and not announced yet? They do not work until then.
    pub fn awaits_addresses(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Gives up waiting: an address is not announced while its device has no carrier.
    pub fn await_no_more(&mut self) {
        self.awaited.clear();
    }

    /// Notes what the kernel has acknowledged: setting a route that is there already is not announced, and an IPv6
    /// address only later.
    pub fn acknowledged(&mut self, change: &Change) {
        match change {
            Change::SetRoute(route) => drop(self.routes.insert(route.key(), route.clone())),
            Change::AddAddress(address) => {
                if address.net.addr().is_ipv6() {
                    self.awaited.insert((address.device, address.net.addr()));
                }
                self.addresses.insert((address.device, address.net.addr()), *address);
            }
            _ => {}
        }
    }

    /// When these IPv6 addresses are better added, by device; devices for which now is as good are not in it.
    pub fn better_at(&self, adding: impl Iterator<Item = Address>, now: Instant) -> HashMap<u32, Instant> {
        let count = |addresses: &mut dyn Iterator<Item = Address>| {
            let mut counts = HashMap::<u32, usize>::new();
            addresses
                .filter(|a| a.net.addr().is_ipv6())
                .for_each(|a| *counts.entry(a.device).or_default() += 1);
            counts
        };
        let adding = count(&mut { adding });
        if adding.is_empty() {
            return HashMap::new();
        }
        let present = count(&mut self.addresses());
        let due = |(device, adding): (u32, usize)| {
            let present = present.get(&device).copied().unwrap_or(0);
            Some((device, self.leaving.better_at(device, adding, present, now)?))
        };
        adding.into_iter().filter_map(due).collect()
    }

    /// The route of ours with this key.
    pub fn route(&self, key: &RouteKey) -> Option<&Route> {
        self.routes.get(key)
    }

    /// Our rules of a family, as often as they are there.
    pub fn rules(&self, family: Family) -> impl Iterator<Item = Rule> + '_ {
        let of_family = self.rules.iter().filter(move |((f, _), _)| *f == family);
        of_family.flat_map(|((_, rule), count)| std::iter::repeat_n(*rule, *count))
    }

    fn main_changed(&mut self, route: &Route, replaced: bool) -> bool {
        let key = route.key();
        let mut changed = false;
        if replaced {
            let before = self.main.len();
            self.main.retain(|(other, ..)| *other != key);
            changed = before != self.main.len();
        }
        let is_asked = route.device.is_some_and(|device| self.asked.contains(self.link_name(device)));
        if !is_asked || route.kind != RouteKind::Unicast || route.family() != Family::V4 {
            return changed;
        }
        self.main.insert((key, route.device, route.via)) || changed
    }

    fn link_changed(&mut self, link: Link) {
        if self.links.get(&link.index) == Some(&link) {
            return;
        }
        self.devices_changed = true;
        if let Some(old) = self.links.get(&link.index) {
            if old.name != link.name && self.names.get(&old.name) == Some(&link.index) {
                self.names.remove(&old.name);
            }
            if !old.up && link.up {
                self.leaving.rose(link.index, Instant::now());
            }
            if !(old.up && old.carrier) && link.up && link.carrier {
                self.locals.doubt(Instant::now());
            }
            // A device that goes down takes its routes with it, and IPv4 says nothing of them (fib_disable_ip).
            if !link.up || !old.up {
                self.forget_routes(|route| route.device == Some(link.index));
                self.locals.forget(link.index);
            }
            if !link.up {
                self.forget_main(link.index);
            }
        }
        self.names.insert(link.name.clone(), link.index);
        self.links.insert(link.index, link);
    }

    fn link_gone(&mut self, index: u32) {
        self.devices_changed = true;
        if let Some(link) = self.links.remove(&index)
            && self.names.get(&link.name) == Some(&index)
        {
            self.names.remove(&link.name);
        }
        self.leaving.gone(index);
        self.filter_changed(index, false);
        self.addresses.retain(|(device, _), _| *device != index);
        self.foreign.retain(|_, a| a.device != index);
        self.forget_routes(|route| route.device == Some(index));
        self.locals.forget(index);
        self.forget_main(index);
    }

    fn address_gone(&mut self, address: Address) {
        let ip = address.net.addr();
        self.addresses.remove(&(address.device, ip));
        if ip.is_ipv6() {
            self.leaving.left(address.device, Instant::now());
        }
        if self.foreign.get(&ip).is_some_and(|a| a.device == address.device) {
            self.foreign.remove(&ip);
        }
        self.gone.push(address);
    }

    /// A device that is down or gone has no routes.
    fn forget_main(&mut self, device: u32) {
        self.main.retain(|(_, by, _)| *by != Some(device));
    }

    fn forget_routes(&mut self, which: impl Fn(&Route) -> bool) {
        self.routes.retain(|_, route| !which(route));
    }

    /// Nothing is filtered on loopback devices, whatever their switches say.
    fn filter_changed(&mut self, device: u32, filters: bool) {
        match filters && !self.links.get(&device).is_some_and(|link| link.loopback) {
            true => self.filtering.insert(device),
            false => self.filtering.remove(&device),
        };
        self.filters_reverse_path = !self.filtering.is_empty();
    }

    fn look_at_filters(&mut self) {
        let names = self.links.values().filter(|l| !l.loopback).map(|l| l.name.as_str());
        let filters = fief_host::sysctl::reverse_path_filters(names.chain(["all"]));
        let number = |name: &&str| self.names.get(*name).copied().unwrap_or(0);
        self.filtering = filters.iter().map(number).collect();
        self.filters_reverse_path = !self.filtering.is_empty();
    }
}
