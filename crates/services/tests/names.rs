//! DNS as dig sees it.

mod common;

use std::time::Duration;

use common::{Gate, SOON, Store, host, peer, socket};
use fief_services::{NetworkConfig, Services};
use fief_testkit::{Child, Lab, Ns, eventually};

/// What dig prints with +short, and the status it saw.
fn dig(client: &Ns, words: &[&str]) -> Option<(String, Vec<String>)> {
    let mut argv = vec![peer("dig")?, "+tries=1".to_owned(), "+time=8".to_owned()];
    if !words.iter().any(|word| word.starts_with('@')) {
        argv.push("@192.0.2.1".to_owned());
    }
    argv.extend(words.iter().map(|word| (*word).to_owned()));
    let output = client.run(&argv);
    let status =
        output.stdout.split_once("status: ").map_or("none", |(_, rest)| rest.split(',').next().unwrap());
    // Lines of the answer: name, TTL, class, type, data.
    let records = output.stdout.lines().filter(|line| !line.starts_with(';') && !line.contains("SOA"));
    let data = records.filter_map(|line| Some(line.split_whitespace().nth(4)?.to_owned())).collect();
    Some((status.to_owned(), data))
}

fn short(client: &Ns, words: &[&str]) -> (String, Vec<String>) {
    dig(client, words).expect("it was there before")
}

fn found(data: &[&str]) -> (String, Vec<String>) {
    ("NOERROR".to_owned(), data.iter().map(|one| (*one).to_owned()).collect())
}

fn status(client: &Ns, words: &[&str]) -> String {
    short(client, words).0
}

/// An unmodified name server that knows example.org.
fn upstream(world: &Ns) -> Option<Child> {
    let mut argv: Vec<String> = vec![peer("dnsmasq")?];
    let plain = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root", "--log-facility=-"];
    let own = [
        "--conf-file=/dev/null",
        "--pid-file=",
        "--log-queries",
        "--local=/example.org/",
        "--local=/red.example/",
    ];
    let names = ["--host-record=www.example.org,203.0.113.7", "--host-record=other.example.org,203.0.113.8"];
    argv.extend([plain.as_slice(), &own, &names].concat().iter().map(|word| (*word).to_owned()));
    // More than fits into a datagram.
    let long = "x".repeat(200);
    argv.extend((0..12).map(|nth| format!("--txt-record=long.example.org,{nth}{long}")));
    let mut server = world.spawn(&argv);
    server.wait_for_output("started", SOON);
    Some(server)
}

