//! What only some kernels have; `make test-vm` runs it where nothing is missing.

#[path = "vm/marks.rs"]
mod marks;
mod odd;
mod room;
#[path = "vm/segment.rs"]
mod segment;
#[path = "vm/switch.rs"]
mod switch;
#[path = "isolation/table/mod.rs"]
mod table;
#[path = "vm/truth.rs"]
mod truth;
#[path = "vm/vrf.rs"]
mod vrf;

use std::time::Duration;

use fief_testkit::{Daemon, DaemonOptions, Dial, Lab, Ns};

/// On the wire untagged, and in VLAN 20: the router's device there, the tenant's address, the router's.
const TENANTS: [(&str, &str, &str, &str); 2] =
    [("plain", "eth0", "192.0.2.11", "192.0.2.1"), ("tagged", "eth0.20", "198.51.100.11", "198.51.100.1")];
const CLIENT: &str = "10.0.0.1";

/// One device, one wire: a tenant on it untagged, with what is nobody's, and a tenant on its VLAN 20.
#[test]
fn vlan_and_untagged_frames_arrive_at_their_own_tenants() {
    let Some(lab) = Lab::new("vlan") else { return };
    let host = lab.ns("host");
    let wire = lab.wire("wire");
    wire.attach(&host, "eth0");
    if !add_vlan(&host) {
        let in_vm = std::env::var_os("FIEF_TEST_VM").is_some();
        assert!(!in_vm, "the virtual machine's kernel has 802.1q");
        return fief_testkit::skip("this kernel has no 802.1q devices; `make test-vm` runs it");
    }
    let clients = TENANTS.map(|(name, device, local, router)| {
        let (place, client) = (lab.ns(name), lab.ns(&format!("{name}-client")));
        wire.attach(&place, "eth0");
        assert!(device == "eth0" || add_vlan(&place));
        lab.veth((&place, "inner"), (&client, "eth0"));
        place.set_sysctl("net.ipv4.ip_forward", 1);
        // By the same way also to the other tenant's address, and to a network that is nobody's.
        place.ip(&format!("addr add {router}/24 dev {device}\naddr add 10.0.0.254/24 dev inner\n"));
        let others = TENANTS.map(|(_, _, other, _)| other).into_iter().filter(|other| *other != local);
        for to in others.chain(["203.0.113.0/24"]) {
            place.ip(&format!("route add {to} via {local}\n"));
        }
        client.ip(&format!("addr add {CLIENT}/24 dev eth0\nroute add default via 10.0.0.254\n"));
        client
    });
    let daemon = Daemon::start(&lab, &host, DaemonOptions::default());
    daemon.apply(&TENANTS.map(document).join("---\n")).ok();
    let peer = fief_testkit::peer();
    let mut server = host.spawn_in_cgroup(lab.cgroup(), &[peer.to_str().unwrap(), "serve", "0.0.0.0:8000"]);
    server.wait_for_output("ready", Duration::from_secs(10));

    // Both from one address and port, both open at once: each socket is its tenant's.
    let calls = [0, 1].map(|i| call(&clients[i], TENANTS[i].2).expect("its tenant's address answers"));
    let sockets = daemon.cli(&["sockets", "-o", "json"]).ok().json();
    for (name, _, local, _) in TENANTS {
        let own = |socket: &&serde_json::Value| socket["local"] == format!("{local}:8000");
        let of: Vec<_> = sockets.as_array().unwrap().iter().filter(own).map(|s| &s["tenant"]).collect();
        assert_eq!(of, [name], "{sockets}");
    }
    drop(calls);

    // The other's address is not answered, whichever way a frame is tagged.
    assert!(call(&clients[0], TENANTS[1].2).is_err(), "untagged frames reached the VLAN's tenant");
    assert!(call(&clients[1], TENANTS[0].2).is_err(), "tagged frames reached the untagged tenant");
    let refused = counted(&daemon, "dropDeviceIn");
    assert!(refused[0] > 0 && refused[1] > 0, "{refused:?}: not refused, but never arrived");

    // What is for nobody is the untagged tenant's if untagged, and nobody's if tagged. The connections above may still
    // have a packet to say, hence twenty.
    for (sender, expected) in [(0, [true, false]), (1, [false, false])] {
        let before = counted(&daemon, "rxPackets");
        for _ in 0..20 {
            let nobody = Dial::to("203.0.113.9:9".parse().unwrap()).timeout(Duration::from_millis(1));
            drop(clients[sender].enter(|| nobody.udp(b"for nobody")));
        }
        let after = counted(&daemon, "rxPackets");
        let more = [0, 1].map(|i| after[i] - before[i]);
        assert_eq!(more.map(|packets| packets >= 20), expected, "{more:?} sent by {}", TENANTS[sender].0);
    }
}

fn add_vlan(ns: &Ns) -> bool {
    ns.sh("ip link add link eth0 name eth0.20 type vlan id 20 && ip link set eth0.20 up").success()
}

fn document((name, device, local, router): (&str, &str, &str, &str)) -> String {
    let default = device == "eth0";
    format!(
        "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec:\n  interfaces:\n    \
         - {{ name: {device}, addresses: [{local}/24], default: {default} }}\n  routes:\n    \
         - {{ to: default, via: {router} }}\n"
    )
}

/// A connection that stays open.
fn call(client: &Ns, to: &str) -> std::io::Result<std::net::TcpStream> {
    let from = format!("{CLIENT}:40000").parse().unwrap();
    let dial = Dial::to(format!("{to}:8000").parse().unwrap()).bind(from).timeout(Duration::from_secs(2));
    client.enter(|| dial.connect())
}

/// What a counter says, in the order of [`TENANTS`].
fn counted(daemon: &Daemon, counter: &str) -> [u64; 2] {
    TENANTS.map(|(name, ..)| {
        let tenant = daemon.cli(&["get", "tenants", name, "-o", "json"]).ok().json();
        tenant["status"]["counters"][counter].as_u64().expect("a tenant has counters")
    })
}
