//! What the fuzzer calls: each reader on bytes that nobody has checked.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use dhcproto::Decodable;

use crate::dhcp::{Outcome, State};
use crate::dns::question::{disguised, restored};
use crate::dns::{Answer, Transport, View, failure, fitted};
use crate::{Dhcp, EndpointConfig, NetworkConfig};

/// Reads these bytes as everything that a client or an upstream server might send.
///
/// # Panics
/// When a reader does, or what it answers is nothing that a client could read.
pub fn all(bytes: &[u8]) {
    for read in READERS {
        read(bytes);
    }
}

/// One function a reader.
pub const READERS: [fn(&[u8]); 8] = [
    dhcp_packet,
    dhcp_message,
    dhcp6_packet,
    dhcp6_message,
    solicitation,
    dns_datagram,
    dns_stream,
    upstream,
];

/// Where a message has its client's Ethernet address (RFC 2131, 2).
const CHADDR: usize = 28;
/// The longest message that every client can take, and the most that an endpoint may find in a DNS datagram.
const LONGEST: (usize, usize) = (548, 1232);

/// An IPv4 packet to the DHCP server.
fn dhcp_packet(bytes: &[u8]) {
    if let Some(message) = crate::dhcp::datagram(bytes) {
        dhcp_message(message);
    }
}

/// A DHCP message of an endpoint: twice from a client without a lease, so that the second finds what the first left, and
/// once of a stranger.
fn dhcp_message(bytes: &[u8]) {
    let Some(mac) = bytes.get(CHADDR..).and_then(<[u8]>::first_chunk) else { return };
    let config = config(*mac);
    let mut state = State::new(Vec::new());
    state.configure(&config);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    for source in [*mac, *mac, [2, 0, 0, 0, 0, 99]] {
        let outcome = crate::dhcp::answer(&mut state, &config, now, source, bytes);
        let reply = match outcome {
            Ok(Outcome::Reply(reply)) => Some(reply),
            Ok(Outcome::Commit(change, reply)) => {
                assert!(change.put.is_none_or(|lease| lease.mac == *mac), "a lease of somebody else");
                reply
            }
            Ok(Outcome::Nothing) | Err(_) => None,
        };
        if let Some(reply) = reply {
            assert!(reply.message.len() <= LONGEST.0, "a message of {} bytes", reply.message.len());
            let read = dhcproto::v4::Message::from_bytes(&reply.message);
            assert!(read.is_ok_and(|message| message.chaddr() == mac), "an answer to somebody else");
            assert!(crate::dhcp::packet(config.gateway, reply.to, &reply.message).is_some());
        }
    }
}

/// An IPv6 packet to the DHCP server.
fn dhcp6_packet(bytes: &[u8]) {
    if let Some((_, message)) = crate::dhcp6::datagram(bytes) {
        dhcp6_message(message);
    }
}

/// A DHCPv6 message of an endpoint without an address, and of one that has one.
fn dhcp6_message(bytes: &[u8]) {
    let config = config([2, 0, 0, 0, 0, 1]);
    for endpoint in &config.endpoints {
        if let Some(reply) = crate::dhcp6::answer(&config, endpoint, bytes) {
            assert!(reply.len() <= LONGEST.1, "a message of {} bytes", reply.len());
            let read = dhcproto::v6::Message::from_bytes(&reply);
            assert!(read.is_ok_and(|message| message.xid()[..] == bytes[1..4]), "an answer to somebody else");
        }
    }
}

/// An ICMPv6 message from somebody, and from nobody.
fn solicitation(bytes: &[u8]) {
    let [anybody, nobody] = [Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2), Ipv6Addr::UNSPECIFIED];
    let asks = |source| crate::ra::is_solicitation(source, crate::ra::HOPS, bytes);
    assert!(!asks(nobody) || asks(anybody));
}

/// A DNS query in a datagram.
fn dns_datagram(bytes: &[u8]) {
    query(Transport::Udp, bytes);
}

/// DNS queries on a connection, each with its length before it.
fn dns_stream(bytes: &[u8]) {
    let mut stream = bytes;
    while let Some(message) = next(&mut stream) {
        query(Transport::Tcp, &message);
    }
}

