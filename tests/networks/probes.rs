//! Uplinks that are probed: a gateway that is dead behind a wire that is well, and one that cannot make up its mind.
//!
//! Nothing is told to the host: its devices stay up, with carrier, address and route, whatever the gateways do.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fief_testkit::{Capture, eventually};
use serde_json::Value;

use crate::app::App;
use crate::flow::{Flow, Talk};
use crate::node::{Node, network, tenant};
use crate::room::{SOON, wait};
use crate::town::Town;

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
/// From one probe to the next.
const INTERVAL: Duration = Duration::from_millis(200);
/// `fall` and `rise` are three: two whole intervals at least.
const TWICE: Duration = Duration::from_millis(400);
const PROBED: &str = "uplinks: { probe: { interval: 200ms, timeout: 150ms } }\n";
const ECHO: u16 = 7000;

/// Takes an uplink's gateway away, or gives it back. The host's device keeps its carrier.
#[track_caller]
fn gateway(node: &Node, uplink: usize, there: bool) {
    let state = if there { "up" } else { "down" };
    node.town.gateways[uplink].ip(&format!("link set eth0 {state}\n"));
    let shown = node.town.host.sh(&format!("ip link show eth{uplink}"));
    assert!(shown.stdout.contains("LOWER_UP"), "{shown}");
}

#[track_caller]
fn status(node: &Node, tenant: &str) -> Value {
    node.view("network", tenant, "net")["status"].clone()
}

/// Waits until a network leaves by this uplink.
#[track_caller]
fn moves_to(node: &Node, tenant: &str, uplink: &str) {
    eventually(SOON, || match status(node, tenant) {
        status if status["uplink"] == uplink => Ok(()),
        status => Err(format!("{status}")),
    });
}

/// The site sees the address of this uplink at the first attempt.
#[track_caller]
fn leaves_by(app: &App, uplink: usize) {
    let seen = app.glance(Town::SITE).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(seen.from, Town::host_address(uplink));
}

#[test]
fn a_gateway_that_falls_silent_is_left_and_taken_again_and_nobody_else_notices() {
    let Some(town) = Town::open("probed", 2) else { return };
    let node = Node::in_town(town, PROBED);
    node.apply(&[
        tenant("ni1"),
        tenant("ni2"),
        network("ni1", "10.10.1.0/24", &["uplinks: [eth0, eth1]"]),
        network("ni2", "10.10.1.0/24", &["uplinks: [eth1]"]),
    ]);
    let (both, beside) = (node.place("ni1", "a", A), node.place("ni1", "b", B));
    let second = node.place("ni2", "a", A);
    let (_inner, _outer) = (beside.echo(ECHO), App::of(&node.town, node.town.site.clone()).echo(ECHO));
    let outside = (Town::SITE, ECHO).into();
    eventually(SOON, || both.glance(Town::SITE));
    leaves_by(&both, 0);
    // Nothing is told of an uplink that works.
    assert_eq!(status(&node, "ni1")["uplinks"][0]["lacks"], Value::Null);

    let began = Instant::now();
    gateway(&node, 0, false);
    moves_to(&node, "ni1", "eth1");
    let took = began.elapsed();
    assert!(took > TWICE, "three probes in a row, not {took:?}");
    leaves_by(&both, 1);
    let now = status(&node, "ni1");
    assert_eq!((&now["phase"], &now["conditions"]), (&"Ready".into(), &Value::Array(vec![])));
    let why = "does not answer: 3 probes to 192.168.0.1 lost";
    assert_eq!(now["uplinks"][0]["lacks"], why);
    let table = node.daemon.cli(&["get", "networks"]).ok().stdout;
    assert!(table.contains(&format!("eth1 (eth0 {why})")), "{table}");

    // What is by the second uplink, or inside, is not touched by what becomes of the first.
    let flows = [
        Flow::start(&both.ns, (B, ECHO).into()),
        Flow::start(&second.ns, outside),
        Flow::start(&both.ns, outside),
    ];
    let mut old = Talk::open(&both.ns, outside);
    let began = Instant::now();
    gateway(&node, 0, true);
    moves_to(&node, "ni1", "eth0");
    let took = began.elapsed();
    assert!(took > TWICE, "three probes in a row, not {took:?}");
    leaves_by(&both, 0);
    old.goes_on();
    let mut new = Talk::open(&both.ns, outside);
    gateway(&node, 0, false);
    moves_to(&node, "ni1", "eth1");
    leaves_by(&both, 1);
    old.goes_on();
    flows.into_iter().for_each(|flow| drop(flow.lost_nothing()));
    // A connection stays where it was opened: this one waits for its gateway.
    gateway(&node, 0, true);
    new.goes_on();
}

