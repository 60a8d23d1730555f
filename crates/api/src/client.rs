//! The daemon's API as calls that block: one method an endpoint.
//!
//! A [`Client`] holds a current-thread runtime, so it must not be used from inside another one.
//! Each call is one connection: the daemon reads the caller's credentials off the socket, and a call that
//! waits (a watch) never stands in the way of the next.

mod error;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use serde::de::DeserializeOwned;

pub use error::ClientError;
use wire::{Answer, Call};

use crate::{
    AliasView, ApplyRequest, ApplyResponse, Check, DaemonStatus, DeleteRequest, EndpointView, FieldView,
    FlowView, IdentityView, JoinRequest, MoveRequest, MoveResponse, NetworkView, OverlayCounters,
    OverlayView, Paths, PolicyTestRequest, PolicyTestResponse, PolicyView, SocketView, TaskView, TenantView,
};

/// Longer than any apply takes; a daemon that is silent for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(600);

/// The response header that carries the revision of a listing.
pub const REVISION_HEADER: &str = "fief-revision";

/// Speaks to one daemon.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

/// All tenants, and the revision at which they looked like this.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The tenants.
    pub tenants: Vec<TenantView>,
    /// What to give [`Client::tenants_since`] to wait for the next change.
    pub revision: Revision,
}

