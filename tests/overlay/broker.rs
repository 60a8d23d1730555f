//! Who gets sockets of which segment, and how long they stay guarded.

use fief_testkit::{Captured, eventually};

use crate::lan::{Family, GROUP, Lan, OTHER, outcomes};
use crate::room::SOON;

/// Asks, and says what came of it.
#[track_caller]
fn asks(lan: &Lan, (user, group): (u32, u32), more: &[u32], whose: &str) -> String {
    let code = "import socket, struct, sys, errno\n\
        s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        s.sendall(struct.pack('=iii64s', 2, 0x10000, 0, sys.argv[2].encode()))\n\
        said, fds, _, _ = socket.recv_fds(s, 12, 4)\n\
        number = struct.unpack('=i', said[:4])[0]\n\
        print(errno.errorcode.get(number, number), len(fds), said[4:].hex())\n";
    let at = lan.sockets(0).display().to_string();
    let command = lan.hosts[0].command(&["/usr/bin/python3", "-c", code, &at, whose]);
    command.user_with_groups(user, group, more).run().ok().stdout.trim().to_owned()
}

#[test]
fn segment_sockets_are_for_the_effective_group() {
    let Some(lan) = Lan::open("broker", 1, "") else { return };
    let host = &lan.hosts[0];
    // In the lab's mount namespace.
    let subgid = lan.lab.dir().join("subgid");
    std::fs::write(&subgid, "ada:100000:65536\n").expect("the lab's directory is writable");
    host.run(&["mount", "--bind", &subgid.display().to_string(), "/etc/subgid"]).ok();
    assert_eq!(asks(&lan, (41_000, 1000), &[], ""), "0 2 080000000003e800");
    assert_eq!(asks(&lan, (41_000, 1000), &[], "1000"), "0 2 080000000003e800");
    assert_eq!(asks(&lan, (41_000, 1001), &[], ""), "0 2 080000000003e900");
    // Another's, one that is only supplementary, and root's, who has none by being root.
    for (who, more) in [((41_000, 1000), &[][..]), ((41_000, 1000), &[1001]), ((0, 0), &[])] {
        assert_eq!(asks(&lan, who, more, "1001"), "EPERM 0");
    }
    // The system's groups, numbers that users take by themselves, and such as do not fit.
    for group in [0, 999, 100_000, 165_535] {
        assert_eq!(asks(&lan, (41_000, group), &[], ""), "EACCES 0", "{group}");
    }
    assert_eq!(asks(&lan, (41_000, 165_536), &[], ""), "0 2 080000000286a000");
    for group in [0x80_0000, 1 << 24, 0x0100_03e8, 0x7fff_fffe, 0x8000_0001] {
        assert_eq!(asks(&lan, (41_000, group), &[], ""), "ERANGE 0", "{group}");
    }
    assert_eq!(asks(&lan, (41_000, 1000), &[], "no number"), "EINVAL 0");
    // In a user namespace of his own he is who he was, whatever he calls himself.
    let code = "os.setgid(0)\nprint('again', ask()[2].hex())\ntries('other', lambda: ask(group='1001'))\n";
    let said = lan.attack(Family::V4, code);
    assert!(said.contains("again 080000000003e800\n"), "{said}");
    outcomes(&said, &[("other", "EPERM")]);
}

#[test]
fn segment_sockets_of_supplementary_groups_are_the_hosts_choice() {
    let Some(lan) = Lan::open("broker-more", 1, ", supplementaryGroups: true, minGid: 500") else { return };
    assert_eq!(asks(&lan, (41_000, 1000), &[1001], "1001"), "0 2 080000000003e900");
    assert_eq!(asks(&lan, (41_000, 1000), &[1001], ""), "0 2 080000000003e800");
    assert_eq!(asks(&lan, (41_000, 1000), &[1001], "1002"), "EPERM 0");
    assert_eq!(asks(&lan, (41_000, 500), &[], ""), "0 2 080000000001f400");
    assert_eq!(asks(&lan, (41_000, 499), &[], ""), "EACCES 0");
}

