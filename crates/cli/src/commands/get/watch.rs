//! `fief get -w`: the list as it is, then what changes, until the reader has seen enough.
//!
//! Counters always move; they alone do not make a change.

use std::collections::BTreeMap;
use std::process::ExitCode;

use fief_api::{Client, Counters, TenantView};
use serde::Serialize;

use crate::args::Format;
use crate::context::Context;
use crate::screen::Screen;
use crate::table::Table;
use crate::tenants;

/// A line of `-w -o json`.
#[derive(Debug, PartialEq, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: EventKind,
    object: Shown<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// A view, compared by what it says without its counters.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
struct Shown<'a>(&'a TenantView);

impl PartialEq for Shown<'_> {
    fn eq(&self, other: &Self) -> bool {
        let status = |view: &TenantView| {
            let mut status = view.status.clone();
            status.counters = Counters::default();
            status
        };
        let (a, b) = (self.0, other.0);
        a.tenant == b.tenant && a.set == b.set && status(a) == status(b)
    }
}

pub fn run(client: &Client, name: Option<&str>, context: &mut Context) -> anyhow::Result<ExitCode> {
    let mut printer = match context.format {
        Format::Table => Printer::Table(tenants::table()),
        Format::Json => Printer::Json,
        Format::Yaml => anyhow::bail!("-w prints a table or, with -o json, one event a line; not YAML"),
    };
    let mut seen = client.tenants()?;
    printer.start(&changes(&[], &seen.tenants, name), &mut context.out)?;
    loop {
        context.out.flush()?;
        let next = client.tenants_since(seen.revision)?;
        printer.print(&changes(&seen.tenants, &next.tenants, name), &mut context.out)?;
        seen = next;
    }
}

/// From `before` to `after`, of the tenant called `name` or of all: what goes first, then what comes and changes.
fn changes<'a>(before: &'a [TenantView], after: &'a [TenantView], name: Option<&str>) -> Vec<Event<'a>> {
    let (before, after) = (by_name(before, name), by_name(after, name));
    let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
    let gone = gone.map(|(_, &object)| Event { kind: EventKind::Deleted, object });
    let rest = after.iter().filter_map(|(name, &object)| match before.get(name) {
        None => Some(Event { kind: EventKind::Added, object }),
        Some(old) if *old != object => Some(Event { kind: EventKind::Modified, object }),
        Some(_) => None,
    });
    gone.chain(rest).collect()
}

fn by_name<'a>(views: &'a [TenantView], only: Option<&str>) -> BTreeMap<&'a str, Shown<'a>> {
    let named = views.iter().map(|view| (view.tenant.metadata.name.as_str(), Shown(view)));
    named.filter(|(name, _)| only.is_none_or(|only| only == *name)).collect()
}

enum Printer {
    Table(Table),
    Json,
}

impl Printer {
    fn start(&mut self, events: &[Event], out: &mut Screen) -> anyhow::Result<()> {
        match self {
            Printer::Table(table) => {
                fill(table, events);
                out.print(&table.render())
            }
            Printer::Json => self.print(events, out),
        }
    }

    fn print(&mut self, events: &[Event], out: &mut Screen) -> anyhow::Result<()> {
        match self {
            Printer::Table(table) => {
                fill(table, events);
                out.print(&table.render_rows())
            }
            Printer::Json => events.iter().try_for_each(|event| out.line(&serde_json::to_string(event)?)),
        }
    }
}

fn fill(table: &mut Table, events: &[Event]) {
    for event in events {
        table.row(match event.kind {
            EventKind::Added | EventKind::Modified => tenants::row(event.object.0),
            EventKind::Deleted => tenants::row_of_deleted(event.object.0),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenants::tests::view;
    use fief_api::Phase;

    #[test]
    fn only_what_differs_is_an_event() {
        let before = [view("blue", &[]), view("gone", &[]), view("red", &[])];
        let mut after = [view("blue", &[]), view("new", &[]), view("red", &[])];
        after[0].status.counters.rx_bytes = 1;
        after[2].status.phase = Phase::Pending;
        let events = |name| {
            let events = changes(&before, &after, name);
            events.iter().map(|e| (e.kind, e.object.0.tenant.metadata.name.clone())).collect::<Vec<_>>()
        };
        let expected =
            [(EventKind::Deleted, "gone"), (EventKind::Added, "new"), (EventKind::Modified, "red")];
        assert_eq!(events(None), expected.map(|(kind, name)| (kind, name.to_owned())));
        assert_eq!(events(Some("blue")), []);
        assert_eq!(events(Some("new")).len(), 1);
    }

    #[test]
    fn an_event_is_one_line_of_json() {
        let views = [view("blue", &[])];
        let line = serde_json::to_string(&changes(&[], &views, None)[0]).unwrap();
        assert!(
            line.starts_with(r#"{"type":"ADDED","object":{"tenant":{"metadata":{"name":"blue""#),
            "{line}"
        );
    }
}
