//! The API: HTTP/1.1 and JSON on a Unix socket.
//!
//! A handler finds out who asks, hands a piece of work to the engine, and turns the result into an answer. Root and
//! the group `fief` may write and read everything; a tenant's members may read their tenant.

mod answers;
mod handlers;
mod marks;
mod networks;
mod openapi;
mod overlays;
mod policies;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::DefaultBodyLimit;
use axum::extract::connect_info::Connected;
use axum::routing::{delete, get, post};
use axum::serve::IncomingStream;
use axum::{Extension, Router};
use tokio::net::UnixListener;

use crate::engine::Handle;
use crate::members::Caller;
use crate::overlay::Joins;

/// 32 MiB of documents, escaped as JSON strings.
const LARGEST_BODY: usize = 80 * 1024 * 1024;

/// Binds the socket. A file left by a daemon that died is replaced; the directory is made.
pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let directory = path.parent().context("the socket has no directory")?;
    std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    // Only one daemon gets here in a network namespace; the file is a dead one's.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("bind {}", path.display()))?;
    // Everybody may ask; who may do what is decided by the peer's credentials.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves until `stop` resolves.
pub async fn serve(
    listener: UnixListener,
    engine: Handle,
    joins: Joins,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router(engine, joins).into_make_service_with_connect_info::<Caller>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await
}

fn router(engine: Handle, joins: Joins) -> Router {
    Router::new()
        .route("/v1/apply", post(handlers::apply))
        .route("/v1/diff", post(handlers::diff))
        .route("/v1/delete", post(handlers::delete))
        .route("/v1/reload", post(handlers::reload))
        .route("/v1/tenants", get(handlers::tenants))
        .route("/v1/tenants/{name}", get(handlers::tenant).delete(handlers::delete_tenant))
        .route("/v1/networks", get(networks::networks))
        .route("/v1/networks/{tenant}/{name}", get(networks::network).delete(networks::delete_network))
        .route("/v1/endpoints", get(networks::endpoints))
        .route("/v1/endpoints/{tenant}/{name}", get(networks::endpoint).delete(networks::delete_endpoint))
        .route("/v1/policies", get(policies::policies))
        .route("/v1/policies/test", post(policies::test))
        .route(
            "/v1/policies/{tenant}/{namespace}/{name}",
            get(policies::policy).delete(policies::delete_policy),
        )
        .route("/v1/identities", get(policies::identities))
        .route("/v1/flows", get(policies::flows))
        .route("/v1/overlays", get(overlays::list).post(overlays::join))
        .route("/v1/overlays/{device}", delete(overlays::leave))
        .route("/v1/overlay-counters", get(overlays::counters))
        .route("/v1/status", get(handlers::status))
        .route("/v1/doctor", get(handlers::doctor))
        .route("/v1/sockets", get(handlers::sockets))
        .route("/v1/processes", get(handlers::processes))
        .route("/v1/processes/{pid}", get(handlers::process))
        .route("/v1/aliases/{address}", get(handlers::alias))
        .route("/v1/marks", get(marks::field))
        .route("/v1/marks/move", post(marks::move_field))
        .route("/openapi.json", get(openapi::document))
        .fallback(handlers::unknown)
        .method_not_allowed_fallback(handlers::wrong_method)
        .layer(Extension(joins))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(engine)
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Caller {
        match fief_host::peer::credentials(stream.io()) {
            Ok((user, groups)) => {
                let process = fief_host::peer::pidfd(stream.io()).ok().map(Arc::new);
                Caller { user, groups, process }
            }
            // Whoever cannot be known is nobody (65534, the overflow id of the kernel).
            Err(_) => Caller { user: 65_534, groups: vec![65_534], process: None },
        }
    }
}
