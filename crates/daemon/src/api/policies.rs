//! Policies, identities, and what becomes of a packet.

use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use fief_api::{
    ApplyResponse, ErrorBody, FlowView, IdentityView, PolicyTestRequest, PolicyTestResponse, PolicyView,
};

use super::answers::{error, gone, ok};
use super::handlers::{Asked, OfTenant, Who};
use super::networks::{delete, found, may_see};
use crate::engine::{Handle, Kind, Object, Unanswered};

/// Lists policies: all of them, or those of tenants that the caller is a member of; of one tenant, if it is named.
#[utoipa::path(get, path = "/v1/policies", params(("tenant" = Option<String>, Query)),
    responses((status = 200, description = "Done, or the answer", body = Vec<PolicyView>)))]
pub(super) async fn policies(State(engine): State<Handle>, who: Who, Query(of): Query<OfTenant>) -> Response {
    let ConnectInfo(caller) = who;
    let views = engine.view(move |e| {
        let wanted = |tenant: &str| of.tenant.as_deref().is_none_or(|wanted| wanted == tenant);
        let seen = e.stored_policies().filter(|s| {
            s.policy.tenant().is_some_and(|tenant| wanted(tenant) && may_see(e, &caller, tenant))
        });
        seen.map(|s| e.view_policy(s)).collect::<Vec<PolicyView>>()
    });
    views.await.map_or_else(gone, ok)
}

/// One policy.
#[utoipa::path(get, path = "/v1/policies/{tenant}/{namespace}/{name}", params(("tenant" = String, Path), ("namespace" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Done, or the answer", body = PolicyView), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn policy(
    State(engine): State<Handle>,
    who: Who,
    Path((tenant, namespace, name)): Path<(String, String, String)>,
) -> Response {
    let ConnectInfo(caller) = who;
    let key = format!("{tenant}/{namespace}/{name}");
    let wanted = key.clone();
    let view = engine.view(move |e| {
        let stored = e.stored_policy(&wanted)?;
        may_see(e, &caller, &tenant).then(|| e.view_policy(stored))
    });
    found(view.await, "policy", "policies", &key)
}

/// Deletes one policy.
#[utoipa::path(delete, path = "/v1/policies/{tenant}/{namespace}/{name}", params(("tenant" = String, Path), ("namespace" = String, Path), ("name" = String, Path)),
    responses((status = 200, description = "Done, or the answer", body = ApplyResponse), (status = 403, description = "The caller may not do this", body = ErrorBody), (status = 404, description = "There is no such thing, or none of the caller's", body = ErrorBody)))]
pub(super) async fn delete_policy(
    State(engine): State<Handle>,
    who: Who,
    Path((tenant, namespace, name)): Path<(String, String, String)>,
) -> Response {
    delete(engine, who, Object { kind: Kind::Policy, name: format!("{tenant}/{namespace}/{name}") }).await
}

/// Lists identities: all of them, or those of tenants that the caller is a member of; of one tenant, if it is named.
#[utoipa::path(get, path = "/v1/identities", params(("tenant" = Option<String>, Query)),
    responses((status = 200, description = "Done, or the answer", body = Vec<IdentityView>)))]
pub(super) async fn identities(
    State(engine): State<Handle>,
    who: Who,
    Query(of): Query<OfTenant>,
) -> Response {
    let ConnectInfo(caller) = who;
    let views = engine.view(move |e| {
        let mut views = e.view_identities(of.tenant.as_deref());
        views.retain(|view| may_see(e, &caller, &view.tenant));
        views
    });
    views.await.map_or_else(gone, ok)
}

/// Lists what did not pass at the ports of endpoints: of all of them, or of tenants that the caller is a member of; of one
/// tenant's, if it is named.
#[utoipa::path(get, path = "/v1/flows", params(("tenant" = Option<String>, Query)),
    responses((status = 200, description = "Done, or the answer", body = Vec<FlowView>)))]
pub(super) async fn flows(State(engine): State<Handle>, who: Who, Query(of): Query<OfTenant>) -> Response {
    let ConnectInfo(caller) = who;
    let views = engine.view(move |e| {
        let mut views = e.view_flows(of.tenant.as_deref());
        views.retain(|view| may_see(e, &caller, &view.tenant));
        views
    });
    views.await.map_or_else(gone, ok)
}

/// Says what would become of a packet, and which rules say so.
#[utoipa::path(post, path = "/v1/policies/test", request_body = PolicyTestRequest,
    responses((status = 200, description = "Done, or the answer", body = PolicyTestResponse), (status = 422, description = "The request or its documents are wrong; nothing was changed", body = ErrorBody)))]
pub(super) async fn test(
    State(engine): State<Handle>,
    who: Who,
    asked: Asked<PolicyTestRequest>,
) -> Response {
    let ConnectInfo(caller) = who;
    let request = match asked {
        Ok(request) => request.0,
        Err(rejection) => return error(rejection.status(), rejection.body_text(), Some("see /openapi.json")),
    };
    let answer = engine.view(move |e| e.test_policy(&request, &|tenant| may_see(e, &caller, tenant)));
    match answer.await {
        None => gone(),
        Some(Ok(answer)) => ok(answer),
        Some(Err(Unanswered(text, help))) => error(StatusCode::UNPROCESSABLE_ENTITY, text, Some(help)),
    }
}
