//! Numbers of ports (ifindex), each once on the whole host: fief_datapath::ports says why.

use std::collections::BTreeSet;
use std::ops::Range;

use fief_datapath::ports::{TAPS, VETHS, first};
use fief_model::Slot;

/// The numbers that were given last, for veths and for TAP devices.
pub type Last = [Option<u32>; 2];

/// The numbers of one tenant's ports.
#[derive(Debug)]
pub struct Numbers {
    kinds: [Kind; 2],
}

#[derive(Debug)]
struct Kind {
    range: Range<u32>,
    taken: BTreeSet<u32>,
    last: Option<u32>,
}

impl Numbers {
    /// Those that `there` leave. `last` are those that were given last: others follow them as late as can be, so that
    /// nobody takes a new port for one that went just now.
    pub fn beside(there: &[u32], slot: Slot, last: Last) -> Numbers {
        let base = first(slot.number());
        let kind = |range: Range<u32>, last: Option<u32>| {
            let range = base + range.start..base + range.end;
            let taken: BTreeSet<u32> = there.iter().copied().filter(|index| range.contains(index)).collect();
            Kind { last: last.or(taken.last().copied()), range, taken }
        };
        let [veth, tap] = last;
        Numbers { kinds: [kind(VETHS, veth), kind(TAPS, tap)] }
    }

    /// The next number; `None` if there is none left.
    pub fn take(&mut self, tap: bool) -> Option<u32> {
        let [veths, taps] = &mut self.kinds;
        if tap { taps.take() } else { veths.take() }
    }

    /// The numbers that were given last.
    pub fn last(&self) -> Last {
        self.kinds.each_ref().map(|kind| kind.last)
    }
}

impl Kind {
    fn take(&mut self) -> Option<u32> {
        let from = self.last.map_or(self.range.start, |last| last + 1);
        let mut behind = (from..self.range.end).chain(self.range.start..from);
        let free = behind.find(|index| !self.taken.contains(index))?;
        self.taken.insert(free);
        self.last = Some(free);
        Some(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tenants_share_a_number_and_none_comes_back_soon() {
        let [one, two] = [1, 2].map(|slot| Slot::new(slot).unwrap());
        let mut numbers = Numbers::beside(&[1, 2], one, Last::default());
        let first = numbers.take(false).unwrap();
        assert_eq!(numbers.take(false), Some(first + 1));
        assert!(numbers.take(true).unwrap() > first + 1, "TAP devices are told apart by their numbers");
        assert!(Numbers::beside(&[], two, Last::default()).take(false).unwrap() >= first + 4096 - 2);

        // The last of them goes; the next one is another all the same.
        let mut later = Numbers::beside(&[first], one, numbers.last());
        assert_eq!(later.take(false), Some(first + 2));
        // At the end it begins again, with what is free.
        let end = first + VETHS.len() as u32 - 1;
        let mut last = Numbers::beside(&[first, end], one, Last::default());
        assert_eq!(last.take(false), Some(first + 1));
    }

    #[test]
    fn the_last_slot_has_numbers_that_the_kernel_takes() {
        let mut numbers = Numbers::beside(&[], Slot::new(65_532).unwrap(), Last::default());
        let all: BTreeSet<u32> = [false, true]
            .into_iter()
            .flat_map(|tap| std::iter::from_fn(|| numbers.take(tap)).collect::<Vec<_>>())
            .collect();
        assert_eq!(all.len(), VETHS.len() + TAPS.len());
        assert!(all.last().unwrap() < &(1 << 31), "ifindex is an int");
    }
}
