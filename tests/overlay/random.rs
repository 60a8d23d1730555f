//! An attacker who tries what he can think of, at random, with the wire as the judge: whatever he has called, each datagram
//! that leaves his host is of his segment, in all that is promised of it; and he hears nothing else. With a bare socket he
//! finds everything that the guard is against, and scripts/test-teeth.sh holds that he does with each rule of it off.
//!
//! `FIEF_SEED` repeats a run; `FIEF_SOAK=1` makes two million calls.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use fief_testkit::Captured;

use crate::lan::{Family, GROUP, Lan, PORT};

/// What there is to be found: a foreign header on the wire; another group, port or host; hops, IP options or another source;
/// another card; an option that is not listed; a header in a page; foreign datagrams heard, alone or behind one of ours; a
/// copy for who listens to another group on the same host.
const ALL: [&str; 10] =
    ["header", "group", "host", "packet", "card", "option", "page", "foreign", "several", "copy"];
/// A round.
const CALLS: u32 = 5_000;

#[test]
fn guarded_socket_random_attacker() {
    let soak = std::env::var("FIEF_SOAK").is_ok_and(|soak| soak == "1");
    let Some(lan) = open("random") else { return };
    let seed = seed();
    // With a rule off (scripts/test-teeth.sh) he has a hundred thousand calls to find out.
    let is_rule_off = std::env::var("FIEF_TEETH").is_ok_and(|rule| !rule.is_empty());
    for round in 0..if soak {
        200
    } else if is_rule_off {
        10
    } else {
        2
    } {
        for family in Family::BOTH {
            let seed = seed.wrapping_add(round);
            let found = Attack { lan: &lan, family, seed, is_bare: false }.run();
            assert!(found.is_empty(), "FIEF_SEED={seed} {family:?}: {found:?}");
        }
    }
}

#[test]
fn guarded_socket_random_attack_on_a_bare_socket_finds_everything() {
    let Some(lan) = open("random-bare") else { return };
    let (mut found, mut calls, seed) = (BTreeSet::new(), 0, seed());
    for round in 0..10 {
        for family in Family::BOTH {
            if found.len() == ALL.len() {
                continue;
            }
            found.extend(Attack { lan: &lan, family, seed: seed.wrapping_add(round), is_bare: true }.run());
            calls += CALLS;
        }
    }
    println!("{calls} calls");
    assert_eq!(found, ALL.into_iter().map(str::to_owned).collect(), "FIEF_SEED={seed}: within {calls} calls");
}

fn seed() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.subsec_nanos());
    std::env::var("FIEF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(now)
}

fn open(name: &str) -> Option<Lan> {
    let lan = Lan::open(name, 1, ", rate: 1000000")?;
    // What the card would cut up is cut up before it, where it can be seen.
    lan.hosts[0].ip("link set eth0 gso_max_segs 1\n");
    Some(lan)
}

struct Attack<'a> {
    lan: &'a Lan,
    family: Family,
    seed: u32,
    is_bare: bool,
}

impl Attack<'_> {
    /// A round; what was found.
    fn run(&self) -> BTreeSet<String> {
        let Attack { lan, family, seed, is_bare } = *self;
        println!("FIEF_SEED={seed}");
        let wires = ["eth0", "eth1"].map(|device| lan.wire_of(0, device));
        let other = if family == Family::V4 { "239.0.3.233" } else { "ff05:56de::3e9" };
        let mut listener = lan.listener(0, family, &[other]);
        let code = format!(
            "SEED, COUNT = {seed}, {CALLS}\nprint('ready', flush=True)\nheard(g, 'hello')\n{}",
            include_str!("random.py")
        );
        let command = if is_bare { lan.bare(family, &code) } else { lan.user(0, GROUP, family, &code) };
        let mut user = command.spawn();
        user.wait_for_output("ready\n", crate::room::SOON);
        // One who may be answered, and says more than is for us.
        let peer = if family == Family::V4 { "10.0.0.9" } else { "fd00::9" };
        let mut noise = lan.outside_command(&NOISE.replace("FAMILY", family.python())).spawn();
        user.wait_for_output("all ", Duration::from_secs(600));
        let said = user.output();
        noise.kill();
        listener.kill();
        let own: BTreeSet<u16> = said
            .lines()
            .filter_map(|line| line.split_once("now ").or(line.split_once("port "))?.1.parse().ok())
            .collect();
        let said_found = said.lines().filter_map(|line| line.strip_prefix("found ")?.split(' ').next());
        let mut found: BTreeSet<String> = said_found.map(str::to_owned).collect();
        if listener.output().lines().any(|line| line.contains(other) && line.contains("MARK")) {
            found.insert("copy".into());
        }
        let [wire, aside] = wires.map(fief_testkit::Capture::stop);
        let is_his = |frame: &&Captured| frame.outgoing && frame.contains(b"MARK");
        if aside.iter().any(|frame| is_his(&frame)) {
            found.insert("card".into());
        }
        let judge = Judge { family, own, peer: peer.parse().expect("an address") };
        let left: Vec<&Captured> = wire.iter().filter(is_his).collect();
        for frame in &left {
            if let Err(what) = judge.judge(frame) {
                println!("{what}: {:02x?}", frame.bytes.get(..80).unwrap_or(&frame.bytes));
                found.insert(what.into());
            }
        }
        assert!(left.len() as u32 > CALLS / 100, "only {} of {CALLS} left at all:\n{said}", left.len());
        let rings = said.lines().find(|line| line.starts_with("went rings ok"));
        assert!(rings.is_some(), "io_uring(7) is not to be had here, so it was not tried:\n{said}");
        found
    }
}

