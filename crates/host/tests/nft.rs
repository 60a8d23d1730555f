//! What is written to nf_tables, against nft(8).

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{filter_socket, in_a_place, json, namespace, run};
use fief_host::nft::idiom::{self, state};
use fief_host::nft::{
    Batch, ChainKind, Clamp, Direction, Element, Exchange, Expr, Family, Field, Hook, HookPoint, Key, Reject,
    Set, Table, Type, Value, Verdict,
};

fn listed(path: &Path) -> String {
    run(path, "nft list ruleset")
}

fn v4(text: &str) -> Value {
    Value::Ipv4(text.parse().unwrap())
}

fn v6(text: &str) -> Value {
    Value::Ipv6(text.parse().unwrap())
}

/// A table with a chain for each of these rules, and what nft shows of each.
fn shown_as(path: &Path, batch: Batch, socket: &mut fief_host::netlink::Socket, rules: &[(Expr, &str)]) {
    let mut batch = batch;
    for (index, (rule, _)) in rules.iter().enumerate() {
        batch.add_chain(&format!("c{index}"));
        batch.add_rule(&format!("c{index}"), std::slice::from_ref(rule), None);
    }
    batch.commit(socket).unwrap_or_else(|error| panic!("{error}"));
    let text = listed(path);
    for (index, (_, expected)) in rules.iter().enumerate() {
        let chain = text.split(&format!("chain c{index} {{\n")).nth(1).expect("the chain is listed");
        let rule = chain.split('\n').next().expect("it has a rule").trim();
        assert_eq!(rule, *expected, "rule #{index}");
    }
}

#[test]
fn matches_and_verdicts_are_what_nft_reads() {
    in_a_place(|place| {
        let (path, ns) = namespace(place, "host");
        let mut socket = filter_socket(&ns);
        let ports = Set::new("ports", &[Type::Protocol, Type::Port]);
        let ways = Set::new("ways", &[Type::Ifindex]).verdict_map();
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        batch.add_set(&ports);
        batch.add_set(&ways);
        let homes = Set::new("homes", &[Type::Ifname, Type::Ipv4]).with_intervals();
        let zones = Set::new("zones", &[Type::Group]).map(&[Type::Zone]);
        batch.add_set(&homes);
        batch.add_set(&zones);
        batch.add_chain("far");
        let net = |text: &str| text.parse().unwrap();
        let mixed = Expr::All(vec![
            idiom::l4_is(17),
            idiom::destination_port_between(1000, 1999),
            idiom::source_port_is(53),
            idiom::accept(),
        ]);
        let unless = |field, value| Expr::All(vec![idiom::is_not(field, value), idiom::drop()]);
        let limit = Expr::Limit { per_second: 10, burst: 20 };
        let rules = [
            (idiom::iif_is(1), "iif \"lo\""),
            (idiom::oif_is_not(1), "oif != \"lo\""),
            (idiom::iifname_is("eth0"), "iifname \"eth0\""),
            (idiom::oifname_is("eth1"), "oifname \"eth1\""),
            (idiom::iifgroup_in(0xf1_0007, 0xffff_0000), "iifgroup 15794176/16"),
            (idiom::socket_user_is_not(0), "meta skuid != 0"),
            (idiom::oifgroup_in(0xf1_0007, u32::MAX), "oifgroup 15794183"),
            (
                Expr::All(vec![
                    idiom::family_is(fief_host::Family::V4),
                    idiom::in_set(&[Field::SdifName, Field::IpSource], &homes),
                ]),
                "meta sdifname . ip saddr @homes",
            ),
            (
                idiom::set_zone_from_map(Direction::Both, &zones, &[Field::IifGroup]),
                "ct zone set iifgroup map @zones",
            ),
            (idiom::l4_is(6), "meta l4proto tcp"),
            (idiom::family_is(fief_host::Family::V6), "meta nfproto ipv6"),
            (idiom::mark_is(0x700, 0xff00), "meta mark & 0x0000ff00 == 0x00000700"),
            (idiom::mark_is_not(7, u32::MAX), "meta mark != 0x00000007"),
            (idiom::ct_mark_is(1, 1), "ct mark & 0x00000001 == 0x00000001"),
            (idiom::source_in(net("192.0.2.0/24")), "ip saddr 192.0.2.0/24"),
            (idiom::source_not_in(net("192.0.2.7/32")), "ip saddr != 192.0.2.7"),
            (idiom::destination_in(net("2001:db8::/32")), "ip6 daddr 2001:db8::/32"),
            (idiom::destination_not_in(net("2001:db8::1/128")), "ip6 daddr != 2001:db8::1"),
            (idiom::ct_state_in(state::ESTABLISHED | state::RELATED), "ct state established,related"),
            (idiom::ct_is_dnat(), "ct status dnat"),
            (idiom::ct_is_original(false), "ct direction reply"),
            (idiom::is(Field::CtZone, Value::Zone(9)), "ct zone 9"),
            (unless(Field::PacketType, Value::Bytes(vec![0])), "meta pkttype != host drop"),
            (mixed, "udp dport 1000-1999 udp sport 53 accept"),
            (
                idiom::in_set(&[Field::L4Proto, Field::DestinationPort], &ports),
                "meta l4proto . th dport @ports",
            ),
            (
                idiom::not_in_set(&[Field::L4Proto, Field::DestinationPort], &ports),
                "meta l4proto . th dport != @ports",
            ),
            (idiom::verdict_by(&[Field::Iif], &ways), "iif vmap @ways"),
            (idiom::jump("far"), "jump far"),
            (idiom::goto("far"), "goto far"),
            (idiom::back(), "return"),
            (Expr::Counter, "counter packets 0 bytes 0"),
            (limit, "limit rate 10/second burst 20 packets"),
            (Expr::Reject(Reject::AdminProhibited), "reject with icmpx admin-prohibited"),
            (
                Expr::All(vec![idiom::l4_is(6), Expr::Reject(Reject::Reset)]),
                "meta l4proto tcp reject with tcp reset",
            ),
        ];
        shown_as(&path, batch, &mut socket, &rules);
    });
}

