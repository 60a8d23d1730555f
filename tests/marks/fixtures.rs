//! Each software of the registry as it is on a host: what it installs, which marks that uses, whom it meets.

#[path = "fixtures/clusters.rs"]
mod clusters;
#[path = "fixtures/hosts.rs"]
mod hosts;
#[path = "fixtures/meshes.rs"]
mod meshes;

use std::collections::BTreeSet;
use std::time::Duration;

use fief_testkit::{Child, Lab, Ns};
use fief_tests::peers::peer;

use super::scanned::{Counted, Seen, alone, common, here, marks, without};

/// A software on a host.
pub struct Fixture {
    /// Its short name in the registry.
    pub software: &'static str,
    /// What it installs.
    pub things: &'static [Thing],
    /// Every use of a mark in them, a line each, see [`Seen::declared`].
    pub declared: &'static str,
    /// A mask that gets in its way, and the bits of it that `fief marks check` must name.
    pub meets: Option<(u32, u32)>,
    /// A mask that does not; none for those who overwrite the whole mark.
    pub beside: Option<u32>,
}

/// Something on a host.
pub enum Thing {
    /// Lines for iptables-restore, and its kind: `iptables-legacy`, `ip6tables-nft`.
    Tables(&'static str, &'static str),
    /// Lines for nft(8).
    Nft(&'static str),
    /// Arguments of ip(8), a line each call.
    Ip(&'static str),
    /// A line for conntrack(8).
    Connection(&'static str),
    /// A socket that a process of this name holds, with this mark.
    Socket(&'static str, u32),
}

fn all() -> impl Iterator<Item = &'static Fixture> {
    clusters::FIXTURES.iter().chain(meshes::FIXTURES).chain(hosts::FIXTURES)
}

impl Fixture {
    /// Installs it; what it returns is held until it is dropped. `None` where a program is missing.
    #[track_caller]
    fn install(&self, lab: &Lab, ns: &Ns) -> Option<Vec<Child>> {
        let mut held = Vec::new();
        for thing in self.things {
            match thing {
                Thing::Tables(kind, lines) => {
                    let restore = peer(&format!("{kind}-restore"))?;
                    ns.command(&[restore.as_os_str(), "--noflush".as_ref()]).input(*lines).run().ok();
                }
                Thing::Nft(rules) => ns.nft(rules),
                Thing::Ip(lines) => lines.lines().for_each(|line| drop(ns.sh(&format!("ip {line}")).ok())),
                Thing::Connection(line) => {
                    let conntrack = peer("conntrack")?;
                    ns.sh(&format!("{} -I {line}", conntrack.display())).ok();
                }
                Thing::Socket(process, mark) => held.push(socket(lab, ns, process, *mark)),
            }
        }
        Some(held)
    }

    #[track_caller]
    fn declared(&self) -> Vec<Seen> {
        let lines = self.declared.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| Seen::declared(line, self.software)).collect()
    }
}

/// A socket with a mark, held by a process of this name until it is dropped.
#[track_caller]
fn socket(lab: &Lab, ns: &Ns, process: &str, mark: u32) -> Child {
    let program = lab.dir().join(process);
    if !program.exists() {
        std::os::unix::fs::symlink(fief_testkit::peer(), &program).expect("the lab's directory is writable");
    }
    let mark = format!("{mark:#x}");
    let mut child = ns.spawn(&[program.to_str().expect("plain"), "hold", "127.0.0.1:0", "--mark", &mark]);
    child.wait_for_output("ready", Duration::from_secs(10));
    child
}

/// Holds what the scan finds against what is declared, and returns how many uses that is.
#[track_caller]
fn compare(name: &str, lab: &Lab, ns: &Ns, declared: &[Seen]) -> u64 {
    let mut expected = Counted::new();
    declared.iter().for_each(|one| *expected.entry(one.clone()).or_default() += 1);
    let mut found = Counted::new();
    here(lab, ns).into_iter().for_each(|row| *found.entry(row.seen).or_default() += row.count);
    let (missing, undeclared) = (without(&expected, &found), without(&found, &expected));
    let (both, of) = (common(&expected, &found), declared.len() as u64);
    println!("{name}: {both} of {of} declared uses found, {} undeclared", undeclared.len());
    assert!(
        missing.is_empty() && undeclared.is_empty(),
        "{name}: not found:\n{}\nfound and not declared:\n{}",
        missing.join("\n"),
        undeclared.join("\n")
    );
    of
}

/// Somebody whose mask is in the software's way is told so, and somebody whose mask is not goes free.
#[track_caller]
fn check(fixture: &Fixture, lab: &Lab, ns: &Ns) {
    let software = fixture.software;
    if let Some((mask, bits)) = fixture.meets {
        let checked = marks(lab, ns, &["check", &format!("{mask:#x}")]);
        // Whoever is known by a value only is asked for.
        let says = ["", "?"].map(|guess| format!("{software}{guess} and fief share bits {bits:#x} of the "));
        let is_said = says.iter().any(|says| checked.stdout.contains(says));
        assert!(checked.code() == 1 && is_said, "no {says:?}: {checked}");
    }
    if let Some(mask) = fixture.beside {
        let checked = marks(lab, ns, &["check", &format!("{mask:#x}")]);
        let errors = ["error:", "warning:"].iter().any(|severity| checked.stdout.contains(severity));
        assert!(checked.code() == 0 && !errors, "{software} is not in the way of {mask:#x}: {checked}");
    }
}

#[test]
fn every_declared_use_of_every_software_is_found() {
    let Some(lab) = Lab::new("marks-each") else { return };
    let _shared = alone(false);
    let mut count = 0;
    for (i, fixture) in all().enumerate() {
        let ns = lab.ns(&format!("f{i}"));
        let Some(held) = fixture.install(&lab, &ns) else { return };
        count += compare(fixture.software, &lab, &ns, &fixture.declared());
        check(fixture, &lab, &ns);
        drop(held);
    }
    println!("{count} of {count} declared uses of {} fixtures found", all().count());
    // The control: where nobody is, every mask goes free.
    let empty = marks(&lab, &lab.ns("empty"), &["check", "0xffffffff"]);
    assert!(empty.code() == 0 && empty.stdout.contains("nothing collides"), "{empty}");
}

#[test]
fn every_software_of_the_registry_has_a_fixture() {
    let Some(lab) = Lab::new("marks-rows") else { return };
    let listed = marks(&lab, &lab.ns("host"), &["list", "-o", "json"]).ok().json();
    let named =
        listed["software"].as_array().expect("software").iter().map(|s| s["name"].as_str().unwrap_or("?"));
    let (rows, fixtures): (BTreeSet<&str>, BTreeSet<&str>) =
        (named.collect(), all().map(|f| f.software).collect());
    assert_eq!(rows, fixtures);
}

#[test]
fn all_of_them_on_one_host_are_told_apart() {
    let Some(lab) = Lab::new("marks-all") else { return };
    let _shared = alone(false);
    let ns = lab.ns("host");
    let mut held = Vec::new();
    for fixture in all() {
        let Some(children) = fixture.install(&lab, &ns) else { return };
        held.extend(children);
    }
    let declared: Vec<Seen> = all().flat_map(Fixture::declared).collect();
    compare("all at once", &lab, &ns, &declared);
    let checked = marks(&lab, &ns, &["check", "-o", "json"]);
    assert_eq!(checked.code(), 1, "{checked}");
    let conflicts = checked.json();
    let collide = |one: &str, other: &str| {
        let conflicts = conflicts.as_array().expect("a list of conflicts").iter();
        let mut between = conflicts.map(|conflict| [&conflict["between"][0], &conflict["between"][1]]);
        between.any(|names| names == [one, other] || names == [other, one])
    };
    for (one, other) in [
        ("calico", "tailscale"),
        ("calico", "weave"),
        ("weave", "tailscale"),
        ("calico", "eve"),
        ("cilium", "kube-vip"),
        ("cilium", "kubernetes"),
        ("istio", "aws-vpc-cni"),
        ("vxlan-gbp", "kubernetes"),
        ("eve", "eve-2021"),
    ] {
        assert!(collide(one, other), "{one} and {other} collide: {checked}");
    }
    for (one, other) in [
        ("kubernetes", "cni-portmap"),
        ("kubernetes", "calico"),
        ("kubernetes", "tailscale"),
        ("cni-portmap", "tailscale"),
        ("cni-portmap", "calico"),
        ("kubespan", "kubernetes"),
        ("kubespan", "aws-vpc-cni"),
        ("weave", "kubernetes"),
    ] {
        assert!(!collide(one, other), "{one} and {other} do not collide: {checked}");
    }
}

#[test]
fn strangers_are_taken_for_nobody() {
    let Some(lab) = Lab::new("marks-strangers") else { return };
    let _shared = alone(false);
    let (ns, stranger) = (lab.ns("host"), &hosts::STRANGER);
    let Some(_held) = stranger.install(&lab, &ns) else { return };
    compare("strangers", &lab, &ns, &stranger.declared());
    check(stranger, &lab, &ns);
    let met = marks(&lab, &ns, &["check", "0xf000"]);
    assert!(met.code() == 1 && met.stdout.contains("error: somebody and fief share bits 0xf000 "), "{met}");
}
