//! The programs and the vxlan devices of the overlay's namespace, which all segments share.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fief_datapath::Device;
use fief_datapath::overlay::maps::{Maps, Peer, Settings};
use fief_datapath::overlay::{Inside, Overlay};
use fief_host::devices::{self, Build, Classifier, Direction, Named, NewLink, Settings as Link, Vxlan};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::{Route, sysctl};
use fief_overlay::Segment;

use super::underlay::{self, ALIAS4, ALIAS6, Underlay};
use super::{Refusal, gate, goodbye, unavailable};
use crate::config::overlay::Overlay as Config;
use crate::networks::carry_out;

/// The vxlan devices.
const VXLAN4: &str = "fief4";
const VXLAN6: &str = "fief6";
/// How many groups one socket may be in (ip-sysctl.rst); a host has more segments than the kernel's 20.
const MEMBERSHIPS: &str = "net.ipv4.igmp_max_memberships";
const ENOUGH: u32 = 4096;
/// The alias of the loopback device in the overlay's namespace keeps what that was.
const REMEMBERED: &str = "fief overlay memberships=";
const LOOPBACK: u32 = 1;

/// What all segments of the host share.
pub(super) struct Programs {
    namespace: Arc<Namespace>,
    overlay: Overlay,
    inside: Inside,
    vxlan4: Option<u32>,
    vxlan6: Option<u32>,
    underlay: Option<Underlay>,
    settings: Settings,
}

impl Programs {
    /// Loads the programs; those that an earlier daemon left go on until they are replaced.
    pub fn load(namespace: &Path, pins: &Path, age: Duration) -> Result<Programs, Refusal> {
        let namespace = Arc::new(Namespace::create(namespace).map_err(unavailable)?);
        let overlay = Overlay::load(pins, age).map_err(unavailable)?;
        let inside = overlay.inside().map_err(unavailable)?;
        Ok(Programs {
            namespace,
            overlay,
            inside,
            vxlan4: None,
            vxlan6: None,
            underlay: None,
            settings: Settings::default(),
        })
    }

    /// The overlay's namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The maps.
    pub fn maps(&mut self) -> &mut Maps {
        self.overlay.maps()
    }

    /// The maps, to look at.
    pub fn tables(&self) -> &Maps {
        self.overlay.tables()
    }

    /// The programs for ports.
    pub fn inside(&self) -> &Inside {
        &self.inside
    }

    /// The vxlan devices of IPv4 and IPv6, by number.
    pub fn families(&self) -> impl Iterator<Item = Option<u32>> + use<> {
        [self.vxlan4, self.vxlan6].into_iter()
    }

    /// Those that there are.
    pub fn devices(&self) -> impl Iterator<Item = u32> + use<> {
        self.families().flatten()
    }

