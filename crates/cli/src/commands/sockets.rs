//! `fief sockets`

use std::process::ExitCode;

use crate::args::SocketsArgs;
use crate::context::Context;
use crate::table::Table;

pub fn run(args: SocketsArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let sockets = context.client()?.sockets(args.tenant.as_deref())?;
    if !context.print_data(&sockets)? {
        let mut table = Table::new(&["TENANT", "PROTOCOL", "STATE", "LOCAL", "REMOTE"]);
        for it in sockets {
            table.row([it.tenant, it.protocol, it.state, it.local, it.remote]);
        }
        context.out.print(&table.render())?;
    }
    Ok(ExitCode::SUCCESS)
}
