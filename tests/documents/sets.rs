//! Dry runs, sets, differences, dumps.

use fief_testkit::{Output, Snapshot};
use fief_tests::scene::Scene;

fn apply(scene: &Scene, args: &[&str], text: &str) -> Output {
    let words: Vec<&str> = ["apply", "-f", "-"].iter().chain(args).copied().collect();
    scene.daemon.cli_command(&words).input(text).run()
}

fn dump(scene: &Scene) -> String {
    scene.daemon.cli(&["get", "all", "-o", "yaml"]).ok().stdout
}

fn names(scene: &Scene) -> Vec<String> {
    let views = scene.daemon.cli(&["get", "tenants", "-o", "json"]).ok().json();
    let names =
        views.as_array().unwrap().iter().map(|view| view["tenant"]["metadata"]["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

#[test]
fn a_dry_run_shows_the_plan_and_does_nothing() {
    let Some(scene) = Scene::new("dryrun", 2) else { return };
    scene.street.host.set_sysctl("net.ipv4.conf.eth0.rp_filter", 1);
    let before = Snapshot::of(&scene.street.host);
    let said = apply(&scene, &["--dry-run", "-v"], &scene.street.documents()).ok().stdout;
    for part in [
        "tenant/t0 would be created",
        "tenant/t1 would be created",
        "set sysctl net.ipv4.fwmark_reflect to 1 (it is 0; put back at the last delete)",
        "set sysctl net.ipv6.fwmark_reflect to 1",
        "set sysctl net.ipv4.tcp_fwmark_accept to 1",
        "set sysctl net.ipv4.conf.all.src_valid_mark to 1",
        "netfilter's input and postrouting",
        "attach the programs to device eth0",
        "add address 198.18.1.1/32 to device eth0",
        "set route 0.0.0.0/0 via 198.19.1.1 dev eth0",
        "lookup 256000002",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    before.assert_same(&Snapshot::of(&scene.street.host));
    assert_eq!(names(&scene), [""; 0]);
    // What was announced is what happens.
    apply(&scene, &[], &scene.street.documents()).ok();
    assert_eq!(scene.street.host.sysctl("net.ipv4.conf.all.src_valid_mark"), "1");
    assert!(before.diff(&Snapshot::of(&scene.street.host)).is_some());
    // Of what is there already nothing is left to do.
    let said = apply(&scene, &["--dry-run", "-v"], &scene.street.documents()).ok().stdout;
    assert_eq!(said, "tenant/t0 unchanged\ntenant/t1 unchanged\n");
    scene.daemon.cli(&["delete", "tenant", "t0", "t1"]).ok();
    before.assert_same(&Snapshot::of(&scene.street.host));
}

#[test]
fn prune_deletes_what_the_same_set_made_and_nothing_else() {
    let Some(scene) = Scene::new("prune", 6) else { return };
    let of = |range| scene.street.documents_of(range);
    apply(&scene, &["--set", "one"], &of(0..3)).ok();
    apply(&scene, &["--set", "two"], &of(3..5)).ok();
    apply(&scene, &[], &of(5..6)).ok();
    // Without --prune nothing goes.
    apply(&scene, &["--set", "one"], &of(0..2)).ok();
    assert_eq!(names(&scene).len(), 6);
    let before = dump(&scene);
    let would = apply(&scene, &["--set", "one", "--prune", "--dry-run"], &of(1..2)).ok().stdout;
    assert!(
        would.contains("tenant/t0 would be deleted") && would.contains("tenant/t2 would be deleted"),
        "{would}"
    );
    assert_eq!(dump(&scene), before);
    let said = apply(&scene, &["--set", "one", "--prune"], &of(1..2)).ok().stdout;
    assert!(said.contains("tenant/t0 deleted") && said.contains("tenant/t2 deleted"), "{said}");
    assert_eq!(names(&scene), ["t1", "t3", "t4", "t5"]);
    // Nothing would be left of the set: refused.
    let before = dump(&scene);
    apply(&scene, &["--set", "one", "--prune"], "").fails();
    apply(&scene, &["--set", "one", "--prune"], "# nothing\n").fails();
    // A prune without a set would be everybody's.
    assert_eq!(apply(&scene, &["--prune"], &of(1..2)).code(), 2);
    assert_eq!(dump(&scene), before);
    [1, 3, 4, 5].iter().for_each(|tenant| scene.answered(*tenant).unwrap());
    scene.answered(0).expect_err("a deleted tenant is not reached");
}

#[test]
fn an_address_moves_between_tenants_in_one_apply() {
    let Some(scene) = Scene::new("moves", 2) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    let swap = |text: String| {
        let text = text.replace("198.18.1.1/", "198.18.1.X/").replace("198.18.1.2/", "198.18.1.1/");
        let text = text.replace("198.18.1.X/", "198.18.1.2/").replace("::a:1/", "::a:X/");
        text.replace("::a:2/", "::a:1/").replace("::a:X/", "::a:2/")
    };
    // One alone would be two owners.
    scene.daemon.apply(&swap(scene.street.yaml(0))).fails();
    let both = swap(scene.street.documents());
    scene.daemon.apply(&both).ok();
    for (tenant, ip) in [(0, scene.street.local4(1)), (1, scene.street.local4(0))] {
        let dial = fief_testkit::Dial::to((ip, 8000).into());
        let answer = scene.street.client(tenant).enter(|| dial.tcp(b"moved")).unwrap();
        assert_eq!(answer, b"moved");
    }
    scene.daemon.apply(&scene.street.documents()).ok();
    (0..2).for_each(|tenant| scene.answered(tenant).unwrap());
}

#[test]
fn diff_tells_by_its_status() {
    let Some(scene) = Scene::new("diff", 2) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    let diff = |text: &str| scene.daemon.cli_command(&["diff", "-f", "-"]).input(text).run();
    let same = diff(&scene.street.documents());
    assert_eq!((same.code(), same.stdout.as_str()), (0, ""), "{same}");
    let before = dump(&scene);
    let changed = diff(&scene.street.documents().replace("via: \"198.19.1.2\"", "via: \"198.19.1.3\""));
    assert_eq!(changed.code(), 1, "{changed}");
    assert!(changed.stdout.contains("\n-    via: \"198.19.1.2\"\n+    via: \"198.19.1.3\""), "{changed}");
    assert_eq!(diff("nonsense: [").code(), 2);
    assert_eq!(dump(&scene), before);
}

#[test]
fn a_dump_makes_the_same_host_again() {
    let Some(scene) = Scene::new("dump", 3) else { return };
    let more = "  hostAccess: true\n  members: { users: [root, \"4711\"], groups: [\"0\"] }\n";
    let documents = [
        scene.street.yaml_with(0, more),
        scene.street.yaml_with(1, "    - { to: 192.0.2.0/24, type: blackhole }\n    - { to: 203.0.113.0/24, via: 198.19.1.2, metric: 7, mtu: 1400 }\n"),
        scene.street.yaml(2).replace("{ name: t2 }", "{ name: t2, labels: { org: blue, 'a/b': 'yes' } }"),
        "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: bare }\n".to_owned(),
    ];
    scene.daemon.apply(&documents.join("---\n")).ok();
    let first = dump(&scene);
    scene.daemon.cli_command(&["delete", "-f", "-"]).input(first.clone()).run().ok();
    assert_eq!(names(&scene), [""; 0]);
    scene.daemon.apply(&first).ok();
    assert_eq!(dump(&scene), first);
    (0..3).for_each(|tenant| scene.answered(tenant).unwrap());
    let again = scene.daemon.apply(&first).ok().stdout;
    assert_eq!(again.matches("unchanged").count(), 4, "{again}");
}
