//! Segments with whoever speaks vxvde: Debian's vde_plug and vdens.

use std::time::Duration;

use fief_testkit::{Capture, eventually};
use nix::sys::signal::Signal;

use crate::lan::{Family, GROUP, Lan, OTHER, PORT};
use crate::peers::{dnsmasq, peer};
use crate::room::{NEVER, SOON, wait};
use crate::vde::{Member, Vde};

/// Both kinds of plugs of a family.
fn urls(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("vxvdex://", "vxvde:///grp=1000/if=eth0"),
        Family::V6 => ("vxvdex:///v6", "vxvde:///grp=1000/v6/if=eth0"),
    }
}

const A: &str = "192.168.5.1/24";
const B: &str = "192.168.5.2/24";

#[track_caller]
fn reaches(from: &Member, to: &str, size: usize) {
    eventually(SOON, || {
        let answered = from.pings(to, size);
        if answered { Ok(()) } else { Err(format!("{to} does not answer; {}", from.plug.output())) }
    });
}

#[test]
fn vxvde_frames_go_both_ways() {
    for family in Family::BOTH {
        let Some(lan) = Lan::open("vxvde", 2, "") else { return };
        let Some(vde) = Vde::unpack(&lan.lab) else { return };
        let (ours, stock) = urls(family);
        let a = vde.member(&lan, 0, GROUP, ours, ("a", A));
        let b = vde.stock(&lan.hosts[1], stock, B);
        // Frames that fit, one that makes a datagram longer than the network's 1500, and one of 9000 bytes.
        for size in [56, 1472, 8972] {
            reaches(&a, "192.168.5.2", size);
            reaches(&b, "192.168.5.1", size);
        }
        // IPv6 inside too: neighbours are found by multicast.
        a.ns.ip("addr add fd05::1/64 dev eth0 nodad\n");
        b.ns.ip("addr add fd05::2/64 dev tap0 nodad\n");
        reaches(&a, "fd05::2", 56);
        // What has an address goes to its peer alone.
        let group = lan.wire_of(0, "eth0");
        assert!(a.says("192.168.5.2", "KNOWN!!!"), "{}", a.plug.output());
        assert!(group.wait_for(b"KNOWN!!!", SOON));
        assert_eq!(to_the_group(&group, family, b"KNOWN!!!"), 0, "a known address was asked of everybody");
    }
}

#[test]
fn vxvde_two_of_ours_meet_on_two_hosts_and_on_one() {
    for family in Family::BOTH {
        let Some(lan) = Lan::open("vxvde-ours", 2, "") else { return };
        let Some(vde) = Vde::unpack(&lan.lab) else { return };
        let (ours, stock) = urls(family);
        let a = vde.member(&lan, 0, GROUP, ours, ("a", A));
        let b = vde.member(&lan, 1, GROUP, ours, ("b", B));
        // On the first host: another of the group's, and root's own vde_plug.
        let c = vde.member(&lan, 0, GROUP, ours, ("c", "192.168.5.3/24"));
        let d = vde.stock(&lan.hosts[0], stock, "192.168.5.4/24");
        for from in [&a, &b, &c, &d] {
            for to in ["192.168.5.1", "192.168.5.2", "192.168.5.3", "192.168.5.4"] {
                reaches(from, to, 1472);
            }
        }
    }
}

/// A server of the group's on one host gives addresses to members on two others; who is of another group gets none.
#[test]
fn vxvde_three_hosts_and_dhcp() {
    let Some(lan) = Lan::open("vxvde-dhcp", 3, "") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    let range =
        ["--port=0", "--interface=eth0", "--bind-interfaces", "--dhcp-authoritative", "--leasefile-ro"];
    let argv = dnsmasq(&[&range[..], &["--dhcp-range=192.168.5.50,192.168.5.59,1h"]].concat());
    let (Some(argv), Some(busybox)) = (argv, peer("busybox")) else { return };
    let (ours, stock) = urls(Family::V4);
    let a = vde.member(&lan, 0, GROUP, ours, ("a", A));
    let mut server = a.ns.spawn(&argv);
    server.wait_for_output("DHCP, IP range", SOON);
    let b = vde.stock(&lan.hosts[1], stock, "192.168.5.2/32");
    let c = vde.member(&lan, 2, GROUP, ours, ("c", "192.168.5.3/32"));
    let other = vde.member(&lan, 2, OTHER, ours, ("other", "192.168.5.4/32"));
    let asks = |member: &Member, device: &str| {
        let busybox = busybox.display().to_string();
        let argv =
            [&busybox, "udhcpc", "-i", device, "-f", "-n", "-q", "-t", "5", "-T", "1", "-s", "/bin/true"];
        let said = member.ns.run(&argv);
        format!("{}{}", said.stdout, said.stderr)
    };
    for (member, device) in [(&b, "tap0"), (&c, "eth0")] {
        let said = asks(member, device);
        assert!(said.contains("lease of 192.168.5.5"), "{said}{}", server.output());
    }
    let said = asks(&other, "eth0");
    assert!(!said.contains("lease of"), "{said}");
}

