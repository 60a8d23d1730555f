//! What happened on one network since it was first set.

/// Counters of one network; they only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// DHCP datagrams that arrived.
    pub dhcp_received: u64,
    /// DHCP datagrams that are no message of a client on this network.
    pub dhcp_malformed: u64,
    /// DHCP messages whose client address is not the one in the frame.
    pub dhcp_spoofed: u64,
    /// DHCP messages of Ethernet addresses that no endpoint has.
    pub dhcp_unknown: u64,
    /// DHCP messages beyond what one client may send.
    pub dhcp_limited: u64,
    /// DHCP messages for which no address was free.
    pub dhcp_exhausted: u64,
    /// Offers that left.
    pub dhcp_offers: u64,
    /// Acknowledgements that left.
    pub dhcp_acks: u64,
    /// Refusals that left.
    pub dhcp_naks: u64,
    /// Addresses that a client found in use.
    pub dhcp_declined: u64,
    /// Acknowledgements that did not leave because the lease could not be saved.
    pub dhcp_unsaved: u64,
    /// DHCPv6 datagrams that arrived.
    pub dhcp6_received: u64,
    /// Those of them that are not answered: of nobody here, too many, or no message to this server.
    pub dhcp6_ignored: u64,
    /// DHCPv6 answers that left.
    pub dhcp6_replies: u64,
    /// Router solicitations that arrived.
    pub ra_asked: u64,
    /// ICMPv6 messages to the routers of the link that are no solicitation from it.
    pub ra_ignored: u64,
    /// Router advertisements that left.
    pub ra_sent: u64,
    /// DNS queries that arrived.
    pub dns_queries: u64,
    /// DNS queries answered from the network's own names.
    pub dns_own: u64,
    /// DNS queries that went to an upstream server.
    pub dns_forwarded: u64,
    /// DNS queries that no upstream server answered.
    pub dns_failed: u64,
    /// DNS queries and connections dropped: too many at once, or no query at all.
    pub dns_dropped: u64,
    /// DNS queries from addresses that are not the network's.
    pub dns_foreign: u64,
    /// Metadata requests of endpoints.
    pub metadata_requests: u64,
    /// Metadata connections closed at once because there were too many.
    pub metadata_dropped: u64,
}
