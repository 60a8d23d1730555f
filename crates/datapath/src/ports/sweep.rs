//! Conversations that are known at ports (bpf/lib/track.h): taking out what is over, which makes room, and telling of those
//! that began before anybody watched.

use std::collections::{HashMap as Table, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};

use super::entries::{Conversation, Record, Share, Usage, Young, family};
use super::{Ports, lock};
use crate::DatapathError;
use crate::maps::{map_error, patiently, take};

/// As bpf/lib/track.h has them.
const BEGUN_HERE: u32 = 1;
const ANSWERED: u32 = 2;
const ENDED: u32 = 4 | 8;
const RESET: u32 = 16;
/// The share of all spaces together.
const EVERYBODY: u32 = 0;

pub(crate) struct Records {
    answered: HashMap<MapData, Conversation, Record>,
    young: HashMap<MapData, Young, Record>,
    usage: HashMap<MapData, u32, Usage>,
    shares: HashMap<MapData, u32, Share>,
    /// Is anything of that needed?
    is_judging: bool,
}

/// A conversation that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversing {
    /// The protocol of IP.
    pub protocol: u8,
    /// The endpoint's end.
    pub own: SocketAddr,
    /// The other end.
    pub other: SocketAddr,
    /// Did the endpoint begin it?
    pub begun_here: bool,
}

impl Records {
    pub(super) fn open(programs: &mut Ebpf, is_judging: bool) -> Result<Records, DatapathError> {
        fn open<K: aya::Pod, V: aya::Pod>(
            programs: &mut Ebpf,
            name: &'static str,
        ) -> Result<HashMap<MapData, K, V>, DatapathError> {
            HashMap::try_from(take(programs, name)?).map_err(|e| map_error(name, &e))
        }
        Ok(Records {
            answered: open(programs, "fief_conversation")?,
            young: open(programs, "fief_young")?,
            usage: open(programs, "fief_usage")?,
            shares: open(programs, "fief_share")?,
            is_judging,
        })
    }

    /// Begins to count what a port uses, and all of its space, unless that is counted.
    pub(super) fn open_port(&mut self, device: u32, space: u32) -> Result<(), DatapathError> {
        if self.is_judging {
            for space in [EVERYBODY, space] {
                added(patiently(|| self.shares.insert(space, Share::default(), NO_EXIST)), "fief_share")?;
            }
        }
        let usage = match self.usage.get(&device, 0) {
            Ok(usage) if usage.space == space => return Ok(()),
            // Its conversations count for the other one until they are counted anew.
            Ok(usage) => Usage { space, ..usage },
            Err(_) => Usage { space, ..Usage::default() },
        };
        patiently(|| self.usage.insert(device, usage, 0)).map_err(|e| map_error("fief_usage", &e))
    }

    pub(super) fn close_port(&mut self, device: u32) -> Result<(), DatapathError> {
        gone(self.usage.remove(&device), "fief_usage")
    }

    fn remember(
        &mut self,
        device: u32,
        stamp: u64,
        now: Duration,
        known: &Conversing,
    ) -> Result<(), DatapathError> {
        let (kind, own) = family(known.own.ip());
        let whose = Conversation {
            device,
            family: if kind == 4 { 4 } else { 6 },
            protocol: known.protocol,
            reserved: 0,
            own,
            other: family(known.other.ip()).1,
            own_port: known.own.port(),
            other_port: known.other.port(),
        };
        let begun = if known.begun_here { BEGUN_HERE } else { 0 };
        let seen = nanoseconds(now);
        let record = Record { state: begun | ANSWERED, reserved: 0, stamp, seen, whose, behind: 0 };
        patiently(|| self.answered.insert(whose, record, 0)).map_err(|e| map_error("fief_conversation", &e))
    }

    /// Takes out what is over, and what was known at ports that are not there any more.
    fn sweep(&mut self, now: Duration) -> Result<usize, DatapathError> {
        let ports: HashSet<u32> = self.usage.keys().filter_map(Result::ok).collect();
        self.sweep_out(|whose, record| !ports.contains(&whose.device) || is_over(whose, record, now))
    }

