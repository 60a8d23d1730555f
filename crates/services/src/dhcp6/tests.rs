//! Every message type, what must not be answered, and bytes that are no message.

use std::time::Duration;

use dhcproto::Decodable;
use dhcproto::v6::OptionCode;
use proptest::prelude::*;

use super::*;
use crate::config::Dhcp;

const CLIENT: &[u8] = &[0, 4, 1, 2, 3, 4];
const OWN: &str = "2001:db8::11";

fn endpoint(address6: Option<&str>) -> EndpointConfig {
    EndpointConfig {
        name: "app1".to_owned(),
        tenant: "blue".to_owned(),
        mac: [2, 0, 0, 0, 0, 1],
        address: None,
        address6: address6.map(|address| address.parse().unwrap()),
        default_route: true,
        labels: Default::default(),
        hostname: String::new(),
    }
}

fn config() -> NetworkConfig {
    NetworkConfig {
        key: "blue/web".to_owned(),
        namespace: 1,
        gateway: [192, 0, 2, 1].into(),
        subnet: "192.0.2.0/24".parse().unwrap(),
        gateway6: Some("2001:db8::1".parse().unwrap()),
        subnet6: Some("2001:db8::/64".parse().unwrap()),
        leads_out6: false,
        dhcp: Some(Dhcp { range: None, lease: Duration::from_secs(600) }),
        domain: "web.blue.example".to_owned(),
        names: Default::default(),
        ntp: Vec::new(),
        mtu: None,
        upstreams: Vec::new(),
        endpoints: Vec::new(),
        bridge: 0,
        mac: [2, 0, 0, 0, 0, 99],
    }
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn message(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    [&[kind, 7, 8, 9][..], &options.concat()].concat()
}

fn client() -> Vec<u8> {
    option(1, CLIENT)
}

fn server() -> Vec<u8> {
    option(2, &duid(&config()))
}

/// An association that asks for these addresses.
fn addresses(addresses: &[&str]) -> Vec<u8> {
    let inner = addresses.iter().flat_map(|address| {
        let address: Ipv6Addr = address.parse().unwrap();
        option(5, &[&address.octets()[..], &[0; 8]].concat())
    });
    option(3, &[0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(inner).collect::<Vec<u8>>())
}

fn ask(address: Option<&str>, bytes: &[u8]) -> Option<Message> {
    answer(&config(), &endpoint(address), bytes).map(|reply| Message::from_bytes(&reply).unwrap())
}

/// The status of the association, and its addresses with their lifetimes.
fn given(reply: &Message) -> (Option<Status>, Vec<(String, u32)>) {
    let Some(DhcpOption::IANA(ia)) = reply.opts().get(OptionCode::IANA) else { panic!("{reply:?}") };
    assert_eq!((ia.id, ia.t1, ia.t2), (5, 300, 480));
    let addresses = ia.opts.iter().filter_map(|option| match option {
        DhcpOption::IAAddr(it) => Some((it.addr.to_string(), it.valid_life)),
        _ => None,
    });
    let status = match ia.opts.get(OptionCode::StatusCode) {
        Some(DhcpOption::StatusCode(code)) => Some(code.status),
        _ => None,
    };
    (status, addresses.collect())
}

fn status_of(reply: &Message) -> Option<Status> {
    match reply.opts().get(OptionCode::StatusCode) {
        Some(DhcpOption::StatusCode(code)) => Some(code.status),
        _ => None,
    }
}

fn own() -> (Option<Status>, Vec<(String, u32)>) {
    (None, vec![(OWN.to_owned(), 600)])
}

#[test]
fn an_endpoint_gets_its_address_and_no_other() {
    let solicit = [client(), addresses(&[])];
    let offer = ask(Some(OWN), &message(1, &solicit)).unwrap();
    assert_eq!((offer.msg_type(), offer.xid()), (MessageType::Advertise, [7, 8, 9]));
    assert_eq!(given(&offer), own());
    assert_eq!(offer.opts().get(OptionCode::ClientId), Some(&DhcpOption::ClientId(CLIENT.to_vec())));
    assert_eq!(offer.opts().get(OptionCode::ServerId), Some(&DhcpOption::ServerId(duid(&config()))));
    let rapid = ask(Some(OWN), &message(1, &[client(), option(14, &[]), addresses(&[])])).unwrap();
    assert_eq!((rapid.msg_type(), given(&rapid)), (MessageType::Reply, own()));
    assert!(rapid.opts().get(OptionCode::RapidCommit).is_some());
    for kind in [3, 5] {
        let reply = ask(Some(OWN), &message(kind, &[client(), server(), addresses(&[OWN])])).unwrap();
        assert_eq!((reply.msg_type(), given(&reply)), (MessageType::Reply, own()), "{kind}");
    }
    // One that it had before, or would like to have, ends.
    let reply = ask(Some(OWN), &message(6, &[client(), addresses(&["2001:db8::99"])])).unwrap();
    let (status, mut addresses) = given(&reply);
    addresses.sort();
    assert_eq!((status, addresses), (None, vec![(OWN.to_owned(), 600), ("2001:db8::99".to_owned(), 0)]));
}

#[test]
fn an_endpoint_without_an_address_is_told_so() {
    for (kind, options, expected) in [
        (1, vec![client(), addresses(&[])], Status::NoAddrsAvail),
        (3, vec![client(), server(), addresses(&[])], Status::NoAddrsAvail),
        (5, vec![client(), server(), addresses(&[])], Status::NoBinding),
        (6, vec![client(), addresses(&[])], Status::NoBinding),
    ] {
        let bytes = message(kind, &options);
        assert_eq!(given(&ask(None, &bytes).unwrap()), (Some(expected), vec![]), "{kind}");
        assert_eq!(given(&ask(Some("2001:db9::1"), &bytes).unwrap()).0, Some(expected), "one of elsewhere");
        assert_eq!(given(&ask(Some(OWN), &bytes).unwrap()), own(), "the control of {kind}");
    }
}

#[test]
fn the_name_server_for_those_that_have_an_address() {
    for options in [vec![], vec![client()], vec![client(), server()]] {
        let reply = ask(None, &message(11, &options)).unwrap();
        let servers = DhcpOption::DomainNameServers(vec!["2001:db8::1".parse().unwrap()]);
        assert_eq!(reply.opts().get(OptionCode::DomainNameServers), Some(&servers));
        let Some(DhcpOption::DomainSearchList(names)) = reply.opts().get(OptionCode::DomainSearchList) else {
            panic!("{reply:?}")
        };
        assert_eq!(names[0].to_string().trim_end_matches('.'), "web.blue.example");
    }
}

#[test]
fn confirm_release_and_decline() {
    let confirm = |asked: &[&str]| ask(Some(OWN), &message(4, &[client(), addresses(asked)]));
    assert_eq!(status_of(&confirm(&[OWN]).unwrap()), Some(Status::Success));
    assert_eq!(status_of(&confirm(&[OWN, "2001:db9::1"]).unwrap()), Some(Status::NotOnLink));
    assert_eq!(confirm(&[]), None, "there is nothing to confirm");
    for kind in [8, 9] {
        let reply = ask(Some(OWN), &message(kind, &[client(), server(), addresses(&[OWN])])).unwrap();
        assert_eq!(status_of(&reply), Some(Status::Success));
    }
}

#[test]
fn what_is_not_answered() {
    let other = option(2, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 98]);
    let refused =
        |kind, options: &[Vec<u8>]| assert_eq!(ask(Some(OWN), &message(kind, options)), None, "{kind}");
    refused(1, &[addresses(&[])]);
    refused(1, &[client(), server(), addresses(&[])]);
    for kind in [3, 5, 8, 9] {
        refused(kind, &[client(), addresses(&[OWN])]);
        refused(kind, &[client(), other.clone(), addresses(&[OWN])]);
        refused(kind, &[server(), addresses(&[OWN])]);
    }
    refused(6, &[client(), server(), addresses(&[OWN])]);
    refused(11, &[other]);
    refused(11, &[addresses(&[])]);
    // Messages of servers and relays, and none at all.
    for kind in [2, 7, 10, 12, 13, 14, 99] {
        refused(kind, &[client(), server(), addresses(&[OWN])]);
        refused(kind, &[client(), addresses(&[OWN])]);
    }
    refused(1, &[option(1, &[]), addresses(&[])]);
    refused(1, &[client(), option(3, &[0; 11])]);
    let whole = message(1, &[client(), addresses(&[OWN])]);
    assert!((1..4).chain(5..14).chain(15..whole.len()).all(|end| ask(Some(OWN), &whole[..end]).is_none()));
    let closed = |config: NetworkConfig| answer(&config, &endpoint(Some(OWN)), &whole).is_none();
    assert!(closed(NetworkConfig { dhcp: None, ..config() }));
    assert!(closed(NetworkConfig { subnet6: None, ..config() }));
    assert!(!closed(config()), "the control");
}

#[test]
fn only_datagrams_of_the_link_to_its_servers() {
    let build = |source: &str, to: &str, port| {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let builder = etherparse::PacketBuilder::ipv6(address(source), address(to), 1).udp(546, port);
        let mut packet = Vec::new();
        builder.write(&mut packet, b"hello").unwrap();
        packet
    };
    let good = build("fe80::2", "ff02::1:2", 547);
    assert_eq!(datagram(&good), Some(("fe80::2".parse().unwrap(), &b"hello"[..])));
    assert!((0..good.len()).all(|end| datagram(&good[..end]).is_none()));
    for (source, to, port) in
        [("2001:db8::2", "ff02::1:2", 547), ("fe80::2", "fe80::1", 547), ("fe80::2", "ff02::1:2", 546)]
    {
        assert_eq!(datagram(&build(source, to, port)), None, "{source} {to} {port}");
    }
    let sent = packet("fe80::2".parse().unwrap(), b"hello").unwrap();
    assert_eq!(sent[8..24], crate::ROUTER.octets());
    assert_ne!(sent[46..48], [0, 0], "IPv6 has no datagrams without a checksum");
}

proptest! {
    #[test]
    fn no_bytes_break_it(kind in 0u8..16, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for prefix in [vec![], client(), [client(), server()].concat()] {
            let bytes = [&[kind, 1, 2, 3][..], &prefix, &bytes].concat();
            if let Some(reply) = answer(&config(), &endpoint(Some(OWN)), &bytes) {
                prop_assert!(reply.len() <= 1232 && Message::from_bytes(&reply).is_ok());
            }
        }
        datagram(&bytes);
    }
}
