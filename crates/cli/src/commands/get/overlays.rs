//! `fief get overlays`: they are asked for by whoever is there, and so no documents.

use std::process::ExitCode;

use fief_api::{Client, OverlayView};

use crate::context::Context;
use crate::table::Table;

pub fn run(client: &Client, device: Option<&str>, context: &mut Context) -> anyhow::Result<ExitCode> {
    let mut views = client.overlays()?;
    views.retain(|view| device.is_none_or(|device| view.device == device));
    if !context.print_data(&views)? {
        context.out.print(&table(&views).render())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `fief get overlay-counters`
pub fn counters(client: &Client, context: &mut Context) -> anyhow::Result<ExitCode> {
    let counters = client.overlay_counters()?;
    if !context.print_data(&counters)? {
        let mut table = Table::new(&["COUNTER", ">NUMBER"]);
        for (what, number) in [
            ("flooded", counters.flooded),
            ("limited", counters.limited),
            ("malformed", counters.malformed),
            ("evicted", counters.evicted),
            ("goodbyes", counters.goodbyes),
            ("goodbyes-ignored", counters.goodbyes_ignored),
            ("remote-addresses", counters.remote_addresses.into()),
        ] {
            table.row([what.to_owned(), number.to_string()]);
        }
        for (what, number) in &counters.refused {
            table.row([format!("refused-{what}"), number.to_string()]);
        }
        context.out.print(&table.render())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(views: &[OverlayView]) -> Table {
    let mut table = Table::new(&[
        ">GROUP",
        ">NET",
        ">USER",
        "DEVICE",
        ">MTU",
        ">ADDRESSES",
        ">FLOODED",
        ">LIMITED",
        "NAMESPACE",
    ]);
    for view in views {
        table.row([
            view.group.to_string(),
            view.network.to_string(),
            view.user.to_string(),
            view.device.clone(),
            view.mtu.to_string(),
            view.addresses.to_string(),
            view.flooded.to_string(),
            view.limited.to_string(),
            format!("net:[{}]", view.namespace),
        ]);
    }
    table
}
