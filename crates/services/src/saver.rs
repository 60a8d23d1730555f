//! The way to the store: what waits is written at once, and answers leave when it is on the disk.
//!
//! While one write is under way the next changes gather, so that a thousand clients which boot together cost a few writes
//! and not a thousand. The write runs on a thread that waits for the disk, one for all networks; names and addresses are
//! served meanwhile.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::rc::Rc;

use tokio::sync::mpsc;

use crate::dhcp::Change;
use crate::serve::Network;
use crate::serve::dhcp::Waiting;
use crate::{Lease, LeaseStore};

/// The most that one write takes along.
const BATCH: usize = 1024;

/// One change, with what follows from it.
pub(crate) struct Job {
    network: Option<Rc<Network>>,
    key: String,
    change: Change,
    forget: Vec<Ipv4Addr>,
    answer: Option<Waiting>,
}

impl Job {
    /// A change of a lease, and the answer that must not leave before it is saved.
    pub(crate) fn of(network: &Rc<Network>, change: Change, answer: Option<Waiting>) -> Job {
        let key = network.config().key.clone();
        Job { network: Some(Rc::clone(network)), key, change, forget: Vec::new(), answer }
    }

    /// The end of all leases of a network that is gone.
    pub(crate) fn forget(key: String, addresses: Vec<Ipv4Addr>) -> Job {
        Job { network: None, key, change: Change::default(), forget: addresses, answer: None }
    }
}

/// Takes changes; a handle.
#[derive(Clone)]
pub(crate) struct Saver {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Saver {
    /// The handle, and what must be run for it. The latter ends, with all of it saved, when the last handle is gone.
    pub(crate) fn new(store: Box<dyn LeaseStore>) -> (Saver, impl Future<Output = ()>) {
        let (jobs, inbox) = mpsc::unbounded_channel();
        (Saver { jobs }, run(store, inbox))
    }

    /// Adds a change to the next write.
    pub(crate) fn add(&self, job: Job) {
        drop(self.jobs.send(job));
    }
}

async fn run(store: Box<dyn LeaseStore>, mut inbox: mpsc::UnboundedReceiver<Job>) {
    let mut store = Some(store);
    let mut jobs = Vec::new();
    while inbox.recv_many(&mut jobs, BATCH).await > 0 {
        let saved = write(&mut store, &jobs).await;
        match saved {
            Ok(()) => jobs.drain(..).for_each(finish),
            Err(error) => {
                tracing::error!(
                    leases = jobs.len(),
                    error,
                    "cannot save leases; their clients get no answer"
                );
                // The last change first: each finds what it made.
                jobs.drain(..).rev().for_each(|job| undo(&job));
            }
        }
    }
}

async fn write(store: &mut Option<Box<dyn LeaseStore>>, jobs: &[Job]) -> Result<(), String> {
    let mut last: HashMap<(String, Ipv4Addr), Option<Lease>> = HashMap::new();
    for Job { key, change, forget, .. } in jobs {
        for address in change.remove.iter().chain(forget) {
            last.insert((key.clone(), *address), None);
        }
        if let Some(lease) = &change.put {
            last.insert((key.clone(), lease.address), Some(lease.clone()));
        }
    }
    let (mut put, mut remove) = (Vec::new(), Vec::new());
    for (place, lease) in last {
        match lease {
            Some(lease) => put.push(lease),
            None => remove.push(place),
        }
    }
    let mut owned = store.take().ok_or("the store has failed for good")?;
    let write = move || {
        let saved = owned.save(&put, &remove);
        (owned, saved)
    };
    let (owned, saved) = tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?;
    *store = Some(owned);
    saved
}

fn finish(job: Job) {
    if let Some(network) = job.network {
        network.names_changed();
        if let Some(answer) = job.answer {
            answer.send(&network);
        }
    }
}

fn undo(job: &Job) {
    if let Some(network) = &job.network {
        network.leases.borrow_mut().undo(&job.change);
        network.names_changed();
        network.count(|counters| counters.dhcp_unsaved += 1);
    }
}
