//! What the engine shows of policies and identities.

use fief_api::{IdentityView, NamedPortView, PolicyStatus, PolicyView, Standing};
use fief_policy::network_policy;

use super::Engine;
use super::policies::rule_view;
use crate::policies::Known;
use crate::store::StoredPolicy;

impl Engine {
    /// Every policy as stored, by `TENANT/NAMESPACE/NAME`.
    pub(crate) fn stored_policies(&self) -> impl Iterator<Item = &StoredPolicy> {
        self.network_policies.values()
    }

    /// One policy as stored.
    pub(crate) fn stored_policy(&self, key: &str) -> Option<&StoredPolicy> {
        self.network_policies.get(key)
    }

    /// A policy with where it stands.
    pub(crate) fn view_policy(&self, stored: &StoredPolicy) -> PolicyView {
        let Standing { phase, conditions } = self.policy_standing();
        let slot = stored.policy.tenant().and_then(|tenant| self.tenants.get(tenant)).map(|t| t.slot);
        let rules = slot.map(|slot| network_policy::rules(slot, &stored.policy, &stored.places));
        let rules = rules.into_iter().flat_map(|policy| {
            let view = |rule: &fief_policy::Rule| rule_view(&policy.key, &rule.origin);
            policy.rules.iter().map(view).collect::<Vec<_>>()
        });
        let audits = slot.is_some_and(|slot| self.policies.audits(slot));
        PolicyView {
            policy: stored.policy.clone(),
            set: stored.set.clone(),
            status: PolicyStatus {
                phase,
                conditions,
                mode: if audits { "audit" } else { "enforce" }.into(),
                endpoints: self.policies.selects(&stored.policy),
                rules: rules.collect(),
            },
        }
    }

    /// Every identity, or those of one tenant.
    pub(crate) fn view_identities(&self, tenant: Option<&str>) -> Vec<IdentityView> {
        self.policies.known(tenant).map(identity_view).collect()
    }
}

fn identity_view(known: Known<'_>) -> IdentityView {
    let Known { tenant, identity, workload, endpoints, since } = known;
    let ports = workload.ports().iter().map(|port| NamedPortView {
        name: port.name.clone(),
        port: port.port,
        protocol: match port.protocol {
            6 => "tcp".into(),
            17 => "udp".into(),
            132 => "sctp".into(),
            other => other.to_string(),
        },
    });
    IdentityView {
        tenant: tenant.to_owned(),
        identity: identity.0,
        namespace: workload.namespace().to_owned(),
        namespace_labels: workload.namespace_labels().clone().into(),
        labels: workload.labels().clone().into(),
        ports: ports.collect(),
        endpoints: endpoints.into_iter().map(str::to_owned).collect(),
        since,
    }
}
