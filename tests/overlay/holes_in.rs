//! Each attack on a guarded socket that is known: what comes in, and what is on the socket's own host.

use fief_testkit::eventually;

use crate::lan::{Family, Lan, outcomes};
use crate::room::SOON;

/// A foreign datagram, fragments of one, and one of ours, to the socket itself and to its group.
#[test]
fn guarded_socket_hole_05() {
    let Some(lan) = Lan::open("hole-05", 1, "") else { return };
    for (family, host) in [(Family::V4, "10.0.0.1"), (Family::V6, "fd00::1")] {
        let (mut user, port) =
            lan.victim(family, "print('ready', flush=True)\nhears('u', u)\nhears('g', g)\n");
        lan.outside(&format!(
            "s = sock({})\n\
             for to in ('{host}', {port}), ('{}', 14789):\n\
             \x20   s.sendto(vni(1001, 'EVIL'), to)\n\
             \x20   s.sendto(vni(1001, 'EVIL' * 1000), to)\n\
             \x20   s.sendto(b'\\x88' + vni(1000, 'EVIL')[1:], to)\n\
             \x20   s.sendto(vni(1000, '')[:7], to)\n\
             \x20   s.sendto(b'', to)\n\
             \x20   s.sendto(vni(1000, 'GOOD'), to)\n\
             \x20   s.sendto(vni(1000, 'GOOD' * 1000), to)\n\
             \x20   s.sendto(vni(1000, 'LAST'), to)\n",
            family.python(),
            family.multicast()
        ));
        user.wait_for_output("g: that was all\n", SOON);
        let said = user.output();
        assert!(!said.contains("EVIL"), "{said}");
        for of in ["u", "g"] {
            let heard = said.lines().filter(|line| line.starts_with(&format!("{of}: heard")));
            assert_eq!(heard.count(), 3, "{said}");
            assert!(said.contains(&format!("{of}: heard 080000000003e800 GOOD")), "{said}");
        }
    }
}

/// A program of root's on the same host that listens to another group: IPv4's copies of multicast pass no egress program.
#[test]
fn guarded_socket_hole_12() {
    let Some(lan) = Lan::open("hole-12", 1, "") else { return };
    for (family, other) in [(Family::V4, "239.0.3.233"), (Family::V6, "ff05:56de::3e9")] {
        let mut listener = lan.listener(0, family, &[other, family.multicast()]);
        // Root's own is heard, so that others' would be.
        lan.hosts[0].run(&["/usr/bin/python3", "-c", &lan.root_says(family, other, "ROOT")]).ok();
        listener.wait_for_output("ROOT", SOON);
        let code = format!(
            "tries('evil', lambda: u.sendto(mine('EVIL'), ('{other}', 14789)))\n\
             tries('mine', lambda: u.sendto(mine('GOOD'), to))\n"
        );
        let said = lan.attack(family, &code);
        outcomes(&said, &[("evil", "EPERM"), ("mine", "did 26")]);
        listener.wait_for_output("GOOD", SOON);
        assert!(!listener.output().contains("EVIL"), "{}", listener.output());
    }
}

