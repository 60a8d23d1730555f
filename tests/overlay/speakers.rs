//! The fast path with others who speak its language: Debian's vde_plug, the plug-in on the same host, a kernel's tunnel.

use crate::guest::{ALL, Guest};
use crate::lan::{Family, GROUP, Lan};
use crate::room::SOON;
use crate::vde::Vde;

#[test]
fn join_with_a_kernels_tunnel() {
    let Some(lan) = Lan::open("join-kernel", 1, "") else { return };
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let b = Guest::joined(&lan, 0, (41_001, GROUP), "10.9.0.2/24");
    lan.out.ip("link add vx0 type vxlan id 1000 group 239.0.3.232 dev eth0 dstport 14789\n\
        addr add 10.9.0.9/24 dev vx0\nlink set vx0 up\n");
    // Whoever begins.
    let from = |to: &str| lan.out.run(&["ping", "-c", "3", "-W", "2", "-i", "0.2", to]);
    from("10.9.0.1").ok();
    b.reaches("10.9.0.9", 56);
    for size in [1422, 1472, 9000] {
        a.reaches("10.9.0.9", size);
    }
}

#[test]
fn vxvde_fast_path_beside_plugs_of_all_kinds() {
    for family in Family::BOTH {
        let Some(lan) = Lan::open("join-vde", 2, "") else { return };
        let Some(vde) = Vde::unpack(&lan.lab) else { return };
        let (ours, stock) = match family {
            Family::V4 => ("vxvdex://", "vxvde:///grp=1000/if=eth0"),
            Family::V6 => ("vxvdex:///v6", "vxvde:///grp=1000/v6/if=eth0"),
        };
        let a = Guest::joined(&lan, 0, (41_000, GROUP), "192.168.5.1/24");
        // On the same host: the plug-in, and root's own; on another root's alone.
        let b = vde.member(&lan, 0, GROUP, ours, ("b", "192.168.5.2/24"));
        let c = vde.stock(&lan.hosts[0], stock, "192.168.5.3/24");
        let d = vde.stock(&lan.hosts[1], stock, "192.168.5.4/24");
        for to in ["192.168.5.2", "192.168.5.3", "192.168.5.4"] {
            for size in [56, 1472, 8972] {
                a.reaches(to, size);
            }
        }
        for member in [&b, &c, &d] {
            fief_testkit::eventually(SOON, || {
                if member.pings("192.168.5.1", 1472) { Ok(()) } else { Err(member.plug.output()) }
            });
        }
        // Another group's of the same host hears nothing of it, and has the same address.
        let x = Guest::joined(&lan, 0, (41_001, 1001), "192.168.5.1/24");
        assert!(!x.pings("192.168.5.4", 56), "{family:?}");
    }
}

/// A peer of vxvde that says what comes to its own port and what to the group's.
const PEER: &str = r"
import select
u = sock(); u.bind(('10.0.0.9', 5555))
u.setsockopt(0, 32, socket.inet_aton('10.0.0.9'))
g = sock(); g.bind(('239.0.3.232', 14789))
g.setsockopt(0, 35, socket.inet_aton('239.0.3.232') + socket.inet_aton('10.0.0.9'))
u.sendto(vni(1000, 'hello'), ('239.0.3.232', 14789))
print('said hello', flush=True)
while True:
    for s in select.select([u, g], [], [])[0]:
        data = s.recv(65536)
        text = data[22:]
        if data[20:22] != b'\x88\xb5': continue
        print('alone' if s is u else 'group', text.decode(), flush=True)
        if text == b'go': u.sendto(vni(1000, '')[:8], ('239.0.3.232', 14789)); print('said goodbye', flush=True)
";

#[test]
fn vxvde_fast_path_honours_a_goodbye() {
    let Some(lan) = Lan::open("join-bye", 1, "") else { return };
    let a = Guest::joined(&lan, 0, (41_000, GROUP), "10.9.0.1/24");
    let hears = a.listens();
    let mut peer = lan.outside_command(PEER).spawn();
    peer.wait_for_output("said hello\n", SOON);
    fief_testkit::eventually(SOON, || {
        if hears.output().contains("hello") { Ok(()) } else { Err("nothing".into()) }
    });
    // Its address, by `frame` of the peer.
    let mac = "020000000009";
    a.says(mac, "one");
    peer.wait_for_output("alone one\n", SOON);
    a.says(ALL, "all");
    peer.wait_for_output("group all\n", SOON);
    assert!(!peer.output().contains("group one"), "{}", peer.output());
    a.says(mac, "go");
    peer.wait_for_output("said goodbye\n", SOON);
    // The datagram takes a moment, and the clock of the programs has a tick of some milliseconds.
    fief_testkit::eventually(SOON, || {
        a.says(mac, "two");
        if peer.output().contains("group two\n") { Ok(()) } else { Err(peer.output()) }
    });
    // And it says one itself, from the port that it sent from, in both families, when the last has gone.
    let goodbye = b"\x08\0\0\0\0\x03\xe8\0";
    let wire = lan.wire_of(0, "eth0");
    let said = |port: [u8; 2], udp: usize| {
        wire.count(|frame| {
            frame.bytes.get(udp..udp + 2) == Some(&port) && frame.bytes.get(udp + 8..) == Some(goodbye)
        })
    };
    let b = Guest::joined(&lan, 0, (41_001, GROUP), "10.9.0.2/24");
    a.fief(&["leave"]).ok();
    b.says(ALL, "still here");
    peer.wait_for_output("group still here\n", SOON);
    assert_eq!(said(14788_u16.to_be_bytes(), 34), 0, "somebody is still there");
    b.fief(&["leave"]).ok();
    fief_testkit::eventually(SOON, || {
        let both = (said(14788_u16.to_be_bytes(), 34), said(14790_u16.to_be_bytes(), 54));
        if both.0 > 0 && both.1 > 0 { Ok(()) } else { Err(format!("{both:?} goodbyes")) }
    });
}
