//! The programs of the host's short way: where they are, beside whom, and for how long.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use fief_testkit::{Ns, eventually};

use crate::app::App;
use crate::flow::Flow;
use crate::host_way::{A_WHILE, ECHO, count, counted, open, settle};
use crate::node::{Node, in_vrfs, tenant};
use crate::room::{SOON, wait};
use crate::town::Town;

const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";
/// Commands of bpf(2).
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const LINK_DETACH: libc::c_long = 34;

/// The numbers of the links (tcx) that the daemon has at a device (bpf_link_show_fdinfo in kernel/bpf/syscall.c). A link
/// that was detached names no device.
#[track_caller]
fn links_at(node: &Node, device: &str) -> Vec<u32> {
    let index = format!("ifindex:\t{}\n", node.town.host.ifindex(device));
    let held = std::fs::read_dir(format!("/proc/{}/fdinfo", node.daemon.pid())).expect("the daemon runs");
    let texts = held.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    let at = texts.filter(|text| text.contains("link_type:\ttcx") && text.contains(&index));
    let number =
        |text: String| text.lines().find_map(|line| line.strip_prefix("link_id:")?.trim().parse().ok());
    at.map(|text| number(text).expect("a link has a number")).collect()
}

/// Has an uplink got both programs, or soon so?
#[track_caller]
fn has_programs(node: &Node, device: &str, time: Duration) {
    let both = || match links_at(node, device)[..] {
        [_, _] => Ok(()),
        ref other => Err(format!("links at {device}: {other:?}")),
    };
    fief_testkit::attempt(time, both).unwrap_or_else(|why| panic!("{why}\n{}", node.daemon.log()));
}

/// Takes a program away from where it is, whoever's it is.
fn detach(link: u32) -> io::Result<()> {
    let command = |command: libc::c_long, of: u32| {
        let attribute = [of, 0, 0, 0];
        // SAFETY: a live attribute of whole numbers, with its size.
        let answer =
            unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size_of_val(&attribute)) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
    };
    let link = command(LINK_GET_FD_BY_ID, link)?;
    let done = command(LINK_DETACH, link as u32);
    // SAFETY: the descriptor was made above and belongs to nobody else.
    unsafe { libc::close(link as i32) };
    done.map(drop)
}

/// Few packets of a flow take the whole way.
#[track_caller]
fn is_short(node: &Node, from: &Ns) {
    let flow = Flow::start(from, (Town::SITE, ECHO).into());
    counted(node);
    wait(A_WHILE);
    let sent = flow.lost_nothing().sent;
    let whole = counted(node);
    assert!(whole < 40, "{whole} of {sent} datagrams there and back took the whole way");
}

#[test]
fn programs_are_at_uplinks_while_networks_leave_by_them() {
    let Some(node) = open("host-programs", 2) else { return };
    let before = node.town.host.sysctl(LIBERAL);
    let _a = settle(&node, "ni1", &["uplinks: [eth0]"]);
    has_programs(&node, "eth0", SOON);
    assert_eq!(links_at(&node, "eth1"), [] as [u32; 0], "nobody leaves there");
    assert_eq!(node.town.host.sysctl(LIBERAL), "1");
    let doctor = node.daemon.cli(&["doctor"]).stdout;
    assert!(doctor.lines().any(|line| line.contains("short way") && line.contains("eth0")), "{doctor}");
    node.daemon.cli(&["delete", "endpoint", "ni1/a"]).ok();
    node.daemon.cli(&["delete", "network", "ni1/net"]).ok();
    eventually(SOON, || match links_at(&node, "eth0")[..] {
        [] => Ok(()),
        ref stay => Err(format!("links stay at eth0: {stay:?}")),
    });
    assert_eq!(node.town.host.sysctl(LIBERAL), before);
}

#[test]
fn programs_that_somebody_takes_away_are_put_back() {
    let Some(node) = open("host-detach", 1) else { return };
    let a = settle(&node, "ni1", &["uplinks: [eth0]"]);
    let _echo = App::of(&node.town, node.town.site.clone()).echo(ECHO);
    count(&node);
    has_programs(&node, "eth0", SOON);
    is_short(&node, &a.ns);
    // Whichever of the two it is, nothing is short without it, and nothing is lost.
    for which in [0, 1] {
        let flow = Flow::start(&a.ns, (Town::SITE, ECHO).into());
        wait(A_WHILE / 4);
        detach(links_at(&node, "eth0")[which]).expect("root may detach a program");
        assert_eq!(links_at(&node, "eth0").len(), 1);
        wait(2 * A_WHILE);
        flow.lost_nothing();
        // It looks ten seconds after the last change; so something is to change.
        node.apply(&[tenant(&format!("more{which}"))]);
        has_programs(&node, "eth0", Duration::from_secs(20));
        is_short(&node, &a.ns);
    }
}

#[test]
fn a_daemon_that_starts_again_has_its_programs_again_and_nothing_is_lost() {
    let Some(mut node) = open("host-again", 1) else { return };
    let a = settle(&node, "ni1", &["uplinks: [eth0]"]);
    let _echo = App::of(&node.town, node.town.site.clone()).echo(ECHO);
    count(&node);
    let flow = Flow::start(&a.ns, (Town::SITE, ECHO).into());
    wait(A_WHILE / 4);
    node.daemon.restart();
    has_programs(&node, "eth0", SOON);
    flow.lost_nothing();
    is_short(&node, &a.ns);
}

#[test]
fn a_tenants_own_address_at_the_same_uplink_is_served_beside_it() {
    let Some(town) = Town::open("host-beside", 1).filter(|_| !in_vrfs()) else { return };
    let node = Node::in_town(town, "markMask: auto\n");
    const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 77);
    let neighbour = App::of(&node.town, node.town.neighbour(0, "neighbour", 99));
    let a = settle(&node, "ni1", &["uplinks: [eth0]"]);
    let _echo = App::of(&node.town, node.town.site.clone()).echo(ECHO);
    count(&node);
    is_short(&node, &a.ns);
    // Its programs come behind the others on the way out, and before them on the way in.
    node.apply(&[format!(
        "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: beside }}\nspec:\n  interfaces:\n    \
         - {{ name: eth0, addresses: [{OWN}/24] }}\n"
    )]);
    eventually(SOON, || if neighbour.pings(OWN) { Ok(()) } else { Err(format!("{OWN} is silent")) });
    is_short(&node, &a.ns);
    node.daemon.cli(&["delete", "tenant", "beside"]).ok();
    is_short(&node, &a.ns);
    assert!(!neighbour.pings(OWN), "nobody has {OWN} any more");
}

#[test]
fn an_uplink_may_be_a_bridge() {
    let Some(node) = open("host-bridge", 1) else { return };
    let (own, via) = (Town::host_address(0), Town::gateway_address(0));
    node.town.host.ip(&format!(
        "link add br0 type bridge\naddr flush dev eth0\nlink set eth0 master br0\nlink set br0 up\n\
         addr add {own}/24 dev br0\nroute add default via {via} dev br0\n"
    ));
    // Else answers are translated at its port.
    node.town.host.sh("echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables");
    let a = settle(&node, "ni1", &["uplinks: [br0]"]);
    let _echo = App::of(&node.town, node.town.site.clone()).echo(ECHO);
    count(&node);
    has_programs(&node, "br0", SOON);
    assert_eq!(links_at(&node, "eth0"), [] as [u32; 0], "it is a port of the uplink only");
    is_short(&node, &a.ns);
}
