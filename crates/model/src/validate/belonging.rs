//! What networks, endpoints and policies have to do with tenants and with each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::across::place;
use super::networks::is_host_in;
use super::ports::Ports;
use super::{Findings, Kept, tenant_in};
use crate::policy::TENANT_LABEL;
use crate::{
    Attachment, Document, Endpoint, Isolation, Located, Mac, Network, NetworkPolicy, Protocol, Tenant,
};

/// Everything there will be, and who has what so far.
pub(super) struct Belongings<'a> {
    tenants: HashMap<&'a str, (&'a Tenant, bool)>,
    networks: HashMap<String, &'a Network>,
    /// Tenants that have networks, with one of them.
    segmented: HashMap<&'a str, &'a str>,
    written: HashMap<(&'static str, String), &'a Located>,
    /// By tenant and first address.
    subnets: BTreeMap<(&'a str, IpAddr), (IpNet, &'a str)>,
    ports: HashMap<(&'a str, Protocol, u16), String>,
    addresses: HashMap<(String, IpAddr), String>,
    macs: HashMap<(String, Mac), String>,
    taps: HashMap<(String, &'a str), String>,
    devices: Ports<'a>,
    unknown: bool,
}

impl<'a> Belongings<'a> {
    pub(super) fn new(incoming: &'a [Located], kept: &Kept<'a>) -> Belongings<'a> {
        let coming: HashSet<(&str, String)> =
            incoming.iter().map(|l| (l.document.kind(), l.document.name().into_owned())).collect();
        let stays = |kind: &'static str, name: String| !coming.contains(&(kind, name));
        let mut all = Belongings {
            tenants: incoming
                .iter()
                .filter_map(tenant_in)
                .map(|tenant| (tenant.metadata.name.as_str(), (tenant, true)))
                .collect(),
            networks: HashMap::new(),
            segmented: HashMap::new(),
            written: HashMap::new(),
            subnets: BTreeMap::new(),
            ports: HashMap::new(),
            addresses: HashMap::new(),
            macs: HashMap::new(),
            taps: HashMap::new(),
            devices: Ports::default(),
            unknown: kept.unknown,
        };
        for tenant in &kept.tenants {
            all.tenants.entry(&tenant.metadata.name).or_insert((tenant, false));
        }
        let staying = kept.networks.iter().filter(|n| stays("Network", n.metadata.key()));
        let coming_in = incoming.iter().filter_map(|located| match &located.document {
            Document::Network(network) => Some((network, Some(located))),
            _ => None,
        });
        for (network, located) in staying.map(|n| (*n, None)).chain(coming_in) {
            all.segmented.insert(&network.metadata.tenant, &network.metadata.name);
            all.networks.entry(network.metadata.key()).or_insert(network);
            if located.is_none() {
                all.claim_subnets(network, |_, _| {});
                all.claim_ports(network, |_, _| {});
                all.devices.claim_network(network, None);
            }
        }
        for tenant in kept.tenants.iter().filter(|t| stays("Tenant", t.metadata.name.clone())) {
            all.devices.claim_tenant(tenant, None);
        }
        // Who is on no network of the same tenant has nothing that one of the incoming could claim.
        let coming_in = incoming.iter().filter_map(|located| match &located.document {
            Document::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        });
        let places: HashSet<&str> = coming_in.flat_map(places_of).collect();
        let is_near = |endpoint: &&&Endpoint| places_of(endpoint).any(|place| places.contains(place));
        for endpoint in kept.endpoints.iter().filter(is_near) {
            if stays("Endpoint", endpoint.metadata.key()) {
                all.claim_addresses(endpoint, |_, _, _| {});
            }
        }
        all
    }

    /// A tenant with networks has a namespace, and so nothing of the host's.
    pub(super) fn check_tenant(&mut self, tenant: &'a Tenant, findings: &mut Findings<'_>) {
        self.devices.claim_tenant(tenant, Some(findings));
        let network = self.segmented.get(tenant.metadata.name.as_str());
        if network.is_none() && tenant.spec.isolation != Isolation::Netns {
            return;
        }
        for (path, what, help) in strangers(tenant, network.copied()) {
            findings.refuse(path, what, help);
        }
    }

    pub(super) fn check_network(
        &mut self,
        located: &'a Located,
        network: &'a Network,
        findings: &mut Findings<'_>,
    ) {
        if !self.is_first("network", located, findings) {
            return;
        }
        match self.tenants.get(network.metadata.tenant.as_str()) {
            None => self.refuse_stranger("metadata.tenant", &network.metadata.tenant, findings),
            Some((tenant, false)) => {
                for (_, what, help) in strangers(tenant, Some(&network.metadata.name)) {
                    findings.refuse("metadata.tenant", what, help);
                }
            }
            Some(_) => {}
        }
        self.devices.claim_network(network, Some(findings));
        self.claim_subnets(network, |index, other| {
            findings.refuse(
                &format!("spec.subnets[{index}]"),
                format!("{} overlaps with {other} of the same tenant", network.spec.subnets[index]),
                "write another prefix, or give the network to a tenant of its own: tenants may overlap",
            );
        });
        self.claim_ports(network, |index, other| {
            let map = &network.spec.port_maps[index];
            findings.refuse(
                &format!("spec.portMaps[{index}].port"),
                format!("port {} of {} leads to network `{other}` already", map.port, map.uplink),
                "write another port or another uplink",
            );
        });
    }

    pub(super) fn check_endpoint(
        &mut self,
        located: &'a Located,
        endpoint: &'a Endpoint,
        findings: &mut Findings<'_>,
    ) {
        if !self.is_first("endpoint", located, findings) {
            return;
        }
        if !self.tenants.contains_key(endpoint.metadata.tenant.as_str()) {
            self.refuse_stranger("metadata.tenant", &endpoint.metadata.tenant, findings);
        }
        for (index, attachment) in endpoint.spec.networks.iter().enumerate() {
            let path = |field: &str| format!("spec.networks[{index}].{field}");
            // A network that is not there yet is no contradiction: the endpoint waits for it.
            let Some(network) = self.networks.get(&endpoint.network_of(attachment)) else { continue };
            if network.is_switch() {
                refuse_address(attachment, &path("address"), findings);
                continue;
            }
            match attachment.address {
                None if network.spec.dhcp.is_none() => findings.refuse(
                    &path("network"),
                    format!("network `{}` gives no addresses, and none is written here", attachment.network),
                    "write an `address`, or give the network `dhcp: {}`",
                ),
                Some(address) => {
                    let free = |net: &&IpNet| is_host_in(**net, address) && network.gateway(**net) != address;
                    if network.spec.subnets.iter().find(free).is_none() {
                        findings.refuse(
                            &path("address"),
                            format!("{address} is no address for an endpoint of `{}`", attachment.network),
                            format!("write one of {}, and not its gateway", list(&network.spec.subnets)),
                        );
                    }
                }
                None => {}
            }
        }
        self.claim_addresses(endpoint, |index, field, other| {
            let path = match field {
                "tap" => "spec.attach.tap".to_owned(),
                _ => format!("spec.networks[{index}].{field}"),
            };
            let place = if field == "tap" { "in this tenant's namespace" } else { "on this network" };
            findings.refuse(
                &path,
                format!("endpoint `{other}` has the same {field} {place}"),
                "give one of the two another one",
            );
        });
    }

    pub(super) fn check_policy(
        &mut self,
        located: &'a Located,
        policy: &'a NetworkPolicy,
        findings: &mut Findings<'_>,
    ) {
        let Some(tenant) = policy.tenant() else {
            let help =
                format!("write `labels: {{ {TENANT_LABEL}: blue }}`, or say whose it is by `--tenant blue`");
            findings.refuse("metadata", "a policy that is no tenant's", help);
            return;
        };
        if self.is_first("policy", located, findings) && !self.tenants.contains_key(tenant) {
            self.refuse_stranger(&format!("metadata.labels[\"{TENANT_LABEL}\"]"), tenant, findings);
        }
    }

    /// Is this the first document of this name? Complains if not.
    fn is_first(&mut self, noun: &'static str, located: &'a Located, findings: &mut Findings<'_>) -> bool {
        let name = located.document.name().into_owned();
        let Some(first) = self.written.insert((noun, name.clone()), located) else { return true };
        findings.refuse(
            "metadata.name",
            format!("{noun} `{name}` is described twice"),
            format!("keep one description; the first is at {}", place(first, "metadata.name")),
        );
        false
    }

    fn refuse_stranger(&self, path: &str, tenant: &str, findings: &mut Findings<'_>) {
        if self.unknown {
            return;
        }
        findings.refuse(
            path,
            format!("there is no tenant `{tenant}`"),
            "describe it in the same apply, or before: `kind: Tenant`",
        );
    }

    /// Those that are held do not overlap, so that the last one that begins before an end of this one tells.
    fn claim_subnets(&mut self, network: &'a Network, mut taken: impl FnMut(usize, &str)) {
        let tenant = network.metadata.tenant.as_str();
        for (index, net) in network.spec.subnets.iter().enumerate() {
            let before = self.subnets.range(..=(tenant, net.broadcast())).next_back();
            match before {
                Some(((whose, _), (other, name)))
                    if *whose == tenant && (other.contains(net) || net.contains(other)) =>
                {
                    taken(index, &format!("{other} of network `{name}`"))
                }
                _ => drop(self.subnets.insert((tenant, net.network()), (*net, &network.metadata.name))),
            }
        }
    }

    fn claim_ports(&mut self, network: &'a Network, mut taken: impl FnMut(usize, &str)) {
        let key = network.metadata.key();
        for (index, map) in network.spec.port_maps.iter().enumerate() {
            let port = (map.uplink.as_str(), map.protocol, map.port);
            match self.ports.get(&port) {
                Some(other) => taken(index, other),
                None => drop(self.ports.insert(port, key.clone())),
            }
        }
    }

    fn claim_addresses(&mut self, endpoint: &'a Endpoint, mut taken: impl FnMut(usize, &str, &str)) {
        let name = endpoint.metadata.key();
        if let (Some(tap), Some(attachment)) = (&endpoint.spec.attach.tap, endpoint.spec.networks.first()) {
            let network = endpoint.network_of(attachment);
            let space = network.split_once('/').map_or("", |(tenant, _)| tenant).to_owned();
            match self.taps.get(&(space.clone(), tap)) {
                Some(other) if *other == name => {}
                Some(other) => taken(0, "tap", other),
                None => drop(self.taps.insert((space, tap), name.clone())),
            }
        }
        for (index, attachment) in endpoint.spec.networks.iter().enumerate() {
            let network = endpoint.network_of(attachment);
            if let Some(address) = attachment.address {
                match self.addresses.get(&(network.clone(), address)) {
                    Some(other) if *other == name => {}
                    Some(other) => taken(index, "address", other),
                    None => drop(self.addresses.insert((network.clone(), address), name.clone())),
                }
            }
            let mac = endpoint.mac_of(attachment);
            match self.macs.get(&(network.clone(), mac)) {
                Some(other) if *other == name => {}
                Some(other) => taken(index, "mac", other),
                None => drop(self.macs.insert((network, mac), name.clone())),
            }
        }
    }
}

/// The tenants whose networks an endpoint is on.
fn places_of(endpoint: &Endpoint) -> impl Iterator<Item = &str> {
    let networks = endpoint.spec.networks.iter().map(|attachment| attachment.network.split_once('/'));
    networks.map(|network| network.map_or(endpoint.metadata.tenant.as_str(), |(tenant, _)| tenant))
}

/// What a tenant with a namespace cannot have: where it is written, what is wrong, a remedy.
fn strangers(tenant: &Tenant, network: Option<&str>) -> Vec<(&'static str, String, &'static str)> {
    let spec = &tenant.spec;
    let name = &tenant.metadata.name;
    let why = match network {
        Some(network) => format!("it has networks (`{network}`)"),
        None => "its isolation is `netns`".to_owned(),
    };
    let mut found = Vec::new();
    if spec.isolation == Isolation::Fib {
        let help = "write `isolation: netns`, or `auto`";
        found.push(("spec.isolation", format!("tenant `{name}` cannot be `fib`: {why}"), help));
    }
    let mut of_host = |path, what: &str, is: bool, help| {
        if is {
            found.push((path, format!("tenant `{name}` cannot have {what}: {why}"), help));
        }
    };
    let help = "name the device in a network's `uplinks`, or make another tenant for the networks";
    of_host("spec.interfaces", "interfaces of the host", !spec.interfaces.is_empty(), help);
    of_host(
        "spec.routes",
        "routes of its own",
        !spec.routes.is_empty(),
        "delete them; a network's way out is its uplink",
    );
    let help = "delete it; programs enter such a tenant by `fief exec`";
    of_host("spec.select", "`select`", !spec.select.is_empty(), help);
    of_host(
        "spec.hostAccess",
        "`hostAccess`",
        spec.host_access,
        "delete it; nothing leads from a namespace to the host",
    );
    found
}

/// A switch has no prefix of its own to set an address with.
fn refuse_address(attachment: &Attachment, path: &str, findings: &mut Findings<'_>) {
    let Some(address) = attachment.address else { return };
    let help = "delete it: the workload asks the DHCP server outside, or sets its address itself";
    findings.refuse(path, format!("switch `{}` cannot give {address}", attachment.network), help);
}

fn list(nets: &[IpNet]) -> String {
    nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" and ")
}
