//! Real DHCP clients, each in a namespace of its own.

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::{Gate, SOON, Store, host, mac, peer, wait};
use fief_services::{NetworkConfig, Services};
use fief_testkit::frame::checksum;
use fief_testkit::{Capture, Captured, Child, Lab, Ns, eventually, inject};
use nix::sys::signal::Signal;

/// What a client runs when something happens: it says what, and takes the address.
const SCRIPT: &str = "#!/bin/sh\n\
    # udhcpc gives an argument, dhclient an environment.\n\
    what=\"${1:-$reason}\" dev=\"$interface\"\n\
    ip=\"${ip:-$new_ip_address}\" mask=\"${mask:-24}\"\n\
    echo \"EVENT $what ip=$ip\"\n\
    case $what in\n\
    bound|renew|BOUND|RENEW|REBIND|REBOOT)\n\
    echo \"ROUTES $staticroutes$new_rfc3442_classless_static_routes\"\n\
    echo \"NAMES $domain$new_domain_name $hostname$new_host_name dns=$dns$new_domain_name_servers\"\n\
    echo \"MTU $mtu$new_interface_mtu\"\n\
    ip addr replace $ip/$mask dev $dev ;;\n\
    deconfig|EXPIRE|FAIL) ip addr flush dev $dev ;;\n\
    esac\n\
    exit 0\n";

const DHCLIENT: &str = "option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;\n\
    request subnet-mask, routers, domain-name, domain-name-servers, host-name, interface-mtu, \
    rfc3442-classless-static-routes;\n\
    timeout 15; retry 2; initial-interval 1; reboot 3;\n";

fn script(lab: &Lab) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = lab.dir().join("script");
    std::fs::write(&path, SCRIPT).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// A udhcpc that goes on until it has a lease, and stays.
fn udhcpc(lab: &Lab, client: &Ns, more: &[&str]) -> Option<Child> {
    let (busybox, script) = (peer("busybox")?, script(lab));
    let mut argv = vec![busybox.as_str(), "udhcpc", "-f", "-i", "eth0", "-s", &script, "-T", "1", "-A", "1"];
    argv.extend(["-O", "staticroutes", "-O", "mtu"]);
    argv.extend(more);
    Some(client.spawn(&argv))
}

fn dhclient(lab: &Lab, client: &Ns) -> Option<Child> {
    let (program, script) = (peer("dhclient")?, script(lab));
    let file = |kind: &str| lab.dir().join(format!("{}.{kind}", client.short())).display().to_string();
    let (conf, leases, pid) = (file("conf"), file("leases"), file("pid"));
    std::fs::write(&conf, DHCLIENT).unwrap();
    Some(
        client.spawn(&[
            &program, "-d", "-v", "-cf", &conf, "-lf", &leases, "-pf", &pid, "-sf", &script, "eth0",
        ]),
    )
}

fn count(child: &Child, text: &str) -> usize {
    child.output().matches(text).count()
}

