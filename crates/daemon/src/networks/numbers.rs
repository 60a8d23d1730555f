//! Numbers of ports (ifindex), each once on the whole host: fief_datapath::ports says why.

use std::collections::BTreeSet;

use fief_datapath::ports::{EACH, FIRST};
use fief_model::Slot;

/// The kernel counts from 1 in every namespace; ports begin above what it comes to.
const KERNELS: u32 = 256;

/// The numbers of one tenant's ports.
#[derive(Debug)]
pub struct Numbers {
    base: u32,
    taken: BTreeSet<u32>,
    next: u32,
}

impl Numbers {
    /// Those that these leave. `last` is the one that was given last: another follows it as late as can be, so
    /// that nobody takes a new port for one that went just now.
    pub fn beside(there: impl Iterator<Item = u32>, slot: Slot, last: Option<u32>) -> Numbers {
        let base = FIRST + u32::from(slot.number()) * EACH;
        let own = base..base + EACH;
        let taken: BTreeSet<u32> = there.filter(|index| own.contains(index)).collect();
        let last = last.or(taken.last().copied());
        Numbers { base, taken, next: last.map_or(KERNELS, |last| last - base + 1) }
    }

    /// The next number; `None` if there is none left.
    pub fn take(&mut self) -> Option<u32> {
        let room = EACH - KERNELS;
        let at = |step: u32| self.base + KERNELS + (self.next - KERNELS + step) % room;
        let free = (0..room).map(at).find(|index| !self.taken.contains(index))?;
        self.taken.insert(free);
        self.next = free - self.base + 1;
        Some(free)
    }

    /// The number that was given last.
    pub fn last(&self) -> Option<u32> {
        (self.next > KERNELS).then(|| self.base + self.next - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tenants_share_a_number_and_none_comes_back_soon() {
        let [one, two] = [1, 2].map(|slot| Slot::new(slot).unwrap());
        let mut numbers = Numbers::beside([1, 2].into_iter(), one, None);
        let first = numbers.take().unwrap();
        assert_eq!(numbers.take(), Some(first + 1));
        let mut others = Numbers::beside([].into_iter(), two, None);
        assert_eq!(others.take(), Some(first + EACH));

        // The last of them goes; the next one is another all the same.
        let mut later = Numbers::beside([first].into_iter(), one, numbers.last());
        assert_eq!(later.take(), Some(first + 2));
        // At the end it begins again, with what is free.
        let end = FIRST + EACH + EACH - 1;
        let mut last = Numbers::beside([first, end].into_iter(), one, None);
        assert_eq!(last.take(), Some(first + 1));
    }

    #[test]
    fn the_last_slot_has_numbers_that_the_kernel_takes() {
        let last = Slot::new(65_532).unwrap();
        let mut numbers = Numbers::beside([].into_iter(), last, None);
        let all: BTreeSet<u32> = std::iter::from_fn(|| numbers.take()).collect();
        assert_eq!(all.len() as u32, EACH - KERNELS);
        assert!(all.last().unwrap() < &(1 << 31), "ifindex is an int");
    }
}
