//! Interfaces of namespaces on the segments of groups.

use axum::Extension;
use axum::extract::{ConnectInfo, Path};
use axum::http::StatusCode;
use axum::response::Response;
use fief_api::{ErrorBody, JoinRequest, OverlayCounters, OverlayView};

use super::answers::{error, forbidden, ok};
use super::handlers::{Asked, Who};
use crate::overlay::Joins;
use crate::overlay::fast::Refusal;

/// Lists interfaces on segments: all of them, or the caller's.
#[utoipa::path(get, path = "/v1/overlays",
    responses((status = 200, description = "Done, or the answer", body = Vec<OverlayView>)))]
pub(super) async fn list(Extension(joins): Extension<Joins>, who: Who) -> Response {
    let ConnectInfo(caller) = who;
    let listed = joins.with(move |fast| fast.list()).await;
    answer(listed.map(|mut all| {
        all.retain(|view| caller.may_write() || view.user == caller.user);
        all
    }))
}

/// Gives the caller's network namespace an interface on the segment of his group.
#[utoipa::path(post, path = "/v1/overlays", request_body = JoinRequest,
    responses((status = 200, description = "Done, or the answer", body = OverlayView), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 409, description = "It cannot be granted now", body = ErrorBody), (status = 422, description = "The request is wrong; nothing was changed", body = ErrorBody)))]
pub(super) async fn join(
    Extension(joins): Extension<Joins>,
    who: Who,
    asked: Asked<JoinRequest>,
) -> Response {
    let ConnectInfo(caller) = who;
    match asked {
        Ok(axum::Json(request)) => answer(joins.join(caller, request).await),
        Err(rejection) => error(StatusCode::UNPROCESSABLE_ENTITY, rejection.body_text(), None),
    }
}

/// Takes the interface of this name in the caller's network namespace away.
#[utoipa::path(delete, path = "/v1/overlays/{device}", params(("device" = String, Path)),
    responses((status = 200, description = "Done, or the answer", body = OverlayView), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn leave(
    Extension(joins): Extension<Joins>,
    who: Who,
    Path(device): Path<String>,
) -> Response {
    let ConnectInfo(caller) = who;
    answer(joins.leave(caller, device).await)
}

/// What was counted for all segments.
#[utoipa::path(get, path = "/v1/overlay-counters",
    responses((status = 200, description = "Done, or the answer", body = OverlayCounters), (status = 403, description = "The caller may not do this", body = ErrorBody)))]
pub(super) async fn counters(Extension(joins): Extension<Joins>, who: Who) -> Response {
    if !who.0.may_write() {
        return forbidden("see what was counted for all segments");
    }
    answer(joins.counters().await)
}

fn answer(result: Result<impl serde::Serialize, Refusal>) -> Response {
    let status = match &result {
        Ok(_) => StatusCode::OK,
        Err(Refusal::Forbidden(_)) => StatusCode::FORBIDDEN,
        Err(Refusal::Wrong(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        Err(Refusal::Unavailable(_)) => StatusCode::CONFLICT,
        Err(Refusal::Missing(_)) => StatusCode::NOT_FOUND,
    };
    match result {
        Ok(body) => ok(body),
        Err(refusal) => error(status, refusal.to_string(), None),
    }
}
