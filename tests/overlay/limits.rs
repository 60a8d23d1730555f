//! What the configuration allows, on both ways to a segment.

use std::time::Instant;

use fief_testkit::{Capture, Captured, eventually};

use crate::guest::{ALL, Guest};
use crate::lan::{Family, GROUP, Lan, outcomes};
use crate::room::{NEVER, SOON, wait};

/// Hops of a packet that carries this, if it is one.
fn hops(frame: &Captured, text: &[u8]) -> Option<u8> {
    match frame.bytes.get(12..).filter(|_| frame.contains(text))? {
        [8, 0, ip @ ..] => ip.get(8).copied(),
        [0x86, 0xdd, ip @ ..] => ip.get(7).copied(),
        _ => None,
    }
}

fn all_hops(wire: &Capture, text: &[u8]) -> Vec<u8> {
    wire.frames().iter().filter(|frame| frame.outgoing).filter_map(|frame| hops(frame, text)).collect()
}

#[test]
fn overlay_limits_max_ttl_is_what_leaves() {
    let Some(lan) = Lan::open("limit-ttl", 2, ", maxTtl: 3") else { return };
    let wire = lan.wire_of(0, "eth0");
    for family in Family::BOTH {
        let code = r"
hops = lambda n: [(41, 52, struct.pack('=i', n))] if SIX else [(0, 2, struct.pack('=i', n))]
for n in 1, 2, 3, 4, 64:
    tries(f'hops {n}', lambda: u.sendmsg([mine(f'HOPS{n}')], hops(n), 0, to))
tries('as made', lambda: u.sendto(mine('PLAIN'), to))
";
        let said = lan.attack(family, code);
        outcomes(&said, &["hops 1", "hops 2", "hops 3", "as made"].map(|what| (what, "did")));
        outcomes(&said, &["hops 4", "hops 64"].map(|what| (what, "EPERM")));
        assert!(wire.wait_for(b"PLAIN", SOON));
        assert_eq!(all_hops(&wire, b"PLAIN"), [3], "{family:?}");
        assert!(!wire.contains(b"HOPS4") && !wire.contains(b"HOPS64"));
        wire.clear();
    }
    // By interfaces: to everybody, in both families, and to one.
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
    a.reaches("10.9.0.2", 56);
    a.says(ALL, "to everybody");
    eventually(SOON, || match all_hops(&wire, b"to everybody").as_slice() {
        [3, 3] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    a.run(&["ping", "-c", "1", "-p", "544f5f4f4e4521", "10.9.0.2"]).ok();
    eventually(SOON, || match all_hops(&wire, b"TO_ONE!").as_slice() {
        [3] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    drop(b);
}

#[test]
fn overlay_limits_min_gid_and_subordinate_groups_for_interfaces() {
    let Some(lan) = Lan::open("limit-gid", 1, ", minGid: 2000") else { return };
    let subgid = lan.lab.dir().join("subgid");
    std::fs::write(&subgid, "ada:100000:65536\n").expect("the lab's directory is writable");
    lan.hosts[0].run(&["mount", "--bind", &subgid.display().to_string(), "/etc/subgid"]).ok();
    for (user, group, says) in [
        (41_000, 1999, "below 2000"),
        (41_001, 100_000, "/etc/subgid"),
        (41_002, 0x80_0000, "above 8388607"),
        (41_003, 0x0100_07d0, "above 8388607"),
    ] {
        let said = Guest::new(&lan, 0, (user, group)).join(&[]).fails();
        assert!(said.stderr.contains(says), "{group}: {said}");
    }
    Guest::new(&lan, 0, (41_004, 2000)).join(&[]).ok();
}

#[test]
fn overlay_limits_rate_for_interfaces() {
    let Some(lan) = Lan::open("limit-rate", 2, ", rate: 50") else { return };
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let b = Guest::joined(&lan, 1, (41_001, GROUP), "10.9.0.2/24");
    a.reaches("10.9.0.2", 56);
    let hears = b.listens();
    let counted = |field: &str| {
        let all = a.fief(&["-o", "json", "get", "overlays"]).ok().json();
        all[0][field].as_u64().unwrap_or_else(|| panic!("{all}"))
    };
    let (began, before) = (Instant::now(), counted("flooded"));
    // Of four at once: processors that count at the same time must not both go by what was before.
    let code = "import os, socket\nfor i in range(2): os.fork()\n\
        s = socket.socket(17, 3); s.bind(('eth0', 0)); own = s.getsockname()[4]\n\
        for i in range(20000): s.send(b'\\xff' * 6 + own + b'\\x88\\xb5' + b'many')\n\
        try:\n    while True: os.wait()\nexcept ChildProcessError: pass\n";
    a.run(&["/usr/bin/python3", "-c", code]).ok();
    let most = 51.0 + 50.0 * began.elapsed().as_secs_f64();
    wait(NEVER);
    let (heard, sent) = (hears.output().matches("many").count(), counted("flooded") - before);
    assert!(heard > 0 && heard as f64 <= most, "{heard} of 80000, {most} at most");
    assert!(sent as f64 <= most, "{sent} of 80000, {most} at most");
    // What is for one is not limited.
    let said = a.run(&["ping", "-q", "-c", "300", "-i", "0.002", "10.9.0.2"]).ok().stdout;
    assert!(said.contains(" 300 received") || said.contains(" 299 received"), "{said}");
    assert!(counted("limited") > 79_000, "{}", counted("limited"));
}

/// Who gets no sockets sees no interfaces by them (attack 14), and is on the segment all the same.
#[test]
fn overlay_limits_interfaces_only() {
    let Some(lan) = Lan::open("limit-sockets", 1, ", membersPerGroup: 0") else { return };
    let code = "import socket, struct, sys\n\
        s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        s.sendall(struct.pack('=iii64s', 2, 0x10000, 0, b''))\n\
        said, fds, _, _ = socket.recv_fds(s, 12, 4)\nprint(struct.unpack('=i', said[:4])[0], len(fds))\n";
    let at = lan.sockets(0).display().to_string();
    let said = lan.hosts[0].command(&["/usr/bin/python3", "-c", code, &at]).user(41_000, GROUP).run().ok();
    assert_eq!(said.stdout, format!("{} 0\n", libc::EMFILE));
    Guest::new(&lan, 0, (41_000, GROUP)).join(&[]).ok();
}

#[test]
fn overlay_limits_supplementary_groups_for_interfaces() {
    for (name, more, says) in [
        ("limit-own", "", Err("only a supplementary group")),
        ("limit-more", ", supplementaryGroups: true", Ok("segment of group 1001")),
    ] {
        let Some(lan) = Lan::open(name, 1, more) else { return };
        let cli = lan.lab.expose(&fief_testkit::bin("fief")).display().to_string();
        let root = lan.daemons[0].root().display().to_string();
        let join = |group: &str| {
            let words =
                ["unshare", "--map-root-user", "--net", &cli, "--root", &root, "join", "--group", group];
            lan.hosts[0].command(&words).user_with_groups(41_000, GROUP, &[1001]).run()
        };
        match says {
            Ok(says) => assert!(join("1001").ok().stdout.contains(says)),
            Err(says) => assert!(join("1001").fails().stderr.contains(says)),
        }
        assert!(join("1002").fails().stderr.contains("not the caller's effective group"));
        join("1000").ok();
    }
}
