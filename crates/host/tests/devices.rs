//! Devices and what belongs to them, against ip(8) and bridge(8).

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{all_ok, in_a_place, json, link, namespace, route_socket, run, try_run};
use fief_host::devices::{
    self, Bridge, Build, Fdb, FdbState, InterfaceAddress, Named, Neighbour, NewLink, Port, Settings, Veth,
    carry_out, index_of,
};
use fief_host::netlink::Socket;
use fief_host::tap::{self, Tap};
use fief_host::{Route, RouteKind};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn new(name: &str) -> NewLink {
    NewLink { name: name.into(), up: true, ..NewLink::default() }
}

fn bridge(name: &str) -> Build {
    Build::AddBridge(Bridge { link: new(name), ..Bridge::default() })
}

fn named(name: &str) -> Named {
    Named::Name(name.into())
}

fn set(name: &str, settings: Settings) -> Build {
    Build::Set { device: named(name), settings }
}

fn number(socket: &mut Socket, name: &str) -> u32 {
    index_of(socket, name).expect("asked").unwrap_or_else(|| panic!("no device {name}"))
}

#[test]
fn a_bridge_with_a_port_whose_other_end_is_elsewhere() {
    in_a_place(|place| {
        let (host, host_ns) = namespace(place, "host");
        let (guest, guest_ns) = namespace(place, "guest");
        let mut socket = route_socket(&host_ns);
        let bridge = Bridge {
            link: NewLink {
                index: Some(70),
                mac: Some(MAC),
                mtu: Some(1400),
                group: Some(9),
                alias: Some("a network".into()),
                ..new("n-web")
            },
            forward_delay: Some(0),
            ageing: Some(30_000),
            multicast_snooping: Some(false),
            ..Bridge::default()
        };
        let veth = Veth {
            link: NewLink {
                index: Some(71),
                master: Some(70),
                alias: Some("to a guest".into()),
                ..new("p-web")
            },
            peer: NewLink { mac: Some(PEER_MAC), index: Some(80), alias: Some("eth".into()), ..new("eth0") },
            peer_namespace: Some(Arc::new(guest_ns)),
        };
        all_ok(carry_out(&mut socket, &[Build::AddBridge(bridge), Build::AddVeth(veth)]));

        let shown = link(&host, "n-web");
        assert_eq!(
            (&shown["ifindex"], &shown["mtu"], &shown["group"]),
            (&70.into(), &1400.into(), &"9".into())
        );
        assert_eq!(
            (&shown["address"], &shown["ifalias"]),
            (&"02:00:00:00:00:01".into(), &"a network".into())
        );
        let queues =
            |device: &serde_json::Value| (device["num_tx_queues"].clone(), device["num_rx_queues"].clone());
        let (near, far) = (link(&host, "p-web"), link(&guest, "eth0"));
        assert_eq!([queues(&near), queues(&far)], [(1.into(), 1.into()), (1.into(), 1.into())]);
        let data = &shown["linkinfo"]["info_data"];
        assert_eq!((&data["stp_state"], &data["mcast_snooping"]), (&0.into(), &0.into()));
        assert_eq!((&data["forward_delay"], &data["ageing_time"]), (&0.into(), &30000.into()));
        let shown = link(&host, "p-web");
        assert_eq!((&shown["master"], &shown["ifalias"]), (&"n-web".into(), &"to a guest".into()));
        let shown = link(&guest, "eth0");
        assert_eq!((&shown["ifindex"], &shown["address"]), (&80.into(), &"02:00:00:00:00:02".into()));
        assert_eq!((&shown["ifalias"], &shown["operstate"]), (&"eth".into(), &"UP".into()));

        let devices = devices::list(&mut socket).expect("listed");
        let port = devices.iter().find(|device| device.name == "p-web").expect("listed");
        assert_eq!((port.master, port.peer, port.kind.as_deref()), (Some(70), Some(80), Some("veth")));
        assert!(port.up && port.carrier && port.peer_namespace.is_some());
        assert_eq!(port.port.and_then(|port| port.learning), Some(true));
        let bridge = devices.iter().find(|device| device.index == 70).expect("listed");
        assert_eq!((bridge.mac, bridge.mtu, bridge.group), (Some(MAC), 1400, 9));
        assert_eq!((bridge.kind.as_deref(), bridge.alias.as_deref()), (Some("bridge"), Some("a network")));
    });
}

