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
//! connection tracking, its names, its TAP devices. And a port of a bridge that runs the spanning tree protocol is silent
//! for twice the forward delay when it comes up, and makes all switches outside forget whom they know when it goes; that
//! is right for a cable and wrong for an endpoint.

mod cable;
mod frames;

use std::collections::{BTreeMap, BTreeSet};

use fief_api::{Condition, PortStatus};
use fief_host::devices::{self, Bridge, Build, Device, Named, NewLink, Port, Settings, Vlan};
use fief_host::netlink::Socket;
use fief_host::nft::{Batch, Family, Table};
use fief_host::{HostError, sysctl};

pub use cable::{guard, plug};
pub use frames::{PAUSE, is_guarded};

use super::links::GROUP;
use super::rules::{self, TABLE};
use super::space::carry_out;
use super::wanted::{Trunk, TrunkPort, condition};

/// The spanning tree's times in hundredths of a second, as short as IEEE 802.1D and the kernel let them be together: the
/// maximum age is 6 s at least, and twice the forward delay less a second is no less than that. They count only where no
/// other bridge is the root, and [`PRIORITY`] sees to it that any other one is.
const FORWARD_DELAY: u32 = 400;
const HELLO: u32 = 100;
const MAX_AGE: u32 = 600;
/// The highest: the last to become the root.
const PRIORITY: u16 = 0xf000;
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
            let mut builder = Builder { key, trunk, is_bridged, lacking: Vec::new(), did: false };
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

    /// Removes switches that no document wants any more, and ports; the first time, what an earlier daemon left as well.
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
        let did = rules::set(self.table.as_ref(), &next, &mut socket)?;
        closing.push(socket);
        self.table = Some(next);
        Ok(did)
    }
}

/// Makes one switch.
struct Builder<'a> {
    key: &'a str,
    trunk: &'a Trunk,
    is_bridged: bool,
    lacking: Vec<Condition>,
    did: bool,
}

/// What is there of a switch before its ports are connected.
struct Found {
    bridge: Device,
    cable: Option<Device>,
    ports: Vec<(String, Device)>,
}

impl Found {
    fn numbers(&self) -> Vec<u32> {
        let ports = self.ports.iter().map(|(_, device)| device.index);
        self.cable.iter().map(|device| device.index).chain(ports).collect()
    }
}

