//! What the kernel's connection tracking knows in a namespace, as conntrack(8) tells it.

use std::net::Ipv4Addr;

use fief_testkit::Output;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Source address.
    pub from: Ipv4Addr,
    /// Destination address.
    pub to: Ipv4Addr,
    /// Source port; 0 for what has none.
    pub from_port: u16,
    /// Destination port.
    pub to_port: u16,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `tcp`, `udp`, `icmp`.
    pub protocol: String,
    /// As the first packet came.
    pub there: Way,
    /// As an answer comes.
    pub back: Way,
    /// Its zone; 0 if it has none, `None` if its directions have different ones.
    pub zone: Option<u32>,
    line: String,
}

/// `conntrack -L`'s answer, read.
#[track_caller]
pub fn entries(listed: &Output) -> Vec<Entry> {
    assert!(listed.success(), "{listed}");
    listed.stdout.lines().filter_map(read).collect()
}

/// `tcp 6 431999 ESTABLISHED src=.. dst=.. sport=.. dport=.. src=.. dst=.. sport=.. dport=.. [ASSURED] zone=7 use=1`.
/// Families other than IPv4 are left out.
fn read(line: &str) -> Option<Entry> {
    let words: Vec<(&str, &str)> = line.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    let all = |name: &'static str| words.iter().filter(move |(key, _)| *key == name).map(|(_, value)| *value);
    let way = |nth: usize| {
        let port = |name| all(name).nth(nth).and_then(|port| port.parse().ok()).unwrap_or(0);
        let address = |name| all(name).nth(nth)?.parse().ok();
        Some(Way {
            from: address("src")?,
            to: address("dst")?,
            from_port: port("sport"),
            to_port: port("dport"),
        })
    };
    let split = words.iter().any(|(key, _)| key.starts_with("zone-"));
    let zone = all("zone").next().map_or(Some(0), |zone| zone.parse().ok());
    Some(Entry {
        protocol: line.split_whitespace().next()?.to_owned(),
        there: way(0)?,
        back: way(1)?,
        zone: if split { None } else { zone },
        line: line.to_owned(),
    })
}

/// The entries of TCP connections that were opened to this address and port.
pub fn opened(entries: &[Entry], to: Ipv4Addr, port: u16) -> Vec<&Entry> {
    let wanted =
        |entry: &&Entry| entry.protocol == "tcp" && entry.there.to == to && entry.there.to_port == port;
    entries.iter().filter(wanted).collect()
}

/// There are some, and all are in this zone.
#[track_caller]
pub fn all_in(what: &str, entries: &[&Entry], zone: u32) {
    assert!(!entries.is_empty(), "{what}: no entry");
    let elsewhere: Vec<&&Entry> = entries.iter().filter(|entry| entry.zone != Some(zone)).collect();
    assert!(elsewhere.is_empty(), "{what}: not in zone {zone}: {elsewhere:#?}");
}

#[test]
fn lines_of_conntrack_are_read() {
    let tcp = "tcp      6 119 TIME_WAIT src=10.10.1.50 dst=192.168.0.2 sport=40000 dport=8080 src=192.168.1.50 \
               dst=248.0.0.1 sport=80 dport=40000 [ASSURED] mark=0 zone=7 use=1";
    let entry = read(tcp).expect("a line");
    assert_eq!((entry.protocol.as_str(), entry.zone), ("tcp", Some(7)));
    assert_eq!((entry.there.to, entry.there.to_port), (Ipv4Addr::new(192, 168, 0, 2), 8080));
    assert_eq!((entry.back.from, entry.back.from_port), (Ipv4Addr::new(192, 168, 1, 50), 80));
    let icmp = "icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=1 use=1";
    let entry = read(icmp).expect("a line");
    assert_eq!((entry.zone, entry.there.to_port, entry.back.from), (Some(0), 0, Ipv4Addr::new(10, 0, 0, 2)));
    let half = tcp.replace("zone=7", "zone-orig=7");
    assert_eq!(read(&half).expect("a line").zone, None);
    assert_eq!(read("conntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown."), None);
}