    /// Makes devices, programs and settings as the underlay is now.
    pub fn set(&mut self, config: &Config, underlay: &Underlay, peers: &[SocketAddr]) -> Result<(), Refusal> {
        let (Some(below), Some(above)) =
            (config.port.checked_sub(1).filter(|p| *p > 0), config.port.checked_add(1))
        else {
            let text = format!(
                "overlay.port {} leaves no room: the ports on both sides of it are used too",
                config.port
            );
            return Err(Refusal::Unavailable(text));
        };
        // A host that speaks both families says by its port of IPv6 that the same went by IPv4.
        let port6 = if underlay.own4.is_some() { above } else { below };
        // Devices of one port share their sockets, of both families: one that is left over would get what is the other's.
        let absent = [(VXLAN4, underlay.own4.is_none()), (VXLAN6, underlay.own6.is_none())];
        for (name, _) in absent.into_iter().filter(|(_, is_absent)| *is_absent) {
            self.remove_vxlan(name)?;
        }
        self.vxlan4 = underlay.own4.map(|_| self.vxlan(VXLAN4, underlay, below)).transpose()?;
        self.vxlan6 = underlay.own6.map(|_| self.vxlan(VXLAN6, underlay, port6)).transpose()?;
        let made = underlay.own4.map(|_| gate::make(&self.namespace, &underlay.namespace, &self.inside));
        let gate = made.transpose()?.unwrap_or_default();
        let address = |address: Option<IpAddr>| address.map(Into::into).unwrap_or_default();
        self.settings = Settings {
            own4: address(underlay.own4.map(IpAddr::V4)),
            own6: address(underlay.own6.map(IpAddr::V6)),
            alias4: IpAddr::V4(ALIAS4).into(),
            alias6: IpAddr::V6(ALIAS6).into(),
            vxlan4: self.vxlan4.unwrap_or(0),
            vxlan6: self.vxlan6.unwrap_or(0),
            gate_inside: gate.inner,
            gate: gate.outer,
            card: underlay.index,
            mtu: underlay.mtu,
            port: config.port.to_be_bytes(),
            own_port4: below.to_be_bytes(),
            own_port6: port6.to_be_bytes(),
            dual_port: above.to_be_bytes(),
            mac: underlay.mac,
            ttl: config.max_ttl,
            pad: 0,
        };
        let settings = self.settings;
        self.maps().set_settings(&settings).map_err(unavailable)?;
        let peers: Vec<Peer> = peers
            .iter()
            .map(|peer| Peer {
                address: peer.ip().to_canonical().into(),
                port: peer.port().to_be_bytes(),
                pad: 0,
            })
            .collect();
        self.maps().set_peers(&peers).map_err(unavailable)?;
        self.underlay = Some(underlay.clone());
        underlay.lead_round()?;
        let device = Device { index: underlay.index, name: underlay.name.clone() };
        let attached = underlay.namespace.visit(|| self.overlay.attach(&device));
        attached.map_err(unavailable)?.map_err(unavailable)
    }

    /// A vxlan device, made if it is missing, with our program.
    fn vxlan(&self, name: &str, underlay: &Underlay, port: u16) -> Result<u32, Refusal> {
        let mut inside = Socket::open_in(&self.namespace, libc::NETLINK_ROUTE).map_err(unavailable)?;
        let alias = format!("fief overlay {} {port}", underlay.index);
        let there = devices::find_named(&mut inside, name).map_err(unavailable)?;
        let is_whole =
            there.as_ref().is_some_and(|device| device.up && device.alias.as_deref() == Some(&alias));
        let index = match there {
            Some(device) if device.alias.as_deref() == Some(&alias) => device.index,
            other => {
                if let Some(other) = other {
                    carry_out(&mut inside, &[Build::DeleteLink(Named::Index(other.index))])
                        .map_err(unavailable)?;
                }
                // In the underlay's namespace, where its sockets are to be.
                let mut outside =
                    Socket::open_in(&underlay.namespace, libc::NETLINK_ROUTE).map_err(unavailable)?;
                let link = NewLink { name: name.to_owned(), ..NewLink::default() };
                let namespace = Some(self.namespace.clone());
                let vxlan = Vxlan { link, underlay: underlay.index, port, namespace };
                carry_out(&mut outside, &[Build::AddVxlan(vxlan)]).map_err(unavailable)?;
                let made = devices::index_of(&mut inside, name).map_err(unavailable)?;
                made.ok_or_else(|| Refusal::Unavailable(format!("vxlan device {name} went away")))?
            }
        };
        let device = || Named::Index(index);
        let program = if name == VXLAN4 { &self.inside.from_wire4 } else { &self.inside.from_wire6 };
        let classifier = Classifier {
            device: device(),
            direction: Direction::Ingress,
            program: program.clone(),
            name: "fief-from-wire",
        };
        let mut builds = vec![Build::AddClassifiers(device()), Build::SetClassifier(classifier)];
        if !is_whole {
            // Each is an event, which would bring us here again.
            let settings = Link { up: Some(true), alias: Some(alias), ..Link::default() };
            builds.extend([Build::NoAddressGeneration(device()), Build::Set { device: device(), settings }]);
        }
        carry_out(&mut inside, &builds).map_err(unavailable)?;
        Ok(index)
    }

    fn remove_vxlan(&self, name: &str) -> Result<(), Refusal> {
        let mut inside = Socket::open_in(&self.namespace, libc::NETLINK_ROUTE).map_err(unavailable)?;
        match devices::find_named(&mut inside, name).map_err(unavailable)? {
            Some(left) => {
                carry_out(&mut inside, &[Build::DeleteLink(Named::Index(left.index))]).map_err(unavailable)
            }
            None => Ok(()),
        }
    }

