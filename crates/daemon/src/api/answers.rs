//! Turning results into HTTP answers.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fief_api::ErrorBody;
use serde::Serialize;

use crate::engine::{Applied, Refusal};

pub(super) fn ok(body: impl Serialize) -> Response {
    Json(body).into_response()
}

pub(super) fn applied(result: Option<Applied>) -> Response {
    match result {
        None => gone(),
        Some(Ok(response)) => ok(response),
        Some(Err(refusal)) => refused(refusal),
    }
}

pub(super) fn error(status: StatusCode, error: impl Into<String>, help: Option<&str>) -> Response {
    let body = ErrorBody { error: error.into(), help: help.map(Into::into), diagnostics: Vec::new() };
    (status, Json(body)).into_response()
}

/// The engine ended: the daemon is about to stop.
pub(super) fn gone() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "fiefd is stopping", Some("ask again when it runs"))
}

pub(super) fn forbidden(what: &str) -> Response {
    let help = "ask as root or as a member of the group fief";
    error(StatusCode::FORBIDDEN, format!("you may not {what}"), Some(help))
}

pub(super) fn refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Documents(diagnostics) => {
            let count = diagnostics.len();
            let error = format!(
                "{count} mistake{} in the documents; nothing was changed",
                if count == 1 { "" } else { "s" }
            );
            let body = ErrorBody { error, help: None, diagnostics };
            (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
        }
        Refusal::Conflict(text, help) => error(StatusCode::CONFLICT, text, help.as_deref()),
        Refusal::Missing(text) => error(StatusCode::NOT_FOUND, text, Some("see `fief get tenants`")),
        Refusal::Store(text) => error(StatusCode::INTERNAL_SERVER_ERROR, text, Some("see the daemon's log")),
    }
}