#[test]
fn vxvde_a_goodbye_is_said_and_understood() {
    for family in Family::BOTH {
        let Some(lan) = Lan::open("vxvde-bye", 2, "") else { return };
        let Some(vde) = Vde::unpack(&lan.lab) else { return };
        let (ours, stock) = urls(family);
        let mut a = vde.member(&lan, 0, GROUP, ours, ("a", A));
        let mut b = vde.stock(&lan.hosts[1], stock, B);
        reaches(&a, "192.168.5.2", 56);
        let wire = lan.wire_of(0, "eth0");
        b.plug.signal(Signal::SIGTERM);
        b.plug.wait(SOON);
        eventually(SOON, || if goodbyes(&wire) > 0 { Ok(()) } else { Err("Debian's says none".into()) });
        // Whoever was there is now asked for by all: his address is still in a's table of neighbours.
        wire.clear();
        assert!(!a.says("192.168.5.2", "GONE!!!!"));
        assert!(wire.wait_for(b"GONE!!!!", SOON));
        assert!(to_the_group(&wire, family, b"GONE!!!!") > 0, "who has gone was still sent to");
        wire.clear();
        a.plug.signal(Signal::SIGTERM);
        a.plug.wait(SOON);
        eventually(SOON, || if goodbyes(&wire) > 0 { Ok(()) } else { Err("ours says none".into()) });
    }
}

#[test]
fn vxvde_an_address_that_was_silent_is_asked_of_all() {
    for family in Family::BOTH {
        let Some(lan) = Lan::open("vxvde-expire", 2, "") else { return };
        let Some(vde) = Vde::unpack(&lan.lab) else { return };
        let a = vde.member(
            &lan,
            0,
            GROUP,
            &format!("{}/expiretime=2", if family == Family::V4 { "vxvdex://" } else { "vxvdex:///v6" }),
            ("a", A),
        );
        let b = vde.stock(&lan.hosts[1], urls(family).1, B);
        reaches(&a, "192.168.5.2", 56);
        let wire = lan.wire_of(0, "eth0");
        assert!(a.says("192.168.5.2", "FRESH!!!"));
        assert!(wire.wait_for(b"FRESH!!!", SOON));
        assert_eq!(to_the_group(&wire, family, b"FRESH!!!"), 0);
        // Nothing of b's on the wire, by which a would hear of him again.
        b.ns.ip("link set tap0 down\n");
        wait(Duration::from_secs(4));
        a.says("192.168.5.2", "STALE!!!");
        assert!(wire.wait_for(b"STALE!!!", SOON));
        assert!(to_the_group(&wire, family, b"STALE!!!") > 0, "what is older than two seconds was believed");
    }
}

#[test]
fn vxvde_nobody_hears_himself() {
    for family in Family::BOTH {
        let Some(lan) = Lan::open("vxvde-echo", 1, "") else { return };
        let Some(vde) = Vde::unpack(&lan.lab) else { return };
        let a = vde.member(&lan, 0, GROUP, urls(family).0, ("a", A));
        let (inside, wire) = (Capture::on(&a.ns, "eth0"), lan.wire_of(0, "eth0"));
        a.ns.sh("ping -c 2 -i 0.2 -W 1 -b 192.168.5.255 -p 45434f48").fails();
        a.pings("192.168.5.99", 56);
        assert!(wire.wait_for(&[8, 0, 0, 0, 0, 3, 0xe8, 0], SOON), "nothing left");
        wait(NEVER);
        assert_eq!(inside.count(|frame| !frame.outgoing), 0, "it came back");
    }
}

