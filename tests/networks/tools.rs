//! Unmodified programs that the tests speak with, all of them or none.

use std::path::PathBuf;

use fief_tests::peers::peer;

/// Where they are.
#[derive(Debug, Clone)]
pub struct Tools {
    /// A web server.
    pub nginx: PathBuf,
    /// A web client.
    pub curl: PathBuf,
    /// A DNS client.
    pub dig: PathBuf,
    /// `conntrack -L`.
    pub conntrack: PathBuf,
    /// For `busybox udhcpc` and `busybox arping`.
    pub busybox: PathBuf,
    /// ISC's DHCP client.
    pub dhclient: PathBuf,
}

impl Tools {
    /// `None`, with a word, if one is missing.
    pub fn find() -> Option<Tools> {
        Some(Tools {
            nginx: peer("nginx")?,
            curl: peer("curl")?,
            dig: peer("dig")?,
            conntrack: peer("conntrack")?,
            busybox: peer("busybox")?,
            dhclient: peer("dhclient")?,
        })
    }
}
