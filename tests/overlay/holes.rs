//! Each attack on a guarded socket that is known, with what is allowed beside it: what is sent. docs/overlay.md lists them.

use fief_testkit::Capture;

use crate::lan::{Family, Lan, outcomes};
use crate::room::{SOON, wait};

/// What was allowed has crossed, so that what was not would have, too.
#[track_caller]
fn only_good(wire: &Capture) {
    assert!(wire.wait_for(b"GOOD", SOON), "what is allowed did not leave");
    assert!(!wire.contains(b"EVIL"), "it left");
    wire.clear();
}

#[test]
fn guarded_socket_hole_01() {
    let Some(lan) = Lan::open("hole-01", 1, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    for family in Family::BOTH {
        let said = lan.attack(
            family,
            r"
evil = lambda h: lambda: u.sendto(h + frame('EVIL'), to)
tries('foreign', evil(theirs('')[:8]))
for bit in range(64):
    other = bytearray(header); other[bit // 8] ^= 1 << bit % 8
    tries(f'bit{bit}', evil(bytes(other)))
tries('short', lambda: u.sendto(header[:7], to))
tries('empty', lambda: u.sendto(b'', to))
tries('split', lambda: u.sendmsg([header[:5], b'\xab\xcd\0', frame('EVIL')], [], 0, to))
tries('mine', lambda: u.sendmsg([header[:1], header[1:5], header[5:], frame('GOOD')], [], 0, to))
tries('goodbye', lambda: u.sendto(header, to))
",
        );
        let bits: Vec<String> = (0..64).map(|bit| format!("bit{bit}")).collect();
        let refused = bits.iter().map(String::as_str).chain(["foreign", "short", "empty", "split"]);
        let wanted: Vec<(&str, &str)> = refused.map(|what| (what, "EPERM")).collect();
        outcomes(&said, &wanted);
        outcomes(&said, &[("mine", "did 26"), ("goodbye", "did 8")]);
        only_good(&wire);
    }
}

#[test]
fn guarded_socket_hole_02() {
    let Some(lan) = Lan::open("hole-02", 1, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    for (family, other, all) in
        [(Family::V4, "239.0.3.233", "10.0.0.255"), (Family::V6, "ff05:56de::3e9", "ff02::1")]
    {
        let code = r"
evil = lambda at, port: lambda: u.sendto(mine('EVIL'), (at, port))
tries('other group', evil('OTHER', to[1]))
tries('other port', evil(to[0], 5353))
tries('everybody', evil('ALL', to[1]))
if not SIX: tries('broadcast', evil('255.255.255.255', to[1]))
tries('connect', lambda: u.connect(('OTHER', to[1])))
tries('connect to ours', lambda: u.connect(to))
tries('unconnected', lambda: u.send(mine('EVIL')))
tries('the hearing one', lambda: g.sendto(mine('EVIL'), to))
tries('mine', lambda: u.sendto(mine('GOOD'), to))
";
        let said = lan.attack(family, &code.replace("OTHER", other).replace("ALL", all));
        let refused =
            ["other group", "other port", "everybody", "connect", "connect to ours", "the hearing one"];
        outcomes(&said, &refused.map(|what| (what, "EPERM")));
        outcomes(&said, &[("unconnected", "EDESTADDRREQ"), ("mine", "did 26")]);
        if family == Family::V4 {
            // SO_BROADCAST, which would be asked first, is not to be had either.
            outcomes(&said, &[("broadcast", "E")]);
        }
        only_good(&wire);
    }
}

#[test]
fn guarded_socket_hole_03() {
    let Some(lan) = Lan::open("hole-03", 1, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    for (family, out) in [(Family::V4, "10.0.0.9"), (Family::V6, "fd00::9")] {
        let code = r"
evil = lambda port: lambda: u.sendto(mine('EVIL'), ('OUT', port))
tries('nobody', evil(5555))
print('ready', flush=True)
heard(g, 'hello')
tries('another port', evil(5556))
tries('the group port', evil(14789))
tries('the peer', lambda: u.sendto(mine('GOOD'), ('OUT', 5555)))
print('done', flush=True)
";
        let (mut user, _) = lan.victim(family, &code.replace("OUT", out));
        lan.outside(&format!(
            "s = sock({}); s.bind(('{out}', 5555))\ns.sendto(vni(1000, 'hello'), ('{}', 14789))\n\
             o = sock({}); o.bind(('{out}', 5556))\no.sendto(vni(1001, 'hello'), ('{}', 14789))\n",
            family.python(),
            family.multicast(),
            family.python(),
            family.multicast(),
        ));
        user.wait_for_output("done\n", SOON);
        let said = user.output();
        outcomes(&said, &["nobody", "another port", "the group port"].map(|what| (what, "EPERM")));
        outcomes(&said, &[("the peer", "did 26")]);
        only_good(&wire);
    }
}

#[test]
fn guarded_socket_hole_04() {
    let Some(lan) = Lan::open("hole-04", 1, "") else { return };
    for family in Family::BOTH {
        // Values of every size that some option takes; 0 and 1 for those that are numbers; one longer than a page.
        let said = lan.attack(
            family,
            r"
values = [struct.pack('i', 1), b'\0' * 4, b'\x01', b'\0' * 8, b'\0' * 12, b'\0' * 16, b'\0' * 20, b'\0' * 136,
          b'eth1\0', b'\0' * 5000]
for level in (0, 1, 2, 6, 17, 41, 50, 58, 132, 136, 255, 263, 266, 270, 271, 275, 276, 280, 281, 282, 284, 285, 286, 0x6669):
    for name in list(range(140)) + [200, 201, 202, 203, 204, 205, 206, 207]:
        for value in values:
            for s, of in (u, 'u'), (g, 'g'):
                try:
                    s.setsockopt(level, name, value)
                    print(f'set {level} {name}', flush=True)
                except OSError as e:
                    if e.errno != errno.EPERM: print(f'set {level} {name}', NAMES.get(e.errno), flush=True)
                try:
                    s.getsockopt(level, name, 8)
                    print(f'got {level} {name}', flush=True)
                except OSError:
                    pass
tries('ring device', lambda: ring_set(1, 25, b'eth1\0'))
tries('ring buffer', lambda: ring_set(1, 8, struct.pack('i', 32768)))
tries('buffer', lambda: u.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536))
tries('buffer has', lambda: u.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
",
        );
        let mut set: Vec<(i32, i32)> = Vec::new();
        let mut got = Vec::new();
        for line in said.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(pair) = words.get(1..3) else { continue };
            let (Ok(level), Ok(name)) = (pair[0].parse(), pair[1].parse()) else { continue };
            match words[0] {
                "set" => set.push((level, name)),
                "got" => got.push((level, name)),
                _ => {}
            }
        }
        for all in [&mut set, &mut got] {
            all.sort_unstable();
            all.dedup();
        }
        let listed = [(0, 8), (1, 7), (1, 8), (1, 20), (1, 21), (1, 66), (1, 67), (17, 104), (41, 49)];
        assert!(set.iter().all(|option| listed.contains(option)), "{set:?}\n{said}");
        assert!([(1, 7), (1, 8), (1, 20), (17, 104)].iter().all(|option| set.contains(option)), "{set:?}");
        let shown = [(1, 3), (1, 4), (1, 38), (1, 39)];
        assert!(got.iter().all(|option| listed.contains(option) || shown.contains(option)), "{got:?}");
        outcomes(&said, &[("buffer has", "did 131072")]);
        outcomes(&said, &[("ring device", "EPERM"), ("ring buffer", "did 0")]);
    }
}

#[test]
fn guarded_socket_hole_08() {
    let Some(lan) = Lan::open("hole-08", 1, "") else { return };
    let (wire, aside) = (lan.wire_of(0, "eth0"), lan.wire_of(0, "eth1"));
    let eth1 = lan.hosts[0].ifindex("eth1");
    let code = r"
say = lambda cmsg: lambda: u.sendmsg([mine('EVIL')], cmsg, 0, to)
address = lambda a: socket.inet_pton(FAMILY, a)
number = lambda n: struct.pack('=i', n)
if SIX:
    source = lambda a, index=0: [(41, 50, address(a) + number(index))]
    tries('hops', say([(41, 52, number(2))]))
    tries('source', say(source('fd00::77')))
    tries('device', say(source('::', ETH1)))
    tries('routing', say([(41, 57, bytes([0, 2, 4, 1]) + bytes(4) + address('fd00::9'))]))
    tries('options', say([(41, 54, bytes([0, 0, 1, 4, 0, 0, 0, 0]))]))
    tries('few hops', lambda: u.sendmsg([mine('GOOD')], [(41, 52, number(1))], 0, to))
else:
    source = lambda a, index=0: [(0, 8, number(index) + address(a) + bytes(4))]
    tries('hops', say([(0, 2, number(2))]))
    tries('source', say(source('10.0.0.77')))
    tries('device', say(source('0.0.0.0', ETH1)))
    tries('routing', say([(0, 7, bytes([131, 7, 4]) + address('10.0.0.9') + b'\0')]))
    tries('options', say([(0, 7, bytes([7, 7, 4]) + bytes(4) + b'\0')]))
    tries('few hops', lambda: u.sendmsg([mine('GOOD')], [(0, 2, number(1))], 0, to))
";
    for family in Family::BOTH {
        let said = lan.attack(family, &code.replace("ETH1", &eth1.to_string()));
        // IPv6 options ask for a privilege; a device that is not the socket's is no way.
        for what in ["hops", "source", "device", "routing", "options"] {
            outcomes(&said, &[(what, "E")]);
        }
        outcomes(&said, &[("hops", "EPERM"), ("source", "EPERM"), ("few hops", "did 26")]);
        only_good(&wire);
        assert!(!aside.contains(b"EVIL"));
    }
}

#[test]
fn guarded_socket_hole_09() {
    let Some(lan) = Lan::open("hole-09", 1, "") else { return };
    let (wire, aside) = (lan.wire_of(0, "eth0"), lan.wire_of(0, "eth1"));
    let eth1 = lan.hosts[0].ifindex("eth1");
    let code = r"
# connect(2) with AF_UNSPEC asks nobody, and the socket is on no device any more.
print('disconnect', libc.connect(u.fileno(), struct.pack('=H14x', 0), 16), flush=True)
tries('ring disconnect', lambda: ring_connect(struct.pack('=H14x', 0)))
tries('ring connect', lambda: ring_connect(sockaddr(to)))
number = lambda n: struct.pack('=i', n)
there = [(41, 50, bytes(16) + number(ETH1))] if SIX else [(0, 8, number(ETH1) + bytes(8))]
tries('elsewhere', lambda: u.sendmsg([mine('EVIL')], there, 0, to))
tries('bind', lambda: u.bind(('fd01::1' if SIX else '10.1.0.1', 0)))
tries('bind to all', lambda: u.bind(('', 0)))
tries('disconnect the other', lambda: libc.connect(g.fileno(), struct.pack('=H14x', 0), 16))
tries('bind the other', lambda: g.bind(('ff02::1' if SIX else '239.0.3.233', 14789)))
number = u.getsockname()[1]
print('port is', number == own[1], flush=True)
tries('mine', lambda: u.sendto(mine('GOOD'), to))
";
    for family in Family::BOTH {
        // Multicast would leave by the other card if nobody looked.
        let group = if family == Family::V4 { "239.0.0.0/8" } else { "ff05::/16" };
        lan.hosts[0].ip(&format!("route add multicast {group} dev eth1 table local\n"));
        let said = lan.attack(family, &code.replace("ETH1", &eth1.to_string()));
        outcomes(&said, &["elsewhere", "bind", "bind to all", "bind the other"].map(|what| (what, "E")));
        outcomes(&said, &[("ring disconnect", "did 0"), ("ring connect", "EPERM")]);
        assert!(said.contains("disconnect 0\n") && said.contains("port is True\n"), "{said}");
        lan.hosts[0].ip(&format!("route del multicast {group} dev eth1 table local\n"));
        wait(crate::room::NEVER);
        assert!(!aside.contains(b"EVIL") && !aside.contains(b"GOOD"), "it left by another card");
        // One that was not disconnected is none the worse.
        lan.attack(family, "tries('mine', lambda: u.sendto(mine('GOOD'), to))");
        only_good(&wire);
    }
}

#[test]
fn guarded_socket_hole_10() {
    let Some(lan) = Lan::open("hole-10", 1, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    for family in Family::BOTH {
        // The header in a page that the sender can still write to, behind a part of it that is the kernel's copy.
        let said = lan.attack(
            family,
            r"
def splice(first, rest):
    file = os.memfd_create('page'); os.write(file, rest)
    into, out = os.pipe()
    os.splice(file, out, len(rest), offset_src=0)
    u.sendto(first, socket.MSG_MORE, to)
    return os.splice(into, u.fileno(), len(rest))
tries('page', lambda: splice(header[:4], header[4:] + frame('EVIL')))
tries('zerocopy', lambda: u.setsockopt(socket.SOL_SOCKET, 60, 1))
tries('ring foreign', lambda: ring_zerocopy(theirs('EVIL')))
tries('ring mine', lambda: ring_zerocopy(mine('EVIL')))
tries('page of payload', lambda: splice(header, frame('GOOD')))
",
        );
        outcomes(&said, &["page", "zerocopy"].map(|what| (what, "EPERM")));
        // A socket in a map of sockets sends nothing so; were it not in one, the header would lie in a page.
        outcomes(&said, &["ring foreign", "ring mine"].map(|what| (what, "E")));
        outcomes(&said, &[("page of payload", "did 18")]);
        only_good(&wire);
    }
}

#[test]
fn guarded_socket_hole_11() {
    let Some(lan) = Lan::open("hole-11", 1, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    for family in Family::BOTH {
        let said = lan.attack(
            family,
            r"
def more(head, tail):
    u.sendto(head, socket.MSG_MORE, to)
    return u.sendto(tail, to)
tries('more', lambda: more(theirs('')[:8], frame('EVIL')))
tries('large', lambda: u.sendto(theirs('EVIL' * 1000), to))
tries('mmsg', lambda: sendmmsg([mine('one'), theirs('EVIL'), mine('two')]))
tries('ring', lambda: ring_send(theirs('EVIL')))
tries('ring mine', lambda: ring_send(mine('mine')))
tries('more mine', lambda: more(header, frame('more')))
tries('large mine', lambda: u.sendto(mine('GOOD' * 1000), to))
",
        );
        outcomes(&said, &[("more", "EPERM"), ("large", "EPERM"), ("mmsg", "did 1"), ("ring", "EPERM")]);
        outcomes(&said, &[("ring mine", "did 26"), ("more mine", "did 18"), ("large mine", "did 4022")]);
        only_good(&wire);
    }
}
