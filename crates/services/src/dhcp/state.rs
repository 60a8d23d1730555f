//! Who has which address of one network, and who was offered one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use super::Ask;
use super::limit::Bucket;
use super::reply::lease_seconds;
use crate::{Lease, NetworkConfig};

/// How long an offer is kept for its client.
const OFFER: Duration = Duration::from_secs(60);
/// How long an address that somebody found in use is given to nobody.
const DECLINED: Duration = Duration::from_secs(3600);
/// How many addresses one client can keep from the others by declining them. It would empty the pool otherwise.
const DECLINES: usize = 4;

/// The leases, offers and declined addresses of one network.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(super) leases: BTreeMap<Ipv4Addr, Lease>,
    pub(super) by_mac: HashMap<[u8; 6], Ipv4Addr>,
    pub(super) offers: HashMap<[u8; 6], (Ipv4Addr, SystemTime)>,
    pub(super) declined: Vec<Declined>,
    /// The endpoints, with the addresses of those that have one.
    pub(super) endpoints: HashMap<[u8; 6], Option<Ipv4Addr>>,
    pub(super) reserved: HashSet<Ipv4Addr>,
    buckets: HashMap<[u8; 6], Bucket>,
    /// Was the want of addresses said since the configuration changed?
    pub(crate) want_said: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Declined {
    pub(super) address: Ipv4Addr,
    by: [u8; 6],
    pub(super) until: SystemTime,
}

/// What is to be saved, and what was there before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) put: Option<Lease>,
    pub(crate) remove: Option<Ipv4Addr>,
    before: Vec<Lease>,
}

impl State {
    /// Begins with leases from the store.
    pub(crate) fn new(leases: Vec<Lease>) -> State {
        let mut state = State::default();
        for lease in leases {
            state.insert(lease);
        }
        state
    }

    /// Takes over who is attached. Leases stay; what is remembered of clients that are gone does not.
    pub(crate) fn configure(&mut self, config: &NetworkConfig) {
        self.endpoints = config.endpoints.iter().map(|endpoint| (endpoint.mac, endpoint.address)).collect();
        self.reserved = config.endpoints.iter().filter_map(|endpoint| endpoint.address).collect();
        self.buckets.retain(|mac, _| self.endpoints.contains_key(mac));
        self.offers.retain(|mac, _| self.endpoints.contains_key(mac));
        self.want_said = false;
    }

    /// Every lease, ended ones too.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The address that this client has a lease for.
    pub(crate) fn address_of(&self, mac: &[u8; 6], now: SystemTime) -> Option<Ipv4Addr> {
        let lease = self.leases.get(self.by_mac.get(mac)?)?;
        (lease.expires > now).then_some(lease.address)
    }

    /// When the next lease ends; in an hour if there is none.
    pub(crate) fn next_end(&self, now: SystemTime) -> SystemTime {
        let ends = self.leases.values().map(|lease| lease.expires).filter(|end| *end > now);
        ends.min().unwrap_or(now + Duration::from_secs(3600))
    }

    /// The client that has a lease for this address.
    pub(crate) fn holder(&self, address: Ipv4Addr, now: SystemTime) -> Option<[u8; 6]> {
        self.leases.get(&address).filter(|lease| lease.expires > now).map(|lease| lease.mac)
    }

    /// Is this an endpoint's Ethernet address?
    pub(super) fn knows(&self, mac: &[u8; 6]) -> bool {
        self.endpoints.contains_key(mac)
    }

    /// May this client be heard now?
    pub(crate) fn admit(&mut self, mac: [u8; 6], now: SystemTime) -> bool {
        self.buckets.entry(mac).or_insert_with(|| Bucket::new(now)).take(now)
    }

    /// Keeps an address for a client until it asks for it.
    pub(super) fn offer(&mut self, mac: [u8; 6], address: Ipv4Addr, now: SystemTime) {
        self.offers.insert(mac, (address, now + OFFER));
    }

    /// Takes an offer back.
    pub(super) fn withdraw(&mut self, mac: &[u8; 6]) {
        self.offers.remove(mac);
    }

    /// Leases an address that [`State::may_have`] allows.
    pub(super) fn grant(
        &mut self,
        config: &NetworkConfig,
        now: SystemTime,
        ask: &Ask,
        address: Ipv4Addr,
    ) -> Change {
        self.offers.remove(&ask.mac);
        let lease = Lease {
            network: config.key.clone(),
            mac: ask.mac,
            client_id: ask.client_id(),
            address,
            hostname: ask.hostname(),
            expires: now + Duration::from_secs(u64::from(lease_seconds(config))),
        };
        let moved = self.by_mac.get(&ask.mac).copied().filter(|old| *old != address);
        let before = [moved, Some(address)].into_iter().flatten();
        let before = before.filter_map(|address| self.take(address)).collect();
        self.insert(lease.clone());
        Change { put: Some(lease), remove: moved, before }
    }

    /// Ends a client's own lease; the record stays, so that it gets the same address again.
    pub(super) fn release(&mut self, mac: &[u8; 6], address: Ipv4Addr, now: SystemTime) -> Option<Change> {
        if self.address_of(mac, now) != Some(address) {
            return None;
        }
        let before = self.take(address)?;
        let lease = Lease { expires: now, ..before.clone() };
        self.insert(lease.clone());
        Some(Change { put: Some(lease), remove: None, before: vec![before] })
    }

    /// Takes an address that its client found in use away from everybody for an hour.
    pub(super) fn decline(&mut self, mac: &[u8; 6], address: Ipv4Addr, now: SystemTime) -> Option<Change> {
        let offered = self.offers.get(mac).is_some_and(|offer| offer.0 == address);
        let leased = self.address_of(mac, now) == Some(address);
        if !offered && !leased {
            return None;
        }
        self.offers.remove(mac);
        self.declined.retain(|declined| declined.until > now);
        let own = self.declined.iter().filter(|declined| declined.by == *mac).count();
        if own >= DECLINES
            && let Some(oldest) = self.declined.iter().position(|declined| declined.by == *mac)
        {
            self.declined.remove(oldest);
        }
        self.declined.push(Declined { address, by: *mac, until: now + DECLINED });
        let before: Vec<Lease> = leased.then(|| self.take(address)).flatten().into_iter().collect();
        Some(Change { put: None, remove: Some(address), before })
    }

    /// Puts things back as they were before a change that could not be saved, unless they have changed again since.
    pub(crate) fn undo(&mut self, change: &Change) {
        let now_there = match (&change.put, change.remove) {
            (Some(lease), _) => self.leases.get(&lease.address) == Some(lease),
            (None, Some(address)) => !self.leases.contains_key(&address),
            (None, None) => false,
        };
        if now_there {
            if let Some(lease) = &change.put {
                self.take(lease.address);
            }
            for lease in &change.before {
                if !self.leases.contains_key(&lease.address) && !self.by_mac.contains_key(&lease.mac) {
                    self.insert(lease.clone());
                }
            }
        }
    }

    /// Puts a lease in, over the one that its address or its client had.
    fn insert(&mut self, lease: Lease) {
        if let Some(old) = self.by_mac.get(&lease.mac).copied() {
            self.take(old);
        }
        self.take(lease.address);
        self.by_mac.insert(lease.mac, lease.address);
        self.leases.insert(lease.address, lease);
    }

    fn take(&mut self, address: Ipv4Addr) -> Option<Lease> {
        let lease = self.leases.remove(&address)?;
        if self.by_mac.get(&lease.mac) == Some(&address) {
            self.by_mac.remove(&lease.mac);
        }
        Some(lease)
    }
}
