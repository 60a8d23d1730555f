//! A thousand rules of each family with random masks, and the scan held against what the tools list.
//!
//! The oracle executes what nft, iptables-save and ip print, on marks of zeros, ones and noise: a bit is
//! written where an execution changes it, and read where turning it over changes the outcome. It shares no
//! code with the scan.

#[path = "generated/nftables.rs"]
mod nftables;
#[path = "generated/oracle.rs"]
mod oracle;
#[path = "generated/random.rs"]
mod random;
#[path = "generated/tables.rs"]
mod tables;

use std::time::Instant;

use fief_testkit::{Lab, Ns};
use fief_tests::peers::peer;

use super::scanned::{Counted, Row, common, here, without};
use oracle::{Bits, Touched};
use random::Random;

/// How many rules of each family.
const RULES: usize = 1000;

/// Holds the rows of these subsystems against the oracle.
#[track_caller]
fn compare(family: &str, rows: &[Row], expected: &Counted<Bits>, began: Instant) {
    let mut found = Counted::new();
    for row in rows {
        let seen = &row.seen;
        let bits = Bits {
            place: seen.place.clone(),
            mark: seen.mark.clone(),
            reads: seen.reads,
            writes: seen.writes,
        };
        *found.entry(bits).or_default() += row.count;
    }
    let (missing, wrong) = (without(expected, &found), without(&found, expected));
    let total: u64 = expected.values().sum();
    assert!(total > RULES as u64 / 2, "{family}: only {total} uses of marks were generated");
    let (exact, time) = (common(expected, &found), began.elapsed());
    println!("{family}: {exact} of {total} uses have exactly the oracle's bits ({time:?})");
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "{family}: by the tool's listing, and not found:\n{}\nfound, and not by the listing:\n{}",
        missing.join("\n"),
        wrong.join("\n")
    );
}

/// Installs rules of a kind of iptables, and compares.
#[track_caller]
fn tables(name: &str, kind: &str) {
    let Some(lab) = Lab::new(name) else { return };
    let (Some(restore), Some(save)) = (peer(&format!("{kind}-restore")), peer(&format!("{kind}-save")))
    else {
        return;
    };
    let (ns, mut random, began) = (lab.ns("host"), Random::seeded(kind), Instant::now());
    let lines = tables::generate(&mut random, kind.starts_with("ip6"), RULES);
    ns.command(&[restore]).input(&lines).run().ok();
    let listing = ns.run(&[save]).ok().stdout;
    assert_eq!(listing.lines().filter(|line| line.starts_with("-A")).count(), RULES);
    let place = match kind {
        "iptables-legacy" => "iptables",
        "ip6tables-legacy" => "ip6tables",
        "iptables-nft" => "ip",
        _ => "ip6",
    };
    compare(kind, &here(&lab, &ns), &tables::expected(place, &listing), began);
}

#[test]
fn iptables_legacy_has_the_oracles_bits() {
    tables("gen-ipt4", "iptables-legacy");
}

#[test]
fn ip6tables_legacy_has_the_oracles_bits() {
    tables("gen-ipt6", "ip6tables-legacy");
}

#[test]
fn iptables_nft_has_the_oracles_bits() {
    tables("gen-nft4", "iptables-nft");
}

#[test]
fn ip6tables_nft_has_the_oracles_bits() {
    tables("gen-nft6", "ip6tables-nft");
}

#[test]
fn nftables_has_the_oracles_bits() {
    for family in nftables::FAMILIES {
        let Some(lab) = Lab::new(&format!("gen-{family}")) else { return };
        let (ns, mut random, began) = (lab.ns("host"), Random::seeded(family), Instant::now());
        ns.nft(&nftables::generate(&mut random, family, RULES));
        let listing = ns.run(&["nft", "-j", "list", "ruleset"]).ok().json();
        let expected = nftables::expected(&listing, RULES);
        compare(&format!("nftables {family}"), &here(&lab, &ns), &expected, began);
    }
}

#[test]
fn routing_rules_have_the_oracles_bits() {
    for family in ["-4", "-6"] {
        let Some(lab) = Lab::new("gen-rules") else { return };
        let (ns, mut random, began) = (lab.ns("host"), Random::seeded(family), Instant::now());
        let lines: String = (0..RULES).map(|i| rule(&mut random, i)).collect();
        ns.command(&["ip", family, "-batch", "-"]).input(&lines).run().ok();
        let expected = listed_rules(&ns, family);
        compare(&format!("ip {family} rule"), &here(&lab, &ns), &expected, began);
    }
}

/// A line of a batch for ip(8).
fn rule(random: &mut Random, i: usize) -> String {
    let (value, mask) = random.masked();
    let invert = if random.one_in(8) { "not " } else { "" };
    let mask = if random.one_in(6) { String::new() } else { format!("/{mask:#x}") };
    format!("rule add {invert}fwmark {value:#x}{mask} lookup {} pref {}\n", 1000 + random.below(50), 100 + i)
}

#[track_caller]
fn listed_rules(ns: &Ns, family: &str) -> Counted<Bits> {
    let listed = ns.run(&["ip", "-j", family, "rule"]).ok().json();
    let tool = if family == "-4" { "ip" } else { "ip -6" };
    let listed = listed.as_array().expect("rules are a list");
    assert!(listed.len() > RULES, "{} rules", listed.len());
    let mut expected = Counted::new();
    // A mark of 0 without a mask is none to the kernel.
    for rule in listed.iter().filter(|rule| rule["fwmark"].is_string()) {
        let mask = rule["fwmask"].as_str().map_or(u32::MAX, oracle::hexadecimal);
        let mut touched = Touched::default();
        touched.decided(|marks| marks.0[oracle::PACKET] & mask);
        touched.count(&format!("{tool} rule {}", rule["priority"]), &mut expected);
    }
    expected
}
