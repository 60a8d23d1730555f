//! How others speak to the engine's thread: what they ask lies in a channel, and a bell wakes it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use fief_marks::MarkLayout;
use tokio::sync::{oneshot, watch};

use super::Engine;
use crate::arbiter::Heard;

/// A piece of work for the engine's thread.
pub(super) type Job = Box<dyn FnOnce(&mut Engine) + Send>;
/// A question about how things stand; it is answered in the middle of long work too.
pub(super) type View = Box<dyn FnOnce(&Engine) + Send>;

/// How others speak to the engine.
#[derive(Clone)]
pub struct Handle {
    pub(super) jobs: Sender<Job>,
    pub(super) views: Sender<View>,
    pub(super) bell: Arc<OwnedFd>,
    pub(super) revision: watch::Receiver<u64>,
}

impl Handle {
    /// Runs a piece of work on the engine's thread and waits for its result. `None` when the engine is gone.
    pub async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |engine| drop(reply.send(work(engine)))));
        answer.await.ok()
    }

    /// Looks at the engine, between two steps of whatever it is doing. `None` when it is gone.
    pub async fn view<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        if self.views.send(Box::new(move |engine| drop(reply.send(look(engine))))).is_ok() {
            self.ring();
        }
        answer.await.ok()
    }

    /// Tells the engine what others do with marks, given where its field is.
    pub fn heard_of(&self, look: Box<dyn FnOnce(MarkLayout) -> Heard + Send>) {
        self.send(Box::new(move |engine| {
            if let Some(positions) = engine.positions() {
                engine.heard(look(positions.read));
            }
        }));
    }

    /// Has the engine ended?
    pub fn is_over(&self) -> bool {
        self.revision.has_changed().is_err()
    }

    /// Tells the engine to end after what it is doing.
    pub fn stop(&self) {
        self.send(Box::new(|engine| engine.stop = true));
    }

    /// The number that grows with every change of a tenant or its status.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    fn send(&self, job: Job) {
        if self.jobs.send(job).is_ok() {
            self.ring();
        }
    }

    fn ring(&self) {
        ring(&self.bell);
    }
}

/// Wakes the engine.
pub(super) fn ring(bell: &OwnedFd) {
    // A full counter (2^64 - 2 rings) is the only failure, and then the bell rings anyway.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}
