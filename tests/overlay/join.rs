//! The fast path: who gets an interface on which segment, what passes it, and what becomes of it.

use fief_testkit::{Child, eventually};

use crate::guest::{ALL, Guest};
use crate::lan::{GROUP, Lan, OTHER};
use crate::room::{NEVER, SOON, wait};

fn heard(child: &Child, text: &str) -> usize {
    child.output().lines().filter(|line| *line == text).count()
}

#[test]
fn join_three_hosts_and_two_groups() {
    let Some(lan) = Lan::open("join", 3, "") else { return };
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
    let c = Guest::joined(&lan, 2, (41_002, GROUP), "10.9.0.3/24");
    // Beside a, on its host.
    let d = Guest::joined(&lan, 0, (41_003, GROUP), "10.9.0.4/24");
    let x = Guest::joined(&lan, 0, (41_004, OTHER), "10.9.0.1/24");
    let y = Guest::joined(&lan, 1, (41_005, OTHER), "10.9.0.2/24");
    let z = Guest::joined(&lan, 2, (41_006, OTHER), "10.9.0.9/24");
    for to in ["10.9.0.2", "10.9.0.3", "10.9.0.4"] {
        for size in [56, 1422, 1472, 9000] {
            a.reaches(to, size);
        }
    }
    // IPv6 finds its neighbours by multicast.
    for (guest, number) in [(&a, 1), (&b, 2), (&c, 3)] {
        let address = format!("fd09::{number}/64");
        guest.run(&["ip", "addr", "add", &address, "dev", "eth0", "nodad"]).ok();
    }
    c.reaches("fd09::1", 56);
    c.reaches("fd09::2", 56);
    x.reaches("10.9.0.2", 56);
    // Only the other group has that address.
    x.reaches("10.9.0.9", 56);
    assert!(!a.pings("10.9.0.9", 56), "an address of the other group answered");
    let of_group: Vec<Child> = [&b, &c, &d].map(Guest::listens).into();
    let of_other: Vec<Child> = [&y, &z].map(Guest::listens).into();
    a.says(ALL, "of the group");
    x.says(ALL, "of the other");
    for (listeners, own) in [(&of_group, "of the group"), (&of_other, "of the other")] {
        for listener in listeners {
            eventually(SOON, || {
                if heard(listener, own) > 0 { Ok(()) } else { Err(format!("{own}: not heard")) }
            });
        }
    }
    wait(NEVER);
    for (listeners, own, foreign) in
        [(&of_group, "of the group", "of the other"), (&of_other, "of the other", "of the group")]
    {
        for listener in listeners {
            // Both families carry it, and it comes once.
            assert_eq!((heard(listener, own), heard(listener, foreign)), (1, 0), "{}", listener.output());
        }
    }
}

#[test]
fn join_where_there_is_only_ipv6() {
    let Some(lan) = Lan::open("join-six", 2, "") else { return };
    lan.hosts.iter().for_each(|host| host.ip("addr flush dev eth0\n"));
    for (host, number) in lan.hosts.iter().zip(1..) {
        host.ip(&format!("addr add fd00::{number}/64 dev eth0 nodad\n"));
    }
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
    for size in [56, 1402, 1472, 9000] {
        a.reaches("10.9.0.2", size);
        b.reaches("10.9.0.1", size);
    }
}

