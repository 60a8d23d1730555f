//! The metadata service: what a workload is told of itself at 169.254.169.254.
//!
//! Pure: who asks and what goes in, a response comes out. Who asks is known from the address of the connection, which the
//! network's own rules keep honest; nothing in the request says who it is. A request that came through a proxy is
//! refused: a web server that fetches addresses for strangers would read them its own metadata.

use std::net::Ipv4Addr;

use hyper::http::{HeaderMap, Method, Response, StatusCode, header};
use serde_json::json;

use crate::config::{EndpointConfig, NetworkConfig};

/// The endpoint that asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) network: &'a NetworkConfig,
    pub(crate) endpoint: &'a EndpointConfig,
    pub(crate) address: Ipv4Addr,
}

/// What the request is answered with; a caller that is not known finds nothing.
pub(crate) fn answer(
    caller: Option<Caller<'_>>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Response<String> {
    if ![Method::GET, Method::HEAD].contains(method) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    if FORWARDED.iter().any(|name| headers.contains_key(*name)) {
        return text(StatusCode::FORBIDDEN, "not through a proxy\n");
    }
    let found = caller.and_then(|caller| body(&caller, path));
    found.unwrap_or_else(|| text(StatusCode::NOT_FOUND, "not found\n"))
}

/// What proxies add (RFC 7239, and what there was before).
const FORWARDED: [&str; 2] = ["x-forwarded-for", "forwarded"];

fn body(caller: &Caller<'_>, path: &str) -> Option<Response<String>> {
    let plain = |body: &str| Some(text(StatusCode::OK, body));
    let path = path.trim_end_matches('/');
    match path {
        "" => plain("fief/\nlatest/\n"),
        "/fief" => plain("v1/\n"),
        "/fief/v1" => plain("endpoint\n"),
        "/fief/v1/endpoint" => Some(endpoint(caller)),
        "/latest" => plain("meta-data/\n"),
        "/latest/meta-data" => plain(&LEAVES.map(|leaf| leaf.0).join("\n")),
        _ => {
            let leaf = path.strip_prefix("/latest/meta-data/")?;
            let (_, value) = LEAVES.iter().find(|(name, _)| *name == leaf)?;
            plain(&value(caller))
        }
    }
}

type Leaf = (&'static str, fn(&Caller<'_>) -> String);

/// The tree that cloud-init and others read. Like theirs, a value has no line feed behind it.
const LEAVES: [Leaf; 7] = [
    ("hostname", full_name),
    ("instance-id", |caller| format!("{}.{}", caller.endpoint.tenant, caller.endpoint.name)),
    ("local-hostname", full_name),
    ("local-ipv4", |caller| caller.address.to_string()),
    ("mac", |caller| mac(&caller.endpoint.mac)),
    ("network-name", |caller| caller.network.key.clone()),
    ("tenant", |caller| caller.endpoint.tenant.clone()),
];

fn full_name(caller: &Caller<'_>) -> String {
    let dot = if caller.network.domain.is_empty() { "" } else { "." };
    format!("{}{dot}{}", caller.endpoint.hostname(), caller.network.domain)
}

fn endpoint(caller: &Caller<'_>) -> Response<String> {
    let Caller { network, endpoint, address } = caller;
    let value = json!({
        "tenant": endpoint.tenant,
        "network": network.key,
        "endpoint": endpoint.name,
        "hostname": endpoint.hostname(),
        "labels": endpoint.labels,
        "address": address,
        "address6": endpoint.address6,
        "mac": mac(&endpoint.mac),
    });
    let mut response = text(StatusCode::OK, &format!("{value}\n"));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn text(status: StatusCode, body: &str) -> Response<String> {
    let mut response = Response::new(body.to_owned());
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn mac(bytes: &[u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests;
