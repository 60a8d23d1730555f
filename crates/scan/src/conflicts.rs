//! Who gets in whose way on this host, what breaks, and what to do.

use std::collections::{BTreeMap, BTreeSet};

use fief_marks::MarkLayout;
use fief_marks::collide::{Demand, allocate, room};
use fief_marks::registry::{Bits, Mark, Registry};
use serde::Serialize;

use crate::bpf::ELSEWHERE;
use crate::owners::{self, Evidence, FIEF};
use crate::{Found, Subsystem, Use};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It may look odd; nothing breaks.
    Notice,
    /// Decisions are taken by bits that mean something else.
    Warning,
    /// Bits are overwritten.
    Error,
}

/// One conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// How bad it is.
    pub severity: Severity,
    /// The network namespace.
    pub netns: String,
    /// Who: the intruder first.
    pub between: [String; 2],
    /// The intruder is known by a value only, which somebody else may use as well.
    pub guess: bool,
    /// Which mark.
    pub mark: Mark,
    /// The bits they share, in hexadecimal.
    pub bits: String,
    /// Where.
    pub place: String,
    /// What breaks.
    pub breaks: String,
    /// What to do.
    pub remedy: String,
}

/// What is left without the sockets of fief's tenants: those that carry the number of one of these in fief's field, and are
/// of no process that is known to mark its own.
pub fn without_own(
    mut found: Vec<Found>,
    registry: &Registry,
    field: MarkLayout,
    tenants: &BTreeSet<u16>,
) -> Vec<Found> {
    let is_named = |what: &Use| owners::of(registry, what).is_some_and(|owner| owner.by == Evidence::Name);
    found.retain(|one| {
        let is_socket = one.what.subsystem == Subsystem::Socket && one.what.netns.is_empty();
        !is_socket || !tenants.contains(&field.number(one.what.writes)) || is_named(&one.what)
    });
    found
}

/// What is wrong with these bits being fief's field, in the namespace of fief itself.
pub fn with_field(field: u32, found: &[Found], registry: &Registry) -> Vec<Conflict> {
    let here = |one: &&Found| one.what.netns.is_empty();
    let elsewhere = advice(field, found, registry);
    found.iter().filter(here).filter_map(|one| against(field, one, registry, &elsewhere)).collect()
}

/// How bad it is for a field that this use exists; `None` if it is not its affair.
pub fn severity(field: u32, what: &Use) -> Option<Severity> {
    let (reads, writes) = (what.decides() & field, what.writes & field);
    let heuristic =
        |severity| if what.heuristic && severity == Severity::Error { Severity::Warning } else { severity };
    match what.mark {
        // It says nothing of packets until somebody copies it, and that is a use of its own.
        Mark::Connection => None,
        _ if writes != 0 => Some(heuristic(Severity::Error)),
        _ if reads == 0 => None,
        // Packets of the host have no bit of the field; packets of tenants are never what is looked for.
        _ => match what.matches {
            Some(matched) if matched.value & field == 0 && reads & !matched.mask == 0 => {
                Some(Severity::Notice)
            }
            _ => Some(heuristic(Severity::Warning)),
        },
    }
}

fn against(field: u32, one: &Found, registry: &Registry, elsewhere: &str) -> Option<Conflict> {
    let what = &one.what;
    let owner = owners::of(registry, what);
    if owner.as_ref().is_some_and(|owner| owner.name == FIEF) {
        return None;
    }
    let severity = severity(field, what)?;
    let (reads, writes) = (what.decides() & field, what.writes & field);
    let breaks = match (what.mark, writes) {
        (Mark::Socket, 1..) if what.subsystem == Subsystem::Socket => {
            "packets of this socket are taken for a tenant's".to_owned()
        }
        (_, 1..) if what.is_unmasked() => {
            "packets that pass there lose their tenant, or become another's: they go astray or are dropped"
                .to_owned()
        }
        (_, 1..) => {
            "packets that pass there become another tenant's: they go astray or are dropped".to_owned()
        }
        _ if severity == Severity::Notice => {
            "it never holds for tenants' packets: these bits are not zero there".to_owned()
        }
        _ => "tenants' packets are decided on by their tenant's number".to_owned(),
    };
    Some(Conflict {
        severity,
        netns: what.netns.clone(),
        guess: owner.as_ref().is_some_and(|owner| owner.by == Evidence::Value),
        between: [owner.map_or_else(|| "somebody".into(), |owner| owner.name), FIEF.into()],
        mark: what.mark,
        bits: format!("{:#x}", if writes != 0 { writes } else { reads }),
        place: place(one),
        breaks,
        remedy: format!("{}; {elsewhere}", mend(what, field)),
    })
}

