//! Somebody on the LAN sends as much garbage to the overlay's port as he can, and frames from a hundred thousand addresses.

use std::time::{Duration, Instant};

use fief_testkit::{Command, Flood, Frame};
use fief_tests::scene::soak;

use crate::guest::Guest;
use crate::lan::{Family, GROUP, Lan, MULTICAST, PORT};
use crate::room::SOON;
use crate::vde::Vde;

/// What somebody reads who takes what another sends, at so many bytes each hundredth of a second: bits a second.
const READS: &str = r"
import socket, sys, time
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('0.0.0.0', 7000)); s.listen(1)
print('listens', flush=True)
c = s.accept()[0]
began, got = time.monotonic(), 0
while True:
    data = c.recv(1 << 20)
    if not data: break
    got += len(data)
print('rate', int(got * 8 / (time.monotonic() - began)), flush=True)
";
const WRITES: &str = r"
import socket, sys, time
c = socket.create_connection((sys.argv[1], 7000), 10)
began = time.monotonic()
for turn in range(int(sys.argv[3])):
    c.sendall(bytes(int(sys.argv[2])))
    time.sleep(max(0, began + (turn + 1) / 100 - time.monotonic()))
";

/// Has one send to the other for a second, in soak for three, at 100 Mbit/s or half of it; how many bits a second came.
#[track_caller]
fn rate(reader: Command, writer: Command, bytes: u32) -> f64 {
    let mut reader = reader.arg("-c").arg(READS).spawn();
    reader.wait_for_output("listens\n", SOON);
    let writer = writer.arg("-c").arg(WRITES).arg("10.9.0.2").arg(bytes.to_string());
    let writer = writer.arg(if soak() { "300" } else { "100" });
    writer.timeout(Duration::from_secs(60)).run().ok();
    reader.wait_for_output("rate ", SOON);
    let said = reader.output();
    let rate = said.lines().find_map(|line| line.strip_prefix("rate ")?.parse().ok());
    rate.unwrap_or_else(|| panic!("{said}"))
}

/// Garbage for the last host, until it ends: it is there that what the other sends arrives.
struct Storm<'a> {
    lan: &'a Lan,
    host: usize,
    flood: Flood,
}

/// Nearly right, but for a bit, whose it is, a flag; and nothing like it.
const GARBAGE: [[u8; 8]; 4] =
    [[8, 0, 0, 0, 0, 3, 0xe8, 1], [8, 0, 0, 0, 0, 3, 0xe9, 0], [0x88, 0, 0, 7, 0, 3, 0xe8, 0], *b"garbage!"];
/// The group's, with nothing behind it: who sends this has gone.
const GOODBYE: [u8; 8] = [8, 0, 0, 0, 0, 3, 0xe8, 0];
/// Of a fast path, as its peers know it.
const FAST: u16 = 14788;

impl Storm<'_> {
    /// To the group, or to the host.
    #[track_caller]
    fn begin<'a>(lan: &'a Lan, to: &str, port: u16, goodbyes: bool) -> Storm<'a> {
        let host = lan.hosts.len() - 1;
        let mac = if to == MULTICAST { [1, 0, 0x5e, 0, 3, 0xe8] } else { lan.hosts[host].mac("eth0") };
        let head = Frame::new([2, 0, 0, 0, 0, 9], mac).ip("10.0.0.9", to);
        let mut frames: Vec<Vec<u8>> = GARBAGE
            .iter()
            .map(|header| head.clone().udp(5555, port, &[&header[..], &[0; 52]].concat()))
            .collect();
        if goodbyes {
            frames.push(head.udp(FAST, port, &GOODBYE));
        }
        Storm { lan, host, flood: Flood::begin(lan.port(host), (&lan.hosts[host], "eth0"), &frames) }
    }

    /// How many packets have come to the host's card until now.
    fn arrived(&self) -> u64 {
        let all = self.lan.hosts[self.host].enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
        let all = all.expect("proc is there");
        let line = all.lines().find_map(|line| line.trim().strip_prefix("eth0:")).expect("a host has a card");
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("packets are counted")
    }

    /// Does what comes beside it reach nine tenths of what comes without, while so many packets a second arrive at the
    /// card? Other tests want the machine as well, so that it may take three times to see. Gives how many it was.
    #[track_caller]
    fn spares(self, what: &str, before: f64, measure: impl Fn() -> f64) -> u64 {
        let least = if soak() { 1e6 } else { 1e5 };
        let (mut said, first) = (String::new(), self.arrived());
        for _ in 0..3 {
            let (began, arrived) = (Instant::now(), self.arrived());
            let during = measure();
            let packets = (self.arrived() - arrived) as f64 / began.elapsed().as_secs_f64();
            said += &format!(
                "{what}: {:.1} Mbit/s of {:.1} beside {packets:.0} packets/s\n",
                during / 1e6,
                before / 1e6
            );
            if during >= 0.9 * before && packets >= least {
                print!("{said}");
                let all = self.arrived() - first;
                self.flood.end();
                return all;
            }
        }
        panic!("{said}");
    }
}

