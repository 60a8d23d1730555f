//! The attacks on a guarded socket by many datagrams in one packet: what is sent so (UDP_SEGMENT), what is heard so (UDP_GRO).

use crate::lan::{Family, Lan, outcomes};
use crate::room::SOON;

/// Who is not ours, in both families.
const OUT: [(Family, &str, &str); 2] =
    [(Family::V4, "10.0.0.9", "10.0.0.1"), (Family::V6, "fd00::9", "fd00::1")];

/// Several datagrams in one delivery, for a socket that has them so and for one that has not.
#[test]
fn guarded_socket_hole_06() {
    let Some(lan) = Lan::open("hole-06", 1, "") else { return };
    for (family, _, host) in OUT {
        for gro in [1, 0] {
            let code = format!(
                "tries('gro', lambda: u.setsockopt(socket.IPPROTO_UDP, 104, {gro}))\n\
                 print('ready', flush=True)\nhears('u', u)\n"
            );
            let (mut user, port) = lan.victim(family, &code);
            lan.outside(&format!(
                "s = sock({})\n\
                 pad = lambda b: b.ljust(30, b'.')\n\
                 s.setsockopt(socket.IPPROTO_UDP, 103, 30)\n\
                 to = ('{host}', {port})\n\
                 good, evil = pad(vni(1000, 'GOOD')), pad(vni(1001, 'EVIL'))\n\
                 for several in good + evil + good, evil + good, good + good + evil, good + good + good[:7]: s.sendto(several, to)\n\
                 s.sendto(good + good + vni(1000, 'GOOD')[:26], to)\n\
                 s.sendto(pad(vni(1000, 'LAST')), to)\n",
                family.python()
            ));
            user.wait_for_output("u: that was all\n", SOON);
            let said = user.output();
            outcomes(&said, &[("gro", "did None")]);
            assert!(!said.contains("EVIL"), "{said}");
            let (deliveries, frames) =
                (said.matches("u: heard 080000000003e800 GOOD").count(), said.matches("GOOD").count());
            // Without it what the others had with a foreign one comes as well, each datagram for itself.
            let wanted = if gro == 1 { (1, 3) } else { (10, 10) };
            assert_eq!((deliveries, frames), wanted, "{gro}: {said}");
        }
    }
}

/// What the card is to cut up into datagrams of 30 bytes, one of which is a foreign one.
#[test]
fn guarded_socket_hole_07() {
    let Some(lan) = Lan::open("hole-07", 1, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    for (family, out, host) in OUT {
        let code = r"
pad = lambda b: b.ljust(30, b'.')
cut = [(socket.IPPROTO_UDP, 103, struct.pack('=H', 30))]
several = lambda at, *parts: lambda: u.sendmsg([b''.join(parts)], cut, 0, at)
evil, fine, good, peer = pad(theirs('EVIL')), pad(mine('EVIL')), pad(mine('GOOD')), ('OUT', 5555)
tries('option', lambda: u.setsockopt(socket.IPPROTO_UDP, 103, 30))
tries('nobody', several(peer, fine, fine))
print('ready', flush=True)
heard(g, 'hello')
tries('first', several(peer, evil, fine))
tries('second', several(peer, fine, evil))
tries('last', several(peer, *[fine] * 40, evil))
tries('tail', several(peer, fine, fine, header[:7]))
tries('shifted', lambda: u.sendmsg([fine * 2], [(socket.IPPROTO_UDP, 103, struct.pack('=H', 29))], 0, peer))
tries('to all', several(to, fine, fine))
tries('too many', lambda: u.sendmsg([mine('EVIL')[:8] * 200], [(socket.IPPROTO_UDP, 103, struct.pack('=H', 8))], 0, peer))
v, h, _ = ask()
tries('another', lambda: v.sendto(mine('another'), to))
heard(g, 'another')
tries('by lo', several(v.getsockname()[:2], fine, fine))
tries('mine', several(peer, *[good] * 40))
tries('one', lambda: u.sendto(pad(mine('LAST')), peer))
print('done', flush=True)
";
        let (mut user, _) = lan.victim(family, &code.replace("OUT", out));
        let said = lan.outside(&format!(
            "s = sock({0}); s.bind(('{out}', 5555)); s.settimeout(20)\n\
             s.sendto(vni(1000, 'hello'), ('{1}', 14789))\n\
             count = 0\n\
             while True:\n\
             \x20   data, at = s.recvfrom(65536)\n\
             \x20   if b'LAST' in data: break\n\
             \x20   count += len(data) == 30 and b'GOOD' in data and at[0] == '{host}'\n\
             print('came', count)\n",
            family.python(),
            family.multicast(),
        ));
        user.wait_for_output("done\n", SOON);
        let tried = user.output();
        let refused = ["option", "nobody", "first", "second", "last", "tail", "shifted", "to all", "by lo"];
        outcomes(&tried, &refused.map(|what| (what, "EPERM")));
        outcomes(&tried, &[("too many", "E"), ("mine", "did 1200"), ("one", "did 30")]);
        assert!(said.stdout.contains("came 40\n"), "{said}");
        assert!(wire.contains(b"GOOD") && !wire.contains(b"EVIL"), "it left");
        wire.clear();
    }
}

/// Behind the look the header is changed, in a page that the kernel has no copy of: whoever hears it hears what was looked at.
#[test]
fn guarded_socket_hole_10_in_many() {
    let Some(lan) = Lan::open("hole-10-many", 1, "") else { return };
    for (family, out, _) in OUT {
        let code = r"
pad = lambda b: b.ljust(30, b'.')
cut = [(socket.IPPROTO_UDP, 103, struct.pack('=H', 30))]
print('ready', flush=True)
heard(g, 'hello')
file = os.memfd_create('page')
os.write(file, pad(mine('GOOD')))
into, out = os.pipe()
os.splice(file, out, 30, offset_src=0)
u.sendmsg([pad(mine('GOOD'))], cut, socket.MSG_MORE, ('OUT', 5555))
tries('splice', lambda: os.splice(into, u.fileno(), 30))
os.pwrite(file, pad(theirs('EVIL')), 0)
print('done', flush=True)
";
        let (mut user, _) = lan.victim(family, &code.replace("OUT", out));
        // It reads late.
        let said = lan.outside(&format!(
            "import select\n\
             s = sock({0}); s.bind(('{out}', 5555))\n\
             s.sendto(vni(1000, 'hello'), ('{1}', 14789))\n\
             select.select([s], [], [], 20)\n\
             time.sleep(1)\n\
             s.setblocking(False)\n\
             for _ in range(2): print(s.recv(100).hex())\n",
            family.python(),
            family.multicast(),
        ));
        user.wait_for_output("done\n", SOON);
        outcomes(&user.output(), &[("splice", "did 30")]);
        let heard: Vec<&str> = said.stdout.lines().collect();
        assert_eq!(heard.len(), 2, "{said}");
        assert!(
            heard.iter().all(|line| line.starts_with("080000000003e800") && line.contains("474f4f44")),
            "{said}"
        );
    }
}
