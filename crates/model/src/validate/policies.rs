//! One network policy by itself.

use super::{Findings, names};
use crate::policy::{
    IpBlock, LabelExpression, LabelOperator, LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort, PortName,
};

pub(super) fn check(policy: &NetworkPolicy, findings: &mut Findings<'_>) {
    let metadata = &policy.metadata;
    if !names::is_subdomain(&metadata.name) {
        let flaw = format!("`{}` is not a name for a policy", metadata.name);
        let help = "write lower-case letters, digits, and inner hyphens and dots, 253 at most";
        findings.refuse("metadata.name", flaw, help);
    }
    names::check_name("metadata.namespace", &metadata.namespace, "a namespace", findings);
    names::check_labels("metadata.labels", &metadata.labels, findings);
    let spec = &policy.spec;
    check_selector("spec.podSelector", &spec.pod_selector, findings);
    for (index, rule) in spec.ingress.iter().enumerate() {
        let path = format!("spec.ingress[{index}]");
        check_rule(&path, ("from", &rule.from), &rule.ports, findings);
    }
    for (index, rule) in spec.egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        check_rule(&path, ("to", &rule.to), &rule.ports, findings);
    }
    for (index, kind) in spec.policy_types.iter().enumerate() {
        if spec.policy_types.iter().take(index).any(|other| other == kind) {
            let path = format!("spec.policyTypes[{index}]");
            findings.refuse(&path, format!("`{kind:?}` is listed twice"), "delete one of the two");
        }
    }
}

fn check_rule(
    path: &str,
    (field, peers): (&str, &[PolicyPeer]),
    ports: &[PolicyPort],
    findings: &mut Findings<'_>,
) {
    for (index, peer) in peers.iter().enumerate() {
        check_peer(&format!("{path}.{field}[{index}]"), peer, findings);
    }
    for (index, port) in ports.iter().enumerate() {
        check_port(&format!("{path}.ports[{index}]"), port, findings);
    }
}

fn check_peer(path: &str, peer: &PolicyPeer, findings: &mut Findings<'_>) {
    let PolicyPeer { pod_selector, namespace_selector, ip_block } = peer;
    match (pod_selector.is_some() || namespace_selector.is_some(), ip_block) {
        (false, None) => {
            let help = "write `podSelector`, `namespaceSelector`, both of them, or `ipBlock`";
            findings.refuse(path, "a peer that says nothing", help);
        }
        (true, Some(_)) => {
            let help = "make two peers of it: either of them may then talk";
            findings.refuse(&format!("{path}.ipBlock"), "`ipBlock` beside a selector", help);
        }
        _ => {}
    }
    for (field, selector) in [("podSelector", pod_selector), ("namespaceSelector", namespace_selector)] {
        if let Some(selector) = selector {
            check_selector(&format!("{path}.{field}"), selector, findings);
        }
    }
    if let Some(block) = ip_block {
        check_block(&format!("{path}.ipBlock"), block, findings);
    }
}

fn check_block(path: &str, block: &IpBlock, findings: &mut Findings<'_>) {
    for (index, hole) in block.except.iter().enumerate() {
        let inside = block.cidr.contains(hole) && hole.prefix_len() > block.cidr.prefix_len();
        if !inside {
            let flaw = format!("{hole} is no part of {}", block.cidr);
            let help = "write a longer prefix inside of it, or delete this";
            findings.refuse(&format!("{path}.except[{index}]"), flaw, help);
        }
    }
}

fn check_port(path: &str, port: &PolicyPort, findings: &mut Findings<'_>) {
    let at = |field: &str| format!("{path}.{field}");
    let help = "write a whole number, 1 to 65535";
    match &port.port {
        Some(PortName::Number(0)) => findings.refuse(&at("port"), "0 is no port", help),
        Some(PortName::Name(name)) => {
            if let Some((flaw, help)) = names::flaw_of_port_name(name) {
                findings.refuse(&at("port"), flaw, help);
            }
        }
        _ => {}
    }
    match (port.end_port, &port.port) {
        (None, _) => {}
        (Some(end), Some(PortName::Number(first))) if end >= *first => {}
        (Some(end), Some(PortName::Number(first))) => {
            let flaw = format!("the range begins at {first}, behind its end {end}");
            findings.refuse(&at("endPort"), flaw, format!("write a number from {first} on"));
        }
        (Some(_), _) => {
            let flaw = "`endPort` without the number of a first port";
            findings.refuse(&at("endPort"), flaw, "write a number in `port`, or delete this");
        }
    }
}

fn check_selector(path: &str, selector: &LabelSelector, findings: &mut Findings<'_>) {
    names::check_labels(&format!("{path}.matchLabels"), &selector.match_labels, findings);
    for (index, expression) in selector.match_expressions.iter().enumerate() {
        check_expression(&format!("{path}.matchExpressions[{index}]"), expression, findings);
    }
}

fn check_expression(path: &str, expression: &LabelExpression, findings: &mut Findings<'_>) {
    let LabelExpression { key, operator, values } = expression;
    names::check_label_key(&format!("{path}.key"), key, findings);
    let path = format!("{path}.values");
    match operator {
        LabelOperator::In | LabelOperator::NotIn if values.is_empty() => {
            findings.refuse(&path, format!("`{operator:?}` without values"), "write `values: [shop]`");
        }
        LabelOperator::Exists | LabelOperator::DoesNotExist if !values.is_empty() => {
            findings.refuse(&path, format!("`{operator:?}` takes no values"), "delete `values`");
        }
        _ => {}
    }
    for (index, value) in values.iter().enumerate() {
        names::check_label_value(&format!("{path}[{index}]"), value, findings);
    }
}