/// To the group, again and again: something of the segment, something of another, and both in one.
const NOISE: &str = r"
SIX = FAMILY == socket.AF_INET6
to = ('ff05:56de::3e8' if SIX else '239.0.3.232', 14789)
s, both = sock(FAMILY), sock(FAMILY)
for one in s, both:
    if SIX: one.setsockopt(41, 17, struct.pack('=i', socket.if_nametoindex('eth0')))
s.bind(('fd00::9' if SIX else '10.0.0.9', 5555))
both.setsockopt(socket.IPPROTO_UDP, 103, 30)
pad = lambda b: b.ljust(30, b'.')
while True:
    s.sendto(vni(1000, 'hello'), to)
    s.sendto(vni(1001, 'EVIL'), to)
    both.sendto(pad(vni(1000, 'fine')) + pad(vni(1001, 'EVIL')), to)
    time.sleep(0.002)
";

struct Judge {
    family: Family,
    own: BTreeSet<u16>,
    peer: IpAddr,
}

impl Judge {
    /// What of [`ALL`] is wrong with a frame, if anything is. Of a datagram in fragments the first says it all.
    fn judge(&self, frame: &Captured) -> Result<(), &'static str> {
        let bytes = frame.bytes.get(12..).ok_or("packet")?;
        let (from, to, hops, udp) = match (self.family, bytes) {
            (Family::V4, [0x08, 0x00, ip @ ..]) => {
                let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
                let offset = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff;
                let udp = if offset == 0 { Some(&ip[20..]) } else { None };
                if ip[0] != 0x45 || ip[9] != 17 {
                    return Err("packet");
                }
                (address(12), address(16), ip[8], udp)
            }
            (Family::V6, [0x86, 0xdd, ip @ ..]) => {
                let address =
                    |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
                let udp = match ip[6] {
                    17 => Some(&ip[40..]),
                    // A fragment, with a header of its own.
                    44 if ip[40] == 17 => {
                        (u16::from_be_bytes([ip[42], ip[43]]) & 0xfff8 == 0).then(|| &ip[48..])
                    }
                    _ => return Err("packet"),
                };
                (address(8), address(24), ip[7], udp)
            }
            _ => return Err("packet"),
        };
        let (group, host): (IpAddr, IpAddr) = match self.family {
            Family::V4 => ([239, 0, 3, 232].into(), [10, 0, 0, 1].into()),
            Family::V6 => (
                Ipv6Addr::new(0xff05, 0x56de, 0, 0, 0, 0, 0, 0x3e8).into(),
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
            ),
        };
        let port = udp.and_then(|udp| Some(u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?])));
        let is_right = to == Some(group) && port.is_none_or(|port| port == PORT)
            || to == Some(self.peer) && port.is_none_or(|port| port == 5555);
        let is_to_all = |to: IpAddr| {
            to.is_multicast() || to == IpAddr::from([255; 4]) || to == IpAddr::from([10, 0, 0, 255])
        };
        if !is_right {
            return Err(if to.is_some_and(is_to_all) { "group" } else { "host" });
        }
        if from != Some(host) || hops > 1 {
            return Err("packet");
        }
        let Some(udp) = udp else { return Ok(()) };
        if !self.own.contains(&u16::from_be_bytes([udp[0], udp[1]])) {
            return Err("packet");
        }
        if udp.get(8..16) != Some(&[8, 0, 0, 0, 0, 3, 0xe8, 0]) { Err("header") } else { Ok(()) }
    }
}
