//! Taking away what stands.

use std::path::Path;

use fief_host::devices::{self, Build, Named};
use fief_host::netlink::Socket;

use super::space::{self, Standing};
use super::{links, vrf, wanted::Space};

/// Removes a tenant's namespace with the link to it.
pub(super) fn remove(path: &Path, standing: Option<&Standing>) {
    if let Some(space) = standing.map(|standing| &standing.space).filter(|space| space.vrf.is_some()) {
        vrf::remove(space.slot);
        return cut(space);
    }
    if let Err(error) = space::remove(path) {
        tracing::warn!(path = %path.display(), %error, "a tenant's namespace stays");
    }
    if let Some(standing) = standing.filter(|standing| !standing.space.transit.is_empty()) {
        cut(&standing.space);
    }
}

/// Takes a link away, if it did not go with the namespace, and what connection tracking knows of it.
fn cut(space: &Space) {
    let removed = Socket::open(libc::NETLINK_ROUTE).map(|mut socket| {
        let link = Named::Name(links::device(space.slot));
        devices::carry_out(&mut socket, &[Build::DeleteLink(link)])
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "a link stays");
    }
    let addresses = space.transit.values().map(|address| (*address).into()).collect();
    if let Err(error) = fief_host::conntrack::forget(&addresses) {
        tracing::warn!(%error, "connections of a tenant that is gone are tracked on");
    }
}

/// Closes sockets of nf_tables on a thread of its own. Each waits until the last packet has left what its transactions
/// took away (nft_rcv_nl_event in net/netfilter/nf_tables_api.c), which is milliseconds; together they wait once.
pub(super) fn close(sockets: Vec<Socket>) {
    if sockets.is_empty() {
        return;
    }
    let thread = std::thread::Builder::new().name("closing".into());
    // Without a thread they have been closed here.
    let _ = thread.spawn(move || drop(sockets));
}