    /// Has a group's datagrams leave by the card.
    pub fn lead(&self, group: IpAddr) -> Result<(), Refusal> {
        self.underlay.as_ref().map_or(Ok(()), |underlay| underlay.lead(group))
    }

    /// Those of no other group.
    pub fn lead_only(&self, is_kept: impl Fn(IpAddr) -> bool) -> Result<(), Refusal> {
        let Some(underlay) = &self.underlay else { return Ok(()) };
        let is_route_kept = |route: &Route| {
            let address = route.prefix.addr();
            !address.is_multicast() || is_kept(address)
        };
        underlay::lead_no_more(&underlay.namespace, is_route_kept)
    }

    /// Tells the peers of these segments that nobody of this host is on them any more.
    pub fn say_goodbye(&self, config: &Config, vnis: &[u32]) {
        let Some(underlay) = &self.underlay else { return };
        let Settings { own_port4, own_port6, .. } = self.settings;
        for segment in vnis.iter().filter_map(|vni| Segment::of_group(*vni).ok()) {
            let v4 = underlay.own4.map(|own| (own.into(), own_port4, segment.group4(config.group4).into()));
            let v6 = underlay.own6.map(|own| (own.into(), own_port6, segment.group6(config.group6).into()));
            for (own, port, group) in [v4, v6].into_iter().flatten() {
                let (port, group) = (u16::from_be_bytes(port), SocketAddr::new(group, config.port));
                let said =
                    underlay.namespace.visit(|| goodbye::say(&segment, own, port, group, config.max_ttl));
                if let Ok(Err(error)) = said {
                    tracing::debug!(%error, %group, "no goodbye was said");
                }
            }
        }
    }

    /// Lets one socket be in the groups of all segments; what the switch was is remembered beside the devices.
    pub fn allow_memberships(&self) -> Result<(), Refusal> {
        let Some(Underlay { namespace: underlay, .. }) = &self.underlay else { return Ok(()) };
        let now = underlay.visit(|| sysctl::read(MEMBERSHIPS)).map_err(unavailable)?.map_err(unavailable)?;
        if now.trim().parse::<u32>().is_ok_and(|most| most >= ENOUGH) {
            return Ok(());
        }
        let mut socket = Socket::open_in(&self.namespace, libc::NETLINK_ROUTE).map_err(unavailable)?;
        let alias = Some(format!("{REMEMBERED}{}", now.trim()));
        let remember =
            Build::Set { device: Named::Index(LOOPBACK), settings: Link { alias, ..Link::default() } };
        carry_out(&mut socket, &[remember]).map_err(unavailable)?;
        let set = underlay.visit(|| sysctl::write(MEMBERSHIPS, &ENOUGH.to_string()));
        set.map_err(unavailable)?.map_err(unavailable)
    }
}

/// Takes away devices, programs and pins, and makes the underlay as it was.
pub(super) fn remove(
    loaded: Option<Programs>,
    namespace: &Path,
    pins: &Path,
    underlay: Result<Namespace, Refusal>,
) -> Result<(), Refusal> {
    drop(loaded);
    fief_datapath::remove_pins(pins).map_err(unavailable)?;
    let Ok(home) = Namespace::at(namespace) else { return Ok(()) };
    let mut socket = Socket::open_in(&home, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let devices = devices::list(&mut socket).map_err(unavailable)?;
    // By hand: sockets that listen here keep the namespace for a moment.
    for device in devices.iter().filter(|device| device.index != LOOPBACK) {
        let _ = devices::carry_out(&mut socket, &[Build::DeleteLink(Named::Index(device.index))]);
    }
    if let Ok(underlay) = underlay {
        underlay::lead_no_more(&underlay, |_| false)?;
        let alias = devices.iter().find(|device| device.index == LOOPBACK).and_then(|lo| lo.alias.as_deref());
        if let Some(before) = alias.and_then(|alias| alias.strip_prefix(REMEMBERED)) {
            let set = underlay.visit(|| sysctl::write(MEMBERSHIPS, before));
            set.map_err(unavailable)?.map_err(unavailable)?;
        }
    }
    Namespace::remove(namespace).map_err(unavailable)
}
