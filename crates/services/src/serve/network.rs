//! One network, while it is served.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{dhcp, dhcp6, dns, ra, tcp, upstream::Upstream};
use crate::config::{EndpointConfig, NetworkConfig};
use crate::dhcp::State;
use crate::dns::View;
use crate::quota::Quota;
use crate::saver::Saver;
use crate::teeth::is_off;
use crate::{Counters, Lease, Sockets};

/// Queries that wait for an upstream server: of a network, of one client.
const QUERIES: (usize, usize) = (256, 64);
/// Connections to the DNS service.
const DNS_CONNECTIONS: (usize, usize) = (64, 8);
/// Connections to the metadata service.
const METADATA_CONNECTIONS: (usize, usize) = (64, 16);

/// Bytes of a packet socket's queue.
const PACKETS_BUFFER: usize = 1 << 20;

/// One network's configuration, leases, names and tasks.
pub(crate) struct Network {
    config: RefCell<Arc<NetworkConfig>>,
    pub(crate) leases: RefCell<State>,
    /// The names, and when the first lease in them ends.
    view: RefCell<Option<(Rc<View>, SystemTime)>>,
    counters: Cell<Counters>,
    pub(super) upstream: RefCell<Option<Rc<Upstream>>>,
    pub(super) queries: Rc<Quota>,
    pub(super) dns_connections: Rc<Quota>,
    pub(super) metadata_connections: Rc<Quota>,
    /// One a socket; replaced together with the sockets.
    listeners: RefCell<JoinSet<()>>,
    /// What they have begun; outlives a change of sockets.
    work: RefCell<JoinSet<()>>,
    saver: Saver,
    /// Rings when the configuration is another.
    pub(super) changed: Notify,
    /// Holds the gateway's port 67, see [`Sockets::dhcp_quiet`].
    quiet: RefCell<Option<std::net::UdpSocket>>,
}

impl Network {
    /// A network with leases from the store, and no sockets yet.
    pub(crate) fn new(config: Arc<NetworkConfig>, leases: Vec<Lease>, saver: Saver) -> Rc<Network> {
        let mut state = State::new(leases);
        state.configure(&config);
        Rc::new(Network {
            config: RefCell::new(config),
            leases: RefCell::new(state),
            view: RefCell::default(),
            counters: Cell::default(),
            upstream: RefCell::default(),
            queries: Quota::new(QUERIES.0, QUERIES.1),
            dns_connections: Quota::new(DNS_CONNECTIONS.0, DNS_CONNECTIONS.1),
            metadata_connections: Quota::new(METADATA_CONNECTIONS.0, METADATA_CONNECTIONS.1),
            listeners: RefCell::default(),
            work: RefCell::default(),
            saver,
            changed: Notify::new(),
            quiet: RefCell::default(),
        })
    }

    /// Takes another configuration. The next packet is answered by it.
    pub(crate) fn configure(&self, config: Arc<NetworkConfig>) {
        self.leases.borrow_mut().configure(&config);
        self.config.replace(config);
        self.names_changed();
        self.changed.notify_one();
    }

