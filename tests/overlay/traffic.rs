//! What has to pass the fast path: the protocols of a LAN, long packets, and what is forgotten when.

use std::time::Duration;

use fief_testkit::{Captured, Child, Ns, eventually};

use crate::guest::{ALL, Guest};
use crate::lan::{Family, GROUP, Lan, OTHER};
use crate::peers::{dnsmasq, peer};
use crate::room::{NEVER, SOON, wait};
use crate::vde::Vde;

/// Each group has a server on the first host, in a namespace of root's, and both give the same addresses. Clients on the
/// other hosts get one of their own group's server, by ARP, ND and DHCP.
#[test]
fn vxvde_fast_path_dhcp_for_two_groups_on_three_hosts() {
    let Some(lan) = Lan::open("fast-dhcp", 3, "") else { return };
    let Some(busybox) = peer("busybox") else { return };
    let busybox = lan.lab.expose(&busybox).display().to_string();
    let mut servers = Vec::new();
    for (group, name) in [(GROUP, "one"), (OTHER, "two")] {
        let ns = lan.lab.ns(name);
        let cli = lan.lab.expose(&fief_testkit::bin("fief")).display().to_string();
        let root = lan.daemons[0].root().display().to_string();
        // Root may join for any group.
        ns.run(&[&cli, "--root", &root, "join", "--group", &group.to_string(), "--mtu", "1500"]).ok();
        ns.ip("addr add 10.9.0.1/24 dev eth0\naddr add fd09::1/64 dev eth0 nodad\n");
        let options =
            ["--port=0", "--interface=eth0", "--bind-interfaces", "--dhcp-authoritative", "--leasefile-ro"];
        // The domain says which of the two it was.
        let domain = format!("--dhcp-option=option:domain-name,{name}.example.com");
        let range = ["--dhcp-range=10.9.0.50,10.9.0.59,1h", &domain];
        let Some(argv) = dnsmasq(&[&options[..], &range].concat()) else { return };
        let mut server = ns.spawn(&argv);
        server.wait_for_output("DHCP, IP range", SOON);
        servers.push((server, ns));
    }
    let script = lan.lab.dir().join("lease");
    let text =
        "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/24 dev $interface\necho got $ip $domain\n";
    std::fs::write(&script, text).expect("the lab's directory is writable");
    let script = script.display().to_string();
    lan.hosts[0].run(&["chmod", "755", &script]).ok();
    let mut guests = Vec::new();
    for (user, (group, name)) in
        (41_000..).zip([(GROUP, "one"), (OTHER, "two"), (OTHER, "two"), (GROUP, "one")])
    {
        let guest = Guest::new(&lan, 1 + (user % 2) as usize, (user, group));
        guest.join(&["--mtu", "1500"]).ok();
        let argv = [&busybox, "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "5", "-T", "1", "-s", &script];
        let said = guest.run(&argv);
        assert!(said.stdout.contains("got 10.9.0.5"), "{said}");
        assert!(said.stdout.contains(&format!(" {name}.example.com")), "{said}");
        let own = format!("fd09::{}/64", user - 40_990);
        guest.run(&["ip", "addr", "add", &own, "dev", "eth0", "nodad"]).ok();
        guest.reaches("10.9.0.1", 9000);
        guest.reaches("fd09::1", 56);
        guests.push(guest);
    }
    // Whose group is whose: the others' addresses are there twice, or not at all.
    assert!(guests[0].pings("fd09::13", 56) && guests[1].pings("fd09::12", 56));
    assert!(!guests[0].pings("fd09::11", 56) && !guests[1].pings("fd09::13", 56));
}

/// Is a packet of IPv4 or IPv6 a piece of one?
fn is_fragment(frame: &Captured) -> bool {
    match frame.bytes.get(12..) {
        Some([8, 0, ip @ ..]) => ip.get(6..8).is_some_and(|at| at[0] & 0x3f | at[1] != 0),
        Some([0x86, 0xdd, ip @ ..]) => ip.get(6) == Some(&44),
        _ => false,
    }
}

#[test]
fn vxvde_nine_thousand_bytes_pass_a_jumbo_wire_in_one_piece() {
    let Some(lan) = Lan::open("jumbo", 2, "") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    lan.set_mtu(9100);
    let guests = [0, 1].map(|host| {
        let guest = Guest::new(&lan, host, (41_000 + host as u32, GROUP));
        // What passes in one piece, by IPv6 too.
        let said = guest.join(&[]).ok().stdout;
        assert!(said.contains("with MTU 9030"), "{said}");
        let address = format!("10.9.0.{}/24", host + 1);
        guest.run(&["ip", "addr", "add", &address, "dev", "eth0"]).ok();
        guest
    });
    let plugs = [Family::V4, Family::V6].map(|family| {
        let (url, mine, stocks, name) = match family {
            Family::V4 => ("vxvdex://", "10.9.0.3/24", "10.9.0.4/24", "p4"),
            Family::V6 => ("vxvdex:///v6", "10.9.0.5/24", "10.9.0.6/24", "p6"),
        };
        let stock =
            if family == Family::V4 { "vxvde:///grp=1000/if=eth0" } else { "vxvde:///grp=1000/v6/if=eth0" };
        let ns = lan.lab.ns(&format!("s{name}"));
        lan.plug(&ns, "eth0", 20 + name.len() as u8 + u8::from(family == Family::V6));
        ns.ip("link set eth0 mtu 9100\n");
        lan.set_mtu(9100);
        (vde.member(&lan, 0, GROUP, url, (name, mine)), vde.stock(&ns, stock, stocks))
    });
    let wires = [0, 1].map(|host| lan.wire_of(host, "eth0"));
    let whole = |to: &str| {
        eventually(SOON, || {
            let said = guests[0].run(&["ping", "-c", "1", "-W", "2", "-M", "do", "-s", "8972", to]);
            if said.success() { Ok(()) } else { Err(said.to_string()) }
        });
    };
    whole("10.9.0.2");
    whole("10.9.0.3");
    whole("10.9.0.4");
    for ((plug, _), to) in plugs.iter().zip(["10.9.0.4", "10.9.0.6"]) {
        eventually(SOON, || if plug.pings(to, 8972) { Ok(()) } else { Err(plug.plug.output()) });
    }
    for wire in &wires {
        assert!(wire.count(|frame| frame.bytes.len() > 9000) > 0);
        assert_eq!(wire.count(is_fragment), 0, "something was cut up");
    }
}

/// A peer of vxvde that says what comes to its own port and what to the group's.
fn plain_peer(lan: &Lan, family: Family) -> Child {
    let code = r"
import select
SIX = FAMILY == socket.AF_INET6
me, to = ('fd00::9', 'ff05:56de::3e8') if SIX else ('10.0.0.9', '239.0.3.232')
device = struct.pack('=i', socket.if_nametoindex('eth0'))
u, g = sock(FAMILY), sock(FAMILY)
u.bind((me, 5555)); g.bind((to, 14789))
if SIX:
    u.setsockopt(41, 17, device); g.setsockopt(41, 20, socket.inet_pton(FAMILY, to) + device)
else:
    u.setsockopt(0, 32, socket.inet_aton(me)); g.setsockopt(0, 35, socket.inet_aton(to) + socket.inet_aton(me))
u.sendto(vni(1000, 'hello'), (to, 14789))
print('said hello', flush=True)
while True:
    for s in select.select([u, g], [], [])[0]:
        data = s.recv(65536)
        if data[20:22] == b'\x88\xb5': print('alone' if s is u else 'group', data[22:].decode(), flush=True)
        if data[22:] == b'bye': u.sendto(vni(1000, '')[:8], (to, 14789)); print('said goodbye', flush=True)
";
    lan.outside_command(&format!("FAMILY = {}\n{code}", family.python())).spawn()
}

/// Its address, by `frame` of lan.rs.
const PEER: &str = "020000000009";

/// What is configured counts for interfaces that an earlier daemon has made, too.
#[test]
fn vxvde_fast_path_forgets_who_was_silent_or_has_gone() {
    for family in Family::BOTH {
        let Some(mut lan) = Lan::open("fast-expire", 1, "") else { return };
        let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
        let config = lan.daemons[0].root().join("etc/fief/fiefd.yaml");
        std::fs::write(config, "overlay: { device: eth0, expireTime: 3 }\n")
            .expect("the lab's directory is writable");
        lan.daemons[0].restart();
        let hears = a.listens();
        let mut other = plain_peer(&lan, family);
        other.wait_for_output("said hello\n", SOON);
        eventually(SOON, || if hears.output().contains("hello") { Ok(()) } else { Err("nothing".into()) });
        a.says(PEER, "fresh");
        other.wait_for_output("alone fresh\n", SOON);
        assert!(!other.output().contains("group fresh"), "{}", other.output());
        wait(Duration::from_secs(4));
        a.says(PEER, "stale");
        other.wait_for_output("group stale\n", SOON);
        // One who speaks again is known again, until he goes.
        drop(other);
        let mut other = plain_peer(&lan, family);
        other.wait_for_output("said hello\n", SOON);
        eventually(SOON, || {
            let times = hears.output().matches("hello").count();
            if times == 2 { Ok(()) } else { Err(format!("{times} times")) }
        });
        a.says(PEER, "bye");
        other.wait_for_output("said goodbye\n", SOON);
        eventually(SOON, || {
            a.says(PEER, "gone");
            if other.output().contains("group gone\n") { Ok(()) } else { Err(other.output()) }
        });
    }
}

#[test]
fn vxvde_fast_path_nobody_hears_himself() {
    let Some(lan) = Lan::open("fast-echo", 2, "") else { return };
    // By both families, and by each alone; what the card has changes while others' interfaces have hardly gone.
    for round in ["", "ip -6 addr flush dev eth0", "ip -4 addr flush dev eth0"] {
        for (host, number) in lan.hosts.iter().zip(1..) {
            host.sh(round).ok();
            if round.contains("-4") {
                host.ip(&format!("addr add fd00::{number}/64 dev eth0 nodad\n"));
            }
        }
        let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
        let b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
        a.reaches("10.9.0.2", 56);
        b.reaches("10.9.0.1", 1472);
        let (own, others) = (a.listens(), b.listens());
        for text in ["first", "second"] {
            a.says(ALL, text);
        }
        let heard =
            |child: &Child| child.output().lines().filter(|line| ["first", "second"].contains(line)).count();
        eventually(SOON, || if heard(&others) >= 2 { Ok(()) } else { Err(others.output()) });
        wait(NEVER);
        assert_eq!((heard(&own), heard(&others)), (0, 2), "{round}: {} {}", own.output(), others.output());
    }
}

/// Somebody on the LAN says goodbye for another host, again and again.
#[test]
fn vxvde_goodbyes_that_others_say_cost_next_to_nothing() {
    let Some(lan) = Lan::open("forged", 2, "") else { return };
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let _b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
    a.reaches("10.9.0.2", 56);
    let flooded =
        || a.fief(&["-o", "json", "get", "overlays"]).ok().json()[0]["flooded"].as_u64().unwrap_or(0);
    let before = flooded();
    let mut forger = forges(&lan.out, "10.0.0.2", 14788);
    let said = a.run(&["ping", "-q", "-c", "1500", "-i", "0.002", "10.9.0.2"]).ok().stdout;
    forger.kill();
    assert!(loss(&said) < 10.0, "{said}");
    let counted = lan.daemons[0].cli(&["-o", "json", "get", "overlay-counters"]).ok().json();
    let (believed, ignored) = (counted["goodbyes"].as_u64(), counted["goodbyesIgnored"].as_u64());
    assert!(believed >= Some(1) && believed < Some(5) && ignored > Some(500), "{counted}");
    // Frames that went to everybody because of it.
    assert!(flooded() - before < 50, "{} frames went to everybody", flooded() - before);
    let said = lan.daemons[0].cli(&["get", "overlay-counters"]).ok().stdout;
    assert!(said.contains("goodbyes-ignored"), "{said}");
    // For root, and for nobody else.
    let said = a.fief(&["get", "overlay-counters"]).fails();
    assert!(said.stderr.contains("you may not"), "{said}");
}

#[test]
fn vxvde_goodbyes_that_others_say_cost_plugs_next_to_nothing() {
    let Some(lan) = Lan::open("forged-plug", 2, "") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    let wire = lan.wire_of(1, "eth0");
    let a = vde.member(&lan, 0, GROUP, "vxvdex://", ("a", "10.9.0.1/24"));
    let _b = vde.member(&lan, 1, GROUP, "vxvdex://", ("b", "10.9.0.2/24"));
    eventually(SOON, || if a.pings("10.9.0.2", 56) { Ok(()) } else { Err(a.plug.output()) });
    // The port that the other sends from.
    let is_his = |frame: &Captured| frame.outgoing && frame.bytes.get(30..34) == Some(&[239, 0, 3, 232]);
    let port = wire
        .frames()
        .iter()
        .find(|frame| is_his(frame))
        .map(|frame| u16::from_be_bytes([frame.bytes[34], frame.bytes[35]]));
    let own = lan.wire_of(0, "eth0");
    let mut forger = forges(&lan.out, "10.0.0.2", port.expect("he has asked everybody"));
    let said = a.ns.run(&["ping", "-q", "-c", "1500", "-i", "0.002", "10.9.0.2"]).ok().stdout;
    forger.kill();
    assert!(loss(&said) < 10.0, "{said}");
    let forged = own.count(|frame| !frame.outgoing && frame.bytes.get(38..40) == Some(&[0, 16]));
    let to_all = own.count(is_his);
    assert!(forged > 500 && to_all < 50, "{forged} goodbyes, {to_all} frames went to everybody");
}

fn loss(said: &str) -> f64 {
    let part = said.split(", ").find_map(|part| part.strip_suffix("% packet loss")?.parse().ok());
    part.unwrap_or_else(|| panic!("{said}"))
}

/// Says goodbye for somebody, a thousand times a second.
fn forges(ns: &Ns, source: &str, port: u16) -> Child {
    let code = r"
import socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
body = struct.pack('!HHHH', int(sys.argv[2]), 14789, 16, 0) + bytes.fromhex('080000000003e800')
head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 36, 1, 0, 1, 17, 0, socket.inet_aton(sys.argv[1]), socket.inet_aton('239.0.3.232'))
print('begins', flush=True)
while True:
    s.sendto(head + body, ('239.0.3.232', 0)); time.sleep(0.0005)
";
    let mut child = ns.spawn(&["/usr/bin/python3", "-c", code, source, &port.to_string()]);
    child.wait_for_output("begins\n", SOON);
    child
}
