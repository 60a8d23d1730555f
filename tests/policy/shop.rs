//! What tests of policies share: a daemon on a host of its own, and documents of a tenant. Its endpoints wait for their
//! workloads for ever, which policies do not mind.

use fief_testkit::{Daemon, DaemonOptions, Lab, Output};
use serde_json::Value;

/// A daemon on a host of its own. Fields end in this order.
pub struct Shop {
    /// The daemon under test.
    pub daemon: Daemon,
    /// The world.
    pub lab: Lab,
}

/// How far `web` lets callers: the front may call `http`, and from line 6 on.
pub const WEB: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                       metadata: { name: web, namespace: shop, labels: { fief/tenant: blue } }\nspec:\n  \
                       podSelector: { matchLabels: { app: back } }\n  ingress:\n  - from: [{ podSelector: { matchLabels: { app: front } } }]\n    \
                       ports: [{ port: http }]\n";

impl Shop {
    /// A daemon without documents.
    #[track_caller]
    pub fn open(name: &str, options: DaemonOptions) -> Option<Shop> {
        let lab = Lab::new(name)?;
        let host = lab.ns("host");
        let daemon = Daemon::start(&lab, &host, options);
        Some(Shop { daemon, lab })
    }

    /// One with tenant `blue`, its endpoints `front`, `back` and `other` of namespace `shop`, and policy [`WEB`].
    #[track_caller]
    pub fn furnished(name: &str) -> Option<Shop> {
        let shop = Shop::open(name, DaemonOptions::default())?;
        shop.apply(&[], &(blue() + WEB)).ok();
        Some(shop)
    }

    /// `fief apply -f - ARGS...`.
    #[track_caller]
    pub fn apply(&self, args: &[&str], documents: &str) -> Output {
        let words: Vec<&str> = ["apply", "-f", "-"].iter().chain(args).copied().collect();
        self.daemon.cli_command(&words).input(documents).timeout(std::time::Duration::from_secs(300)).run()
    }

    /// `fief policy test --from FROM --to TO --port PORT`.
    #[track_caller]
    pub fn test(&self, from: &str, to: &str, port: &str) -> Output {
        self.daemon.cli(&["policy", "test", "--from", from, "--to", to, "--port", port])
    }

    /// Everything there is.
    #[track_caller]
    pub fn dump(&self) -> String {
        self.daemon.cli(&["get", "all", "-o", "yaml"]).ok().stdout
    }

    /// The names of the policies.
    #[track_caller]
    pub fn policies(&self) -> Vec<String> {
        let views = self.daemon.cli(&["get", "policies", "-o", "json"]).ok().json();
        let name = |view: &Value| {
            let metadata = &view["policy"]["metadata"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!("{}/{}", text(&metadata["labels"]["fief/tenant"]), text(&metadata["name"]))
        };
        views.as_array().expect("a list").iter().map(name).collect()
    }

    /// Each endpoint with its identity.
    #[track_caller]
    pub fn identities(&self) -> Vec<(String, u64)> {
        let views = self.daemon.cli(&["get", "identities", "-o", "json"]).ok().json();
        let mut all: Vec<(String, u64)> = Vec::new();
        for view in views.as_array().expect("a list") {
            let endpoints = view["endpoints"].as_array().expect("a list").iter().filter_map(Value::as_str);
            let number = view["identity"].as_u64().expect("a number");
            all.extend(endpoints.map(|name| (name.to_owned(), number)));
        }
        all.sort();
        all
    }
}

/// A tenant's document.
pub fn tenant(name: &str) -> String {
    format!("apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\n---\n")
}

/// An endpoint's document, with its labels and its address.
pub fn endpoint(tenant: &str, name: &str, labels: &str, address: &str) -> String {
    format!(
        "apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: {name}, tenant: {tenant}, namespace: shop, \
         labels: {{ {labels} }} }}\nspec: {{ networks: [{{ network: net, address: {address} }}], attach: {{ netns: \
         {tenant}-{name} }}, ports: [{{ name: http, port: 8080 }}] }}\n---\n"
    )
}

/// Tenant `blue` and its endpoints.
pub fn blue() -> String {
    tenant("blue")
        + &endpoint("blue", "front", "app: front", "10.1.0.1")
        + &endpoint("blue", "back", "app: back", "10.1.0.2")
        + &endpoint("blue", "other", "app: other", "10.1.0.3")
}

/// The document of a policy of a tenant.
pub fn policy(tenant: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: {name}, namespace: shop, labels: \
         {{ fief/tenant: {tenant} }} }}\nspec: {spec}\n---\n"
    )
}

/// Gives a daemon some time before it is killed.
#[expect(clippy::disallowed_methods, reason = "a moment is what is drawn here")]
pub fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}