#[test]
fn segment_sockets_are_not_to_be_had_where_there_is_no_overlay_or_no_card() {
    let lan = Lan::with("broker-off", 1, |_| "overlay: { minGid: 1000 }\n".to_owned());
    let Some(mut lan) = lan else { return };
    assert_eq!(asks(&lan, (41_000, 1000), &[], ""), "ENOTSUP 0");
    assert!(segment_groups(&lan).is_empty());
    let config = lan.daemons[0].root().join("etc/fief/fiefd.yaml");
    // What the host lacks now is no reason not to start; it is there when it is there.
    std::fs::write(&config, "overlay: { device: eth7 }\n").expect("the lab's directory is writable");
    lan.daemons[0].restart();
    assert_eq!(asks(&lan, (41_000, 1000), &[], ""), "ENODEV 0");
    lan.hosts[0].ip("link set eth1 down\nlink set eth1 name eth7\naddr flush dev eth7\nlink set eth7 up\n");
    assert_eq!(asks(&lan, (41_000, 1000), &[], ""), "EADDRNOTAVAIL 0");
    lan.hosts[0].ip("addr add 10.1.0.1/24 dev eth7\n");
    assert_eq!(asks(&lan, (41_000, 1000), &[], ""), "0 2 080000000003e800");
}

#[test]
fn guarded_sockets_stay_guarded_without_the_daemon_and_leave_nothing() {
    let Some(mut lan) = Lan::open("broker-dead", 1, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    let code = "print('ready', flush=True)\nfor line in open('FIFO'):\n\
        \x20   tries(line.strip() + ' foreign', lambda: u.sendto(theirs('EVIL'), to))\n\
        \x20   tries(line.strip() + ' option', lambda: u.setsockopt(1, 25, b'eth1\\0'))\n\
        \x20   tries(line.strip() + ' mine', lambda: u.sendto(mine('GOOD'), to))\n";
    let go = lan.lab.dir().join("go");
    lan.hosts[0].run(&["mkfifo", "-m", "666", &go.display().to_string()]).ok();
    let (mut user, _) = lan.victim(Family::V4, &code.replace("FIFO", &go.display().to_string()));
    let mut say = std::fs::OpenOptions::new().write(true).open(&go).expect("the reader opens it");
    let mut after = |what: &str, user: &mut fief_testkit::Child| {
        use std::io::Write;
        writeln!(say, "{what}").expect("the reader reads");
        user.wait_for_output(&format!("{what} mine: did 26\n"), SOON);
        let [foreign, option] = ["foreign", "option"].map(|of| format!("{what} {of}"));
        outcomes(&user.output(), &[(&foreign, "EPERM"), (&option, "EPERM")]);
    };
    after("with", &mut user);
    assert_eq!(segment_groups(&lan).len(), 1);
    lan.daemons[0].kill9();
    after("killed", &mut user);
    // The next one has a control group of its own, and the directory of the first is gone.
    lan.daemons[0].restart();
    assert!(segment_groups(&lan).is_empty(), "{:?}", segment_groups(&lan));
    assert_eq!(asks(&lan, (41_000, OTHER), &[], ""), "0 2 080000000003e900");
    after("restarted", &mut user);
    let (other, _) = lan.victim(Family::V6, "print('ready', flush=True)\ntime.sleep(60)\n");
    lan.daemons[0].stop();
    assert!(segment_groups(&lan).is_empty());
    after("stopped", &mut user);
    assert!(dying(&lan) >= 2, "sockets keep their control groups");
    assert!(wire.contains(b"GOOD") && !wire.contains(b"EVIL"));
    // With the last socket go the programs.
    drop((user, other));
    eventually(SOON, || match dying(&lan) {
        0 => Ok(()),
        left => Err(format!("{left} control groups are still there")),
    });
    assert_eq!(GROUP, 1000);
}

/// The names of programs where packets leave by a card, in their order (BPF_PROG_QUERY of bpf(2), for tcx).
const AT_CARD: &str = r"
import ctypes, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, *words):
    attr = ctypes.create_string_buffer(b''.join(words).ljust(64, b'\0'))
    done = libc.syscall(321, command, attr, 64)
    assert done >= 0, os.strerror(ctypes.get_errno())
    return done, attr.raw
ids = (ctypes.c_uint32 * 64)()
index = socket.if_nametoindex('eth0')
count = struct.unpack_from('I', bpf(16, struct.pack('=IIIIQI', index, 47, 0, 0, ctypes.addressof(ids), 64))[1], 24)[0]
for number in ids[:count]:
    program, info = bpf(13, struct.pack('=I', number))[0], ctypes.create_string_buffer(80)
    bpf(15, struct.pack('=IIQ', program, 80, ctypes.addressof(info)))
    print(info.raw[64:80].rstrip(b'\0').decode())