#[test]
fn addresses_routes_and_neighbours_carry_packets() {
    in_a_place(|place| {
        let (host, host_ns) = namespace(place, "host");
        let (guest, guest_ns) = namespace(place, "guest");
        let guest_ns = Arc::new(guest_ns);
        let mut socket = route_socket(&host_ns);
        let link = NewLink { mac: Some(MAC), ..new("up0") };
        let peer = NewLink { mac: Some(PEER_MAC), ..new("eth0") };
        let veth = Veth { link, peer, peer_namespace: Some(guest_ns.clone()) };
        all_ok(carry_out(&mut socket, &[Build::AddVeth(veth)]));
        let device = number(&mut socket, "up0");
        let mut inside = route_socket(&guest_ns);
        let guest_device = number(&mut inside, "eth0");
        let address = |device, net: &str, noprefixroute| {
            Build::AddAddress(InterfaceAddress { device, net: net.parse().unwrap(), noprefixroute })
        };
        let route = Route {
            table: 254,
            prefix: "0.0.0.0/0".parse().unwrap(),
            metric: 0,
            kind: RouteKind::Unicast,
            device: Some(guest_device),
            via: Some("192.0.2.1".parse().unwrap()),
            source: None,
            on_link: true,
            mtu: None,
            detour: None,
        };
        let neighbour =
            |device, address: &str, mac| Neighbour { device, address: address.parse().unwrap(), mac };
        let to_host = neighbour(guest_device, "192.0.2.1", MAC);
        all_ok(carry_out(
            &mut inside,
            &[
                address(guest_device, "192.0.2.2/32", true),
                address(guest_device, "2001:db8::2/64", false),
                Build::SetRoute(route.clone()),
                Build::SetNeighbour(to_host),
                Build::SetNeighbour(neighbour(guest_device, "2001:db8::1", MAC)),
            ],
        ));
        assert!(try_run(&guest, "ping -c1 -W1 192.0.2.1").is_err(), "the host has no address yet");
        all_ok(carry_out(
            &mut socket,
            &[
                address(device, "192.0.2.1/24", false),
                address(device, "2001:db8::1/64", false),
                Build::SetNeighbour(neighbour(device, "192.0.2.2", PEER_MAC)),
            ],
        ));
        run(&guest, "ping -c1 -W2 192.0.2.1");
        run(&guest, "ping -c1 -W2 2001:db8::1");
        assert!(run(&guest, "ip route").starts_with("default via 192.0.2.1 dev eth0"));
        assert!(run(&host, "ip route").contains("192.0.2.0/24 dev up0"));
        let shown = json(&guest, "ip -j neigh show nud permanent");
        assert_eq!(shown.as_array().map(Vec::len), Some(2));
        assert!(devices::neighbours(&mut inside).expect("listed").contains(&to_host));
        let addresses = devices::addresses(&mut inside).expect("listed");
        assert!(addresses.iter().any(|a| a.ours && a.net.to_string() == "192.0.2.2/32"));

        let gone = InterfaceAddress { device, net: "192.0.2.1/24".parse().unwrap(), noprefixroute: false };
        all_ok(carry_out(&mut socket, &[Build::DeleteAddress(gone)]));
        all_ok(carry_out(&mut inside, &[Build::DeleteNeighbour(to_host), Build::DeleteRoute(route)]));
        assert!(!run(&host, "ip addr show dev up0").contains("192.0.2.1"));
        assert_eq!(json(&guest, "ip -j neigh show nud permanent").as_array().map(Vec::len), Some(1));
        assert!(!run(&guest, "ip route").contains("default"));
    });
}

