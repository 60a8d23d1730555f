//! Switches on VLANs: one device, one wire, an untagged switch and one on VLAN 20, and the same addresses on both.
//!
//! ```text
//!   tenant plain   a 10.20.0.2 ── switch lan ──────── eth3 ┐         ┌ plain's outside  10.20.0.1, 7001
//!   tenant tagged  a 10.20.0.2 ── switch lan, VLAN 20 ─────┴─ wire ──┴ tagged's outside 10.20.0.1 on eth0.20, 7002
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use fief_testkit::frame::{BROADCAST, Frame};
use fief_testkit::{
    Capture, Daemon, DaemonOptions, Dial, Echo, EchoOptions, Lab, Ns, Snapshot, attempt, eventually, inject,
};

const SOON: Duration = Duration::from_secs(20);
/// EtherType for experiments (IEEE 802).
const EXPERIMENT: u16 = 0x88b5;
/// Tenant, more of the switch, where the outside has its address, the port that it serves.
const SIDES: [(&str, &str, &str, u16); 2] =
    [("plain", "", "eth0", 7001), ("tagged", ", vlan: 20", "eth0.20", 7002)];

struct Scene {
    _echoes: Vec<Echo>,
    apps: [Ns; 2],
    outside: [Ns; 2],
    daemon: Daemon,
    host: Ns,
    _lab: Lab,
}

impl Scene {
    #[track_caller]
    fn open(name: &str) -> Option<Scene> {
        let lab = Lab::new(name)?;
        let host = lab.ns("host");
        // Only where br_netfilter is loaded.
        drop(host.sh(
            "for f in iptables ip6tables arptables; do echo 0 >/proc/sys/net/bridge/bridge-nf-call-$f; done",
        ));
        let wire = lab.wire("wire");
        wire.attach(&host, "eth3");
        let mut echoes = Vec::new();
        let outside = SIDES.map(|(tenant, _, device, port)| {
            let ns = lab.ns(&format!("{tenant}-outside"));
            wire.attach(&ns, "eth0");
            if device != "eth0" && !super::add_vlan(&ns) {
                return None;
            }
            // Or the one would answer for its address on the other's device as well.
            ns.set_sysctl("net.ipv4.conf.all.arp_ignore", 1);
            ns.ip(&format!("addr add 10.20.0.1/24 dev {device}\n"));
            let at: SocketAddr = ([10, 20, 0, 1], port).into();
            echoes.push(ns.enter(|| Echo::listen(at, EchoOptions::default())).expect("a port is free"));
            Some(ns)
        });
        let [Some(plain), Some(tagged)] = outside else {
            let in_vm = std::env::var_os("FIEF_TEST_VM").is_some();
            assert!(!in_vm, "the virtual machine's kernel has 802.1q");
            fief_testkit::skip("this kernel has no 802.1q devices; `make test-vm` runs it");
            return None;
        };
        let apps = SIDES.map(|(tenant, ..)| lab.ns(&format!("{tenant}-a")));
        let daemon = Daemon::start(&lab, &host, DaemonOptions::default());
        Some(Scene { _echoes: echoes, apps, outside: [plain, tagged], daemon, host, _lab: lab })
    }

    /// Everything, each side with its own way to name the device.
    #[track_caller]
    fn apply(&self, uplinks: [&str; 2]) {
        let mut text = String::new();
        for (((tenant, more, ..), app), uplink) in SIDES.iter().zip(&self.apps).zip(uplinks) {
            let more = if uplink.contains('.') { "" } else { more };
            text += &format!(
                "---\napiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {tenant} }}\n---\n\
                 apiVersion: fief/v1alpha1\nkind: Network\nmetadata: {{ name: lan, tenant: {tenant} }}\n\
                 spec: {{ type: switch, uplinks: [{uplink}]{more} }}\n---\n\
                 apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: a, tenant: {tenant} }}\n\
                 spec: {{ networks: [{{ network: lan }}], attach: {{ netns: {} }} }}\n",
                app.path().display()
            );
        }
        self.daemon.apply(&text).ok();
        for app in &self.apps {
            eventually(SOON, || {
                let shown = app.sh("ip link show dev eth0");
                if shown.success() { Ok(()) } else { Err(format!("{shown}\n{}", self.daemon.log())) }
            });
            app.ip("addr replace 10.20.0.2/24 dev eth0\n");
        }
    }

    /// Does a side's endpoint hear an echo from this port of 10.20.0.1?
    fn hears(&self, side: usize, port: u16, time: Duration) -> bool {
        let dial = Dial::to(([10, 20, 0, 1], port).into()).timeout(Duration::from_millis(200));
        attempt(time, || self.apps[side].enter(|| dial.udp(b"hello")).map(drop).map_err(|e| e.to_string()))
            .is_ok()
    }

    /// Each endpoint has its own outside, and no other.
    #[track_caller]
    fn check(&self) {
        for (side, (tenant, _, _, port)) in SIDES.into_iter().enumerate() {
            assert!(
                self.hears(side, port, SOON),
                "{tenant} does not hear its own outside\n{}",
                self.daemon.log()
            );
            let other = SIDES[1 - side].3;
            assert!(
                !self.hears(side, other, Duration::from_millis(500)),
                "{tenant} hears the other's outside"
            );
        }
    }

