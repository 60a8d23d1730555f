//! What tests of switches share: a host that leaves devices to switches, and documents.

use std::net::Ipv4Addr;

use fief_testkit::{Snapshot, eventually};
use serde_json::Value;

use crate::app::App;
use crate::node::{Node, endpoint};
use crate::room::SOON;
use crate::town::Town;

/// A node whose host lets bridged frames alone, and has no addresses of its own on these uplinks.
#[track_caller]
pub fn node(town: Town, free: &[usize]) -> Node {
    for family in ["iptables", "ip6tables", "arptables"] {
        town.host.set_sysctl(&format!("net.bridge.bridge-nf-call-{family}"), 0);
    }
    for uplink in free {
        town.host.ip(&format!("addr flush dev eth{uplink}\n"));
    }
    Node::in_town(town, "")
}

/// The document of a tenant's switch `lan`, with more of its spec.
pub fn switch(tenant: &str, more: &[&str]) -> String {
    let more: String = more.iter().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: fief/v1alpha1\nkind: Network\nmetadata: {{ name: lan, tenant: {tenant} }}\nspec:\n  \
         type: switch\n{more}"
    )
}

/// The document of an endpoint on its tenant's switch.
pub fn member(tenant: &str, name: &str, attach: &str) -> String {
    endpoint(tenant, name, &["{ network: lan, interface: eth0 }".into()], attach)
}

/// A workload on its tenant's switch, which sets its own address.
#[track_caller]
pub fn place(node: &Node, tenant: &str, name: &str, address: Ipv4Addr) -> App {
    let app = node.workload(tenant, name);
    node.apply(&[member(tenant, name, &app.attach())]);
    app.wait_for("eth0");
    app.ns.ip(&format!("addr add {address}/24 dev eth0\n"));
    app
}

#[track_caller]
pub fn is_answered(app: &App, address: Ipv4Addr) {
    let name = app.ns.short().to_owned();
    eventually(
        SOON,
        || if app.pings(address) { Ok(()) } else { Err(format!("{address} is silent to {name}")) },
    );
}

/// The reasons for which a network or an endpoint waits.
#[track_caller]
pub fn reasons(node: &Node, kind: &str, tenant: &str, name: &str) -> Vec<String> {
    let status = node.view(kind, tenant, name)["status"].clone();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().map(|condition| condition["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Waits until a network or an endpoint waits for these reasons, and no other.
#[track_caller]
pub fn wait_reasons(node: &Node, kind: &str, tenant: &str, name: &str, wanted: &[&str]) {
    eventually(SOON, || {
        let found = reasons(node, kind, tenant, name);
        if found == wanted { Ok(()) } else { Err(format!("{kind} {tenant}/{name} waits for {found:?}")) }
    });
}

/// The ports of a switch as `fief get networks` has them: the device's name in the document, and its state.
#[track_caller]
pub fn ports(node: &Node, tenant: &str) -> Vec<(String, String)> {
    let status = node.view("network", tenant, "lan")["status"].clone();
    let ports = status["ports"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ports.iter().map(|port| (text(&port["uplink"]), text(&port["state"]))).collect()
}

/// Waits until the host is as it was.
#[track_caller]
pub fn wait_same(node: &Node, before: &Snapshot) {
    eventually(SOON, || match before.diff(&Snapshot::of(&node.town.host)) {
        None => Ok(()),
        Some(diff) => Err(diff),
    });
}