";

#[track_caller]
fn at_card(lan: &Lan) -> Vec<String> {
    let said = lan.hosts[0].run(&["/usr/bin/python3", "-c", AT_CARD]).ok().stdout;
    said.lines().map(str::to_owned).collect()
}

/// The gate is there as long as somebody may need it, once, and before whatever else is there.
#[test]
fn guarded_sockets_have_one_gate_at_the_card() {
    let Some(mut lan) = Lan::open("broker-gate", 1, "") else { return };
    const WAITS: &str = "print('ready', flush=True)\ntime.sleep(60)\n";
    const GATE: [&str; 1] = ["segment_gate"];
    assert!(at_card(&lan).is_empty());
    let (mut user, _) = lan.victim(Family::V4, WAITS);
    assert_eq!(at_card(&lan), GATE);
    // With the last socket it goes when the daemon does.
    user.kill();
    drop(user);
    lan.daemons[0].stop();
    assert!(at_card(&lan).is_empty());
    lan.daemons[0].restart();
    let (user, _) = lan.victim(Family::V4, WAITS);
    lan.daemons[0].stop();
    assert_eq!(at_card(&lan), GATE, "somebody has a socket");
    lan.daemons[0].restart();
    let (other, _) = lan.victim(Family::V6, WAITS);
    assert_eq!(at_card(&lan), GATE, "another daemon's takes its place");
    lan.daemons[0].kill9();
    assert_eq!(at_card(&lan), GATE);
    // An interface's programs come behind it.
    lan.daemons[0].restart();
    let _member = crate::guest::Guest::joined(&lan, 0, (41_002, GROUP), "10.9.0.1/24");
    let all = at_card(&lan);
    assert!(all.len() > 1 && all[0] == GATE[0], "{all:?}");
    drop((user, other));
}

