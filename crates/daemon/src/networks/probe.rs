//! Probing uplinks: a gateway can be dead behind a wire that is well.
//!
//! ```text
//!   fiefd.yaml, observed ── wanted: who is asked, by which device ──▶ thread ── one socket a question ──▶ wire
//!                           wanted: does it work  ◀── who is silent ◀─┘ rings when a verdict changes
//! ```
//!
//! Probes belong to an uplink, however many networks use it. One thread asks for all of them and sleeps in between;
//! there is none until something is to be asked, and a device that is down, or no network's, is not asked. What is not
//! known answers. Who is silent is kept in a file below /run, so that a daemon that starts again does not send
//! everybody to an uplink that is known to be dead; after a boot everything is open again.
//!
//! The questions are our own: `surge-ping` and its like have no ARP, and want an async runtime for what is one poll.

mod round;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fief_host::probe::Target;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use serde::{Deserialize, Serialize};

use round::{Watch, pause};

/// How an uplink is probed on this host now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The uplink.
    pub uplink: String,
    /// The device's number.
    pub device: u32,
    /// The address that asks.
    pub source: Ipv4Addr,
    /// Who is asked.
    pub targets: Vec<Target>,
    /// From one round to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Rounds in a row without an answer until it is silent.
    pub fall: u32,
    /// Rounds in a row with an answer until it is not.
    pub rise: u32,
}

/// An uplink that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Probes that were lost in a row.
    lost: u32,
    /// Who was asked.
    targets: Vec<String>,
}

/// Who is silent, and who watches.
pub struct Probes {
    told: Vec<Probe>,
    /// The thread's ear, once there is a thread.
    thread: Option<(Sender<Vec<Probe>>, Arc<OwnedFd>)>,
    shared: Arc<Shared>,
}

/// What the thread and the engine both look at.
struct Shared {
    silent: Mutex<BTreeMap<String, Silence>>,
    news: AtomicBool,
    bell: Arc<dyn Fn() + Send + Sync>,
    file: PathBuf,
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = if self.lost == 1 { "" } else { "s" };
        write!(f, "does not answer: {} probe{s} to {} lost", self.lost, self.targets.join(" and "))
    }
}

impl Probes {
    /// Nobody is asked yet. `bell` is rung when there is news; `run` is where a daemon leaves what lasts until the next
    /// boot.
    pub fn new(run: &Path, bell: Arc<dyn Fn() + Send + Sync>) -> Probes {
        let file = run.join("silent-uplinks.json");
        let known = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let silent = Mutex::new(known.unwrap_or_default());
        let shared = Shared { silent, news: AtomicBool::new(false), bell, file };
        Probes { told: Vec::new(), thread: None, shared: Arc::new(shared) }
    }

    /// The uplinks that do not answer.
    pub fn silent(&self) -> BTreeMap<String, Silence> {
        self.shared.silent().clone()
    }

    /// Has that changed since somebody last asked?
    pub fn take_news(&self) -> bool {
        self.shared.news.swap(false, Ordering::AcqRel)
    }

    /// Asks these, and no others. Nothing is believed of an uplink that is not in `known`: it is not to be probed, or
    /// is nobody's.
    pub fn watch(&mut self, probes: Vec<Probe>, known: &BTreeSet<&str>) {
        self.shared.change(|silent| silent.retain(|uplink, _| known.contains(uplink.as_str())));
        if self.told == probes {
            return;
        }
        if self.thread.is_none() {
            self.thread = begin(self.shared.clone())
                .inspect_err(|error| tracing::error!(%error, "uplinks are not probed"))
                .ok();
        }
        let Some((orders, bell)) = &self.thread else { return };
        if orders.send(probes.clone()).is_ok() {
            ring(bell);
            self.told = probes;
        }
    }
}

impl Drop for Probes {
    /// The thread hears that nobody is there to tell it anything.
    fn drop(&mut self) {
        if let Some((orders, bell)) = self.thread.take() {
            drop(orders);
            ring(&bell);
        }
    }
}

