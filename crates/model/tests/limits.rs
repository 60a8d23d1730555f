//! No text costs more than its length deserves.

use std::time::Duration;

use fief_model::document::MAX_BYTES;
use fief_model::{Diagnostic, Kept, Source, parse, validate};
use fief_testkit::computed;

/// Of a processor's time. Far above what is needed, so that a slow machine passes, and far below what an explosion takes.
const BOUND: Duration = Duration::from_secs(20);

const HEAD: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n";

#[test]
fn aliases_of_aliases_end_early() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        text += &format!("a{level}: &a{level} [{below}]\n");
    }
    expect(&text, "anchors and aliases copy more than");

    let long = format!("metadata: {{ name: &a \"{}\\t\", labels: {{ ", "x".repeat(1 << 20));
    let many: String = (0..100_000).map(|n| format!("k{n}: *a, ")).collect();
    expect(&format!("{long}{many} }} }}"), "anchors and aliases copy more than");
    expect(&format!("{HEAD}spec: &a {{ interfaces: *a }}\n"), "inside what it refers to");
}

#[test]
fn depth_has_an_end_in_every_style() {
    let nested = |n: usize| format!("{HEAD}x: {}{}\n", "[".repeat(n), "]".repeat(n));
    expect(&nested(40), "nest more than 32 deep");
    expect(&nested(1_000_000), "this is not YAML");
    expect(&format!("{HEAD}x: {}", "[".repeat(1_000_000)), "");
    let block: String = (0..2_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    expect(&block, "nest more than 32 deep");
    expect(&"- ".repeat(1_000_000), "nest more than 32 deep");
    // Through aliases: each level brings its own depth along.
    let chain: String = (1..40).map(|n| format!("a{n}: &a{n} [[[*a{}]]]\n", n - 1)).collect();
    expect(&format!("a0: &a0 x\n{chain}"), "nest more than 32 deep");
}

#[test]
fn size_has_an_end() {
    let text = "#".repeat(MAX_BYTES / 2 + 1);
    let sources = ["a", "b"].map(|name| Source { name: name.into(), text: text.clone() });
    let diagnostics = parse(&sources).unwrap_err();
    assert_eq!(diagnostics.len(), 1);
    assert!(diagnostics[0].message.contains("more than 32 MiB"), "{diagnostics:?}");
    expect(&"[a]\n---\n".repeat(1 << 18), "a document is a list");
    expect(
        &format!("{HEAD}spec: {{ members: {{ users: [{}] }} }}", "a,".repeat(3 << 20)),
        "values in one input",
    );
    expect(&"---\n".repeat(1 << 19), "nothing to apply");
    expect(&"a: [\n---\n".repeat(1 << 16), "not YAML");
}

#[test]
fn a_long_list_of_mistakes_is_found_in_passing() {
    let addresses: String = (0..50_000).map(|n| format!("0.0.{}.{}/32, ", n / 256, n % 256)).collect();
    let spec = format!("{HEAD}spec:\n  interfaces:\n  - {{ name: eth0, addresses: [{addresses}] }}\n");
    expect(&spec, "unspecified");
    expect(&format!("{HEAD}{}", "x: y\n".repeat(100_000)), "unknown field");
    expect(&format!("{HEAD}spec: {{ members: {{ users: [{}] }} }}", "1,".repeat(200_000)), "in quotes");
    let labels: String = (0..100_000).map(|n| format!("k{n}: 1, ")).collect();
    expect(
        &format!(
            "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: a, labels: {{ {labels} }} }}\n"
        ),
        "1",
    );
}

#[test]
fn a_host_full_of_tenants_is_read_at_once() {
    let text: String = (0..16_384).map(tenant).collect();
    let sources = [Source { name: "all.yaml".into(), text }];
    let (located, parsed) = computed(|| parse(&sources).unwrap());
    let (complaints, validated) = computed(|| validate(&located, &Kept::default()));
    assert_eq!(complaints, []);
    assert_eq!(located.len(), 16_384);
    println!("{} bytes: parse {parsed:?}, validation {validated:?}", sources[0].text.len());
    assert!(parsed + validated < BOUND, "{parsed:?}, {validated:?}");
}

fn tenant(n: u32) -> String {
    let (high, low) = (n / 250, n % 250 + 2);
    format!(
        "---\napiVersion: fief/v1alpha1\nkind: Tenant\nmetadata:\n  name: tenant-{n}\n  labels: {{ org: org-{n}, tier: gold }}\n\
         spec:\n  isolation: auto\n  interfaces:\n    \
         - {{ name: eth0, addresses: [10.1.{high}.{low}/16, \"2001:db8:0:1::{n:x}:1/64\"] }}\n    \
         - {{ name: eth1.20, addresses: [10.2.{high}.{low}/16] }}\n  routes:\n    \
         - {{ to: default, via: 10.1.0.1 }}\n    - {{ to: 198.51.100.0/24, type: blackhole }}\n  \
         members: {{ users: [user-{n}], groups: [group-{n}] }}\n"
    )
}

/// Refused, in time, for this reason first.
fn expect(text: &str, message: &str) {
    let (diagnostics, took) = computed(|| complaints(text));
    assert!(!diagnostics.is_empty());
    assert!(
        diagnostics.iter().any(|d| d.message.contains(message) || d.help.iter().any(|h| h.contains(message))),
        "{message}: {:?}",
        diagnostics.first()
    );
    assert!(took < BOUND, "{took:?} for {} bytes: {message}", text.len());
    if took > Duration::from_secs(1) {
        println!("{took:?} for {} bytes: {message}", text.len());
    }
}

fn complaints(text: &str) -> Vec<Diagnostic> {
    match parse(&[Source { name: "t.yaml".into(), text: text.into() }]) {
        Ok(located) => validate(&located, &Kept::default()),
        Err(diagnostics) => diagnostics,
    }
}
