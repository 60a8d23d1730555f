//! What the fuzzer calls: each reader on bytes that nobody has checked.

use std::time::Instant;

use crate::{Macs, Payload, SubordinateGroups, Url, read, source};

/// Reads these bytes as a datagram, and as the texts that a user or an administrator writes.
pub fn all(bytes: &[u8]) {
    if let Some((header, Payload::Frame(frame))) = read(bytes) {
        assert_eq!(header.bytes(), bytes[..8], "what is read is what would be written");
        let now = Instant::now();
        let mut macs = Macs::default();
        if let Some((to, from)) = source(frame) {
            macs.learn(from, header, now);
            let _ = macs.find(to, now);
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = Url::read(&text);
    let _ = SubordinateGroups::read(&text).contains(1000);
}
