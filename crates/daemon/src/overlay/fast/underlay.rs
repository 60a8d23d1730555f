//! The network card that segments' datagrams leave by, as it is now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fief_host::devices::{self, Build, Neighbour};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::{Host, LinuxHost, Route, RouteKind};
use ipnet::IpNet;

use super::{Refusal, unavailable};
use crate::config::overlay::Overlay as Config;
use crate::networks::carry_out;

/// What the tunnel and the sockets of one host are to each other (bpf/overlay.bpf.c). Of the space that nobody routes, and
/// outside of what aliases and links are taken from by default; no packet with it leaves the host.
pub(super) const ALIAS4: Ipv4Addr = Ipv4Addr::new(254, 255, 255, 254);
/// The same for IPv6, a unique local address (RFC 4193).
pub(super) const ALIAS6: Ipv6Addr = Ipv6Addr::new(0xfdf1, 0xef0e, 0x56de, 0, 0, 0, 0, 1);

/// Outer headers: Ethernet's inner one, VXLAN, UDP and IP.
const OVERHEAD4: u32 = 14 + 8 + 8 + 20;
const OVERHEAD6: u32 = 14 + 8 + 8 + 40;
const LOOPBACK: u32 = 1;
/// RT_TABLE_LOCAL.
const LOCAL: u32 = 255;

/// The card.
#[derive(Debug, Clone)]
pub(super) struct Underlay {
    /// Where it is.
    pub namespace: Arc<Namespace>,
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its MTU.
    pub mtu: u32,
    /// An IPv4 address of it.
    pub own4: Option<Ipv4Addr>,
    /// An IPv6 address of it, one for more than the link if there is one.
    pub own6: Option<Ipv6Addr>,
}

/// Is this one of the overlay's routes: one that leads packets between tunnel and sockets, or a group to the card?
pub fn is_overlays(route: &Route) -> bool {
    let address = route.prefix.addr();
    matches!(route.table, Route::MAIN | LOCAL)
        && (address.is_multicast() || [IpAddr::V4(ALIAS4), IpAddr::V6(ALIAS6)].contains(&address))
}

/// The namespace that the card is in.
pub(super) fn home(config: &Config) -> Result<Namespace, Refusal> {
    match &config.namespace {
        Some(name) => Namespace::named(name).map_err(unavailable),
        None => Ok(Namespace::current()),
    }
}

impl Underlay {
    /// Looks at the card.
    pub fn look(config: &Config) -> Result<Underlay, Refusal> {
        let Some(name) = &config.device else {
            let text = "this host has no overlay: `overlay.device` in fiefd.yaml names the network card";
            return Err(Refusal::Unavailable(text.into()));
        };
        let namespace = Arc::new(home(config)?);
        let mut socket = Socket::open_in(&namespace, libc::NETLINK_ROUTE).map_err(unavailable)?;
        let device = devices::find_named(&mut socket, name).map_err(unavailable)?;
        let absent =
            || Refusal::Unavailable(format!("the network card {name} (overlay.device) is not there"));
        let device = device.filter(|device| device.index != LOOPBACK).ok_or_else(absent)?;
        let Some(mac) = device.mac else {
            return Err(Refusal::Unavailable(format!("{name} (overlay.device) is no Ethernet device")));
        };
        let addresses = devices::addresses(&mut socket).map_err(unavailable)?;
        let own: Vec<IpAddr> =
            addresses.iter().filter(|a| a.device == device.index).map(|a| a.net.addr()).collect();
        let v4 = own.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let v6: Vec<Ipv6Addr> = own
            .iter()
            .filter_map(|address| match address {
                IpAddr::V6(v6) => Some(*v6),
                IpAddr::V4(_) => None,
            })
            .collect();
        let own6 = v6.iter().find(|v6| !v6.is_unicast_link_local()).or(v6.first()).copied();
        if v4.is_none() && own6.is_none() {
            return Err(Refusal::Unavailable(format!("{name} (overlay.device) has no address yet")));
        }
        Ok(Underlay {
            namespace,
            name: name.clone(),
            index: device.index,
            mac,
            mtu: device.mtu,
            own4: v4,
            own6,
        })
    }

