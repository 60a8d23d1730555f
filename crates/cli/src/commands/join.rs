//! `fief join`

use std::process::ExitCode;

use fief_api::JoinRequest;

use crate::args::JoinArgs;
use crate::context::Context;

pub fn run(args: JoinArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let request = JoinRequest { group: args.group, device: Some(args.dev), mtu: args.mtu };
    let joined = context.client()?.join(&request)?;
    if !context.print_data(&joined)? {
        let (device, group, mtu) = (joined.device, joined.group, joined.mtu);
        context.out.print(&format!("{device} is on the segment of group {group}, with MTU {mtu}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
