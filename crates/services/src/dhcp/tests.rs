//! Every message type, and what must not be answered.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use proptest::prelude::*;

use super::*;
use crate::config::{Dhcp, EndpointConfig};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

/// Endpoints 1 to 5, of which the fifth has 192.0.2.77; three addresses in the range.
fn config() -> NetworkConfig {
    let endpoint = |last| EndpointConfig {
        name: format!("app{last}"),
        tenant: "blue".to_owned(),
        mac: mac(last),
        address: (last == 5).then_some(host(77)),
        address6: None,
        default_route: true,
        labels: Default::default(),
        hostname: String::new(),
    };
    NetworkConfig {
        key: "blue/web".to_owned(),
        namespace: 1,
        gateway: GATEWAY,
        subnet: "192.0.2.0/24".parse().unwrap(),
        gateway6: None,
        subnet6: None,
        leads_out6: false,
        dhcp: Some(Dhcp { range: Some(host(50)..=host(52)), lease: Duration::from_secs(600) }),
        domain: "web.blue.example".to_owned(),
        names: Default::default(),
        ntp: vec![host(123)],
        mtu: Some(1400),
        upstreams: Vec::new(),
        endpoints: (1..=5).map(endpoint).collect(),
        bridge: 0,
        mac: [0; 6],
    }
}

struct Bench {
    state: State,
    config: NetworkConfig,
}

impl Bench {
    fn new() -> Bench {
        let mut state = State::default();
        state.configure(&config());
        Bench { state, config: config() }
    }

    fn configure(&mut self, change: impl FnOnce(&mut NetworkConfig)) {
        change(&mut self.config);
        self.state.configure(&self.config);
    }

    fn send(&mut self, second: u64, message: &Message) -> Result<Outcome, Ignored> {
        let source: [u8; 6] = message.chaddr().try_into().unwrap();
        answer(&mut self.state, &self.config, at(second), source, &message.to_vec().unwrap())
    }

    /// DISCOVER and REQUEST.
    fn lease(&mut self, second: u64, last: u8) -> Ipv4Addr {
        let offer = replied(self.send(second, &discover(last)));
        assert_eq!(kind(&offer), MessageType::Offer);
        let (change, ack) = committed(self.send(second, &select(last, offer.yiaddr())));
        assert_eq!((kind(&ack), ack.yiaddr()), (MessageType::Ack, offer.yiaddr()));
        assert_eq!(change.put.unwrap().address, offer.yiaddr());
        offer.yiaddr()
    }
}

