//! A lease, and where leases are kept.

use std::net::Ipv4Addr;
use std::time::SystemTime;

/// One address that one client has for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The key of its network, such as `blue/web`.
    pub network: String,
    /// The client's Ethernet address. A client has one lease on a network.
    pub mac: [u8; 6],
    /// The client identifier it sent (option 61), if any; kept for people, clients are told apart by `mac`.
    pub client_id: Option<Vec<u8>>,
    /// The address. An address has one lease on a network.
    pub address: Ipv4Addr,
    /// The host name that the client says it has (option 12). Nobody resolves it.
    pub hostname: Option<String>,
    /// When it ends, by the host's clock. One that has ended is kept, so that its client gets the same address again.
    pub expires: SystemTime,
}

/// Where leases are kept so that they survive the daemon and the host.
pub trait LeaseStore: Send {
    /// Every lease there is, of all networks, ended ones too.
    ///
    /// # Errors
    /// What cannot be read, in words; the services then do not start.
    fn load(&mut self) -> Result<Vec<Lease>, String>;

    /// Writes the leases of `put` (over those of the same network and address) and removes those of `remove` (network,
    /// address), all of it or nothing, and returns when that is on the disk.
    ///
    /// # Errors
    /// What could not be written, in words. No client is then told that it has an address.
    fn save(&mut self, put: &[Lease], remove: &[(String, Ipv4Addr)]) -> Result<(), String>;
}
