//! What is known of conversations at a port: answers pass, what is about them, and nothing else; rules that change count at
//! once.

use std::net::IpAddr;
use std::time::Duration;

use fief_datapath::ports::{Conversing, Reason};
use fief_policy::Direction::{self, Egress, Ingress};
use fief_policykit::scene::{Scene, ScenePod, document, slot};
use fief_testkit::frame::Packet;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use crate::machine::{DEVICE, Machine, from_to};

pub const CLIENT: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub const SERVER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const ROUTER: [&str; 2] = ["198.51.100.1", "2001:db8:f::1"];

/// Who calls the server at these ports, and nobody else; the server calls nobody.
const CALLED: &str = "{ podSelector: { matchLabels: { app: server } }, policyTypes: [Ingress, Egress], ingress: [\
                      { from: [{ podSelector: { matchLabels: { app: client } } }], ports: [{ port: 80 }, \
                      { port: 53, protocol: UDP }] }] }";
const CLOSED: &str = "{ podSelector: { matchLabels: { app: server } }, policyTypes: [Ingress, Egress] }";
/// The server calls everybody, and nobody the server.
pub const CALLS: &str =
    "{ podSelector: { matchLabels: { app: server } }, policyTypes: [Ingress, Egress], egress: [{}] }";

pub const ACK: u8 = 0x10;
pub const SYN_ACK: u8 = 0x12;
const FIN: u8 = 0x11;
const RST: u8 = 0x04;

pub fn scene(spec: &str) -> Scene {
    let labels = Default::default();
    let pods = [0, 1].into_iter().flat_map(|family| {
        [("client", CLIENT[family]), ("server", SERVER[family])].map(|(app, address)| {
            ScenePod::new("shop", &labels, &format!("{app}{family}"), address).label("app", app)
        })
    });
    let documents = vec![document("shop", "web", spec)];
    Scene { pods: pods.collect(), documents, rules: Vec::new() }
}

/// The server's port.
struct Port {
    machine: Machine,
    family: usize,
}

impl Port {
    fn new(spec: &str) -> Option<Port> {
        let mut machine = Machine::new()?;
        machine.reach(&scene(spec));
        let mut port = Port { machine, family: 0 };
        port.of(0);
        Some(port)
    }

    fn of(&mut self, family: usize) {
        self.family = family;
        self.machine.occupy(SERVER[family].parse().unwrap());
        self.machine.policy.ports().forget().unwrap();
    }

    fn reach(&mut self, spec: &str) {
        self.machine.reach(&scene(spec));
    }

    fn asks(&mut self, direction: Direction, frame: &[u8]) -> bool {
        self.machine.policy.try_frame(direction, frame).unwrap().passes
    }

    fn to(&self) -> Packet {
        from_to(CLIENT[self.family].parse().unwrap(), SERVER[self.family].parse().unwrap())
    }

    fn back(&self) -> Packet {
        from_to(SERVER[self.family].parse().unwrap(), CLIENT[self.family].parse().unwrap())
    }

    /// A connection from the client's port to the server's 80.
    fn connect(&mut self, port: u16) {
        assert!(self.asks(Ingress, &self.to().tcp_syn(port, 80)));
        assert!(self.asks(Egress, &self.back().tcp((80, port), SYN_ACK, (1, 2), b"")));
        assert!(self.asks(Ingress, &self.to().tcp((port, 80), ACK, (2, 2), b"")));
    }
}

#[test]
fn answers_pass_and_nothing_else() {
    let Some(mut port) = Port::new(CALLED) else { return };
    for family in [0, 1] {
        port.of(family);
        let answer = |port: &Port, to: u16| port.back().tcp((80, to), SYN_ACK, (1, 2), b"");
        assert!(!port.asks(Egress, &answer(&port, 40_000)), "nobody has asked");
        port.connect(40_000);
        assert!(port.asks(Egress, &answer(&port, 40_000)));
        assert!(!port.asks(Egress, &answer(&port, 40_001)), "another's");
        assert!(!port.asks(Egress, &port.back().tcp_syn(80, 40_000)), "a call of its own");
        assert!(port.asks(Egress, &port.back().tcp((80, 40_000), ACK, (1, 2), b"more")));
        assert!(!port.asks(Ingress, &port.to().tcp_syn(40_000, 81)));

        assert!(!port.asks(Egress, &port.back().udp(53, 5353, b"answer")));
        assert!(port.asks(Ingress, &port.to().udp(5353, 53, b"question")));
        assert!(port.asks(Egress, &port.back().udp(53, 5353, b"answer")));
        assert!(!port.asks(Egress, &port.back().udp(53, 5354, b"answer")));
        assert!(!port.asks(Egress, &port.back().tcp((53, 5353), SYN_ACK, (1, 2), b"")), "another protocol");
    }
}

