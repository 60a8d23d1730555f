//! Letting the services attend to networks: sockets opened inside namespaces and VRFs, leases kept on the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use fief_host::HostError;
use fief_host::namespaces::Namespace;
use fief_host::{bound, packet};
use fief_model::Mac;
use fief_services::{Lease, LeaseStore, NetworkConfig, Services, Sockets};

use super::space::{METADATA, Standing};
use super::vrf;
use crate::store::leases::Leases;

const DNS: u16 = 53;
const DHCP: u16 = 67;
const DHCP6: u16 = 547;
const HTTP: u16 = 80;

/// The services, started with the first network.
pub struct Attendance {
    state: PathBuf,
    bell: Arc<dyn Fn() + Send + Sync>,
    services: Option<Services>,
    /// What each network is served with: its configuration, and whose sockets.
    served: BTreeMap<String, Arc<NetworkConfig>>,
}

impl Attendance {
    /// Nothing is served yet.
    pub fn new(state: PathBuf, bell: Box<dyn Fn() + Send + Sync>) -> Attendance {
        Attendance { state, bell: bell.into(), services: None, served: BTreeMap::new() }
    }

    /// Serves the networks of a namespace as they are now.
    pub fn serve(&mut self, standing: &Standing) {
        if !standing.bridges.is_empty() {
            self.begin();
        }
        let Some(services) = &self.services else { return };
        let namespace = match standing.vrf {
            Some(vrf) => vrf::number(vrf),
            None => standing.namespace.inode().unwrap_or(0),
        };
        for (key, segment) in &standing.space.segments {
            let Some(bridge) = standing.bridges.get(key) else { continue };
            let config = NetworkConfig { namespace, bridge: *bridge, ..segment.services.clone() };
            let before = self.served.get(key);
            if before.is_some_and(|before| **before == config) {
                continue;
            }
            let place = |config: &NetworkConfig| {
                (config.namespace, config.bridge, config.gateway, config.gateway6, config.dhcp.is_some())
            };
            let stays = before.is_some_and(|before| place(before) == place(&config));
            if before.is_some() && !stays {
                // Its addresses are free when this returns.
                services.remove(key, false);
                self.served.remove(key);
            }
            let sockets = if stays {
                None
            } else {
                // Networks of one namespace share a listener.
                let is_served =
                    |key| self.served.get(key).is_some_and(|served| served.namespace == namespace);
                let metadata = !standing.space.segments.keys().any(is_served);
                match sockets(&standing.namespace, standing.vrf, &config, metadata) {
                    Ok(sockets) => Some(sockets),
                    Err(error) => {
                        tracing::error!(network = key, %error, "a network's services cannot listen");
                        continue;
                    }
                }
            };
            let config = Arc::new(config);
            services.set(config.clone(), sockets);
            self.served.insert(key.clone(), config);
        }
    }

    /// Ends the services of all other networks, and forgets their leases.
    pub fn leave_all_but(&mut self, networks: &BTreeSet<&str>) -> bool {
        let gone: Vec<String> =
            self.served.keys().filter(|key| !networks.contains(key.as_str())).cloned().collect();
        for key in &gone {
            if let Some(services) = &self.services {
                services.remove(key, true);
            }
            self.served.remove(key);
        }
        !gone.is_empty()
    }

    /// Who has which address, by network.
    pub fn addresses(&mut self) -> HashMap<(String, Mac), Ipv4Addr> {
        self.begin();
        let leases = self.services.iter().flat_map(Services::leases);
        leases.map(|lease| ((lease.network, Mac(lease.mac)), lease.address)).collect()
    }

    fn begin(&mut self) {
        if self.services.is_none() {
            let started = self.start().inspect_err(|error| tracing::error!(%error, "no network is served"));
            self.services = started.ok();
        }
    }

    fn start(&self) -> io::Result<Services> {
        let leases = Leases::open(&self.state).map_err(io::Error::other)?;
        Services::start(Box::new(Ringing { leases, bell: self.bell.clone() }))
    }
}

/// Leases on the disk, whose changes ring a bell.
struct Ringing {
    leases: Leases,
    bell: Arc<dyn Fn() + Send + Sync>,
}

impl LeaseStore for Ringing {
    fn load(&mut self) -> Result<Vec<Lease>, String> {
        self.leases.load()
    }

    fn save(&mut self, put: &[Lease], remove: &[(String, Ipv4Addr)]) -> Result<(), String> {
        self.leases.save(put, remove)?;
        (self.bell)();
        Ok(())
    }
}

/// Everything that a network's services listen on and speak through.
fn sockets(
    namespace: &Arc<Namespace>,
    vrf: Option<u32>,
    config: &NetworkConfig,
    metadata: bool,
) -> Result<Sockets, HostError> {
    // In the host's namespace a network's addresses are its own by the device.
    let bridge = vrf.map(|_| config.bridge);
    let gateways: Vec<IpAddr> =
        std::iter::once(IpAddr::V4(config.gateway)).chain(config.gateway6.map(IpAddr::V6)).collect();
    let open = || -> Result<Sockets, HostError> {
        let failed = |what: String| move |error: io::Error| HostError::io(what, error);
        let (mut dns_udp, mut dns_tcp) = (Vec::new(), Vec::new());
        for gateway in &gateways {
            let at = SocketAddr::new(*gateway, DNS);
            dns_udp.push(bound::udp(at, bridge).map_err(failed(format!("bind UDP {at}")))?);
            dns_tcp.push(bound::tcp_listener(at, bridge).map_err(failed(format!("bind TCP {at}")))?);
        }
        let (mut dhcp, mut dhcp_quiet, mut dhcp6) = (None, None, None);
        if config.dhcp.is_some() {
            dhcp = Some(packet::udp_on_device(config.bridge, DHCP)?);
            let at = SocketAddr::from((config.gateway, DHCP));
            dhcp_quiet = Some(bound::udp(at, bridge).map_err(failed(format!("bind UDP {at}")))?);
        }
        if config.dhcp.is_some() && config.subnet6.is_some() {
            dhcp6 = Some(packet::udp6_on_device(config.bridge, DHCP6)?);
        }
        let icmp6 = config.subnet6.map(|_| packet::router_solicitations(config.bridge)).transpose()?;
        let at = SocketAddr::from((METADATA, HTTP));
        let metadata = match metadata {
            true => Some(bound::tcp_listener(at, vrf).map_err(failed(format!("bind TCP {at}")))?),
            false => None,
        };
        let inside = namespace.clone();
        let sources = gateways.clone();
        Ok(Sockets {
            dhcp,
            dhcp_quiet,
            dhcp6,
            icmp6,
            dns_udp,
            dns_tcp,
            metadata,
            upstream: Box::new(move |server| ask(&inside, vrf, &sources, server)),
            upstream_tcp: None,
        })
    };
    namespace.visit(open)?
}

/// A socket for a question to another server. It has the gateway's address, by which the rules know its network.
fn ask(
    namespace: &Namespace,
    vrf: Option<u32>,
    sources: &[IpAddr],
    server: SocketAddr,
) -> io::Result<UdpSocket> {
    let source = sources.iter().find(|source| source.is_ipv4() == server.is_ipv4());
    let source = source.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let open = || {
        let socket = bound::udp(SocketAddr::new(*source, 0), vrf)?;
        socket.connect(server)?;
        Ok(socket)
    };
    namespace.visit(open).map_err(io::Error::other)?
}
