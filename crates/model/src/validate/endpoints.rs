//! One endpoint by itself.

use std::collections::HashSet;

use super::addresses::nature;
use super::{Findings, names};
use crate::{Attach, Endpoint};

pub(super) fn check(endpoint: &Endpoint, findings: &mut Findings<'_>) {
    let metadata = &endpoint.metadata;
    findings.check_owned(&metadata.name, &metadata.tenant, &metadata.labels, "an endpoint");
    names::check_name("metadata.namespace", &metadata.namespace, "a namespace", findings);
    attach(endpoint, findings);
    ports(endpoint, findings);
    if endpoint.spec.networks.is_empty() {
        let help = "name one, as in `networks: [{ network: web, interface: eth0 }]`";
        findings.refuse("spec.networks", "an endpoint needs a network", help);
    }
    let (mut interfaces, mut networks) = (HashSet::new(), HashSet::new());
    for (index, attachment) in endpoint.spec.networks.iter().enumerate() {
        let path = |field: &str| format!("spec.networks[{index}].{field}");
        let parts: Vec<&str> = attachment.network.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| names::is_dns_label(part)) {
            let flaw = format!("`{}` is not a network's name", attachment.network);
            findings.refuse(&path("network"), flaw, "write `web`, or another tenant's as `red/web`");
        } else if !networks.insert(endpoint.network_of(attachment)) {
            let flaw = format!("it is on `{}` already", attachment.network);
            findings.refuse(&path("network"), flaw, "delete one of the two");
        }
        if let Some((flaw, help)) = names::flaw_of_device(&attachment.interface) {
            findings.refuse(&path("interface"), flaw, help);
        } else if !interfaces.insert(&attachment.interface) && endpoint.spec.attach.tap.is_none() {
            let flaw = format!("`{}` is listed twice", attachment.interface);
            findings.refuse(&path("interface"), flaw, "give each network an interface of its own");
        }
        if let Some(address) = attachment.address
            && let Some(nature) = nature(address)
        {
            let flaw = format!("{address} is {}", nature.noun());
            findings.refuse(&path("address"), flaw, "write an address of the network's subnet");
        }
        if let Some(mac) = attachment.mac
            && (mac.0[0] & 1 != 0 || mac.0 == [0; 6])
        {
            let flaw = format!("{mac} is no address of one interface");
            findings.refuse(
                &path("mac"),
                flaw,
                "write one whose first byte is even, as in \"02:00:00:00:00:07\"",
            );
        }
    }
}

fn ports(endpoint: &Endpoint, findings: &mut Findings<'_>) {
    let mut seen = HashSet::new();
    for (index, port) in endpoint.spec.ports.iter().enumerate() {
        let path = |field: &str| format!("spec.ports[{index}].{field}");
        if let Some((flaw, help)) = names::flaw_of_port_name(&port.name) {
            findings.refuse(&path("name"), flaw, help);
        } else if !seen.insert((&port.name, port.protocol)) {
            let flaw = format!("`{}` is listed twice", port.name);
            findings.refuse(&path("name"), flaw, "give each port of a protocol a name of its own");
        }
        if port.port == 0 {
            findings.refuse(&path("port"), "0 is no port", "write a whole number, 1 to 65535");
        }
    }
}

fn attach(endpoint: &Endpoint, findings: &mut Findings<'_>) {
    let Attach { netns, pid, tap } = &endpoint.spec.attach;
    let given = [netns.is_some(), pid.is_some(), tap.is_some()].into_iter().filter(|is| *is).count();
    if given != 1 {
        let flaw = if given == 0 {
            "it does not say what is attached"
        } else {
            "it says what is attached more than once"
        };
        findings.refuse("spec.attach", flaw, "write one of `netns: NAME`, `pid: NUMBER` and `tap: NAME`");
    }
    if let Some(name) = netns
        && (name.is_empty() || name == "." || name == ".." || (name.contains('/') && !name.starts_with('/')))
    {
        let flaw = format!("`{name}` is no network namespace");
        findings.refuse(
            "spec.attach.netns",
            flaw,
            "write a name as `ip netns` shows it, or a path from the root",
        );
    }
    if *pid == Some(0) {
        findings.refuse("spec.attach.pid", "0 is no process", "write the number of a process");
    }
    if let Some(name) = tap {
        if let Some((flaw, help)) = names::flaw_of_device(name) {
            findings.refuse("spec.attach.tap", flaw, help);
        } else if name == "transit" || ["n-", "e-", "u-"].iter().any(|own| name.starts_with(own)) {
            let flaw = format!("`{name}` is a name that fief gives to devices of its own");
            findings.refuse("spec.attach.tap", flaw, "write another one, as in `vm0`");
        }
        if endpoint.spec.networks.len() > 1 {
            let help = "describe an endpoint for each of its TAP devices";
            findings.refuse("spec.attach.tap", "a TAP device is on one network", help);
        }
    }
}