impl Conflict {
    /// The intruder, with a question mark if that is a guess.
    pub fn intruder(&self) -> String {
        format!("{}{}", self.between[0], if self.guess { "?" } else { "" })
    }
}

/// Where one is, and how many like it there are.
pub fn place(one: &Found) -> String {
    let first = if one.first.is_empty() { String::new() } else { format!(" {}", one.first) };
    let more = if one.count > 1 { format!(" (and {} more)", one.count - 1) } else { String::new() };
    format!("{}{first}{more}", one.what.place)
}

/// How the use itself could leave the field alone.
fn mend(what: &Use, field: u32) -> String {
    let keep = !field;
    let mark = match what.mark {
        Mark::Connection => "ct mark",
        Mark::Socket => "socket mark",
        Mark::Packet | Mark::Ipsec => "meta mark",
    };
    match (what.subsystem, what.writes & field != 0) {
        _ if keep == 0 => "configure one of them to use other bits".to_owned(),
        (Subsystem::Nftables, true) => format!("write it as `{mark} set {mark} & {field:#x} | ...`"),
        (Subsystem::Nftables, false) => format!("compare with `{mark} & {keep:#x}`"),
        (Subsystem::IptablesNft | Subsystem::IptablesLegacy, true) => {
            format!(
                "give it a mask outside of the field: `--set-xmark VALUE/{keep:#x}`, `--restore-mark --nfmask {keep:#x}`"
            )
        }
        (Subsystem::IptablesNft | Subsystem::IptablesLegacy, false) => {
            format!("give it a mask outside of the field: `--mark VALUE/{keep:#x}`")
        }
        (Subsystem::Rule, _) => format!("give it a mask outside of the field: `fwmark VALUE/{keep:#x}`"),
        (Subsystem::XfrmPolicy | Subsystem::XfrmState, _) => format!("give it `mask {keep:#x}`"),
        (Subsystem::TrafficControl, true) => format!("give it a mask: `skbedit mark VALUE/{keep:#x}`"),
        (Subsystem::TrafficControl, false) => format!("give it a mask: `handle VALUE/{keep:#x} fw`"),
        (Subsystem::Socket | Subsystem::Wireguard, _) => format!("configure it with a mark below {keep:#x}"),
        _ => "configure it to use other bits".to_owned(),
    }
}

/// Where the field would lie beside everything that is there.
fn advice(field: u32, found: &[Found], registry: &Registry) -> String {
    match room(taken(found, registry)) {
        Some(room) if room.mask() & field == room.mask() && room.mask() == field => {
            "nothing lies better".to_owned()
        }
        Some(room) => format!("or move fief's field: `fief marks move --to {room}`"),
        None => "no four adjacent bits are free on this host".to_owned(),
    }
}

/// Bits of packets that somebody else than fief uses here, but for those who use them all, beside whom nothing lies.
pub fn taken(found: &[Found], registry: &Registry) -> u32 {
    let here = found.iter().filter(|one| one.what.netns.is_empty() && one.what.mark != Mark::Connection);
    let foreign = here.filter(|one| owners::of(registry, &one.what).is_none_or(|owner| owner.name != FIEF));
    foreign.fold(0, |taken, one| {
        let what = &one.what;
        let written = if what.is_unmasked() { what.sets.map_or(0, |sets| sets.value) } else { what.writes };
        let read = match what.decides() {
            u32::MAX => what.matches.map_or(0, |m| m.value),
            bits => bits,
        };
        taken | written | read
    })
}