#[test]
fn marks_zones_and_translations_are_what_nft_reads() {
    in_a_place(|place| {
        let (path, ns) = namespace(place, "host");
        let mut socket = filter_socket(&ns);
        let marks = Set::new("marks", &[Type::Ifindex]).map(&[Type::Mark]);
        let zones = Set::new("zones", &[Type::Mark]).map(&[Type::Zone]);
        let out = Set::new("out", &[Type::Mark, Type::Ipv4]).map(&[Type::Ipv4]);
        let into = Set::new("into", &[Type::Ipv4, Type::Protocol, Type::Port]).map(&[Type::Ipv4, Type::Port]);
        let into6 = Set::new("into6", &[Type::Ipv6, Type::Port]).map(&[Type::Ipv6, Type::Port]);
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        for set in [&marks, &zones, &out, &into, &into6] {
            batch.add_set(set);
        }
        let there = Value::Ipv4([192, 0, 2, 1].into());
        batch.add_elements(&zones, &[Element::new(&[Value::Mark(7)]).to(&[Value::Zone(300)])]);
        batch.add_elements(
            &into,
            &[Element::new(&[there, Value::Protocol(6), Value::Port(80)])
                .to(&[v4("10.0.0.1"), Value::Port(8080)])],
        );
        let to_service = [Field::IpDestination, Field::L4Proto, Field::DestinationPort];
        let services6 = Expr::All(vec![
            idiom::l4_is(6),
            idiom::dnat_from_map(&into6, &[Field::Ip6Destination, Field::DestinationPort]),
        ]);
        let rules = [
            (idiom::set_mark(0x500, 0xff00), "meta mark set meta mark & 0xffff05ff | 0x00000500"),
            (idiom::set_mark(5, u32::MAX), "meta mark set 0x00000005"),
            (Expr::SetCtMark { value: 1, mask: 3 }, "ct mark set ct mark & 0xfffffffd | 0x00000001"),
            (Expr::SaveMark { mask: u32::MAX }, "ct mark set meta mark"),
            (Expr::RestoreMark { mask: 0xff }, "meta mark set ct mark & 0x000000ff"),
            (idiom::set_mark_from_map(&marks, &[Field::Iif]), "meta mark set iif map @marks"),
            (idiom::set_zone(Direction::Both, 12), "ct zone set 12"),
            (idiom::set_zone(Direction::Original, 12), "ct original zone set 12"),
            (idiom::set_zone(Direction::Reply, 12), "ct reply zone set 12"),
            (
                idiom::set_zone_from_map(Direction::Original, &zones, &[Field::Mark]),
                "ct original zone set meta mark map @zones",
            ),
            (Expr::Notrack, "notrack"),
            (idiom::clamp_mss(), "tcp flags syn / syn,rst tcp option maxseg size set rt mtu"),
            (Expr::ClampMss(Clamp::Size(1200)), "tcp option maxseg size set 1200"),
        ];
        shown_as(&path, batch, &mut socket, &rules);

        let mut nat = Batch::new(Family::Inet, "t");
        nat.add_base_chain("post", &Hook::new(ChainKind::Nat, HookPoint::Postrouting, 100));
        nat.add_base_chain("pre", &Hook::new(ChainKind::Nat, HookPoint::Prerouting, -100));
        nat.add_rule(
            "post",
            &[idiom::snat_to_map(&out, &[Field::Mark, Field::IpSource])],
            Some("who is who"),
        );
        nat.add_rule("post", &[idiom::snat_to("192.0.2.9".parse().unwrap(), None)], None);
        nat.add_rule("post", &[Expr::Masquerade], None);
        nat.add_rule("pre", &[idiom::dnat_from_map(&into, &to_service)], None);
        nat.add_rule("pre", &[services6], None);
        let web = idiom::dnat_to("2001:db8::5".parse().unwrap(), Some(8080));
        nat.add_rule("pre", &[idiom::l4_is(6), web], None);
        nat.commit(&mut socket).unwrap_or_else(|error| panic!("{error}"));
        let text = listed(&path);
        for expected in [
            "snat ip to meta mark . ip saddr map @out comment \"who is who\"",
            "snat ip to 192.0.2.9",
            "masquerade",
            "dnat ip to ip daddr . meta l4proto . th dport map @into",
            "dnat ip6 to ip6 daddr . tcp dport map @into6",
            "dnat ip6 to [2001:db8::5]:8080",
            "192.0.2.1 . tcp . 80 : 10.0.0.1 . 8080",
            "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
            "type nat hook prerouting priority dstnat; policy accept;",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    });
}

#[test]
fn sets_hold_prefixes_ranges_and_verdicts() {
    in_a_place(|place| {
        let (path, ns) = namespace(place, "host");
        let mut socket = filter_socket(&ns);
        let nets = Set::new("nets", &[Type::Ipv4]).with_intervals();
        let nets6 = Set::new("nets6", &[Type::Ipv6]).with_intervals();
        let ports = Set::new("ports", &[Type::Port]).with_intervals().verdict_map();
        let both = Set::new("both", &[Type::Ifindex, Type::Ipv4, Type::Port]).with_intervals();
        let macs = Set::new("macs", &[Type::Ifname, Type::Ether]);
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        batch.add_chain("far");
        for set in [&nets, &nets6, &ports, &both, &macs] {
            batch.add_set(set);
        }
        let prefix = |text: &str| Element::prefix(text.parse().unwrap());
        let some = [
            prefix("10.0.0.0/8"),
            prefix("255.0.0.0/8"),
            Element::interval(v4("192.0.2.5"), v4("192.0.2.9")),
        ];
        batch.add_elements(&nets, &some);
        batch.add_elements(&nets, &[Element::new(&[v4("198.51.100.1")]), prefix("11.0.0.0/8")]);
        batch.add_elements(
            &nets6,
            &[prefix("2001:db8::/32"), Element::interval(v6("fd00::1"), v6("fd00::5"))],
        );
        let high = Element::interval(Value::Port(1024), Value::Port(u16::MAX)).to_verdict(Verdict::Accept);
        let low = Element::new(&[Value::Port(22)]).to_verdict(Verdict::Jump("far".into()));
        batch.add_elements(&ports, &[high, low]);
        let one = [
            Key::Value(Value::Ifindex(1)),
            Key::Prefix("10.1.0.0/16".parse().unwrap()),
            Key::Range(Value::Port(80), Value::Port(90)),
        ];
        let other = [Value::Ifindex(1).into(), v4("10.2.0.1").into(), Value::Port(443).into()];
        batch.add_elements(&both, &[Element::of(&one), Element::of(&other)]);
        batch.add_elements(
            &macs,
            &[Element::new(&[Value::Ifname("eth0".into()), Value::Ether([2, 0, 0, 0, 0, 1])])],
        );
        batch.commit(&mut socket).unwrap_or_else(|error| panic!("{error}"));
        let text = run(&path, "nft list ruleset | tr -s '\\n\\t ' ' '");
        for expected in [
            "10.0.0.0/8, 11.0.0.0/8, 192.0.2.5-192.0.2.9, 198.51.100.1, 255.0.0.0/8",
            "2001:db8::/32, fd00::1-fd00::5",
            "22 : jump far",
            "1024-65535 : accept",
            " . 10.1.0.0/16 . 80-90",
            " . 10.2.0.1 . 443",
            "\"eth0\" . 02:00:00:00:00:01",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }

        let mut less = Batch::new(Family::Inet, "t");
        less.delete_elements(&nets, &some[..2]);
        less.delete_elements(&both, &[Element::of(&one)]);
        less.flush_set(&macs);
        less.delete_set(&nets6);
        less.commit(&mut socket).unwrap_or_else(|error| panic!("{error}"));
        let text = run(&path, "nft list ruleset | tr -s '\\n\\t ' ' '");
        assert!(text.contains("elements = { 11.0.0.0/8, 192.0.2.5-192.0.2.9, 198.51.100.1 }"), "{text}");
        assert!(text.contains(" . 10.2.0.1 . 443 }") && !text.contains("10.1.0.0/16"), "{text}");
        assert!(!text.contains("nets6") && !text.contains("02:00:00:00:00:01"), "{text}");
    });
}

#[test]
fn tables_and_chains_come_and_go() {
    in_a_place(|place| {
        let (path, ns) = namespace(place, "host");
        let mut socket = filter_socket(&ns);
        let build = |family| {
            let mut batch = Batch::new(family, "t");
            batch.delete_table_if_there();
            batch.add_table();
            batch.add_base_chain("in", &Hook::new(ChainKind::Filter, HookPoint::Forward, -7).dropping());
            batch.add_chain("old");
            batch.add_rule("in", &[idiom::jump("old")], Some("goes"));
            batch.add_rule("old", &[idiom::accept()], None);
            batch
        };
        for _ in 0..2 {
            let mut all = build(Family::Inet);
            all.append(build(Family::Bridge));
            all.append(build(Family::Ip));
            all.append(build(Family::Ip6));
            let mut device = Batch::new(Family::Netdev, "t");
            device.add_table();
            let ingress = Hook::new(ChainKind::Filter, HookPoint::Ingress, 0).on_device("lo");
            device.add_base_chain("in", &ingress);
            all.append(device);
            all.commit(&mut socket).unwrap_or_else(|error| panic!("{error}"));
        }
        let tables = run(&path, "nft list tables");
        for family in ["inet", "bridge", "ip", "ip6", "netdev"] {
            assert!(tables.contains(&format!("table {family} t")), "{tables}");
        }
        let chain = json(&path, "nft -j list chain inet t in")["nftables"].clone();
        let (hook, rule) = (&chain[1]["chain"], &chain[2]["rule"]);
        assert_eq!((&hook["hook"], &hook["prio"]), (&"forward".into(), &(-7).into()));
        assert_eq!((&hook["policy"], &rule["comment"]), (&"drop".into(), &"goes".into()));
        assert!(run(&path, "nft list table netdev t").contains("hook ingress device \"lo\""));

        let mut batch = Batch::new(Family::Inet, "t");
        batch.flush_chain("in");
        batch.delete_chain("old");
        batch.add_base_chain("in", &Hook::new(ChainKind::Filter, HookPoint::Forward, -7));
        batch.commit(&mut socket).unwrap_or_else(|error| panic!("{error}"));
        let text = run(&path, "nft list table inet t");
        assert!(text.contains("policy accept") && !text.contains("old"), "{text}");
        for family in [Family::Inet, Family::Bridge, Family::Ip, Family::Ip6, Family::Netdev] {
            let mut batch = Batch::new(family, "t");
            batch.delete_table_if_there();
            batch.commit(&mut socket).unwrap_or_else(|error| panic!("{error}"));
        }
        assert_eq!(listed(&path), "");
        Batch::new(Family::Inet, "t").commit(&mut socket).expect("nothing to do is no error");
    });
}

#[test]
fn a_refused_transaction_changes_nothing_and_says_which() {
    in_a_place(|place| {
        let (path, ns) = namespace(place, "host");
        let mut socket = filter_socket(&ns);
        let known = Set::new("known", &[Type::Mark]);
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        batch.add_set(&known);
        batch.commit(&mut socket).expect("made");
        let before = listed(&path);

        let attempt = |spoil: fn(&mut Batch, &Set)| {
            let mut batch = Batch::new(Family::Inet, "t");
            batch.add_chain("new");
            batch.add_elements(&known, &[Element::new(&[Value::Mark(1)])]);
            spoil(&mut batch, &known);
            batch.add_rule("new", &[idiom::accept()], None);
            batch
        };
        let refused = |batch: Batch, socket: &mut _| batch.commit(socket).expect_err("refused").to_string();
        let text = refused(attempt(|batch, _| batch.add_rule("absent", &[], Some("lost"))), &mut socket);
        assert!(
            text.starts_with("add rule \"lost\" of chain absent in table inet t: No such file"),
            "{text}"
        );
        assert_eq!(listed(&path), before);
        let text = refused(
            attempt(|batch, known| batch.delete_elements(known, &[Element::new(&[Value::Mark(9)])])),
            &mut socket,
        );
        assert!(text.starts_with("delete elements of set known in table inet t: No such file"), "{text}");
        // What only shows when everything is in place: a loop of chains.
        let text = refused(
            attempt(|batch, _| {
                batch.add_base_chain("base", &Hook::new(ChainKind::Filter, HookPoint::Input, 0));
                batch.add_rule("base", &[idiom::jump("new")], None);
                batch.add_rule("new", &[idiom::jump("new")], None);
            }),
            &mut socket,
        );
        assert!(text.contains("in table inet t"), "{text}");
        // The first of several.
        let text = refused(
            attempt(|batch, _| {
                batch.add_rule("first", &[], None);
                batch.add_rule("second", &[], None);
            }),
            &mut socket,
        );
        assert!(text.contains("of chain first "), "{text}");
        assert_eq!(listed(&path), before);
        // The same without what spoils it, on the same socket.
        attempt(|_, _| ()).commit(&mut socket).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(listed(&path), before);
    });
}

#[test]
fn who_may_not_is_told_so_and_waits_for_nothing() {
    in_a_place(|place| {
        let (path, ns) = namespace(place, "host");
        let asked = ns.inside(|| {
            // Without CAP_NET_ADMIN the whole transaction is refused, with the number of the message that begins it.
            let mut socket =
                fief_host::netlink::Socket::open(libc::NETLINK_NETFILTER).expect("anybody may open one");
            let none = rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            };
            rustix::thread::set_capabilities(None, none).expect("a thread may drop its capabilities");
            let mut batch = Batch::new(Family::Inet, "t");
            batch.add_table();
            batch.commit(&mut socket).expect_err("refused")
        });
        assert_eq!(asked.expect("entered").errno(), Some(libc::EPERM));
        assert_eq!(listed(&path), "");
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        batch.commit(&mut filter_socket(&ns)).expect("root may");
    });
}