#[test]
fn a_ping_is_answered_and_no_other() {
    let Some(mut port) = Port::new(CALLS) else { return };
    for family in [0, 1] {
        port.of(family);
        let (request, reply) = if family == 0 { (8, 0) } else { (128, 129) };
        let echo = |packet: Packet, kind: u8, id: u8| packet.icmp(kind, 0, &[0, id, 0, 1]);
        let comes = |port: &Port, kind, id| echo(port.to(), kind, id);
        assert!(!port.asks(Ingress, &comes(&port, reply, 7)));
        assert!(port.asks(Egress, &echo(port.back(), request, 7)));
        assert!(port.asks(Ingress, &comes(&port, reply, 7)));
        assert!(!port.asks(Ingress, &comes(&port, reply, 8)), "another's");
        assert!(!port.asks(Ingress, &comes(&port, request, 7)), "a ping of its own");
        assert!(port.asks(Ingress, &comes(&port, reply, 7)), "the first goes on");
    }
}

#[test]
fn leases_and_groups_need_no_rule_and_lead_nowhere_else() {
    let Some(mut port) = Port::new(CLOSED) else { return };
    let gateways = [ROUTER[0], ROUTER[1], "fe80::1"].map(|address| address.parse::<IpAddr>().unwrap());
    for gateway in gateways {
        port.machine.policy.ports().hold(slot().into(), gateway, 0).unwrap();
    }
    for family in [0, 1] {
        port.of(family);
        let identity = port.machine.host.at[&SERVER[family].parse::<IpAddr>().unwrap()];
        let guarded = crate::machine::occupant(slot().into(), identity);
        let guarded = fief_datapath::ports::Occupant { is_guarded: true, ..guarded };
        port.machine.policy.ports().place(DEVICE, &guarded).unwrap();
        let (client, server) = if family == 0 { (68, 67) } else { (546, 547) };
        let own = SERVER[family].parse::<IpAddr>().unwrap();
        let all: IpAddr = ["255.255.255.255", "ff02::1:2"][family].parse().unwrap();
        let (gateway, other) = (gateways[family], CLIENT[family].parse::<IpAddr>().unwrap());
        for (to, passes) in [(all, true), (gateway, true), (other, false)] {
            let asks = from_to(own, to).udp(client, server, b"discover");
            assert_eq!(port.asks(Egress, &asks), passes, "to {to}");
            assert!(!port.asks(Egress, &from_to(own, to).udp(client, 69, b"something else")), "to {to}");
        }
        assert!(port.asks(Ingress, &from_to(gateway, own).udp(server, client, b"offer")));
        assert!(!port.asks(Ingress, &from_to(other, own).udp(server, client, b"offer")));
        assert!(!port.asks(Ingress, &from_to(gateway, own).udp(53, client, b"something else")));
        // On a switch the server is somebody's.
        let free = fief_datapath::ports::Occupant { is_guarded: false, ..guarded };
        port.machine.policy.ports().place(DEVICE, &free).unwrap();
        assert!(port.asks(Ingress, &from_to(other, own).udp(server, client, b"offer")));
        assert!(!port.asks(Egress, &from_to(own, other).udp(client, server, b"request")));
    }
    let report = |to: &str, hops| {
        let to = to.parse::<IpAddr>().unwrap();
        from_to(SERVER[1].parse().unwrap(), to).hops(hops).icmp(143, 0, &[0; 4])
    };
    assert!(port.asks(Egress, &report("ff02::16", 1)));
    assert!(!port.asks(Egress, &report("ff02::16", 2)) && !port.asks(Egress, &report(CLIENT[1], 1)));
}

