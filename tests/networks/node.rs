//! A town with a daemon on its host, and the documents of networks.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use fief_testkit::{Daemon, DaemonOptions, Output, eventually};
use serde_json::Value;

use crate::app::App;
use crate::conntrack::{Entry, entries};
use crate::room::SOON;
use crate::town::Town;

/// A host with networks. Fields end in this order.
pub struct Node {
    /// The daemon under test.
    pub daemon: Daemon,
    /// What is around it.
    pub town: Town,
}

impl Node {
    /// A town with so many uplinks, and a daemon.
    #[track_caller]
    pub fn open(name: &str, uplinks: usize) -> Option<Node> {
        Some(Node::in_town(Town::open(name, uplinks)?, ""))
    }

    /// A daemon in a town, with a configuration.
    #[track_caller]
    pub fn in_town(town: Town, config: &str) -> Node {
        let options = DaemonOptions { config_yaml: Some(config.to_owned()), ..DaemonOptions::default() };
        let daemon = Daemon::start(&town.lab, &town.host, options);
        Node { daemon, town }
    }

    /// Applies documents, which must be taken.
    #[track_caller]
    pub fn apply(&self, documents: &[String]) -> Output {
        let output = self.daemon.apply(&documents.join("---\n"));
        assert!(output.success(), "{output}\n--- log of fiefd\n{}", self.daemon.log());
        output
    }

    /// An endpoint's or a network's view in `fief get KIND -o json`; null if there is none.
    #[track_caller]
    pub fn view(&self, kind: &str, tenant: &str, name: &str) -> Value {
        let listed = self.daemon.cli(&["get", &format!("{kind}s"), "-o", "json"]).ok().json();
        let is_it = |view: &&Value| {
            let metadata = &view[kind]["metadata"];
            metadata["tenant"] == tenant && metadata["name"] == name
        };
        listed.as_array().and_then(|views| views.iter().find(is_it)).cloned().unwrap_or_default()
    }

    /// Waits until an endpoint or a network is in this phase, and gives its status.
    #[track_caller]
    pub fn wait_phase(&self, kind: &str, tenant: &str, name: &str, phase: &str) -> Value {
        eventually(SOON, || {
            let status = self.view(kind, tenant, name)["status"].clone();
            if status["phase"] == phase {
                Ok(status)
            } else {
                Err(format!("{kind} {tenant}/{name}: {status}"))
            }
        })
    }

    /// The tenant's number, which is its zone.
    #[track_caller]
    pub fn slot(&self, tenant: &str) -> u32 {
        let view = self.daemon.cli(&["get", "tenant", tenant, "-o", "json"]).ok().json();
        let view = if view.is_array() { view[0].clone() } else { view };
        let slot = view["status"]["slot"].as_u64().unwrap_or_else(|| panic!("no slot in {view}"));
        u32::try_from(slot).expect("a slot is small")
    }

    /// A tenant's VRF.
    #[track_caller]
    pub fn vrf(&self, tenant: &str) -> String {
        format!("vrf{}", self.slot(tenant))
    }

    /// The file that stands for a tenant's namespace.
    pub fn inside(&self, tenant: &str) -> PathBuf {
        self.daemon.root().join(format!("run/netns/fief-{tenant}"))
    }

    /// Runs a program in a tenant's namespace, by its file and not by fief.
    #[track_caller]
    pub fn run_inside(&self, tenant: &str, words: &[&str]) -> Output {
        let door = format!("--net={}", self.inside(tenant).display());
        self.town.host.run(&[&["nsenter", &door], words].concat())
    }

    /// Connections in a tenant's namespace; of a tenant with a VRF those of the host that are in its zone.
    #[track_caller]
    pub fn entries(&self, tenant: &str) -> Vec<Entry> {
        if in_vrfs() {
            let zone = Some(self.slot(tenant));
            return self.all_entries().into_iter().filter(|entry| entry.zone == zone).collect();
        }
        let conntrack = self.town.tools.conntrack.display().to_string();
        entries(&self.run_inside(tenant, &[&conntrack, "-L"]))
    }

