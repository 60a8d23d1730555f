//! The short way: most packets of a conversation pass neither bridge nor netfilter, and nobody notices.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use fief_testkit::{Ns, eventually};

use crate::app::App;
use crate::flow::{Flow, Talk};
use crate::node::{Node, network, tenant};
use crate::room::{SOON, wait};
use crate::town::Town;

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
const ECHO: u16 = 7000;

/// Counts what a tenant's namespace forwards from here on, bridged and routed.
#[track_caller]
pub fn count(node: &Node, tenant: &str) {
    let rules = "add table inet probe; add counter inet probe passed; \
                 add chain inet probe forwarded { type filter hook forward priority -200; }; \
                 add rule inet probe forwarded counter name passed";
    node.run_inside(tenant, &["nft", rules]).ok();
}

/// What that is since it was asked last.
#[track_caller]
pub fn counted(node: &Node, tenant: &str) -> u64 {
    let listed = node.run_inside(tenant, &["nft", "reset", "counter", "inet", "probe", "passed"]).ok().stdout;
    let (_, packets) = listed.split_once("packets ").expect("a counter counts packets");
    packets.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn conversations_take_the_short_way_and_keep_their_records() {
    let Some(node) = Node::open("short", 1) else { return };
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"])]);
    let (a, b) = (node.place("ni1", "a", A), node.place("ni1", "b", B));
    let site = App::of(&node.town, node.town.site.clone());
    let _echoes = [site.echo(ECHO), b.echo(ECHO)];
    count(&node, "ni1");
    for address in [B, Town::SITE] {
        let to = SocketAddr::from((address, ECHO));
        let flow = Flow::start(&a.ns, to);
        wait(Duration::from_millis(2500));
        let sent = flow.lost_nothing().sent;
        // The first of them, and one a second in each direction.
        let whole = counted(&node, "ni1");
        assert!(
            (2..40).contains(&whole),
            "{whole} of {sent} datagrams there and back to {to} took the whole way"
        );

        let mut talk = Talk::open(&a.ns, to);
        (0..500).for_each(|_| talk.goes_on());
        let whole = counted(&node, "ni1");
        assert!((3..40).contains(&whole), "{whole} packets of a connection to {to}");
        // What is counted now is what always is.
        let states = |node: &Node| {
            let all = node
                .run_inside("ni1", &[&node.town.tools.conntrack.display().to_string(), "-L", "-p", "tcp"]);
            let own = format!("dst={} ", to.ip());
            all.stdout.lines().filter(|line| line.contains(&own)).map(str::to_owned).collect::<Vec<_>>()
        };
        let open = states(&node);
        let zone = format!("zone={}", node.slot("ni1"));
        assert!(open.len() == 1 && open[0].contains("ESTABLISHED") && open[0].contains(&zone), "{open:?}");
        drop(talk);
        eventually(SOON, || {
            let states = states(&node);
            if states.iter().any(|line| line.contains("ESTABLISHED")) {
                Err(format!("{states:?}"))
            } else {
                Ok(())
            }
        });
        // What is no conversation has no short way.
        counted(&node, "ni1");
        (0..20).for_each(|_| assert!(a.pings(address)));
        assert!(counted(&node, "ni1") >= 40, "each ping and its answer take the whole way");
    }
}

/// A socket that asks the echo outside from the same port as the others.
fn caller(ns: &Ns) -> UdpSocket {
    let socket = ns.enter(|| UdpSocket::bind("0.0.0.0:5555")).expect("the port is free");
    ns.enter(|| socket.connect((Town::SITE, ECHO))).expect("a route is there");
    socket.set_read_timeout(Some(SOON)).expect("a socket has a time-out");
    socket
}

#[test]
fn answers_on_the_short_way_come_to_who_asked() {
    let Some(node) = Node::open("short-nat", 1) else { return };
    for name in ["ni1", "ni2"] {
        node.apply(&[tenant(name), network(name, "10.10.1.0/24", &["uplinks: [eth0]"])]);
    }
    let apps = ["ni1", "ni2"].map(|name| [("a", A), ("b", B)].map(|(app, at)| node.place(name, app, at)));
    let seen = node.town.site.enter(|| UdpSocket::bind((Town::SITE, ECHO))).expect("the port is free");
    seen.set_read_timeout(Some(SOON)).expect("a socket has a time-out");
    // One address, one port, one destination, four callers.
    let callers: Vec<UdpSocket> = apps.iter().flatten().map(|app| caller(&app.ns)).collect();
    ["ni1", "ni2"].iter().for_each(|tenant| count(&node, tenant));
    let mut names = vec![BTreeSet::new(); callers.len()];
    for round in 0..200_u32 {
        for (who, socket) in callers.iter().enumerate() {
            let mut buffer = [0; 8];
            let said = [who as u32, round].map(u32::to_be_bytes).concat();
            // The first question of all finds no neighbour yet, and one may be lost for that.
            let (length, from) = eventually(SOON, || {
                socket.send(&said).map_err(|error| error.to_string())?;
                seen.recv_from(&mut buffer).map_err(|error| error.to_string())
            });
            assert_eq!(buffer[..length], said, "caller {who}, round {round}");
            seen.send_to(&said, from).expect("an answer can be sent");
            names[who].insert(from);
            let length =
                socket.recv(&mut buffer).unwrap_or_else(|e| panic!("caller {who}, round {round}: {e}"));
            assert_eq!(buffer[..length], said, "caller {who} hears what another asked");
        }
    }
    let all: BTreeSet<SocketAddr> = names.iter().flatten().copied().collect();
    assert!(names.iter().all(|own| own.len() == 1) && all.len() == callers.len(), "{names:?}");
    for tenant in ["ni1", "ni2"] {
        let whole = counted(&node, tenant);
        assert!((4..200).contains(&whole), "{whole} of 800 packets of {tenant} took the whole way");
    }
}

#[test]
fn what_the_whole_way_lets_through_no_more_ends_on_the_short_way_too() {
    let Some(node) = Node::open("short-end", 1) else { return };
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"])]);
    let (a, b) = (node.place("ni1", "a", A), node.place("ni1", "b", B));
    let _echo = b.echo(ECHO);
    let flow = Flow::start(&a.ns, (B, ECHO).into());
    wait(Duration::from_millis(500));
    count(&node, "ni1");
    node.run_inside("ni1", &["nft", "add rule inet probe forwarded udp dport 7000 drop"]).ok();
    wait(Duration::from_secs(3));
    let tally = flow.finish();
    assert!(tally.lost.len() > 1000, "most of what came in these three seconds is lost: {tally:?}");
    assert!(tally.returned > 300, "before, it was not: {tally:?}");
}