#[test]
fn a_gateway_that_nobody_is_to_probe_is_trusted() {
    let Some(node) = Node::open("trusted", 2) else { return };
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0, eth1]"])]);
    let app = node.place("ni1", "a", A);
    eventually(SOON, || app.glance(Town::SITE));
    gateway(&node, 0, false);
    wait(10 * INTERVAL);
    assert_eq!(status(&node, "ni1")["uplink"], "eth0");
    app.glance(Town::SITE).expect_err("its gateway is away");
}

#[test]
fn a_gateway_that_flaps_faster_than_it_is_believed_moves_nobody() {
    let Some(town) = Town::open("probed-flap", 2) else { return };
    // In 800 ms there is time for two probes, never for four, and for one at least.
    let config = "uplinks: { probe: { interval: 500ms, timeout: 200ms, fall: 4, rise: 4 } }\n";
    let node = Node::in_town(town, config);
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0, eth1]"])]);
    let app = node.place("ni1", "a", A);
    eventually(SOON, || app.glance(Town::SITE));
    let flap = |first: &str, then: &str, uplink: &str| {
        // One process, so that no other work of this test comes in between.
        let turn = |state| format!("ip link set eth0 {state}; sleep 0.8");
        let turns = format!("for i in 1 2 3 4; do {}; {}; done", turn(first), turn(then));
        node.town.gateways[0].sh(&turns).ok();
        assert_eq!(status(&node, "ni1")["uplink"], uplink, "{}", node.daemon.log());
    };
    flap("down", "up", "eth0");
    // The same gateway, long enough away, is left.
    gateway(&node, 0, false);
    moves_to(&node, "ni1", "eth1");
    leaves_by(&app, 1);
    flap("up", "down", "eth1");
    let log = node.daemon.log();
    assert_eq!(
        (log.matches("does not answer").count(), log.matches("answers again").count()),
        (1, 0),
        "{log}"
    );
    gateway(&node, 0, true);
    moves_to(&node, "ni1", "eth0");
    eventually(SOON, || app.glance(Town::SITE));
    leaves_by(&app, 0);
}

#[test]
fn a_gateway_that_answers_and_leads_nowhere_is_found_out_by_who_is_behind_it() {
    let Some(town) = Town::open("probed-far", 2) else { return };
    // The host's own way to the site is by eth0: a probe of eth1 that took it would be answered for ever.
    let config = "uplinks:\n  probe: { targets: [192.0.2.80], interval: 200ms, timeout: 150ms }\n  devices:\n    \
                  eth1: { probe: { targets: ['192.0.2.80:80'] } }\n";
    let node = Node::in_town(town, config);
    node.apply(&[
        tenant("ni1"),
        tenant("ni2"),
        network("ni1", "10.10.1.0/24", &["uplinks: [eth0, eth1]"]),
        network("ni2", "10.10.1.0/24", &["uplinks: [eth1, eth0]"]),
    ]);
    // What comes from outside still gets in, so an answer would arrive whichever way the question went.
    let leads = |uplink: usize, leads: bool| {
        node.town.gateways[uplink].nft(if leads {
            "delete table ip cut"
        } else {
            "table ip cut { chain c { type filter hook forward priority 10; iifname eth0 drop; }; }"
        });
    };
    // Both work, long enough for each to have been found out.
    wait(5 * INTERVAL);
    for (tenant, own, other, target) in [("ni1", 0, 1, "192.0.2.80"), ("ni2", 1, 0, "192.0.2.80:80")] {
        let [first, second] = [own, other].map(|uplink| format!("eth{uplink}"));
        assert_eq!(status(&node, tenant)["uplink"], first.as_str());
        leads(own, false);
        moves_to(&node, tenant, &second);
        let why = format!("does not answer: 3 probes to {target} lost");
        assert_eq!(status(&node, tenant)["uplinks"][0]["lacks"], why);
        leads(own, true);
        moves_to(&node, tenant, &first);
    }
    // A port that is closed answers: it is the way that is asked for, not the service.
    let closed = "uplinks: { probe: { targets: ['192.0.2.80:9'], interval: 200ms, timeout: 150ms } }\n";
    let Node { daemon, town } = node;
    drop(daemon);
    let node = Node::in_town(town, closed);
    wait(10 * INTERVAL);
    assert_eq!(status(&node, "ni1")["uplink"], "eth0", "{}", node.daemon.log());
}

