//! Which tenants must have a VRF because others have the same addresses.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::{Isolation, Tenant};

/// The names of those with `isolation: auto` that share an address with another one of them, or with one that has a VRF.
/// [`crate::validate`] has seen to it that each has its devices alone.
pub fn overlapping<'a>(tenants: impl IntoIterator<Item = &'a Tenant>) -> HashSet<&'a str> {
    let mut holders: HashMap<IpAddr, &Tenant> = HashMap::new();
    let mut found = HashSet::new();
    let movable = |t: &&Tenant| matches!(t.spec.isolation, Isolation::Auto | Isolation::Vrf);
    for tenant in tenants.into_iter().filter(movable) {
        for (_, net) in tenant.addresses() {
            let holder = *holders.entry(net.addr()).or_insert(tenant);
            if !std::ptr::eq(holder, tenant) {
                found.extend([holder, tenant].map(|t| t.metadata.name.as_str()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, isolation: &str, address: &str) -> Tenant {
        let interface = serde_json::json!({ "name": format!("{name}0"), "addresses": [address] });
        let spec = serde_json::json!({ "isolation": isolation, "interfaces": [interface] });
        serde_json::from_value(serde_json::json!({ "metadata": { "name": name }, "spec": spec })).unwrap()
    }

    #[test]
    fn only_those_that_share_an_address_and_may_move() {
        let all = [
            tenant("alone", "auto", "192.0.2.1/24"),
            tenant("one", "auto", "192.0.2.2/24"),
            tenant("other", "auto", "192.0.2.2/32"),
            tenant("asks", "vrf", "192.0.2.3/24"),
            tenant("meets", "auto", "192.0.2.3/24"),
            tenant("fixed", "fib", "192.0.2.4/24"),
        ];
        let mut found: Vec<&str> = overlapping(&all).into_iter().collect();
        found.sort_unstable();
        assert_eq!(found, ["asks", "meets", "one", "other"]);
        assert!(overlapping(&all[..2]).is_empty());
    }
}
