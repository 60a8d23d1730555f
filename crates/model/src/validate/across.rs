//! What only one tenant on a host can have: a name, an address (but for tenants each of whom has a VRF), the default of a
//! device, a VRF's device, a process's choice.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::{Findings, tenant_in};
use crate::{Isolation, Located, Tenant};

/// Who has what, so far.
pub(super) struct Claims<'a> {
    tenants: HashMap<&'a str, &'a Located>,
    addresses: HashMap<IpAddr, Claim<'a>>,
    defaults: HashMap<&'a str, Claim<'a>>,
    /// By device: the first tenant that names it, and the first of those with a VRF.
    devices: HashMap<&'a str, (Claim<'a>, Option<Claim<'a>>)>,
    /// How many tenants name a device.
    users: HashMap<&'a str, usize>,
    selections: HashMap<(&'static str, &'a str), Claim<'a>>,
}

/// A tenant's hold on something.
#[derive(Clone, Copy)]
struct Claim<'a> {
    tenant: &'a Tenant,
    /// None: it was applied earlier.
    written: Option<&'a Located>,
    what: What,
}

/// What is held, by its place in the document.
#[derive(Clone, Copy)]
enum What {
    Address(usize, usize),
    Device(usize),
    Default(usize),
    Selection(&'static str, usize),
}

impl<'a> Claims<'a> {
    pub(super) fn new(incoming: &'a [Located], stored: &[&'a Tenant]) -> Claims<'a> {
        let mut claims = Claims {
            tenants: HashMap::new(),
            addresses: HashMap::new(),
            defaults: HashMap::new(),
            devices: HashMap::new(),
            users: HashMap::new(),
            selections: HashMap::new(),
        };
        let coming: HashSet<&str> =
            incoming.iter().filter_map(tenant_in).map(|t| t.metadata.name.as_str()).collect();
        let staying: Vec<&'a Tenant> =
            stored.iter().copied().filter(|t| !coming.contains(t.metadata.name.as_str())).collect();
        for tenant in staying.iter().copied().chain(incoming.iter().filter_map(tenant_in)) {
            let devices: HashSet<&str> = tenant.spec.interfaces.iter().map(|i| i.name.as_str()).collect();
            devices.into_iter().for_each(|device| *claims.users.entry(device).or_default() += 1);
        }
        for tenant in staying {
            claims.each(tenant, None, |_, _| {});
        }
        claims
    }

    pub(super) fn check(&mut self, located: &'a Located, tenant: &'a Tenant, findings: &mut Findings<'_>) {
        let name = tenant.metadata.name.as_str();
        if let Some(first) = self.tenants.get(name) {
            let place = place(first, "metadata.name");
            findings.refuse(
                "metadata.name",
                format!("tenant `{name}` is described twice"),
                format!("keep one description; the first is at {place}"),
            );
            // Whatever else the two share follows from this.
            return;
        }
        self.tenants.insert(name, located);
        self.each(tenant, Some(located), |own, other| {
            let (message, help) = match own.what {
                What::Address(interface, address) => (
                    format!(
                        "{} belongs to tenant {}",
                        tenant.spec.interfaces[interface].addresses[address].addr(),
                        other.describe()
                    ),
                    "give one of the two another address; a local address tells which tenant a packet is for, unless each of \
                     the two has `isolation: vrf` and devices of its own",
                ),
                What::Device(interface) => (
                    format!(
                        "`{}` is named by tenant {}, too, and a VRF has its devices alone",
                        tenant.spec.interfaces[interface].name,
                        other.describe()
                    ),
                    "give the one with `isolation: vrf` a device of its own (a VLAN, a macvlan), or write `isolation: fib`",
                ),
                What::Default(interface) => (
                    format!(
                        "`{}` has a default tenant already: {}",
                        tenant.spec.interfaces[interface].name,
                        other.describe()
                    ),
                    "delete `default: true` in one of the two",
                ),
                What::Selection(list, index) => (
                    format!(
                        "`{}` is selected by tenant {} already",
                        selections(tenant, list)[index],
                        other.describe()
                    ),
                    "delete it in one of the two; a socket has one tenant",
                ),
            };
            findings.refuse(&own.path(), message, help);
        });
    }

    /// Claims everything of a tenant's, and tells of what another has.
    fn each(
        &mut self,
        tenant: &'a Tenant,
        written: Option<&'a Located>,
        mut taken: impl FnMut(Claim<'a>, Claim<'a>),
    ) {
        let alone = may_have_a_vrf(tenant, &self.users);
        let users = &self.users;
        let mut settle = |held: &mut Claim<'a>, own: Claim<'a>| {
            let is_apart =
                matches!(own.what, What::Address(..)) && alone && may_have_a_vrf(held.tenant, users);
            if !std::ptr::eq(held.tenant, tenant) && !is_apart {
                taken(own, *held);
            }
        };
        for (index, interface) in tenant.spec.interfaces.iter().enumerate() {
            let own = |what| Claim { tenant, written, what };
            for (number, net) in interface.addresses.iter().enumerate() {
                let own = own(What::Address(index, number));
                settle(self.addresses.entry(net.addr()).or_insert(own), own);
            }
            let own_device = own(What::Device(index));
            let has_vrf = tenant.spec.isolation == Isolation::Vrf;
            let (first, vrf) = self.devices.entry(&interface.name).or_insert((own_device, None));
            match vrf {
                _ if has_vrf => settle(first, own_device),
                Some(vrf) => settle(vrf, own_device),
                None => {}
            }
            if has_vrf {
                vrf.get_or_insert(own_device);
            }
            if interface.default {
                let own = own(What::Default(index));
                settle(self.defaults.entry(&interface.name).or_insert(own), own);
            }
        }
        for list in ["cgroups", "users", "groups"] {
            for (index, name) in selections(tenant, list).iter().enumerate() {
                let own = Claim { tenant, written, what: What::Selection(list, index) };
                settle(self.selections.entry((list, name)).or_insert(own), own);
            }
        }
    }
}

impl Claim<'_> {
    fn path(&self) -> String {
        match self.what {
            What::Device(interface) => format!("spec.interfaces[{interface}].name"),
            What::Address(interface, address) => format!("spec.interfaces[{interface}].addresses[{address}]"),
            What::Default(interface) => format!("spec.interfaces[{interface}].default"),
            What::Selection(list, index) => format!("spec.select.{list}[{index}]"),
        }
    }

    fn describe(&self) -> String {
        let name = &self.tenant.metadata.name;
        match self.written {
            Some(located) => format!("`{name}` ({})", place(located, &self.path())),
            None => format!("`{name}` (applied earlier)"),
        }
    }
}

/// Can this tenant have a VRF, if it must? Its documents allow it, and its devices are its alone.
fn may_have_a_vrf(tenant: &Tenant, users: &HashMap<&str, usize>) -> bool {
    let interfaces = &tenant.spec.interfaces;
    matches!(tenant.spec.isolation, Isolation::Auto | Isolation::Vrf)
        && interfaces.iter().all(|i| users.get(i.name.as_str()).is_none_or(|count| *count == 1))
}

fn selections<'a>(tenant: &'a Tenant, list: &str) -> &'a [String] {
    match list {
        "cgroups" => &tenant.spec.select.cgroups,
        "users" => &tenant.spec.select.users,
        _ => &tenant.spec.select.groups,
    }
}

pub(super) fn place(located: &Located, path: &str) -> String {
    let (line, column) = located.positions.at(path);
    format!("{}:{line}:{column}", located.source)
}
