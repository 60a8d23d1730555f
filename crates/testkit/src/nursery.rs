//! The thread that starts a lab's programs and mounts its names.
//!
//! Two things in Linux belong to a thread: the mount namespace made by `unshare(CLONE_NEWNS)`, and the parent in
//! `PR_SET_PDEATHSIG`, which is the thread that forked and not its process. So one thread that lives as long as the lab
//! does all of it; a child started from a short-lived thread would be killed when that thread ends.

use std::sync::mpsc;

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the thread. It ends when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Nursery {
    jobs: mpsc::Sender<Job>,
}

impl Nursery {
    /// Starts the thread in the mount namespace of the caller.
    pub(crate) fn start() -> Nursery {
        let (jobs, work) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name("nursery".into());
        let run = move || work.into_iter().for_each(|job| job());
        thread.spawn(run).expect("a thread can be started");
        Nursery { jobs }
    }

    /// Runs `work` there and waits for its value.
    pub(crate) fn call<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, value) = mpsc::sync_channel(1);
        let job = move || {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            drop(answer.send(done));
        };
        self.jobs.send(Box::new(job)).expect("the nursery outlives its handles");
        match value.recv().expect("the nursery answers every job") {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