/// Known software that gets in each other's way, in every namespace that was looked at.
pub fn among(found: &[Found], registry: &Registry) -> Vec<Conflict> {
    let mut owned: BTreeMap<(&str, Mark), BTreeMap<String, Vec<&Found>>> = BTreeMap::new();
    // Programs that sit nowhere we looked may sit on different hosts, for all we know.
    for one in found.iter().filter(|one| one.what.netns != ELSEWHERE) {
        if let Some(owner) = owners::of(registry, &one.what).filter(|owner| owner.name != FIEF) {
            // What compares policies, and what sets sockets, is about packets.
            let mark = if one.what.mark == Mark::Connection { Mark::Connection } else { Mark::Packet };
            owned.entry((&one.what.netns, mark)).or_default().entry(owner.name).or_default().push(one);
        }
    }
    let mut conflicts = Vec::new();
    for ((netns, mark), owners) in owned {
        let owners: Vec<_> = owners.into_iter().collect();
        for (i, (one, its)) in owners.iter().enumerate() {
            for (other, others) in &owners[i + 1..] {
                for (writer, written, reader, read) in [(one, its, other, others), (other, others, one, its)]
                {
                    let found = collision(written, read);
                    let Some((bits, writing, reading)) = found else { continue };
                    conflicts.push(Conflict {
                        severity: Severity::Warning,
                        netns: netns.to_owned(),
                        between: [writer.clone(), reader.clone()],
                        guess: owners::of(registry, &writing.what).is_some_and(|o| o.by == Evidence::Value),
                        mark,
                        bits: format!("{bits:#x}"),
                        place: place(writing),
                        breaks: format!("{writer} writes bits that {reader} uses in {}", place(reading)),
                        remedy: mend(&writing.what, bits),
                    });
                    break;
                }
            }
        }
    }
    conflicts
}

fn collision<'a>(written: &[&'a Found], read: &[&'a Found]) -> Option<(u32, &'a Found, &'a Found)> {
    written.iter().find_map(|writing| {
        let shared = |reading: &Found| writing.what.writes & (reading.what.decides() | reading.what.writes);
        let reading = read.iter().find(|reading| shared(reading) != 0)?;
        Some((shared(reading), *writing, *reading))
    })
}

/// A candidate for fief's field, and what speaks against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// The field.
    pub mask: MarkLayout,
    /// Where other parts of fief have their bits, in the order they were asked for; empty if they do not all fit.
    pub others: Vec<Bits>,
    /// Uses on this host that overwrite it.
    pub errors: usize,
    /// Uses that decide by it.
    pub warnings: usize,
    /// Software of the registry that would, if it came.
    pub known: Vec<String>,
    /// Why this one.
    pub reason: String,
}

