//! Rules that real packets pass, between namespaces:
//!
//!     client-a 10.0.0.2 ── ca ┐                ┌ up ── 192.0.2.2 world
//!     client-b 10.0.0.2 ── cb ┴─ router ───────┘
//!
//! Both clients have the same address: what tells them apart is the mark by device, and the zone by mark.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{all_ok, filter_socket, in_a_place, namespace, route_socket, run};
use fief_host::devices::{Build, InterfaceAddress, NewLink, Veth, carry_out, index_of};
use fief_host::namespaces::Namespace;
use fief_host::nft::idiom;
use fief_host::nft::{
    Batch, ChainKind, Direction, Element, Expr, Family, Field, Hook, HookPoint, Key, Set, Type, Value,
    Verdict,
};
use fief_testkit::eventually;

const PATIENCE: Duration = Duration::from_secs(3);

struct Street {
    router: Namespace,
    world: Arc<Namespace>,
    client: Arc<Namespace>,
}

/// A router between a client and the world, each by a veth; the world has no route to the client.
fn street(place: &Path) -> Street {
    let (_, router) = namespace(place, "router");
    let (world_path, world) = namespace(place, "world");
    let (client_path, client) = namespace(place, "client");
    let (world, client) = (Arc::new(world), Arc::new(client));
    router.set_sysctls(&[("net.ipv4.ip_forward", "1")]).expect("set");
    attach(&router, &world, ("up", "192.0.2.1/24"), "192.0.2.2/24");
    attach(&router, &client, ("ca", "10.0.0.1/24"), "10.0.0.2/24");
    run(&client_path, "ip route add default via 10.0.0.1");
    run(&world_path, "ip addr add 192.0.2.3/24 dev eth0");
    Street { router, world, client }
}

fn attach(router: &Namespace, other: &Arc<Namespace>, (device, ours): (&str, &str), theirs: &str) {
    let link = |name: &str| NewLink { name: name.into(), up: true, ..NewLink::default() };
    let peer_namespace = Some(other.clone());
    let veth = Veth { link: link(device), peer: link("eth0"), peer_namespace };
    all_ok(carry_out(&mut route_socket(router), &[Build::AddVeth(veth)]));
    for (namespace, name, net) in [(router, device, ours), (&**other, "eth0", theirs)] {
        let mut socket = route_socket(namespace);
        let device = index_of(&mut socket, name).expect("asked").expect("there");
        let address = InterfaceAddress { device, net: net.parse().unwrap(), noprefixroute: false };
        all_ok(carry_out(&mut socket, &[Build::AddAddress(address)]));
    }
}

/// A server that tells whoever calls from where it sees them, for as long as the test runs.
fn serve(namespace: &Namespace, address: &str) {
    let listener = namespace.inside(|| TcpListener::bind(address).expect("bound")).expect("entered");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().map_or_else(|e| e.to_string(), |peer| peer.to_string());
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

/// From where a server sees a caller that speaks from this port of 10.0.0.2, and the caller, still open.
fn seen_from_port(namespace: &Namespace, port: u16, to: &str) -> Result<(String, TcpStream), String> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let to: SocketAddr = to.parse().unwrap();
    let call = || {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Send,
            Some(PATIENCE / 3),
        )?;
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(PATIENCE / 3),
        )?;
        bind(&socket, &SocketAddr::from(([10, 0, 0, 2], port)))?;
        connect(&socket, &to)?;
        let mut stream = TcpStream::from(socket);
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok((text, stream))
    };
    namespace.inside(call).expect("entered").map_err(|e: std::io::Error| e.to_string())
}

/// From where a server sees a caller in this namespace.
fn seen(namespace: &Namespace, to: &str) -> Result<SocketAddr, String> {
    let to: SocketAddr = to.parse().unwrap();
    namespace
        .inside(|| {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE / 3).map_err(|e| e.to_string())?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
            stream.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map_err(|e| e.to_string())?;
            text.parse().map_err(|_| text)
        })
        .expect("entered")
}

#[track_caller]
fn seen_from(namespace: &Namespace, to: &str, from: &str) {
    let from: IpAddr = from.parse().unwrap();
    eventually(PATIENCE, || match seen(namespace, to) {
        Ok(peer) if peer.ip() == from => Ok(()),
        other => Err(format!("{to}: {other:?}, not {from}")),
    });
}

#[track_caller]
fn commit(batch: Batch, namespace: &Namespace) {
    batch.commit(&mut filter_socket(namespace)).unwrap_or_else(|error| panic!("{error}"));
}

fn v4(text: &str) -> Value {
    Value::Ipv4(text.parse().unwrap())
}

fn nat(point: HookPoint, priority: i32) -> Hook {
    Hook::new(ChainKind::Nat, point, priority)
}

