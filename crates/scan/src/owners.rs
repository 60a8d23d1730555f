//! Whose a use is: by the names of its things, else by a value that only one software is known to use.

use fief_marks::registry::{Mark, Masked, Registry, Software};
use serde::Serialize;

use crate::{Subsystem, Use};

/// fief's own name among the owners.
pub const FIEF: &str = "fief";

/// By what an owner was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The names of chains, tables, devices, programs, processes.
    Name,
    /// The value and mask; somebody else may use the same.
    Value,
}

/// Whose a use is, as far as can be known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Owner {
    /// A short name of the registry, or `fief`.
    pub name: String,
    /// How we know.
    pub by: Evidence,
}

/// The owner of a use; `None` if nothing speaks for anybody, or as much for several.
pub fn of(registry: &Registry, found: &Use) -> Option<Owner> {
    if found.names.iter().any(|name| name == "protocol fief") {
        return Some(Owner { name: FIEF.into(), by: Evidence::Name });
    }
    let signed = |software: &&Software| found.names.iter().any(|name| software.signed(name));
    only(registry.software.iter().filter(signed), Evidence::Name).or_else(|| {
        let values: Vec<Masked> = found.matches.into_iter().chain(found.sets).collect();
        let fits = |software: &&Software| values.iter().any(|value| is_known(software, found, *value));
        only(registry.software.iter().filter(fits), Evidence::Value)
    })
}

fn only<'a>(mut candidates: impl Iterator<Item = &'a Software>, by: Evidence) -> Option<Owner> {
    let first = candidates.next()?;
    candidates.next().is_none().then(|| Owner { name: first.name.clone(), by })
}

/// Does this software use exactly this value under exactly this mask?
fn is_known(software: &Software, found: &Use, value: Masked) -> bool {
    // Packets get their socket's mark, and policies compare with theirs.
    let kind = if found.mark == Mark::Connection { Mark::Connection } else { Mark::Packet };
    let is_carried = matches!(found.subsystem, Subsystem::Socket | Subsystem::Connection);
    let by_layout = software.layouts.iter().filter(|layout| layout.mark == kind);
    let by_use = software.uses.iter().filter(|known| {
        let is_narrow = !known.values.is_empty() || known.range.is_some();
        let fits = known.mask.0 == value.mask || is_carried && known.mask.0 == u32::MAX;
        known.mark == kind && is_narrow && fits && known.fits(value.value)
    });
    by_layout.filter(|layout| layout.when == Some(value)).count() + by_use.count() > 0
}
