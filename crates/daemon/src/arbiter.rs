//! Where the slot's field shall stand, and who else wants its bits: the registry and a scan of this host, asked for an
//! opinion. What is done about it the engine decides.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use fief_host::HostError;
use fief_host::namespaces::Namespace;
use fief_marks::MarkLayout;
use fief_marks::collide::Demand;
use fief_marks::registry::Registry;
use fief_scan::conflicts::{self, Choice, Conflict, Severity};
use fief_scan::watch::Watch;
use fief_scan::{Found, Report, Scope};

use crate::engine::Handle;

/// What other parts of fief ask for beside the slot: none does yet.
const DEMANDS: [Demand<'static>; 0] = [];
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

/// Where the field is, and which tenants' numbers stand in it.
pub type Now = (MarkLayout, BTreeSet<u16>);

/// The best place for the field; `now` is where it stands, if it does.
pub fn choose(registry: &Registry, now: Option<Now>) -> Choice {
    conflicts::choose(
        &others(registry, Scope::ALL, now.as_ref()),
        registry,
        now.map(|(field, _)| field),
        &DEMANDS,
    )
}

/// What speaks against a place: uses on this host that overwrite it, or decide by it.
pub fn against(registry: &Registry, place: MarkLayout, now: &Now) -> Vec<Conflict> {
    serious(registry, place, &others(registry, Scope::ALL, Some(now)))
}

fn serious(registry: &Registry, place: MarkLayout, uses: &[Found]) -> Vec<Conflict> {
    let mut found = conflicts::with_field(place.mask(), uses, registry);
    found.retain(|conflict| conflict.severity > Severity::Notice);
    found
}

/// What others do on this host.
fn others(registry: &Registry, scope: Scope, now: Option<&Now>) -> Vec<Found> {
    let uses = look(scope).uses;
    match now {
        Some((field, tenants)) => conflicts::without_own(uses, registry, *field, tenants),
        None => uses,
    }
}

fn look(scope: Scope) -> Report {
    let report = fief_scan::scan(&[Namespace::current()], scope, &mut |_| ());
    for failure in &report.failures {
        tracing::warn!("marks: not looked at: {failure}");
    }
    report
}

/// Looks again whenever rules change, or somebody rings, and tells the engine who has come; ends with the engine.
pub fn watch(engine: &Handle, config: &Path, bell: &OwnedFd) -> Result<(), HostError> {
    let mut watch = Watch::open()?;
    while !engine.is_over() {
        let begin = Instant::now();
        let registry = registry(config);
        let uses = others(&registry, Scope { rules: true, flows: false }, None);
        engine.heard_of(Box::new(move |place| Heard {
            against: serious(&registry, place, &uses),
            taken: conflicts::taken(&uses, &registry),
        }));
        fief_host::memory::give_back();
        let pause = begin.elapsed() * IDLE_PER_LOOK;
        watch.wait(bell.as_fd(), QUIET.max(pause), LONGEST.max(pause))?;
    }
    Ok(())
}