#[test]
fn udhcpc_gets_a_lease_and_renews_it() {
    let Some(lab) = Lab::new("udhcpc") else { return };
    let gate = Gate::new(&lab, "web");
    let store = Store::default();
    let services = Services::start(store.boxed()).unwrap();
    gate.serve(&services, gate.config(Some((50, 60))));
    let client = gate.client(1);
    let capture = Capture::on(&client, "eth0");
    let Some(mut udhcpc) = udhcpc(&lab, &client, &["-x", "hostname:mine"]) else { return };
    udhcpc.wait_for_output("EVENT bound ip=192.0.2.50", SOON);
    udhcpc.wait_for_output("NAMES web.blue.example app1 dns=192.0.2.1", SOON);
    udhcpc.wait_for_output("MTU 1400", SOON);
    udhcpc.wait_for_output("ROUTES 169.254.169.254/32 192.0.2.1 0.0.0.0/0 192.0.2.1", SOON);

    let lease = store.inside().leases[0].clone();
    assert_eq!((lease.network.as_str(), lease.mac, lease.address), ("blue/web", mac(1), host(50)));
    assert_eq!(lease.hostname.as_deref(), Some("mine"));
    assert_eq!(services.leases(), std::slice::from_ref(&lease));

    // By unicast, over the client's own stack.
    udhcpc.signal(Signal::SIGUSR1);
    udhcpc.wait_for_output("EVENT renew ip=192.0.2.50", SOON);
    // DHCPREQUEST (RFC 2132, 9.6). Now and then a client asks twice, and is answered twice.
    let counters = eventually(SOON, || {
        let counters = services.counters("blue/web").unwrap();
        let asked = capture.count(|frame| frame.outgoing && frame.contains(&[53, 1, 3])) as u64;
        let answered = (counters.dhcp_offers, counters.dhcp_acks, counters.dhcp_naks);
        if asked >= 2 && answered == (1, asked, 0) {
            Ok(counters)
        } else {
            Err(format!("{asked} {answered:?}"))
        }
    });
    assert_eq!((counters.dhcp_malformed, counters.dhcp_spoofed), (0, 0));
    assert!(store.inside().leases[0].expires > lease.expires);

    udhcpc.signal(Signal::SIGUSR2);
    eventually(SOON, || if services.leases().is_empty() { Ok(()) } else { Err("not released".to_owned()) });
}

#[test]
fn dhclient_gets_a_lease_and_renews_it() {
    let Some(lab) = Lab::new("dhclient") else { return };
    let gate = Gate::new(&lab, "web");
    let store = Store::default();
    let services = Services::start(store.boxed()).unwrap();
    let mut config = gate.config(Some((50, 60)));
    // It renews when half of this is over.
    config.dhcp.as_mut().unwrap().lease = Duration::from_secs(10);
    gate.serve(&services, config);
    let client = gate.client(1);
    let Some(mut dhclient) = dhclient(&lab, &client) else { return };
    dhclient.wait_for_output("EVENT BOUND ip=192.0.2.50", SOON);
    dhclient.wait_for_output("NAMES web.blue.example app1 dns=192.0.2.1", SOON);
    dhclient.wait_for_output("ROUTES 32 169 254 169 254 192 0 2 1 0 192 0 2 1", SOON);
    let first = store.inside().leases[0].expires;
    dhclient.wait_for_output("EVENT RENEW ip=192.0.2.50", SOON);
    assert!(store.inside().leases[0].expires > first);
    let counters = services.counters("blue/web").unwrap();
    assert_eq!((counters.dhcp_naks, counters.dhcp_malformed, counters.dhcp_spoofed), (0, 0, 0));
}

#[test]
fn a_reserved_address_is_what_its_client_gets() {
    let Some(lab) = Lab::new("reserved") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    let mut config = gate.config(Some((50, 60)));
    config.endpoints[1].address = Some(host(50));
    gate.serve(&services, config);
    let (one, two) = (gate.client(1), gate.client(2));
    let Some(mut first) = udhcpc(&lab, &one, &["-r", "192.0.2.50"]) else { return };
    first.wait_for_output("EVENT bound ip=192.0.2.51", SOON);
    let mut second = udhcpc(&lab, &two, &[]).unwrap();
    second.wait_for_output("EVENT bound ip=192.0.2.50", SOON);
}

#[test]
fn a_client_that_wants_everybodys_address_gets_its_answer_there() {
    let Some(lab) = Lab::new("broadcast") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    gate.serve(&services, gate.config(Some((50, 60))));
    let client = gate.client(1);
    let capture = Capture::on(&client, "eth0");
    let Some(mut udhcpc) = udhcpc(&lab, &client, &["-B"]) else { return };
    udhcpc.wait_for_output("EVENT bound ip=192.0.2.50", SOON);
    // Ethernet header, and the destination in the IP header behind it.
    let to_all =
        |frame: &Captured| !frame.outgoing && frame.bytes[..6] == mac(1) && frame.bytes[30..34] == [255; 4];
    // An offer and an acknowledgement; who captures may be a moment behind.
    eventually(SOON, || match capture.count(to_all) {
        2 => Ok(()),
        other => Err(format!("{other} answers to everybody")),
    });
}