#[test]
fn vxvde_two_groups_on_one_host_never_meet() {
    let Some(lan) = Lan::open("vxvde-apart", 2, "") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    let (ours, stock) = urls(Family::V4);
    // The same addresses in both.
    let a = vde.member(&lan, 0, GROUP, ours, ("a", A));
    let other = vde.member(&lan, 0, OTHER, ours, ("other", A));
    let b = vde.stock(&lan.hosts[1], stock, B);
    let far = vde.member(&lan, 1, OTHER, ours, ("far", "192.168.5.3/24"));
    let ears = [Capture::on(&other.ns, "eth0"), Capture::on(&far.ns, "eth0")];
    reaches(&a, "192.168.5.2", 56);
    reaches(&other, "192.168.5.3", 56);
    a.ns.sh("ping -c 1 -W 1 -p 5345435245542121 192.168.5.2").ok();
    a.ns.sh("ping -c 1 -W 1 -p 5345435245542121 192.168.5.255 -b").fails();
    assert!(!a.pings("192.168.5.3", 56) && !other.pings("192.168.5.2", 56));
    wait(NEVER);
    assert!(ears.iter().all(|ear| !ear.contains(b"SECRET!!")), "another group's frame came");
    drop(b);
}

/// One's own namespace, of one's own making: no privilege, no root.
#[test]
fn vxvde_a_user_joins_with_vdens() {
    let Some(lan) = Lan::open("vxvde-vdens", 2, "") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    let b = vde.stock(&lan.hosts[1], urls(Family::V4).1, B);
    let script = "ip link set vde0 up && ip addr add 192.168.5.1/24 dev vde0 && \
        for i in 1 2 3 4 5; do ping -c 1 -W 2 192.168.5.2 && echo there && exit 0; done; exit 1";
    let command = vde.program(&lan.hosts[0], &["vdens", "vxvdex://", "sh", "-c", script]);
    let mut vdens = command.env("FIEF_SOCKETS", lan.sockets(0)).user(GROUP + 40_000, GROUP).spawn();
    // Its end is not waited for: Debian's vdens now and then sleeps through that of its shell (ppoll(2) without a mask).
    vdens.wait_for_output("there", Duration::from_secs(30));
    drop(vdens);
    drop(b);
}

#[test]
fn vxvde_qemu_is_on_the_segment() {
    let Some(lan) = Lan::open("vxvde-qemu", 2, "") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    let Some(a) = vde.qemu(&lan, 0, GROUP, ("a", A)) else { return };
    let b = vde.stock(&lan.hosts[1], urls(Family::V4).1, B);
    for size in [56, 1472] {
        reaches(&a, "192.168.5.2", size);
        reaches(&b, "192.168.5.1", size);
    }
}

#[test]
fn vxvde_what_is_not_the_users_to_choose_is_refused_in_words() {
    let Some(lan) = Lan::open("vxvde-words", 1, "") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    let ns = lan.lab.ns("user");
    let plug = |group: u32, url: &str| {
        let command = vde.program(&ns, &["vde_plug", url, "null://"]).env("FIEF_SOCKETS", lan.sockets(0));
        command.user(41_000, group).run().fails().stderr
    };
    for (url, says) in [
        ("vxvdex:///vni=7", "`vni` is not the user's to choose"),
        ("vxvdex:///port=4789", "`port` is not"),
        ("vxvdex:///ttl=2", "`ttl` is not"),
        ("vxvdex:///if=eth0", "`if` is not"),
        ("vxvdex:///bind=10.0.0.1", "`bind` is not"),
        ("vxvdex:///grp=1001", "the group is not yours"),
        ("vxvdex:///grp=no-such-group", "there is no group `no-such-group`"),
        ("vxvdex:///colour=red", "there is no option `colour`"),
        ("vxvdex://grp=1000", "vxvdex:///grp=1000"),
    ] {
        let said = plug(GROUP, url);
        assert!(said.contains(says), "{url}: {said}");
    }
    assert!(plug(999, "vxvdex://").contains("below minGid"));
    assert!(plug(1 << 24, "vxvdex://").contains("above 8388607"));
}

/// Datagrams to the multicast group with these bytes in them.
fn to_the_group(wire: &Capture, family: Family, with: &[u8]) -> usize {
    let to: Vec<u8> = match family {
        Family::V4 => vec![239, 0, 3, 232],
        Family::V6 => vec![0xff, 5, 0x56, 0xde, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xe8],
    };
    wire.count(|frame| frame.contains(&to) && frame.contains(with))
}

/// Headers without a frame: UDP of 16 bytes to the group's port.
fn goodbyes(wire: &Capture) -> usize {
    let [high, low] = PORT.to_be_bytes();
    wire.count(|frame| frame.contains(&[high, low, 0, 16]) && frame.contains(&[8, 0, 0, 0, 0, 3, 0xe8, 0]))
}