#[test]
fn ten_thousand_elements_in_one_batch() {
    in_a_place(|place| {
        let (path, ns) = namespace(place, "host");
        let mut socket = filter_socket(&ns);
        let map = Set::new("out", &[Type::Mark, Type::Ipv4]).map(&[Type::Ipv4]);
        let nets = Set::new("nets", &[Type::Ipv4]).with_intervals();
        let element = |n: u32| {
            let address = Value::Ipv4((0x0a00_0000 + n).into());
            Element::new(&[Value::Mark(n), address]).to(&[Value::Ipv4((0xc000_0000 + n).into())])
        };
        let elements: Vec<Element> = (0..10_000).map(element).collect();
        let net = |n: u32| Element::prefix(format!("10.{}.{}.0/25", n >> 8, n & 255).parse().unwrap());
        let prefixes: Vec<Element> = (0..10_000).map(net).collect();
        let mut batch = Batch::new(Family::Inet, "t");
        batch.add_table();
        batch.add_set(&map);
        batch.add_set(&nets);
        batch.add_elements(&map, &elements);
        batch.add_elements(&nets, &prefixes);
        batch.add_chain("many");
        for n in 0..10_000 {
            batch.add_rule("many", &[idiom::mark_is(n, u32::MAX)], None);
        }
        let begin = Instant::now();
        batch.commit(&mut socket).unwrap_or_else(|error| panic!("{error}"));
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        let count =
            |what: &str| run(&path, &format!("nft list {what} | grep -o ',' | wc -l")).trim().to_owned();
        assert_eq!((count("map inet t out"), count("set inet t nets")), ("9999".into(), "9999".into()));
        let rules = run(&path, "nft list chain inet t many | grep -c 'meta mark'");
        assert_eq!(rules.trim(), "10000");
        assert!(listed(&path).contains("0x0000270f . 10.0.39.15 : 192.0.39.15"));

        let mut refused = Batch::new(Family::Inet, "t");
        refused.delete_elements(&map, &elements);
        refused.delete_elements(&map, &elements[..1]);
        refused.commit(&mut socket).expect_err("the last one is gone already");
        assert_eq!(count("map inet t out"), "9999");
        let mut batch = Batch::new(Family::Inet, "t");
        batch.delete_elements(&map, &elements);
        batch.commit(&mut socket).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(count("map inet t out"), "0");
    });
}