fn message(kind: MessageType, last: u8, ciaddr: Ipv4Addr) -> Message {
    let mut message = Message::new(ciaddr, ANY, ANY, ANY, &mac(last));
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

fn discover(last: u8) -> Message {
    message(MessageType::Discover, last, ANY)
}

fn with(mut message: Message, options: impl IntoIterator<Item = DhcpOption>) -> Message {
    for option in options {
        message.opts_mut().insert(option);
    }
    message
}

fn select(last: u8, address: Ipv4Addr) -> Message {
    let server = DhcpOption::ServerIdentifier(GATEWAY);
    with(reboot(last, address), [server])
}

fn reboot(last: u8, address: Ipv4Addr) -> Message {
    with(message(MessageType::Request, last, ANY), [DhcpOption::RequestedIpAddress(address)])
}

fn decline(last: u8, address: Ipv4Addr) -> Message {
    let options = [DhcpOption::RequestedIpAddress(address), DhcpOption::ServerIdentifier(GATEWAY)];
    with(message(MessageType::Decline, last, ANY), options)
}

fn read(reply: &Reply) -> Message {
    assert!(reply.message.len() >= 300);
    Message::from_bytes(&reply.message).unwrap()
}

fn replied(outcome: Result<Outcome, Ignored>) -> Message {
    match outcome {
        Ok(Outcome::Reply(reply)) => read(&reply),
        other => panic!("no reply: {other:?}"),
    }
}

fn committed(outcome: Result<Outcome, Ignored>) -> (Change, Message) {
    match outcome {
        Ok(Outcome::Commit(change, Some(reply))) => (change, read(&reply)),
        other => panic!("nothing to save and say: {other:?}"),
    }
}

fn kind(message: &Message) -> MessageType {
    message.opts().msg_type().unwrap()
}

#[test]
fn an_offer_says_what_a_client_needs() {
    let mut bench = Bench::new();
    let offer = replied(bench.send(0, &discover(1)));
    assert_eq!((offer.opcode(), offer.yiaddr(), offer.chaddr()), (Opcode::BootReply, host(50), &mac(1)[..]));
    let wanted = [
        DhcpOption::MessageType(MessageType::Offer),
        DhcpOption::ServerIdentifier(GATEWAY),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![GATEWAY]),
        DhcpOption::DomainNameServer(vec![GATEWAY]),
        DhcpOption::DomainName("web.blue.example".to_owned()),
        DhcpOption::DomainSearch(vec!["web.blue.example".parse().unwrap()]),
        DhcpOption::NtpServers(vec![host(123)]),
        DhcpOption::InterfaceMtu(1400),
        DhcpOption::Hostname("app1".to_owned()),
        DhcpOption::AddressLeaseTime(600),
        DhcpOption::Renewal(300),
        DhcpOption::Rebinding(525),
        DhcpOption::ClasslessStaticRoute(vec![
            ("169.254.169.254/32".parse().unwrap(), GATEWAY),
            ("0.0.0.0/0".parse().unwrap(), GATEWAY),
        ]),
    ];
    for option in wanted {
        let code = OptionCode::from(&option);
        // A name on the wire is a whole one; this one was written without the dot.
        let found = offer.opts().get(code).map(|found| format!("{found:?}").replace(".\")", "\")"));
        assert_eq!(found, Some(format!("{option:?}")), "{code:?}");
    }
    bench.configure(|config| config.endpoints.iter_mut().for_each(|endpoint| endpoint.default_route = false));
    let offer = replied(bench.send(1, &discover(1)));
    assert_eq!(offer.opts().get(OptionCode::Router), None);
    let metadata = DhcpOption::ClasslessStaticRoute(vec![("169.254.169.254/32".parse().unwrap(), GATEWAY)]);
    assert_eq!(offer.opts().get(OptionCode::ClasslessStaticRoute), Some(&metadata));
}

#[test]
fn where_an_answer_goes() {
    let mut bench = Bench::new();
    let to = |outcome| match outcome {
        Ok(Outcome::Reply(reply) | Outcome::Commit(_, Some(reply))) => reply.to,
        other => panic!("no reply: {other:?}"),
    };
    assert_eq!(to(bench.send(0, &discover(1))), host(50));
    let mut loud = discover(1);
    loud.set_flags(Flags::default().set_broadcast());
    assert_eq!(to(bench.send(0, &loud)), Ipv4Addr::BROADCAST);
    let address = bench.lease(1, 1);
    assert_eq!(to(bench.send(2, &message(MessageType::Request, 1, address))), address);
    assert_eq!(to(bench.send(2, &reboot(1, host(99)))), Ipv4Addr::BROADCAST);
}

#[test]
fn renew_rebind_and_reboot_keep_the_address() {
    let mut bench = Bench::new();
    let address = bench.lease(0, 1);
    let (change, ack) = committed(bench.send(300, &message(MessageType::Request, 1, address)));
    assert_eq!((kind(&ack), ack.yiaddr(), ack.ciaddr()), (MessageType::Ack, address, address));
    assert_eq!(change.put.unwrap().expires, at(900));
    let (_, ack) = committed(bench.send(400, &reboot(1, address)));
    assert_eq!(kind(&ack), MessageType::Ack);
    // Somebody else's, out of the range, of another network: no.
    for wrong in [host(77), host(60), Ipv4Addr::new(198, 51, 100, 9), GATEWAY, host(255)] {
        assert_eq!(kind(&replied(bench.send(410, &reboot(2, wrong)))), MessageType::Nak, "{wrong}");
        assert_eq!(
            kind(&replied(bench.send(410, &message(MessageType::Request, 3, wrong)))),
            MessageType::Nak
        );
    }
    assert_eq!(kind(&replied(bench.send(411, &reboot(4, address)))), MessageType::Nak, "it is taken");
    // It comes back to the same client after it has ended.
    assert_eq!(bench.lease(5000, 2), host(51));
    assert_eq!(bench.lease(5000, 1), address);
}

