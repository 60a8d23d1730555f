//! What a frame may look like: fragments, headers in between, what is no packet of IP, what cannot be read.

use std::net::IpAddr;

use fief_datapath::policy::Judged;
use fief_policy::Direction::{Egress, Ingress};
use fief_policy::rule::{Origin, Peer, PortMatch, PortSet, Ports, Rule, Statement, order};
use fief_policy::selector::Selector;
use fief_policy::verdict::{Action, Tier};
use fief_policy::{Direction, Identity, Policy, PolicyKey, Verdict};
use fief_policykit::scene::{Scene, ScenePod, document, slot};
use fief_testkit::Frame;

use crate::machine::{Machine, from_to};

const CLIENT: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const SERVER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const STRANGER: [&str; 2] = ["198.51.100.9", "2001:db8:f::9"];

/// Two workloads in both families; the server's policies.
fn machine(specs: &[&str]) -> Option<Machine> {
    machine_with(specs, Vec::new())
}

fn machine_with(specs: &[&str], rules: Vec<Policy>) -> Option<Machine> {
    let mut machine = Machine::new()?;
    let labels = Default::default();
    let pods = [0, 1].into_iter().flat_map(|family| {
        [("client", CLIENT[family]), ("server", SERVER[family])].map(|(app, address)| {
            ScenePod::new("shop", &labels, &format!("{app}{family}"), address).label("app", app)
        })
    });
    let documents = specs.iter().enumerate().map(|(n, spec)| document("shop", &format!("p{n}"), spec));
    machine.reach(&Scene { pods: pods.collect(), documents: documents.collect(), rules });
    Some(machine)
}

fn packet(family: usize) -> fief_testkit::frame::Packet {
    from_to(CLIENT[family].parse::<IpAddr>().unwrap(), SERVER[family].parse::<IpAddr>().unwrap())
}

/// At the server's port, as if nothing had been there before.
fn ask(machine: &mut Machine, frame: &[u8]) -> Judged {
    let family = usize::from(frame[12..14] == [0x86, 0xdd]);
    machine.occupy(SERVER[family].parse().unwrap());
    machine.policy.ports().forget().unwrap();
    machine.policy.try_frame(Ingress, frame).unwrap()
}

fn passes(machine: &mut Machine, frame: &[u8]) -> bool {
    let judged = ask(machine, frame);
    let verdict = judged.verdict.expect("the tables were asked");
    assert_eq!(verdict.passes(), judged.passes);
    judged.passes
}

const ONE_PORT: &str =
    "{ podSelector: { matchLabels: { app: server } }, ingress: [{ ports: [{ port: 80 }] }] }";
const ALL_OF_TCP: &str =
    "{ podSelector: { matchLabels: { app: server } }, ingress: [{ ports: [{ protocol: TCP }] }] }";
const LOW_PORTS: &str =
    "{ podSelector: { matchLabels: { app: server } }, ingress: [{ ports: [{ port: 1, endPort: 65535 }] }] }";
const ANYTHING: &str = "{ podSelector: { matchLabels: { app: server } }, ingress: [{}] }";

#[test]
fn a_fragment_whose_first_was_not_here_has_no_port() {
    // Which policy, does a later fragment of TCP pass, does one of UDP?
    for (spec, tcp, udp) in [
        (ONE_PORT, false, false),
        (LOW_PORTS, false, false),
        (ALL_OF_TCP, true, false),
        (ANYTHING, true, true),
    ] {
        let Some(mut machine) = machine(&[spec]) else { return };
        for family in [0, 1] {
            // Bytes that would be port 80 at the place of a header.
            let payload = [156, 64, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 80, 2, 0, 0];
            let first = packet(family).fragment(7, 0, true).payload(6, &payload);
            assert!(passes(&mut machine, &first), "{spec}: the first has its port");
            // Of packets whose first fragment was not here.
            let later = |protocol| packet(family).fragment(8, 16, false).payload(protocol, &payload);
            assert_eq!(passes(&mut machine, &later(6)), tcp, "{spec}");
            assert_eq!(passes(&mut machine, &later(17)), udp, "{spec}");
            let last = packet(family).fragment(7, 0, false).payload(6, &payload);
            assert!(passes(&mut machine, &last), "{spec}: a fragment that is whole");
        }
    }
}

