//! Namespaces: what is in one is found in it, under its name, and never in another.

use std::time::Duration;

use fief_testkit::Lab;

use super::scanned::{Row, here, marks, scan};

const RULES: &str = "table inet elsewhere { chain c { meta mark set meta mark | 0x40; }; }";

fn places(rows: &[Row], netns: &str) -> Vec<String> {
    rows.iter().filter(|row| row.netns == netns).map(|row| row.seen.place.clone()).collect()
}

#[test]
fn rules_are_found_where_they_are_and_nowhere_else() {
    let Some(lab) = Lab::new("marks-netns") else { return };
    let (one, other) = (lab.ns("one"), lab.ns("other"));
    other.nft(RULES);
    other.ip("rule add fwmark 0x40/0x60 lookup 180 pref 32500\n");
    let expected = ["inet elsewhere c", "ip rule 32500"];

    let named = scan(&lab, &one, &["--netns", other.name()]);
    assert_eq!(places(&named, other.name()), expected);
    let path = other.path().display().to_string();
    assert_eq!(places(&scan(&lab, &one, &["--netns", &path]), &path), expected);
    let both = scan(&lab, &one, &["--netns", other.name(), "--netns", one.name()]);
    assert_eq!(
        (places(&both, other.name()), places(&both, one.name())),
        (expected.map(String::from).into(), vec![])
    );

    // Everything that has a name; from the other side it is the one without.
    let found = places(&everywhere(&lab, &one), other.name());
    assert_eq!(found, expected);
    let rows = everywhere(&lab, &other);
    assert_eq!(places(&rows, other.name()), Vec::<String>::new());
    assert!(expected.iter().all(|place| places(&rows, "").iter().any(|found| found == place)), "{rows:?}");

    assert_eq!(here(&lab, &one).len(), 0);
    assert_eq!(places(&here(&lab, &other), ""), expected);
    let unknown = marks(&lab, &one, &["scan", "--netns", "nowhere"]).fails();
    assert!(unknown.stderr.contains("nowhere"), "{unknown}");
}

#[test]
fn a_namespace_without_a_name_is_called_by_a_process_in_it() {
    let Some(lab) = Lab::new("marks-nameless") else { return };
    let ns = lab.ns("host");
    let line = format!("nft '{RULES}' && echo ready && exec sleep 600");
    let mut child = ns.spawn(&["unshare", "--net", "sh", "-c", &line]);
    child.wait_for_output("ready", Duration::from_secs(10));
    let name = format!("process {}", child.pid());
    assert_eq!(places(&everywhere(&lab, &ns), &name), ["inet elsewhere c"]);
    assert_eq!(here(&lab, &ns).len(), 0);
    child.kill();
    assert_eq!(places(&everywhere(&lab, &ns), &name), Vec::<String>::new());
}

/// All namespaces of the machine: those of other tests may go while they are looked at.
#[track_caller]
fn everywhere(lab: &Lab, ns: &fief_testkit::Ns) -> Vec<Row> {
    super::scanned::rows(&marks(lab, ns, &["scan", "-o", "json"]).ok().json())
}