/// To or from a DHCP server, as its UDP header says, behind Ethernet and an IPv4 header without options.
fn has_ports(frame: &Captured, ports: [u8; 4]) -> bool {
    frame.bytes.get(12..14) == Some(&[8, 0]) && frame.bytes[23] == 17 && frame.bytes[34..38] == ports
}

/// The UDP checksum that an answer carries, and the one that its bytes have (RFC 768).
fn checksums(bytes: &[u8]) -> [u16; 2] {
    let (length, mut datagram) = (u16::from_be_bytes([bytes[38], bytes[39]]), bytes[34..].to_vec());
    datagram[6..8].fill(0);
    let pseudo = [&bytes[26..34], &[0, 17], &length.to_be_bytes(), &datagram].concat();
    [u16::from_be_bytes([bytes[40], bytes[41]]), checksum(&pseudo)]
}

/// One of 65,536 answers has a sum that comes to zero, which RFC 768 wants to be sent as its other name, all ones. BusyBox
/// takes that for a wrong one; and since a client asks with the same number until it is answered, it would get no lease.
#[test]
fn an_answer_whose_sum_comes_to_zero_is_taken() {
    let Some(lab) = Lab::new("zero") else { return };
    let (gate, twin) = (Gate::new(&lab, "web"), Gate::new(&lab, "twin"));
    let services = Services::start(Store::default().boxed()).unwrap();
    let mut config = gate.config(Some((50, 60)));
    let endpoints = std::mem::take(&mut config.endpoints);
    // Nobody is known yet, so that the client goes on asking.
    gate.serve(&services, config.clone());
    let client = gate.client(1);
    let capture = Capture::on(&client, "eth0");
    let Some(mut udhcpc) = udhcpc(&lab, &client, &["-t", "60"]) else { return };
    let asked = eventually(SOON, || {
        let frames = capture.frames();
        let asked = frames.into_iter().find(|frame| frame.outgoing && has_ports(frame, [0, 68, 0, 67]));
        asked.ok_or_else(|| udhcpc.output())
    });

    // The same question, asked on a network of the same kind, has the same answer, but for what is to be found out: the last
    // bytes of a server's address that bring the sum to zero.
    let (asker, answers) = (twin.client(1), [0, 67, 0, 68]);
    let heard = Capture::on(&asker, "eth0");
    let ask = |ntp| {
        heard.clear();
        services.set(NetworkConfig { ntp: vec![ntp], ..twin.config(Some((50, 60))) }, None);
        inject(&asker, "eth0", &asked.bytes);
        eventually(SOON, || {
            let frames = heard.frames();
            let answer = frames.into_iter().find(|frame| !frame.outgoing && has_ports(frame, answers));
            answer.map(|answer| answer.bytes).ok_or_else(|| format!("{:?}", services.counters("blue/twin")))
        })
    };
    twin.serve(&services, twin.config(Some((50, 60))));
    let plain = ask(host(123));
    let [carried, of_bytes] = checksums(&plain);
    assert_eq!(carried, of_bytes, "{plain:?}");
    let at = plain.windows(4).position(|four| four == host(123).octets()).expect("it names the server");
    let zero = (0..=u16::MAX).map(u16::to_be_bytes).find(|last| {
        let mut bytes = plain.clone();
        bytes[at + 2..at + 4].copy_from_slice(last);
        checksums(&bytes)[1] == 0
    });
    let [c, d] = zero.expect("some word brings any sum to zero");
    let ntp = Ipv4Addr::new(192, 0, c, d);
    assert_eq!(checksums(&ask(ntp)), [0, 0], "without a checksum (RFC 768)");

    let config = NetworkConfig { ntp: vec![ntp], endpoints, ..config };
    services.set(config, None);
    udhcpc.wait_for_output("EVENT bound ip=192.0.2.50", SOON);
    let offered =
        |frame: &Captured| !frame.outgoing && has_ports(frame, answers) && frame.contains(&[53, 1, 2]);
    let offers: Vec<_> = capture.frames().into_iter().filter(offered).collect();
    assert!(!offers.is_empty());
    assert!(offers.iter().all(|offer| checksums(&offer.bytes) == [0, 0]), "{offers:?}");
}