#[test]
fn sources_are_masqueraded_or_translated_by_a_map() {
    in_a_place(|place| {
        let street = street(place);
        serve(&street.world, "192.0.2.2:7000");
        seen(&street.client, "192.0.2.2:7000").expect_err("the world has no way back");

        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        batch.add_base_chain("post", &nat(HookPoint::Postrouting, 100));
        batch.add_rule("post", &[idiom::oifname_is("up"), Expr::Masquerade], None);
        commit(batch, &street.router);
        seen_from(&street.client, "192.0.2.2:7000", "192.0.2.1");

        run(&place.join("netns/router"), "ip addr add 192.0.2.77/24 dev up");
        let out = Set::new("out", &[Type::Ipv4]).map(&[Type::Ipv4]);
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_set(&out);
        batch.add_elements(&out, &[Element::new(&[v4("10.0.0.2")]).to(&[v4("192.0.2.77")])]);
        batch.flush_chain("post");
        batch.add_rule("post", &[idiom::snat_to_map(&out, &[Field::IpSource])], None);
        commit(batch, &street.router);
        seen_from(&street.client, "192.0.2.2:7000", "192.0.2.77");
    });
}

#[test]
fn destinations_are_translated_by_a_map_with_ports() {
    in_a_place(|place| {
        let street = street(place);
        serve(&street.client, "10.0.0.2:8080");
        seen(&street.world, "192.0.2.1:80").expect_err("nothing is there");
        let into = Set::new("into", &[Type::Ipv4, Type::Protocol, Type::Port]).map(&[Type::Ipv4, Type::Port]);
        let key = [v4("192.0.2.1"), Value::Protocol(6), Value::Port(80)];
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        batch.add_set(&into);
        batch.add_elements(&into, &[Element::new(&key).to(&[v4("10.0.0.2"), Value::Port(8080)])]);
        batch.add_base_chain("pre", &nat(HookPoint::Prerouting, -100));
        let fields = [Field::IpDestination, Field::L4Proto, Field::DestinationPort];
        batch.add_rule("pre", &[idiom::dnat_from_map(&into, &fields)], None);
        // What was not translated does not get in.
        let filter = Hook::new(ChainKind::Filter, HookPoint::Forward, 0).dropping();
        batch.add_base_chain("forward", &filter);
        batch.add_rule("forward", &[idiom::ct_is_dnat(), idiom::accept()], None);
        commit(batch, &street.router);
        seen_from(&street.world, "192.0.2.1:80", "192.0.2.2");
        run(&place.join("netns/world"), "ip route add 10.0.0.0/24 via 192.0.2.1");
        seen(&street.world, "10.0.0.2:8080").expect_err("only by the router's address");
        seen(&street.world, "192.0.2.1:81").expect_err("another port is not in the map");

        let mut batch = Batch::new(Family::Inet, "t");
        batch.delete_elements(&into, &[Element::new(&key)]);
        batch.flush_chain("pre");
        let to = idiom::dnat_to("10.0.0.2".parse().unwrap(), Some(8080));
        batch.add_rule("pre", &[idiom::l4_is(6), idiom::destination_port_is(81), to], None);
        commit(batch, &street.router);
        seen_from(&street.world, "192.0.2.1:81", "192.0.2.2");
        seen(&street.world, "192.0.2.1:80").expect_err("that one is gone");
    });
}

#[test]
fn intervals_and_verdict_maps_decide() {
    in_a_place(|place| {
        let street = street(place);
        let mut socket = route_socket(&street.router);
        let from = index_of(&mut socket, "ca").expect("asked").expect("there");
        for port in ["7001", "7002", "7003"] {
            serve(&street.world, &format!("192.0.2.2:{port}"));
        }
        run(&place.join("netns/world"), "ip route add 10.0.0.0/24 via 192.0.2.1");
        seen_from(&street.client, "192.0.2.2:7003", "10.0.0.2");
        let open = Set::new("open", &[Type::Ifindex, Type::Ipv4, Type::Port]).with_intervals();
        let ways = Set::new("ways", &[Type::Ipv4]).with_intervals().verdict_map();
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        batch.add_chain("inner");
        batch.add_set(&open);
        batch.add_set(&ways);
        let key = [
            Key::Value(Value::Ifindex(from)),
            Key::Prefix("192.0.2.0/24".parse().unwrap()),
            Key::Range(Value::Port(7001), Value::Port(7002)),
        ];
        batch.add_elements(&open, &[Element::of(&key)]);
        let from_client = Element::prefix("10.0.0.0/25".parse().unwrap());
        batch.add_elements(&ways, &[from_client.to_verdict(Verdict::Jump("inner".into()))]);
        let fields = [Field::Iif, Field::IpDestination, Field::DestinationPort];
        let rule = [idiom::l4_is(6), idiom::in_set(&fields, &open), idiom::accept()];
        batch.add_rule("inner", &rule, None);
        let filter = Hook::new(ChainKind::Filter, HookPoint::Forward, 0).dropping();
        batch.add_base_chain("forward", &filter);
        let reply = [idiom::ct_state_in(idiom::state::ESTABLISHED), idiom::accept()];
        batch.add_rule("forward", &reply, None);
        batch.add_rule("forward", &[idiom::verdict_by(&[Field::IpSource], &ways)], None);
        commit(batch, &street.router);
        seen_from(&street.client, "192.0.2.2:7001", "10.0.0.2");
        seen_from(&street.client, "192.0.2.2:7002", "10.0.0.2");
        seen(&street.client, "192.0.2.2:7003").expect_err("behind the range");
    });
}