#[test]
fn rules_that_change_count_for_what_goes_on() {
    let Some(mut port) = Port::new(CALLED) else { return };
    for family in [0, 1] {
        port.of(family);
        port.connect(40_000);
        port.reach(CLOSED);
        assert!(!port.asks(Ingress, &port.to().tcp((40_000, 80), ACK, (2, 2), b"")));
        assert!(!port.asks(Egress, &port.back().tcp((80, 40_000), ACK, (2, 2), b"")));
        // Allowed again, it goes on, whoever says something first.
        port.reach(CALLED);
        assert!(port.asks(Egress, &port.back().tcp((80, 40_000), ACK, (2, 2), b"")));
        assert!(port.asks(Ingress, &port.to().tcp((40_000, 80), ACK, (2, 2), b"")));
        // Now the server may call everybody; that makes an answer no less of one.
        port.reach(CALLS);
        assert!(!port.asks(Ingress, &port.to().tcp((40_000, 80), ACK, (2, 2), b"")));
        port.reach(CALLED);
    }
}

#[test]
fn nothing_is_judged_before_the_rules_count() {
    let Some(mut machine) = Machine::dormant() else { return };
    machine.reach(&scene(CALLED));
    machine.occupy(SERVER[0].parse().unwrap());
    let mut port = Port { machine, family: 0 };
    let forbidden = port.to().tcp_syn(40_000, 81);
    assert!(port.asks(Ingress, &forbidden));
    // What went on before is known, and judged when they do.
    assert!(port.asks(Ingress, &port.to().tcp_syn(40_001, 80)));
    let known = |to: u16, at: u16| Conversing {
        protocol: 6,
        own: (SERVER[0].parse::<IpAddr>().unwrap(), at).into(),
        other: (CLIENT[0].parse::<IpAddr>().unwrap(), to).into(),
        begun_here: false,
    };
    let now = since_start();
    port.machine.policy.ports().remember(DEVICE, now, &known(40_002, 80)).unwrap();
    port.machine.policy.ports().remember(DEVICE, now, &known(40_002, 81)).unwrap();
    port.machine.policy.enforce(slot().into());
    assert!(!port.asks(Ingress, &forbidden));
    for to in [40_001, 40_002] {
        assert!(port.asks(Egress, &port.back().tcp((80, to), ACK, (2, 2), b"")), "{to}");
    }
    assert!(!port.asks(Egress, &port.back().tcp((80, 40_003), ACK, (2, 2), b"")), "the control");
    assert!(!port.asks(Egress, &port.back().tcp((81, 40_002), ACK, (2, 2), b"")), "which may not begin now");
}

#[test]
fn errors_about_what_goes_on_pass() {
    let Some(mut port) = Port::new(CALLED) else { return };
    for family in [0, 1] {
        port.of(family);
        port.connect(40_000);
        let (kind, code) = if family == 0 { (3, 4) } else { (2, 0) };
        let router =
            |port: &Port| from_to(ROUTER[port.family].parse().unwrap(), SERVER[port.family].parse().unwrap());
        // About what the server has sent: its answer, without the Ethernet header.
        let sent = |port: &Port, to| port.back().tcp((80, to), ACK, (1, 2), b"")[14..].to_vec();
        let heard = |port: &mut Port, to| {
            let error = router(port).icmp_error(kind, code, 1400, &sent(port, to));
            port.asks(Ingress, &error)
        };
        assert!(heard(&mut port, 40_000));
        assert!(!heard(&mut port, 40_001), "about what was never sent");
        // And the server's own, about what it has got.
        let got = |port: &Port, from| port.to().tcp((from, 80), ACK, (1, 2), b"")[14..].to_vec();
        let says = |port: &mut Port, from| {
            let error = port.back().icmp_error(kind, code, 0, &got(port, from));
            port.asks(Egress, &error)
        };
        assert!(says(&mut port, 40_000));
        assert!(!says(&mut port, 40_001));
        // An echo is no error, whatever it carries.
        let echo = if family == 0 { 8 } else { 128 };
        assert!(!port.asks(Ingress, &router(&port).icmp_error(echo, 0, 0, &sent(&port, 40_000))));
    }
}