#[test]
fn a_restart_keeps_leases() {
    let Some(lab) = Lab::new("restart") else { return };
    let gate = Gate::new(&lab, "web");
    let store = Store::default();
    let services = Services::start(store.boxed()).unwrap();
    gate.serve(&services, gate.config(Some((50, 60))));
    let (one, two) = (gate.client(1), gate.client(2));
    let Some(mut first) = udhcpc(&lab, &one, &[]) else { return };
    first.wait_for_output("EVENT bound ip=192.0.2.50", SOON);
    let before = services.leases();
    drop(services);

    let services = Services::start(store.boxed()).unwrap();
    assert_eq!(services.leases(), before, "known before their network is");
    gate.serve(&services, gate.config(Some((50, 60))));
    let mut second = udhcpc(&lab, &two, &[]).unwrap();
    second.wait_for_output("EVENT bound ip=192.0.2.51", SOON);
    first.signal(Signal::SIGUSR1);
    first.wait_for_output("EVENT renew ip=192.0.2.50", SOON);

    // Away and back again: they are there unless they are to be forgotten.
    services.remove("blue/web", false);
    assert_eq!(services.leases().len(), 2);
    assert_eq!(services.counters("blue/web"), None);
    gate.serve(&services, gate.config(Some((50, 60))));
    first.signal(Signal::SIGUSR1);
    eventually(SOON, || if count(&first, "EVENT renew") == 2 { Ok(()) } else { Err(first.output()) });
    services.remove("blue/web", true);
    assert_eq!(services.leases(), []);
    drop(services);
    assert_eq!(store.inside().leases, []);
}

#[test]
fn no_acknowledgement_leaves_before_its_lease_is_saved() {
    let Some(lab) = Lab::new("saved") else { return };
    let gate = Gate::new(&lab, "web");
    let store = Store::default();
    let services = Services::start(store.boxed()).unwrap();
    gate.serve(&services, gate.config(Some((50, 60))));
    let client = gate.client(1);
    store.change(|inside| inside.fails = true);
    let Some(mut udhcpc) = udhcpc(&lab, &client, &[]) else { return };
    let counters = || services.counters("blue/web").unwrap();
    eventually(SOON, || if counters().dhcp_unsaved >= 2 { Ok(()) } else { Err(format!("{:?}", counters())) });
    assert!(counters().dhcp_offers > 0);
    assert_eq!((counters().dhcp_acks, services.leases().len()), (0, 0));
    assert_eq!(count(&udhcpc, "EVENT bound"), 0, "{}", udhcpc.output());

    // Now the disk is slow: nothing until it is done, and the other services go on meanwhile.
    store.change(|inside| (inside.fails, inside.hangs) = (false, true));
    eventually(SOON, || if store.inside().waiting { Ok(()) } else { Err("nothing is saved".to_owned()) });
    wait(Duration::from_millis(500));
    assert_eq!((counters().dhcp_acks, count(&udhcpc, "EVENT bound")), (0, 0));
    store.change(|inside| inside.hangs = false);
    udhcpc.wait_for_output("EVENT bound ip=192.0.2.50", SOON);
    assert!(counters().dhcp_acks > 0);
}

#[test]
fn an_empty_pool_harms_only_itself() {
    let Some(lab) = Lab::new("empty") else { return };
    let (web, data) = (Gate::new(&lab, "web"), Gate::new(&lab, "data"));
    let services = Services::start(Store::default().boxed()).unwrap();
    web.serve(&services, web.config(Some((50, 50))));
    data.serve(&services, data.config(Some((50, 50))));
    let (one, two, other) = (web.client(1), web.client(2), data.client(2));
    let Some(mut first) = udhcpc(&lab, &one, &[]) else { return };
    first.wait_for_output("EVENT bound ip=192.0.2.50", SOON);
    let second = udhcpc(&lab, &two, &[]).unwrap();
    let exhausted = || services.counters("blue/web").unwrap().dhcp_exhausted;
    eventually(SOON, || if exhausted() >= 2 { Ok(()) } else { Err(second.output()) });
    // The same client on another network, and the one that has a lease.
    let mut there = udhcpc(&lab, &other, &[]).unwrap();
    there.wait_for_output("EVENT bound ip=192.0.2.50", SOON);
    first.signal(Signal::SIGUSR1);
    first.wait_for_output("EVENT renew ip=192.0.2.50", SOON);
    assert_eq!(count(&second, "EVENT bound"), 0);
    // A wider range is enough to mend it.
    services.set(web.config(Some((50, 51))), None);
    eventually(SOON, || {
        if count(&second, "EVENT bound ip=192.0.2.51") == 1 { Ok(()) } else { Err(second.output()) }
    });
}