#[test]
fn join_is_for_ones_own_namespace() {
    let Some(lan) = Lan::open("join-whose", 1, "") else { return };
    let owner = Guest::new(&lan, 0, (41_000, GROUP));
    // In the host's own.
    let cli = |words: &[&str]| {
        let argv: Vec<String> =
            owner.cli().into_iter().chain(words.iter().copied()).map(str::to_owned).collect();
        argv
    };
    let refused = |output: fief_testkit::Output, says: &str| {
        let output = output.fails();
        assert!(output.stderr.contains(says), "{output}");
    };
    refused(
        lan.hosts[0].command(&cli(&["join", "--dev", "lan0"])).user(41_000, GROUP).run(),
        "the host's own",
    );
    // In somebody else's, of the same group; he got there somehow.
    let pid = owner.pid().to_string();
    let thither =
        ["nsenter", "--target", &pid, "--net", "setpriv", "--reuid=41001", "--regid=1000", "--clear-groups"];
    let argv: Vec<String> =
        thither.iter().map(|word| (*word).to_owned()).chain(cli(&["join", "--dev", "lan0"])).collect();
    refused(lan.hosts[0].run(&argv), "belongs to user 41000");
    // In one that root made.
    refused(
        lan.lab.ns("roots").command(&cli(&["join", "--dev", "lan0"])).user(41_000, GROUP).run(),
        "belongs to root",
    );
    // On a segment that is not his.
    refused(owner.join(&["--group", "1001"]), "not the caller's effective group");
    refused(owner.join(&["--dev", "a/b"]), "no name of an interface");
    refused(owner.join(&["--mtu", "100"]), "between 1280 and 9216");
    assert_eq!(lan.daemons[0].cli(&["-o", "json", "get", "overlays"]).ok().json(), serde_json::json!([]));
    // And in his own; the same name a second time is taken.
    owner.join(&[]).ok();
    refused(owner.join(&[]), "has an interface eth0 already");
    owner.join(&["--dev", "lan1"]).ok();
    // Root may join root's, for whom he likes.
    lan.lab.ns("roots").run(&cli(&["join", "--group", "1001"])).ok();
    let all = lan.daemons[0].cli(&["-o", "json", "get", "overlays"]).ok().json();
    let groups: Vec<u64> =
        all.as_array().expect("a list").iter().filter_map(|it| it["group"].as_u64()).collect();
    assert_eq!(groups, [1000, 1000, 1001]);
    // Others see none of it, and take nothing away.
    let other = Guest::new(&lan, 0, (41_001, GROUP));
    assert_eq!(other.fief(&["-o", "json", "get", "overlays"]).ok().json(), serde_json::json!([]));
    refused(other.fief(&["leave"]), "no interface eth0");
    owner.fief(&["leave", "--dev", "lan1"]).ok();
    owner.run(&["ip", "link", "show", "eth0"]).ok();
    owner.run(&["ip", "link", "show", "lan1"]).fails();
}

#[test]
fn join_outlives_the_daemon_and_leaves_nothing() {
    let Some(mut lan) = Lan::open("join-dead", 2, "") else { return };
    let state = "ip -o addr show eth0; ip route show table all; ip -6 route show table all; ip neigh show nud permanent; \
                 ip -o link | cut -d: -f2; sysctl net.ipv4.igmp_max_memberships; ss -ulnH";
    let before = lan.hosts[0].sh(state).ok().stdout;
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let _b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
    a.reaches("10.9.0.2", 56);
    lan.daemons[0].kill9();
    lan.daemons[1].kill9();
    a.reaches("10.9.0.2", 56);
    // New neighbours are found as well.
    a.run(&["ip", "neigh", "flush", "all"]).ok();
    a.reaches("10.9.0.2", 1472);
    lan.daemons[0].restart();
    a.reaches("10.9.0.2", 56);
    let all = a.fief(&["-o", "json", "get", "overlays"]).ok().json();
    assert_eq!((&all[0]["group"], &all[0]["device"]), (&1000.into(), &"eth0".into()), "{all}");
    a.fief(&["leave"]).ok();
    a.run(&["ip", "link", "show", "eth0"]).fails();
    let is_as_before = |lan: &Lan| {
        let after = lan.hosts[0].sh(state).ok().stdout;
        if after == before { Ok(()) } else { Err(format!("before:\n{before}\nafter:\n{after}")) }
    };
    eventually(SOON, || is_as_before(&lan));
    // The same when the namespace goes, and nobody leaves.
    a.join(&[]).ok();
    assert!(is_as_before(&lan).is_err());
    drop(a);
    eventually(SOON, || is_as_before(&lan));
    assert!(!lan.daemons[0].root().join("run/fief/overlay/net").exists());
    // And when it went while there was no daemon.
    let c = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    lan.daemons[0].kill9();
    drop(c);
    lan.daemons[0].restart();
    eventually(SOON, || is_as_before(&lan));
}