#[test]
fn own_names_resolve_and_those_of_others_do_not() {
    let Some(lab) = Lab::new("names") else { return };
    let (web, data) = (Gate::new(&lab, "web"), Gate::new(&lab, "data"));
    let services = Services::start(Store::default().boxed()).unwrap();
    web.serve(&services, web.settled_config());
    // The same subnet, with an endpoint that the other network does not have.
    let mut config = NetworkConfig { domain: "data.red.example".to_owned(), ..data.settled_config() };
    config.endpoints[0].name = "db".to_owned();
    config.endpoints[0].address = Some(host(99));
    data.serve(&services, config);
    let (client, other) = (web.settled(11), data.settled(12));

    let Some(first) = dig(&client, &["app1.web.blue.example"]) else { return };
    assert_eq!(first, found(&["192.0.2.11"]));
    for (words, data) in [
        (&["app1.web.blue.example", "AAAA"][..], &["2001:db8::11"][..]),
        (&["app1"], &["192.0.2.11"]),
        (&["gw.web.blue.example"], &["192.0.2.1"]),
        (&["-x", "192.0.2.11"], &["app1.web.blue.example."]),
        (&["-x", "2001:db8::11"], &["app1.web.blue.example."]),
        (&["app1.web.blue.example", "+tcp"], &["192.0.2.11"]),
        (&["app1.web.blue.example", "@2001:db8::1"], &["192.0.2.11"]),
        (&["app1.web.blue.example", "@2001:db8::1", "+tcp"], &["192.0.2.11"]),
        (&["app1.web.blue.example", "+noedns"], &["192.0.2.11"]),
        (&["app1.web.blue.example", "MX"], &[]),
    ] {
        assert_eq!(short(&client, words), found(data), "{words:?}");
    }
    assert_eq!(status(&client, &["nobody.web.blue.example"]), "NXDOMAIN");
    assert_eq!(status(&client, &["www.example.org"]), "REFUSED", "there is no upstream server");

    // db is in one network, app1 (192.0.2.11) in the other.
    assert_eq!(short(&other, &["db.data.red.example"]), found(&["192.0.2.99"]));
    assert_eq!(status(&client, &["db.data.red.example"]), "REFUSED");
    assert_eq!(status(&client, &["db"]), "NXDOMAIN");
    assert_eq!(status(&client, &["-x", "192.0.2.99"]), "NXDOMAIN");
    assert_eq!(status(&other, &["app1.web.blue.example"]), "REFUSED");
    assert_eq!(status(&other, &["app1.data.red.example"]), "NXDOMAIN");

    // A name that comes and goes, without a new socket.
    let mut config = web.settled_config();
    config.names.insert("late".to_owned(), vec![host(200).into()]);
    services.set(config, None);
    assert_eq!(short(&client, &["late.web.blue.example"]), found(&["192.0.2.200"]));
    services.set(web.settled_config(), None);
    assert_eq!(status(&client, &["late.web.blue.example"]), "NXDOMAIN");
}