    /// What a frame may carry so that it passes in one piece, as the kernel's own VXLAN has it: fragments would halve the
    /// packets a second. Who needs vxvde's 1500 says so, and his datagrams go in fragments. Not by IPv6: the kernel cuts
    /// nothing up there that comes from a tunnel (ip6_fragment: `ignore_df`), so with it the smaller one counts.
    pub fn largest_frame(&self) -> u32 {
        let overhead = if self.own6.is_some() { OVERHEAD6 } else { OVERHEAD4 };
        self.mtu.saturating_sub(overhead).clamp(super::SMALLEST_MTU, super::LARGEST_MTU)
    }

    /// Has packets to the alias leave by the card, where they are turned round.
    pub fn lead_round(&self) -> Result<(), Refusal> {
        let aliases = [self.own4.map(|_| IpAddr::V4(ALIAS4)), self.own6.map(|_| IpAddr::V6(ALIAS6))];
        for address in aliases.into_iter().flatten() {
            let neighbour = Neighbour { device: self.index, address, mac: self.mac };
            self.carry_out(&[Build::SetRoute(self.route(address)), Build::SetNeighbour(neighbour)])?;
        }
        Ok(())
    }

    /// Has a group's datagrams leave by the card, whatever the host's own routes say: a tunnel that takes its
    /// destination from the program names no device (vxlan_xmit_one in drivers/net/vxlan).
    pub fn lead(&self, group: IpAddr) -> Result<(), Refusal> {
        self.carry_out(&[Build::SetRoute(self.route(group))])
    }

    fn carry_out(&self, builds: &[Build]) -> Result<(), Refusal> {
        let mut socket = Socket::open_in(&self.namespace, libc::NETLINK_ROUTE).map_err(unavailable)?;
        match carry_out(&mut socket, builds) {
            // A card that is down has no routes; its event brings us back here.
            Err(error) if error.errno() != Some(libc::ENETDOWN) => Err(unavailable(error)),
            _ => Ok(()),
        }
    }

    fn route(&self, address: IpAddr) -> Route {
        // IPv6 has a route to all groups by each device in its table `local`, which comes first.
        let is_group6 = address.is_multicast() && address.is_ipv6();
        Route {
            table: if is_group6 { LOCAL } else { Route::MAIN },
            prefix: IpNet::from(address),
            metric: 0,
            kind: if is_group6 { RouteKind::Multicast } else { RouteKind::Unicast },
            device: Some(self.index),
            via: None,
            source: None,
            on_link: false,
            mtu: None,
            detour: None,
        }
    }
}

/// Takes away the routes that are not to be kept, and with the aliases' their neighbours.
pub(super) fn lead_no_more(namespace: &Namespace, is_kept: impl Fn(&Route) -> bool) -> Result<(), Refusal> {
    let listing = namespace.visit(|| LinuxHost::open()?.list()).map_err(unavailable)?.map_err(unavailable)?;
    let mut builds = Vec::new();
    for route in listing.routes.into_iter().filter(|route| is_overlays(route) && !is_kept(route)) {
        if let Some(device) = route.device.filter(|_| !route.prefix.addr().is_multicast()) {
            let neighbour = Neighbour { device, address: route.prefix.addr(), mac: [0; 6] };
            builds.push(Build::DeleteNeighbour(neighbour));
        }
        builds.push(Build::DeleteRoute(route));
    }
    let mut socket = Socket::open_in(namespace, libc::NETLINK_ROUTE).map_err(unavailable)?;
    // What went with its device is gone as well.
    let _ = devices::carry_out(&mut socket, &builds);
    Ok(())
}
