//! Advertisements byte by byte, who may ask, and when an answer leaves.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn config() -> NetworkConfig {
    NetworkConfig {
        key: "blue/web".to_owned(),
        namespace: 1,
        gateway: [192, 0, 2, 1].into(),
        subnet: "192.0.2.0/24".parse().unwrap(),
        gateway6: Some("2001:db8::1".parse().unwrap()),
        subnet6: Some("2001:db8::/64".parse().unwrap()),
        leads_out6: false,
        dhcp: None,
        domain: "web.blue".to_owned(),
        names: Default::default(),
        ntp: Vec::new(),
        mtu: Some(1400),
        upstreams: Vec::new(),
        endpoints: Vec::new(),
        bridge: 0,
        mac: [2, 0, 0, 0, 0, 1],
    }
}

/// The options of an advertisement, by type.
fn options(message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &message[16..];
    let mut found = Vec::new();
    while let [kind, units, ..] = rest {
        let length = usize::from(*units) * 8;
        found.push((*kind, rest[2..length].to_vec()));
        rest = &rest[length..];
    }
    found
}

#[test]
fn an_advertisement_byte_by_byte() {
    let message = advertisement(&config()).unwrap();
    // No flags, no default route.
    assert_eq!(message[..16], [134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let found = options(&message);
    assert_eq!(found[0], (1, vec![2, 0, 0, 0, 0, 1]));
    assert_eq!(found[1], (5, vec![0, 0, 0, 0, 5, 120]));
    let (kind, prefix) = &found[2];
    assert_eq!((*kind, &prefix[..14]), (3, &[64, 0xc0, 0, 0x27, 0x8d, 0, 0, 9, 0x3a, 0x80, 0, 0, 0, 0][..]));
    assert_eq!(prefix[14..], *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\0");
    let (kind, rdnss) = &found[3];
    assert_eq!((*kind, &rdnss[..6]), (25, &[0, 0, 0, 0, 7, 8][..]));
    assert_eq!(rdnss[6..], *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
    let (kind, dnssl) = &found[4];
    assert_eq!((*kind, &dnssl[..6]), (31, &[0, 0, 0, 0, 7, 8][..]));
    assert_eq!(dnssl[6..], *b"\x03web\x04blue\0\0\0\0\0\0\0");
    assert_eq!(found.len(), 5);
}

#[test]
fn what_a_network_lacks_is_left_out() {
    let kinds = |config: &NetworkConfig| -> Vec<u8> {
        options(&advertisement(config).unwrap()).into_iter().map(|option| option.0).collect()
    };
    assert_eq!(kinds(&config()), [1, 5, 3, 25, 31]);
    assert_eq!(kinds(&NetworkConfig { mac: [0; 6], ..config() }), [5, 3, 25, 31]);
    assert_eq!(kinds(&NetworkConfig { mtu: Some(1279), ..config() }), [1, 3, 25, 31]);
    assert_eq!(kinds(&NetworkConfig { gateway6: None, ..config() }), [1, 5, 3, 31]);
    for domain in ["", ".", "a..b", &"x".repeat(64), &"abcdefghi.".repeat(26)] {
        assert_eq!(
            kinds(&NetworkConfig { domain: domain.to_owned(), ..config() }),
            [1, 5, 3, 25],
            "{domain}"
        );
    }
    assert_eq!(advertisement(&NetworkConfig { subnet6: None, ..config() }), None);
}

#[test]
fn only_a_network_that_leads_out_is_a_way_out() {
    let lifetime = |leads_out6| {
        let message = advertisement(&NetworkConfig { leads_out6, ..config() }).unwrap();
        u16::from_be_bytes([message[6], message[7]])
    };
    assert_eq!((lifetime(false), lifetime(true)), (0, 1800));
}

#[test]
fn dhcp_is_pointed_at_where_it_is() {
    let flags = |dhcp: bool, address6: Option<Ipv6Addr>| {
        let dhcp = dhcp.then(|| crate::Dhcp { range: None, lease: Duration::from_secs(600) });
        let endpoint = crate::EndpointConfig {
            name: "app1".to_owned(),
            tenant: "blue".to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            address: None,
            address6,
            default_route: true,
            labels: Default::default(),
            hostname: String::new(),
        };
        advertisement(&NetworkConfig { dhcp, endpoints: vec![endpoint], ..config() }).unwrap()[5]
    };
    let fixed = Some("2001:db8::11".parse().unwrap());
    let all = [flags(false, None), flags(false, fixed), flags(true, None), flags(true, fixed)];
    assert_eq!(all, [0, 0, 0x40, 0xc0]);
}

#[test]
fn no_addresses_are_made_of_a_prefix_of_another_length() {
    let flags = |subnet: &str| {
        let config = NetworkConfig { subnet6: Some(subnet.parse().unwrap()), ..config() };
        options(&advertisement(&config).unwrap()).iter().find(|option| option.0 == 3).unwrap().1[1]
    };
    assert_eq!((flags("2001:db8::/64"), flags("2001:db8::/80"), flags("2001:db8::/56")), (0xc0, 0x80, 0x80));
}

#[test]
fn who_asks_and_who_does_not() {
    let local: Ipv6Addr = "fe80::2".parse().unwrap();
    let good = [&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &[2, 0, 0, 0, 0, 1]].concat();
    assert!(is_solicitation(local, 255, &good));
    assert!(is_solicitation(Ipv6Addr::UNSPECIFIED, 255, &good[..8]));
    // RFC 4861, 6.1.1, one after the other.
    assert!(!is_solicitation(local, 254, &good), "it came through a router");
    assert!(!is_solicitation(local, 255, &[&[133, 1], &good[2..]].concat()), "the code");
    assert!(!is_solicitation(local, 255, &[&[134, 0], &good[2..]].concat()), "another type");
    assert!(!is_solicitation(local, 255, &good[..7]), "too short");
    assert!(!is_solicitation(local, 255, &good[..15]), "an option that is cut");
    assert!(!is_solicitation(local, 255, &good[..9]), "half of an option's head");
    assert!(
        !is_solicitation(local, 255, &[&good[..8], &[1, 0, 0, 0, 0, 0, 0, 0]].concat()),
        "without length"
    );
    assert!(!is_solicitation(Ipv6Addr::UNSPECIFIED, 255, &good), "nobody, with an address of the link");
    assert!(!is_solicitation("ff02::1".parse().unwrap(), 255, &good), "everybody");
}

#[test]
fn many_who_ask_together_have_one_answer() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let mut table = Timetable::new(start);
    assert_eq!(table.next(), start);
    table.sent(start, 1.0);
    assert_eq!(table.next(), at(16_000));
    // Too soon after the one before.
    table.asked(at(100), 1.0);
    assert_eq!(table.next(), at(3000));
    for millis in 200..3000 {
        table.asked(at(millis), 0.0);
    }
    assert_eq!(table.next(), at(3000));
    table.sent(at(3000), 1.0);
    assert_eq!(table.next(), at(19_000));
    // Long after: within half a second, and whoever asks second does not put it off.
    table.asked(at(10_000), 0.5);
    table.asked(at(10_100), 1.0);
    assert_eq!(table.next(), at(10_250));
    table.sent(at(10_250), 0.0);
    assert_eq!(table.next(), at(210_250));
    table.sent(at(210_250), 1.0);
    assert_eq!(table.next(), at(810_250));
    table.changed(at(211_000));
    assert_eq!(table.next(), at(213_250));
    table.sent(at(213_250), 0.5);
    assert_eq!(table.next(), at(229_250));
}

proptest! {
    #[test]
    fn no_two_leave_within_three_seconds(steps in prop::collection::vec((0u64..5000, 0f32..=1.0, 0u8..8), 1..200)) {
        let start = Instant::now();
        let (mut table, mut now, mut last) = (Timetable::new(start), start, None::<Instant>);
        for (millis, chance, what) in steps {
            now += Duration::from_millis(millis);
            match what {
                0 => table.changed(now),
                1..=4 => table.asked(now, chance),
                _ => {}
            }
            if table.next() <= now {
                prop_assert!(last.is_none_or(|last| now - last >= Duration::from_secs(3)));
                last = Some(now);
                table.sent(now, chance);
                prop_assert!(table.next() > now);
            }
        }
    }

    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..100), hops in 0..256) {
        is_solicitation(Ipv6Addr::UNSPECIFIED, hops, &[&[133, 0, 0, 0, 0, 0, 0, 0], &bytes[..]].concat());
        prop_assert!(!is_solicitation(Ipv6Addr::LOCALHOST, hops, &bytes));
    }
}
