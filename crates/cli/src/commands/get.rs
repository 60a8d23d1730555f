//! `fief get`

mod watch;

use std::process::ExitCode;

use fief_api::TenantView;

use crate::args::{Format, GetArgs, GetKind};
use crate::context::Context;
use crate::tenants;

pub fn run(args: GetArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    // Tenants are everything there is so far.
    let (GetKind::Tenants | GetKind::All) = args.kind;
    let client = context.client()?;
    if args.watch {
        return watch::run(&client, args.name.as_deref(), context);
    }
    match args.name {
        Some(name) => {
            let view = client.tenant(&name)?;
            if context.format == Format::Json {
                context.print_data(&view)?;
            } else {
                print(&[view], context)?;
            }
        }
        None => print(&client.tenants()?.tenants, context)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(views: &[TenantView], context: &mut Context) -> anyhow::Result<()> {
    match context.format {
        Format::Json => context.print_data(&views).map(|_| ()),
        Format::Yaml => context.out.print(&tenants::documents(views)),
        Format::Table => {
            let mut table = tenants::table();
            views.iter().for_each(|view| table.row(tenants::row(view)));
            context.out.print(&table.render())
        }
    }
}
