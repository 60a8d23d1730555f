//! `fief get`

mod overlays;
mod watch;

use std::process::ExitCode;

use fief_api::{Client, ClientError, EndpointView, NetworkView, PolicyView, TenantView};
use serde::Serialize;

use fief_model::policy::DEFAULT_NAMESPACE;

use crate::args::{Format, GetArgs, GetKind};
use crate::context::Context;
use crate::{networks, policies, tenants};

/// Objects of all kinds.
#[derive(Default)]
struct Found {
    tenants: Vec<TenantView>,
    networks: Vec<NetworkView>,
    endpoints: Vec<EndpointView>,
    policies: Vec<PolicyView>,
}

/// One of them, in JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Any<'a> {
    Tenant(&'a TenantView),
    Network(&'a NetworkView),
    Endpoint(&'a EndpointView),
    Policy(&'a PolicyView),
}

pub fn run(args: GetArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let client = context.client()?;
    if args.watch {
        if !matches!(args.kind, GetKind::Tenants | GetKind::All) || args.tenant.is_some() {
            anyhow::bail!("-w watches tenants only, so far: fief get tenants -w");
        }
        return watch::run(&client, args.name.as_deref(), context);
    }
    if args.kind == GetKind::Overlays {
        return overlays::run(&client, args.name.as_deref(), context);
    }
    if args.kind == GetKind::OverlayCounters {
        return overlays::counters(&client, context);
    }
    let tenant = args.tenant.as_deref();
    if args.kind == GetKind::Identities {
        if args.name.is_some() {
            anyhow::bail!("identities have no names; --tenant shows those of one tenant");
        }
        let identities = client.identities(tenant)?;
        if !context.print_data(&identities)? {
            context.out.print(&policies::identities(&identities).render())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    match &args.name {
        Some(name) => {
            let found = one(&client, args.kind, &full_name(args.kind, name, tenant)?)?;
            if context.format == Format::Json {
                found.each().try_for_each(|object| context.print_data(&object).map(drop))?;
            } else {
                print(args.kind, &found, context)?;
            }
        }
        None => print(args.kind, &all(&client, args.kind, tenant)?, context)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Found {
    fn each(&self) -> impl Iterator<Item = Any<'_>> {
        let tenants = self.tenants.iter().map(Any::Tenant);
        let networks = self.networks.iter().map(Any::Network);
        let endpoints = self.endpoints.iter().map(Any::Endpoint);
        tenants.chain(networks).chain(endpoints).chain(self.policies.iter().map(Any::Policy))
    }
}

/// A name with what a tenant adds to it.
fn full_name(kind: GetKind, name: &str, tenant: Option<&str>) -> anyhow::Result<String> {
    let parts = name.split('/').count();
    Ok(match (kind, tenant) {
        (GetKind::Policies, Some(tenant)) => match parts {
            1 => format!("{tenant}/{DEFAULT_NAMESPACE}/{name}"),
            2 => format!("{tenant}/{name}"),
            _ => name.to_owned(),
        },
        (GetKind::Policies, None) if parts != 3 => {
            anyhow::bail!("`{name}` is no name of a policy; write TENANT/NAMESPACE/NAME, or --tenant TENANT")
        }
        (GetKind::Networks | GetKind::Endpoints, Some(tenant)) if parts == 1 => format!("{tenant}/{name}"),
        _ => name.to_owned(),
    })
}

fn one(client: &Client, kind: GetKind, name: &str) -> Result<Found, ClientError> {
    let mut found = Found::default();
    match kind {
        GetKind::Tenants | GetKind::All => found.tenants.push(client.tenant(name)?),
        GetKind::Networks => found.networks.push(client.network(name)?),
        GetKind::Endpoints => found.endpoints.push(client.endpoint(name)?),
        GetKind::Policies => found.policies.push(client.policy(name)?),
        GetKind::Identities => {}
        GetKind::Overlays | GetKind::OverlayCounters => {}
    }
    Ok(found)
}

/// All of a kind; of one tenant, if it is named.
fn all(client: &Client, kind: GetKind, tenant: Option<&str>) -> Result<Found, ClientError> {
    let mut found = Found::default();
    if matches!(kind, GetKind::Tenants | GetKind::All) {
        found.tenants = client.tenants()?.tenants;
    }
    if matches!(kind, GetKind::Networks | GetKind::All) {
        found.networks = client.networks()?;
    }
    if matches!(kind, GetKind::Endpoints | GetKind::All) {
        found.endpoints = client.endpoints()?;
    }
    if matches!(kind, GetKind::Policies | GetKind::All) {
        found.policies = client.policies(tenant)?;
    }
    if let Some(tenant) = tenant {
        found.tenants.retain(|view| view.tenant.metadata.name == tenant);
        found.networks.retain(|view| view.network.metadata.tenant == tenant);
        found.endpoints.retain(|view| view.endpoint.metadata.tenant == tenant);
    }
    Ok(found)
}

fn print(kind: GetKind, found: &Found, context: &mut Context) -> anyhow::Result<()> {
    match context.format {
        Format::Json => context.print_data(&found.each().collect::<Vec<_>>()).map(drop),
        Format::Yaml => {
            let tenants = tenants::documents(&found.tenants);
            let rest = networks::documents(&found.networks, &found.endpoints);
            let rest = rest.into_iter().chain(policies::documents(&found.policies));
            let all: Vec<String> =
                Some(tenants).filter(|text| !text.is_empty()).into_iter().chain(rest).collect();
            context.out.print(&all.join("---\n"))
        }
        Format::Table => {
            let mut tables = Vec::new();
            if matches!(kind, GetKind::Tenants | GetKind::All) {
                let mut table = tenants::table();
                found.tenants.iter().for_each(|view| table.row(tenants::row(view)));
                tables.push(table.render());
            }
            if kind == GetKind::Networks || !found.networks.is_empty() {
                tables.push(networks::networks(&found.networks).render());
            }
            if kind == GetKind::Endpoints || !found.endpoints.is_empty() {
                tables.push(networks::endpoints(&found.endpoints).render());
            }
            if kind == GetKind::Policies || !found.policies.is_empty() {
                tables.push(policies::policies(&found.policies).render());
            }
            context.out.print(&tables.join("\n"))
        }
    }
}
