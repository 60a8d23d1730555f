//! What an endpoint may say of itself: which addresses, and on a network that fief serves no router's and no DHCP server's
//! words.

use std::net::IpAddr;

use fief_datapath::ports::Occupant;
use fief_policy::Direction::{Egress, Ingress};
use fief_policy::Identity;
use fief_testkit::Frame;
use fief_testkit::frame::Packet;

use crate::machine::{DEVICE, Machine, occupant};

const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OWN: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OTHERS: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const SECOND: [&str; 2] = ["192.0.2.3", "2001:db8::3"];
const GATEWAY: [&str; 2] = ["192.0.2.254", "fe80::1"];
const NOBODYS: [&str; 2] = ["192.0.2.99", "2001:db8::99"];

/// A port, another one of the same endpoint, and one of somebody else. Nothing is judged.
fn machine() -> Option<Machine> {
    let machine = Machine::dormant()?;
    let ports = machine.policy.ports();
    let own = Occupant { is_guarded: true, owner: 1, ..occupant(1, Identity::FIRST) };
    let others = Occupant { owner: 2, ..own };
    for (device, who) in [(DEVICE, own), (900, own), (901, others)] {
        ports.place(device, &who).unwrap();
    }
    for (addresses, device) in [(OWN, DEVICE), (SECOND, 900), (OTHERS, 901), (GATEWAY, 0)] {
        for address in addresses {
            ports.hold(1, address.parse().unwrap(), device).unwrap();
        }
    }
    Some(machine)
}

fn says(machine: &mut Machine, frame: &[u8]) -> bool {
    machine.policy.try_frame(Egress, frame).unwrap().passes
}

fn from(address: &str) -> Packet {
    let to = if address.contains(':') { "2001:db8:f::9" } else { "198.51.100.9" };
    Frame::new(OWN_MAC, OTHER_MAC).ip(address.parse::<IpAddr>().unwrap(), to.parse::<IpAddr>().unwrap())
}

#[test]
fn nobody_has_anothers_address() {
    let Some(mut machine) = machine() else { return };
    for family in [0, 1] {
        for (who, passes) in [(OWN, true), (SECOND, true), (NOBODYS, true), (OTHERS, false), (GATEWAY, false)]
        {
            let address = who[family];
            assert_eq!(says(&mut machine, &from(address).udp(1, 9, b"")), passes, "{address}");
            let piece = from(address).fragment(7, 16, false).payload(17, &[0; 16]);
            assert_eq!(says(&mut machine, &piece), passes, "{address}, a later fragment");
        }
        // What reaches the endpoint may come from anybody.
        let judged = machine.policy.try_frame(Ingress, &from(OTHERS[family]).udp(1, 9, b"")).unwrap();
        assert!(judged.passes);
    }
    // The same address of another tenant's is another.
    machine.policy.ports().hold(2, "192.0.2.50".parse().unwrap(), 901).unwrap();
    assert!(says(&mut machine, &from("192.0.2.50").udp(1, 9, b"")));
}

#[test]
fn nobody_says_that_he_has_anothers_address() {
    let Some(mut machine) = machine() else { return };
    for (who, passes) in [(OWN, true), (SECOND, true), (NOBODYS, true), (OTHERS, false), (GATEWAY, false)] {
        let address = who[0].parse().unwrap();
        for operation in [1, 2] {
            let arp =
                |mac| Frame::new(OWN_MAC, OTHER_MAC).arp(operation, (mac, address), (OTHER_MAC, address));
            assert_eq!(says(&mut machine, &arp(OWN_MAC)), passes, "{address}");
            assert!(!says(&mut machine, &arp(OTHER_MAC)), "with an Ethernet address that is not the frame's");
        }
        let target = who[1].parse().unwrap();
        let advertisement = from(OWN[1]).neighbour_advertisement(target);
        assert_eq!(says(&mut machine, &advertisement), passes, "{target}");
        let wants = from("::").hops(255).neighbour_solicitation(target);
        assert_eq!(says(&mut machine, &wants), passes, "who asks whether it is taken: {target}");
        assert!(says(&mut machine, &from(OWN[1]).neighbour_solicitation(target)), "who asks for it");
    }
    let cut = Frame::new(OWN_MAC, OTHER_MAC).payload(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1]);
    assert!(!says(&mut machine, &cut));
}

#[test]
fn nobody_plays_the_router_or_the_dhcp_server() {
    let Some(mut machine) = machine() else { return };
    let on_a_switch = Occupant { is_guarded: false, owner: 1, ..occupant(1, Identity::FIRST) };
    let frames = [
        from(OWN[1]).hops(255).icmp(134, 0, &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        from(OWN[1]).hops(255).icmp(137, 0, &[0; 36]),
        from(OWN[0]).udp(67, 68, b"offer"),
        from(OWN[1]).udp(547, 546, b"advertise"),
    ];
    let others = [
        from(OWN[1]).hops(255).icmp(133, 0, &[0; 4]),
        from("0.0.0.0").udp(68, 67, b"discover"),
        from(OWN[1]).udp(546, 547, b"solicit"),
        from(OWN[0]).udp(67, 69, b"something else"),
    ];
    for frame in &frames {
        assert!(!says(&mut machine, frame), "{frame:02x?}");
    }
    for frame in &others {
        assert!(says(&mut machine, frame), "{frame:02x?}");
    }
    // Where fief serves nobody, somebody else may.
    machine.policy.ports().place(DEVICE, &on_a_switch).unwrap();
    for frame in &frames {
        assert!(says(&mut machine, frame), "{frame:02x?}");
    }
}
