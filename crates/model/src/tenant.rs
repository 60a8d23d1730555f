//! `kind: Tenant`: an address space with labels, interfaces, routes and members.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Mac;

/// A tenant as a person wrote it, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// Who it is.
    pub metadata: Metadata,
    /// What it has.
    #[serde(default)]
    pub spec: TenantSpec,
}

/// Name and labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label (RFC 1123): 1..=63 of `a-z0-9-`, no hyphen at either end. Unique among tenants.
    pub name: String,
    /// Free labels, with the syntax Kubernetes gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What a tenant has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantSpec {
    /// How the tenant is kept apart from the others.
    #[serde(default)]
    pub isolation: Isolation,
    /// The devices it uses and the addresses it has on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Its routes; netplan's keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Who may read it and act as it.
    #[serde(default, skip_serializing_if = "Members::is_empty")]
    pub members: Members,
    /// Whose new sockets are this tenant's without a word of the program.
    #[serde(default, skip_serializing_if = "Select::is_empty")]
    pub select: Select,
    /// May its sockets reach the host's own addresses, 127.0.0.0/8 and ::1 included?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_access: bool,
    /// What UDP servers with one socket for everybody are told of this tenant's clients.
    #[serde(default, skip_serializing_if = "Udp::is_alias")]
    pub udp: Udp,
    /// Labels of its namespaces, for policies. A namespace that is not listed has none but its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, Namespace>,
    /// What becomes of packets that its policies deny.
    #[serde(default, skip_serializing_if = "PolicyMode::is_enforce")]
    pub policy_mode: PolicyMode,
}

/// What becomes of packets that policies deny.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// They are dropped.
    #[default]
    Enforce,
    /// They pass, and are recorded: for policies that are not trusted yet.
    Audit,
}

impl PolicyMode {
    fn is_enforce(&self) -> bool {
        *self == PolicyMode::Enforce
    }
}

/// A part of a tenant that policies can select.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// Free labels, with the syntax Kubernetes gives them; `kubernetes.io/metadata.name` is there by itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What a UDP server that is nobody's, and does not ask which address was called (IP_PKTINFO), gets of a tenant's
/// datagrams. One that asks gets them as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Udp {
    /// Datagrams whose sender is an alias, so that its answers find the right client.
    #[default]
    Alias,
    /// Datagrams as they are: for tenants whose servers all ask. Spares a look at the socket for each datagram.
    Pktinfo,
    /// None.
    Refuse,
}

impl Udp {
    fn is_alias(&self) -> bool {
        *self == Udp::Alias
    }
}

/// How a tenant is kept apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// The cheapest kind that can hold what the tenant asks for.
    #[default]
    Auto,
    /// A policy-routing table in the host's own stack.
    Fib,
    /// A VRF device in the host's own stack, with a table of its own: addresses may be anybody's.
    Vrf,
    /// A network namespace: for tenants that have networks. Their addresses may be anybody's.
    Netns,
}

/// A device the tenant uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Interface {
    /// The device's name (IFNAMSIZ: 1..=15 bytes).
    pub name: String,
    /// Addresses with their prefix length; each belongs to one tenant on the host at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// Does fief add the addresses (true) or must they be there already (false)?
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub manage: bool,
    /// Does what arrives here for an address that is nobody's belong to this tenant?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// If given, only these source MACs bring packets for this tenant on this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<Vec<Mac>>,
}

/// One route of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    /// A prefix, an address, or `default` (of the family of `via` or `from`).
    pub to: String,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The device, where the gateway alone does not say it (a link-local gateway, a route without one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The preferred source address; one of the tenant's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// What the route does.
    #[serde(default, rename = "type", skip_serializing_if = "RouteKind::is_unicast")]
    pub kind: RouteKind,
    /// The kernel's priority; lower wins. 0..=4294967294.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// Is the gateway reachable on the link although no address of ours covers it?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_link: bool,
    /// The path's MTU in bytes, 68..=65535 (IPv6: from 1280).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What a route does with its packets (rtnetlink(7), `rtm_type`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// Forwards them.
    #[default]
    Unicast,
    /// Drops them silently.
    Blackhole,
    /// Drops them; the sender sees EHOSTUNREACH.
    Unreachable,
    /// Drops them; the sender sees EACCES.
    Prohibit,
}

/// Users and groups, by name or number; supplementary groups count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Members {
    /// Users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl Members {
    /// Is nobody named?
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }
}

/// Processes whose new sockets are a tenant's by default: each may be selected by one tenant only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Select {
    /// Control groups with all below them, by path from the group that fief watches: /system.slice/ldap-gw.service.
    /// They need not exist yet. The deepest one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<String>,
    /// Users (the effective one), by name or number. Where no control group is selected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Groups (the effective one, not the supplementary ones), by name or number. Where no user is selected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl Select {
    /// Is nobody selected?
    pub fn is_empty(&self) -> bool {
        self.cgroups.is_empty() && self.users.is_empty() && self.groups.is_empty()
    }
}

impl RouteKind {
    fn is_unicast(&self) -> bool {
        *self == RouteKind::Unicast
    }
}

impl Route {
    /// The prefix this route leads to, host bits cleared.
    ///
    /// `default` takes the family of `via` or `from`; validation refuses a `default` that has neither.
    pub fn prefix(&self) -> Option<IpNet> {
        if self.to == "default" {
            let v6 = self.via.or(self.from)?.is_ipv6();
            let any = if v6 { "::/0" } else { "0.0.0.0/0" };
            return any.parse().ok();
        }
        let net = self.to.parse::<IpNet>().ok();
        let host = || self.to.parse::<IpAddr>().ok().map(IpNet::from);
        net.or_else(host).map(|net| net.trunc())
    }
}

impl Tenant {
    /// Every address of the tenant with the device that carries it.
    pub fn addresses(&self) -> impl Iterator<Item = (&Interface, IpNet)> {
        self.spec.interfaces.iter().flat_map(|i| i.addresses.iter().map(move |a| (i, *a)))
    }

    /// The device a route leaves by: the one it names, else the one whose prefix covers its gateway.
    pub fn device_of<'a>(&'a self, route: &'a Route) -> Option<&'a str> {
        if let Some(name) = &route.interface {
            return Some(name);
        }
        let via = route.via?;
        self.addresses().find(|(_, net)| net.contains(&via)).map(|(i, _)| i.name.as_str())
    }
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}
