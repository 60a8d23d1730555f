//! Rules, routes, tables, nft, tc and tcx of others, some of which change meanwhile.

use fief_testkit::{Daemon, DaemonOptions, Families, Lab, Ns, Snapshot, Street, eventually, skip};
use fief_tests::scene::soak;

use crate::bpf::Strangers;

/// Rules at many preferences, near ours and on them, with marks in other bits and without a preference of their own.
fn rules() -> String {
    let mut lines = String::new();
    let preferences =
        [1, 5, 9, 10, 11, 12, 100, 1000, 32765, 32768, 40000, 65535, 65536, 65537, 65548, 65549, 131_071];
    for (i, preference) in preferences.iter().enumerate() {
        let table = 100 + i;
        lines += &format!("rule add pref {preference} from 203.0.113.{i} lookup {table}\n");
        lines += &format!("-6 rule add pref {preference} from 2001:db8:99::{i} lookup {table}\n");
    }
    lines += "rule add fwmark 0x1000000/0xff000000 lookup 300\nrule add to 192.0.2.128/25 prohibit\n";
    lines += "-6 rule add fwmark 0x2000000/0xff000000 lookup 301\nrule add pref 20 goto 32768\n";
    lines
}

/// Routes with other protocols, in tables around ours and in ours.
fn routes() -> String {
    "route add 203.0.113.0/24 dev eth0 proto static\nroute add 198.51.100.0/24 via 198.19.255.1 dev eth0 onlink proto bird metric 7\n\
     route add blackhole 192.0.2.64/26 proto 42\nroute add default dev other table 100 proto zebra\n\
     route add default dev other table 300\nroute add 192.0.2.1/32 dev other table 255999999\n\
     route add 192.0.2.2/32 dev other table 256000001\nroute add unreachable default table 256000003 metric 9\n\
     -6 route add 2001:db8:7::/48 dev eth0 proto static\n-6 route add default dev other table 301 proto bird\n\
     -6 route add 2001:db8:8::/48 dev other table 256000001\n\
     nexthop add id 7 via 198.19.255.2 dev eth0 onlink\nneigh add 198.19.255.9 lladdr 02:00:00:00:00:99 dev eth0 nud permanent\n"
        .to_owned()
}

const NFT: &str = "table inet theirs { chain in { type filter hook input priority 300; meta mark & 0xff000000 == \
                   0x1000000 counter accept; }; chain out { type filter hook postrouting priority 300; meta mark set \
                   meta mark | 0x4000000; }; set own4 { type ipv4_addr; elements = { 203.0.113.1 }; }; }\n\
                   table ip fief-like { chain pre { type nat hook prerouting priority -100; }; }\n";

/// Lines of ip(8), those that begin with `-6` in a process of their own.
#[track_caller]
fn ip(host: &Ns, lines: &str) {
    let (six, four): (Vec<&str>, Vec<&str>) = lines.lines().partition(|line| line.starts_with("-6 "));
    host.ip(&(four.join("\n") + "\n"));
    let six = six.iter().map(|line| format!("{}\n", &line[3..])).collect::<String>();
    host.command(&["ip", "-6", "-batch", "-"]).input(six).run().ok();
}

fn furnish(host: &Ns) {
    host.ip("link add other type veth peer name other2\nlink set other up\nlink set other2 up\naddr add 203.0.113.77/32 dev eth0\n");
    ip(host, &rules());
    ip(host, &routes());
    host.nft(NFT);
    for (name, value) in [
        ("net.ipv4.conf.all.rp_filter", 2),
        ("net.ipv4.conf.eth0.rp_filter", 1),
        ("net.ipv4.conf.eth0.arp_ignore", 1),
        ("net.ipv4.tcp_fwmark_accept", 1),
        ("net.ipv4.ip_forward", 1),
        ("net.ipv6.conf.all.forwarding", 1),
        ("net.ipv4.tcp_syncookies", 2),
    ] {
        host.set_sysctl(name, value);
    }
    let qdisc = host.sh("tc qdisc add dev eth0 clsact");
    // Classic BPF, "return -1": matches everything and does nothing with it.
    let filter = "tc filter add dev eth0 ingress prio 3 protocol all bpf bytecode '1,6 0 0 4294967295' && \
                  tc filter add dev eth0 egress prio 3 protocol all bpf bytecode '1,6 0 0 4294967295'";
    if !qdisc.success() {
        skip(&format!("no clsact: {}", qdisc.stderr.trim()));
    } else if let filtered = host.sh(filter)
        && !filtered.success()
    {
        skip(&format!("no tc filter beside ours: {}", filtered.stderr.trim()));
    }
}