#[test]
fn a_refused_one_names_its_object_and_stops_no_other() {
    in_a_place(|place| {
        let (host, host_ns) = namespace(place, "host");
        let mut socket = route_socket(&host_ns);
        all_ok(carry_out(&mut socket, &[bridge("taken")]));
        let before = link(&host, "taken");
        let link_with_alias = NewLink { alias: Some("not this one".into()), mtu: Some(1300), ..new("taken") };
        let mut builds = vec![
            Build::AddBridge(Bridge { link: link_with_alias, ..Bridge::default() }),
            Build::DeleteLink(named("absent")),
            set(
                "absent",
                Settings { master: Some(Some(named("taken"))), up: Some(true), ..Settings::default() },
            ),
            Build::SetPort { device: named("taken"), port: Port { locked: Some(true), ..Port::default() } },
            set("absent", Settings { name: Some("other".into()), ..Settings::default() }),
        ];
        builds.push(bridge("behind"));
        let answers = carry_out(&mut socket, &builds);
        let said: Vec<String> = answers
            .iter()
            .map(|answer| answer.as_ref().map_or_else(ToString::to_string, |()| String::new()))
            .collect();
        let begins = [
            "add bridge taken: File exists",
            "delete device absent: No such device",
            "set device absent up master taken: No such device",
            "set bridge port taken locked on: Operation not supported",
            "set device absent name other: No such device",
            "",
        ];
        assert_eq!(said.len(), begins.len());
        for (said, begin) in said.iter().zip(begins) {
            assert!(said.starts_with(begin) && said.is_empty() == begin.is_empty(), "{said}: not {begin}");
        }
        let after = link(&host, "taken");
        assert_eq!((&before["mtu"], &before["ifalias"]), (&after["mtu"], &after["ifalias"]));
        link(&host, "behind");
    });
}

#[test]
fn what_a_device_is_can_be_changed() {
    in_a_place(|place| {
        let (host, host_ns) = namespace(place, "host");
        let (guest, guest_ns) = namespace(place, "guest");
        let mut socket = route_socket(&host_ns);
        let veth = Veth { link: new("a0"), peer: new("a1"), ..Veth::default() };
        let everything = Settings {
            up: Some(false),
            mtu: Some(1280),
            master: Some(Some(named("br0"))),
            name: Some("b0".into()),
            alias: Some("renamed".into()),
            mac: Some(MAC),
            group: Some(12),
        };
        // One made and one renamed in the same go are known by what they are then.
        all_ok(carry_out(&mut socket, &[bridge("br0"), Build::AddVeth(veth), set("a0", everything)]));
        let shown = link(&host, "b0");
        assert_eq!((&shown["mtu"], &shown["master"]), (&1280.into(), &"br0".into()));
        assert_eq!((&shown["ifalias"], &shown["group"]), (&"renamed".into(), &"12".into()));
        assert_eq!(shown["address"], "02:00:00:00:00:01");
        assert!(!shown["flags"].to_string().contains("\"UP\""));
        let free = Settings {
            master: Some(None),
            alias: Some(String::new()),
            up: Some(true),
            ..Settings::default()
        };
        all_ok(carry_out(&mut socket, &[set("b0", free)]));
        let shown = link(&host, "b0");
        assert!(shown.get("master").is_none() && shown.get("ifalias").is_none(), "{shown}");
        assert!(shown["flags"].to_string().contains("\"UP\""));

        let there = Arc::new(guest_ns);
        all_ok(carry_out(&mut socket, &[Build::Move { device: named("a1"), namespace: there.clone() }]));
        assert!(try_run(&host, "ip link show dev a1").is_err());
        link(&guest, "a1");
        let back = Build::Move { device: named("a1"), namespace: Arc::new(host_ns) };
        all_ok(carry_out(&mut route_socket(&there), &[back]));
        link(&host, "a1");
        all_ok(carry_out(&mut socket, &[Build::DeleteLink(named("b0"))]));
        assert_eq!(index_of(&mut socket, "a1").expect("asked"), None);
    });
}

