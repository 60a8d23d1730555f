//! Switches: networks that are part of a segment outside, by devices of the host.
//!
//! ```text
//!   the host                                            namespace of the tenant
//!   eth3 ──┐                                                       ┌── e-app1
//!   eth4 ──┤ fiefb… (bridge) ── fiefc… ────── veth ────── u-lan ── n-lan (bridge)
//!          └ spanning tree among these                             └── e-app2, TAP devices
//! ```
//!
//! Two bridges: the devices must stay the host's, and endpoints belong where their tenant is, as on every network: its
//! connection tracking, its names, its TAP devices. And a port of a bridge that runs the spanning tree protocol is
//! silent for twice the forward delay when it comes up, and makes all switches outside forget whom they know when it
//! goes; that is right for a cable and wrong for an endpoint.

mod builder;
mod cable;
mod frames;

use std::collections::{BTreeMap, BTreeSet};

use fief_api::{Condition, PortStatus};
use fief_host::devices::{self, Build, Device, Named, Settings};
use fief_host::netlink::Socket;
use fief_host::nft::{Batch, Family, Table};
use fief_host::{HostError, sysctl};

use builder::Builder;
pub use cable::{guard, plug};
pub use frames::{PAUSE, is_guarded};

use super::links::GROUP;
use super::rules::TABLE;
use super::wanted::{Trunk, TrunkPort, condition};

/// With one of these on, bridged frames pass the host's iptables and its connection tracking, all tenants' together. A
/// bridge's own switch can only add to it (br_nf_pre_routing in net/bridge/br_netfilter_hooks.c).
const BRIDGED: [&str; 3] = [
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-arptables",
];

/// The parts of switches that lie on the host, as they stand.
#[derive(Debug, Default)]
pub struct Trunks {
    standing: BTreeMap<String, Trunk>,
    /// The host's table of frames; `None` if there is none.
    table: Option<Table>,
    /// What switches lack, by the key of their network.
    lacking: BTreeMap<String, Vec<Condition>>,
    /// Has anything been looked at yet?
    begun: bool,
}

/// The text for people on a switch's devices.
fn origin(key: &str) -> String {
    format!("fief network {key}")
}

impl Trunks {
    /// Makes them as they are wanted. Says whether anything was done.
    pub fn build(&mut self, wanted: &BTreeMap<String, Trunk>, closing: &mut Vec<Socket>) -> bool {
        if wanted.is_empty() && self.standing.is_empty() && self.begun {
            return false;
        }
        let before = std::mem::take(&mut self.lacking);
        let built = Socket::open(libc::NETLINK_ROUTE)
            .and_then(|mut socket| self.build_all(&mut socket, wanted, closing));
        self.begun = built.is_ok();
        let did = built.unwrap_or_else(|error| {
            let reason = condition("SwitchIncomplete", error.to_string());
            self.lacking = wanted.keys().map(|key| (key.clone(), vec![reason.clone()])).collect();
            false
        });
        for (key, lacking) in self.lacking.iter().filter(|(key, lacking)| before.get(*key) != Some(lacking)) {
            let words: Vec<&str> = lacking.iter().map(|condition| condition.message.as_str()).collect();
            tracing::warn!(network = key, "a switch is not as it is wanted: {}", words.join("; "));
        }
        did || self.lacking != before
    }

    /// Does one lack what no event tells of?
    pub fn is_incomplete(&self) -> bool {
        !self.lacking.is_empty()
    }