#[test]
fn elements_are_exchanged_and_the_table_says_so_of_itself() {
    in_a_place(|place| {
        let (path, ns) = namespace(place, "host");
        let mut socket = filter_socket(&ns);
        let homes = Set::new("homes", &[Type::Ipv4]).map(&[Type::Ipv4]);
        let home = |from: &str, to: &str| Element::new(&[v4(from)]).to(&[v4(to)]);
        let table = |elements: &[Element]| {
            let mut table = Table::new(Family::Inet, "t");
            table.set(&homes, elements.to_vec());
            table
        };
        let [a, b, c] =
            [("192.0.2.1", "198.51.100.1"), ("192.0.2.2", "198.51.100.2"), ("192.0.2.1", "198.51.100.3")]
                .map(|(from, to)| home(from, to));
        let mut standing = table(&[a.clone(), b.clone()]);
        standing.first().commit(&mut socket).expect("made");
        assert!(standing.stands(&mut socket));
        let before = standing.clone();
        let exchange = Exchange { set: homes.clone(), gone: vec![a], come: vec![c.clone()] };
        standing.exchange(vec![exchange]).commit(&mut socket).expect("exchanged");
        assert_eq!(standing, table(&[c.clone(), b.clone()]), "as if it had been so from the beginning");
        assert!(standing.stands(&mut socket) && !before.stands(&mut socket));
        let text = listed(&path);
        assert!(
            text.contains("192.0.2.1 : 198.51.100.3") && text.contains("192.0.2.2 : 198.51.100.2"),
            "{text}"
        );
        assert!(!text.contains("198.51.100.1\n") && !text.contains("198.51.100.1 "), "{text}");
        // What is not there cannot go, and then nothing else happens either.
        let mut other = standing.clone();
        let wrong =
            Exchange { set: homes.clone(), gone: vec![home("192.0.2.9", "198.51.100.1")], come: vec![] };
        assert!(other.exchange(vec![wrong]).commit(&mut socket).is_err());
        assert!(standing.stands(&mut socket));
    });
}