/// Chooses the field beside what was found: without conflicts if that can be, then with room for what other parts of fief
/// ask for, then wide, then what is in use already (`now`, else the default), then where fewest of the registry's software
/// would come, then low.
pub fn choose(
    found: &[Found],
    registry: &Registry,
    now: Option<MarkLayout>,
    others: &[Demand<'_>],
) -> Choice {
    let taken = taken(found, registry);
    let crowds_out = |layout: MarkLayout| allocate(taken | layout.mask(), others).is_err();
    let prefer = now.unwrap_or_default();
    let foreign: Vec<&Use> = found
        .iter()
        .map(|one| &one.what)
        .filter(|what| what.netns.is_empty())
        .filter(|what| owners::of(registry, what).is_none_or(|owner| owner.name != FIEF))
        .collect();
    let rate = |layout: MarkLayout| {
        let count =
            |wanted| foreign.iter().filter(|what| severity(layout.mask(), what) == Some(wanted)).count();
        let uses = |s: &&fief_marks::registry::Software| {
            let narrow = s.uses.iter().filter(|u| u.mark == Mark::Packet && u.mask.0 != u32::MAX);
            narrow.fold(0, |mask, u| mask | u.mask.0) & layout.mask() != 0
        };
        let known: Vec<String> = registry.software.iter().filter(uses).map(|s| s.name.clone()).collect();
        (count(Severity::Error), count(Severity::Warning), known)
    };
    let widths = (4..=16_u32).rev();
    let layouts = widths.flat_map(|width| {
        (0..=32 - width).filter_map(move |shift| MarkLayout::new((u32::MAX >> (32 - width)) << shift).ok())
    });
    let rated = layouts.map(|layout| (layout, rate(layout)));
    let best = rated.min_by_key(|(layout, (errors, warnings, known))| {
        let narrow = 16 - layout.width();
        (*errors, *warnings, crowds_out(*layout), narrow, *layout != prefer, known.len(), layout.shift())
    });
    let (mask, (errors, warnings, known)) = best.unwrap_or_else(|| (prefer, rate(prefer)));
    let reason = match (errors + warnings, foreign.is_empty()) {
        (0, true) => "nobody else uses the mark on this host".to_owned(),
        (0, false) if mask == prefer => "nobody on this host uses these bits".to_owned(),
        (0, false) => {
            let (errors, warnings, _) = rate(prefer);
            format!(
                "nobody on this host uses these bits; {} uses stand in the way of {prefer}",
                errors + warnings
            )
        }
        (count, _) => format!("{count} uses on this host touch it, and no fewer any other place"),
    };
    let others = allocate(taken | mask.mask(), others).unwrap_or_default();
    Choice { mask, others: others.into_iter().map(Bits).collect(), errors, warnings, known, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uses::Effects;

    /// A use that writes these bits.
    fn written(bits: u32) -> Found {
        let what = effects(|e| e.set(Mark::Packet, bits, bits));
        Found { what, count: 1, first: String::new() }
    }

    #[test]
    fn the_field_leaves_room_for_what_others_ask_for() {
        let registry = Registry::default();
        let policy = [Demand { name: "policy", width: (2, 4) }];
        let chosen = |found: &[Found], others: &[Demand<'_>]| {
            let choice = choose(found, &registry, None, others);
            (choice.mask.mask(), choice.others.iter().map(|bits| bits.0).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[], &policy), (0xffff, vec![0xf_0000]));
        // Twelve bits are free: all of them for the slot, or some for policy too.
        let busy = [written(0xffff_f000)];
        assert_eq!(chosen(&busy, &[]), (0xfff, vec![]));
        assert_eq!(chosen(&busy, &policy), (0x3ff, vec![0xc00]));
    }

    fn effects(of: impl FnOnce(&mut Effects)) -> Use {
        let mut effects = Effects::default();
        of(&mut effects);
        let template = Use::at(Subsystem::IptablesLegacy, "", Vec::new());
        effects.uses(&template).next().expect("it touches a mark")
    }

    #[test]
    fn only_what_cannot_hold_for_tenants_is_a_notice() {
        let exact = effects(|e| e.compared(Mark::Packet, 0x4_0000, u32::MAX, true));
        assert_eq!(severity(0xffff, &exact), Some(Severity::Notice));
        let not = effects(|e| e.compared(Mark::Packet, 0, u32::MAX, false));
        assert_eq!(severity(0xffff, &not), Some(Severity::Warning), "every tenant's packet is not 0");
        let more = effects(|e| {
            e.compared(Mark::Packet, 0x4_0000, 0x4_0000, true);
            e.read_mark(Mark::Packet, 0xff);
        });
        assert_eq!(severity(0xff, &more), Some(Severity::Warning), "beside the comparison more is read");
    }

    #[test]
    fn a_look_up_of_a_route_decides_by_the_rules_there_are() {
        let filter = effects(|e| {
            e.compared(Mark::Packet, 0x4_0000, 0x4_0000, true);
            e.routed();
        });
        assert_eq!((filter.reads, filter.decides()), (u32::MAX, 0x4_0000));
        assert_eq!(severity(0xffff, &filter), None);
    }

    #[test]
    fn sockets_with_a_tenants_number_are_fiefs_unless_their_program_is_known_to_mark_its_own() {
        let socket = |process: &str, mark: u32, netns: &str| {
            let mut effects = Effects::default();
            effects.set(Mark::Packet, mark, u32::MAX);
            let template = Use::at(Subsystem::Socket, "", vec![format!("process {process}")]);
            let mut what = effects.uses(&template).next().expect("it touches a mark");
            (what.writes, what.netns) = (mark, netns.to_owned());
            Found { what, count: 1, first: String::new() }
        };
        let field = MarkLayout::new(0xffff).expect("a run of bits");
        let left =
            |found: Found| without_own(vec![found], &Registry::own(), field, &BTreeSet::from([7])).len();
        assert_eq!(left(socket("nginx", 7, "")), 0, "a tenant's");
        assert_eq!(left(socket("nginx", 8, "")), 1, "no tenant's");
        assert_eq!(left(socket("nginx", 7, "other")), 1, "in another namespace");
        assert_eq!(left(socket("kubelet", 7, "")), 1, "of somebody who marks its own");
    }
}
