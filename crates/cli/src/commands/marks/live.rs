//! `fief marks scan` and `check`: what this host really does. They look for themselves, so that they work without a
//! daemon, and before there is one.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use fief_host::namespaces::Namespace;
use fief_marks::MarkLayout;
use fief_marks::registry::{Bits, Masked, Registry};
use fief_scan::conflicts::{self, Conflict, Severity};
use fief_scan::owners::{self, Evidence, Owner};
use fief_scan::{Found, Report, Scope, Use};
use serde::Serialize;

use super::field::{is_markless, of_daemon};
use super::word;
use crate::context::Context;
use crate::table::Table;

/// One row of the scan, for programs.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    found: &'a Found,
    owner: Option<Owner>,
    masked: bool,
}

/// The scan, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Scanned<'a> {
    uses: Vec<Row<'a>>,
    looked_at: u64,
    left_out: u64,
    failures: &'a [String],
}

pub(super) fn scan(
    registry: &Registry,
    named: &[String],
    here: bool,
    context: &mut Context,
) -> anyhow::Result<()> {
    let namespaces = match named {
        [] if here => vec![Namespace::current()],
        [] => std::iter::once(Namespace::current()).chain(Namespace::others()).collect(),
        named => named.iter().map(|name| Namespace::named(name)).collect::<Result<_, _>>()?,
    };
    let report = look(&namespaces);
    let rows: Vec<Row<'_>> = report
        .uses
        .iter()
        .map(|found| Row {
            found,
            owner: owners::of(registry, &found.what),
            masked: found.what.writes == 0 || !found.what.is_unmasked(),
        })
        .collect();
    let (looked_at, left_out, failures) = (report.looked_at, report.left_out, &report.failures);
    let scanned = Scanned { uses: rows, looked_at, left_out, failures };
    if context.print_data(&scanned)? {
        return Ok(());
    }
    let mut table = Table::new(&["NETNS", "WHERE", "MARK", "READS", "WRITES", "VALUE", "COUNT", "WHO"]);
    for Row { found, owner, .. } in &scanned.uses {
        let what = &found.what;
        table.row([
            what.netns.clone(),
            conflicts::place(&Found { count: 1, ..(*found).clone() }),
            word(what.mark),
            bits(what.reads),
            match what.is_unmasked() {
                true => "all, unmasked".into(),
                false => bits(what.writes),
            },
            value(what),
            found.count.to_string(),
            who(owner.as_ref(), what),
        ]);
    }
    context.out.print(&table.render())?;
    confess(&report, context)
}

pub(super) fn check(
    registry: &Registry,
    mask: Option<Bits>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let report = look(&[Namespace::current()]);
    let own = of_daemon(context)?;
    let tenants = tenants(context);
    let checked = mask.map(|mask| mask.0).or(own.map(MarkLayout::mask));
    // What carries the number of a tenant in fief's own field is that tenant's.
    let uses = match own {
        Some(own) => conflicts::without_own(report.uses.clone(), registry, own, &tenants),
        None => report.uses.clone(),
    };
    let mut found = conflicts::among(&uses, registry);
    if let Some(checked) = checked {
        found.extend(conflicts::with_field(checked, &uses, registry));
    }
    found.sort_by_key(|conflict| std::cmp::Reverse(conflict.severity));
    let status = match found.iter().any(|conflict| conflict.severity > Severity::Notice) {
        true => ExitCode::FAILURE,
        false if !report.failures.is_empty() => ExitCode::from(2),
        false => ExitCode::SUCCESS,
    };
    if context.print_data(&found)? {
        return Ok(status);
    }
    let subject = match (mask, checked) {
        (None, None) if is_markless(context)? => {
            "fief writes no marks on this host (`markMask: none` in fiefd.yaml); give a mask to check"
                .to_owned()
        }
        (None, None) => "no fief is running here; give a mask to check".to_owned(),
        (None, Some(own)) => format!("fief's field {own:#x}"),
        (Some(mask), _) => format!("the bits {mask}"),
    };
    if found.is_empty() {
        context.out.line(&format!("{subject}: nothing collides ({} objects looked at)", report.looked_at))?;
    } else {
        context.out.line(&subject)?;
    }
    found.iter().try_for_each(|conflict| print(conflict, context))?;
    confess(&report, context)?;
    Ok(status)
}

/// The numbers of the tenants that there are, if a daemon says.
pub(super) fn tenants(context: &Context) -> BTreeSet<u16> {
    let listing = context.client().and_then(|client| client.tenants());
    listing.map(|l| l.tenants.iter().map(|tenant| tenant.status.slot).collect()).unwrap_or_default()
}

fn print(conflict: &Conflict, context: &mut Context) -> anyhow::Result<()> {
    let Conflict { severity, between: [_, other], bits, place, breaks, remedy, mark, .. } = conflict;
    let severity = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Notice => "notice",
    };
    let one = conflict.intruder();
    context
        .out
        .line(&format!("{severity}: {one} and {other} share bits {bits} of the {} mark", word(*mark)))?;
    context.out.line(&format!("  where:  {place}"))?;
    context.out.line(&format!("  breaks: {breaks}"))?;
    context.out.line(&format!("  remedy: {remedy}"))?;
    Ok(())
}

pub(super) fn look(namespaces: &[Namespace]) -> Report {
    let shown = std::io::stderr().is_terminal();
    let mut total = 0_u64;
    let report = fief_scan::scan(namespaces, Scope::ALL, &mut |more| {
        total += more;
        if shown && total >= 1000 {
            // A screen that does not listen is no reason to stop.
            let _ = write!(std::io::stderr(), "\r{total} objects looked at");
        }
    });
    if shown && total >= 1000 {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    report
}

/// What was not seen must be said.
fn confess(report: &Report, context: &mut Context) -> anyhow::Result<()> {
    for failure in &report.failures {
        context.out.line(&format!("not looked at: {failure}"))?;
    }
    if report.left_out > 0 {
        context.out.line(&format!("{} more uses are not listed, for there are too many", report.left_out))?;
    }
    Ok(())
}

fn bits(bits: u32) -> String {
    if bits == 0 { "-".into() } else { format!("{bits:#x}") }
}

fn value(what: &Use) -> String {
    let show = |value: Option<Masked>, how: &str| value.map(|v| format!("{how} {:#x}", v.value));
    let parts: Vec<String> =
        [show(what.matches, "is"), show(what.excludes, "is not"), show(what.sets, "becomes")]
            .into_iter()
            .flatten()
            .collect();
    if parts.is_empty() { "-".into() } else { parts.join(", ") }
}

fn who(owner: Option<&Owner>, what: &Use) -> String {
    let mut text = match owner {
        Some(Owner { name, by: Evidence::Name }) => name.clone(),
        Some(Owner { name, by: Evidence::Value }) => format!("{name}?"),
        None => "-".into(),
    };
    if what.heuristic {
        text.push_str(" (by its code)");
    }
    text
}
