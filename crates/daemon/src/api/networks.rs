//! Networks and endpoints.

use std::collections::BTreeSet;

use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use fief_api::{ApplyResponse, EndpointView, ErrorBody, NetworkView};

use super::answers::{applied, error, forbidden, gone, ok};
use super::handlers::Who;
use crate::engine::{Engine, Handle, Kind, Object};
use crate::members::Caller;

/// Lists networks: all of them, or those of tenants that the caller is a member of.
#[utoipa::path(get, path = "/v1/networks",
    responses((status = 200, description = "Done, or the answer", body = Vec<NetworkView>)))]
pub(super) async fn networks(State(engine): State<Handle>, who: Who) -> Response {
    let ConnectInfo(caller) = who;
    let views = engine.view(move |e| {
        let seen = e.stored_networks().filter(|s| may_see(e, &caller, &s.network.metadata.tenant));
        seen.map(|s| e.view_network(s)).collect::<Vec<NetworkView>>()
    });
    views.await.map_or_else(gone, ok)
}

/// One network.
#[utoipa::path(get, path = "/v1/networks/{tenant}/{name}", params(("tenant" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Done, or the answer", body = NetworkView), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn network(
    State(engine): State<Handle>,
    who: Who,
    Path((tenant, name)): Path<(String, String)>,
) -> Response {
    let ConnectInfo(caller) = who;
    let key = format!("{tenant}/{name}");
    let wanted = key.clone();
    let view = engine.view(move |e| {
        let stored = e.stored_networks().find(|s| s.network.metadata.key() == wanted)?;
        may_see(e, &caller, &stored.network.metadata.tenant).then(|| e.view_network(stored))
    });
    found(view.await, "network", "networks", &key)
}

/// Deletes one network.
#[utoipa::path(delete, path = "/v1/networks/{tenant}/{name}", params(("tenant" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Done, or the answer", body = ApplyResponse), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn delete_network(
    State(engine): State<Handle>,
    who: Who,
    Path((tenant, name)): Path<(String, String)>,
) -> Response {
    delete(engine, who, Object { kind: Kind::Network, name: format!("{tenant}/{name}") }).await
}

/// Lists endpoints: all of them, or those of tenants that the caller is a member of.
#[utoipa::path(get, path = "/v1/endpoints",
    responses((status = 200, description = "Done, or the answer", body = Vec<EndpointView>)))]
pub(super) async fn endpoints(State(engine): State<Handle>, who: Who) -> Response {
    let ConnectInfo(caller) = who;
    let views = engine.view(move |e| {
        let seen = e.stored_endpoints().filter(|s| may_see(e, &caller, &s.endpoint.metadata.tenant));
        seen.map(|s| e.view_endpoint(s)).collect::<Vec<EndpointView>>()
    });
    views.await.map_or_else(gone, ok)
}

/// One endpoint.
#[utoipa::path(get, path = "/v1/endpoints/{tenant}/{name}", params(("tenant" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Done, or the answer", body = EndpointView), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn endpoint(
    State(engine): State<Handle>,
    who: Who,
    Path((tenant, name)): Path<(String, String)>,
) -> Response {
    let ConnectInfo(caller) = who;
    let key = format!("{tenant}/{name}");
    let wanted = key.clone();
    let view = engine.view(move |e| {
        let stored = e.stored_endpoints().find(|s| s.endpoint.metadata.key() == wanted)?;
        may_see(e, &caller, &stored.endpoint.metadata.tenant).then(|| e.view_endpoint(stored))
    });
    found(view.await, "endpoint", "endpoints", &key)
}

/// Deletes one endpoint.
#[utoipa::path(delete, path = "/v1/endpoints/{tenant}/{name}", params(("tenant" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Done, or the answer", body = ApplyResponse), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn delete_endpoint(
    State(engine): State<Handle>,
    who: Who,
    Path((tenant, name)): Path<(String, String)>,
) -> Response {
    delete(engine, who, Object { kind: Kind::Endpoint, name: format!("{tenant}/{name}") }).await
}

pub(super) async fn delete(engine: Handle, who: Who, object: Object) -> Response {
    if !who.0.may_write() {
        return forbidden("delete anything");
    }
    applied(engine.ask(move |e| e.delete_objects(BTreeSet::from([object]))).await)
}

pub(super) fn may_see(engine: &Engine, caller: &Caller, tenant: &str) -> bool {
    caller.may_write() || engine.tenant(tenant).is_some_and(|stored| caller.is_member(&stored.members))
}

pub(super) fn found<T: serde::Serialize>(
    view: Option<Option<T>>,
    kind: &str,
    kinds: &str,
    key: &str,
) -> Response {
    match view {
        None => gone(),
        Some(Some(view)) => ok(view),
        Some(None) => {
            let help = format!("see `fief get {kinds}`");
            error(StatusCode::NOT_FOUND, format!("there is no {kind} {key}"), Some(&help))
        }
    }
}
