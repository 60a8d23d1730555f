//! The thread: which networks there are, and what is asked of them.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, mpsc as answers};
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use crate::saver::{Job, Saver};
use crate::serve::Network;
use crate::serve::metadata::Site;
use crate::services::Command;
use crate::{Lease, LeaseStore, NetworkConfig, Sockets};

/// Carries out commands until there is nobody left to give any, and ends when everything is saved.
pub(crate) async fn run(
    store: Box<dyn LeaseStore>,
    leases: Vec<Lease>,
    mut inbox: mpsc::UnboundedReceiver<Command>,
) {
    let local = LocalSet::new();
    let (saver, saving) = Saver::new(store);
    let saving = local.spawn_local(saving);
    let work = async move {
        let mut room = Room::new(leases, saver);
        while let Some(command) = inbox.recv().await {
            room.carry_out(command);
        }
        room.stop();
    };
    local.run_until(work).await;
    if local.run_until(saving).await.is_err() {
        tracing::error!("leases may not have been saved");
    }
}

/// All networks.
struct Room {
    networks: HashMap<String, Rc<Network>>,
    sites: HashMap<u64, Rc<Site>>,
    /// Leases of networks that are not here, or not yet.
    stored: HashMap<String, Vec<Lease>>,
    saver: Saver,
}

impl Room {
    fn new(leases: Vec<Lease>, saver: Saver) -> Room {
        let mut stored: HashMap<String, Vec<Lease>> = HashMap::new();
        for lease in leases {
            stored.entry(lease.network.clone()).or_default().push(lease);
        }
        Room { networks: HashMap::new(), sites: HashMap::new(), stored, saver }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Set(config, sockets) => self.set(config, sockets.map(|sockets| *sockets)),
            Command::Remove { key, forget, done } => self.remove(&key, forget, done),
            // Who asked may be gone by now.
            Command::Leases(answer) => answer.send(self.leases()).unwrap_or_default(),
            Command::Counters(key, answer) => {
                let counters = self.networks.get(&key).map(|network| network.counters());
                answer.send(counters).unwrap_or_default();
            }
        }
    }

    fn set(&mut self, config: Arc<NetworkConfig>, sockets: Option<Sockets>) {
        let (key, namespace) = (config.key.clone(), config.namespace);
        let network = match self.networks.get(&key) {
            Some(network) => {
                let moved = network.config().namespace != namespace;
                let network = Rc::clone(network);
                if moved {
                    drop(self.leave(&network));
                }
                network.configure(config);
                network
            }
            None => {
                let leases = self.stored.remove(&key).unwrap_or_default();
                let network = Network::new(config, leases, self.saver.clone());
                self.networks.insert(key.clone(), Rc::clone(&network));
                network
            }
        };
        let site = self.sites.entry(namespace).or_default();
        site.join(&network);
        if let Some(mut sockets) = sockets {
            if let Some(listener) = sockets.metadata.take()
                && let Err(error) = site.listen(listener)
            {
                tracing::error!(network = key, %error, "no metadata here: its socket cannot be used");
            }
            network.listen(sockets);
        }
    }

    fn remove(&mut self, key: &str, forget: bool, done: answers::Sender<()>) {
        let mut leases = self.stored.remove(key).unwrap_or_default();
        let mut ended = Vec::new();
        if let Some(network) = self.networks.remove(key) {
            ended.extend(self.leave(&network));
            ended.extend(network.stop());
            leases.extend(network.leases.borrow().leases().cloned());
        }
        tokio::task::spawn_local(async move {
            for mut tasks in ended {
                tasks.shutdown().await;
            }
            // Who asked may be gone by now.
            done.send(()).unwrap_or_default();
        });
        if forget {
            let addresses: Vec<_> = leases.iter().map(|lease| lease.address).collect();
            if !addresses.is_empty() {
                self.saver.add(Job::forget(key.to_owned(), addresses));
            }
        } else if !leases.is_empty() {
            self.stored.insert(key.to_owned(), leases);
        }
    }

    /// Takes a network out of its site; the site's task is to end if it was the last.
    fn leave(&mut self, network: &Rc<Network>) -> Option<JoinSet<()>> {
        let namespace = network.config().namespace;
        let last = self.sites.get(&namespace).is_some_and(|site| site.leave(network));
        let site = if last { self.sites.remove(&namespace) } else { None };
        site.map(|site| site.stop())
    }

    fn leases(&self) -> Vec<Lease> {
        let now = SystemTime::now();
        let served = self
            .networks
            .values()
            .flat_map(|network| network.leases.borrow().leases().cloned().collect::<Vec<_>>());
        let mut leases: Vec<Lease> = served.chain(self.stored.values().flatten().cloned()).collect();
        leases.retain(|lease| lease.expires > now);
        leases.sort_by(|a, b| (&a.network, a.address).cmp(&(&b.network, b.address)));
        leases
    }

    /// Ends all networks, so that nothing holds on to the saver.
    fn stop(&mut self) {
        self.sites.clear();
        for (_, network) in self.networks.drain() {
            drop(network.stop());
        }
    }
}