    /// Serves from these sockets instead of those it had. One that cannot be used is left out, and said.
    pub(crate) fn listen(self: &Rc<Network>, sockets: Sockets) {
        let Sockets {
            dhcp, dhcp_quiet, dhcp6: dhcp_v6, icmp6, dns_udp, dns_tcp, upstream, upstream_tcp, ..
        } = sockets;
        let mut listeners = JoinSet::new();
        if let Some(socket) = self.said("DHCP", dhcp.map(packets).transpose()).flatten() {
            listeners.spawn_local(dhcp::serve(Rc::clone(self), Rc::new(socket)));
        }
        if let Some(socket) = self.said("DHCPv6", dhcp_v6.map(packets).transpose()).flatten() {
            listeners.spawn_local(dhcp6::serve(Rc::clone(self), socket));
        }
        if let Some(socket) = self.said("router advertisements", icmp6.map(packets).transpose()).flatten() {
            listeners.spawn_local(ra::serve(Rc::clone(self), socket));
        }
        for socket in dns_udp {
            let socket = socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket));
            if let Some(socket) = self.said("DNS", socket) {
                listeners.spawn_local(dns::serve(Rc::clone(self), Rc::new(socket)));
            }
        }
        for socket in dns_tcp {
            let socket = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket));
            if let Some(socket) = self.said("DNS over TCP", socket) {
                listeners.spawn_local(tcp::serve(Rc::clone(self), socket));
            }
        }
        self.upstream.replace(Some(Rc::new(Upstream::new(upstream, upstream_tcp))));
        self.quiet.replace(dhcp_quiet);
        // Dropping the old ones ends them and closes their sockets.
        self.listeners.replace(listeners);
    }

    /// Ends everything; the tasks let go of the sockets when they are waited for. The network itself goes when the last
    /// change on its way to the disk has let go of it.
    pub(crate) fn stop(&self) -> [JoinSet<()>; 2] {
        drop(self.upstream.take());
        drop(self.quiet.take());
        [self.listeners.take(), self.work.take()]
    }

    /// Does something that takes longer than one packet.
    pub(super) fn begin(&self, task: impl Future<Output = ()> + 'static) {
        let mut work = self.work.borrow_mut();
        while work.try_join_next().is_some() {}
        work.spawn_local(task);
    }

    /// The configuration as it is now.
    pub(crate) fn config(&self) -> Arc<NetworkConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// The names as they are now; put together when somebody asks.
    pub(super) fn view(&self) -> Rc<View> {
        let now = SystemTime::now();
        let mut kept = self.view.borrow_mut();
        if let Some((view, end)) = &*kept
            && now < *end
        {
            return Rc::clone(view);
        }
        let leases = self.leases.borrow();
        let view = Rc::new(View::new(&self.config(), |mac| leases.address_of(mac, now)));
        *kept = Some((Rc::clone(&view), leases.next_end(now)));
        view
    }

    /// The next that asks for a name has the names put together anew.
    pub(crate) fn names_changed(&self) {
        self.view.replace(None);
    }

    /// Where changes of leases go.
    pub(super) fn saver(&self) -> &Saver {
        &self.saver
    }

    /// The counters as they are now.
    pub(crate) fn counters(&self) -> Counters {
        self.counters.get()
    }

    /// Counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// Is this the address of somebody on this network? Link-local ones (RFC 4291) are, where there is IPv6.
    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        let config = self.config.borrow();
        if is_off("net-asker") {
            return true;
        }
        match address.to_canonical() {
            IpAddr::V4(v4) => config.subnet.contains(&v4),
            IpAddr::V6(v6) => {
                config.subnet6.is_some_and(|subnet| subnet.contains(&v6) || v6.is_unicast_link_local())
            }
        }
    }

    /// Finds the endpoint that has this address, by its configuration or by a lease.
    pub(super) fn endpoint<'a>(
        &self,
        config: &'a NetworkConfig,
        address: Ipv4Addr,
    ) -> Option<&'a EndpointConfig> {
        let fixed = config.endpoints.iter().find(|endpoint| endpoint.address == Some(address));
        fixed.or_else(|| {
            let mac = self.leases.borrow().holder(address, SystemTime::now())?;
            // One with an address of its own does not have that of an old lease any more.
            config.endpoints.iter().find(|endpoint| endpoint.mac == mac && endpoint.address.is_none())
        })
    }

    fn said<T>(&self, what: &str, result: io::Result<T>) -> Option<T> {
        if let Err(error) = &result {
            tracing::error!(network = self.config.borrow().key, %error, "no {what} here: its socket cannot be used");
        }
        result.ok()
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe; an OwnedFd owns what is registered, which is what that asks for"
)]
fn packets(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::socket::{setsockopt, sockopt};
    let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
    fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // The default holds 170 messages, fewer than may boot together. What the host does not allow is not needed.
    setsockopt(&socket, sockopt::RcvBuf, &PACKETS_BUFFER).unwrap_or_default();
    AsyncFd::new(socket)
}
