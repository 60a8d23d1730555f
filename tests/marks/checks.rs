//! `fief marks check`: its exit status, and its words.

use fief_testkit::{Daemon, DaemonOptions, Families, Lab, Ns, Output, Street, bin};

use super::scanned::{alone, marks};

#[track_caller]
fn check(lab: &Lab, ns: &Ns, mask: &str, status: i32, says: &[&str]) -> Output {
    let checked = marks(lab, ns, &["check", mask]);
    assert_eq!(checked.code(), status, "{checked}");
    for text in says {
        assert!(checked.stdout.contains(text), "no {text:?}: {checked}");
    }
    checked
}

#[test]
fn what_is_in_the_way_is_named_by_how_bad_it_is() {
    let Some(lab) = Lab::new("check-words") else { return };
    let _shared = alone(false);
    let (ns, other) = (lab.ns("host"), lab.ns("other"));
    other.ip("rule add fwmark 0x5 lookup 7 pref 40\n");
    check(&lab, &ns, "0xff00", 0, &["the bits 0xff00: nothing collides (", " objects looked at)"]);

    // It compares with bits that tenants' packets never have all zero.
    ns.ip("rule add fwmark 0x1745ec lookup 7 pref 30\n");
    check(
        &lab,
        &ns,
        "0xff000000",
        0,
        &["notice: ovn-kubernetes? and fief share bits 0xff000000 of the packet mark"],
    );
    check(
        &lab,
        &ns,
        "0xff0000",
        1,
        &["warning: ovn-kubernetes? and fief share bits 0xff0000 of the packet mark"],
    );

    ns.ip("rule del pref 30\nrule add fwmark 0x1200/0xff00 lookup 7 pref 31\n");
    let says = ["warning: somebody and fief share bits 0xf00 of the packet mark", "  where:  ip rule 31\n"];
    check(&lab, &ns, "0xfff", 1, &says);
    check(&lab, &ns, "0xff", 0, &["nothing collides"]);

    ns.nft("table inet t { chain c { meta mark set meta mark & 0xffff00ff | 0x4200; }; }");
    let says = [
        "error: somebody and fief share bits 0xf000 of the packet mark",
        "  where:  inet t c handle 2\n",
        "  breaks: packets that pass there become another tenant's: they go astray or are dropped\n",
        "  remedy: write it as `meta mark set meta mark & 0xf000 | ...`; or move fief's field: ",
        "`fief marks move --to 0xffff0000`\n",
    ];
    let checked = check(&lab, &ns, "0xf000", 1, &says);
    let (error, warning) = (checked.stdout.find("error:"), checked.stdout.find("warning:"));
    assert!(error < warning, "the worst comes first: {checked}");

    // Everything but 0 passes there, and that is every tenant.
    ns.nft("add rule inet t c meta mark & 0xff0000 != 0 accept");
    check(&lab, &ns, "0xf0000", 1, &["warning: somebody and fief share bits 0xf0000 "]);
    ns.nft("add rule inet t c ct mark set 5");
    check(&lab, &ns, "0xff000000", 0, &["nothing collides"]);
    ns.nft("add rule inet t c meta mark set 5");
    check(
        &lab,
        &ns,
        "0xff000000",
        1,
        &["error: somebody and fief share bits 0xff000000 ", "lose their tenant"],
    );
    assert_eq!(
        marks(&lab, &other, &["check", "0xff000000"]).code(),
        0,
        "another namespace is another's affair"
    );
}

#[test]
fn what_cannot_be_told_is_no_success() {
    let Some(lab) = Lab::new("check-cannot") else { return };
    let _shared = alone(false);
    let ns = lab.ns("host");
    let wrong = marks(&lab, &ns, &["check", "forty"]);
    assert!(wrong.code() == 2 && wrong.stderr.contains("`forty` is not a mark"), "{wrong}");
    let fief = lab.expose(&bin("fief"));
    let asked =
        ns.command(&[fief.to_str().expect("plain"), "marks", "check", "0xff"]).user(65534, 65534).run();
    assert!(asked.code() == 2 && asked.stdout.contains("not looked at: bpf programs: "), "{asked}");
    // What is seen is a conflict all the same.
    ns.ip("rule add fwmark 0x5/0xff lookup 7\n");
    let asked =
        ns.command(&[fief.to_str().expect("plain"), "marks", "check", "0xff"]).user(65534, 65534).run();
    assert!(asked.code() == 1 && asked.stdout.contains("not looked at: "), "{asked}");
}

#[test]
fn without_a_mask_it_is_fiefs_own_field() {
    let Some(lab) = Lab::new("check-own") else { return };
    let _shared = alone(false);
    let street = Street::new(&lab, 1, Families::Both);
    let alone = marks(&lab, &street.host, &["check"]);
    assert!(alone.code() == 0 && alone.stdout.contains("no fief is running here; give a mask"), "{alone}");
    let daemon = Daemon::start(&lab, &street.host, DaemonOptions::default());
    daemon.apply(&street.documents()).ok();
    let own = daemon.cli(&["marks", "check"]);
    assert!(own.code() == 0 && own.stdout.contains("fief's field 0xffff: nothing collides"), "{own}");
    street.host.nft("table inet t { chain c { meta mark set meta mark | 0x8; }; }");
    let hit = daemon.cli(&["marks", "check"]);
    assert!(hit.code() == 1 && hit.stdout.contains("error: somebody and fief share bits 0x8 "), "{hit}");
}

/// Whoever waits at a terminal sees how far it is; whoever reads the output in a program does not.
#[test]
fn a_long_scan_shows_its_progress_on_a_terminal() {
    let Some(lab) = Lab::new("marks-progress") else { return };
    let ns = lab.ns("host");
    let rules = "  meta mark 1 accept\n".repeat(3000);
    ns.nft(&format!("table inet long {{\n chain c {{\n{rules} }}\n}}\n"));
    let fief = bin("fief").display().to_string();
    let terminal = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let shown = ns.run(&["/usr/bin/python3", "-c", terminal, &fief, "marks", "scan", "--here"]).ok();
    assert!(shown.stdout.contains("000 objects looked at\r"), "{shown}");
    let plain = ns.run(&[&fief, "marks", "scan", "--here"]).ok();
    assert!(!plain.stderr.contains("looked at") && plain.stdout.contains("inet long c handle"), "{plain}");
}