#[test]
fn ports_and_forwarding_entries() {
    in_a_place(|place| {
        let (host, host_ns) = namespace(place, "host");
        let mut socket = route_socket(&host_ns);
        let veth = Veth { link: new("p0"), peer: new("p1"), ..Veth::default() };
        let into_bridge = Settings { master: Some(Some(named("br0"))), ..Settings::default() };
        all_ok(carry_out(&mut socket, &[bridge("br0"), Build::AddVeth(veth), set("p0", into_bridge)]));
        let details = |name| json(&host, &format!("bridge -d -j link show dev {name}"))[0].clone();
        assert_eq!((&details("p0")["locked"], &details("p0")["learning"]), (&false.into(), &true.into()));
        let port = Port {
            locked: Some(true),
            isolated: Some(true),
            learning: Some(false),
            bpdu_guard: Some(true),
            hairpin: Some(true),
            flood: Some(false),
            multicast_flood: Some(false),
            broadcast_flood: Some(false),
            neigh_suppress: Some(true),
            root_block: Some(true),
        };
        all_ok(carry_out(&mut socket, &[Build::SetPort { device: named("p0"), port }]));
        let shown = details("p0");
        for on in ["locked", "isolated", "guard", "hairpin", "neigh_suppress", "root_block"] {
            assert_eq!(shown[on], true, "{on}");
        }
        for off in ["learning", "flood", "mcast_flood", "bcast_flood"] {
            assert_eq!(shown[off], false, "{off}");
        }
        let listed = devices::list(&mut socket).expect("listed");
        assert_eq!(listed.iter().find(|d| d.name == "p0").and_then(|d| d.port), Some(port));
        // What is left out stays.
        let unlock = Port { locked: Some(false), ..Port::default() };
        all_ok(carry_out(&mut socket, &[Build::SetPort { device: named("p0"), port: unlock }]));
        assert_eq!((&details("p0")["locked"], &details("p0")["isolated"]), (&false.into(), &true.into()));

        let device = number(&mut socket, "p0");
        let entry = |last, state| Fdb { device, mac: [2, 0, 0, 0, 9, last], state };
        let (fixed, local) = (entry(1, FdbState::Static), entry(2, FdbState::Local));
        let learned = entry(3, FdbState::Dynamic);
        all_ok(carry_out(&mut socket, &[fixed, local, learned].map(Build::SetFdb)));
        let shown = run(&host, "bridge fdb show dev p0");
        assert!(shown.contains("02:00:00:00:09:01 master br0 static"), "{shown}");
        assert!(shown.contains("02:00:00:00:09:02 master br0 permanent"), "{shown}");
        let known = devices::fdb(&mut socket).expect("listed");
        assert!([fixed, local, learned].iter().all(|entry| known.contains(entry)), "{known:?}");
        all_ok(carry_out(&mut socket, &[Build::DeleteFdb(fixed)]));
        let shown = run(&host, "bridge fdb show dev p0");
        assert!(!shown.contains("02:00:00:00:09:01") && shown.contains("02:00:00:00:09:02"), "{shown}");
    });
}

#[test]
fn a_group_goes_at_once_and_nobody_else() {
    in_a_place(|place| {
        let (_host, host_ns) = namespace(place, "host");
        let mut socket = route_socket(&host_ns);
        let grouped = |name: &str, group| {
            let link = NewLink { group: Some(group), ..new(name) };
            Build::AddBridge(Bridge { link, ..Bridge::default() })
        };
        all_ok(carry_out(
            &mut socket,
            &[grouped("one", 9), grouped("two", 9), grouped("other", 10), bridge("none")],
        ));
        all_ok(carry_out(&mut socket, &[Build::DeleteGroup(9)]));
        let names: Vec<String> =
            devices::list(&mut socket).expect("listed").into_iter().map(|device| device.name).collect();
        assert_eq!(names, ["lo", "other", "none"]);
        let again = carry_out(&mut socket, &[Build::DeleteGroup(9)]).remove(0);
        assert_eq!(again.expect_err("none is left").errno(), Some(libc::ENODEV));
    });
}