#[test]
fn join_bounds_a_hundred_thousand_addresses() {
    let Some(lan) = Lan::open("join-macs", 2, ", macsPerPort: 64") else { return };
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
    let noisy = Guest::joined(&lan, 0, (41_002, GROUP), "10.9.0.3/24");
    // Of four senders at once: processors that take the same place must not both have it.
    let code = "import os, socket\nfirst = 0\nif os.fork() == 0: first += 1\nif os.fork() == 0: first += 2\n\
        s = socket.socket(17, 3); s.bind(('eth0', 0))\n\
        for i in range(first, 100000, 4):\n  \
        s.send(b'\\xff' * 6 + b'\\x02\\0' + i.to_bytes(4, 'big') + b'\\x88\\xb5' + b'x' * 40)\n\
        if first < 2: os.wait()\nif first == 0: os.wait()\n";
    noisy.run(&["/usr/bin/python3", "-c", code]).ok();
    let addresses = |guest: &Guest| {
        let all = guest.fief(&["-o", "json", "get", "overlays"]).ok().json();
        (all[0]["addresses"].as_u64().unwrap_or(0), all[0]["limited"].as_u64().unwrap_or(0))
    };
    let (known, limited) = addresses(&noisy);
    assert!((32..=64).contains(&known), "{known} addresses of 64 are remembered");
    // What is for everybody is limited too, and others' is not.
    assert!(limited > 50_000, "{limited} of 100000 frames to everybody were dropped");
    assert_eq!(addresses(&a).1, 0);
    a.reaches("10.9.0.2", 56);
    assert!((1..=64).contains(&addresses(&a).0));
    assert!((1..=64).contains(&addresses(&b).0));
}

/// Numbers of ports come once: what one had of the tables is given back when it goes, or who comes and goes fills them.
#[test]
fn join_and_leave_leave_no_addresses() {
    let Some(lan) = Lan::open("join-again", 1, ", macsPerPort: 64") else { return };
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let entries = || {
        let pins = lan.daemons[0].root().join("sys/fs/bpf/fief-overlay");
        let pins = lan.hosts[0].sh(&format!("echo {}/maps-*", pins.display())).ok().stdout;
        // BPF_OBJ_GET and BPF_MAP_GET_NEXT_KEY of bpf(2).
        let code = "import ctypes, struct, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n\
            def bpf(cmd, *words):\n    attr = ctypes.create_string_buffer(struct.pack('=4Q', *words), 128)\n    \
            return libc.syscall(321, cmd, attr, 128)\n\
            for name in 'fief_ov_stations', 'fief_ov_slots':\n    \
            path = ctypes.create_string_buffer((sys.argv[1] + '/' + name).encode())\n    \
            fd = bpf(7, ctypes.addressof(path), 0, 0, 0)\n    \
            key, count, at = ctypes.create_string_buffer(16), 0, 0\n    \
            while bpf(4, fd, at, ctypes.addressof(key), 0) == 0: count, at = count + 1, ctypes.addressof(key)\n    \
            print(count)\n";
        let said = lan.hosts[0].run(&["/usr/bin/python3", "-c", code, pins.trim()]).ok().stdout;
        let [stations, slots]: [u32; 2] =
            said.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>().try_into().expect("two");
        (stations, slots)
    };
    a.says(ALL, "here");
    let before = entries();
    assert!(before.0 >= 1 && before.1 >= 1, "{before:?}");
    let b = Guest::new(&lan, 0, (41_001, GROUP));
    let code = "import socket\ns = socket.socket(17, 3); s.bind(('eth0', 0))\n\
        for i in range(500): s.send(b'\\xff' * 6 + b'\\x02\\0' + i.to_bytes(4, 'big') + b'\\x88\\xb5' + b'x' * 40)\n";
    for _ in 0..3 {
        b.join(&[]).ok();
        b.run(&["/usr/bin/python3", "-c", code]).ok();
        let full = entries();
        assert!(full.0 >= before.0 + 32 && full.1 >= before.1 + 32, "{full:?} after {before:?}");
        b.fief(&["leave"]).ok();
        let after = entries();
        assert!(after.0 <= before.0 + 2 && after.1 <= before.1 + 2, "{after:?} after {before:?}");
    }
}

#[test]
fn join_reaches_peers_without_multicast() {
    // Groups of which neither hears the other's: as good as no multicast.
    let apart = |i: usize| match i {
        0 => "device: eth0",
        _ => "device: eth0, group4: 238.0.0.1, group6: \"ff05:56df::1\"",
    };
    let Some(mut lan) = Lan::with("join-peers", 2, |i| format!("overlay: {{ {} }}\n", apart(i))) else {
        return;
    };
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
    assert!(!a.pings("10.9.0.2", 56), "they meet by multicast");
    for (i, other) in ["10.0.0.2", "fd00::1"].iter().enumerate() {
        let config = lan.daemons[i].root().join("etc/fief");
        let peers = config.join("peers");
        std::fs::write(&peers, format!("{other}\n")).expect("the lab's directory is writable");
        let text = format!("overlay: {{ {}, peers: \"{}\" }}\n", apart(i), peers.display());
        std::fs::write(config.join("fiefd.yaml"), text).expect("the lab's directory is writable");
        lan.daemons[i].restart();
    }
    a.reaches("10.9.0.2", 56);
    b.reaches("10.9.0.1", 1472);
}