impl Shared {
    fn silent(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Silence>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes who is silent, here and in the file. Says whether anything was changed.
    fn change(&self, how: impl FnOnce(&mut BTreeMap<String, Silence>)) -> bool {
        let mut silent = self.silent();
        let before = silent.clone();
        how(&mut silent);
        if *silent == before {
            return false;
        }
        if let Err(error) = keep(&self.file, &silent) {
            tracing::warn!(%error, file = %self.file.display(), "who is silent is forgotten with this daemon");
        }
        true
    }
}

fn keep(file: &Path, silent: &BTreeMap<String, Silence>) -> std::io::Result<()> {
    if silent.is_empty() {
        return match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    // The old one or the new one, never half of it.
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec(silent)?)?;
    std::fs::rename(fresh, file)
}

fn ring(bell: &OwnedFd) {
    // A full counter is the only failure, and then it rings anyway.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

fn begin(shared: Arc<Shared>) -> std::io::Result<(Sender<Vec<Probe>>, Arc<OwnedFd>)> {
    let (orders, ear) = channel();
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let own = bell.clone();
    std::thread::Builder::new().name("probes".into()).spawn(move || run(&ear, &own, &shared))?;
    Ok((orders, bell))
}

/// Asks until nobody is there any more who wants to know.
fn run(orders: &Receiver<Vec<Probe>>, bell: &OwnedFd, shared: &Shared) {
    let mut watches = Vec::<Watch>::new();
    loop {
        match latest(orders) {
            Ok(Some(probes)) => take_over(&mut watches, probes, shared),
            Ok(None) => {}
            Err(Gone) => return,
        }
        watches.iter_mut().for_each(|watch| watch.begin(Instant::now()));
        if let Err(error) = wait(&watches, bell) {
            tracing::error!(%error, "waiting failed: uplinks are not probed any more");
            return;
        }
        let mut news = false;
        for watch in &mut watches {
            if let Some(answers) = watch.settle(Instant::now) {
                news |= pronounce(&watch.probe, answers, shared);
            }
        }
        if news {
            shared.news.store(true, Ordering::Release);
            (shared.bell)();
        }
    }
}

/// The other side is gone.
struct Gone;

/// The newest order, if there is one.
fn latest(orders: &Receiver<Vec<Probe>>) -> Result<Option<Vec<Probe>>, Gone> {
    let mut last = None;
    loop {
        match orders.try_recv() {
            Ok(probes) => last = Some(probes),
            Err(TryRecvError::Empty) => return Ok(last),
            Err(TryRecvError::Disconnected) => return Err(Gone),
        }
    }
}

/// What is believed of an uplink stays, whatever becomes of its addresses.
fn take_over(watches: &mut Vec<Watch>, probes: Vec<Probe>, shared: &Shared) {
    let now = Instant::now();
    let mut before: BTreeMap<String, Watch> =
        watches.drain(..).map(|watch| (watch.probe.uplink.clone(), watch)).collect();
    let silent = shared.silent();
    watches.extend(probes.into_iter().map(|probe| match before.remove(&probe.uplink) {
        Some(mut watch) => {
            watch.change(probe, now);
            watch
        }
        None => {
            let answers = !silent.contains_key(&probe.uplink);
            Watch::new(probe, answers, now)
        }
    }));
}

fn pronounce(probe: &Probe, answers: bool, shared: &Shared) -> bool {
    let uplink = &probe.uplink;
    let name = |target: &Target| match target {
        Target::Neighbour(address) | Target::Echo(address) => address.to_string(),
        Target::Tcp(address) => address.to_string(),
    };
    let silence = Silence { lost: probe.fall, targets: probe.targets.iter().map(name).collect() };
    if answers {
        tracing::info!(uplink, "answers again");
    } else {
        tracing::warn!(uplink, "{silence}");
    }
    shared.change(|silent| match answers {
        true => drop(silent.remove(uplink)),
        false => drop(silent.insert(uplink.clone(), silence)),
    })
}

/// Sleeps until something comes, or something is to be done.
fn wait(watches: &[Watch], bell: &OwnedFd) -> std::io::Result<()> {
    let pause = pause(watches, Instant::now());
    let pause =
        pause.map(|p| Timespec { tv_sec: p.as_secs().cast_signed(), tv_nsec: p.subsec_nanos().into() });
    let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
    fds.extend(watches.iter().flat_map(Watch::questions).map(|question| {
        let comes = if question.is_written() { PollFlags::OUT } else { PollFlags::IN };
        PollFd::from_borrowed_fd(question.as_fd(), comes)
    }));
    match poll(&mut fds, pause.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    // EAGAIN only says that nobody rang.
    let _ = rustix::io::read(bell, &mut [0; 8]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence() -> Silence {
        Silence { lost: 3, targets: vec!["192.0.2.1".into(), "192.0.2.2:53".into()] }
    }

    #[test]
    fn silence_says_who_was_asked() {
        assert_eq!(silence().to_string(), "does not answer: 3 probes to 192.0.2.1 and 192.0.2.2:53 lost");
    }

    #[test]
    fn who_is_silent_is_known_to_the_next_daemon_until_it_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Probes::new(dir.path(), Arc::new(|| {}));
        let first = open();
        assert!(first.silent().is_empty());
        assert!(first.shared.change(|silent| drop(silent.insert("eth0".into(), silence()))));
        let mut second = open();
        assert_eq!(second.silent(), BTreeMap::from([("eth0".into(), silence())]));
        second.watch(Vec::new(), &BTreeSet::from(["eth0"]));
        assert_eq!(second.silent().len(), 1, "it is down, say, and was silent");
        second.watch(Vec::new(), &BTreeSet::new());
        assert!(open().silent().is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing known, nothing kept");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("silent-uplinks.json"), "{").unwrap();
        assert!(Probes::new(dir.path(), Arc::new(|| {})).silent().is_empty());
    }
}