/// A point in the daemon's history. Later is greater, as long as the daemon lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Client {
    /// A client of the daemon that has these places. Connects with each call, not before.
    pub fn new(paths: &Paths) -> Result<Client, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Client { socket: paths.socket(), runtime: runtime.map_err(ClientError::Runtime)? })
    }

    /// Makes the documents true; with `dry_run`, says what that would take.
    pub fn apply(&self, request: &ApplyRequest) -> Result<ApplyResponse, ClientError> {
        self.json(Call::post("/v1/apply", request)?)
    }

    /// What an apply would change, and how. Changes nothing.
    pub fn diff(&self, request: &ApplyRequest) -> Result<ApplyResponse, ClientError> {
        self.json(Call::post("/v1/diff", request)?)
    }

    /// Deletes what the documents name.
    pub fn delete(&self, request: &DeleteRequest) -> Result<ApplyResponse, ClientError> {
        self.json(Call::post("/v1/delete", request)?)
    }

    /// Deletes one tenant.
    pub fn delete_tenant(&self, name: &str) -> Result<ApplyResponse, ClientError> {
        self.json(Call::new(Method::DELETE, format!("/v1/tenants/{}", escaped(name))))
    }

    /// All tenants as they are now.
    pub fn tenants(&self) -> Result<Listing, ClientError> {
        self.listing(Call::get("/v1/tenants"))
    }

    /// All tenants, once something is newer than `seen`; after a minute of quiet, as they are then.
    pub fn tenants_since(&self, seen: Revision) -> Result<Listing, ClientError> {
        self.listing(Call::get(format!("/v1/tenants?since={}", seen.0)))
    }

    /// One tenant.
    pub fn tenant(&self, name: &str) -> Result<TenantView, ClientError> {
        self.json(Call::get(format!("/v1/tenants/{}", escaped(name))))
    }

    /// All networks.
    pub fn networks(&self) -> Result<Vec<NetworkView>, ClientError> {
        self.json(Call::get("/v1/networks"))
    }

    /// One network, by `TENANT/NAME`.
    pub fn network(&self, key: &str) -> Result<NetworkView, ClientError> {
        self.json(Call::get(format!("/v1/networks/{}", escaped_key(key))))
    }

    /// Deletes one network, by `TENANT/NAME`.
    pub fn delete_network(&self, key: &str) -> Result<ApplyResponse, ClientError> {
        self.json(Call::new(Method::DELETE, format!("/v1/networks/{}", escaped_key(key))))
    }

    /// All endpoints.
    pub fn endpoints(&self) -> Result<Vec<EndpointView>, ClientError> {
        self.json(Call::get("/v1/endpoints"))
    }

    /// One endpoint, by `TENANT/NAME`.
    pub fn endpoint(&self, key: &str) -> Result<EndpointView, ClientError> {
        self.json(Call::get(format!("/v1/endpoints/{}", escaped_key(key))))
    }

    /// Deletes one endpoint, by `TENANT/NAME`.
    pub fn delete_endpoint(&self, key: &str) -> Result<ApplyResponse, ClientError> {
        self.json(Call::new(Method::DELETE, format!("/v1/endpoints/{}", escaped_key(key))))
    }

    /// All policies, or those of one tenant.
    pub fn policies(&self, tenant: Option<&str>) -> Result<Vec<PolicyView>, ClientError> {
        self.json(Call::get(format!("/v1/policies{}", of(tenant))))
    }

    /// One policy, by `TENANT/NAMESPACE/NAME`.
    pub fn policy(&self, key: &str) -> Result<PolicyView, ClientError> {
        self.json(Call::get(format!("/v1/policies/{}", escaped_key(key))))
    }

    /// Deletes one policy, by `TENANT/NAMESPACE/NAME`.
    pub fn delete_policy(&self, key: &str) -> Result<ApplyResponse, ClientError> {
        self.json(Call::new(Method::DELETE, format!("/v1/policies/{}", escaped_key(key))))
    }

    /// What would become of a packet.
    pub fn test_policy(&self, request: &PolicyTestRequest) -> Result<PolicyTestResponse, ClientError> {
        self.json(Call::post("/v1/policies/test", request)?)
    }

    /// All identities, or those of one tenant.
    pub fn identities(&self, tenant: Option<&str>) -> Result<Vec<IdentityView>, ClientError> {
        self.json(Call::get(format!("/v1/identities{}", of(tenant))))
    }

    /// What did not pass at the ports of endpoints, or of one tenant's.
    pub fn flows(&self, tenant: Option<&str>) -> Result<Vec<FlowView>, ClientError> {
        self.json(Call::get(format!("/v1/flows{}", of(tenant))))
    }

    /// How the daemon is.
    pub fn status(&self) -> Result<DaemonStatus, ClientError> {
        self.json(Call::get("/v1/status"))
    }

    /// Looks the host over.
    pub fn doctor(&self) -> Result<Vec<Check>, ClientError> {
        self.json(Call::get("/v1/doctor"))
    }

    /// The sockets of one tenant, or all that the caller may see.
    pub fn sockets(&self, tenant: Option<&str>) -> Result<Vec<SocketView>, ClientError> {
        self.json(Call::get(format!("/v1/sockets{}", of(tenant))))
    }

    /// The processes and threads of one tenant, or all that the caller may see.
    pub fn processes(&self, tenant: Option<&str>) -> Result<Vec<TaskView>, ClientError> {
        self.json(Call::get(format!("/v1/processes{}", of(tenant))))
    }

    /// One process.
    pub fn process(&self, pid: u32) -> Result<TaskView, ClientError> {
        self.json(Call::get(format!("/v1/processes/{pid}")))
    }

    /// Gives the caller's network namespace an interface on a group's segment.
    pub fn join(&self, request: &JoinRequest) -> Result<OverlayView, ClientError> {
        self.json(Call::post("/v1/overlays", request)?)
    }

    /// Takes such an interface away.
    pub fn leave(&self, device: &str) -> Result<OverlayView, ClientError> {
        self.json(Call::new(Method::DELETE, format!("/v1/overlays/{}", escaped(device))))
    }

    /// The caller's interfaces on segments; all of them for who may see everything.
    pub fn overlays(&self) -> Result<Vec<OverlayView>, ClientError> {
        self.json(Call::get("/v1/overlays"))
    }

    /// What was counted for all segments; for who may see everything.
    pub fn overlay_counters(&self) -> Result<OverlayCounters, ClientError> {
        self.json(Call::get("/v1/overlay-counters"))
    }

    /// Whom an alias of a UDP sender stands for.
    pub fn alias(&self, alias: std::net::IpAddr) -> Result<AliasView, ClientError> {
        self.json(Call::get(format!("/v1/aliases/{alias}")))
    }

    /// Where the tenant's number stands in marks.
    pub fn field(&self) -> Result<FieldView, ClientError> {
        self.json(Call::get("/v1/marks"))
    }

    /// The same, once something is newer than `seen`, or at once without that; with what to give the next time.
    pub fn field_since(&self, seen: Option<Revision>) -> Result<(FieldView, Revision), ClientError> {
        let query = seen.map(|seen| format!("?since={}", seen.0)).unwrap_or_default();
        self.revised(Call::get(format!("/v1/marks{query}")))
    }

    /// Moves it, or says where it would go.
    pub fn move_field(&self, request: &MoveRequest) -> Result<MoveResponse, ClientError> {
        self.json(Call::post("/v1/marks/move", request)?)
    }

    /// Reads the documents in the configuration directory again.
    pub fn reload(&self) -> Result<ApplyResponse, ClientError> {
        self.json(Call::new(Method::POST, "/v1/reload"))
    }

    /// The OpenAPI document of this API.
    pub fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.json(Call::get("/openapi.json"))
    }

    fn listing(&self, call: Call) -> Result<Listing, ClientError> {
        let (tenants, revision) = self.revised(call)?;
        Ok(Listing { tenants, revision })
    }

    /// An answer with the revision at which it was made.
    fn revised<T: DeserializeOwned>(&self, call: Call) -> Result<(T, Revision), ClientError> {
        let answer = self.send(&call)?;
        let revision = answer.header(REVISION_HEADER).and_then(|text| text.parse().ok()).map(Revision);
        let revision = revision.ok_or_else(|| ClientError::NoRevision { call: call.to_string() })?;
        Ok((answer.json(&call)?, revision))
    }

    fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        self.send(&call)?.json(&call)
    }

    fn send(&self, call: &Call) -> Result<Answer, ClientError> {
        self.runtime.block_on(async {
            let sent = tokio::time::timeout(PATIENCE, wire::send(&self.socket, call));
            sent.await
                .unwrap_or_else(|_| Err(ClientError::Silent { call: call.to_string(), after: PATIENCE }))
        })
    }
}

/// The query for what is one tenant's.
fn of(tenant: Option<&str>) -> String {
    tenant.map(|name| format!("?tenant={}", escaped(name))).unwrap_or_default()
}

/// `TENANT/NAME` as two segments of a path.
fn escaped_key(key: &str) -> String {
    key.split('/').map(escaped).collect::<Vec<_>>().join("/")
}

/// `text` as one segment of a path or one value of a query (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
