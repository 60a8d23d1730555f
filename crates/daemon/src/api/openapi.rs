//! The OpenAPI document, made from the handlers and the wire types.

use axum::Json;
use utoipa::OpenApi;

use super::{handlers, marks, networks, overlays, policies};

#[derive(OpenApi)]
#[openapi(
    info(title = "fiefd", description = "Tenants of one host. HTTP/1.1 on a Unix socket."),
    paths(
        handlers::apply,
        handlers::diff,
        handlers::delete,
        handlers::delete_tenant,
        handlers::reload,
        handlers::tenants,
        handlers::tenant,
        networks::networks,
        networks::network,
        networks::delete_network,
        networks::endpoints,
        networks::endpoint,
        networks::delete_endpoint,
        policies::policies,
        policies::policy,
        policies::delete_policy,
        policies::identities,
        policies::flows,
        policies::test,
        overlays::list,
        overlays::join,
        overlays::leave,
        overlays::counters,
        handlers::status,
        handlers::doctor,
        handlers::sockets,
        handlers::processes,
        handlers::process,
        handlers::alias,
        marks::field,
        marks::move_field,
    )
)]
struct Api;

pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}