    #[track_caller]
    fn wait_reasons(&self, tenant: &str, wanted: &[&str]) {
        eventually(SOON, || {
            let listed = self.daemon.cli(&["get", "networks", "-o", "json"]).ok().json();
            let of = |view: &&serde_json::Value| view["network"]["metadata"]["tenant"] == tenant;
            let status = listed.as_array().and_then(|all| all.iter().find(of)).cloned().unwrap_or_default();
            let conditions = status["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found: Vec<String> = conditions.iter().map(|c| c["reason"].to_string()).collect();
            let found: Vec<&str> = found.iter().map(|reason| reason.trim_matches('"')).collect();
            if found == wanted { Ok(()) } else { Err(format!("{tenant}: {status}")) }
        });
    }
}

#[test]
fn switch_on_a_vlan_and_an_untagged_one_share_a_device() {
    let Some(scene) = Scene::open("trunk") else { return };
    let before = Snapshot::of(&scene.host);
    scene.apply(["eth3", "eth3"]);
    scene.check();
    // On the wire one of them has a tag.
    let wire = Capture::on(&scene.host, "eth3");
    for (app, word) in scene.apps.iter().zip(["untagged word", "tagged word"]) {
        let payload = format!("{word:-<60}");
        inject(app, "eth0", &Frame::new(app.mac("eth0"), BROADCAST).payload(EXPERIMENT, payload.as_bytes()));
    }
    // Its beginning is the EtherType's, so that the other word is not found in this one.
    let behind = |word: &[u8]| [&EXPERIMENT.to_be_bytes()[..], word].concat();
    let words = [behind(b"untagged word"), behind(b"tagged word")];
    assert!(words.iter().all(|word| wire.wait_for(word, SOON)));
    let frames = wire.frames();
    let tag_of = |word: &[u8]| {
        let frame = frames.iter().find(|frame| frame.contains(word)).map(|frame| frame.bytes.clone());
        frame.map(|bytes| {
            (bytes[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([bytes[14], bytes[15]]) & 0xfff)
        })
    };
    assert_eq!(words.each_ref().map(|word| tag_of(word)), [Some(None), Some(Some(20))]);
    drop(wire);

    // An endpoint's own tag leads nowhere; the same frame from outside does.
    let ear = Capture::on(&scene.outside[1], "eth0.20");
    let hop = |ns: &Ns, word: &str| {
        let frame = Frame::new(ns.mac("eth0"), BROADCAST).vlan(20);
        inject(ns, "eth0", &frame.payload(EXPERIMENT, format!("{word:-<60}").as_bytes()));
    };
    hop(&scene.apps[0], "hopping");
    hop(&scene.outside[0], "trunk");
    assert!(ear.wait_for(b"trunk", SOON));
    assert!(!ear.contains(b"hopping"), "an endpoint reached another VLAN");

    // Each goes alone, and nothing stays.
    let devices = || scene.host.sh("ip -d link show type vlan").ok().stdout;
    assert!(devices().contains("vlan protocol 802.1Q id 20"), "{}", devices());
    for kind in ["endpoint tagged/a", "network tagged/lan"] {
        let (kind, name) = kind.split_once(' ').expect("two words");
        scene.daemon.cli(&["delete", kind, name]).ok();
    }
    assert_eq!(devices(), "");
    assert!(scene.hears(0, 7001, SOON));
    for tenant in ["tagged", "plain"] {
        scene.daemon.cli(&["delete", "tenant", tenant]).ok();
    }
    eventually(SOON, || match before.diff(&Snapshot::of(&scene.host)) {
        None => Ok(()),
        Some(diff) => Err(diff),
    });
}

#[test]
fn switch_on_a_vlan_comes_back_with_its_device_and_the_daemon() {
    let Some(mut scene) = Scene::open("vlan-back") else { return };
    scene.apply(["eth3", "eth3"]);
    scene.check();
    scene.daemon.kill9();
    scene.check();
    scene.daemon.restart();
    scene.check();
    scene.host.ip("link set eth3 down\n");
    scene.wait_reasons("tagged", &["UplinkDown"]);
    scene.host.ip("link set eth3 up\n");
    scene.check();
    scene.wait_reasons("tagged", &[]);
    // Somebody takes the device for the VLAN away.
    scene.host.sh("ip link del $(ip -o link show type vlan | sed 's/^[0-9]*: \\([^@]*\\)@.*/\\1/')").ok();
    scene.check();
    scene.host.ip("link set eth3 name other\n");
    scene.wait_reasons("tagged", &["DeviceMissing"]);
    scene.host.ip("link set other name eth3\n");
    scene.check();
}

#[test]
fn switch_leaves_somebody_elses_vlan_device_alone() {
    let Some(scene) = Scene::open("vlan-taken") else { return };
    let lines =
        ["add link eth3 name eth3.20 type vlan id 20", "set eth3.20 addrgenmode none", "set eth3.20 up"];
    scene.host.ip(&lines.map(|line| format!("link {line}\n")).concat());
    scene.apply(["eth3", "eth3"]);
    scene.wait_reasons("tagged", &["VlanTaken"]);
    assert!(scene.hears(0, 7001, SOON));
    // Named itself, it is a port as any device.
    scene.apply(["eth3", "eth3.20"]);
    scene.check();
    scene.daemon.cli(&["delete", "tenant", "tagged"]).ok();
    scene.host.sh("ip link show eth3.20").ok();
}
