//! Local destinations: who may call whom, by connect(2) and by sendto(2), inside the cgroup and outside.

use fief_testkit::{Dial, Lab, Street};

use crate::room::{MODES, MOVE, PORT, Room, answered, echo, host_address, loopback};
use crate::table::cells::*;

#[test]
fn a_tenant_reaches_its_own_addresses_in_both_modes() {
    for mode in MODES {
        let Some(room) = Room::open("cell-own", 2, mode) else { return };
        own_addresses(&room);
        assert_eq!(room.count(0, "dropCrossing"), 0);
    }
}

#[test]
fn connecting_to_another_tenant_the_host_or_loopback_is_eacces() {
    let Some(room) = Room::open("cell-connect", 2, "") else { return };
    connecting_elsewhere(&room);
}

#[test]
fn sending_to_another_tenant_the_host_or_loopback_is_eacces() {
    let Some(room) = Room::open("cell-sendto", 2, "") else { return };
    sending_elsewhere(&room);
}

#[test]
fn a_process_outside_the_cgroup_is_dropped_on_lo_and_counted() {
    let Some(room) = Room::open("cell-lo", 2, "") else { return };
    unseen(&room);
}

#[test]
fn the_host_does_not_reach_a_tenants_address_and_reaches_its_own() {
    for mode in MODES {
        let Some(room) = Room::open("cell-host", 2, mode) else { return };
        host_to_tenant(&room);
    }
}

#[test]
fn host_access_opens_the_host_and_loopback_and_no_other_tenant() {
    for mode in MODES {
        let documents = |_: &Lab, street: &Street| {
            street.yaml_with(0, "  hostAccess: true\n") + "---\n" + &street.yaml(1)
        };
        let Some(room) = Room::with("cell-access", 2, mode, documents) else { return };
        host_access(&room, mode);
    }
}

#[test]
fn with_local_moved_another_tenants_address_is_a_remote_one() {
    let Some(room) = Room::with("cell-move", 2, MOVE, |_, street| {
        // Behind router 0 lives somebody with the very addresses that tenant 1 has on this host.
        let (four, six) = (street.local4(1), street.local6(1));
        street.router(0).ip(&format!("addr add {four}/32 dev lo\naddr add {six}/128 dev lo nodad\n"));
        let routes = format!(
            "    - {{ to: {four}/32, via: {} }}\n    - {{ to: \"{six}/128\", via: \"{}\" }}\n",
            street.router4(0),
            street.router6(0)
        );
        street.yaml_with(0, &routes) + "---\n" + &street.yaml(1)
    }) else {
        return;
    };
    let server = room.server();
    let elsewhere = room.street.router(0).enter(|| echo(&format!("[::]:{PORT}")));
    let mark = room.mark(0);
    for v6 in [false, true] {
        let there = room.local(1, v6);
        for see in [true, false] {
            let call = || answered(&format!("remote {there}"), &Dial::to(there).mark(mark));
            if see { room.inside(room.host(), call) } else { room.host().enter(call) }
        }
        // Loopback is nobody's but the host's in this mode too.
        assert_eq!(room.inside(room.host(), || connects(loopback(v6), mark)), "EACCES");
        assert_eq!(room.inside(room.host(), || sends(loopback(v6), mark, "crossing")), "EACCES");
        // The host's address is on the wire for this tenant, where nobody has it.
        let host = room.inside(room.host(), || connects(host_address(v6), mark));
        assert!(host == "silence" || host == "EHOSTUNREACH", "{host}");
    }
    assert_eq!(elsewhere.heard().len(), 4, "{:?}", elsewhere.heard());
    assert_eq!(server.heard(), Vec::<String>::new());
}
