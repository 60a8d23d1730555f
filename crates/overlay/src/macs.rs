//! Behind whom an Ethernet address was last seen.
//!
//! A table of fixed size: each address has one place, and whoever comes later takes it. So a flood of addresses costs no
//! memory, and what it pushes out is asked for by everybody again, as on a switch. vxvde has the same size and times.

use std::time::{Duration, Instant};

/// Places of a table.
pub const SLOTS: usize = 1024;
/// What has not been heard of for so long is forgotten.
pub const LIFETIME: Duration = Duration::from_secs(128);

/// Goodbyes of one peer that come closer together are forged: who has gone has no more to say.
pub const GOODBYES_APART: Duration = Duration::from_secs(10);
/// More goodbyes than this in that time are not believed.
const MOST_GOODBYES: usize = 64;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The table; `P` is what stands for a peer, its IP address and port for example.
#[derive(Debug, Clone)]
pub struct Macs<P> {
    places: Vec<Option<Entry<P>>>,
    lifetime: Duration,
    /// Who said goodbye of late.
    gone: Vec<(P, Instant)>,
}

#[derive(Debug, Clone)]
struct Entry<P> {
    mac: Mac,
    peer: P,
    heard: Instant,
}

impl<P: Copy + Eq> Default for Macs<P> {
    fn default() -> Macs<P> {
        Macs::new(SLOTS, LIFETIME)
    }
}

impl<P: Copy + Eq> Macs<P> {
    /// A table with so many places, one at least, where entries live so long.
    pub fn new(places: usize, lifetime: Duration) -> Macs<P> {
        let places = (0..places.max(1)).map(|_| None).collect();
        Macs { places, lifetime, gone: Vec::new() }
    }

    /// Notes that a frame from this address came from this peer. A group's address is nobody's and is not noted.
    pub fn learn(&mut self, mac: Mac, peer: P, now: Instant) {
        if is_group(mac) {
            return;
        }
        let at = self.place(mac);
        if let Some(place) = self.places.get_mut(at) {
            *place = Some(Entry { mac, peer, heard: now });
        }
    }

    /// Behind whom an address is.
    pub fn find(&self, mac: Mac, now: Instant) -> Option<P> {
        let entry = self.places.get(self.place(mac))?.as_ref()?;
        let fresh = now.saturating_duration_since(entry.heard) <= self.lifetime;
        (entry.mac == mac && fresh).then_some(entry.peer)
    }

    /// Forgets every address behind a peer that says goodbye, unless it has said so just now. Gives whether it did.
    pub fn forget(&mut self, peer: P, now: Instant) -> bool {
        self.gone.retain(|(_, when)| now.saturating_duration_since(*when) < GOODBYES_APART);
        if self.gone.len() >= MOST_GOODBYES || self.gone.iter().any(|(gone, _)| *gone == peer) {
            return false;
        }
        self.gone.push((peer, now));
        for place in &mut self.places {
            if place.as_ref().is_some_and(|entry| entry.peer == peer) {
                *place = None;
            }
        }
        true
    }

    /// FNV-1a, 32 bits: six bytes, of which the last differ most.
    fn place(&self, mac: Mac) -> usize {
        let hash = mac
            .iter()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        (hash ^ hash >> 15) as usize % self.places.len()
    }
}

/// Is this everybody's, or a group's address?
pub fn is_group(mac: Mac) -> bool {
    mac[0] & 1 == 1
}

/// Destination and source of a frame.
pub fn source(frame: &[u8]) -> Option<(Mac, Mac)> {
    let (to, rest) = frame.split_first_chunk::<6>()?;
    let (from, _) = rest.split_first_chunk::<6>()?;
    Some((*to, *from))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn what_was_heard_is_known_for_128_seconds() {
        let mut macs = Macs::default();
        let begin = Instant::now();
        macs.learn(A, 7, begin);
        assert_eq!(macs.find(A, begin + LIFETIME), Some(7));
        assert_eq!(macs.find(A, begin + LIFETIME + Duration::from_millis(1)), None);
        macs.learn(A, 8, begin + LIFETIME);
        assert_eq!(macs.find(A, begin + 2 * LIFETIME), Some(8));
        assert_eq!(macs.find([2, 0, 0, 0, 0, 2], begin), None);
    }

    #[test]
    fn a_goodbye_forgets_one_peer_and_no_other() {
        let (mut macs, now) = (Macs::default(), Instant::now());
        for last in 0..50 {
            macs.learn([2, 0, 0, 0, 0, last], last % 2, now);
        }
        assert!(macs.forget(1, now));
        let known = (0..50).filter_map(|last| macs.find([2, 0, 0, 0, 0, last], now));
        assert!(known.inspect(|peer| assert_eq!(*peer, 0)).count() > 20);
    }

    #[test]
    fn a_goodbye_that_is_said_again_and_again_is_not_believed() {
        let (mut macs, now) = (Macs::default(), Instant::now());
        macs.forget(1, now);
        macs.learn(A, 1, now);
        let soon = now + GOODBYES_APART - Duration::from_millis(1);
        assert!(!macs.forget(1, soon) && macs.find(A, soon) == Some(1));
        assert!(macs.forget(1, now + GOODBYES_APART) && macs.find(A, now + GOODBYES_APART).is_none());
        // Of a crowd of peers that there are not, neither, and nobody is remembered for it.
        macs.learn(A, 1, now);
        let believed = (1000..2000).filter(|peer| macs.forget(*peer, soon)).count();
        assert!(believed < MOST_GOODBYES && macs.gone.len() <= MOST_GOODBYES);
        assert!(!macs.forget(1, soon) && macs.find(A, soon) == Some(1));
    }

    #[test]
    fn nobody_is_behind_a_groups_address() {
        let (mut macs, now) = (Macs::default(), Instant::now());
        for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
            macs.learn(group, 1, now);
            assert_eq!(macs.find(group, now), None);
        }
    }

    proptest! {
        /// The newest of each address is found, or nothing: never another's peer. And it never grows.
        #[test]
        fn it_never_confuses(heard in proptest::collection::vec((0_u16..3000, 0_u8..4), 1..4000)) {
            let (mut macs, now) = (Macs::default(), Instant::now());
            let mut last = HashMap::new();
            for (number, peer) in heard {
                let [high, low] = number.to_be_bytes();
                let mac = [2, 0, 0, 0, high, low];
                macs.learn(mac, peer, now);
                last.insert(mac, peer);
            }
            prop_assert_eq!(macs.places.len(), SLOTS);
            for (mac, peer) in last {
                prop_assert!(macs.find(mac, now).is_none_or(|found| found == peer));
            }
        }
    }
}
