//! iptables and ip6tables as they were before nf_tables: whole tables, by their getsockopt (net/ipv4/netfilter/ip_tables.c).

use fief_host::netlink::attribute::text;
use fief_host::{Family, HostError, xtables as tables};

use crate::sink::Sink;
use crate::uses::{Effects, Subsystem, Use};
use crate::xtables;

/// The hooks in the order of `enum nf_inet_hooks`.
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// `struct xt_entry_match` and `xt_entry_target` before their data: size, name, revision.
const PART: usize = 32;

/// Looks at the tables that this namespace has; asking for others would make them.
pub(crate) fn scan(sink: &mut Sink<'_>) -> Result<(), HostError> {
    for family in [Family::V4, Family::V6] {
        for table in tables::names(family) {
            let read = tables::read(family, &table)?;
            look_at(family, &table, &read.hooks, &read.entries, sink);
        }
    }
    Ok(())
}

fn look_at(family: Family, table: &str, hooks: &[u32; 5], entries: &[u8], sink: &mut Sink<'_>) {
    let tool = if family == Family::V4 { "iptables" } else { "ip6tables" };
    // Behind `struct ipt_ip` (84 bytes) and `struct ip6t_ip6` (136).
    let offsets = if family == Family::V4 { 88 } else { 140 };
    let header = if family == Family::V4 { 112 } else { 168 };
    let (mut at, mut chain, mut number) = (0_usize, String::new(), 0_u32);
    while let Some(entry) = entries.get(at..).filter(|rest| rest.len() >= header) {
        let short = |at: usize| usize::from(u16::from_ne_bytes([entry[at], entry[at + 1]]));
        let (target_at, next) = (short(offsets), short(offsets + 2));
        let Some(entry) = entry.get(..next).filter(|_| next >= header && (header..next).contains(&target_at))
        else {
            return;
        };
        sink.seen();
        if let Some(hook) = (0..5).find(|hook| hooks[*hook] as usize == at && hooks[*hook] != u32::MAX) {
            (chain, number) = (HOOKS[hook].to_owned(), 0);
        }
        number += 1;
        let mut effects = Effects::default();
        let mut names = Vec::new();
        parts(&entry[header..target_at], |name, revision, info| match name.as_str() {
            "comment" => names.push(format!("comment {}", text(info))),
            _ => drop(xtables::effects(false, &name, revision, info, &mut effects)),
        });
        parts(&entry[target_at..], |name, revision, info| match name.as_str() {
            // The head of a chain of the user's own.
            "ERROR" => (chain, number) = (text(info), 0),
            _ => drop(xtables::effects(true, &name, revision, info, &mut effects)),
        });
        if effects != Effects::default() {
            names.extend([format!("table {table}"), format!("chain {chain}")]);
            let template = Use::at(Subsystem::IptablesLegacy, format!("{tool} {table} {chain}"), names);
            effects.uses(&template).for_each(|found| sink.add(found, || format!("rule {number}")));
        }
        at += next;
    }
}

/// Each match, or the target, in these bytes.
fn parts(mut bytes: &[u8], mut each: impl FnMut(String, u8, &[u8])) {
    while bytes.len() >= PART {
        let size = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let Some(info) = bytes.get(PART..size) else { return };
        each(text(&bytes[2..31]), bytes[31], info);
        bytes = &bytes[size..];
    }
}

/// For the fuzzer: reads these bytes as a table.
pub fn fuzz(bytes: &[u8]) {
    let mut quiet = |_| ();
    for family in [Family::V4, Family::V6] {
        look_at(
            family,
            "t",
            &[0, u32::MAX, 112, u32::MAX, 168],
            bytes,
            &mut Sink::new(String::new(), &mut quiet),
        );
    }
}
