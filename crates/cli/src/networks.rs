//! Networks and endpoints as rows and as documents.

use fief_api::{EndpointView, NetworkStatus, NetworkView, Phase};
use fief_model::{Attach, Document};

use crate::table::Table;

/// The table of networks.
pub fn networks(views: &[NetworkView]) -> Table {
    let mut table =
        Table::new(&["NETWORK", "SUBNETS", "UPLINK", ">LEASES", "PHASE", ">ZONE", "BRIDGE", "PLACE"]);
    for view in views {
        let subnets: Vec<String> = view.network.spec.subnets.iter().map(ToString::to_string).collect();
        let status = &view.status;
        table.row([
            view.network.metadata.key(),
            subnets.join(","),
            uplink(status),
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

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Ready => "Ready",
        Phase::Pending => "Pending",
    }
}
