//! Where the slot's field shall stand, and who else wants its bits: the registry and a scan of this host, asked for an
//! opinion. What is done about it the engine decides.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use fief_host::HostError;
use fief_host::namespaces::Namespace;
use fief_marks::MarkLayout;
use fief_marks::registry::Registry;
use fief_scan::conflicts::{self, Choice, Conflict, Severity};
use fief_scan::watch::Watch;
use fief_scan::{Report, Scope, Subsystem};

use crate::engine::Handle;

/// A change of rules seldom comes alone.
const QUIET: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5);
/// Looking takes at most this part of the time.
const IDLE_PER_LOOK: u32 = 20;

/// What a look at the host has brought.
pub struct Heard {
    /// What speaks against the field's place.
    pub against: Vec<Conflict>,
    /// Bits that others use.
    pub taken: u32,
}

/// What is known of others: fief's own registry, and the files of this host. One that is wrong is not read, and said so.
pub fn registry(config: &Path) -> Registry {
    Registry::with(&config.join("marks.d")).unwrap_or_else(|error| {
        tracing::error!("the registry of marks is fief's own only: {error}");
        Registry::own()
    })
}

/// The best place for the field; `now` is where it stands, if it does.
pub fn choose(registry: &Registry, now: Option<MarkLayout>) -> Choice {
    conflicts::choose(&look(Scope::ALL).uses, registry, now)
}

/// What speaks against a place: uses on this host that overwrite it, or decide by it.
pub fn against(registry: &Registry, place: MarkLayout, tenants: &BTreeSet<u16>) -> Vec<Conflict> {
    serious(registry, place, tenants, &look(Scope::ALL))
}

fn serious(
    registry: &Registry,
    place: MarkLayout,
    tenants: &BTreeSet<u16>,
    report: &Report,
) -> Vec<Conflict> {
    // Sockets of the tenants that there are carry their tenant.
    let is_own = |what: &fief_scan::Use| {
        what.subsystem == Subsystem::Socket && tenants.contains(&place.number(what.writes))
    };
    let mut found = conflicts::with_field(place.mask(), &report.uses, registry, is_own);
    found.retain(|conflict| conflict.severity > Severity::Notice);
    found
}

fn look(scope: Scope) -> Report {
    let report = fief_scan::scan(&[Namespace::current()], scope, &mut |_| ());
    for failure in &report.failures {
        tracing::warn!("marks: not looked at: {failure}");
    }
    report
}

/// Looks again whenever rules change, and tells the engine who has come; ends when `stop` is readable.
pub fn watch(engine: &Handle, registry: &Registry, stop: &OwnedFd) -> Result<(), HostError> {
    use std::os::fd::AsFd;
    let mut watch = Watch::open()?;
    loop {
        let begin = Instant::now();
        let report = look(Scope { rules: true, flows: false });
        engine.heard_of(Box::new({
            let registry = registry.clone();
            move |place| Heard {
                against: serious(&registry, place, &BTreeSet::new(), &report),
                taken: conflicts::taken(&report.uses, &registry),
            }
        }));
        fief_host::memory::give_back();
        let pause = begin.elapsed() * IDLE_PER_LOOK;
        if !watch.wait(stop.as_fd(), QUIET.max(pause), LONGEST.max(pause)) {
            return Ok(());
        }
    }
}