#[test]
fn a_request_for_another_server_is_not_ours() {
    let mut bench = Bench::new();
    let other = with(reboot(1, host(50)), [DhcpOption::ServerIdentifier(host(9))]);
    replied(bench.send(0, &discover(1)));
    assert_eq!(bench.send(0, &other), Ok(Outcome::Nothing));
    assert_eq!(replied(bench.send(0, &discover(2))).yiaddr(), host(50), "the offer was taken back");
}

#[test]
fn reserved_addresses_are_for_their_clients() {
    let mut bench = Bench::new();
    assert_eq!(bench.lease(0, 5), host(77));
    bench.configure(|config| config.endpoints[1].address = Some(host(50)));
    assert_eq!(bench.lease(1, 1), host(51), "50 is another's");
    assert_eq!(bench.lease(1, 2), host(50));
    let wish = with(discover(3), [DhcpOption::RequestedIpAddress(host(77))]);
    assert_eq!(replied(bench.send(2, &wish)).yiaddr(), host(52));
}

#[test]
fn a_wish_is_granted_if_it_can_be() {
    let mut bench = Bench::new();
    let wish = |last, address| with(discover(last), [DhcpOption::RequestedIpAddress(address)]);
    assert_eq!(replied(bench.send(0, &wish(1, host(52)))).yiaddr(), host(52));
    assert_eq!(replied(bench.send(0, &wish(2, host(52)))).yiaddr(), host(50), "offered to another");
    // An offer that nobody took is free after a minute.
    assert_eq!(replied(bench.send(61, &wish(3, host(52)))).yiaddr(), host(52));
}

#[test]
fn a_pool_that_is_empty_says_so_and_hurts_nobody_else() {
    let mut bench = Bench::new();
    for last in 1..=3 {
        bench.lease(0, last);
    }
    assert_eq!(bench.send(1, &discover(4)), Err(Ignored::Exhausted));
    assert_eq!(bench.lease(1, 5), host(77), "a reserved address is not the pool's");
    let renewed = committed(bench.send(2, &message(MessageType::Request, 1, host(50))));
    assert_eq!(kind(&renewed.1), MessageType::Ack);
    // What ends first is given first.
    let released = bench.send(3, &message(MessageType::Release, 2, host(51)));
    assert!(matches!(released, Ok(Outcome::Commit(_, None))), "{released:?}");
    assert_eq!(bench.lease(4, 4), host(51));
}

