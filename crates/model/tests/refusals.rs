//! Every refusal: the place it points at, its message, its remedy; and that the remedied document passes.
//!
//! A row is a context with `@` where its fragments go, the bad fragment with `▸` where the complaint must point
//! (default: its beginning), the good fragment, and parts of the message and of the remedy.

#[path = "refusals/across.rs"]
mod across;
#[path = "refusals/networks.rs"]
mod networks;
#[path = "refusals/nouns.rs"]
mod nouns;
#[path = "refusals/policies.rs"]
mod policies;
#[path = "refusals/reading.rs"]
mod reading;
#[path = "refusals/routes.rs"]
mod routes;
#[path = "refusals/switches.rs"]
mod switches;
#[path = "refusals/types.rs"]
mod types;

use fief_model::policy::TENANT_LABEL;
use fief_model::{Diagnostic, Document, Kept, Source, parse, validate};

type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

const META: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: @\n";
const SPEC: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\nspec:\n  @\n";
const IFACE: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\nspec:\n  interfaces:\n  \
                     - { name: eth1, addresses: [198.51.100.1/24] }\n  - @\n";
const ADDRESS: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\nspec:\n  interfaces:\n  \
                       - { name: eth0, addresses: [10.9.9.9/24, @] }\n";
const ROUTE: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\nspec:\n  interfaces:\n  \
                     - { name: eth0, addresses: [192.0.2.11/24, \"2001:db8:1::11/64\"] }\n  \
                     - { name: eth1, addresses: [10.0.0.2/16] }\n  \
                     - { name: eth2, addresses: [10.0.0.3/8] }\n  \
                     routes:\n  - { to: 100.64.0.0/10, via: 192.0.2.2, metric: 7 }\n  - @\n";
const MEMBERS: &str =
    "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\nspec:\n  members: @\n";

fn refuse(rows: &[Row<'_>]) {
    refuse_as(complaints, rows);
}

fn refuse_as(complaints: fn(&str) -> Vec<Diagnostic>, rows: &[Row<'_>]) {
    let mut failures = Vec::new();
    for (context, bad, good, message, help) in rows {
        let marked = match context.contains('▸') || bad.contains('▸') {
            true => context.replace('@', bad),
            false => context.replace('@', &format!("▸{bad}")),
        };
        let (before, after) = marked.split_once('▸').unwrap();
        let line = before.lines().count().max(1) as u32 + u32::from(before.ends_with('\n'));
        let column = before.rsplit('\n').next().unwrap().chars().count() as u32 + 1;
        let text = format!("{before}{after}");
        // A complaint about a whole source has no place in it.
        let place = if text.is_empty() { (0, 0) } else { (line, column) };
        let found = complaints(&text);
        let hit = found.len() == 1
            && found.iter().all(|d| {
                (d.line, d.column) == place
                    && d.message.contains(message)
                    && d.help.as_ref().is_some_and(|text| text.contains(help))
            });
        if !hit {
            failures.push(format!("{text}\nwanted {place:?} {message} ({help}), found {found:#?}"));
        }
        let remedied = complaints(&context.replace('@', good).replace('▸', ""));
        if !remedied.is_empty() {
            failures.push(format!("{good}\nis refused: {remedied:#?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n----\n"));
}

fn complaints(text: &str) -> Vec<Diagnostic> {
    match parse(&[Source { name: "t.yaml".into(), text: text.into() }]) {
        Ok(located) => validate(&located, &Kept::default()),
        Err(diagnostics) => diagnostics,
    }
}

/// Of policies, each of which has a tenant although none is written.
fn complaints_of_policies(text: &str) -> Vec<Diagnostic> {
    match parse(&[Source { name: "t.yaml".into(), text: text.into() }]) {
        Ok(mut located) => {
            for one in &mut located {
                let Document::NetworkPolicy(policy) = &mut one.document else { continue };
                policy.metadata.labels.entry(TENANT_LABEL.into()).or_insert("blue".into());
            }
            validate(&located, &Kept { unknown: true, ..Kept::default() })
        }
        Err(diagnostics) => diagnostics,
    }
}
