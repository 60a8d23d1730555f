//! One function an endpoint.

use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderName, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use fief_api::{
    AliasView, ApplyRequest, ApplyResponse, Check, DaemonStatus, DeleteRequest, ErrorBody, SocketView,
    TaskView, TenantView,
};
use serde::Deserialize;

use super::answers::{applied, error, forbidden, gone, ok};
use crate::engine::{Engine, Handle, Kind, Object};
use crate::members::Caller;

pub(super) type Asked<T> = Result<Json<T>, JsonRejection>;
pub(super) type Who = ConnectInfo<Caller>;

/// A quiet watch is answered after this long.
const LONGEST_WATCH: Duration = Duration::from_secs(60);
pub(super) const REVISION: HeaderName = HeaderName::from_static(fief_api::client::REVISION_HEADER);

/// Makes documents true.
#[utoipa::path(post, path = "/v1/apply", request_body = ApplyRequest,
    responses((status = 200, description = "Done, or the answer", body = ApplyResponse), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 409, description = "It cannot be granted now", body = ErrorBody), (status = 422, description = "The request or its documents are wrong; nothing was changed", body = ErrorBody)))]
pub(super) async fn apply(State(engine): State<Handle>, who: Who, asked: Asked<ApplyRequest>) -> Response {
    write(who, asked, "change anything", async |request| {
        applied(engine.ask(move |e| e.apply(&request)).await)
    })
    .await
}

/// Says what apply would change.
#[utoipa::path(post, path = "/v1/diff", request_body = ApplyRequest,
    responses((status = 200, description = "Done, or the answer", body = ApplyResponse), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 422, description = "The request or its documents are wrong; nothing was changed", body = ErrorBody)))]
pub(super) async fn diff(State(engine): State<Handle>, who: Who, asked: Asked<ApplyRequest>) -> Response {
    write(who, asked, "compare documents", async |request| {
        applied(engine.ask(move |e| e.diff(&request)).await)
    })
    .await
}

/// Deletes what documents name.
#[utoipa::path(post, path = "/v1/delete", request_body = DeleteRequest,
    responses((status = 200, description = "Done, or the answer", body = ApplyResponse), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn delete(State(engine): State<Handle>, who: Who, asked: Asked<DeleteRequest>) -> Response {
    write(who, asked, "delete anything", async |request| {
        applied(engine.ask(move |e| e.delete(&request)).await)
    })
    .await
}

/// Deletes one tenant.
#[utoipa::path(delete, path = "/v1/tenants/{name}", params(("name" = String, Path)),
    responses((status = 200, description = "Done, or the answer", body = ApplyResponse), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn delete_tenant(
    State(engine): State<Handle>,
    who: Who,
    Path(name): Path<String>,
) -> Response {
    if !who.0.may_write() {
        return forbidden("delete anything");
    }
    applied(engine.ask(move |e| e.delete_objects([Object { kind: Kind::Tenant, name }].into())).await)
}

/// Reads the configuration directory again.
#[utoipa::path(post, path = "/v1/reload",
    responses((status = 200, description = "Done, or the answer", body = ApplyResponse), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 422, description = "The request or its documents are wrong; nothing was changed", body = ErrorBody)))]
pub(super) async fn reload(State(engine): State<Handle>, who: Who) -> Response {
    if !who.0.may_write() {
        return forbidden("reload");
    }
    applied(engine.ask(crate::files::apply).await)
}

/// Options of a listing.
#[derive(Deserialize)]
pub(super) struct Watch {
    since: Option<u64>,
}

impl Watch {
    /// Waits until something is newer than what the caller has seen; gives the revision that an answer made now has.
    pub(super) async fn wait(self, engine: &Handle) -> u64 {
        let mut revision = engine.revision();
        if let Some(since) = self.since {
            // Running out of time is an answer too: the same again.
            let _ = tokio::time::timeout(LONGEST_WATCH, revision.wait_for(|now| *now > since)).await;
        }
        // Read before the answer is made: a change in between shows up as a newer revision next time.
        *revision.borrow()
    }
}