    /// What a switch lacks on the host.
    pub fn lacking_of(&self, key: &str) -> &[Condition] {
        self.lacking.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// What would be done, in words.
    pub fn describe(&self, wanted: &BTreeMap<String, Trunk>) -> Vec<String> {
        let mut steps = Vec::new();
        for (key, trunk) in wanted.iter().filter(|(key, trunk)| self.standing.get(*key) != Some(trunk)) {
            let verb = if self.standing.contains_key(key) { "change" } else { "create" };
            steps.push(format!("{verb} bridge {} of switch {key}", trunk.bridge));
            let ready = trunk.ports.iter().filter(|port| port.device.is_some() && !port.barred);
            steps.extend(ready.map(|port| format!("make device {} a port of {}", port.name(), trunk.bridge)));
        }
        let gone = self.standing.iter().filter(|(key, _)| !wanted.contains_key(*key));
        steps.extend(gone.map(|(key, trunk)| format!("remove bridge {} of switch {key}", trunk.bridge)));
        if !steps.is_empty() {
            steps.push(format!("set nftables table bridge {TABLE} on the host"));
        }
        steps
    }

    /// A switch's bridge on the host and its ports, as they are now.
    pub fn view(&self, key: &str) -> Option<(String, Vec<PortStatus>)> {
        let trunk = self.standing.get(key)?;
        let mut socket = Socket::open(libc::NETLINK_ROUTE).ok()?;
        let bridge = devices::index_of(&mut socket, &trunk.bridge).ok()?;
        let mut status = |port: &TrunkPort| {
            let device = devices::find_named(&mut socket, port.name()).ok().flatten();
            let state = device.filter(|device| bridge.is_some() && device.master == bridge);
            let state = state.and_then(|device| device.port_state);
            PortStatus {
                uplink: port.uplink.clone(),
                vlan: port.vlan.as_ref().map(|(vlan, _)| *vlan),
                device: port.name().to_owned(),
                state: state.map_or_else(|| "absent".into(), |state| state.to_string()),
            }
        };
        let ports = trunk.ports.iter().map(&mut status).collect();
        Some((trunk.bridge.clone(), ports))
    }

    fn build_all(
        &mut self,
        socket: &mut Socket,
        wanted: &BTreeMap<String, Trunk>,
        closing: &mut Vec<Socket>,
    ) -> Result<bool, HostError> {
        let mut did = self.remove_surplus(socket, wanted)?;
        let is_bridged = BRIDGED.iter().any(|name| sysctl::read(name).is_ok_and(|value| value.trim() != "0"));
        let mut builders = Vec::new();
        for (key, trunk) in wanted {
            let mut builder = Builder::new(key, trunk, is_bridged);
            let found = builder.prepare(socket);
            builders.push((builder, found));
        }
        // The host is closed before a frame can come.
        let ports = builders.iter().filter_map(|(_, found)| found.as_ref().ok());
        let numbers: BTreeSet<u32> = ports.flat_map(|found| found.numbers()).collect();
        did |= self.close_host(numbers, closing)?;
        for (mut builder, found) in builders {
            if let Err(error) = found.and_then(|found| builder.connect(socket, &found)) {
                builder.lacking.push(condition("SwitchIncomplete", error.to_string()));
            }
            did |= builder.did;
            if !builder.lacking.is_empty() {
                self.lacking.insert(builder.key.to_owned(), builder.lacking);
            }
        }
        self.standing.clone_from(wanted);
        Ok(did)
    }

    /// Removes switches that no document wants any more, and ports; the first time, what an earlier daemon left as
    /// well.
    fn remove_surplus(
        &self,
        socket: &mut Socket,
        wanted: &BTreeMap<String, Trunk>,
    ) -> Result<bool, HostError> {
        let names = |trunk: &Trunk| {
            let vlans =
                trunk.ports.iter().filter(|port| port.vlan.is_some()).map(|port| port.name().to_owned());
            [trunk.bridge.clone(), trunk.cable.clone()].into_iter().chain(vlans).collect::<Vec<_>>()
        };
        let ours: BTreeSet<String> = wanted.values().flat_map(names).collect();
        let mut gone: BTreeSet<String> = self.standing.values().flat_map(names).collect();
        let mut released: BTreeSet<(String, String)> = BTreeSet::new();
        let ports = |trunk: &Trunk| {
            let plain = trunk.ports.iter().filter(|port| port.vlan.is_none());
            plain.map(|port| (port.uplink.clone(), trunk.bridge.clone())).collect::<Vec<_>>()
        };
        released.extend(self.standing.values().flat_map(ports));
        if !self.begun {
            let there = devices::list(socket)?;
            let is_ours = |device: &&Device| {
                device.group == GROUP && device.alias.as_deref().is_some_and(|a| a.starts_with(&origin("")))
            };
            gone.extend(there.iter().filter(is_ours).map(|device| device.name.clone()));
            let bridges = there.iter().filter(is_ours).map(|device| (device.index, device.name.clone()));
            let bridges: BTreeMap<u32, String> = bridges.collect();
            let port = |device: &Device| Some((device.name.clone(), bridges.get(&device.master?)?.clone()));
            released.extend(there.iter().filter(|device| !is_ours(device)).filter_map(port));
        }
        let kept: BTreeSet<(String, String)> = wanted.values().flat_map(ports).collect();
        let mut builds = Vec::new();
        for (port, bridge) in released.difference(&kept).filter(|(_, bridge)| ours.contains(bridge)) {
            let master = devices::index_of(socket, bridge)?;
            let is_port = devices::find_named(socket, port)?
                .is_some_and(|device| master.is_some() && device.master == master);
            if is_port {
                let settings = Settings { master: Some(None), ..Settings::default() };
                builds.push(Build::Set { device: Named::Name(port.clone()), settings });
            }
        }
        for name in gone.difference(&ours) {
            if devices::index_of(socket, name)?.is_some() {
                builds.push(Build::DeleteLink(Named::Name(name.clone())));
            }
        }
        // Some of them go with others.
        devices::carry_out(socket, &builds);
        Ok(!builds.is_empty())
    }

    fn close_host(&mut self, ports: BTreeSet<u32>, closing: &mut Vec<Socket>) -> Result<bool, HostError> {
        if ports.is_empty() {
            let stood = self.table.take().is_some();
            if stood || !self.begun {
                let mut batch = Batch::new(Family::Bridge, TABLE);
                batch.delete_table_if_there();
                // A kernel without this family has no table of ours either.
                let _ = Socket::open(libc::NETLINK_NETFILTER).map(|mut socket| batch.commit(&mut socket));
            }
            return Ok(stood);
        }
        let next = frames::of_host(ports.into_iter());
        if self.table.as_ref() == Some(&next) {
            return Ok(false);
        }
        let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
        let did = frames::set(self.table.as_ref(), &next, &mut socket)?;
        closing.push(socket);
        self.table = Some(next);
        Ok(did)
    }
}
