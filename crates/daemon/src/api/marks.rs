//! Where the tenant's number stands in marks: shown, and moved.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fief_api::{ErrorBody, FieldView, MoveRequest, MoveResponse};
use fief_marks::MarkLayout;

use super::answers::{error, forbidden, gone, ok, refused};
use super::handlers::{Asked, REVISION, Watch, Who, write};
use crate::arbiter;
use crate::engine::Handle;

/// Where the tenant's number stands in marks, and who else uses its bits. With `since`, waits for a change.
#[utoipa::path(get, path = "/v1/marks", params(("since" = Option<u64>, Query)),
    responses((status = 200, description = "Done, or the answer", body = FieldView), (status = 403, description = "The caller may not do this", body = ErrorBody)))]
pub(super) async fn field(State(engine): State<Handle>, who: Who, Query(watch): Query<Watch>) -> Response {
    if !who.0.may_write() {
        return forbidden("see where the tenants' numbers stand");
    }
    let number = watch.wait(&engine).await;
    match engine.view(|e| e.field_view()).await {
        Some(view) => ([(REVISION, number.to_string())], Json(view)).into_response(),
        None => gone(),
    }
}

/// Moves it, while everything runs; the answer comes when that has begun.
#[utoipa::path(post, path = "/v1/marks/move", request_body = MoveRequest,
    responses((status = 200, description = "Done, or the answer", body = MoveResponse), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 409, description = "It cannot be granted now", body = ErrorBody), (status = 422, description = "The request is wrong; nothing was changed", body = ErrorBody)))]
pub(super) async fn move_field(
    State(engine): State<Handle>,
    who: Who,
    asked: Asked<MoveRequest>,
) -> Response {
    write(who, asked, "move the field", async |request| start(engine, request).await).await
}

async fn start(engine: Handle, request: MoveRequest) -> Response {
    let wanted = match request.to.as_deref().map(str::parse::<MarkLayout>).transpose() {
        Ok(wanted) => wanted,
        Err(bad) => return error(StatusCode::UNPROCESSABLE_ENTITY, bad.to_string(), None),
    };
    let known = engine.view(|e| (arbiter::registry(&e.config_directory()), e.field_now()));
    let Some((registry, now)) = known.await else { return gone() };
    let Some(now) = now else {
        let text = "fief writes no marks on this host: there is no field to move";
        return error(
            StatusCode::CONFLICT,
            text,
            Some("write `markMask: auto` in fiefd.yaml, or a mask, and start fiefd again"),
        );
    };
    // Looking at the host takes a while; meanwhile the engine goes on.
    let looked = tokio::task::spawn_blocking(move || match wanted {
        None => {
            let choice = arbiter::choose(&registry, Some(now));
            (choice.mask, choice.reason, Vec::new())
        }
        Some(place) => {
            let against = arbiter::against(&registry, place, &now);
            (place, "asked for by an administrator".to_owned(), against)
        }
    });
    let Ok((place, reason, against)) = looked.await else { return gone() };
    if let Some(conflict) = against.first().filter(|_| !request.force) {
        let text = format!(
            "{} uses bits {} of {place}: {}; nothing was moved",
            conflict.intruder(),
            conflict.bits,
            conflict.place
        );
        return error(StatusCode::CONFLICT, text, Some(&format!("{}; or --force", conflict.remedy)));
    }
    let kept = reason.clone();
    let answer = move |field: FieldView| {
        ok(MoveResponse { to: place.to_string(), reason, tenants: place.capacity(), field })
    };
    if request.dry_run {
        return engine.view(|e| e.field_view()).await.map_or_else(gone, answer);
    }
    match engine.ask(move |e| e.begin_move(place, kept).map(|()| e.field_view())).await {
        None => gone(),
        Some(Ok(field)) => answer(field),
        Some(Err(refusal)) => refused(refusal),
    }
}
