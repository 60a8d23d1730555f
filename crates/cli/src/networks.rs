//! Networks and endpoints as rows and as documents.

use fief_api::{EndpointView, NetworkStatus, NetworkView, Phase, PortStatus};
use fief_model::{Attach, Document};

use crate::table::Table;

/// The table of networks.
pub fn networks(views: &[NetworkView]) -> Table {
    let mut table =
        Table::new(&["NETWORK", "TYPE", "SUBNETS", "UPLINK", ">LEASES", "PHASE", ">ZONE", "BRIDGE", "PLACE"]);
    for view in views {
        let subnets: Vec<String> = view.network.spec.subnets.iter().map(ToString::to_string).collect();
        let status = &view.status;
        table.row([
            view.network.metadata.key(),
            if view.network.is_switch() { "switch" } else { "local" }.into(),
            if subnets.is_empty() { "-".into() } else { subnets.join(",") },
            if view.network.is_switch() { ports(status) } else { uplink(status) },
            status.leases.to_string(),
            phase(status.phase).into(),
            status.zone.to_string(),
            status.bridge.clone(),
            match &status.vrf {
                Some(vrf) => format!("vrf {vrf}"),
                None => status.namespace.clone().unwrap_or_default(),
            },
        ]);
    }
    table
}

/// The table of endpoints: a row for each of their interfaces.
pub fn endpoints(views: &[EndpointView]) -> Table {
    let mut table =
        Table::new(&["ENDPOINT", "NETWORK", "INTERFACE", "ADDRESS", "MAC", "PHASE", "ATTACHED TO"]);
    for view in views {
        for interface in &view.status.interfaces {
            table.row([
                view.endpoint.metadata.key(),
                interface.network.clone(),
                interface.interface.clone(),
                interface.address.map_or_else(|| "-".into(), |address| address.to_string()),
                interface.mac.clone(),
                phase(view.status.phase).into(),
                place(&view.endpoint.spec.attach),
            ]);
        }
    }
    table
}

/// The documents that make these again.
pub fn documents(networks: &[NetworkView], endpoints: &[EndpointView]) -> Vec<String> {
    let networks = networks.iter().map(|view| Document::Network(view.network.clone()).to_yaml());
    let endpoints = endpoints.iter().map(|view| Document::Endpoint(view.endpoint.clone()).to_yaml());
    networks.chain(endpoints).collect()
}

/// The ports of a switch, each with its VLAN, and with its state where that is not `forwarding`.
fn ports(status: &NetworkStatus) -> String {
    let port = |port: &PortStatus| {
        let vlan = port.vlan.map(|vlan| format!(".{vlan}")).unwrap_or_default();
        let state = if port.state == "forwarding" { String::new() } else { format!("({})", port.state) };
        format!("{}{vlan}{state}", port.uplink)
    };
    let ports: Vec<String> = status.ports.iter().map(port).collect();
    if ports.is_empty() { "-".into() } else { ports.join(",") }
}

/// The uplink in use, and why none of those before it is: `eth1 (eth0 has no carrier)`.
fn uplink(status: &NetworkStatus) -> String {
    let used = status.uplink.as_deref().unwrap_or("-");
    let before = status.uplinks.iter().take_while(|other| other.device != used);
    let why = before.filter_map(|other| Some(format!("{} {}", other.device, other.lacks.as_ref()?)));
    let why = why.collect::<Vec<_>>().join("; ");
    if why.is_empty() { used.to_owned() } else { format!("{used} ({why})") }
}

fn place(attach: &Attach) -> String {
    match attach {
        Attach { netns: Some(name), .. } => format!("netns {name}"),
        Attach { pid: Some(pid), .. } => format!("pid {pid}"),
        Attach { tap: Some(name), .. } => format!("tap {name}"),
        _ => "-".into(),
    }
}

/// A phase's word.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Ready => "Ready",
        Phase::Pending => "Pending",
    }
}
