//! An attacker who tries what he can think of, at random, with the wire as the judge: whatever he has called, each datagram
//! that leaves his host is of his segment, in all that is promised of it.
//!
//! `FIEF_SEED` repeats a run; `FIEF_SOAK=1` makes a million calls.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use fief_testkit::Captured;

use crate::lan::{Family, GROUP, Lan, PORT};

#[test]
fn guarded_socket_random_attacker() {
    let soak = std::env::var("FIEF_SOAK").is_ok_and(|soak| soak == "1");
    let (rounds, calls) = if soak { (50, 20_000) } else { (2, 5_000) };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    let seed = std::env::var("FIEF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(now);
    let Some(lan) = Lan::open("random", 1, ", rate: 1000000") else { return };
    for round in 0..rounds {
        for family in Family::BOTH {
            attack(&lan, family, seed.wrapping_add(round), calls);
        }
    }
}

fn attack(lan: &Lan, family: Family, seed: u32, calls: u32) {
    println!("FIEF_SEED={seed}");
    let wires = ["eth0", "eth1"].map(|device| lan.wire_of(0, device));
    // One who may be answered.
    let peer = if family == Family::V4 { "10.0.0.9" } else { "fd00::9" };
    let code = format!("SEED, COUNT = {seed}, {calls}\n{}", include_str!("random.py"));
    let mut user =
        lan.user(0, GROUP, family, &format!("print('ready', flush=True)\nheard(g, 'hello')\n{code}")).spawn();
    user.wait_for_output("ready\n", crate::room::SOON);
    lan.outside(&format!(
        "s = sock({}); s.bind(('{peer}', 5555)); s.sendto(vni(1000, 'hello'), ('{}', 14789))\n",
        family.python(),
        family.multicast()
    ));
    user.wait_for_output("all ", Duration::from_secs(600));
    let said = user.output();
    let own: BTreeSet<u16> = said
        .lines()
        .filter_map(|line| line.split_once("now ").or(line.split_once("port "))?.1.parse().ok())
        .collect();
    let [wire, aside] = wires.map(fief_testkit::Capture::stop);
    let judge = Judge { family, own, peer: peer.parse().expect("an address") };
    let mut left = 0;
    for frame in aside.iter().chain(&wire).filter(|frame| frame.outgoing && frame.contains(b"MARK")) {
        judge
            .judge(frame)
            .unwrap_or_else(|why| panic!("FIEF_SEED={seed} {family:?}: {why}: {:02x?}", frame.bytes));
        left += 1;
    }
    assert!(
        !aside.iter().any(|frame| frame.outgoing && frame.contains(b"MARK")),
        "FIEF_SEED={seed}: by another card"
    );
    assert!(left > calls / 100, "only {left} of {calls} left at all:\n{said}");
}

struct Judge {
    family: Family,
    own: BTreeSet<u16>,
    peer: IpAddr,
}

impl Judge {
    /// What is wrong with a frame, if anything is. Of a datagram in fragments the first says it all.
    fn judge(&self, frame: &Captured) -> Result<(), String> {
        let bytes = frame.bytes.get(12..).ok_or("no Ethernet frame")?;
        let (from, to, hops, udp) = match (self.family, bytes) {
            (Family::V4, [0x08, 0x00, ip @ ..]) => {
                let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
                let offset = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff;
                let udp = if offset == 0 { Some(&ip[20..]) } else { None };
                if ip[0] != 0x45 || ip[9] != 17 {
                    return Err("IP options, or no UDP".into());
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
                    _ => return Err("extension headers, or no UDP".into()),
                };
                (address(8), address(24), ip[7], udp)
            }
            _ => return Err("another family".into()),
        };
        let (group, host): (IpAddr, IpAddr) = match self.family {
            Family::V4 => ([239, 0, 3, 232].into(), [10, 0, 0, 1].into()),
            Family::V6 => (
                Ipv6Addr::new(0xff05, 0x56de, 0, 0, 0, 0, 0, 0x3e8).into(),
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
            ),
        };
        if from != Some(host) || hops > 1 {
            return Err(format!("from {from:?}, {hops} hops"));
        }
        let port = udp.and_then(|udp| Some(u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?])));
        let right = to == Some(group) && port.is_none_or(|port| port == PORT)
            || to == Some(self.peer) && port.is_none_or(|port| port == 5555);
        if !right {
            return Err(format!("to {to:?} {port:?}"));
        }
        let Some(udp) = udp else { return Ok(()) };
        if !self.own.contains(&u16::from_be_bytes([udp[0], udp[1]])) {
            return Err("from another port".into());
        }
        if udp.get(8..16) != Some(&[8, 0, 0, 0, 0, 3, 0xe8, 0]) {
            Err("a foreign header".into())
        } else {
            Ok(())
        }
    }
}