#[test]
fn a_device_may_have_no_address_of_its_own() {
    in_a_place(|place| {
        let (host, host_ns) = namespace(place, "host");
        let mut socket = route_socket(&host_ns);
        let down = |name: &str| NewLink { up: false, ..new(name) };
        let up = || Settings { up: Some(true), ..Settings::default() };
        let veth = Veth { link: down("quiet"), peer: down("usual"), ..Veth::default() };
        all_ok(carry_out(
            &mut socket,
            &[
                Build::AddVeth(veth),
                Build::NoAddressGeneration(named("quiet")),
                set("quiet", up()),
                set("usual", up()),
            ],
        ));
        fief_testkit::eventually(std::time::Duration::from_secs(5), || {
            match run(&host, "ip -6 addr show dev usual") {
                shown if shown.contains("fe80:") => Ok(()),
                shown => Err(shown),
            }
        });
        assert_eq!(run(&host, "ip -6 addr show dev quiet"), "");
    });
}

#[test]
fn taps_stay_if_they_shall() {
    in_a_place(|place| {
        if !Path::new("/dev/net/tun").exists() {
            return fief_testkit::skip("this kernel has no /dev/net/tun");
        }
        let (host, host_ns) = namespace(place, "host");
        let tap = |name: &str, persistent| Tap { name: name.into(), persistent, ..Tap::default() };
        let stays = Tap { multi_queue: true, owner: Some(61234), group: Some(61235), ..tap("stays", true) };
        let (stays, goes) = host_ns
            .inside(|| (tap::create(&stays).expect("made"), tap::create(&tap("goes", false)).expect("made")))
            .expect("entered");
        let details = link(&host, "stays")["linkinfo"].clone();
        assert_eq!((&details["info_kind"], &details["info_data"]["type"]), (&"tun".into(), &"tap".into()));
        assert_eq!(
            (&details["info_data"]["multi_queue"], &details["info_data"]["persist"]),
            (&true.into(), &true.into())
        );
        let shown = run(&host, "ip -d link show dev stays");
        assert!(shown.contains("user 61234") && shown.contains("group 61235"), "{shown}");
        link(&host, "goes");
        drop((stays, goes));
        link(&host, "stays");
        assert!(try_run(&host, "ip link show dev goes").is_err());
        let kinds = devices::list(&mut route_socket(&host_ns)).expect("listed");
        assert!(kinds.iter().any(|d| d.name == "stays" && d.kind.as_deref() == Some("tun")));

        let refused = |name: &str| host_ns.inside(|| tap::create(&tap(name, false)).err());
        for name in ["", "longer-than-fifteen"] {
            assert!(refused(name).expect("entered").is_some_and(|e| e.errno().is_none()), "{name}");
        }
        assert!(refused("lo").expect("entered").is_some_and(|e| e.errno() == Some(libc::EINVAL)));
    });
}

#[test]
fn a_thousand_devices_in_one_go() {
    in_a_place(|place| {
        let (_, host_ns) = namespace(place, "host");
        let mut socket = route_socket(&host_ns);
        let pairs =
            |n: usize| Veth { link: new(&format!("a{n}")), peer: new(&format!("b{n}")), ..Veth::default() };
        all_ok(carry_out(&mut socket, &(0..500).map(|n| Build::AddVeth(pairs(n))).collect::<Vec<_>>()));
        assert_eq!(devices::list(&mut socket).expect("listed").len(), 1001);
    });
}