#[test]
fn fragments_follow_their_first() {
    let Some(mut port) = Port::new(CALLED) else { return };
    for family in [0, 1] {
        port.of(family);
        let datagram = |port: u16| {
            let [high, low] = port.to_be_bytes();
            [0x14, 0xe9, high, low, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        };
        let first = |port: &Port, id, to| port.to().fragment(id, 0, true).payload(17, &datagram(to));
        let later = |port: &Port, id| port.to().fragment(id, 16, false).payload(17, &[0; 8]);
        assert!(!port.asks(Ingress, &later(&port, 1)), "whose first was not here");
        assert!(port.asks(Ingress, &first(&port, 1, 53)));
        assert!(port.asks(Ingress, &later(&port, 1)));
        assert!(!port.asks(Ingress, &later(&port, 2)), "another packet's");
        assert!(!port.asks(Ingress, &first(&port, 3, 54)));
        assert!(!port.asks(Ingress, &later(&port, 3)), "whose first was refused");
        // The answer's.
        let answer = |port: &Port, id, offset, more, payload: &[u8]| {
            port.back().fragment(id, offset, more).payload(17, payload)
        };
        let head = [0, 53, 0x14, 0xe9, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(port.asks(Egress, &answer(&port, 9, 0, true, &head)));
        assert!(port.asks(Egress, &answer(&port, 9, 16, false, &[0; 8])));
        assert!(!port.asks(Egress, &answer(&port, 10, 16, false, &[0; 8])));
        // A first one of TCP that ends before it says how the connection begins.
        let short = port.to().fragment(11, 0, true).payload(6, &[0x9c, 0x40, 0, 80, 0, 0, 0, 1]);
        assert!(!port.asks(Ingress, &short));
    }
}

#[test]
fn what_is_over_is_over() {
    let Some(mut port) = Port::new(CALLED) else { return };
    port.connect(40_000);
    port.connect(40_001);
    port.connect(40_002);
    assert!(port.asks(Ingress, &port.to().tcp((40_001, 80), FIN, (3, 2), b"")));
    assert!(port.asks(Egress, &port.back().tcp((80, 40_001), FIN, (2, 4), b"")));
    assert!(port.asks(Ingress, &port.to().tcp((40_002, 80), RST, (3, 2), b"")));
    assert!(port.asks(Ingress, &port.to().udp(5353, 53, b"question")));
    let later = |seconds| since_start() + Duration::from_secs(seconds);
    let ports = port.machine.policy.ports();
    assert_eq!(ports.sweep(later(5)).unwrap(), 0);
    assert_eq!(ports.sweep(later(20)).unwrap(), 2, "ended, and reset");
    assert_eq!(ports.sweep(later(70)).unwrap(), 1, "not answered");
    assert_eq!(ports.sweep(later(7000)).unwrap(), 0, "RFC 5382: no less than two hours and four minutes");
    assert!(port.asks(Egress, &port.back().tcp((80, 40_000), ACK, (2, 4), b"")));
    let ports = port.machine.policy.ports();
    assert_eq!(ports.sweep(later(7500)).unwrap(), 1);
    assert!(!port.asks(Egress, &port.back().tcp((80, 40_000), ACK, (2, 4), b"")));
    // A port that is gone takes what was known of it along.
    port.connect(40_003);
    port.machine.policy.ports().remove(DEVICE).unwrap();
    assert_eq!(port.machine.policy.ports().sweep(later(0)).unwrap(), 1);
}

/// A thousand ports as a kernel chooses them: one says nothing about the next.
fn scattered_ports() -> Vec<u16> {
    let chosen = sample(&mut StdRng::seed_from_u64(7), 60_000, 1000);
    chosen.into_iter().map(|port| 1024 + u16::try_from(port).unwrap()).collect()
}

#[test]
fn many_who_wait_for_answers_get_theirs() {
    let Some(mut port) = Port::new(CALLED) else { return };
    for family in [0, 1] {
        port.of(family);
        let ports = scattered_ports();
        let (waiting, others) = ports.split_at(300);
        for from in waiting {
            assert!(port.asks(Ingress, &port.to().udp(*from, 53, b"question")));
        }
        let lost = waiting.iter().filter(|to| !port.asks(Egress, &port.back().udp(53, **to, b"answer")));
        assert_eq!(lost.count(), 0, "of 300 answers");
        let unasked = others.iter().filter(|to| port.asks(Egress, &port.back().udp(53, **to, b"answer")));
        assert_eq!(unasked.count(), 0, "of {}", others.len());
    }
}

#[test]
fn whoever_begins_much_displaces_his_own() {
    let Some(mut port) = Port::new(CALLED) else { return };
    port.connect(40_000);
    for source in 1..8000 {
        assert!(port.asks(Ingress, &port.to().tcp_syn(source, 80)));
    }
    assert!(port.asks(Egress, &port.back().tcp((80, 40_000), ACK, (2, 2), b"")), "what goes on stays");
    let known = port.machine.policy.ports().sweep(since_start() + Duration::from_secs(200)).unwrap();
    assert!((900..=1024).contains(&known), "{known} half open ones are known");
}

#[test]
fn what_is_denied_is_written_down() {
    let Some(mut port) = Port::new(CALLED) else { return };
    for _ in 0..3 {
        assert!(!port.asks(Ingress, &port.to().tcp_syn(40_000, 81)));
    }
    assert!(!port.asks(Egress, &port.back().udp(4000, 53, b"")));
    let mut denied = port.machine.policy.ports().denied().unwrap();
    denied.sort_by_key(|denied| denied.port);
    let [out, into] = &denied[..] else { panic!("{denied:?}") };
    assert_eq!(
        (into.direction, into.reason, into.protocol, into.port, into.count),
        (Ingress, Reason::Rule, 6, 81, 3)
    );
    assert_eq!(
        (out.direction, out.reason, out.protocol, out.port, out.count),
        (Egress, Reason::Rule, 17, 53, 1)
    );
    let [client, server] = [CLIENT, SERVER].map(|of| of[0].parse::<IpAddr>().unwrap());
    for denied in [into, out] {
        assert_eq!(denied.addresses, Some((server, client)));
        assert_eq!((denied.device, denied.slot), (DEVICE, slot().into()));
        assert!(denied.seen.0 <= denied.seen.1 && denied.seen.1 <= since_start());
        let rule = denied.rule.unwrap();
        assert_eq!(port.machine.host.tables.written[&rule].policy.name, "web");
    }
    // One that asks for everything fills no more than its share.
    for called in 1000..3000 {
        assert!(!port.asks(Ingress, &port.to().tcp_syn(40_000, called)));
    }
    let listed = port.machine.policy.ports().denied().unwrap().len();
    assert!((32..=200).contains(&listed), "{listed} of 2000 kinds");
}

#[test]
fn audited_policies_forbid_nothing_and_say_what_they_would() {
    let Some(mut port) = Port::new(CALLED) else { return };
    let identity = port.machine.host.at[&SERVER[0].parse::<IpAddr>().unwrap()];
    let strict = crate::machine::occupant(slot().into(), identity);
    let forbidden = port.to().tcp_syn(40_000, 81);
    assert!(!port.asks(Ingress, &forbidden), "the control");
    let audited = fief_datapath::ports::Occupant { is_audited: true, ..strict };
    port.machine.policy.ports().place(DEVICE, &audited).unwrap();
    assert!(port.asks(Ingress, &forbidden));
    assert!(port.asks(Egress, &port.back().tcp((81, 40_000), SYN_ACK, (1, 2), b"")));
    let denied = port.machine.policy.ports().denied().unwrap();
    assert!(denied.iter().any(|denied| denied.reason == Reason::Audited && denied.port == 81), "{denied:?}");
    // Strict again: what passed meanwhile is judged.
    port.machine.policy.ports().place(DEVICE, &strict).unwrap();
    port.machine.policy.renew(&[slot().into()].into());
    assert!(!port.asks(Egress, &port.back().tcp((81, 40_000), ACK, (1, 2), b"")));
}

/// CLOCK_MONOTONIC, which programs read.
pub fn since_start() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).try_into().unwrap()
}