/// An IPv6 socket that is to send IPv4.
#[test]
fn guarded_socket_hole_13() {
    let Some(lan) = Lan::open("hole-13", 1, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    let said = lan.attack(
        Family::V6,
        "for at in '239.0.3.232', '10.0.0.9', '239.0.3.233':\n\
         \x20   tries(at, lambda: u.sendto(mine('EVIL'), ('::ffff:' + at, 14789)))\n\
         tries('option', lambda: u.setsockopt(41, 26, 0))\n\
         tries('turn', lambda: u.setsockopt(41, 1, socket.AF_INET))\n\
         tries('mine', lambda: u.sendto(mine('GOOD'), to))\n",
    );
    outcomes(&said, &[("239.0.3.232", "E"), ("10.0.0.9", "E"), ("239.0.3.233", "E")]);
    outcomes(&said, &[("option", "EPERM"), ("turn", "EPERM"), ("mine", "did 26")]);
    assert!(wire.wait_for(b"GOOD", SOON) && !wire.contains(b"EVIL"));
}

/// The descriptor shows the interfaces of the namespace it was made in: one of its own has the network card alone.
#[test]
fn guarded_socket_hole_14() {
    const CODE: &str = r"
def interfaces(s):
    space = array.array('B', bytes(4096))
    asked = struct.pack('iP', 4096, space.buffer_info()[0])
    length = struct.unpack('iP', fcntl.ioctl(s, 0x8912, asked))[0]
    found = space.tobytes()[:length]
    return [found[at:at + 16].rstrip(b'\0').decode() for at in range(0, length, 40)]
for s in u, g: print('sees', ' '.join(sorted(set(interfaces(s)))), flush=True)
def request(number, text): return lambda: fcntl.ioctl(u, number, text)
tries('up', request(0x8914, struct.pack('16sh22x', b'eth0', 0)))
tries('address', request(0x8916, struct.pack('16sHH4s16x', b'eth0', 2, 0, bytes([10, 0, 0, 99]))))
tries('namespace', request(0x894c, 0))
tries('mine', lambda: u.sendto(mine('GOOD'), to))
";
    let lan = Lan::with("hole-14", 2, |host| match host {
        // The second host's card is the daemon's own; the first host's is in a namespace that the test has made.
        0 => format!("overlay: {{ device: under0, namespace: fief-{}-under }}\n", std::process::id()),
        _ => "overlay: { device: eth0 }\n".to_owned(),
    });
    let Some(lan) = lan else { return };
    let under = lan.lab.ns("under");
    lan.plug(&under, "under0", 21);
    let said = lan.attack(Family::V4, CODE);
    assert_eq!(said.matches("sees lo under0\n").count(), 2, "{said}");
    outcomes(&said, &[("up", "EPERM"), ("address", "EPERM"), ("namespace", "EPERM"), ("mine", "did 26")]);
    // Without one the host's own are seen, and nothing else can be had.
    lan.hosts[1].ip("addr add 192.0.2.1/32 dev lo\n");
    let said = lan.user(1, crate::lan::GROUP, Family::V4, CODE).run().ok().stdout;
    assert!(said.contains("sees eth0 lo\n"), "{said}");
    outcomes(&said, &[("up", "EPERM"), ("address", "EPERM"), ("namespace", "EPERM"), ("mine", "did 26")]);
}

/// This host's own addresses, and whoever is on the link.
#[test]
fn guarded_socket_hole_15() {
    let Some(lan) = Lan::open("hole-15", 2, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    for (family, addresses) in [
        (Family::V4, ["127.0.0.1", "10.0.0.1", "10.0.0.77", "10.1.0.1", "10.0.0.2"]),
        (Family::V6, ["::1", "fd00::1", "fd00::77", "fd01::1", "fd00::2"]),
    ] {
        let mut listener = lan.listener(0, family, &[]);
        let code = format!(
            "for at in {addresses:?}:\n\
             \x20   for port in 14789, 7777, own[1]:\n\
             \x20       tries(f'{{at}} {{port}}', lambda: u.sendto(mine('EVIL'), (at, port)))\n\
             v, h, _ = ask()\n\
             tries('another', lambda: v.sendto(mine('another'), to))\n\
             heard(g, 'another')\n\
             tries('to it', lambda: u.sendto(mine('GOOD'), v.getsockname()[:2]))\n\
             hears('it', v, 'GOOD')\n\
             tries('mine', lambda: u.sendto(mine('GOOD'), to))\n"
        );
        let said = lan.attack(family, &code);
        let tries =
            said.lines().filter(|line| addresses.iter().any(|at| line.starts_with(&format!("{at} "))));
        let tries: Vec<&str> = tries.collect();
        assert_eq!(tries.len(), 15, "{said}");
        assert!(tries.iter().all(|line| line.contains(": E")), "{said}");
        // Another member on the same host is reached by `lo`.
        outcomes(&said, &[("to it", "did 26"), ("mine", "did 26")]);
        assert!(said.contains("it: heard 080000000003e800 GOOD"), "{said}");
        eventually(SOON, || if wire.contains(b"GOOD") { Ok(()) } else { Err("nothing left".into()) });
        assert!(!wire.contains(b"EVIL") && !listener.output().contains("EVIL"));
        listener.kill();
        wire.clear();
    }
}
