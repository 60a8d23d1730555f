//! `fief join`

use std::process::ExitCode;

use fief_api::JoinRequest;

use crate::args::JoinArgs;
use crate::context::Context;

pub fn run(args: JoinArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let JoinArgs { group, network, dev, mtu } = args;
    let request = JoinRequest { group, network, device: Some(dev), mtu };
    let joined = context.client()?.join(&request)?;
    if !context.print_data(&joined)? {
        let (device, group, mtu) = (joined.device, joined.group, joined.mtu);
        let which = match joined.network {
            0 => String::new(),
            network => format!(", network {network}"),
        };
        context
            .out
            .print(&format!("{device} is on the segment of group {group}{which}, with MTU {mtu}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
