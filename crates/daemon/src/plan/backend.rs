//! The kinds of isolation behind one trait: `fib` and `netns`. `vrf` will stand beside them.

use fief_model::{Isolation, Tenant};

/// A way to keep tenants apart.
pub trait Backend {
    /// The word for it in documents and in the status.
    fn name(&self) -> &'static str;
    /// Can it hold what this tenant asks for on this host? `segmented` is whether it has networks. The reason if not,
    /// with a remedy.
    fn can_hold(&self, tenant: &Tenant, segmented: bool) -> Result<(), String>;
}

/// `fib`: a policy-routing table in the host's own stack, 2 kB, no device; local addresses unique on the host.
pub struct Fib;

/// `netns`: a network namespace, a quarter of a megabyte; addresses may be anybody's.
pub struct Netns;

impl Backend for Fib {
    fn name(&self) -> &'static str {
        "fib"
    }

    fn can_hold(&self, _tenant: &Tenant, segmented: bool) -> Result<(), String> {
        // Uniqueness of local addresses is checked where documents are validated; everything else a table can hold.
        if segmented { Err("it has networks, which need `netns`".into()) } else { Ok(()) }
    }
}

/// `vrf`: a VRF in the host's own stack; addresses may be anybody's.
pub struct Vrf;

impl Backend for Vrf {
    fn name(&self) -> &'static str {
        "vrf"
    }

    fn can_hold(&self, tenant: &Tenant, _segmented: bool) -> Result<(), String> {
        let spec = &tenant.spec;
        if spec.interfaces.is_empty() && spec.routes.is_empty() {
            return Ok(());
        }
        Err("it holds tenants without interfaces or routes of the host".into())
    }
}

impl Backend for Netns {
    fn name(&self) -> &'static str {
        "netns"
    }

    fn can_hold(&self, tenant: &Tenant, _segmented: bool) -> Result<(), String> {
        let spec = &tenant.spec;
        if spec.interfaces.is_empty() && spec.routes.is_empty() {
            return Ok(());
        }
        Err("it has interfaces or routes of the host, which need `fib`".into())
    }
}

/// The cheapest backend that can hold the tenant, in the order of their cost.
pub fn choose(tenant: &Tenant, segmented: bool) -> Result<&'static dyn Backend, String> {
    let candidates: &[&'static dyn Backend] = match tenant.spec.isolation {
        Isolation::Auto => &[&Fib, &Netns],
        Isolation::Fib => &[&Fib],
        Isolation::Vrf => &[&Vrf],
        Isolation::Netns => &[&Netns],
    };
    let mut reasons = Vec::new();
    for backend in candidates {
        match backend.can_hold(tenant, segmented) {
            Ok(()) => return Ok(*backend),
            Err(reason) => reasons.push(format!("{}: {reason}", backend.name())),
        }
    }
    Err(reasons.join("; "))
}
