//! A scene as the documents of one tenant, for a daemon.

use std::collections::BTreeMap;

use fief_model::policy::{NAMESPACE_LABEL, TENANT_LABEL, Transport};
use fief_model::{
    Attach, Attachment, Document, Endpoint, EndpointMetadata, EndpointPort, EndpointSpec, Metadata,
    Namespace, Tenant, TenantSpec,
};

use crate::scene::{Scene, ScenePod};

impl ScenePod {
    /// The name of its endpoint.
    pub fn endpoint(&self) -> String {
        format!("{}-{}", self.pod.namespace, self.name)
    }
}

impl Scene {
    /// The tenant with its namespaces, its endpoints, and its policies. The endpoints are on network `net`, each with the
    /// namespace that has its name.
    pub fn yaml(&self, tenant: &str) -> String {
        let mut documents = vec![Document::Tenant(self.tenant(tenant))];
        documents.extend(self.pods.iter().map(|pod| Document::Endpoint(endpoint(tenant, pod))));
        documents.extend(self.documents.iter().map(|one| {
            let mut policy = one.policy.clone();
            policy.metadata.labels.insert(TENANT_LABEL.into(), tenant.into());
            Document::NetworkPolicy(policy)
        }));
        documents.iter().map(Document::to_yaml).collect::<Vec<_>>().join("---\n")
    }

    fn tenant(&self, name: &str) -> Tenant {
        let mut namespaces: BTreeMap<String, Namespace> = BTreeMap::new();
        for pod in &self.pods {
            let mut labels = pod.pod.namespace_labels.clone();
            labels.remove(NAMESPACE_LABEL);
            namespaces.insert(pod.pod.namespace.clone(), Namespace { labels });
        }
        Tenant {
            metadata: Metadata { name: name.into(), labels: BTreeMap::new() },
            spec: TenantSpec { namespaces, ..TenantSpec::default() },
        }
    }
}

fn endpoint(tenant: &str, pod: &ScenePod) -> Endpoint {
    let name = pod.endpoint();
    let ports = pod.pod.ports.iter().map(|(name, protocol, port)| EndpointPort {
        name: name.clone(),
        port: *port,
        protocol: match protocol {
            6 => Transport::Tcp,
            17 => Transport::Udp,
            _ => Transport::Sctp,
        },
    });
    Endpoint {
        metadata: EndpointMetadata {
            name: name.clone(),
            tenant: tenant.into(),
            namespace: pod.pod.namespace.clone(),
            labels: pod.pod.labels.clone(),
        },
        spec: EndpointSpec {
            networks: vec![Attachment {
                network: "net".into(),
                interface: "eth0".into(),
                address: Some(pod.address),
                mac: None,
            }],
            attach: Attach { netns: Some(name), ..Attach::default() },
            ports: ports.collect(),
        },
    }
}
