//! Routes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Findings;
use super::addresses::{Nature, nature};
use crate::{Route, RouteKind, Tenant};

/// The lowest priority there is; fief keeps it for what must lose against every route of the tenant's.
const RESERVED_METRIC: u32 = u32::MAX;

/// What the kernel makes of a metric that is 0 or not given (IP6_RT_PRIO_USER).
const V6_METRIC: u32 = 1024;

pub(super) fn check(tenant: &Tenant, findings: &mut Findings<'_>) {
    let routes = &tenant.spec.routes;
    if routes.is_empty() {
        return;
    }
    let surroundings = Surroundings::of(tenant);
    let mut seen = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        let mut checker = Checker { route, index, surroundings: &surroundings, findings };
        let prefix = checker.destination();
        checker.kind();
        checker.gateway(prefix);
        checker.source(prefix);
        checker.numbers(prefix);
        let Some(prefix) = prefix else { continue };
        if let Some(first) = seen.insert((prefix, effective_metric(route, prefix)), index) {
            checker.same_as(first, prefix);
        }
    }
}

/// What the tenant's interfaces say, arranged for looking up.
struct Surroundings<'a> {
    devices: Vec<&'a str>,
    known: HashSet<&'a str>,
    own: HashSet<IpAddr>,
    /// The networks that the tenant's addresses are in, each with the devices it is on.
    networks: HashMap<IpNet, Vec<&'a str>>,
    lengths: BTreeSet<(bool, u8)>,
}

impl<'a> Surroundings<'a> {
    fn of(tenant: &'a Tenant) -> Self {
        let mut networks: HashMap<IpNet, Vec<&str>> = HashMap::new();
        for (interface, net) in tenant.addresses() {
            let devices = networks.entry(net.trunc()).or_default();
            if devices.last() != Some(&interface.name.as_str()) {
                devices.push(&interface.name);
            }
        }
        Surroundings {
            devices: tenant.spec.interfaces.iter().map(|interface| interface.name.as_str()).collect(),
            known: tenant.spec.interfaces.iter().map(|interface| interface.name.as_str()).collect(),
            own: tenant.addresses().map(|(_, net)| net.addr()).collect(),
            lengths: networks.keys().map(|net| (net.addr().is_ipv6(), net.prefix_len())).collect(),
            networks,
        }
    }

    /// The networks an address is in, with their devices. Costs one look for each prefix length in use.
    fn around(&self, address: IpAddr) -> impl Iterator<Item = (IpNet, &[&'a str])> {
        self.lengths.iter().filter(move |(v6, _)| *v6 == address.is_ipv6()).filter_map(move |(_, length)| {
            let net = IpNet::new(address, *length).ok()?.trunc();
            self.networks.get(&net).map(|devices| (net, devices.as_slice()))
        })
    }

    fn example_device(&self) -> &'a str {
        self.devices.first().copied().unwrap_or("eth0")
    }
}

struct Checker<'c, 'f> {
    route: &'c Route,
    index: usize,
    surroundings: &'c Surroundings<'c>,
    findings: &'c mut Findings<'f>,
}

impl Checker<'_, '_> {
    fn path(&self, field: &str) -> String {
        format!("spec.routes[{}].{field}", self.index)
    }

    fn refuse(&mut self, field: &str, message: impl Into<String>, help: impl Into<String>) {
        let path = self.path(field);
        self.findings.refuse(&path, message, help);
    }

    /// The prefix, where it can be told; its family decides about the rest of the route.
    fn destination(&mut self) -> Option<IpNet> {
        let to = self.route.to.as_str();
        let Some(prefix) = self.route.prefix() else {
            if to == "default" {
                let help = "write `0.0.0.0/0` for IPv4 or `::/0` for IPv6, or add `via`";
                self.refuse("to", "`default` without `via` or `from` has no family", help);
            } else {
                let help = "write `default`, a prefix as in 198.51.100.0/24, or an address";
                self.refuse("to", format!("`{to}` is not a destination"), help);
            }
            return None;
        };
        let written = to.parse::<IpNet>().unwrap_or(prefix);
        if written != prefix {
            let message = format!("{to} is an address inside {prefix}, not a prefix");
            self.refuse("to", message, format!("write {prefix}, or {}", written.addr()));
        } else if let Some(flaw) = flaw_of_destination(prefix) {
            let help = "delete this route; the kernel decides about such addresses itself";
            self.refuse("to", format!("{to} {flaw}"), help);
        } else if prefix.prefix_len() == prefix.max_prefix_len()
            && self.surroundings.own.contains(&prefix.addr())
        {
            let help = "delete this route; an address of the tenant's own is delivered locally";
            self.refuse("to", format!("{to} is this tenant's own address"), help);
        }
        Some(prefix)
    }

