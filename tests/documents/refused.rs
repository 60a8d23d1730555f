//! Refused, and nothing changed.

use fief_testkit::{DaemonOptions, Snapshot};
use fief_tests::scene::Scene;

/// A tenant with one address and some more lines in its spec.
fn tenant(name: &str, address: &str, more: &str) -> String {
    format!(
        "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec:\n  interfaces:\n    - {{ name: \
         eth0, addresses: [{address}] }}\n{more}"
    )
}

/// Refuses `text`, says every one of `says`, and changes nothing.
#[track_caller]
fn refuse(scene: &Scene, what: &str, text: &str, says: &[&str]) {
    let dump = scene.daemon.cli(&["get", "all", "-o", "yaml"]).ok().stdout;
    let before = Snapshot::of(&scene.street.host);
    for verb in [&["apply", "-f", "-"][..], &["apply", "--dry-run", "-f", "-"], &["diff", "-f", "-"]] {
        let output = scene.daemon.cli_command(verb).input(text).run().fails();
        for part in says {
            assert!(
                output.stderr.contains(part),
                "{what}: {verb:?} does not say {part:?}: {}",
                output.stderr
            );
        }
        assert!(output.stdout.is_empty(), "{what}: {}", output.stdout);
    }
    assert_eq!(scene.daemon.cli(&["get", "all", "-o", "yaml"]).ok().stdout, dump, "{what}");
    before.assert_same(&Snapshot::of(&scene.street.host));
}

#[test]
fn what_contradicts_itself_or_others_is_refused_with_its_place() {
    let Some(scene) = Scene::new("refused", 2) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    let good = tenant("blue", "198.18.7.7/15", "");
    let cases = [
        ("unknown field", tenant("blue", "198.18.7.7/15", "  adresses: []\n"), "-:7:3", "adresses", "("),
        (
            "duplicate key",
            tenant("blue", "198.18.7.7/15", "  hostAccess: true\n  hostAccess: false\n"),
            "-:8:3",
            "given twice",
            "line 7",
        ),
        ("an address twice", tenant("blue", "198.18.7.7/15, 198.18.7.7/24", ""), "-:6:48", "198.18.7.7", "("),
        (
            "an address of two tenants of the file",
            format!("{good}---\n{}", tenant("red", "198.18.7.7/32", "")),
            "-:13:33",
            "belongs to tenant `blue`",
            "another address",
        ),
        (
            "an address of a stored tenant",
            tenant("blue", "198.18.1.1/15", ""),
            "-:6:33",
            "belongs to tenant `t0`",
            "another address",
        ),
        (
            "two default routes",
            tenant(
                "blue",
                "198.18.7.7/15",
                "  routes:\n    - { to: default, via: 198.19.1.1 }\n    - { to: default, via: 198.19.1.2 }\n",
            ),
            "-:9:13",
            "a second route to 0.0.0.0/0",
            "(",
        ),
        (
            "a gateway that is on no wire of the tenant's",
            tenant("blue", "198.18.7.7/15", "  routes:\n    - { to: default, via: 203.0.113.1 }\n"),
            "-:8:",
            "203.0.113.1",
            "(",
        ),
        (
            "a broken half behind a good one",
            format!("{good}---\n{}", tenant("red", "nonsense", "")),
            "-:13:33",
            "nonsense",
            "(",
        ),
        ("not YAML", "apiVersion: [\n".to_owned(), "-:", "not YAML", "("),
        ("empty", String::new(), "-", "nothing to apply", "leave this source out"),
        ("a comment only", "# nothing\n".to_owned(), "-", "nothing to apply", "leave this source out"),
    ];
    for (what, text, place, says, helps) in cases {
        refuse(&scene, what, &text, &[place, says, helps]);
    }
    // The positive control: the same daemon takes the good one, and every tenant is as before.
    scene.daemon.apply(&good).ok();
    (0..2).for_each(|tenant| scene.answered(tenant).unwrap());
}

#[test]
fn the_enormous_and_the_explosive_are_refused() {
    let Some(scene) = Scene::with("enormous", 1, &[0], DaemonOptions::default()) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    let line = "# a comment that is repeated until the file is enormous\n";
    let enormous = line.repeat((40 << 20) / line.len()) + &tenant("blue", "198.18.7.7/15", "");
    refuse(&scene, "40 MiB", &enormous, &["32 MiB", "several calls"]);
    // A billion laughs: nine levels, each nine times the one before.
    let mut bomb = tenant("blue", "198.18.7.7/15", "");
    bomb += "x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n";
    for level in 1..=9 {
        let below = format!("*x{}", level - 1);
        bomb += &format!("x{level}: &x{level} [{}]\n", vec![below; 9].join(", "));
    }
    refuse(&scene, "a bomb", &bomb, &["-:"]);
    // Deep instead of wide.
    refuse(&scene, "a well", &format!("a: {}", "[".repeat(100_000)), &["-:1:"]);
    let rss = std::fs::read_to_string(format!("/proc/{}/status", scene.daemon.pid())).unwrap();
    let peak = rss.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 512 * 1024, "the daemon needed {peak} for nonsense");
    // Many, but not too many: the same daemon takes a file of 8 MiB.
    let large = line.repeat((8 << 20) / line.len()) + &tenant("blue", "198.18.7.7/15", "");
    scene.daemon.apply(&large).ok();
}

#[test]
fn more_tenants_than_the_field_can_hold_are_refused_together() {
    let options =
        DaemonOptions { config_yaml: Some("markMask: \"0xf0\"\n".into()), ..DaemonOptions::default() };
    let Some(scene) = Scene::with("full", 20, &[0, 14], options) else { return };
    refuse(&scene, "16 tenants", &scene.street.documents_of(0..16), &["0xf0 holds 15 tenants", "markMask"]);
    scene.daemon.apply(&scene.street.documents_of(0..15)).ok();
    [0, 14].iter().for_each(|tenant| scene.answered(*tenant).unwrap());
    refuse(&scene, "one more", &scene.street.yaml(15), &["0xf0 holds 15 tenants and 15 are there"]);
    scene.daemon.cli(&["delete", "tenant", "t3"]).ok();
    scene.daemon.apply(&scene.street.yaml(15)).ok();
}