/// A generator that needs nobody (xorshift): the same run every time, unless a seed is given.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Creates and deletes at random, by ones and by dozens.
fn churn(daemon: &Daemon, street: &Street, rounds: usize, dice: &mut Dice, mut meanwhile: impl FnMut(usize)) {
    let mut there = vec![false; street.tenants];
    for round in 0..rounds {
        let (first, many) = (dice.roll(street.tenants), 1 + dice.roll(12));
        let range = first..(first + many).min(street.tenants);
        if dice.roll(5) < 3 {
            daemon.apply(&street.documents_of(range.clone())).ok();
            range.for_each(|i| there[i] = true);
        } else {
            let names: Vec<String> = range.clone().filter(|i| there[*i]).map(|i| street.name(i)).collect();
            let args: Vec<&str> =
                ["delete", "tenant"].into_iter().chain(names.iter().map(String::as_str)).collect();
            if !names.is_empty() {
                daemon.cli(&args).ok();
            }
            range.for_each(|i| there[i] = false);
        }
        meanwhile(round);
    }
    let left: Vec<String> = (0..street.tenants).filter(|i| there[*i]).map(|i| street.name(i)).collect();
    let args: Vec<&str> = ["delete", "tenant"].into_iter().chain(left.iter().map(String::as_str)).collect();
    if !left.is_empty() {
        daemon.cli(&args).ok();
    }
}

#[test]
fn other_peoples_things_are_untouched_and_nothing_of_ours_stays() {
    let Some(lab) = Lab::new("foreign") else { return };
    let street = Street::sparse(&lab, 40, &[], Families::Both);
    let host = &street.host;
    furnish(host);
    let strangers = Strangers::on(host, "eth0").expect("two instructions can be attached");
    let empty = Snapshot::of(host);
    let daemon = Daemon::start(&lab, host, DaemonOptions::default());
    empty.assert_same(&Snapshot::of(host));
    // The positive control: with tenants the snapshot is another one.
    daemon.apply(&street.documents_of(0..3)).ok();
    let with = empty.diff(&Snapshot::of(host)).expect("tenants are seen");
    let touched: Vec<&str> = with.lines().filter(|line| line.starts_with("- ")).collect();
    let harmless = |line: &&&str| {
        !["fwmark_reflect", "src_valid_mark", "keep_addr_on_down", "eth0(2)"]
            .iter()
            .any(|word| line.contains(word))
    };
    assert_eq!(touched.iter().find(harmless), None, "only what a dry run lists is changed:\n{with}");

    let rounds = if soak() { 1000 } else { 200 };
    let mut dice = Dice(0x5eed_f1ef);
    // A second program changes its own things all the while.
    churn(&daemon, &street, rounds, &mut dice, |round| {
        assert!(strangers.attached(), "the stranger's programs were detached in round {round}");
        let (even, i) = (round % 2 == 0, 1 + round / 2 % 200);
        let verb = if even { "add" } else { "del" };
        let lines = format!(
            "rule {verb} pref 10 from 192.0.2.{i} lookup 700\n-6 rule {verb} pref 65548 from 2001:db8::{i} lookup 700\n\
             route {verb} 203.0.113.128/25 dev other table 256000002 proto static\n\
             addr {verb} 203.0.113.200/32 dev eth0\n"
        );
        ip(host, &lines);
        host.nft(&format!(
            "{} element inet theirs own4 {{ 203.0.113.9 }}",
            if even { "add" } else { "delete" }
        ));
    });
    assert!(strangers.attached());
    // The device's own programs of ours go with an event; everything else has gone with the answer.
    eventually(std::time::Duration::from_secs(1), || {
        empty.diff(&Snapshot::of(host)).map_or(Ok(()), |text| Err(format!("{text}\n{}", tail(&daemon.log()))))
    });
    let repairs = daemon.cli(&["status", "-o", "json"]).ok().json()["repairs"].clone();
    assert_eq!(repairs, 0, "nobody touched ours: {}", tail(&daemon.log()));
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
