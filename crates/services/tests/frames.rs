//! DHCP messages that no honest client sends, as frames.

mod common;

use std::time::Duration;

use common::{Gate, SOON, Store, mac, wait};
use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, Message, MessageType};
use etherparse::PacketBuilder;
use fief_services::{Counters, Services};
use fief_testkit::{Capture, Captured, Lab, eventually, inject};

/// A DISCOVER in a frame from `source` for the client `chaddr`.
fn discover(source: [u8; 6], chaddr: [u8; 6]) -> Vec<u8> {
    let any = [0, 0, 0, 0].into();
    let mut message = Message::new_with_id(0x1122_3344, any, any, any, any, &chaddr);
    message.opts_mut().insert(DhcpOption::MessageType(MessageType::Discover));
    frame(source, &message.to_vec().unwrap())
}

/// A REQUEST of a client that has just started again and remembers its address.
fn reboot(mac: [u8; 6], address: std::net::Ipv4Addr) -> Vec<u8> {
    let any = [0, 0, 0, 0].into();
    let mut message = Message::new_with_id(7, any, any, any, any, &mac);
    message.opts_mut().insert(DhcpOption::MessageType(MessageType::Request));
    message.opts_mut().insert(DhcpOption::RequestedIpAddress(address));
    frame(mac, &message.to_vec().unwrap())
}

fn frame(source: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(source, [0xff; 6]).ipv4([0; 4], [255; 4], 64).udp(68, 67);
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// From the server's port.
fn is_answer(frame: &Captured) -> bool {
    !frame.outgoing
        && frame.bytes[12..14] == [8, 0]
        && frame.bytes[23] == 17
        && frame.bytes[34..36] == [0, 67]
}

#[test]
fn who_speaks_for_another_gets_nothing() {
    let Some(lab) = Lab::new("spoofed") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    gate.serve(&services, gate.config(Some((50, 60))));
    let (client, other) = (gate.client(1), gate.client(2));
    let (seen, others) = (Capture::on(&client, "eth0"), Capture::on(&other, "eth0"));
    let counters = || services.counters("blue/web").unwrap();
    let until = |what: &dyn Fn(Counters) -> bool| {
        eventually(SOON, || if what(counters()) { Ok(()) } else { Err(format!("{:?}", counters())) });
    };

    inject(&client, "eth0", &discover(mac(1), mac(2)));
    until(&|counters| counters.dhcp_spoofed == 1);
    // Of no endpoint, though frame and message agree.
    inject(&client, "eth0", &discover(mac(99), mac(99)));
    until(&|counters| counters.dhcp_unknown == 1);
    for odd in [&[][..], &[1], &[0; 300], &[0xff; 1400]] {
        inject(&client, "eth0", &frame(mac(1), odd));
    }
    until(&|counters| counters.dhcp_malformed == 4);
    wait(Duration::from_millis(250));
    assert_eq!((seen.count(is_answer), others.count(is_answer)), (0, 0));

    // The same in its own name is answered, to it and nobody else.
    inject(&client, "eth0", &discover(mac(1), mac(1)));
    eventually(SOON, || if seen.count(is_answer) == 1 { Ok(()) } else { Err(format!("{:?}", counters())) });
    wait(Duration::from_millis(250));
    assert_eq!((seen.count(is_answer), others.count(is_answer)), (1, 0));
    assert_eq!((counters().dhcp_offers, counters().dhcp_received), (1, 7));
}

#[test]
fn a_flood_of_one_client_is_cut_and_others_are_served() {
    let Some(lab) = Lab::new("flood") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    gate.serve(&services, gate.config(Some((50, 60))));
    let (client, other) = (gate.client(1), gate.client(2));
    let (seen, others) = (Capture::on(&client, "eth0"), Capture::on(&other, "eth0"));
    let flood = vec![discover(mac(1), mac(1)); 100];
    fief_testkit::inject_all(&client, "eth0", &flood);
    inject(&other, "eth0", &discover(mac(2), mac(2)));
    eventually(SOON, || if others.count(is_answer) == 1 { Ok(()) } else { Err("no answer".to_owned()) });
    let counters = services.counters("blue/web").unwrap();
    assert!(counters.dhcp_limited >= 80, "{counters:?}");
    let answered = seen.count(is_answer);
    assert!((16..=20).contains(&answered), "{answered}");
}

#[test]
fn frames_of_another_device_are_not_heard() {
    let Some(lab) = Lab::new("device") else { return };
    let gate = Gate::new(&lab, "web");
    let services = Services::start(Store::default().boxed()).unwrap();
    let config = gate.config(Some((50, 60)));
    let client = gate.client(1);
    let seen = Capture::on(&client, "eth0");
    let elsewhere = fief_services::NetworkConfig { bridge: config.bridge + 1000, ..config.clone() };
    gate.serve(&services, elsewhere);
    inject(&client, "eth0", &discover(mac(1), mac(1)));
    let malformed = || services.counters("blue/web").unwrap().dhcp_malformed;
    eventually(SOON, || if malformed() == 1 { Ok(()) } else { Err("not heard".to_owned()) });
    services.set(config, None);
    inject(&client, "eth0", &discover(mac(1), mac(1)));
    eventually(SOON, || if seen.count(is_answer) == 1 { Ok(()) } else { Err("no answer".to_owned()) });
}

#[test]
fn requests_that_wait_together_are_saved_together() {
    let Some(lab) = Lab::new("batch") else { return };
    let gate = Gate::new(&lab, "web");
    let store = Store::default();
    let services = Services::start(store.boxed()).unwrap();
    let endpoints = (1..=120).map(|last| common::endpoint(last, None)).collect();
    gate.serve(&services, fief_services::NetworkConfig { endpoints, ..gate.config(Some((2, 254))) });
    let client = gate.client(1);
    let counters = || services.counters("blue/web").unwrap();
    let until = |acks: u64, received: u64| {
        let there = |counters: Counters| (counters.dhcp_acks, counters.dhcp_received) == (acks, received);
        eventually(SOON, || if there(counters()) { Ok(()) } else { Err(format!("{:?}", counters())) });
    };
    store.change(|inside| inside.hangs = true);
    inject(&client, "eth0", &reboot(mac(1), common::host(2)));
    eventually(SOON, || if store.inside().waiting { Ok(()) } else { Err("nothing is saved".to_owned()) });
    // Fewer than the buffer of a packet socket holds.
    let others: Vec<_> = (2..=120).map(|last| reboot(mac(last), common::host(last + 1))).collect();
    fief_testkit::inject_all(&client, "eth0", &others);
    until(0, 120);
    store.change(|inside| inside.hangs = false);
    until(120, 120);
    let inside = store.inside();
    assert_eq!((inside.saves, inside.leases.len()), (2, 120));
}
