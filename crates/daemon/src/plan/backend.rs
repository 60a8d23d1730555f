//! The kinds of isolation behind one trait. `fib` is the one there is; `vrf` and `netns` will stand beside it.

use fief_model::{Isolation, Tenant};

/// A way to keep tenants apart.
pub trait Backend {
    /// The word for it in documents and in the status.
    fn name(&self) -> &'static str;
    /// Can it hold what this tenant asks for on this host? The reason if not, with a remedy.
    fn can_hold(&self, tenant: &Tenant) -> Result<(), String>;
}

/// `fib`: a policy-routing table in the host's own stack, 2 kB, no device; local addresses unique on the host.
pub struct Fib;

impl Backend for Fib {
    fn name(&self) -> &'static str {
        "fib"
    }

    fn can_hold(&self, _tenant: &Tenant) -> Result<(), String> {
        // Uniqueness of local addresses is checked where documents are validated; everything else a table can hold.
        Ok(())
    }
}

/// The cheapest backend that can hold the tenant, in the order of their cost.
pub fn choose(tenant: &Tenant) -> Result<&'static dyn Backend, String> {
    let candidates: &[&'static dyn Backend] = match tenant.spec.isolation {
        Isolation::Auto | Isolation::Fib => &[&Fib],
    };
    let mut reasons = Vec::new();
    for backend in candidates {
        match backend.can_hold(tenant) {
            Ok(()) => return Ok(*backend),
            Err(reason) => reasons.push(format!("{}: {reason}", backend.name())),
        }
    }
    Err(reasons.join("; "))
}
