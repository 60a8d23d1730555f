//! The network card that segments' datagrams leave by, as it is now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fief_host::devices::{self, Build, Neighbour};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::{Route, RouteKind};
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

/// Is this one of the routes that lead packets between tunnel and sockets?
pub fn is_alias(route: &Route) -> bool {
    [IpAddr::V4(ALIAS4), IpAddr::V6(ALIAS6)].contains(&route.prefix.addr())
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
        let absent = || Refusal::Unavailable(format!("the network card {name} (overlay.device) is not there"));
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
    /// packets a second. Who needs vxvde's 1500 says so, and his datagrams go in fragments.
    pub fn largest_frame(&self) -> u32 {
        let overhead = if self.own4.is_some() { OVERHEAD4 } else { OVERHEAD6 };
        self.mtu.saturating_sub(overhead).clamp(super::SMALLEST_MTU, super::LARGEST_MTU)
    }

    /// Has packets to the alias leave by the card, where they are turned round.
    pub fn lead_round(&self) -> Result<(), Refusal> {
        let mut socket = Socket::open_in(&self.namespace, libc::NETLINK_ROUTE).map_err(unavailable)?;
        let families = [(IpAddr::V4(ALIAS4), self.own4.is_some()), (IpAddr::V6(ALIAS6), self.own6.is_some())];
        for (address, _) in families.into_iter().filter(|(_, is_spoken)| *is_spoken) {
            let neighbour = Neighbour { device: self.index, address, mac: self.mac };
            let builds = [Build::SetRoute(route(address, self.index)), Build::SetNeighbour(neighbour)];
            let led = carry_out(&mut socket, &builds);
            // A card that is down has no routes; its event brings us back here.
            match led {
                Err(error) if error.errno() != Some(libc::ENETDOWN) => return Err(unavailable(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Takes away what [`Underlay::lead_round`] made.
pub(super) fn lead_no_more(namespace: &Namespace) -> Result<(), Refusal> {
    let mut socket = Socket::open_in(namespace, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let neighbours = devices::neighbours(&mut socket).map_err(unavailable)?;
    for address in [IpAddr::V4(ALIAS4), IpAddr::V6(ALIAS6)] {
        for neighbour in neighbours.iter().filter(|neighbour| neighbour.address == address) {
            let builds = [
                Build::DeleteRoute(route(address, neighbour.device)),
                Build::DeleteNeighbour(*neighbour),
            ];
            // What went with its device is gone as well.
            let _ = devices::carry_out(&mut socket, &builds);
        }
    }
    Ok(())
}

fn route(address: IpAddr, device: u32) -> Route {
    Route {
        table: Route::MAIN,
        prefix: IpNet::from(address),
        metric: 0,
        kind: RouteKind::Unicast,
        device: Some(device),
        via: None,
        source: None,
        on_link: false,
        mtu: None,
        detour: None,
    }
}
