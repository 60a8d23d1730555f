//! The door: what the daemon calls.

use std::io;
use std::sync::{Arc, mpsc as answers};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::{Counters, Lease, LeaseStore, NetworkConfig, Sockets};

/// What the thread is asked to do.
pub(crate) enum Command {
    Set(Arc<NetworkConfig>, Option<Box<Sockets>>),
    Remove { key: String, forget: bool, done: answers::Sender<()> },
    Leases(answers::Sender<Vec<Lease>>),
    Counters(String, answers::Sender<Option<Counters>>),
}

/// The services of all networks. Dropping it ends them, after what is being saved is saved.
#[derive(Debug)]
pub struct Services {
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Services {
    /// Loads the leases and starts the thread, which has no network yet.
    ///
    /// # Errors
    /// When the leases cannot be loaded, or there can be no thread.
    pub fn start(mut store: Box<dyn LeaseStore>) -> io::Result<Services> {
        let leases = store.load().map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // The one that waits for the disk; it ends when there is nothing to save for a while.
            .max_blocking_threads(1)
            .build()?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("services".to_owned())
            .spawn(move || runtime.block_on(crate::room::run(store, leases, inbox)))?;
        Ok(Services { commands: Some(commands), thread: Some(thread) })
    }

    /// Adds a network or replaces its configuration. Returns at once; calls are carried out in their order.
    ///
    /// With `sockets` the network serves from these and lets go of those it had; with `None` it keeps them, and no
    /// packet that waits in them is lost. Leases stay. One whose address no longer fits (outside of a changed range, or
    /// reserved for another) is honoured until its client renews, and then refused.
    pub fn set(&self, config: impl Into<Arc<NetworkConfig>>, sockets: Option<Sockets>) {
        self.send(Command::Set(config.into(), sockets.map(Box::new)));
    }

    /// Ends a network's services. When this returns its sockets are closed, so that others can have their addresses.
    ///
    /// With `forget_leases` its leases are removed from the store too; else they are there when the network comes back. A
    /// network that does not exist is passed over.
    pub fn remove(&self, key: &str, forget_leases: bool) {
        let (key, forget) = (key.to_owned(), forget_leases);
        self.ask(|done| Command::Remove { key, forget, done }).unwrap_or_default()
    }

    /// Every lease that has not ended, of all networks, by network and address. Waits for the thread.
    pub fn leases(&self) -> Vec<Lease> {
        self.ask(Command::Leases).unwrap_or_default()
    }

    /// What happened on this network; `None` where there is none of this name. Waits for the thread.
    pub fn counters(&self, key: &str) -> Option<Counters> {
        self.ask(|answer| Command::Counters(key.to_owned(), answer)).flatten()
    }

    fn ask<T>(&self, command: impl FnOnce(answers::Sender<T>) -> Command) -> Option<T> {
        let (answer, wait) = answers::channel();
        self.send(command(answer));
        wait.recv().ok()
    }

    fn send(&self, command: Command) {
        let sent = self.commands.as_ref().is_some_and(|commands| commands.send(command).is_ok());
        if !sent {
            tracing::error!("the services have ended before their time");
        }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