#[test]
fn a_leased_address_has_its_endpoints_name_and_no_other() {
    let Some(lab) = Lab::new("leased") else { return };
    let gate = Gate::new(&lab, "web");
    let store = Store::default();
    let expires = std::time::SystemTime::now() + Duration::from_secs(4);
    let lease = |last, hostname: &str, expires| fief_services::Lease {
        network: "blue/web".to_owned(),
        mac: common::mac(last),
        client_id: None,
        address: host(50 + last),
        hostname: Some(hostname.to_owned()),
        expires,
    };
    let long = expires + Duration::from_secs(600);
    store.change(|inside| inside.leases = vec![lease(1, "app2", expires), lease(2, "mine", long)]);
    let services = Services::start(store.boxed()).unwrap();
    gate.serve(&services, gate.config(Some((50, 60))));
    let client = gate.settled(52);
    let Some(first) = dig(&client, &["app1"]) else { return };
    assert_eq!(first, found(&["192.0.2.51"]));
    assert_eq!(short(&client, &["app2"]), found(&["192.0.2.52"]), "whatever the first client calls itself");
    assert_eq!(status(&client, &["mine"]), "NXDOMAIN");
    assert_eq!(short(&client, &["-x", "192.0.2.51"]), found(&["app1.web.blue.example."]));
    // Its lease ends by itself.
    eventually(SOON, || {
        let now = short(&client, &["app1"]);
        if now == found(&[]) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    assert_eq!(short(&client, &["app2"]), found(&["192.0.2.52"]));
}

#[test]
fn other_names_are_asked_upstream() {
    let Some(lab) = Lab::new("upstream") else { return };
    let gate = Gate::new(&lab, "web");
    let world = gate.world();
    let services = Services::start(Store::default().boxed()).unwrap();
    let config = NetworkConfig { upstreams: vec![socket("198.51.100.53:53")], ..gate.settled_config() };
    gate.serve(&services, config.clone());
    let client = gate.settled(11);
    let Some(server) = upstream(&world) else { return };
    let Some(first) = dig(&client, &["www.example.org"]) else { return };
    assert_eq!(first, found(&["203.0.113.7"]));
    assert_eq!(short(&client, &["WWW.Example.org", "+tcp"]), found(&["203.0.113.7"]));
    assert_eq!(status(&client, &["nobody.example.org"]), "NXDOMAIN");
    assert_eq!(
        status(&client, &["app1.web.red.example"]),
        "NXDOMAIN",
        "another network's is the world's to know"
    );
    // Too long for a datagram: dig asks again over TCP, and so does the service.
    for more in ["+noedns", "+bufsize=1232"] {
        let (status, data) = short(&client, &["long.example.org", "TXT", more]);
        assert_eq!((status.as_str(), data.len()), ("NOERROR", 12), "{more}");
    }
    let cut =
        client.run(&[peer("dig").unwrap().as_str(), "@192.0.2.1", "long.example.org", "TXT", "+ignore"]);
    assert!(cut.stdout.contains("flags: qr aa tc rd ra;") || cut.stdout.contains(" tc "), "{cut}");
    // Own names are not asked for.
    assert_eq!(short(&client, &["app1.web.blue.example"]), found(&["192.0.2.11"]));
    assert!(!server.output().contains("web.blue.example"), "{}", server.output());

    // A server that does not answer, before one that does.
    let dead = socket("198.51.100.99:53");
    services.set(NetworkConfig { upstreams: vec![dead, socket("198.51.100.53:53")], ..config.clone() }, None);
    assert_eq!(short(&client, &["other.example.org"]), found(&["203.0.113.8"]));
    services.set(NetworkConfig { upstreams: vec![dead], ..config }, None);
    assert_eq!(status(&client, &["other.example.org"]), "SERVFAIL");
    assert_eq!(services.counters("blue/web").unwrap().dns_failed, 1);
}

#[test]
fn a_flood_of_questions_has_an_end() {
    let Some(lab) = Lab::new("questions") else { return };
    let gate = Gate::new(&lab, "web");
    let world = gate.world();
    // Nobody answers here, and nobody says so either.
    world.nft("table ip t {\nchain c {\ntype filter hook input priority 0\nudp dport 53 drop\n}\n}\n");
    let services = Services::start(Store::default().boxed()).unwrap();
    let config = NetworkConfig { upstreams: vec![socket("198.51.100.53:53")], ..gate.settled_config() };
    gate.serve(&services, config);
    let (client, other) = (gate.settled(11), gate.settled(12));
    if peer("dig").is_none() {
        return;
    }
    let question = |name: &str| {
        let mut message = hickory_proto::op::Message::query();
        let name = hickory_proto::rr::Name::from_ascii(name).unwrap();
        message.add_query(hickory_proto::op::Query::query(name, hickory_proto::rr::RecordType::A));
        message.to_vec().unwrap()
    };
    client.enter(|| {
        let socket = std::net::UdpSocket::bind("192.0.2.11:0").unwrap();
        for _ in 0..200 {
            socket.send_to(&question("www.example.org."), "192.0.2.1:53").unwrap();
        }
    });
    let counters = || services.counters("blue/web").unwrap();
    eventually(
        SOON,
        || if counters().dns_queries >= 200 { Ok(()) } else { Err(format!("{:?}", counters())) },
    );
    assert_eq!((counters().dns_forwarded, counters().dns_dropped), (64, 136));
    // Own names and the other client are served meanwhile.
    assert_eq!(short(&client, &["app1"]), found(&["192.0.2.11"]));
    assert_eq!(status(&other, &["www.example.org"]), "SERVFAIL");
    // Who is not on the network is not answered: an address that belongs to nobody here.
    client.ip("addr add 203.0.113.5/32 dev eth0\n");
    gate.ns.ip("route add 203.0.113.5/32 dev br0\n");
    let foreign = client.run(&[
        &peer("dig").unwrap(),
        "+tries=1",
        "+time=1",
        "-b",
        "203.0.113.5",
        "@192.0.2.1",
        "app1",
    ]);
    assert!(foreign.stdout.contains("no servers could be reached"), "{foreign}");
    assert_eq!(counters().dns_foreign, 1);
}