#[test]
fn the_range_changes_while_a_client_renews() {
    let Some(lab) = Lab::new("modify") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    gate.serve(&services, gate.config(Some((50, 60))));
    let client = gate.client(1);
    let capture = Capture::on(&client, "eth0");
    let Some(mut udhcpc) = udhcpc(&lab, &client, &[]) else { return };
    udhcpc.wait_for_output("EVENT bound ip=192.0.2.50", SOON);
    for round in 1..=10 {
        udhcpc.signal(Signal::SIGUSR1);
        let renewed = || count(&udhcpc, "EVENT renew ip=192.0.2.50");
        eventually(SOON, || {
            for last in 51..=90 {
                services.set(gate.config(Some((50, last))), None);
            }
            if renewed() >= round { Ok(()) } else { Err(udhcpc.output()) }
        });
        // As much as a client may send.
        wait(Duration::from_millis(500));
    }
    // Everything that left the client arrived and was answered: IPv4, UDP, to port 67.
    let asks = |frame: &Captured| {
        frame.outgoing
            && frame.bytes[12..14] == [8, 0]
            && frame.bytes[23] == 17
            && frame.bytes[36..38] == [0, 67]
    };
    let sent = capture.count(asks) as u64;
    let counters = services.counters("blue/web").unwrap();
    assert!(sent >= 12, "{sent}");
    assert_eq!((counters.dhcp_received, counters.dhcp_offers + counters.dhcp_acks), (sent, sent));

    // A range without its address moves it when it renews.
    services.set(gate.config(Some((80, 90))), None);
    assert_eq!(services.leases()[0].address, host(50));
    udhcpc.signal(Signal::SIGUSR1);
    udhcpc.wait_for_output("EVENT bound ip=192.0.2.80", SOON);
}

#[test]
fn two_networks_with_the_same_addresses_are_apart() {
    let Some(lab) = Lab::new("twins") else { return };
    let (web, data) = (Gate::new(&lab, "web"), Gate::new(&lab, "data"));
    let services = Services::start(Store::default().boxed()).unwrap();
    web.serve(&services, web.config(Some((50, 60))));
    let mut config = data.config(Some((50, 60)));
    config.domain = "data.red.example".to_owned();
    data.serve(&services, config);
    // The same Ethernet address on both, and another before it on one.
    let (first, second, third) = (web.client(1), data.client(1), data.client(2));
    let Some(mut before) = udhcpc(&lab, &third, &[]) else { return };
    before.wait_for_output("EVENT bound ip=192.0.2.50", SOON);
    for (client, address, domain) in
        [(&first, "192.0.2.50", "web.blue.example"), (&second, "192.0.2.51", "data.red.example")]
    {
        let mut udhcpc = udhcpc(&lab, client, &[]).unwrap();
        udhcpc.wait_for_output(&format!("EVENT bound ip={address}"), SOON);
        udhcpc.wait_for_output(&format!("NAMES {domain} app1"), SOON);
    }
    let leases = services.leases();
    let places: Vec<_> = leases.iter().map(|lease| (lease.network.as_str(), lease.address)).collect();
    assert_eq!(places, [("blue/data", host(50)), ("blue/data", host(51)), ("blue/web", host(50))]);
    services.remove("blue/data", true);
    assert_eq!(services.leases().len(), 1);
}
