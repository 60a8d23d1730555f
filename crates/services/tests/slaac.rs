//! Endpoints that give themselves IPv6 addresses: the kernel's own SLAAC (RFC 4862), and frames that no kernel sends.

mod common;

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use common::{Gate, SOON, Store, mac, peer, wait};
use fief_services::{NetworkConfig, Services};
use fief_testkit::{Capture, Captured, Frame, Lab, Ns, eventually, inject, inject_all};

/// A client whose kernel takes advertisements. It has the gateway behind it already.
fn listening(gate: &Gate<'_>, last: u8) -> Ns {
    let client = gate.lab.ns(&format!("{}-s{last}", gate.ns.short()));
    let mac = mac(last).map(|byte| format!("{byte:02x}")).join(":");
    for (name, value) in
        [("accept_ra", 2), ("autoconf", 1), ("disable_ipv6", 0), ("addr_gen_mode", 0), ("use_tempaddr", 0)]
    {
        client.set_sysctl(&format!("net.ipv6.conf.default.{name}"), value);
    }
    gate.ns.ip(&format!(
        "link add s{last} type veth peer name eth0 netns {} address {mac}\nlink set s{last} master br0 up\n",
        client.name()
    ));
    client.ip("link set eth0 up\n");
    client
}

/// The address that Ethernet address 02:00:00:00:00:LAST makes of 2001:db8::/64 (RFC 4291, appendix A).
fn made(last: u8) -> String {
    format!("2001:db8::ff:fe00:{last:x}")
}

fn addresses(client: &Ns) -> String {
    client.run(&["ip", "-6", "addr", "show", "dev", "eth0", "scope", "global"]).ok().stdout
}

#[track_caller]
fn has(client: &Ns, address: &str) {
    eventually(SOON, || {
        let shown = addresses(client);
        if shown.contains(address) && !shown.contains("tentative") { Ok(()) } else { Err(shown) }
    });
}

#[track_caller]
fn reaches(client: &Ns, address: &str) {
    eventually(SOON, || {
        let output = client.run(&["ping", "-6", "-n", "-c", "1", "-W", "2", address]);
        if output.success() { Ok(()) } else { Err(output.to_string()) }
    });
}

fn is_advertisement(frame: &Captured) -> bool {
    frame.bytes.len() > 54
        && frame.bytes[12..14] == [0x86, 0xdd]
        && frame.bytes[20] == 58
        && frame.bytes[54] == 134
}

/// A router solicitation as it stands behind the IPv6 header; the checksum is the kit's.
fn solicitation(source: &str, hops: u8) -> Vec<u8> {
    let all_routers = [0x33, 0x33, 0, 0, 0, 2];
    Frame::new(mac(1), all_routers).ip(source, "ff02::2").hops(hops).icmp(133, 0, &[0; 4])
}

#[test]
fn a_kernel_makes_itself_an_address_and_reaches_its_network() {
    let Some(lab) = Lab::new("slaac") else { return };
    let (web, data) = (Gate::new(&lab, "web"), Gate::new(&lab, "data"));
    let services = Services::start(Store::default().boxed()).unwrap();
    web.serve(&services, web.settled_config());
    // The same prefix, which is another tenant's.
    let mut config = NetworkConfig { domain: "data.red.example".to_owned(), ..data.settled_config() };
    config.endpoints.truncate(1);
    data.serve(&services, config);

    let (client, sibling) = (listening(&web, 1), listening(&web, 2));
    let stranger = listening(&data, 3);
    for (client, last) in [(&client, 1), (&sibling, 2), (&stranger, 3)] {
        has(client, &made(last));
        reaches(client, "2001:db8::1");
    }
    reaches(&client, &made(2));
    let other = client.run(&["ping", "-6", "-n", "-c", "1", "-W", "2", &made(3)]);
    assert!(!other.success(), "the other network's: {other}");
    // It is its own network's that it is not reached from: the control.
    let near = listening(&data, 4);
    has(&near, &made(4));
    reaches(&near, &made(3));

    // As it was advertised: on the link, with the MTU, and no way out.
    let routes = client.run(&["ip", "-6", "route", "show"]).ok().stdout;
    assert!(routes.contains("2001:db8::/64 dev eth0 proto kernel"), "{routes}");
    assert!(!routes.contains("default"), "{routes}");
    assert_eq!(client.sysctl("net.ipv6.conf.eth0.mtu"), "1400");
    let life = addresses(&client);
    assert!(life.contains("valid_lft 25919") || life.contains("valid_lft 2592000"), "{life}");

    // Names are resolved by the server that the advertisement names: those of endpoints with an address of their own.
    let Some(dig) = peer("dig") else { return };
    let ask = |client: &Ns, name: &str| {
        client.run(&[&dig, "+short", "+tries=1", "+time=8", "@2001:db8::1", name, "AAAA"]).ok().stdout
    };
    assert_eq!(ask(&client, "app2.web.blue.example").trim(), "2001:db8::12");
    assert_eq!(ask(&stranger, "app1.data.red.example").trim(), "2001:db8::11");
    assert_eq!(ask(&stranger, "app2.data.red.example").trim(), "", "only the other network has it");
}

