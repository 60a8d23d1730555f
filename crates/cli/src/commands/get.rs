//! `fief get`

mod overlays;
mod watch;

use std::process::ExitCode;

use fief_api::{Client, ClientError, EndpointView, NetworkView, TenantView};
use serde::Serialize;

use crate::args::{Format, GetArgs, GetKind};
use crate::context::Context;
use crate::{networks, tenants};

/// Objects of all kinds.
#[derive(Default)]
struct Found {
    tenants: Vec<TenantView>,
    networks: Vec<NetworkView>,
    endpoints: Vec<EndpointView>,
}

/// One of them, in JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Any<'a> {
    Tenant(&'a TenantView),
    Network(&'a NetworkView),
    Endpoint(&'a EndpointView),
}

pub fn run(args: GetArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let client = context.client()?;
    if args.watch {
        if matches!(args.kind, GetKind::Networks | GetKind::Endpoints | GetKind::Overlays) {
            anyhow::bail!("-w watches tenants only, so far: fief get tenants -w");
        }
        return watch::run(&client, args.name.as_deref(), context);
    }
    if args.kind == GetKind::Overlays {
        return overlays::run(&client, args.name.as_deref(), context);
    }
    match &args.name {
        Some(name) => {
            let found = one(&client, args.kind, name)?;
            if context.format == Format::Json {
                found.each().try_for_each(|object| context.print_data(&object).map(drop))?;
            } else {
                print(args.kind, &found, context)?;
            }
        }
        None => print(args.kind, &all(&client, args.kind)?, context)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Found {
    fn each(&self) -> impl Iterator<Item = Any<'_>> {
        let tenants = self.tenants.iter().map(Any::Tenant);
        let networks = self.networks.iter().map(Any::Network);
        tenants.chain(networks).chain(self.endpoints.iter().map(Any::Endpoint))
    }
}

fn one(client: &Client, kind: GetKind, name: &str) -> Result<Found, ClientError> {
    let mut found = Found::default();
    match kind {
        GetKind::Tenants | GetKind::All => found.tenants.push(client.tenant(name)?),
        GetKind::Networks => found.networks.push(client.network(name)?),
        GetKind::Endpoints => found.endpoints.push(client.endpoint(name)?),
        GetKind::Overlays => {}
    }
    Ok(found)
}

fn all(client: &Client, kind: GetKind) -> Result<Found, ClientError> {
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
    Ok(found)
}

fn print(kind: GetKind, found: &Found, context: &mut Context) -> anyhow::Result<()> {
    match context.format {
        Format::Json => context.print_data(&found.each().collect::<Vec<_>>()).map(drop),
        Format::Yaml => {
            let tenants = tenants::documents(&found.tenants);
            let rest = networks::documents(&found.networks, &found.endpoints);
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
            context.out.print(&tables.join("\n"))
        }
    }
}