/// Lists tenants: all of them, or those that the caller is a member of. With `since`, waits for a change.
#[utoipa::path(get, path = "/v1/tenants", params(("since" = Option<u64>, Query)),
    responses((status = 200, description = "Done, or the answer", body = Vec<TenantView>)))]
pub(super) async fn tenants(State(engine): State<Handle>, who: Who, Query(watch): Query<Watch>) -> Response {
    let number = watch.wait(&engine).await;
    let ConnectInfo(caller) = who;
    let views = engine.view(move |e| {
        let all = caller.may_write();
        let seen = e.tenants().filter(|s| all || caller.is_member(&s.members));
        seen.map(|s| e.view(s)).collect::<Vec<TenantView>>()
    });
    match views.await {
        Some(views) => ([(REVISION, number.to_string())], Json(views)).into_response(),
        None => gone(),
    }
}

/// One tenant.
#[utoipa::path(get, path = "/v1/tenants/{name}", params(("name" = String, Path)),
    responses((status = 200, description = "Done, or the answer", body = TenantView), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn tenant(State(engine): State<Handle>, who: Who, Path(name): Path<String>) -> Response {
    let ConnectInfo(caller) = who;
    let wanted = name.clone();
    let view = engine.view(move |e| {
        let stored = e.tenant(&wanted).filter(|s| caller.may_write() || caller.is_member(&s.members))?;
        Some(e.view(stored))
    });
    match view.await {
        None => gone(),
        Some(Some(view)) => ok(view),
        // To whom a tenant is none of their business it does not exist.
        Some(None) => {
            error(StatusCode::NOT_FOUND, format!("there is no tenant {name}"), Some("see `fief get tenants`"))
        }
    }
}

/// The daemon as a whole.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, description = "Done, or the answer", body = DaemonStatus), (status = 403, description = "The caller may not do this", body = ErrorBody)))]
pub(super) async fn status(State(engine): State<Handle>, who: Who) -> Response {
    if !who.0.may_write() {
        return forbidden("see the daemon's status");
    }
    engine.view(|e| e.daemon_status()).await.map_or_else(gone, ok)
}

/// What this host has and lacks.
#[utoipa::path(get, path = "/v1/doctor", responses((status = 200, description = "Done, or the answer", body = Vec<Check>), (status = 403, description = "The caller may not do this", body = ErrorBody)))]
pub(super) async fn doctor(State(engine): State<Handle>, who: Who) -> Response {
    if !who.0.may_write() {
        return forbidden("examine the host");
    }
    engine.view(crate::doctor::examine).await.map_or_else(gone, ok)
}

/// Options of the list of sockets.
#[derive(Deserialize)]
pub(super) struct OfTenant {
    pub(super) tenant: Option<String>,
}

/// Every TCP and UDP socket with its tenant.
#[utoipa::path(get, path = "/v1/sockets", params(("tenant" = Option<String>, Query)),
    responses((status = 200, description = "Done, or the answer", body = Vec<SocketView>), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn sockets(State(engine): State<Handle>, who: Who, Query(of): Query<OfTenant>) -> Response {
    let ConnectInfo(caller) = who;
    let answer = engine.view(move |e| match &of.tenant {
        None if !caller.may_write() => forbidden("see every socket; name a tenant you are a member of"),
        Some(name) if !e.tenant(name).is_some_and(|s| caller.may_write() || caller.is_member(&s.members)) => {
            error(StatusCode::NOT_FOUND, format!("there is no tenant {name}"), Some("see `fief get tenants`"))
        }
        tenant => match e.sockets(tenant.as_deref()) {
            Ok(sockets) => ok(sockets),
            Err(failed) => error(StatusCode::INTERNAL_SERVER_ERROR, failed.to_string(), None),
        },
    });
    answer.await.unwrap_or_else(gone)
}

/// Every process and thread that is a tenant's: the caller's own, those of tenants it is a member of, or all.
#[utoipa::path(get, path = "/v1/processes", params(("tenant" = Option<String>, Query)),
    responses((status = 200, description = "Done, or the answer", body = Vec<TaskView>), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn processes(
    State(engine): State<Handle>,
    who: Who,
    Query(of): Query<OfTenant>,
) -> Response {
    let ConnectInfo(caller) = who;
    let answer = engine.view(move |e| match &of.tenant {
        Some(name) if e.tenant(name).is_none() => {
            error(StatusCode::NOT_FOUND, format!("there is no tenant {name}"), Some("see `fief get tenants`"))
        }
        tenant => {
            let mut tasks = e.processes(tenant.as_deref());
            tasks.retain(|task| may_see(e, &caller, task));
            ok(tasks)
        }
    });
    answer.await.unwrap_or_else(gone)
}

/// One process.
#[utoipa::path(get, path = "/v1/processes/{pid}", params(("pid" = u32, Path)),
    responses((status = 200, description = "Done, or the answer", body = TaskView), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn process(State(engine): State<Handle>, who: Who, Path(pid): Path<u32>) -> Response {
    let ConnectInfo(caller) = who;
    let found = engine.view(move |e| e.process(pid).filter(|task| may_see(e, &caller, task)));
    match found.await {
        None => gone(),
        Some(Some(task)) => ok(task),
        Some(None) => {
            error(StatusCode::NOT_FOUND, format!("there is no process {pid} that you may see"), None)
        }
    }
}

/// Whom an alias of a UDP sender stands for.
#[utoipa::path(get, path = "/v1/aliases/{address}", params(("address" = String, Path)),
    responses((status = 200, description = "Done, or the answer", body = AliasView), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn alias(State(engine): State<Handle>, who: Who, Path(address): Path<String>) -> Response {
    let ConnectInfo(caller) = who;
    let Ok(alias) = address.parse::<IpAddr>() else {
        let help = "write an IPv4 or IPv6 address, as a server's log shows it";
        return error(StatusCode::UNPROCESSABLE_ENTITY, format!("`{address}` is no address"), Some(help));
    };
    let found = engine.view(move |e| {
        let view = e.explain(alias).filter(|view| {
            caller.may_write() || e.tenant(&view.tenant).is_some_and(|s| caller.is_member(&s.members))
        });
        view.ok_or_else(|| e.alias_networks())
    });
    match found.await {
        None => gone(),
        Some(Ok(view)) => ok(view),
        Some(Err(networks)) => {
            let is_one = networks.iter().any(|network| network.contains(&alias));
            let [v4, v6] = networks;
            let text = match is_one {
                true => format!("{alias} stands for nobody that you may see"),
                false => format!("{alias} is no alias"),
            };
            let help = match is_one {
                true => "an alias is forgotten once its client was silent for `aliasIdle` seconds".to_owned(),
                false => format!("aliases of UDP senders lie in {v4} and {v6}"),
            };
            error(StatusCode::NOT_FOUND, text, Some(&help))
        }
    }
}

fn may_see(engine: &Engine, caller: &Caller, task: &TaskView) -> bool {
    caller.may_write()
        || caller.user == task.user
        || engine.tenant(&task.tenant).is_some_and(|stored| caller.is_member(&stored.members))
}

/// A known path with a method that it does not have.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let text = format!("{} does not know the method {method}", uri.path());
    error(StatusCode::METHOD_NOT_ALLOWED, text, Some("see /openapi.json"))
}

/// Everything else.
pub(super) async fn unknown(uri: Uri) -> Response {
    error(StatusCode::NOT_FOUND, format!("there is no endpoint {}", uri.path()), Some("see /openapi.json"))
}

pub(super) async fn write<T>(
    who: Who,
    asked: Asked<T>,
    what: &str,
    work: impl AsyncFnOnce(T) -> Response,
) -> Response {
    if !who.0.may_write() {
        return forbidden(what);
    }
    match asked {
        Ok(Json(request)) => work(request).await,
        Err(rejection) => error(rejection.status(), rejection.body_text(), Some("see /openapi.json")),
    }
}