#[test]
fn zones_keep_the_same_connection_of_two_clients_apart() {
    in_a_place(|place| {
        let street = street(place);
        let (other_path, other) = namespace(place, "other");
        let other = Arc::new(other);
        attach(&street.router, &other, ("cb", "10.0.0.1/32"), "10.0.0.2/24");
        run(&other_path, "ip route add default via 10.0.0.1");
        let router = place.join("netns/router");
        for (device, mark) in [("ca", 7), ("cb", 8)] {
            run(&router, &format!("ip rule add fwmark {mark}/0xff lookup {mark}00"));
            run(&router, &format!("ip route add 10.0.0.0/24 dev {device} table {mark}00"));
            run(&router, &format!("ip addr add 192.0.2.{mark}/24 dev up"));
        }
        serve(&street.world, "192.0.2.2:7000");
        let mut socket = route_socket(&street.router);
        let mut index = |name: &str| index_of(&mut socket, name).expect("asked").expect("there");
        let marks = Set::new("marks", &[Type::Ifindex]).map(&[Type::Mark]);
        let zones = Set::new("zones", &[Type::Mark]).map(&[Type::Zone]);
        let out = Set::new("out", &[Type::Mark]).map(&[Type::Ipv4]);
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        for set in [&marks, &zones, &out] {
            batch.add_set(set);
        }
        for (device, mark) in [("ca", 7_u8), ("cb", 8)] {
            let key = [Value::Mark(u32::from(mark))];
            let address = Value::Ipv4([192, 0, 2, mark].into());
            batch.add_elements(&marks, &[Element::new(&[Value::Ifindex(index(device))]).to(&key)]);
            batch.add_elements(&zones, &[Element::new(&key).to(&[Value::Zone(100 + u16::from(mark))])]);
            batch.add_elements(&out, &[Element::new(&key).to(&[address])]);
        }
        batch.add_base_chain("raw", &Hook::new(ChainKind::Filter, HookPoint::Prerouting, -300));
        batch.add_rule("raw", &[idiom::set_mark_from_map(&marks, &[Field::Iif])], None);
        batch.add_rule("raw", &[idiom::set_zone_from_map(Direction::Original, &zones, &[Field::Mark])], None);
        batch.add_base_chain("mangle", &Hook::new(ChainKind::Filter, HookPoint::Prerouting, -150));
        batch.add_rule("mangle", &[idiom::iifname_is("up"), Expr::RestoreMark { mask: u32::MAX }], None);
        batch.add_base_chain("nat", &nat(HookPoint::Postrouting, 100));
        batch.add_rule(
            "nat",
            &[Expr::SaveMark { mask: u32::MAX }, idiom::snat_to_map(&out, &[Field::Mark])],
            None,
        );
        commit(batch, &street.router);
        seen_from(&street.client, "192.0.2.2:7000", "192.0.2.7");
        seen_from(&other, "192.0.2.2:7000", "192.0.2.8");
        let (first, _open) = seen_from_port(&street.client, 5555, "192.0.2.2:7000").expect("answered");
        let (second, _open_too) = seen_from_port(&other, 5555, "192.0.2.2:7000").expect("answered");
        assert!(first.starts_with("192.0.2.7:") && second.starts_with("192.0.2.8:"), "{first} {second}");

        // Without zones the second is taken for the first.
        let mut batch = Batch::new(Family::Inet, "t");
        batch.flush_chain("raw");
        batch.add_rule("raw", &[idiom::set_mark_from_map(&marks, &[Field::Iif])], None);
        commit(batch, &street.router);
        let (first, _open) = seen_from_port(&street.client, 5556, "192.0.2.2:7000").expect("answered");
        assert!(first.starts_with("192.0.2.7:"), "{first}");
        let second = seen_from_port(&other, 5556, "192.0.2.2:7000").map(|(text, _)| text);
        assert!(
            second.as_ref().is_ok_and(|text| !text.starts_with("192.0.2.8:")) || second.is_err(),
            "{second:?}"
        );
    });
}
