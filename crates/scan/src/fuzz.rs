//! What the fuzzer calls: each reader on bytes that nobody has checked.

/// Reads these bytes as everything that a kernel might send.
pub fn all(bytes: &[u8]) {
    for read in READERS {
        read(bytes);
    }
}

/// One function a reader.
pub const READERS: [fn(&[u8]); 8] = [
    crate::nft::fuzz,
    crate::legacy::fuzz,
    crate::routing::fuzz,
    crate::xfrm::fuzz,
    crate::tc::fuzz,
    crate::devices::fuzz,
    crate::openvswitch::fuzz,
    both,
];

fn both(bytes: &[u8]) {
    crate::connections::fuzz(bytes);
    crate::bpf::fuzz(bytes);
}
