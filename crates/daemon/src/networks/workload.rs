//! The far end of an endpoint's port: an interface in somebody's namespace, or a TAP device for a virtual machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fief_api::Condition;
use fief_host::devices::{self, Build, Device, InterfaceAddress, Named, NewLink, Settings, Veth};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::tap::{self, Tap};
use fief_host::{HostError, Route, RouteKind};
use fief_model::Attach;
use ipnet::IpNet;

use super::space::carry_out;
use super::wanted::{Port, condition};

const MAIN: u32 = 254;

/// Makes the port's device, and its other end where that belongs.
pub fn plug(socket: &mut Socket, namespace: &Namespace, link: NewLink, port: &Port) -> Result<(), Condition> {
    let refused = |error: HostError| condition("AttachRefused", error.to_string());
    if let Some(name) = &port.attach.tap {
        let tap = Tap { name: name.clone(), index: link.index, persistent: true, ..Tap::default() };
        return namespace.inside(|| tap::create(&tap)).and_then(|made| made).map(drop).map_err(refused);
    }
    let workload = Arc::new(open(&port.attach)?);
    if is_ours(&workload) {
        let text = "that namespace is the host's own, or a tenant's: an endpoint there would join what is kept apart";
        return Err(condition("WorkloadRefused", text));
    }
    let peer =
        NewLink { name: port.interface.clone(), mac: Some(port.mac.0), mtu: link.mtu, ..NewLink::default() };
    let made =
        carry_out_strictly(socket, Build::AddVeth(Veth { link, peer, peer_namespace: Some(workload) }));
    made.map_err(|error| match error.errno() {
        Some(libc::EEXIST) => condition(
            "InterfaceTaken",
            format!(
                "the workload has an interface {0} already; remove it, or name another `interface`",
                port.interface
            ),
        ),
        _ => refused(error),
    })
}

/// Brings the interface up, with its address and its default route, if it has them.
pub fn configure(port: &Port, mtu: u32) -> Result<(), Condition> {
    if port.attach.tap.is_some() {
        return Ok(());
    }
    let refused = |error: HostError| condition("AttachRefused", error.to_string());
    let workload = open(&port.attach)?;
    let mut socket = Socket::open_in(&workload, libc::NETLINK_ROUTE).map_err(refused)?;
    let index = devices::index_of(&mut socket, &port.interface).map_err(refused)?;
    let Some(device) = index else {
        return Err(condition("AttachRefused", format!("interface {} went away", port.interface)));
    };
    let settings = Settings { up: Some(true), mtu: Some(mtu), ..Settings::default() };
    let mut builds = vec![Build::Set { device: Named::Index(device), settings }];
    if let Some(net) = port.address {
        builds.push(Build::AddAddress(InterfaceAddress { device, net, noprefixroute: false }));
    }
    carry_out(&mut socket, &builds).map_err(refused)?;
    let Some(via) = port.default_via else { return Ok(()) };
    let any = match via {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let default = Route {
        table: MAIN,
        prefix: IpNet::new_assert(any, 0),
        metric: 0,
        kind: RouteKind::Unicast,
        device: Some(device),
        via: Some(via),
        source: None,
        on_link: false,
        mtu: None,
        detour: None,
    };
    carry_out(&mut socket, &[Build::SetRoute(default)]).map_err(refused)
}

/// Sets the MTU of the other end of a port that stands.
pub fn resize(port: &Port, near: &Device, mtu: u32) -> Result<(), Condition> {
    if port.attach.tap.is_some() {
        return Ok(());
    }
    let refused = |error: HostError| condition("AttachRefused", error.to_string());
    let workload = open(&port.attach)?;
    let mut socket = Socket::open_in(&workload, libc::NETLINK_ROUTE).map_err(refused)?;
    // By now the name may be another, and the number of the process that was attached somebody else's.
    let is_far = |device: &Device| Some(device.index) == near.peer && device.peer == Some(near.index);
    let there = devices::list(&mut socket).map_err(refused)?;
    let Some(far) = there.into_iter().find(is_far) else { return Ok(()) };
    let settings = Settings { mtu: Some(mtu), ..Settings::default() };
    carry_out(&mut socket, &[Build::Set { device: Named::Index(far.index), settings }]).map_err(refused)
}

/// Is this the host's namespace, or one that was made for a tenant?
fn is_ours(workload: &Namespace) -> bool {
    let marked = || -> Result<bool, HostError> {
        let mut socket = Socket::open_in(workload, libc::NETLINK_ROUTE)?;
        Ok(devices::list(&mut socket)?.iter().any(super::space::is_marked))
    };
    workload.identity() == Namespace::current().identity() || marked().unwrap_or(true)
}

fn open(attach: &Attach) -> Result<Namespace, Condition> {
    let missing = |what: String, error: HostError| {
        condition("WorkloadMissing", format!("{what} is not there; it is attached when it is ({error})"))
    };
    match attach {
        Attach { netns: Some(name), .. } if name.starts_with('/') => {
            Namespace::at(name.as_ref()).map_err(|e| missing(format!("network namespace {name}"), e))
        }
        Attach { netns: Some(name), .. } => {
            let path = std::path::Path::new(NAMED).join(name);
            Namespace::at(&path).map_err(|e| missing(format!("network namespace {name}"), e))
        }
        Attach { pid: Some(pid), .. } => {
            Namespace::of_pid(*pid).map_err(|e| missing(format!("process {pid}"), e))
        }
        _ => Err(condition("WorkloadMissing", "it does not say what is attached")),
    }
}

/// Where ip-netns(8) keeps names.
const NAMED: &str = "/run/netns";

fn carry_out_strictly(socket: &mut Socket, build: Build) -> Result<(), HostError> {
    devices::carry_out(socket, &[build]).into_iter().collect()
}
