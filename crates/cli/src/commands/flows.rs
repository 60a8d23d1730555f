//! `fief flows`

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use fief_api::FlowView;

use crate::args::{FlowsArgs, Format};
use crate::context::Context;
use crate::table::Table;
use crate::text::visible;

/// With `--follow` the daemon is asked so often: it keeps count, and tells nobody by itself.
const PAUSE: Duration = Duration::from_secs(1);

pub fn run(args: FlowsArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let client = context.client()?;
    let ask = || {
        let mut flows = client.flows(args.tenant.as_deref())?;
        flows.retain(|flow| args.verdict.is_none_or(|verdict| flow.verdict == verdict.name()));
        anyhow::Ok(flows)
    };
    if !args.follow {
        let flows = ask()?;
        if !context.print_data(&flows)? {
            context.out.print(&table(&flows).render())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if context.format == Format::Yaml {
        anyhow::bail!("--follow prints lines or, with -o json, one object a line; not YAML");
    }
    let mut known = HashMap::<String, u64>::new();
    loop {
        // The oldest first, as they came.
        for flow in ask()?.iter().rev() {
            let before = known.insert(what(flow), flow.packets);
            if before == Some(flow.packets) {
                continue;
            }
            let line = match context.format {
                Format::Json => serde_json::to_string(flow)?,
                _ => format!("{} {} ({} packets)", flow.last, sentence(flow), flow.packets),
            };
            context.out.line(&line)?;
        }
        context.out.flush()?;
        std::thread::park_timeout(PAUSE);
    }
}

fn table(flows: &[FlowView]) -> Table {
    let mut table =
        Table::new(&["ENDPOINT", "DIRECTION", "PEER", "PORT", "PACKETS", "VERDICT", "WRITTEN AT", "RULE"]);
    for flow in flows {
        table.row([
            visible(&flow.endpoint),
            flow.direction.clone(),
            visible(&peer(flow)),
            port(flow),
            flow.packets.to_string(),
            flow.verdict.clone(),
            visible(&written_at(flow)),
            visible(&why(flow)),
        ]);
    }
    table
}

/// What is the same while only the count grows.
fn what(flow: &FlowView) -> String {
    format!("{:?} {}", flow.address, sentence(flow))
}

fn sentence(flow: &FlowView) -> String {
    let at = written_at(flow);
    let at = if at.is_empty() { at } else { format!(" at {at}") };
    let text = format!(
        "{} {} {} {} {}: {}{at}",
        flow.verdict,
        flow.endpoint,
        if flow.direction == "ingress" { "from" } else { "to" },
        peer(flow),
        port(flow),
        why(flow),
    );
    visible(&text)
}

fn peer(flow: &FlowView) -> String {
    match (&flow.peer, flow.peer_address) {
        (Some(peer), Some(address)) => format!("{peer} ({address})"),
        (Some(peer), None) => peer.clone(),
        (None, address) => address.map(|address| address.to_string()).unwrap_or_default(),
    }
}

fn port(flow: &FlowView) -> String {
    match flow.protocol.as_str() {
        "icmp" => format!("icmp type {}", flow.port),
        "tcp" | "udp" | "sctp" => format!("{}/{}", flow.port, flow.protocol),
        other => format!("protocol {other}"),
    }
}

fn written_at(flow: &FlowView) -> String {
    flow.rule.as_ref().map(|rule| format!("{}:{}", rule.file, rule.line)).unwrap_or_default()
}

fn why(flow: &FlowView) -> String {
    match (&flow.rule, flow.reason.as_str()) {
        (Some(rule), _) => format!("{} {}", rule.policy, rule.path),
        (None, "rule") => "a rule that is gone since".into(),
        (None, "spoofed") => "its sender says that it is somebody else".into(),
        (None, "unreadable") => "not readable as IP".into(),
        (None, _) => "the endpoint has just come".into(),
    }
}