#[test]
fn join_carries_frames_that_the_network_cuts_up() {
    let Some(lan) = Lan::open("join-mtu", 2, "") else { return };
    let guests = [0, 1].map(|host| {
        let guest = Guest::new(&lan, host, (41_000 + host as u32, GROUP));
        let said = guest.join(&["--mtu", "9000"]).ok().stdout;
        assert!(said.contains("with MTU 9000"), "{said}");
        let address = format!("10.9.0.{}/24", host + 1);
        guest.run(&["ip", "addr", "add", &address, "dev", "eth0"]).ok();
        guest
    });
    let [a, b] = &guests;
    let whole = |from: &Guest, to: &str, size: &str| {
        from.run(&["ping", "-c", "1", "-W", "2", "-M", "do", "-s", size, to]).success()
    };
    a.reaches("10.9.0.2", 56);
    let wire = lan.wire_of(0, "eth0");
    // Not to be cut up inside, and cut up outside.
    assert!(whole(a, "10.9.0.2", "8972") && whole(b, "10.9.0.1", "8972"));
    let fragments = |frame: &fief_testkit::Captured| {
        frame.bytes.get(12..14) == Some(&[8, 0])
            && frame.bytes.get(20..22).is_some_and(|at| at[0] & 0x3f | at[1] != 0)
    };
    assert!(wire.count(fragments) >= 14, "nothing was cut up");
    // Who does not ask gets what passes in one piece: 1500 without Ethernet, VXLAN, UDP and IPv6.
    let plain = Guest::new(&lan, 0, (41_005, GROUP));
    let said = plain.join(&[]).ok().stdout;
    assert!(said.contains("with MTU 1430"), "{said}");
}

/// How many packets a device has received; `at` is what goes before the command.
fn received(lan: &Lan, host: usize, at: &str, device: &str) -> u64 {
    let shown = lan.hosts[host].sh(&format!("{at} ip -j -s link show dev {device}")).ok().json();
    shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap_or_else(|| panic!("no counters in {shown}"))
}

#[test]
fn join_past_the_ip_stack_obeys_its_filters() {
    let Some(lan) = Lan::open("join-past", 2, "") else { return };
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
    // By IPv6 nothing goes this way.
    a.reaches("10.9.0.2", 56);
    let overlay = lan.daemons[1].root().join("run/fief/overlay/net");
    let inside = format!("nsenter --net={}", overlay.display());
    let ways = || {
        let [packed, unpacked] = [(0, "", "fief-overlay"), (1, inside.as_str(), "gate")]
            .map(|(host, at, device)| received(&lan, host, at, device));
        (packed, unpacked, received(&lan, 1, &inside, "fief4"))
    };
    let before = ways();
    a.run(&["ping", "-c", "100", "-i", "0.01", "-W", "2", "10.9.0.2"]).ok();
    let after = ways();
    assert!(after.0 > before.0 + 50 && after.1 > before.1 + 50, "{before:?} {after:?}");
    assert!(after.2 < before.2 + 50, "they pass the vxlan device: {before:?} {after:?}");
    // Large ones and those of IPv6 inside are whole.
    for (guest, number) in [(&a, 1), (&b, 2)] {
        guest.run(&["ip", "addr", "add", &format!("fd09::{number}/64"), "dev", "eth0", "nodad"]).ok();
    }
    for to in ["10.9.0.2", "fd09::2"] {
        a.reaches(to, 1300);
        a.reaches(to, 9000);
    }
    for (host, hook) in [(1, "input"), (0, "output")] {
        lan.hosts[host].nft(&format!(
            "table ip past {{ chain filter {{ type filter hook {hook} priority 0; udp dport 14788 drop; }}; }}\n"
        ));
        // While it goes on, and none of it is let in or out.
        eventually(SOON, || {
            let answered = (0..5).any(|_| a.run(&["ping", "-c", "1", "-W", "0.2", "10.9.0.2"]).success());
            if answered { Err(format!("past the filter at {hook}")) } else { Ok(()) }
        });
        lan.hosts[host].nft("delete table ip past\n");
        a.reaches("10.9.0.2", 56);
    }
}