#[test]
fn port_zero_is_a_port() {
    // Network policies cannot name it; rules of other kinds can.
    let says = Statement {
        tier: Tier::Namespace,
        order: order::ALLOW,
        subject: Selector::default(),
        direction: Ingress,
        peers: vec![Peer::Any],
        ports: Ports::Only(vec![PortMatch { protocol: 6, ports: PortSet::Range(0, 1023) }]),
        action: Action::Allow,
    };
    let origin = Origin { source: "acl.yaml".into(), line: 1, path: "rules[0]".into() };
    let key = PolicyKey { tenant: slot(), kind: "Acl", namespace: String::new(), name: "low".into() };
    let policy = Policy { key, rules: vec![Rule { origin, says }] };
    let Some(mut machine) = machine_with(&["{ podSelector: {} }"], vec![policy]) else { return };
    for family in [0, 1] {
        assert!(passes(&mut machine, &packet(family).tcp_syn(40_000, 0)));
        assert!(passes(&mut machine, &packet(family).tcp_syn(40_000, 1023)));
        assert!(!passes(&mut machine, &packet(family).tcp_syn(40_000, 1024)));
        assert!(!passes(&mut machine, &packet(family).fragment(7, 16, false).payload(6, &[0; 24])));
    }
}

/// IPv6 extension headers, and what they carry.
fn behind(headers: &[u8], packet: &[u8]) -> Vec<u8> {
    let mut next: Vec<u8> = headers.to_vec();
    next.push(6);
    let mut bytes = Vec::new();
    for pair in next.windows(2) {
        match pair[0] {
            // Authentication: in units of four, less two.
            51 => {
                bytes.extend([pair[1], 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            44 => bytes.extend([pair[1], 0, 0, 0, 0, 0, 0, 1]),
            _ => bytes.extend([pair[1], 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        }
    }
    bytes.extend(packet);
    bytes
}

#[test]
fn extension_headers_hide_no_port() {
    let Some(mut machine) = machine(&[ONE_PORT]) else { return };
    let segment = |port: u8| [156, 64, 0, port, 0, 0, 0, 1, 0, 0, 0, 0, 80, 2, 0, 0, 0, 0, 0, 0];
    for headers in [&[0][..], &[60], &[43], &[51], &[44], &[0, 60, 43, 44, 51, 60], &[60; 8]] {
        let frame = |port| packet(1).payload(headers[0], &behind(headers, &segment(port)));
        assert!(passes(&mut machine, &frame(80)), "{headers:?}");
        assert!(!passes(&mut machine, &frame(81)), "{headers:?}");
    }
    // More of them than anybody needs, and one that says it is longer than the packet: not read, dropped.
    let many = packet(1).payload(60, &behind(&[60; 9], &segment(80)));
    let long = packet(1).payload(60, &[6, 255, 0, 0, 0, 0, 0, 0]);
    for frame in [many, long] {
        let judged = ask(&mut machine, &frame);
        assert_eq!((judged.passes, judged.verdict), (false, None));
    }
}

#[test]
fn options_of_ipv4_are_passed_over() {
    let Some(mut machine) = machine(&[ONE_PORT]) else { return };
    let with_options = |port: u8, head: u8| {
        let mut frame = packet(0).tcp_syn(40_000, port.into());
        frame[14] = head;
        frame.splice(34..34, [1; 8]);
        frame
    };
    assert!(passes(&mut machine, &with_options(80, 0x47)));
    assert!(!passes(&mut machine, &with_options(81, 0x47)));
    for head in [0x44, 0x67] {
        let judged = ask(&mut machine, &with_options(80, head));
        assert_eq!((judged.passes, judged.verdict), (false, None), "{head:#x}");
    }
}

#[test]
fn what_is_not_read_is_dropped() {
    let Some(mut machine) = machine(&[ANYTHING]) else { return };
    let head = || Frame::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    assert!(passes(&mut machine, &packet(0).tcp_syn(40_000, 80)), "the control");
    let short = &packet(0).payload(6, &[156, 64]);
    let tagged = head().vlan(20).ip(CLIENT[0], SERVER[0]).tcp_syn(40_000, 80);
    let others = head().payload(0x88cc, &[0; 46]);
    for (what, frame) in [("no ports", short), ("a tag", &tagged), ("no IP", &others)] {
        let judged = ask(&mut machine, frame);
        assert_eq!((judged.passes, judged.verdict), (false, None), "{what}");
    }
    let arp = head().arp_request(CLIENT[0].parse().unwrap(), SERVER[0].parse().unwrap());
    assert!(ask(&mut machine, &arp).passes);
    // A device that is nobody's.
    machine.policy.ports().remove(crate::machine::DEVICE).unwrap();
    let judged = machine.policy.try_frame(Ingress, &packet(0).tcp_syn(40_000, 80)).unwrap();
    assert_eq!((judged.passes, judged.verdict), (false, None));
}

#[test]
fn neighbours_are_found_whatever_policies_say() {
    let Some(mut machine) = machine(&["{ podSelector: {} }"]) else { return };
    let asks = packet(1).neighbour_solicitation(SERVER[1].parse().unwrap());
    let answers = packet(1).neighbour_advertisement(SERVER[1].parse().unwrap());
    for frame in [asks, answers] {
        assert_eq!((ask(&mut machine, &frame).passes, ask(&mut machine, &frame).verdict), (true, None));
    }
    // What a router passed on, other messages, and what only looks like one.
    assert!(!passes(&mut machine, &packet(1).hops(254).icmp(135, 0, &[0; 20])));
    assert!(!passes(&mut machine, &packet(1).hops(255).icmp(137, 0, &[0; 36])));
    assert!(!passes(&mut machine, &packet(1).hops(255).icmp(128, 0, &[0; 4])));
    assert!(!passes(&mut machine, &packet(1).hops(255).payload(17, &[135, 0, 0, 80, 0, 8, 0, 0])));
    assert!(!passes(&mut machine, &packet(1).hops(255).fragment(1, 8, false).payload(58, &[135, 0, 0, 0])));
}

#[test]
fn the_subject_has_the_port_and_the_peer_the_address() {
    let Some(mut machine) = machine(&[]) else { return };
    for family in [0, 1] {
        let [client, server, stranger] =
            [CLIENT, SERVER, STRANGER].map(|of| of[family].parse::<IpAddr>().unwrap());
        let mut ends = |direction: Direction, at: IpAddr, from: IpAddr, to: IpAddr| {
            machine.occupy(at);
            machine.policy.ports().forget().unwrap();
            let judged = machine.policy.try_frame(direction, &from_to(from, to).tcp_syn(1, 80)).unwrap();
            (judged.subject, judged.peer, judged.passes)
        };
        let (one, other, _) = ends(Ingress, server, client, server);
        assert!(one.is_workload() && other.is_workload() && one != other);
        assert_eq!(ends(Egress, client, client, server), (other, one, true));
        assert_eq!(ends(Ingress, server, stranger, server), (one, Identity::WORLD, true));
        // Whatever address it says it has, or is called by.
        assert_eq!(ends(Egress, client, stranger, server), (other, one, true));
        let everybody = ["255.255.255.255", "ff02::1"][family].parse().unwrap();
        assert_eq!(ends(Ingress, server, client, everybody), (one, other, true));
        // A port of somebody without an identity.
        assert_eq!(ends(Egress, stranger, stranger, server), (Identity::ANY, one, false));
    }
    // The same addresses at the port of another tenant: whom that does not know is the world.
    let occupant = crate::machine::occupant(2, Identity::FIRST);
    machine.policy.ports().place(crate::machine::DEVICE, &occupant).unwrap();
    machine.policy.enforce(2);
    let judged = machine.policy.try_frame(Ingress, &packet(0).tcp_syn(1, 80)).unwrap();
    assert_eq!((judged.verdict, judged.peer), (Some(Verdict::Unknown), Identity::WORLD));
}

#[test]
fn an_address_of_ipv4_is_in_no_block_of_ipv6() {
    let blocks = "{ podSelector: { matchLabels: { app: server } }, ingress: [\
                  { from: [{ ipBlock: { cidr: '::/0', except: ['2001:db8:f::/48'] } }] }] }";
    let Some(mut machine) = machine(&[blocks]) else { return };
    assert!(passes(&mut machine, &packet(1).tcp_syn(1, 80)));
    let judged = ask(&mut machine, &packet(0).tcp_syn(1, 80));
    assert!(matches!(judged.verdict, Some(Verdict::Decided(Action::Deny, _))), "{judged:?}");
    let hole = from_to(STRANGER[1].parse().unwrap(), SERVER[1].parse().unwrap()).tcp_syn(1, 80);
    assert!(!passes(&mut machine, &hole));
}
