//! Who asks for an interface on a segment, and from which namespace: the kernel says both.

use std::sync::{Arc, Mutex, PoisonError};

use fief_api::{JoinRequest, OverlayCounters, OverlayView};
use fief_host::namespaces::Namespace;
use fief_overlay::Rules;
use nix::unistd::Group;
use tokio::sync::Notify;

use super::broker::Broker;
use super::fast::{self, Fast, Refusal, Wish};
use super::who;
use crate::members::Caller;

/// The fast path for whoever asks.
#[derive(Clone)]
pub struct Joins {
    fast: Arc<Mutex<Fast>>,
    broker: Arc<Broker>,
    rules: Rules,
    begun: Arc<Notify>,
}

impl Joins {
    /// Takes over what an earlier daemon left.
    pub fn adopt(mut fast: Fast, broker: Arc<Broker>, rules: Rules) -> Joins {
        if let Err(error) = fast.adopt() {
            tracing::error!(%error, "segments of the overlay are not as their interfaces want them");
        }
        Joins { fast: Arc::new(Mutex::new(fast)), broker, rules, begun: Arc::new(Notify::new()) }
    }

    /// Keeps things so, until the runtime ends.
    pub async fn watch(self) {
        fast::watch(self.fast, self.begun).await;
    }

    /// Does this where waiting harms nobody.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Fast) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let fast = self.fast.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(&mut fast.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await.unwrap_or_else(|error| Err(Refusal::Unavailable(error.to_string())))
    }

    /// Gives the caller's namespace an interface.
    pub async fn join(&self, caller: Caller, request: JoinRequest) -> Result<OverlayView, Refusal> {
        let (rules, begun) = (self.rules, self.begun.clone());
        let joined = self.with(move |fast| {
            let namespace = namespace_of(&caller)?;
            let asked = request.group.as_deref().map(group).transpose()?;
            // Root may become a member of any group, and need not do it first.
            let asker = match asked {
                Some(group) if caller.user == 0 => Caller { groups: vec![group], ..caller.clone() },
                _ => caller.clone(),
            };
            let segment = who::segment(&asker, asked, request.network.unwrap_or(0), &rules)
                .map_err(|e| Refusal::Forbidden(e.to_string()))?;
            let device = request.device.unwrap_or_else(|| fief_api::overlays::DEVICE.into());
            fast.join(&Wish { segment, user: caller.user, device, mtu: request.mtu }, namespace)
        });
        let joined = joined.await?;
        begun.notify_one();
        Ok(joined)
    }

    /// What was counted for all segments: frames of the fast path, and refusals of guarded sockets.
    pub async fn counters(&self) -> Result<OverlayCounters, Refusal> {
        let broker = self.broker.clone();
        self.with(move |fast| Ok(OverlayCounters { refused: broker.refused(), ..fast.counters() })).await
    }

    /// Takes one away.
    pub async fn leave(&self, caller: Caller, device: String) -> Result<OverlayView, Refusal> {
        self.with(move |fast| fast.leave(caller.user, &device, &namespace_of(&caller)?)).await
    }
}

/// Where the caller is.
fn namespace_of(caller: &Caller) -> Result<Namespace, Refusal> {
    let unknown = || Refusal::Unavailable("the kernel does not say which process asks".into());
    let process = caller.process.as_ref().ok_or_else(unknown)?;
    Namespace::of_process(process.as_ref()).map_err(|e| Refusal::Unavailable(e.to_string()))
}

fn group(name: &str) -> Result<u32, Refusal> {
    let known = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    let unknown = || Refusal::Wrong(format!("there is no group {name}; name one by name or number"));
    name.parse().ok().or_else(known).ok_or_else(unknown)
}