    /// Connections on the host, without those in the zones of tenants with a VRF.
    #[track_caller]
    pub fn host_entries(&self) -> Vec<Entry> {
        let mut entries = self.all_entries();
        let zones: Vec<Option<u32>> = if in_vrfs() { self.zones() } else { Vec::new() };
        entries.retain(|entry| !zones.contains(&entry.zone));
        entries
    }

    #[track_caller]
    fn zones(&self) -> Vec<Option<u32>> {
        let listed = self.daemon.cli(&["get", "tenants", "-o", "json"]).ok().json();
        let slots = listed.as_array().into_iter().flatten().map(|view| view["status"]["slot"].as_u64());
        slots.map(|slot| slot.and_then(|slot| u32::try_from(slot).ok())).collect()
    }

    #[track_caller]
    fn all_entries(&self) -> Vec<Entry> {
        let conntrack = self.town.tools.conntrack.display().to_string();
        entries(&self.town.host.run(&[conntrack.as_str(), "-L"]))
    }

    /// A workload with an address, attached to a network by a document of its own and seen to be there.
    #[track_caller]
    pub fn place(&self, tenant: &str, name: &str, address: Ipv4Addr) -> App {
        let app = self.workload(tenant, name);
        self.apply(&[endpoint(tenant, name, &[at(address)], &app.attach())]);
        app.wait_for("eth0");
        eventually(SOON, || match app.address("eth0") {
            Some(found) if found == address => Ok(()),
            other => Err(format!("{tenant}/{name} has {other:?}")),
        });
        app
    }

    /// A namespace for a tenant's endpoint; the same name in two tenants is two namespaces.
    #[track_caller]
    pub fn workload(&self, tenant: &str, name: &str) -> App {
        App::new(&self.town, &format!("{tenant}-{name}"))
    }
}

/// Are tenants with networks to have VRFs, not namespaces? So says `FIEF_TEST_ISOLATION=vrf`.
pub fn in_vrfs() -> bool {
    std::env::var_os("FIEF_TEST_ISOLATION").is_some_and(|isolation| isolation == "vrf")
}

/// A tenant's document.
pub fn tenant(name: &str) -> String {
    let isolation = if in_vrfs() { "spec: { isolation: vrf }\n" } else { "" };
    format!("apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\n{isolation}")
}

/// The document of a tenant's network `net`, with more of its spec: `uplinks: [eth0]`, ...
pub fn network(tenant: &str, subnet: &str, more: &[&str]) -> String {
    network_named(tenant, "net", subnet, more)
}

/// The document of a network.
pub fn network_named(tenant: &str, name: &str, subnet: &str, more: &[&str]) -> String {
    let more: String = more.iter().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: fief/v1alpha1\nkind: Network\nmetadata: {{ name: {name}, tenant: {tenant} }}\nspec:\n  \
         type: local\n  subnets: [{subnet}]\n{more}"
    )
}

/// The document of an endpoint: its attachments as YAML, and the line that says where.
pub fn endpoint(tenant: &str, name: &str, networks: &[String], attach: &str) -> String {
    let networks: String = networks.iter().map(|network| format!("    - {network}\n")).collect();
    format!(
        "apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: {name}, tenant: {tenant} }}\nspec:\n  \
         networks:\n{networks}  {attach}\n"
    )
}

/// An attachment to the tenant's `net` as `eth0`, with an address.
pub fn at(address: Ipv4Addr) -> String {
    format!("{{ network: net, interface: eth0, address: {address} }}")
}

/// An attachment without an address: DHCP.
pub fn by_dhcp(network: &str, interface: &str) -> String {
    format!("{{ network: {network}, interface: {interface} }}")
}

/// `http://ADDRESS/`.
pub fn http(address: Ipv4Addr) -> String {
    format!("http://{address}/")
}