    /// Returns how many went.
    fn sweep_out(
        &mut self,
        is_over: impl Fn(&Conversation, &Record) -> bool,
    ) -> Result<usize, DatapathError> {
        // What stays at each port.
        let mut stays = Table::<u32, Share>::new();
        let mut over = Vec::new();
        for entry in self.answered.iter() {
            match entry {
                Ok((key, record)) if is_over(&key, &record) => over.push(key),
                Ok((key, _)) => stays.entry(key.device).or_default().answered += 1,
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(map_error("fief_conversation", &error)),
            }
        }
        over.iter().try_for_each(|key| gone(self.answered.remove(key), "fief_conversation"))?;
        let swept = over.len();
        let mut over = Vec::new();
        for entry in self.young.iter() {
            match entry {
                Ok((key, record)) if is_over(&record.whose, &record) => over.push(key),
                Ok((key, _)) => stays.entry(key.device).or_default().waiting += 1,
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(map_error("fief_young", &error)),
            }
        }
        over.iter().try_for_each(|key| gone(self.young.remove(key), "fief_young"))?;
        self.count(&stays)?;
        Ok(swept + over.len())
    }

    /// Sets what ports and spaces have to what was found. Programs count as they add; what they add meanwhile is a few.
    fn count(&mut self, stays: &Table<u32, Share>) -> Result<(), DatapathError> {
        let mut shares = Table::<u32, Share>::from([(EVERYBODY, Share::default())]);
        let ports: Vec<(u32, Usage)> = self.usage.iter().filter_map(Result::ok).collect();
        for (device, usage) in ports {
            let Share { waiting, answered } = stays.get(&device).copied().unwrap_or_default();
            for space in [usage.space, EVERYBODY] {
                let share = shares.entry(space).or_default();
                share.waiting += waiting;
                share.answered += answered;
            }
            if usage.answered != answered {
                gone(self.usage.insert(device, Usage { answered, ..usage }, EXIST), "fief_usage")?;
            }
        }
        let counted: Vec<(u32, Share)> = self.shares.iter().filter_map(Result::ok).collect();
        for (space, share) in counted {
            match shares.get(&space) {
                Some(found) if *found == share => {}
                Some(found) => gone(self.shares.insert(space, *found, EXIST), "fief_share")?,
                // The last of its ports is gone.
                None => gone(self.shares.remove(&space), "fief_share")?,
            }
        }
        Ok(())
    }
}

/// Flags of bpf(2) for an element that must not be there yet, and for one that must.
const NO_EXIST: u64 = 1;
const EXIST: u64 = 2;

/// What is there already is no failure.
fn added(done: Result<(), MapError>, name: &'static str) -> Result<(), DatapathError> {
    match done {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        done => done.map_err(|e| map_error(name, &e)),
    }
}

/// What is gone already is no failure.
fn gone(done: Result<(), MapError>, name: &'static str) -> Result<(), DatapathError> {
    match done {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        done => done.map_err(|e| map_error(name, &e)),
    }
}

/// `patience` of bpf/lib/track.h, and a while more: whoever is about to be late is not taken out under the programs' hands.
fn is_over(key: &Conversation, record: &Record, now: Duration) -> bool {
    let ended = record.state & ENDED;
    let seconds = match i32::from(key.protocol) {
        libc::IPPROTO_TCP | libc::IPPROTO_SCTP => {
            if record.state & RESET != 0 || ended == ENDED {
                10
            } else if record.state & ANSWERED == 0 {
                120
            } else if ended != 0 {
                300
            } else {
                7440
            }
        }
        libc::IPPROTO_UDP if record.state & ANSWERED != 0 => 300,
        libc::IPPROTO_UDP => 60,
        _ => 30,
    };
    now.saturating_sub(Duration::from_nanos(record.seen)) > Duration::from_secs(seconds + 5)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Ports {
    /// Takes out conversations that are over, at a time since the host started (CLOCK_MONOTONIC); returns how many.
    pub fn sweep(&self, now: Duration) -> Result<usize, DatapathError> {
        lock(&self.records).sweep(now)
    }

    /// Nothing is known of any conversation any more.
    pub fn forget(&self) -> Result<(), DatapathError> {
        lock(&self.records).sweep_out(|_, _| true).map(drop)
    }

    /// A conversation that goes on at a port since before it was watched. It is judged by the rules at its next packet.
    pub fn remember(&self, device: u32, now: Duration, known: &Conversing) -> Result<(), DatapathError> {
        lock(&self.records).remember(device, u64::MAX, now, known)
    }
}
