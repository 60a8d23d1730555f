//! Several networks of one group.

use crate::guest::Guest;
use crate::lan::{Family, GROUP, Lan, outcomes};
use crate::room::{SOON, wait};
use crate::vde::Vde;

/// The group's second network, as a number on the wire.
const SECOND: u32 = 0x10_03e8;

#[test]
fn join_several_networks_of_a_group() {
    let Some(lan) = Lan::open("nets", 2, ", networksPerGroup: 4") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    // The same addresses on both.
    let guests: Vec<[Guest; 2]> = ["0", "1"]
        .iter()
        .enumerate()
        .map(|(network, number)| {
            [0, 1].map(|host| {
                let guest = Guest::new(&lan, host, (41_000 + 10 * network as u32 + host as u32, GROUP));
                guest.join(&["--network", number]).ok();
                let address = format!("10.9.0.{}/24", host + 1);
                guest.run(&["ip", "addr", "add", &address, "dev", "eth0", "nodad"]).ok();
                guest
            })
        })
        .collect();
    // Debian's, which knows numbers only, and the plug-in; each alone with its address on its network.
    let first = vde.stock(&lan.hosts[1], "vxvde:///grp=1000/if=eth0", "10.9.0.3/24");
    let second = vde.member(&lan, 0, GROUP, "vxvdex:///net=1", ("second", "10.9.0.4/24"));
    let stock = {
        let ns = lan.lab.ns("stock");
        lan.plug(&ns, "eth0", 20);
        vde.stock(&ns, &format!("vxvde:///grp={SECOND}/if=eth0"), "10.9.0.5/24")
    };
    for [a, _] in &guests {
        a.reaches("10.9.0.2", 56);
    }
    guests[0][0].reaches("10.9.0.3", 56);
    guests[1][0].reaches("10.9.0.4", 56);
    guests[1][1].reaches("10.9.0.5", 56);
    fief_testkit::eventually(SOON, || {
        if second.pings("10.9.0.5", 56) { Ok(()) } else { Err(second.plug.output()) }
    });
    for (from, to) in [(0, "10.9.0.4"), (0, "10.9.0.5"), (1, "10.9.0.3")] {
        assert!(!guests[from][0].pings(to, 56), "network {from} reaches {to} of the other");
    }
    let all = lan.daemons[0].cli(&["-o", "json", "get", "overlays"]).ok().json();
    let of = |field: &str| -> Vec<u64> {
        all.as_array().expect("a list").iter().filter_map(|it| it[field].as_u64()).collect()
    };
    assert_eq!(
        (of("group"), of("network"), of("vni")),
        (vec![1000, 1000], vec![0, 1], vec![1000, SECOND.into()])
    );
    // There are four, and nobody's group has the number of one of them.
    let other = Guest::new(&lan, 0, (41_050, GROUP));
    let said = other.join(&["--network", "4"]).fails();
    assert!(said.stderr.contains("there is no network 4"), "{said}");
    let above = Guest::new(&lan, 0, (41_051, SECOND));
    let said = above.join(&[]).fails();
    assert!(said.stderr.contains("above 1048575"), "{said}");
    drop((first, stock));
}

/// Where a group has one network it is that group's: numbers of others' are theirs.
#[test]
fn join_one_network_where_there_is_one() {
    let Some(lan) = Lan::open("net", 1, "") else { return };
    let own = Guest::new(&lan, 0, (41_000, GROUP));
    let said = own.join(&["--network", "1"]).fails();
    assert!(said.stderr.contains("a group has 1 here"), "{said}");
    own.join(&["--network", "0"]).ok();
    Guest::new(&lan, 0, (41_001, SECOND)).join(&[]).ok();
}

/// A socket of one network is none of the other's, and the same person may have both.
#[test]
fn guarded_socket_of_one_network_is_not_on_another() {
    let Some(lan) = Lan::open("nets-guard", 1, ", networksPerGroup: 2") else { return };
    let wire = lan.wire_of(0, "eth0");
    for (family, second) in [(Family::V4, "239.16.3.232"), (Family::V6, "ff05:56de::10:3e8")] {
        let code = r"
v, h, other = ask(network=1)
there = h.getsockname()
print('second', other.hex(), there[0] == 'SECOND', flush=True)
tries('foreign header', lambda: u.sendto(other + frame('EVIL'), to))
tries('foreign group', lambda: u.sendto(mine('EVIL'), there))
tries('both', lambda: u.sendto(other + frame('EVIL'), there))
tries('back', lambda: v.sendto(mine('EVIL'), to))
tries('third', lambda: ask(network=2))
tries('large', lambda: ask(network=256))
tries('first', lambda: u.sendto(mine('GOOD'), to))
tries('its own', lambda: v.sendto(other + frame('ALSO'), there))
heard(h, 'ALSO')
tries('answer', lambda: u.sendto(mine('EVIL'), v.getsockname()))
";
        let said = lan.attack(family, &code.replace("SECOND", second));
        assert!(said.contains("second 080000001003e800 True\n"), "{said}");
        outcomes(
            &said,
            &["foreign header", "foreign group", "both", "back", "answer"].map(|what| (what, "EPERM")),
        );
        outcomes(
            &said,
            &[("third", "ENXIO"), ("large", "ENXIO"), ("first", "did 26"), ("its own", "did 26")],
        );
        assert!(wire.wait_for(b"GOOD", SOON) && wire.wait_for(b"ALSO", SOON));
        wait(crate::room::NEVER);
        assert!(!wire.contains(b"EVIL"));
        wire.clear();
    }
}
