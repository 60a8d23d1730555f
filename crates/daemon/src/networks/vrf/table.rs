//! The table of tenants with a VRF, kept as it is wanted.

use std::sync::Arc;

use fief_host::netlink::Socket;
use fief_host::nft::{Batch, Family};

use super::super::{Networks, Wanted};
use super::rules::{TABLE, table};

impl Networks {
    /// Makes the table as it is wanted; says whether anything was done. It names no numbers of devices, so that it can
    /// stand before they do.
    pub(in super::super) fn set_vrf_rules(&mut self, wanted: &Wanted, closing: &mut Vec<Socket>) -> bool {
        let spaces = wanted.spaces.values().filter(|space| space.vrf.is_some()).map(Arc::as_ref);
        if spaces.clone().next().is_none() {
            return self.remove_vrf_rules();
        }
        let next = table(spaces);
        if self.vrf_table.as_ref() == Some(&next) {
            return false;
        }
        let set = Socket::open(libc::NETLINK_NETFILTER).and_then(|mut socket| {
            let set = super::super::rules::set(self.vrf_table.as_ref(), &next, &mut socket);
            closing.push(socket);
            set
        });
        match set {
            Ok(did) => {
                self.vrf_table = Some(next);
                did
            }
            Err(error) => {
                tracing::error!(%error, "the table of tenants with a VRF could not be set");
                self.vrf_table = None;
                true
            }
        }
    }

    fn remove_vrf_rules(&mut self) -> bool {
        if self.vrf_table.is_none() && self.begun {
            return false;
        }
        let mut batch = Batch::new(Family::Inet, TABLE);
        batch.delete_table_if_there();
        let removed = Socket::open(libc::NETLINK_NETFILTER).and_then(|mut socket| batch.commit(&mut socket));
        if let Err(error) = removed {
            // A kernel without nf_tables has no table of ours either.
            tracing::debug!(%error, "the table of tenants with a VRF was not removed");
        }
        self.vrf_table.take().is_some()
    }
}
