//! How much of something there may be at once: for all, and for one client.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

/// A limit for all and one for each client.
#[derive(Debug)]
pub(crate) struct Quota {
    all: usize,
    each: usize,
    taken: RefCell<HashMap<IpAddr, usize>>,
    count: std::cell::Cell<usize>,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    quota: Rc<Quota>,
    client: IpAddr,
}

impl Quota {
    /// At most `all` at once, `each` of them for one client.
    pub(crate) fn new(all: usize, each: usize) -> Rc<Quota> {
        Rc::new(Quota { all, each, taken: RefCell::default(), count: std::cell::Cell::new(0) })
    }

    /// A place for this client, if there is one.
    pub(crate) fn take(self: &Rc<Quota>, client: IpAddr) -> Option<Place> {
        let mut taken = self.taken.borrow_mut();
        let own = taken.get(&client).copied().unwrap_or(0);
        if self.count.get() >= self.all || own >= self.each {
            return None;
        }
        taken.insert(client, own + 1);
        self.count.set(self.count.get() + 1);
        Some(Place { quota: Rc::clone(self), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.quota.taken.borrow_mut();
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
        self.quota.count.set(self.quota.count.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_own_limit_and_gives_back() {
        let quota = Quota::new(3, 2);
        let (one, two): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let held: Vec<Place> = (0..2).filter_map(|_| quota.take(one)).collect();
        assert_eq!((held.len(), quota.take(one).is_none()), (2, true));
        let other = quota.take(two);
        assert!(other.is_some() && quota.take(two).is_none(), "three are all there are");
        drop(held);
        assert!(quota.take(one).is_some());
        drop(other);
        assert!(quota.taken.borrow().is_empty());
    }
}
