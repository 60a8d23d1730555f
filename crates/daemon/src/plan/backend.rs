//! The kinds of isolation behind one trait: `fib`, `vrf` and `netns`.

use fief_model::{Isolation, Tenant};

/// What is known beside a tenant's own document.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Has it networks?
    pub segmented: bool,
    /// Has another one, who has no namespace, an address of its?
    pub overlapped: bool,
    /// Why this kernel makes no VRFs, if it does not.
    pub no_vrf: Option<&'a str>,
    /// Does fief write no marks on this host?
    pub no_mark: bool,
}

/// Why a tenant that shares the host's stack cannot be had without marks.
const NO_MARK: &str = "it needs the packet mark, and `markMask: none` in fiefd.yaml says that fief writes none; set it to \
                       `auto`, or give the tenant networks instead of interfaces and routes";

/// A way to keep tenants apart.
pub trait Backend {
    /// The word for it in documents and in the status.
    fn name(&self) -> &'static str;
    /// Can it hold what this tenant asks for on this host? The reason if not, with a remedy.
    fn can_hold(&self, tenant: &Tenant, around: Around<'_>) -> Result<(), String>;
}

/// `fib`: a policy-routing table in the host's own stack, 2 kB, no device; local addresses unique on the host.
pub struct Fib;

/// `vrf`: the same and a VRF device above its interfaces, which are its alone, or above its networks; addresses may be other
/// VRFs'.
pub struct Vrf;

/// `netns`: a network namespace, a quarter of a megabyte; addresses may be anybody's.
pub struct Netns;

impl Backend for Fib {
    fn name(&self) -> &'static str {
        "fib"
    }

    fn can_hold(&self, _tenant: &Tenant, around: Around<'_>) -> Result<(), String> {
        // What a document says of addresses is checked where it is validated; everything else a table can hold.
        match around {
            Around { segmented: true, .. } => Err("it has networks, which need `netns`".into()),
            Around { no_mark: true, .. } => Err(NO_MARK.into()),
            Around { overlapped: true, .. } => Err("another tenant has an address of its".into()),
            _ => Ok(()),
        }
    }
}

impl Backend for Vrf {
    fn name(&self) -> &'static str {
        "vrf"
    }

    fn can_hold(&self, tenant: &Tenant, around: Around<'_>) -> Result<(), String> {
        // What is the host's own is answered over `lo`, where the kernel looks for no socket that is bound to a VRF.
        if tenant.spec.host_access {
            return Err(
                "a socket in a VRF hears nothing of the host's own addresses; delete `hostAccess`".into()
            );
        }
        // That its devices are its alone is checked where documents are validated.
        let spec = &tenant.spec;
        let is_of_host = !spec.interfaces.is_empty() || !spec.routes.is_empty();
        match around {
            Around { no_mark: true, .. } if is_of_host => Err(NO_MARK.into()),
            Around { segmented: true, .. } if is_of_host => {
                Err("it has networks, and interfaces or routes of the host as well; make two tenants of it"
                    .into())
            }
            Around { no_vrf: Some(why), .. } => Err(why.to_owned()),
            _ => Ok(()),
        }
    }
}

impl Backend for Netns {
    fn name(&self) -> &'static str {
        "netns"
    }

    fn can_hold(&self, tenant: &Tenant, _around: Around<'_>) -> Result<(), String> {
        let spec = &tenant.spec;
        if spec.interfaces.is_empty() && spec.routes.is_empty() {
            return Ok(());
        }
        Err("it has interfaces or routes of the host, which need `fib` or `vrf`".into())
    }
}

/// The cheapest backend that can hold the tenant, in the order of their cost. Networks get a VRF where a document says so: in
/// a namespace the host's own rules and connections have nothing to do with them.
pub fn choose(tenant: &Tenant, around: Around<'_>) -> Result<&'static dyn Backend, String> {
    let candidates: &[&'static dyn Backend] = match tenant.spec.isolation {
        Isolation::Auto if around.segmented => &[&Fib, &Netns],
        // What needs marks need not be asked twice; a VRF without them is for networks.
        Isolation::Auto if around.no_mark => &[&Fib, &Netns],
        Isolation::Auto => &[&Fib, &Vrf, &Netns],
        Isolation::Fib => &[&Fib],
        Isolation::Vrf => &[&Vrf],
        Isolation::Netns => &[&Netns],
    };
    let mut reasons = Vec::new();
    for backend in candidates {
        match backend.can_hold(tenant, around) {
            Ok(()) => return Ok(*backend),
            Err(reason) => reasons.push(format!("{}: {reason}", backend.name())),
        }
    }
    Err(reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_that_can_hold_it() {
        let tenant = |isolation: &str| -> Tenant {
            let interface = serde_json::json!({ "name": "eth1", "addresses": ["192.0.2.1/24"] });
            let spec = serde_json::json!({ "isolation": isolation, "interfaces": [interface] });
            serde_json::from_value(serde_json::json!({ "metadata": { "name": "blue" }, "spec": spec }))
                .unwrap()
        };
        let chosen = |isolation, overlapped, no_vrf| {
            let around = Around { segmented: false, overlapped, no_vrf, no_mark: false };
            choose(&tenant(isolation), around).map(|backend| backend.name())
        };
        assert_eq!(chosen("auto", false, None), Ok("fib"));
        assert_eq!(chosen("auto", true, None), Ok("vrf"));
        assert_eq!(chosen("vrf", false, None), Ok("vrf"));
        let refused = chosen("auto", true, Some("no module")).unwrap_err();
        assert!(refused.contains("fib: another") && refused.contains("vrf: no module"), "{refused}");
        assert_eq!(chosen("vrf", false, Some("no module")), Err("vrf: no module".into()));
        let mut open = tenant("vrf");
        open.spec.host_access = true;
        let around = Around { segmented: false, overlapped: false, no_vrf: None, no_mark: false };
        assert!(choose(&open, around).err().is_some_and(|reason| reason.contains("hostAccess")));
    }

    #[test]
    fn without_marks_networks_are_held_and_interfaces_are_not() {
        let tenant = |isolation: &str, interfaces: &[&str]| -> Tenant {
            let interfaces: Vec<_> = interfaces
                .iter()
                .map(|name| serde_json::json!({ "name": name, "addresses": ["192.0.2.1/24"] }))
                .collect();
            let spec = serde_json::json!({ "isolation": isolation, "interfaces": interfaces });
            serde_json::from_value(serde_json::json!({ "metadata": { "name": "blue" }, "spec": spec }))
                .unwrap()
        };
        let chosen = |isolation, interfaces: &[&str], segmented| {
            let around = Around { segmented, overlapped: false, no_vrf: None, no_mark: true };
            choose(&tenant(isolation, interfaces), around).map(|backend| backend.name())
        };
        assert_eq!(chosen("auto", &[], true), Ok("netns"));
        assert_eq!(chosen("auto", &[], false), Ok("netns"), "its networks may come later");
        assert_eq!(chosen("vrf", &[], true), Ok("vrf"));
        for isolation in ["auto", "fib", "vrf"] {
            let refused = chosen(isolation, &["eth1"], false).unwrap_err();
            assert_eq!(refused.matches("markMask: none").count(), 1, "{isolation}: {refused}");
            assert!(refused.contains("set it to `auto`"), "{isolation}: {refused}");
        }
        assert!(chosen("fib", &[], false).unwrap_err().contains("markMask: none"));
    }
}
