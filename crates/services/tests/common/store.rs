//! A store in memory that can be made to fail and to hang.

use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use fief_services::{Lease, LeaseStore};

use super::SOON;

/// A handle; what it holds outlives the services.
#[derive(Clone, Default)]
pub struct Store(Arc<(Mutex<Inside>, Condvar)>);

#[derive(Default)]
pub struct Inside {
    pub leases: Vec<Lease>,
    pub fails: bool,
    pub hangs: bool,
    pub saves: usize,
    /// Is one hanging now?
    pub waiting: bool,
}

impl Store {
    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.0.lock().unwrap()
    }

    pub fn change(&self, change: impl FnOnce(&mut Inside)) {
        change(&mut self.inside());
        self.0.1.notify_all();
    }

    pub fn boxed(&self) -> Box<dyn LeaseStore> {
        Box::new(self.clone())
    }
}

impl LeaseStore for Store {
    fn load(&mut self) -> Result<Vec<Lease>, String> {
        Ok(self.inside().leases.clone())
    }

    fn save(&mut self, put: &[Lease], remove: &[(String, Ipv4Addr)]) -> Result<(), String> {
        let mut inside = self.inside();
        inside.waiting = true;
        // Not for ever: a test that fails meanwhile has to end.
        let (mut inside, _) = self.0.1.wait_timeout_while(inside, SOON * 2, |inside| inside.hangs).unwrap();
        inside.waiting = false;
        if inside.fails {
            return Err("the disk is full".to_owned());
        }
        inside.saves += 1;
        let gone = |lease: &Lease| {
            let place = (lease.network.clone(), lease.address);
            remove.contains(&place)
                || put.iter().any(|new| (&new.network, new.address) == (&lease.network, lease.address))
        };
        inside.leases.retain(|lease| !gone(lease));
        inside.leases.extend(put.iter().cloned());
        Ok(())
    }
}