impl Builder<'_> {
    /// The bridge, and the devices that will be its ports.
    fn prepare(&mut self, socket: &mut Socket) -> Result<Found, HostError> {
        if self.is_bridged {
            let text = "bridged frames pass this host's iptables and connection tracking, in which all tenants are one: \
                 `sysctl -w net.bridge.bridge-nf-call-iptables=0`, and the same of `ip6tables` and `arptables`";
            self.lacking.push(condition("BridgeNetfilter", text));
        }
        let bridge = self.bridge(socket)?;
        let cable = devices::find_named(socket, &self.trunk.cable)?;
        let mut ports = Vec::new();
        for port in &self.trunk.ports {
            match self.port(socket, port) {
                Ok(Some(device)) => ports.push((port.uplink.clone(), device)),
                Ok(None) => {}
                Err(reason) => self.lacking.push(reason),
            }
        }
        Ok(Found { bridge, cable, ports })
    }

    fn bridge(&mut self, socket: &mut Socket) -> Result<Device, HostError> {
        let trunk = self.trunk;
        let alias = origin(self.key) + if trunk.stp { " stp" } else { "" };
        let name = || Named::Name(trunk.bridge.clone());
        if let Some(device) = devices::find_named(socket, &trunk.bridge)? {
            if device.alias.as_ref() == Some(&alias) {
                return Ok(device);
            }
            // The kernel does not say of a bridge how it was made; and to begin with the protocol stops every port anyway.
            carry_out(socket, &[Build::DeleteLink(name())])?;
        }
        self.did = true;
        let link = NewLink {
            name: trunk.bridge.clone(),
            mac: Some(trunk.mac),
            group: Some(GROUP),
            ..NewLink::default()
        };
        let bridge = Bridge {
            link,
            stp: trunk.stp,
            forward_delay: Some(if trunk.stp { FORWARD_DELAY } else { 0 }),
            hello: Some(HELLO),
            max_age: Some(MAX_AGE),
            priority: Some(PRIORITY),
            multicast_snooping: Some(false),
            ..Bridge::default()
        };
        carry_out(socket, &[Build::AddBridge(bridge), Build::NoAddressGeneration(name())])?;
        quiet(&trunk.bridge);
        let settings = Settings { up: Some(true), alias: Some(alias), ..Settings::default() };
        carry_out(socket, &[Build::Set { device: name(), settings }])?;
        let made = devices::find_named(socket, &trunk.bridge)?;
        made.ok_or_else(|| HostError::Missing(format!("bridge {}", trunk.bridge)))
    }

    /// The device that is to be a port: the one that is named, or one for its VLAN.
    fn port(&mut self, socket: &mut Socket, port: &TrunkPort) -> Result<Option<Device>, Condition> {
        let refused = |error: HostError| condition("PortRefused", error.to_string());
        let Some(parent) = port.device else { return Ok(None) };
        let Some((id, name)) = &port.vlan else {
            return devices::find_named(socket, &port.uplink).map_err(refused);
        };
        let uplink = &port.uplink;
        match devices::find_named(socket, name).map_err(refused)? {
            Some(device) if device.peer == Some(parent) && device.vlan == Some(*id) => {
                return Ok(Some(device));
            }
            Some(_) => carry_out(socket, &[Build::DeleteLink(Named::Name(name.clone()))]).map_err(refused)?,
            None if port.barred => return Ok(None),
            None => {}
        }
        self.did = true;
        let link = NewLink {
            name: name.clone(),
            group: Some(GROUP),
            alias: Some(origin(self.key)),
            ..NewLink::default()
        };
        let made: Result<(), HostError> = devices::carry_out(
            socket,
            &[
                Build::AddVlan(Vlan { link, parent, id: *id }),
                Build::NoAddressGeneration(Named::Name(name.clone())),
            ],
        )
        .into_iter()
        .collect();
        made.map_err(|error| match error.errno() {
            Some(libc::EOPNOTSUPP) => {
                let text = "this kernel has no 802.1Q devices: load the module 8021q (`modprobe 8021q`)";
                condition("VlanUnsupported", text)
            }
            Some(libc::EEXIST) => condition(
                "VlanTaken",
                format!(
                    "{uplink} has a device for VLAN {id} already, which is not fief's: remove it, or name it in \
                     `uplinks` instead and leave `vlan` out"
                ),
            ),
            _ => refused(error),
        })?;
        quiet(name);
        devices::find_named(socket, name).map_err(refused)
    }

    fn connect(&mut self, socket: &mut Socket, found: &Found) -> Result<(), HostError> {
        let master = Some(found.bridge.index);
        let mut builds = Vec::new();
        let enslave = |device: &Device, mtu: Option<u32>| Build::Set {
            device: Named::Index(device.index),
            settings: Settings { master: Some(master.map(Named::Index)), mtu, ..Settings::default() },
        };
        let up = |device: &Device| Build::Set {
            device: Named::Index(device.index),
            settings: Settings { up: Some(true), ..Settings::default() },
        };
        match &found.cable {
            Some(cable) if cable.master != master || !cable.up || cable.mtu != self.trunk.mtu => {
                quiet(&cable.name);
                // The tree never leads by endpoints.
                let leaf = Port { root_block: Some(true), ..Port::default() };
                let device = Named::Index(cable.index);
                builds.extend([
                    Build::NoAddressGeneration(device.clone()),
                    enslave(cable, Some(self.trunk.mtu)),
                    Build::SetPort { device, port: leaf },
                    up(cable),
                ]);
            }
            Some(_) => {}
            None => self.lacking.push(condition(
                "SwitchIncomplete",
                format!("device {} to the tenant's namespace is not there", self.trunk.cable),
            )),
        }
        for (uplink, device) in &found.ports {
            if device.mtu < self.trunk.mtu {
                let (most, wanted) = (device.mtu, self.trunk.mtu);
                let text = format!(
                    "{uplink} takes packets of {most} bytes, and the network's are up to {wanted}: write `mtu: {most}`, or \
                     raise that of the device"
                );
                self.lacking.push(condition("MtuTooSmall", text));
            }
            let is_barred = self.trunk.ports.iter().any(|port| port.uplink == *uplink && port.barred);
            match device.master {
                Some(_) if device.master == master => {}
                Some(_) => {
                    let text = format!("{} is a port of something else; take it out of there", device.name);
                    self.lacking.push(condition("PortTaken", text));
                    continue;
                }
                None if is_barred || self.is_bridged => continue,
                None => builds.push(enslave(device, None)),
            }
        }
        self.did |= !builds.is_empty();
        carry_out(socket, &builds)?;
        // A device of the host's is up or down as its owner wants it, and one of a VLAN cannot be up without it (ENETDOWN,
        // vlan_dev_open in net/8021q); it rises with it.
        let tagged = found.ports.iter().map(|(_, device)| device).filter(|d| d.group == GROUP && !d.up);
        devices::carry_out(socket, &tagged.map(up).collect::<Vec<_>>());
        Ok(())
    }
}

/// Keeps IPv6 off a device of ours. A kernel without it has no such switch.
fn quiet(device: &str) {
    let _ = sysctl::write(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1");
}
