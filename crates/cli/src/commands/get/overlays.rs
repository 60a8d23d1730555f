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

fn table(views: &[OverlayView]) -> Table {
    let mut table =
        Table::new(&[">GROUP", ">USER", "DEVICE", ">MTU", ">ADDRESSES", ">FLOODED", ">LIMITED", "NAMESPACE"]);
    for view in views {
        table.row([
            view.group.to_string(),
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
