//! Own names, other names, and bytes that are no query.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use proptest::prelude::*;

use super::question::{disguised, end, restored};
use super::*;
use crate::config::{EndpointConfig, NetworkConfig};

fn endpoint(last: u8, name: &str, hostname: &str, fixed: bool) -> EndpointConfig {
    EndpointConfig {
        name: name.to_owned(),
        tenant: "blue".to_owned(),
        mac: [2, 0, 0, 0, 0, last],
        address: fixed.then(|| [192, 0, 2, last].into()),
        address6: fixed.then(|| format!("2001:db8::{last}").parse().unwrap()),
        default_route: true,
        labels: Default::default(),
        hostname: hostname.to_owned(),
    }
}

fn config(upstream: bool) -> NetworkConfig {
    let names = [("gw", "192.0.2.1"), ("deep.inside", "192.0.2.9"), ("Mirror.example.org", "192.0.2.8")];
    NetworkConfig {
        key: "blue/web".to_owned(),
        namespace: 1,
        gateway: [192, 0, 2, 1].into(),
        subnet: "192.0.2.0/24".parse().unwrap(),
        gateway6: None,
        subnet6: Some("2001:db8::/64".parse().unwrap()),
        leads_out6: false,
        dhcp: None,
        domain: "web.blue.example".to_owned(),
        names: names.map(|(name, address)| (name.to_owned(), vec![address.parse().unwrap()])).into(),
        ntp: Vec::new(),
        mtu: None,
        upstreams: upstream.then(|| "192.0.2.53:53".parse().unwrap()).into_iter().collect(),
        endpoints: vec![
            endpoint(20, "app1", "front", true),
            endpoint(21, "app2", "app1", false),
            endpoint(22, "app3", "gw", false),
            endpoint(23, "gw", "", true),
        ],
        bridge: 0,
        mac: [0; 6],
    }
}