#[test]
fn only_its_own_lease_can_be_released() {
    let mut bench = Bench::new();
    let address = bench.lease(0, 1);
    assert_eq!(bench.send(1, &message(MessageType::Release, 2, address)), Ok(Outcome::Nothing));
    assert_eq!(bench.state.holder(address, at(1)), Some(mac(1)));
    let outcome = bench.send(2, &message(MessageType::Release, 1, address));
    let Ok(Outcome::Commit(change, None)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(change.put.unwrap().expires, at(2));
    assert_eq!(bench.state.holder(address, at(2)), None);
}

#[test]
fn a_declined_address_rests_for_an_hour_and_one_client_can_keep_only_a_few() {
    let mut bench = Bench::new();
    let address = bench.lease(0, 1);
    assert_eq!(bench.send(1, &decline(2, address)), Ok(Outcome::Nothing), "not its own");
    let outcome = bench.send(1, &decline(1, address));
    let Ok(Outcome::Commit(change, None)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((change.put, change.remove), (None, Some(address)));
    assert_eq!(bench.lease(2, 1), host(51));
    assert_eq!(bench.lease(3602, 2), host(50), "after an hour it is there again");

    bench.configure(|config| config.dhcp.as_mut().unwrap().range = Some(host(50)..=host(59)));
    for second in 0..20 {
        let second = 10_000 + second * 10;
        let address = bench.lease(second, 3);
        bench.send(second, &decline(3, address)).unwrap();
    }
    let resting = bench.state.declined.len();
    assert_eq!(resting, 4);
}

#[test]
fn inform_gets_options_and_no_address() {
    let mut bench = Bench::new();
    let ack = replied(bench.send(0, &message(MessageType::Inform, 1, host(200))));
    assert_eq!((kind(&ack), ack.yiaddr(), ack.ciaddr()), (MessageType::Ack, ANY, host(200)));
    assert_eq!(ack.opts().get(OptionCode::AddressLeaseTime), None);
    assert!(ack.opts().contains(OptionCode::DomainNameServer));
    let elsewhere = message(MessageType::Inform, 1, Ipv4Addr::new(198, 51, 100, 1));
    assert_eq!(bench.send(0, &elsewhere), Err(Ignored::Malformed));
}

#[test]
fn who_is_not_answered() {
    let mut bench = Bench::new();
    let bytes = discover(1).to_vec().unwrap();
    let mut ask = |source, bytes: &[u8]| answer(&mut bench.state, &bench.config, at(0), source, bytes);
    assert!(matches!(ask(mac(1), &bytes), Ok(Outcome::Reply(_))));
    assert_eq!(ask(mac(2), &bytes), Err(Ignored::Spoofed));
    assert_eq!(ask(mac(9), &discover(9).to_vec().unwrap()), Err(Ignored::Unknown));
    // Each of these differs from the first in one thing.
    let changed = |at: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        bytes
    };
    for (at, to) in [(0, 2), (1, 6), (2, 16), (2, 17), (2, 255), (24, 192), (237, 0)] {
        assert_eq!(ask(mac(1), &changed(at, to)), Err(Ignored::Malformed), "byte {at} = {to}");
    }
    assert_eq!(ask(mac(1), &bytes[..230]), Err(Ignored::Malformed));
    let server = message(MessageType::Ack, 1, ANY).to_vec().unwrap();
    assert_eq!(ask(mac(1), &server), Err(Ignored::Malformed));
}

#[test]
fn options_that_nobody_reads_do_no_harm() {
    let mut bench = Bench::new();
    let plain = discover(1).to_vec().unwrap();
    let end = plain.iter().rposition(|byte| *byte == 255).unwrap();
    // 152 and 121 at lengths that they cannot have, a host name that is no text; padding.
    for odd in [&[152, 0][..], &[121, 1, 33], &[12, 1, 0xff], &[0, 0, 0], &[54, 3, 1, 2, 3]] {
        let bytes = [&plain[..end], odd, &[255]].concat();
        let outcome = answer(&mut bench.state, &bench.config, at(0), mac(1), &bytes);
        assert_eq!(kind(&replied(outcome)), MessageType::Offer, "{odd:?}");
        let cut = [&plain[..end], odd, &[12, 9, b'x']].concat();
        let outcome = answer(&mut bench.state, &bench.config, at(0), mac(1), &cut);
        assert_eq!(outcome, Err(Ignored::Malformed), "{odd:?}");
    }
}

#[test]
fn one_client_can_send_only_so_much() {
    let mut bench = Bench::new();
    let outcomes: Vec<_> = (0..100).map(|_| bench.send(0, &discover(1))).collect();
    let answered = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(answered, 16);
    assert_eq!(outcomes[99], Err(Ignored::Limited));
    assert!(bench.send(0, &discover(2)).is_ok(), "it is the other's limit");
    assert!(bench.send(2, &discover(1)).is_ok());
}

#[test]
fn a_changed_range_moves_a_client_when_it_renews() {
    let mut bench = Bench::new();
    let address = bench.lease(0, 1);
    bench.configure(|config| config.dhcp.as_mut().unwrap().range = Some(host(50)..=host(99)));
    let renewed = committed(bench.send(10, &message(MessageType::Request, 1, address)));
    assert_eq!(kind(&renewed.1), MessageType::Ack, "it fits the wider range");
    bench.configure(|config| config.dhcp.as_mut().unwrap().range = Some(host(80)..=host(99)));
    assert_eq!(bench.state.address_of(&mac(1), at(11)), Some(address), "the lease stands");
    assert_eq!(kind(&replied(bench.send(12, &message(MessageType::Request, 1, address)))), MessageType::Nak);
    assert_eq!(bench.lease(13, 1), host(80));
}

#[test]
fn what_was_not_saved_is_undone() {
    let mut bench = Bench::new();
    let (first, _) = committed(bench.send(0, &reboot(1, host(50))));
    bench.state.undo(&first);
    assert_eq!(bench.state.leases().count(), 0);
    bench.lease(1, 1);
    let (moved, _) = committed(bench.send(2, &reboot(1, host(51))));
    assert_eq!((moved.remove, bench.state.address_of(&mac(1), at(2))), (Some(host(50)), Some(host(51))));
    bench.state.undo(&moved);
    assert_eq!(bench.state.address_of(&mac(1), at(2)), Some(host(50)));
    let (renewed, _) = committed(bench.send(3, &message(MessageType::Request, 1, host(50))));
    let (again, _) = committed(bench.send(4, &message(MessageType::Request, 1, host(50))));
    bench.state.undo(&renewed);
    assert_eq!(bench.state.leases().next(), again.put.as_ref(), "a later change stands");
}

#[test]
fn a_frame_is_read_and_written() {
    let message = discover(1).to_vec().unwrap();
    let sent = packet(GATEWAY, host(50), &message).unwrap();
    assert_eq!(datagram(&sent), None, "to the client's port, not the server's");
    let mut swapped = sent.clone();
    swapped[20..24].copy_from_slice(&[0, 68, 0, 67]);
    assert_eq!(datagram(&swapped), Some(message.as_slice()));
    // The sum of a header with its checksum is all ones (RFC 1071).
    let words = |bytes: &[u8]| {
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0))).sum::<u32>()
    };
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    assert_eq!(fold(words(&sent[..20])), 0xffff);
    let pseudo = words(&sent[12..20]) + 17 + (sent.len() as u32 - 20);
    assert_eq!(fold(fold(pseudo + words(&sent[20..]))), 0xffff);
    let mut fragment = swapped.clone();
    fragment[6] = 0x20;
    assert_eq!(datagram(&fragment), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        datagram(&bytes);
        let mut bench = Bench::new();
        let outcome = answer(&mut bench.state, &bench.config, at(0), mac(1), &bytes);
        prop_assert!(outcome.is_err());
    }

    /// As above, with the part before the options right, so that those are read.
    #[test]
    fn no_options_break_it(options in proptest::collection::vec(any::<u8>(), 0..300), kind in 0_u8..19) {
        let mut bytes = discover(1).to_vec().unwrap();
        bytes.truncate(240);
        bytes.extend([53, 1, kind]);
        bytes.extend(options);
        let mut bench = Bench::new();
        drop(answer(&mut bench.state, &bench.config, at(0), mac(1), &bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever clients do, an address has one holder, and nobody has more than one or what is not for them.
    #[test]
    fn clients_never_share_an_address(steps in proptest::collection::vec((1_u8..=5, 0_u8..6, 48_u8..80, 0_u64..900), 1..40)) {
        let mut bench = Bench::new();
        let mut second = 0;
        for (last, what, address, pause) in steps {
            second += pause;
            let sent = match what {
                0 => discover(last),
                1 => select(last, host(address)),
                2 => reboot(last, host(address)),
                3 => message(MessageType::Request, last, host(address)),
                4 => message(MessageType::Release, last, host(address)),
                _ => decline(last, host(address)),
            };
            let held: Vec<_> = bench.state.leases().filter(|lease| lease.expires > at(second)).cloned().collect();
            if let Ok(Outcome::Commit(Change { put: Some(lease), .. }, Some(_))) = bench.send(second, &sent) {
                prop_assert!(held.iter().all(|other| other.address != lease.address || other.mac == lease.mac));
                let fits = if last == 5 { lease.address == host(77) } else { (50..=52).contains(&lease.address.octets()[3]) };
                prop_assert!(fits, "{lease:?}");
            }
            for lease in bench.state.leases() {
                prop_assert_eq!(bench.state.by_mac.get(&lease.mac), Some(&lease.address));
            }
            prop_assert_eq!(bench.state.by_mac.len(), bench.state.leases.len());
        }
    }
}
