//! What the engine shows of packets that did not pass.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fief_api::FlowView;
use fief_datapath::ports::{Denied, Reason};
use fief_policy::Direction;
use rustix::time::{ClockId, clock_gettime};

use super::Engine;
use super::policies::rule_view;

impl Engine {
    /// What did not pass lately at the ports of endpoints, the last first; of one tenant's, if it is named.
    pub(crate) fn view_flows(&self, tenant: Option<&str>) -> Vec<FlowView> {
        let mut flows: Vec<FlowView> = self
            .denied()
            .iter()
            .filter_map(|denied| self.flow_view(denied))
            .filter(|flow| tenant.is_none_or(|tenant| flow.tenant == tenant))
            .collect();
        flows.sort_by(|a, b| (b.last, &a.endpoint, a.port).cmp(&(a.last, &b.endpoint, b.port)));
        flows
    }

    fn flow_view(&self, denied: &Denied) -> Option<FlowView> {
        let place = self.segments.port_at(denied.device)?;
        let (tenant, _) = place.endpoint.split_once('/')?;
        let is_audited = denied.reason == Reason::Audited;
        let rule = denied.rule.and_then(|rule| self.policies.rule(rule));
        let peer = denied.addresses.and_then(|(_, peer)| self.segments.whose(place.space, peer));
        Some(FlowView {
            tenant: tenant.to_owned(),
            endpoint: place.endpoint.to_owned(),
            verdict: if is_audited { "audited" } else { "dropped" }.into(),
            direction: match denied.direction {
                Direction::Ingress => "ingress",
                Direction::Egress => "egress",
            }
            .into(),
            reason: match denied.reason {
                Reason::Rule | Reason::Audited => "rule",
                Reason::Unknown => "unknown",
                Reason::Unreadable => "unreadable",
                Reason::Lie => "spoofed",
            }
            .into(),
            rule: rule.map(|(policy, origin)| rule_view(&policy, &origin)),
            protocol: protocol(denied.protocol),
            port: denied.port,
            address: denied.addresses.map(|(own, _): (IpAddr, IpAddr)| own),
            peer_address: denied.addresses.map(|(_, other)| other),
            peer: peer.map(str::to_owned),
            packets: denied.count,
            first: unix(denied.seen.0),
            last: unix(denied.seen.1),
        })
    }
}

fn protocol(number: u8) -> String {
    match number {
        1 | 58 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        132 => "sctp".into(),
        other => other.to_string(),
    }
}

/// A time since the host started, as seconds of the Unix epoch.
fn unix(since_start: Duration) -> u64 {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    unix.saturating_sub(now.saturating_sub(since_start)).as_secs()
}
