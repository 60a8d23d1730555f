//! The short way on the host: programs at the host's ends of links, and at uplinks (bpf/lib/host.h).

use fief_datapath::Device;
use fief_datapath::ports::Ports;

use super::Networks;

impl Networks {
    /// Loads the programs for ports where nothing is judged, and those of the short way on the host.
    pub(super) fn load_ports(&mut self) {
        let loaded = Ports::load().inspect_err(|error| tracing::warn!(%error, "no short way"));
        let (ports, host_way) = loaded.ok().unzip();
        self.ports = Some(ports);
        let host_way = host_way.filter(|_| self.is_short);
        self.host_way = host_way.and_then(|loaded| {
            loaded.inspect_err(|error| tracing::warn!(%error, "no short way on the host")).ok()
        });
    }

    /// The uplinks that namespaces' packets leave by, by number.
    pub fn uplinks(&self) -> Vec<u32> {
        let is_linked =
            self.spaces.values().any(|standing| standing.vrf.is_none() && !standing.space.transit.is_empty());
        let exits = self.wanted.exits.values().filter(|_| is_linked);
        exits.filter_map(|exit| exit.device).collect()
    }

    /// The uplinks that have programs, by number.
    pub fn shortened(&self) -> Vec<u32> {
        self.host_way.as_ref().map(|way| way.uplinks().collect()).unwrap_or_default()
    }

    /// Somebody may have taken programs away.
    pub fn look_at_uplinks(&mut self) {
        self.looks_at_uplinks = true;
    }

    /// Puts programs at exactly these uplinks, and ends all ways of before. Returns whether programs came or went.
    pub fn shorten(&mut self, uplinks: &[Device]) -> bool {
        let Some(way) = &mut self.host_way else { return false };
        let (did, errors) = way.attach(uplinks, std::mem::take(&mut self.looks_at_uplinks));
        // A device that vanished under our hands is not an error: its event is on the way.
        for error in errors {
            tracing::warn!(%error, "tenants' packets take the whole way through the host there");
        }
        if let Err(error) = way.end() {
            // What has changed counts a second later.
            tracing::warn!(%error, "the host's short ways do not end at once");
        }
        did
    }
}