/// Of the group, from a hundred thousand addresses.
const ADDRESSES: &str = "s = sock(); s.bind(('10.0.0.9', 5555))\n\
    for i in range(100000):\n\
    \x20   s.sendto(bytes.fromhex('080000000003e800') + b'\\xff' * 6 + b'\\x02\\0' + i.to_bytes(4, 'big') + b'\\x88\\xb5some',\n\
    \x20            ('239.0.3.232', 14789))\n\
    \x20   if i % 200 == 0: time.sleep(0.002)\n";

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("a process has a size")
}

/// Does what comes with something going on reach nine tenths of what comes without? Other tests want the machine as well, so
/// that it may take three times to see.
#[track_caller]
fn holds(what: &str, before: f64, measure: impl Fn() -> f64) {
    let mut during = 0.0_f64;
    for _ in 0..3 {
        during = during.max(measure());
        if during >= 0.9 * before {
            return println!("{what}: {:.1} Mbit/s of {:.1}", during / 1e6, before / 1e6);
        }
    }
    panic!("{what}: {:.1} Mbit/s of {:.1}", during / 1e6, before / 1e6);
}

/// What the kernel has for itself, in KiB; it is everybody's.
fn slab() -> u64 {
    let all = std::fs::read_to_string("/proc/meminfo").expect("proc is there");
    let line = all.lines().find_map(|line| line.strip_prefix("Slab:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("there is a slab")
}

/// Has the kernel grown by little since? Other tests make more of it, but in soak there are none at the time.
#[track_caller]
fn bounded(before: u64) {
    let grown = slab().saturating_sub(before);
    println!("the kernel has grown by {grown} KiB");
    assert!(grown < 32 << 10 || !soak(), "the kernel has grown by {grown} KiB");
}

fn counters(lan: &Lan, host: usize) -> serde_json::Value {
    lan.daemons[host].cli(&["-o", "json", "get", "overlay-counters"]).ok().json()
}

#[test]
fn vxvde_a_storm_of_garbage_on_the_port() {
    let Some(lan) = Lan::open("storm", 2, ", macsPerPort: 256") else { return };
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
    a.reaches("10.9.0.2", 56);
    let measure = || rate(b.command(&["/usr/bin/python3"]), a.command(&["/usr/bin/python3"]), 125_000);
    let count = |what: &str| counters(&lan, 1)[what].as_u64().expect("it is a number");
    // Every datagram was seen for what it is.
    let seen = || ["malformed", "goodbyes", "goodbyesIgnored"].map(count).iter().sum::<u64>();
    let (size, kernels) = (resident(lan.daemons[1].pid()), slab());
    let before = measure();
    for (what, to, port) in
        [("group", MULTICAST, PORT), ("host", "10.0.0.2", FAST), ("host", "10.0.0.2", PORT)]
    {
        let then = seen();
        let storm = Storm::begin(&lan, to, port, true);
        let arrived = storm.spares(&format!("to an interface, port {port} of the {what}"), before, measure);
        let seen = seen() - then;
        // Some are clean.
        assert!(seen > arrived / 10 * 8, "{seen} of {arrived}");
    }
    lan.outside(ADDRESSES);
    let known = count("remoteAddresses");
    assert!((256..=1024).contains(&known) && count("evicted") > 50_000, "{known} addresses are remembered");
    holds("with a hundred thousand addresses", before, measure);
    let grown = resident(lan.daemons[1].pid()).saturating_sub(size);
    assert!(grown < 8192, "the daemon has grown by {grown} KiB");
    bounded(kernels);
}

#[test]
fn vxvde_a_storm_of_garbage_on_plugs() {
    let Some(lan) = Lan::open("storm-plugs", 2, "") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    let a = vde.member(&lan, 0, GROUP, "vxvdex://", ("a", "10.9.0.1/24"));
    let b = vde.member(&lan, 1, GROUP, "vxvdex://", ("b", "10.9.0.2/24"));
    fief_testkit::eventually(SOON, || if a.pings("10.9.0.2", 56) { Ok(()) } else { Err(a.plug.output()) });
    let measure = || rate(b.ns.command(&["/usr/bin/python3"]), a.ns.command(&["/usr/bin/python3"]), 62_500);
    let refused = || counters(&lan, 1)["refused"]["foreign-in"].as_u64().unwrap_or_default();
    let before = measure();
    let (size, kernels) = (resident(b.plug.pid()), slab());
    // The other of its sockets is the group's.
    let sockets = lan.hosts[1].run(&["ss", "-Hnua", "src", "10.0.0.2"]).ok().stdout;
    let port = sockets
        .split_whitespace()
        .find_map(|word| word.strip_prefix("10.0.0.2")?.rsplit(':').next()?.parse().ok());
    let of_plug = port.unwrap_or_else(|| panic!("no socket in {sockets}"));
    for (what, to, port) in [("the group's", MULTICAST, PORT), ("his own", "10.0.0.2", of_plug)] {
        let seen = refused();
        let storm = Storm::begin(&lan, to, port, false);
        let arrived = storm.spares(&format!("to the sockets of a plug, {what}"), before, measure);
        let seen = refused() - seen;
        // Some are clean.
        assert!(seen > arrived / 10 * 8, "{seen} of {arrived}");
    }
    lan.outside(ADDRESSES);
    holds("with a hundred thousand addresses", before, measure);
    let grown = resident(b.plug.pid()).saturating_sub(size);
    assert!(grown < 4096, "the plug has grown by {grown} KiB");
    bounded(kernels);
}

/// A packet filter that counts what another says to the ports of an overlay.
const FILTER: &str = "table inet seen { counter seen { }; chain in { type filter hook prerouting priority 0; \
    udp dport { 14788, 14789, 14790 } ip saddr 10.0.0.9 counter name seen; \
    udp dport { 14788, 14789, 14790 } ip6 saddr fd00::9 counter name seen; }; }\n";

#[test]
fn vxvde_garbage_ends_at_the_card_unless_somebody_hears_it() {
    let Some(lan) = Lan::open("unheard", 1, "") else { return };
    let _member = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    lan.hosts[0].nft(FILTER);
    let passed = || {
        let said = lan.hosts[0].run(&["nft", "list", "counter", "inet", "seen", "seen"]).ok().stdout;
        let packets = said.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        packets.and_then(|packets| packets.parse::<u64>().ok()).unwrap_or_else(|| panic!("{said}"))
    };
    let ended = || counters(&lan, 0)["malformed"].as_u64().expect("it is a number");
    for (family, own, at) in [(Family::V4, 14788, "10.0.0.1"), (Family::V6, 14790, "fd00::1")] {
        let say = |to: &str, port: u16, head: &str| {
            let code = format!("sock({}).sendto({head}, ('{to}', {port}))\n", family.python());
            lan.outside(&code);
        };
        let (then, before) = (ended(), passed());
        for (to, port) in [(at, PORT), (at, own), (family.multicast(), PORT)] {
            say(to, port, "vni(1001, 'another group')");
            say(to, port, "b'garbage without sense'");
        }
        fief_testkit::eventually(SOON, || {
            let (ended, passed) = (ended() - then, passed() - before);
            if ended + passed >= 6 { Ok(()) } else { Err(format!("{ended} ended and {passed} passed of 6")) }
        });
        assert_eq!(passed() - before, 0, "{family:?}: what nobody wants ends at the card");
        // The group's own goes on, and so does what somebody else on this host may want.
        say(at, own, "vni(1000, 'of the group')");
        say(family.multicast(), PORT, "vni(1000, 'of the group')");
        fief_testkit::eventually(SOON, || {
            if passed() > before + 2 { Ok(()) } else { Err(format!("{}", passed())) }
        });
        let mut listener = lan.listener(0, family, &[family.multicast()]);
        say(family.multicast(), PORT, "vni(1001, 'another group')");
        say(family.multicast(), PORT, "b'garbage without sense, but for him'");
        listener.wait_for_output("another group", SOON);
        listener.wait_for_output("but for him", SOON);
    }
}