fn query(transport: Transport, bytes: &[u8]) {
    for view in &*views() {
        match crate::dns::answer(view, transport, bytes) {
            Answer::Reply(reply) => {
                let read = hickory_proto::op::Message::from_vec(&reply);
                assert!(read.is_ok_and(|message| reply[..2] == bytes[..2] && message.answers.len() < 16));
                assert!(transport == Transport::Tcp || reply.len() <= LONGEST.1.max(bytes.len() + 64));
            }
            Answer::Forward => {
                assert!(view.forwards());
                // What is not forwarded after all is at least refused.
                if disguised(bytes, 0x1234, || true).is_none() {
                    assert!(failure(bytes).is_some());
                }
            }
            Answer::Drop => {}
        }
    }
}

/// A query and what an upstream server answered to it, each with its length before it. The server knows which number
/// the query had.
fn upstream(bytes: &[u8]) {
    let mut stream = bytes;
    let (Some(query), Some(answer)) = (next(&mut stream), next(&mut stream)) else { return };
    let Some(number) = answer.first_chunk() else { return };
    let letters = [true, false].into_iter().cycle();
    let mut letters = letters.skip(usize::from(number[0] & 1));
    let coins = || letters.next().unwrap_or(false);
    let Some(sent) = disguised(&query, u16::from_be_bytes(*number), coins) else { return };
    assert_eq!(sent.len(), query.len());
    let Some(answer) = restored(&query, &sent, answer) else { return };
    assert!(answer[..2] == query[..2] && answer[2] & 0x80 != 0);
    for transport in [Transport::Udp, Transport::Tcp] {
        if let Some(fitted) = fitted(&query, transport, answer.clone()) {
            assert!(fitted.len() <= answer.len() && fitted[..2] == query[..2]);
        }
    }
}

/// The next message of a stream that holds all that will ever come.
fn next(stream: &mut &[u8]) -> Option<Vec<u8>> {
    let read = pin!(crate::serve::read_message(stream));
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read.ok(),
        Poll::Pending => None,
    }
}

/// The names of a network that forwards, and of one that does not.
fn views() -> Rc<[View; 2]> {
    thread_local! {
        static VIEWS: Rc<[View; 2]> = {
            let config = config([2, 0, 0, 0, 0, 1]);
            let closed = NetworkConfig { upstreams: Vec::new(), ..config.clone() };
            Rc::new([config, closed].map(|config| View::new(&config, |_| Some(Ipv4Addr::new(192, 0, 2, 50)))))
        };
    }
    VIEWS.with(Rc::clone)
}

/// A network with this client and one that has addresses of its own.
fn config(mac: [u8; 6]) -> NetworkConfig {
    let endpoint = |name: &str, mac, address, address6| EndpointConfig {
        name: name.to_owned(),
        tenant: "blue".to_owned(),
        mac,
        address,
        address6,
        default_route: true,
        labels: Default::default(),
        hostname: String::new(),
    };
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);
    let v4 = Ipv4Addr::new(192, 0, 2, 5);
    NetworkConfig {
        key: "blue/web".to_owned(),
        namespace: 1,
        gateway: Ipv4Addr::new(192, 0, 2, 1),
        subnet: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
        gateway6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        subnet6: Some(ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 64)),
        leads_out6: false,
        dhcp: Some(Dhcp {
            range: Some(Ipv4Addr::new(192, 0, 2, 50)..=Ipv4Addr::new(192, 0, 2, 52)),
            lease: Duration::from_secs(600),
        }),
        domain: "web.blue.example".to_owned(),
        names: [("gw".to_owned(), vec![Ipv4Addr::new(192, 0, 2, 1).into()])].into(),
        ntp: vec![Ipv4Addr::new(192, 0, 2, 123)],
        mtu: Some(1400),
        upstreams: vec![(Ipv4Addr::new(192, 0, 2, 53), 53).into()],
        endpoints: vec![
            endpoint("app1", mac, None, None),
            endpoint("app5", [2, 0, 0, 0, 0, 5], Some(v4), Some(v6)),
        ],
        bridge: 0,
        mac: [0; 6],
    }
}

#[cfg(test)]
mod tests {
    /// Messages of real clients and servers, one a line; the fuzzer begins with them.
    #[test]
    fn the_readers_get_through_the_seeds() {
        let seeds = [
            include_str!("../tests/seeds/dhcp.hex"),
            include_str!("../tests/seeds/dhcp6.hex"),
            include_str!("../tests/seeds/dns.hex"),
            include_str!("../tests/seeds/icmp6.hex"),
            include_str!("../tests/seeds/upstream.hex"),
        ];
        for line in seeds.iter().flat_map(|seeds| seeds.lines()) {
            let digits: Vec<u8> =
                line.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
            let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
            super::all(&bytes);
            for end in 0..bytes.len().min(400) {
                super::all(&bytes[..end]);
            }
        }
    }
}
