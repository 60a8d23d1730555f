//! Whose a use is: by the names of its things, else by a value that only one software is known to use.

use fief_marks::registry::{Layout, Mark, Masked, Registry, Software};
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
    if found.names.iter().any(|name| name == "protocol fief" || name == "table fief") {
        return Some(Owner { name: FIEF.into(), by: Evidence::Name });
    }
    let signed = |software: &&Software| found.names.iter().any(|name| software.signed(name));
    only(registry.software.iter().filter(signed), Evidence::Name).or_else(|| {
        let values: Vec<Masked> = found.matches.into_iter().chain(found.excludes).chain(found.sets).collect();
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
    // Sockets and connections carry whole marks: what nobody set there is 0.
    let is_carried = matches!(found.subsystem, Subsystem::Socket | Subsystem::Connection);
    let value = if is_carried { Masked { mask: u32::MAX, ..value } } else { value };
    let by_use = software.uses.iter().any(|known| {
        let is_narrow = !known.values.is_empty() || known.range.is_some();
        let is_all = known.mask.0 == value.mask || is_carried && value.value & !known.mask.0 == 0;
        known.mark == kind && is_narrow && is_all && known.fits(value.value)
    });
    by_use || software.layouts.iter().any(|known| known.mark == kind && reads(known, value, is_carried))
}

/// Is this value one that the layout is there for, and nothing beyond it?
fn reads(layout: &Layout, value: Masked, is_carried: bool) -> bool {
    let Some(when) = layout.when.filter(|when| value.mask & when.mask == when.mask) else { return false };
    let fields = layout.fields.values().fold(0, |mask, field| mask | field.mask());
    let rest = value.mask & !when.mask & !fields;
    let is_plain = if is_carried { value.value & rest == 0 } else { rest == 0 };
    layout.holds(value.value) && is_plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(subsystem: Subsystem, mark: Mark, value: u32, mask: u32) -> Option<String> {
        let matches = Some(Masked { value, mask });
        let found = Use { mark, matches, ..Use::at(subsystem, "", Vec::new()) };
        of(&Registry::own(), &found).map(|owner| owner.name)
    }

    #[test]
    fn a_value_under_its_mask_says_whose_it_is() {
        let rule = |value, mask| whose(Subsystem::Rule, Mark::Packet, value, mask);
        assert_eq!(rule(0x80000, 0xff_0000).as_deref(), Some("tailscale"));
        assert_eq!(rule(0x111, 0xfff).as_deref(), Some("istio"));
        // The key's bits are part of Cilium's layout, and the identity's are not part of this one.
        assert_eq!(rule(0x3e00, 0xff00).as_deref(), Some("cilium"));
        assert_eq!(rule(0x3e01, 0xff0f), None);
        // The same bit under another mask is anybody's.
        assert_eq!(rule(0x80000, 0x80000), None);
        assert_eq!(rule(0x800, 0x800), None);
    }

    #[test]
    fn what_carries_a_mark_carries_all_of_it() {
        let socket = |value| whose(Subsystem::Socket, Mark::Socket, value, value);
        assert_eq!(socket(0x80000).as_deref(), Some("tailscale"));
        assert_eq!(socket(0x539).as_deref(), Some("istio"));
        assert_eq!(socket(0x1080539), None);
        let connection = |value| whose(Subsystem::Connection, Mark::Connection, value, value);
        assert_eq!(connection(0x111).as_deref(), Some("istio"));
        assert_eq!(connection(0x539), None, "that is a mark of packets");
    }
}