#[test]
fn a_daemon_that_starts_again_knows_who_was_silent() {
    let Some(town) = Town::open("probed-again", 2) else { return };
    let mut node = Node::in_town(town, PROBED);
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0, eth1]"])]);
    let app = node.place("ni1", "a", A);
    let _outer = App::of(&node.town, node.town.site.clone()).echo(ECHO);
    eventually(SOON, || app.glance(Town::SITE));
    gateway(&node, 0, false);
    moves_to(&node, "ni1", "eth1");
    let flow = Flow::start(&app.ns, (Town::SITE, ECHO).into());
    let kept = node.daemon.root().join("run/fief/silent-uplinks.json");
    for round in 0..2 {
        if round == 0 {
            node.daemon.restart()
        } else {
            node.daemon.kill9()
        }
        if round == 1 {
            node.daemon.restart();
        }
        // Each attempt is a new connection; until the first probes are lost it is the file that knows.
        for _ in 0..10 {
            assert_eq!(status(&node, "ni1")["uplink"], "eth1", "{}", node.daemon.log());
            leaves_by(&app, 1);
        }
    }
    flow.lost_nothing();
    // Without it the dead one would be taken, until it is known again.
    node.daemon.kill9();
    std::fs::remove_file(&kept).expect("who is silent is kept there");
    let found_out = |node: &Node| node.daemon.log().matches("does not answer").count();
    assert_eq!(found_out(&node), 1, "nobody had to find out again: {}", node.daemon.log());
    node.daemon.restart();
    eventually(SOON, || if found_out(&node) == 2 { Ok(()) } else { Err(node.daemon.log()) });
    moves_to(&node, "ni1", "eth1");
    node.daemon.restart();
    let began = Instant::now();
    gateway(&node, 0, true);
    moves_to(&node, "ni1", "eth0");
    let took = began.elapsed();
    assert!(took > TWICE, "three probes in a row, not {took:?}");
    leaves_by(&app, 0);
    eventually(SOON, || {
        if kept.exists() { Err("it is kept that nobody is silent") } else { Ok(()) }.map_err(str::to_owned)
    });
}

#[test]
fn who_is_nobodys_uplink_or_is_down_is_not_asked() {
    let Some(town) = Town::open("probed-idle", 2) else { return };
    let node = Node::in_town(town, PROBED);
    let documents = |uplinks: &str| [tenant("ni1"), network("ni1", "10.10.1.0/24", &[uplinks])];
    node.apply(&documents("uplinks: [eth0]"));
    // "Who has", by ARP, Ethernet and IPv4.
    let question = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    let captures = [0, 1].map(|uplink| Capture::on(&node.town.host, &format!("eth{uplink}")));
    let asked = |time: Duration| {
        captures.iter().for_each(Capture::clear);
        wait(time);
        [0, 1].map(|i| captures[i].count(|frame| frame.contains(&question)))
    };
    let [used, unused] = asked(10 * INTERVAL);
    // One a round, and no more: a question that is answered is not asked again.
    assert!((5..=10).contains(&used), "{used} questions in ten intervals");
    assert_eq!(unused, 0);
    node.apply(&documents("uplinks: [eth0, eth1]"));
    let [_, used] = asked(10 * INTERVAL);
    assert!((5..=11).contains(&used), "{used} questions in ten intervals");
    // Without a carrier a question would not even leave.
    node.town.carrier(1, false);
    eventually(SOON, || match status(&node, "ni1") {
        status if status["uplinks"][1]["lacks"] == "has no carrier" => Ok(()),
        status => Err(format!("{status}")),
    });
    let [used, down] = asked(10 * INTERVAL);
    assert!(used >= 5 && down == 0, "{used} and {down} questions");
    node.apply(&documents("uplinks: []"));
    assert_eq!(asked(5 * INTERVAL), [0, 0]);
}
