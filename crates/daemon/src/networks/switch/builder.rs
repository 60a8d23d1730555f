//! Making one switch's part on the host: looks at what is there, makes what is missing.

use fief_api::Condition;
use fief_host::devices::{self, Bridge, Build, Device, Named, NewLink, Port, Settings, Vlan};
use fief_host::netlink::Socket;
use fief_host::{HostError, sysctl};

use super::super::links::GROUP;
use super::super::space::carry_out;
use super::super::wanted::{Trunk, TrunkPort, condition};
use super::origin;

/// The spanning tree's times in hundredths of a second, as short as IEEE 802.1D and the kernel let them be together:
/// the maximum age is 6 s at least, and twice the forward delay less a second is no less than that. They count only
/// where no other bridge is the root, and [`PRIORITY`] sees to it that any other one is.
const FORWARD_DELAY: u32 = 400;
const HELLO: u32 = 100;
const MAX_AGE: u32 = 600;
/// The highest: the last to become the root.
const PRIORITY: u16 = 0xf000;
/// Makes one switch.
pub(super) struct Builder<'a> {
    /// The key of its network.
    pub(super) key: &'a str,
    trunk: &'a Trunk,
    is_bridged: bool,
    /// What it lacks.
    pub(super) lacking: Vec<Condition>,
    /// Was anything done?
    pub(super) did: bool,
}

/// What is there of a switch before its ports are connected.
pub(super) struct Found {
    bridge: Device,
    cable: Option<Device>,
    ports: Vec<(String, Device)>,
}

impl Found {
    /// The numbers of all its ports.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let ports = self.ports.iter().map(|(_, device)| device.index);
        self.cable.iter().map(|device| device.index).chain(ports).collect()
    }
}

impl<'a> Builder<'a> {
    /// Nothing is made yet. `is_bridged`: would its frames pass the host's netfilter?
    pub(super) fn new(key: &'a str, trunk: &'a Trunk, is_bridged: bool) -> Builder<'a> {
        Builder { key, trunk, is_bridged, lacking: Vec::new(), did: false }
    }

    /// The bridge, and the devices that will be its ports.
    pub(super) fn prepare(&mut self, socket: &mut Socket) -> Result<Found, HostError> {
        if self.is_bridged {
            let text = "bridged frames pass this host's iptables and connection tracking, all tenants' together: \
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
            // The kernel does not say of a bridge how it was made; and to begin with the protocol stops every port
            // anyway.
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

    /// Connects the ports.
    pub(super) fn connect(&mut self, socket: &mut Socket, found: &Found) -> Result<(), HostError> {
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
                    "{uplink} takes packets of {most} bytes, and the network's are up to {wanted}: write \
                     `mtu: {most}`, or raise that of the device"
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
        // A device of the host's is up or down as its owner wants it, and one of a VLAN cannot be up without it
        // (ENETDOWN, vlan_dev_open in net/8021q); it rises with it.
        let tagged = found.ports.iter().map(|(_, device)| device).filter(|d| d.group == GROUP && !d.up);
        devices::carry_out(socket, &tagged.map(up).collect::<Vec<_>>());
        Ok(())
    }
}

/// Keeps IPv6 off a device of ours. A kernel without it has no such switch.
fn quiet(device: &str) {
    let _ = sysctl::write(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1");
}
