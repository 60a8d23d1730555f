//! Where findings go: told apart, counted, and their progress shown.

use std::collections::{BTreeMap, BTreeSet};

use fief_host::HostError;

use crate::uses::{Use, Uses};

/// Everything that one look at one namespace finds.
pub struct Sink<'a> {
    netns: String,
    uses: Uses,
    /// What the subsystem that is being looked at has given so far.
    part: Uses,
    looked_at: u64,
    progress: &'a mut dyn FnMut(u64),
    /// Numbers of the bpf programs that sit on this namespace's devices.
    pub(crate) attached: BTreeSet<u32>,
    /// What could not be looked at, and why.
    pub(crate) failures: BTreeMap<&'static str, String>,
}

/// Progress is shown after each so many objects.
const STEP: u64 = 1000;

impl<'a> Sink<'a> {
    /// For a namespace; `progress` hears now and then how many objects were looked at.
    pub(crate) fn new(netns: String, progress: &'a mut dyn FnMut(u64)) -> Sink<'a> {
        Sink {
            netns,
            uses: Uses::default(),
            part: Uses::default(),
            attached: BTreeSet::new(),
            looked_at: 0,
            progress,
            failures: BTreeMap::new(),
        }
    }

    /// One more object was looked at.
    pub(crate) fn seen(&mut self) {
        self.looked_at += 1;
        if self.looked_at.is_multiple_of(STEP) {
            (self.progress)(STEP);
        }
    }

    /// A use was found; `first` says which object it was, if it is the first of its kind.
    pub(crate) fn add(&mut self, found: Use, first: impl FnOnce() -> String) {
        if found.reads | found.writes != 0 {
            let netns = if found.netns.is_empty() { self.netns.clone() } else { found.netns };
            self.part.add(Use { netns, ..found }, first);
        }
    }

    /// Looks at a part of the kernel: once more when that changed a list while writing it out. What cannot be looked at
    /// is noted; what this kernel does not have has no uses.
    pub(crate) fn look(
        &mut self,
        what: &'static str,
        mut look: impl FnMut(&mut Sink<'a>) -> Result<(), HostError>,
    ) {
        let mut result = look(self);
        if matches!(result, Err(HostError::Overrun)) {
            self.part = Uses::default();
            result = look(self);
        }
        self.uses.extend(std::mem::take(&mut self.part));
        match result {
            Err(HostError::Overrun) => {
                drop(self.failures.insert(what, "it changes too fast; look again".into()))
            }
            Err(error) if !is_absent(&error) => drop(self.failures.insert(what, error.to_string())),
            _ => {}
        }
    }

    /// What was found.
    pub(crate) fn finish(mut self) -> Seen {
        self.uses.extend(self.part);
        (self.progress)(self.looked_at % STEP);
        Seen { uses: self.uses, looked_at: self.looked_at, attached: self.attached, failures: self.failures }
    }
}

/// What one look at one namespace has found.
pub(crate) struct Seen {
    pub uses: Uses,
    pub looked_at: u64,
    pub attached: BTreeSet<u32>,
    pub failures: BTreeMap<&'static str, String>,
}

fn is_absent(error: &HostError) -> bool {
    matches!(
        error.errno(),
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENOPROTOOPT)
    )
}