    /// Does the kind of route go with what else is written?
    fn kind(&mut self) {
        let Route { kind, via, interface, on_link, .. } = self.route;
        if *kind == RouteKind::Unicast {
            if via.is_none() && interface.is_none() {
                let device = self.surroundings.example_device();
                let message = format!("the route to {} leads nowhere", self.route.to);
                let help = format!("add `via: GATEWAY` or `interface: {device}`, or say `type: blackhole`");
                self.refuse("to", message, help);
            }
            if *on_link && via.is_none() {
                let help = "delete `on-link`, or add `via: GATEWAY`";
                self.refuse("on-link", "`on-link` is about a gateway, and there is none", help);
            }
            return;
        }
        let kind = match kind {
            RouteKind::Blackhole => "blackhole",
            RouteKind::Unreachable => "unreachable",
            _ => "prohibit",
        };
        let given = [("via", via.is_some()), ("interface", interface.is_some()), ("on-link", *on_link)];
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            let message = format!("a route of type {kind} sends nothing, so it has no `{field}`");
            self.refuse(field, message, format!("delete `{field}`, or delete `type: {kind}`"));
        }
    }

    fn gateway(&mut self, prefix: Option<IpNet>) {
        if self.route.kind != RouteKind::Unicast {
            return;
        }
        let named = self.route.interface.as_deref();
        if let Some(device) = named
            && !self.surroundings.known.contains(device)
        {
            let devices = self.surroundings.devices.join(", ");
            let help = match devices.is_empty() {
                true => "list it under `interfaces`".into(),
                false => format!("write one of {devices}, or list it under `interfaces`"),
            };
            self.refuse("interface", format!("`{device}` is not an interface of this tenant"), help);
            return;
        }
        let Some(via) = self.route.via else { return };
        if self.is_foreign("via", via, prefix) {
            return;
        }
        match nature(via) {
            Some(Nature::LinkLocal) if named.is_none() => {
                let help =
                    format!("add its device, as in `interface: {}`", self.surroundings.example_device());
                self.refuse("via", format!("{via} is link-local and may exist on every device"), help);
            }
            Some(Nature::LinkLocal) => {}
            Some(Nature::Mapped(v4)) => {
                let message = format!("{via} is an IPv4 address in IPv6 writing");
                self.refuse("via", message, format!("write {v4}"));
            }
            Some(nature) => {
                let help = "write the address of a router";
                self.refuse("via", format!("{via} is {}, not a gateway", nature.noun()), help);
            }
            None if self.surroundings.own.contains(&via) => {
                let help = "write the router's address";
                self.refuse("via", format!("{via} is this tenant's own address, not a gateway"), help);
            }
            None => self.reach(via, named),
        }
    }

    /// By which device does the gateway answer?
    fn reach(&mut self, via: IpAddr, named: Option<&str>) {
        let mut devices: BTreeSet<&str> = BTreeSet::new();
        for (net, on) in self.surroundings.around(via) {
            let is_edge = via.is_ipv4() && (via == net.network() || via == net.broadcast());
            if is_edge && net.prefix_len() + 1 < net.max_prefix_len() {
                let message = format!("{via} is the network or broadcast address of {net}, not a gateway");
                self.refuse("via", message, "write the router's address");
                return;
            }
            devices.extend(on.iter().copied());
        }
        let covered = named.map_or(!devices.is_empty(), |device| devices.contains(device));
        if self.route.on_link && named.is_none() && devices.is_empty() {
            let help = format!("add the device, as in `interface: {}`", self.surroundings.example_device());
            self.refuse("via", format!("nothing says on which link {via} is"), help);
        } else if !covered && !self.route.on_link {
            let place = named.map_or("of this tenant".into(), |device| format!("on `{device}`"));
            let help = match (named, devices.first()) {
                (Some(_), Some(device)) => format!("write `interface: {device}`, whose network it is in"),
                (Some(_), None) => "give the device an address in its network, or add `on-link: true`".into(),
                _ => "give an interface an address in its network, or add `interface` and `on-link: true`"
                    .into(),
            };
            self.refuse("via", format!("no network {place} contains the gateway {via}"), help);
        } else if named.is_none() && devices.len() > 1 {
            let list = devices.into_iter().collect::<Vec<_>>().join(" and ");
            let help = format!("add `interface`, one of {list}");
            self.refuse("via", format!("the gateway {via} is in networks on {list}"), help);
        }
    }

    fn source(&mut self, prefix: Option<IpNet>) {
        let Some(from) = self.route.from else { return };
        if self.is_foreign("from", from, prefix) {
            return;
        }
        if !self.surroundings.own.contains(&from) {
            let message = format!("{from} is not an address of this tenant");
            self.refuse("from", message, "write one of its addresses, or list it under `interfaces`");
        }
    }

    /// Is this address of the other family than the prefix? Then it is refused.
    fn is_foreign(&mut self, field: &str, address: IpAddr, prefix: Option<IpNet>) -> bool {
        let Some(prefix) = prefix.filter(|prefix| prefix.addr().is_ipv6() != address.is_ipv6()) else {
            return false;
        };
        let family = if prefix.addr().is_ipv6() { "IPv6" } else { "IPv4" };
        let help = format!("write an {family} address, or two routes, one for each family");
        self.refuse(field, format!("{address} does not go with {prefix}: one is IPv4, the other IPv6"), help);
        true
    }

    fn numbers(&mut self, prefix: Option<IpNet>) {
        if self.route.metric == Some(RESERVED_METRIC) {
            let message = format!("metric {RESERVED_METRIC} is fief's own last resort");
            self.refuse("metric", message, "write 4294967294 or less");
        }
        let Some(mtu) = self.route.mtu else { return };
        let (family, least) = match prefix.map(|prefix| prefix.addr()) {
            Some(IpAddr::V6(_)) => ("IPv6", 1280),
            _ => ("IPv4", 68),
        };
        if !(least..=65535).contains(&mtu) {
            let help = format!("write {least} to 65535, or leave `mtu` out for the device's own");
            self.refuse("mtu", format!("{mtu} is not an MTU for {family}"), help);
        }
    }

    fn same_as(&mut self, first: usize, prefix: IpNet) {
        let line = self.findings.line(&format!("spec.routes[{first}]"));
        let metric = effective_metric(self.route, prefix);
        let message = format!("a second route to {prefix} with metric {metric}");
        let help = format!("delete one or give it another `metric`; the first is on line {line}");
        self.refuse("to", message, help);
    }
}

