//! Two cables between a switch of fief's and one outside: a loop, unless somebody cuts it.
//!
//! ```text
//!   host            core
//!   eth8 ────────── p8 ┐
//!   eth9 ────────── p9 ┤ br0, a real bridge
//!   neighbour ───── p0 ┘
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use fief_testkit::frame::{BROADCAST, Frame};
use fief_testkit::{Capture, Ns, attempt, eventually, inject};

use crate::app::App;
use crate::node::{Node, tenant};
use crate::room::{SOON, wait};
use crate::town::Town;
use crate::yard::{is_answered, node, place, ports, switch};

const A: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 61);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 99);
/// The host's devices that lead to the core.
const CABLES: [&str; 2] = ["eth8", "eth9"];
/// EtherType for experiments (IEEE 802).
const EXPERIMENT: u16 = 0x88b5;
/// A port that comes up listens and learns, two seconds each where the core is the root; and the kernel's timers are
/// coarse.
const TREE: Duration = Duration::from_secs(30);

/// A node with two cables to a core, which runs the protocol or does not.
#[track_caller]
fn looped(name: &str, stp: bool) -> Option<(Node, Ns, App)> {
    let town = Town::open(name, 1)?;
    let core = town.lab.ns("core");
    for family in ["iptables", "ip6tables", "arptables"] {
        core.set_sysctl(&format!("net.bridge.bridge-nf-call-{family}"), 0);
    }
    core.set_sysctl("net.ipv6.conf.default.disable_ipv6", 1);
    let tree =
        if stp { "stp_state 1 priority 4096 forward_delay 200 hello_time 100 max_age 600" } else { "" };
    core.ip(&format!("link add br0 type bridge mcast_snooping 0 {tree}\nlink set br0 up\n"));
    for (cable, port) in CABLES.into_iter().zip(["p8", "p9"]) {
        town.lab.veth((&town.host, cable), (&core, port));
        town.host.ip(&format!("addr flush dev {cable}\n"));
        core.ip(&format!("link set {port} master br0\n"));
    }
    let neighbour = town.lab.ns("neighbour");
    town.lab.veth((&neighbour, "eth0"), (&core, "p0"));
    core.ip("link set p0 master br0\n");
    neighbour.ip(&format!("addr add {NEIGHBOUR}/24 dev eth0\n"));
    let neighbour = App::of(&town, neighbour);
    Some((node(town, &[]), core, neighbour))
}

/// The states of both ports, without their names.
fn states(node: &Node) -> Vec<String> {
    ports(node, "ni6").into_iter().map(|(_, state)| state).collect()
}

/// How often the neighbour gets what an endpoint says once, half a second later.
#[track_caller]
fn copies(app: &App, neighbour: &App, time: Duration) -> usize {
    let ear = Capture::on(&neighbour.ns, "eth0");
    inject(&app.ns, "eth0", &Frame::new(app.ns.mac("eth0"), BROADCAST).payload(EXPERIMENT, &[b'x'; 60]));
    assert!(ear.wait_for(&[b'x'; 60], SOON), "it never arrived");
    wait(time);
    ear.count(|frame| frame.contains(&[b'x'; 60]))
}

