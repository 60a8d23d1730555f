//! What only one tenant on a host can have: a name, an address, the default of a device, a process's choice.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::{Findings, tenant_in};
use crate::{Located, Tenant};

/// Who has what, so far.
pub(super) struct Claims<'a> {
    tenants: HashMap<&'a str, &'a Located>,
    addresses: HashMap<IpAddr, Claim<'a>>,
    defaults: HashMap<&'a str, Claim<'a>>,
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
    Default(usize),
    Selection(&'static str, usize),
}

impl<'a> Claims<'a> {
    pub(super) fn new(incoming: &'a [Located], stored: &[&'a Tenant]) -> Claims<'a> {
        let mut claims = Claims {
            tenants: HashMap::new(),
            addresses: HashMap::new(),
            defaults: HashMap::new(),
            selections: HashMap::new(),
        };
        let coming: HashSet<&str> =
            incoming.iter().filter_map(tenant_in).map(|t| t.metadata.name.as_str()).collect();
        for tenant in stored.iter().filter(|tenant| !coming.contains(tenant.metadata.name.as_str())) {
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
                    "give one of the two another address; a local address tells which tenant a packet is for",
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
        let mut settle = |held: &mut Claim<'a>, own: Claim<'a>| {
            if !std::ptr::eq(held.tenant, tenant) {
                taken(own, *held);
            }
        };
        for (index, interface) in tenant.spec.interfaces.iter().enumerate() {
            let own = |what| Claim { tenant, written, what };
            for (number, net) in interface.addresses.iter().enumerate() {
                let own = own(What::Address(index, number));
                settle(self.addresses.entry(net.addr()).or_insert(own), own);
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

fn selections<'a>(tenant: &'a Tenant, list: &str) -> &'a [String] {
    match list {
        "cgroups" => &tenant.spec.select.cgroups,
        "users" => &tenant.spec.select.users,
        _ => &tenant.spec.select.groups,
    }
}

pub(super) fn place<D>(located: &Located<D>, path: &str) -> String {
    let (line, column) = located.positions.at(path);
    format!("{}:{line}:{column}", located.source)
}