fn effective_metric(route: &Route, prefix: IpNet) -> u32 {
    match route.metric.unwrap_or(0) {
        0 if prefix.addr().is_ipv6() => V6_METRIC,
        metric => metric,
    }
}

/// Why no route can lead there, if so.
fn flaw_of_destination(prefix: IpNet) -> Option<&'static str> {
    const REFUSED: [(&str, &str); 9] = [
        ("0.0.0.0/8", "is in the network that means \"this host\""),
        ("127.0.0.0/8", "is loopback"),
        ("224.0.0.0/4", "is multicast"),
        ("255.255.255.255/32", "is the broadcast address"),
        ("::/128", "is the unspecified address"),
        ("::1/128", "is loopback"),
        ("ff00::/8", "is multicast"),
        ("fe80::/10", "is link-local and has its route on every device"),
        ("::ffff:0:0/96", "is an IPv4 prefix in IPv6 writing"),
    ];
    // Single addresses in there are real destinations: clouds hand out 169.254.169.254/32 with a gateway.
    if let IpNet::V4(v4) = prefix
        && v4.addr().is_link_local()
        && (16..32).contains(&v4.prefix_len())
    {
        return Some("is link-local and has its route on every device");
    }
    let within = |net: &str| net.parse::<IpNet>().is_ok_and(|net| net.contains(&prefix));
    REFUSED.iter().find(|(net, _)| within(net)).map(|(_, flaw)| *flaw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        for good in
            ["0.0.0.0/0", "0.0.0.0/1", "240.0.0.0/4", "169.254.169.254/32", "::/0", "2001:db8::/32", "::/1"]
        {
            assert!(flaw_of_destination(good.parse().unwrap()).is_none(), "{good}");
        }
        for bad in
            ["0.0.0.0/8", "127.0.0.1/32", "224.0.0.0/4", "239.1.0.0/16", "169.254.0.0/16", "169.254.1.0/24"]
        {
            assert!(flaw_of_destination(bad.parse().unwrap()).is_some(), "{bad}");
        }
        for bad in
            ["::1/128", "ff02::/16", "fe80::/64", "fe80::/10", "::ffff:192.0.2.0/120", "255.255.255.255/32"]
        {
            assert!(flaw_of_destination(bad.parse().unwrap()).is_some(), "{bad}");
        }
    }
}