#[test]
fn a_network_that_leads_out_is_a_default_route_until_it_is_none() {
    let Some(lab) = Lab::new("ra-out") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    let config = NetworkConfig { leads_out6: true, ..gate.settled_config() };
    gate.serve(&services, config.clone());
    let client = listening(&gate, 1);
    let shows = |wanted: bool| {
        eventually(SOON, || {
            let routes = client.run(&["ip", "-6", "route", "show", "default"]).ok().stdout;
            if routes.contains("via fe80::1 dev eth0 proto ra") == wanted { Ok(()) } else { Err(routes) }
        });
    };
    shows(true);
    // Nobody asks; what has changed is said.
    services.set(NetworkConfig { leads_out6: false, ..config.clone() }, None);
    shows(false);
    services.set(config, None);
    shows(true);
    has(&client, &made(1));
}

#[test]
fn a_network_without_ipv6_advertises_nothing() {
    let Some(lab) = Lab::new("ra-none") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    let config = gate.settled_config();
    let without = NetworkConfig { subnet6: None, gateway6: None, ..config.clone() };
    gate.serve(&services, without);
    let client = listening(&gate, 1);
    let capture = Capture::on(&client, "eth0");
    // Its kernel asks three times, in four second steps (RFC 4861, 10).
    wait(Duration::from_secs(5));
    assert_eq!(capture.count(is_advertisement), 0);
    assert!(!addresses(&client).contains("inet6"));
    // The same with IPv6: the control.
    services.set(config, None);
    has(&client, &made(1));
    // Who captures may be a moment behind.
    eventually(SOON, || {
        if capture.count(is_advertisement) > 0 { Ok(()) } else { Err("no advertisement".to_owned()) }
    });
}

#[test]
fn a_flood_of_solicitations_has_few_answers_and_strange_ones_have_none() {
    let Some(lab) = Lab::new("ra-flood") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    gate.serve(&services, gate.settled_config());
    let client = gate.client(1);
    client.set_sysctl("net.ipv6.conf.all.disable_ipv6", 1);
    let counters = || services.counters("blue/web").unwrap();
    let sent = |least: u64| {
        eventually(SOON, || {
            if counters().ra_sent >= least {
                Ok(counters().ra_sent)
            } else {
                Err(format!("{:?}", counters()))
            }
        })
    };
    sent(1);
    // Strange ones first: through a router, and from somewhere else.
    let before = counters();
    inject(&client, "eth0", &solicitation("fe80::2", 254));
    inject(&client, "eth0", &solicitation("2001:db8:1::2", 255));
    eventually(SOON, || {
        let ignored = counters().ra_ignored - before.ra_ignored;
        if ignored == 2 { Ok(()) } else { Err(format!("{:?}", counters())) }
    });
    assert_eq!(counters().ra_asked, before.ra_asked);

    let capture = Capture::on(&client, "eth0");
    let before = counters();
    let flood: Vec<Vec<u8>> =
        ["fe80::2", "::", "2001:db8::77"].repeat(40).iter().map(|source| solicitation(source, 255)).collect();
    let began = Instant::now();
    for _ in 0..8 {
        inject_all(&client, "eth0", &flood);
        wait(Duration::from_millis(500));
    }
    eventually(SOON, || {
        let asked = counters().ra_asked - before.ra_asked;
        if asked == 960 { Ok(()) } else { Err(format!("{asked} of 960")) }
    });
    let answers = counters().ra_sent - before.ra_sent;
    // One in three seconds, with one at each end.
    let most = began.elapsed().as_secs() / 3 + 2;
    assert!((1..=most).contains(&answers), "{answers} in {:?}", began.elapsed());
    let seen: Vec<Captured> = capture.frames().into_iter().filter(is_advertisement).collect();
    assert!(seen.len() as u64 >= answers, "{}", seen.len());
    // From an address of the link, with the hop limit that says so.
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    for frame in seen {
        assert_eq!(frame.bytes[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame.bytes[21], 255);
        assert_eq!(frame.bytes[22..38], "fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(frame.bytes[38..54], all_nodes.octets());
        assert_eq!(frame.bytes[6..12], gate.ns.mac("br0"));
        // The kernel has filled in the checksum: the kit's own is the same over what follows.
        assert_ne!(frame.bytes[56..58], [0, 0]);
    }
}