#[test]
fn switch_with_two_cables_to_one_switch_makes_no_loop_and_survives_either() {
    let Some((node, core, neighbour)) = looped("tree", true) else { return };
    node.apply(&[tenant("ni6"), switch("ni6", &["uplinks: [eth8, eth9]"])]);
    let app = place(&node, "ni6", "a", A);
    let settled = |wanted: [&str; 2]| {
        let found =
            attempt(TREE, || if states(&node) == wanted { Ok(()) } else { Err(states(&node).join(", ")) });
        assert!(found.is_ok(), "{found:?}, not {wanted:?}");
    };
    settled(["forwarding", "blocking"]);
    is_answered(&app, NEIGHBOUR);
    assert_eq!(copies(&app, &neighbour, Duration::from_millis(500)), 1);
    // The outside keeps its root.
    let trunk = node.view("network", "ni6", "lan")["status"]["trunk"].as_str().unwrap_or_default().to_owned();
    let root = node.town.host.sh(&format!("ip -d link show {trunk}")).ok().stdout;
    assert!(!root.contains("root_port 0 "), "the core is not the root: {root}");
    // An endpoint more, and one less, are no change of the tree, and the new one is there at once.
    let changes = |node: &Node| {
        let shown = node.town.host.sh(&format!("ip -d link show {trunk}")).ok().stdout;
        shown.contains("topology_change 1") || shown.contains("topology_change_detected 1")
    };
    eventually(TREE, || if changes(&node) { Err("the tree still changes".to_owned()) } else { Ok(()) });
    let second = place(&node, "ni6", "b", Ipv4Addr::new(192, 168, 8, 62));
    assert!(
        attempt(Duration::from_secs(3), || if second.pings(NEIGHBOUR) { Ok(()) } else { Err(String::new()) })
            .is_ok()
    );
    assert!(!changes(&node));

    for (cut, rest) in [("p8", ["disabled", "forwarding"]), ("p9", ["forwarding", "disabled"])] {
        core.ip(&format!("link set {cut} down\n"));
        settled(rest);
        let answered = attempt(TREE, || if app.pings(NEIGHBOUR) { Ok(()) } else { Err(String::new()) });
        assert!(answered.is_ok(), "nobody took over from {cut}");
        node.wait_phase("network", "ni6", "lan", "Ready");
        core.ip(&format!("link set {cut} up\n"));
        settled(["forwarding", "blocking"]);
    }
    assert_eq!(copies(&app, &neighbour, Duration::from_millis(500)), 1);
}

/// Cuts a cable whatever happens: a storm leaves no time to the machine.
struct Scissors<'a>(&'a Ns);

impl Drop for Scissors<'_> {
    fn drop(&mut self) {
        self.0.ip("link set p9 down\n");
    }
}

/// The positive control: without the protocol the same cables are a storm.
#[test]
fn switch_without_the_tree_is_a_storm_where_cables_are_a_loop() {
    let Some((node, core, neighbour)) = looped("storm", false) else { return };
    drop(Scissors(&core));
    node.apply(&[tenant("ni6"), switch("ni6", &["uplinks: [eth8, eth9]", "stp: false"])]);
    let app = place(&node, "ni6", "a", A);
    is_answered(&app, NEIGHBOUR);
    assert_eq!(copies(&app, &neighbour, Duration::from_millis(500)), 1, "one cable is no loop");
    let came = || {
        let shown = core.sh("ip -j -s link show p8").ok().json();
        shown[0]["stats64"]["rx"]["packets"].as_u64().expect("a counter is a number")
    };
    let before = came();
    let scissors = Scissors(&core);
    core.ip("link set p9 up\n");
    eventually(SOON, || {
        let far = core.sh("bridge link show dev p9").ok().stdout;
        let near = states(&node);
        if near == ["forwarding", "forwarding"] && far.contains("state forwarding") {
            return Ok(());
        }
        Err(format!("{near:?}, {far}"))
    });
    for _ in 0..10 {
        inject(&app.ns, "eth0", &Frame::new(app.ns.mac("eth0"), BROADCAST).payload(EXPERIMENT, &[b'x'; 60]));
        wait(Duration::from_millis(2));
    }
    drop(scissors);
    let heard = came() - before;
    assert!(heard > 100, "{heard} frames: that is no loop, and the other test proves nothing");
    assert_eq!(states(&node), ["forwarding", "disabled"]);
    eventually(SOON, || {
        let before = came();
        wait(Duration::from_millis(50));
        if came() - before < 20 { Ok(()) } else { Err("the storm goes on".to_owned()) }
    });
    is_answered(&app, NEIGHBOUR);
}
