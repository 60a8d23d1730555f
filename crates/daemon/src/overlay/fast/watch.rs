//! Interfaces go with their namespaces, and the card may change its address: both are events of netlink.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fief_host::HostError;
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::{Fast, underlay};

/// RTNLGRP_* (linux/rtnetlink.h).
const GROUPS: [u32; 3] = [1, 5, 9];
/// Events come in crowds.
const BREATH: Duration = Duration::from_millis(200);
/// How often it is looked whether there is something to listen to: only while there is not.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps the fast path as the interfaces want it, until the runtime ends.
pub async fn watch(fast: Arc<Mutex<Fast>>, begun: Arc<Notify>) {
    loop {
        if follow(&fast).await.is_none() {
            // Nobody is on a segment: the next who joins says so.
            begun.notified().await;
        }
    }
}

/// Listens while there is an overlay. `None` once there is none.
async fn follow(fast: &Arc<Mutex<Fast>>) -> Option<()> {
    let (inside, outside) = sockets(fast)?;
    let (mut inside, mut outside) = match (Ears::open(&inside), Ears::open(&outside)) {
        (Ok(inside), Ok(outside)) => (inside, outside),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "what becomes of interfaces on segments is not heard of");
            tokio::time::sleep(PAUSE).await;
            return Some(());
        }
    };
    loop {
        tokio::select! {
            heard = inside.hear() => heard.ok()?,
            heard = outside.hear() => heard.ok()?,
        }
        tokio::time::sleep(BREATH).await;
        inside.socket.discard();
        outside.socket.discard();
        let fast = fast.clone();
        let refreshed = tokio::task::spawn_blocking(move || {
            let mut fast = fast.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = fast.refresh() {
                tracing::warn!(%error, "segments are not as their interfaces want them");
            }
            fast.namespace.exists()
        });
        if !refreshed.await.ok()? {
            return None;
        }
    }
}

fn sockets(fast: &Arc<Mutex<Fast>>) -> Option<(Namespace, Namespace)> {
    let fast = fast.lock().unwrap_or_else(PoisonError::into_inner);
    Some((Namespace::at(&fast.namespace).ok()?, underlay::home(&fast.config).ok()?))
}

/// A socket that hears of changes.
struct Ears {
    socket: Socket,
    ready: AsyncFd<OwnedFd>,
}

impl Ears {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; an OwnedFd owns what is registered, which is what that asks for"
    )]
    fn open(namespace: &Namespace) -> Result<Ears, HostError> {
        let what = |error| HostError::io("listen to events", error);
        let socket = Socket::open_in(namespace, libc::NETLINK_ROUTE)?;
        // In this order: to bind it would end the subscriptions (netlink_bind).
        socket.bind()?;
        GROUPS.iter().try_for_each(|group| socket.subscribe(*group))?;
        let ready = socket.as_fd().try_clone_to_owned().map_err(what)?;
        let ready = AsyncFd::new(ready).map_err(what)?;
        Ok(Ears { socket, ready })
    }

    async fn hear(&mut self) -> std::io::Result<()> {
        self.ready.readable().await?.clear_ready();
        Ok(())
    }
}
