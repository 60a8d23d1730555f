//! Programs from Debian's archive.
#![allow(dead_code, reason = "each test executable uses its own part")]

use std::path::PathBuf;

use fief_testkit::missing;

/// A program that scripts/peers.sh has unpacked; `None`, with a word, where it has not.
pub fn peer(name: &str) -> Option<PathBuf> {
    let target = fief_testkit::bin("fiefd").ancestors().find_map(|dir| {
        let there = dir.join("peers/bin").join(name);
        there.is_file().then_some(there)
    });
    let target = target.or_else(|| {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/peers/bin").join(name);
        here.is_file().then_some(here)
    });
    if target.is_none() {
        missing(&format!("{name} is not below target/peers; scripts/peers.sh puts it there"));
    }
    target
}

/// A query for the A record of `name`, with this id (RFC 1035, 4.1).
pub fn query(id: u16, name: &str) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// dnsmasq's command line for a name server that knows only what `more` says.
pub fn dnsmasq(more: &[&str]) -> Option<Vec<String>> {
    let program = peer("dnsmasq")?.display().to_string();
    let plain = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root", "--log-facility=-"];
    let alone = ["--conf-file=/dev/null", "--pid-file="];
    let words = plain.iter().chain(&alone).chain(more).map(|word| (*word).to_owned());
    Some([program].into_iter().chain(words).collect())
}