fn view(upstream: bool) -> View {
    // The second endpoint has a lease.
    View::new(&config(upstream), |mac| (mac[5] == 21).then(|| [192, 0, 2, 121].into()))
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn reply(view: &View, query: &Message) -> Message {
    match answer(view, Transport::Udp, &query.to_vec().unwrap()) {
        Answer::Reply(bytes) => {
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(
                (reply.metadata.id, reply.queries.as_slice()),
                (query.metadata.id, query.queries.as_slice())
            );
            reply
        }
        other => panic!("{other:?}"),
    }
}

fn ask(view: &View, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>, Vec<String>) {
    let reply = reply(view, &query(name, kind));
    let zones = reply.authorities.iter().map(|record| record.name.to_ascii()).collect();
    let answers = reply.answers.iter().map(|record| record.data.to_string()).collect();
    (reply.metadata.response_code, answers, zones)
}

const NONE: [&str; 0] = [];

#[track_caller]
fn expect(name: &str, kind: RecordType, code: ResponseCode, answers: &[&str], zones: &[&str]) {
    // With and without servers for other names: a network's own are the same.
    for upstream in [false, true] {
        let (found, data, authorities) = ask(&view(upstream), name, kind);
        assert_eq!((found, data.as_slice(), authorities.as_slice()).0, code, "{name} {kind}");
        assert_eq!(data, answers, "{name} {kind}");
        assert_eq!(authorities, zones, "{name} {kind}");
    }
}

#[test]
fn own_names() {
    use RecordType as T;
    use ResponseCode::{NXDomain, NoError};
    let zone = ["web.blue.example."];
    expect("app1.web.blue.example.", T::A, NoError, &["192.0.2.20"], &NONE);
    expect("APP1.Web.Blue.Example.", T::A, NoError, &["192.0.2.20"], &NONE);
    expect("app1.web.blue.example.", T::AAAA, NoError, &["2001:db8::20"], &NONE);
    expect("app1.", T::A, NoError, &["192.0.2.20"], &NONE);
    expect("app1.web.blue.example.", T::MX, NoError, &NONE, &zone);
    expect("app1.", T::MX, NoError, &NONE, &["app1."]);
    expect("front.web.blue.example.", T::A, NoError, &["192.0.2.20"], &NONE);
    expect("app2.", T::A, NoError, &["192.0.2.121"], &NONE);
    expect("app3.", T::A, NoError, &NONE, &["app3."]);
    expect("gw.web.blue.example.", T::A, NoError, &["192.0.2.1"], &NONE);
    expect("nobody.web.blue.example.", T::A, NXDomain, &NONE, &zone);
    expect("a.app1.web.blue.example.", T::A, NXDomain, &NONE, &zone);
    expect("nobody.", T::A, NXDomain, &NONE, &["."]);
    expect("deep.inside.web.blue.example.", T::A, NoError, &["192.0.2.9"], &NONE);
    expect("inside.web.blue.example.", T::A, NoError, &NONE, &zone);
    expect("web.blue.example.", T::A, NoError, &NONE, &zone);
    expect("web.blue.example.", T::NS, NoError, &["web.blue.example."], &NONE);
    expect("mirror.example.org.", T::A, NoError, &["192.0.2.8"], &NONE);
    expect("mirror.example.org.", T::AAAA, NoError, &NONE, &["mirror.example.org."]);
}

#[test]
fn reverse_names() {
    use ResponseCode::{NXDomain, NoError};
    let of = |address: &str| Name::from(address.parse::<IpAddr>().unwrap()).to_ascii();
    let ptr = RecordType::PTR;
    expect(&of("192.0.2.20"), ptr, NoError, &["app1.web.blue.example."], &NONE);
    expect(&of("192.0.2.121"), ptr, NoError, &["app2.web.blue.example."], &NONE);
    expect(&of("2001:db8::20"), ptr, NoError, &["app1.web.blue.example."], &NONE);
    expect(&of("192.0.2.8"), ptr, NoError, &["mirror.example.org."], &NONE);
    expect(&of("192.0.2.20"), RecordType::A, NoError, &NONE, &["2.0.192.in-addr.arpa."]);
    expect(&of("192.0.2.99"), ptr, NXDomain, &NONE, &["2.0.192.in-addr.arpa."]);
    expect("2.0.192.in-addr.arpa.", ptr, NoError, &NONE, &["2.0.192.in-addr.arpa."]);
    let elsewhere = query(&of("198.51.100.1"), ptr).to_vec().unwrap();
    assert_eq!(answer(&view(true), Transport::Udp, &elsewhere), Answer::Forward);
}

#[test]
fn other_names_are_forwarded_or_refused() {
    for (name, kind) in [
        ("example.org.", RecordType::A),
        ("app1.web.red.example.", RecordType::A),
        ("notweb.blue.example.", RecordType::A),
        ("xweb.blue.example.", RecordType::A),
        ("org.", RecordType::DS),
        (".", RecordType::NS),
    ] {
        let bytes = query(name, kind).to_vec().unwrap();
        assert_eq!(answer(&view(true), Transport::Udp, &bytes), Answer::Forward, "{name}");
        assert_eq!(ask(&view(false), name, kind).0, ResponseCode::Refused, "{name}");
    }
}

#[test]
fn an_empty_domain_has_names_of_one_label() {
    let config = NetworkConfig { domain: String::new(), ..config(true) };
    let view = View::new(&config, |_| None);
    assert_eq!(ask(&view, "app1.", RecordType::A).1, ["192.0.2.20"]);
    assert_eq!(ask(&view, "20.2.0.192.in-addr.arpa.", RecordType::PTR).1, ["app1."]);
    let long = query("app1.web.blue.example.", RecordType::A).to_vec().unwrap();
    assert_eq!(answer(&view, Transport::Udp, &long), Answer::Forward);
}

#[test]
fn what_is_no_plain_query() {
    let view = view(true);
    let code = |query: &Message| reply(&view, query).metadata.response_code;
    let good = query("app1.", RecordType::A);
    assert_eq!(code(&good), ResponseCode::NoError);
    let mut chaos = good.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    assert_eq!(code(&query("web.blue.example.", RecordType::AXFR)), ResponseCode::Refused);
    let mut update = good.clone();
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut two = good.clone();
    two.add_query(Query::query(Name::from_ascii("app2.").unwrap(), RecordType::A));
    assert_eq!(code(&two), ResponseCode::FormErr);
    let mut newer = good.clone();
    newer.set_edns(Edns::new()).edns.as_mut().unwrap().set_version(1);
    assert_eq!(u16::from(code(&newer)), u16::from(ResponseCode::BADVERS));
    let mut bytes = good.to_vec().unwrap();
    bytes.truncate(bytes.len() - 1);
    assert!(matches!(answer(&view, Transport::Udp, &bytes), Answer::Reply(reply) if reply[3] & 15 == 1));
    let mut answered = good.to_vec().unwrap();
    answered[2] |= 0x80;
    assert_eq!(answer(&view, Transport::Udp, &answered), Answer::Drop);
    assert_eq!(answer(&view, Transport::Udp, &answered[..11]), Answer::Drop);
}

#[test]
fn an_answer_too_long_for_a_datagram_is_cut() {
    let many = (1..=200).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    let mut config = config(false);
    config.names.insert("many".to_owned(), many);
    let view = View::new(&config, |_| None);
    let mut asked = query("many.", RecordType::A);
    let udp = reply(&view, &asked);
    assert!(udp.metadata.truncation && udp.answers.is_empty());
    asked.set_edns(Edns::new()).edns.as_mut().unwrap().set_max_payload(4096);
    let udp = reply(&view, &asked);
    assert!(udp.metadata.truncation && udp.edns.is_some(), "paths cut datagrams of that size");
    let Answer::Reply(tcp) = answer(&view, Transport::Tcp, &asked.to_vec().unwrap()) else { panic!() };
    assert_eq!(Message::from_vec(&tcp).unwrap().answers.len(), 200);
}

#[test]
fn only_the_answer_to_what_was_sent_counts() {
    let mut coins = [true, false].into_iter().cycle();
    let asked = query("Www.Example.Org.", RecordType::A).to_vec().unwrap();
    let sent = disguised(&asked, 7, || coins.next().unwrap()).unwrap();
    assert_ne!(sent[12..], asked[12..]);
    assert!(sent[12..].eq_ignore_ascii_case(&asked[12..]));
    let mut right = sent.clone();
    right[2] |= 0x80;
    let mut back = asked.clone();
    back[2] |= 0x80;
    assert_eq!(restored(&asked, &sent, right.clone()), Some(back));
    assert_eq!(restored(&asked, &sent, sent.clone()), None, "a question is no answer");
    for at in [0, 1, 13, sent.len() - 1] {
        let mut forged = right.clone();
        forged[at] ^= 0x20;
        assert_eq!(restored(&asked, &sent, forged), None, "byte {at}");
    }
}

#[test]
fn what_an_upstream_sends_too_long_becomes_a_request_for_tcp() {
    let asked = query("www.example.org.", RecordType::A).to_vec().unwrap();
    let mut long = asked.clone();
    long[2] |= 0x80;
    long[7] = 40;
    long.resize(700, 0);
    assert_eq!(fitted(&asked, Transport::Tcp, long.clone()), Some(long.clone()));
    let short = Message::from_vec(&fitted(&asked, Transport::Udp, long).unwrap()).unwrap();
    assert!(short.metadata.truncation && short.answers.is_empty());
    let failed = Message::from_vec(&failure(&asked).unwrap()).unwrap();
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_break_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), question: bool) {
        // Half of them with a header that gets past the first look.
        if question && bytes.len() > 12 {
            let extra = bytes[11] & 1;
            bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, extra]);
        }
        let view = View::default();
        for transport in [Transport::Udp, Transport::Tcp] {
            drop(answer(&view, transport, &bytes));
            drop(fitted(&bytes, transport, bytes.clone()));
        }
        drop(failure(&bytes));
        if let Some(sent) = disguised(&bytes, 7, || true) {
            prop_assert!(end(&bytes).unwrap() <= sent.len());
            drop(restored(&bytes, &sent, sent.clone()));
        }
        drop(restored(&bytes, &bytes, bytes.clone()));
    }
}