/// Whoever makes a socket where the daemon makes them has one that does nothing.
#[test]
fn guarded_sockets_of_which_nobody_said_whose_they_are_do_nothing() {
    let Some(lan) = Lan::open("broker-bare", 1, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    assert_eq!(asks(&lan, (41_000, GROUP), &[], ""), "0 2 080000000003e800");
    let place = lan.lab.cgroup().join(segment_groups(&lan).remove(0));
    let code = "import socket, select\n\
        for family, to in (socket.AF_INET, '239.0.3.232'), (socket.AF_INET6, 'ff05:56de::3e8'):\n\
        \x20   s = socket.socket(family, socket.SOCK_DGRAM); s.setsockopt(1, 25, b'eth0\\0')\n\
        \x20   s.bind(('', 7777))\n\
        \x20   try: print('sent', s.sendto(bytes.fromhex('080000000003e800') + b'UNLOCKED', (to, 14789)))\n\
        \x20   except OSError as e: print(e.errno)\n\
        \x20   print('ready', flush=True)\n\
        \x20   print('heard', len(select.select([s], [], [], 3)[0]), flush=True)\n";
    let run = |child: &mut fief_testkit::Child| {
        for (number, to) in [(1, "('10.0.0.1', 7777)"), (2, "('fd00::1', 7777)")] {
            eventually(SOON, || {
                if child.output().matches("ready").count() == number { Ok(()) } else { Err(child.output()) }
            });
            let family = if number == 1 { "socket.AF_INET" } else { "socket.AF_INET6" };
            lan.outside(&format!("sock({family}).sendto(vni(1000, 'LAST'), {to})\n"));
            eventually(SOON, || {
                if child.output().matches("heard").count() == number { Ok(()) } else { Err(child.output()) }
            });
        }
        child.output()
    };
    let said = run(&mut lan.hosts[0].spawn_in_cgroup(&place, &["/usr/bin/python3", "-c", code]));
    assert_eq!(said, "1\nready\nheard 0\n".repeat(2));
    assert!(!wire.contains(b"UNLOCKED"));
    let all = lan.daemons[0].cli(&["-o", "json", "get", "overlay-counters"]).ok().json();
    assert!(all["refused"]["not-locked"].as_u64() >= Some(4), "{all}");
    // Anywhere else it does all of that.
    let said = run(&mut lan.hosts[0].spawn(&["/usr/bin/python3", "-c", code]));
    assert_eq!(said, "sent 16\nready\nheard 1\n".repeat(2));
    assert!(wire.contains(b"UNLOCKED"));
}

#[test]
fn segment_sockets_are_so_many_for_a_group() {
    let Some(lan) = Lan::open("broker-many", 1, ", membersPerGroup: 3") else { return };
    let code = "more = [ask() for _ in range(2)]\ntries('fourth', ask)\n\
        for s in more.pop()[:2]: s.close()\n\
        tries('instead', ask)\nprint('ready', flush=True)\ntime.sleep(60)\n";
    let (user, _) = lan.victim(Family::V4, code);
    outcomes(&user.output(), &[("fourth", "EMFILE"), ("instead", "did")]);
    // Others are not in anybody's way.
    assert_eq!(asks(&lan, (41_001, OTHER), &[], ""), "0 2 080000000003e900");
    drop(user);
    eventually(SOON, || match asks(&lan, (41_000, GROUP), &[], "").as_str() {
        "0 2 080000000003e800" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn guarded_sockets_send_so_many_to_everybody() {
    let Some(lan) = Lan::open("broker-rate", 1, ", rate: 50") else { return };
    let wire = lan.wire_of(0, "eth0");
    let code = "print('ready', flush=True)\nheard(g, 'hello')\n\
        began = time.monotonic()\n\
        for i in range(1000): u.sendto(mine('ALL!'), to)\n\
        print('took', time.monotonic() - began, flush=True)\n\
        for i in range(1000): u.sendto(mine('ONE!'), ('10.0.0.9', 5555))\n\
        print('done', flush=True)\n";
    let (mut user, _) = lan.victim(Family::V4, code);
    lan.outside(
        "s = sock(); s.bind(('10.0.0.9', 5555))\ns.sendto(vni(1000, 'hello'), ('239.0.3.232', 14789))\n",
    );
    user.wait_for_output("done\n", SOON);
    let took = user.output();
    let took = took.lines().find_map(|line| line.strip_prefix("took ")?.parse::<f64>().ok());
    let took = took.expect("it says how long it took");
    // Who listens no more quotes in his answers (ICMP) what he was sent.
    let is_udp = |frame: &Captured| frame.bytes.get(23) == Some(&17);
    let counts =
        || [&b"ALL!"[..], b"ONE!"].map(|text| wire.count(|frame| is_udp(frame) && frame.contains(text)));
    // The first wait for his Ethernet address, and not all of them have room there.
    let [all, one] = eventually(SOON, || match counts() {
        [all, one] if one > 500 => Ok([all, one]),
        counts => Err(format!("whoever is sent to alone is not counted: {counts:?}")),
    });
    // A second's worth at once, and what comes with time.
    assert!(all >= 50 && all as f64 <= 51.0 + 50.0 * took, "{all} of 1000 in {took} s");
    assert!(one <= 1000);
}

#[test]
fn guarded_sockets_refusals_are_told_once_and_counted() {
    let Some(mut lan) = Lan::open("broker-log", 1, "") else { return };
    lan.attack(Family::V4, "for i in range(1000): tries('foreign', lambda: u.sendto(theirs('EVIL'), to))\n");
    let told = |lan: &Lan| lan.daemons[0].log().matches("foreign-out").count();
    eventually(SOON, || if told(&lan) > 0 { Ok(()) } else { Err(lan.daemons[0].log()) });
    lan.attack(Family::V6, "for i in range(1000): tries('foreign', lambda: u.sendto(theirs('EVIL'), to))\n");
    assert_eq!(told(&lan), 1, "{}", lan.daemons[0].log());
    lan.daemons[0].stop();
    assert!(lan.daemons[0].log().contains("foreign-out 2000"), "{}", lan.daemons[0].log());
}

/// The control groups of guarded sockets that have a directory.
fn segment_groups(lan: &Lan) -> Vec<String> {
    let all = std::fs::read_dir(lan.lab.cgroup()).expect("the lab has a control group");
    let names = all.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("fief-segments-")).collect()
}

/// Those that have none any more and are still there.
fn dying(lan: &Lan) -> u32 {
    let stat =
        std::fs::read_to_string(lan.lab.cgroup().join("cgroup.stat")).expect("a control group has one");
    let line = stat.lines().find_map(|line| line.strip_prefix("nr_dying_descendants "));
    line.and_then(|number| number.parse().ok()).expect("Linux 4.14 says it")
}
