//! The metadata service as curl sees it.

mod common;

use common::{Gate, SOON, Store, endpoint, host, peer};
use fief_services::{NetworkConfig, Services};
use fief_testkit::{Lab, Ns, eventually};

/// Status and body of a request.
fn curl(client: &Ns, words: &[&str], path: &str) -> Option<(u16, String)> {
    let mut argv = vec![peer("curl")?, "--silent".to_owned(), "--max-time".to_owned(), "10".to_owned()];
    argv.extend(["--path-as-is", "--write-out", "\n%{http_code}"].map(str::to_owned));
    argv.extend(words.iter().map(|word| (*word).to_owned()));
    argv.push(format!("http://169.254.169.254{path}"));
    let output = client.run(&argv);
    let (body, status) = output.stdout.rsplit_once('\n')?;
    Some((status.parse().unwrap_or(0), body.to_owned()))
}

fn get(client: &Ns, path: &str) -> (u16, String) {
    curl(client, &[], path).expect("curl says a status")
}

#[test]
fn a_client_sees_itself() {
    let Some(lab) = Lab::new("self") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    gate.serve(&services, gate.settled_config());
    let (one, two, stranger) = (gate.settled(11), gate.settled(12), gate.settled(40));
    let Some(first) = curl(&one, &[], "/latest/meta-data/instance-id") else { return };
    assert_eq!(first, (200, "blue.app1".to_owned()));
    assert_eq!(get(&two, "/latest/meta-data/instance-id"), (200, "blue.app2".to_owned()));
    assert_eq!(get(&two, "/latest/meta-data/local-ipv4"), (200, "192.0.2.12".to_owned()));
    assert_eq!(get(&two, "/"), (200, "fief/\nlatest/\n".to_owned()));
    let (status, body) = get(&one, "/fief/v1/endpoint");
    assert_eq!(status, 200);
    assert!(
        body.contains(r#""labels":{"role":"role1"}"#) && body.contains(r#""mac":"02:00:00:00:00:01""#),
        "{body}"
    );

    assert_eq!(get(&stranger, "/latest/meta-data/instance-id").0, 404);
    assert_eq!(get(&stranger, "/").0, 404);
    assert_eq!(get(&one, "/latest/meta-data/nothing").0, 404);
    let one_asks = |words: &[&str]| curl(&one, words, "/latest/meta-data/mac").unwrap().0;
    assert_eq!(one_asks(&["--head"]), 200);
    assert_eq!(one_asks(&["--header", "X-Forwarded-For: 198.51.100.7"]), 403);
    assert_eq!(one_asks(&["--data", "x"]), 405);
    assert_eq!(one_asks(&["--header", &format!("X: {}", "x".repeat(4000))]), 200);
    assert_ne!(one_asks(&["--header", &format!("X: {}", "x".repeat(20_000))]), 200);
    // The address itself says nothing: it is who has it now.
    let mut config = gate.settled_config();
    config.endpoints[0].address = Some(host(40));
    services.set(config, None);
    assert_eq!(get(&stranger, "/latest/meta-data/instance-id"), (200, "blue.app1".to_owned()));
    assert_eq!(get(&one, "/latest/meta-data/instance-id").0, 404);
}

#[test]
fn a_leased_address_is_known_too() {
    let Some(lab) = Lab::new("leaseme") else { return };
    let gate = Gate::new(&lab, "web");
    let store = Store::default();
    store.change(|inside| {
        inside.leases = vec![fief_services::Lease {
            network: "blue/web".to_owned(),
            mac: common::mac(2),
            client_id: None,
            address: host(50),
            hostname: None,
            expires: std::time::SystemTime::now() + SOON,
        }];
    });
    let services = Services::start(store.boxed()).unwrap();
    gate.serve(&services, gate.config(Some((50, 60))));
    let (leased, free) = (gate.settled(50), gate.settled(51));
    let Some(first) = curl(&leased, &[], "/latest/meta-data/hostname") else { return };
    assert_eq!(first, (200, "app2.web.blue.example".to_owned()));
    assert_eq!(get(&free, "/latest/meta-data/hostname").0, 404);
}

#[test]
fn two_networks_of_one_namespace_share_the_listener() {
    let Some(lab) = Lab::new("shared") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    gate.serve(&services, gate.settled_config());
    // A second subnet on the same bridge.
    gate.ns.ip("addr add 198.51.100.1/24 dev br0\n");
    let client = gate.settled(11);
    let other = gate.client(2);
    other.ip("addr add 198.51.100.12/24 dev eth0\nroute add default via 198.51.100.1\n");
    let second = NetworkConfig {
        key: "red/data".to_owned(),
        gateway: [198, 51, 100, 1].into(),
        subnet: "198.51.100.0/24".parse().unwrap(),
        endpoints: vec![fief_services::EndpointConfig {
            tenant: "red".to_owned(),
            ..endpoint(2, Some([198, 51, 100, 12].into()))
        }],
        ..gate.settled_config()
    };
    services.set(second, None);
    let Some(first) = curl(&client, &[], "/latest/meta-data/network-name") else { return };
    assert_eq!(first, (200, "blue/web".to_owned()));
    assert_eq!(get(&other, "/latest/meta-data/network-name"), (200, "red/data".to_owned()));
    // The listener came with the first network and outlives it.
    services.remove("blue/web", false);
    assert_eq!(get(&other, "/latest/meta-data/network-name"), (200, "red/data".to_owned()));
    assert_ne!(get(&client, "/latest/meta-data/network-name").0, 200);
    // And goes with the last, so that another can take its place at once.
    services.remove("red/data", false);
    gate.serve(&services, gate.settled_config());
    assert_eq!(get(&client, "/latest/meta-data/network-name"), (200, "blue/web".to_owned()));
}

#[test]
fn slow_clients_are_let_go() {
    use std::io::{Read, Write};
    let Some(lab) = Lab::new("slow") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    gate.serve(&services, gate.settled_config());
    let (client, other) = (gate.settled(11), gate.settled(12));
    let dial = || std::net::TcpStream::connect("169.254.169.254:80").unwrap();
    let held: Vec<_> = client.enter(|| (0..20).map(|_| dial()).collect());
    let dropped = || services.counters("blue/web").unwrap().metadata_dropped;
    eventually(SOON, || if dropped() == 4 { Ok(()) } else { Err(format!("{}", dropped())) });
    if peer("curl").is_some() {
        assert_eq!(get(&other, "/latest/meta-data/mac").0, 200, "they are the other's");
    }
    for mut stream in &held {
        stream.set_read_timeout(Some(SOON)).unwrap();
        drop(stream.write_all(b"GET "));
        // The end, or a reset, within the time.
        let ended = stream.read(&mut [0; 512]);
        assert!(!matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{ended:?}");
    }
    if peer("curl").is_some() {
        assert_eq!(get(&client, "/latest/meta-data/mac").0, 200);
    }
}
