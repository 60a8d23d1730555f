//! One request and its answer over the Unix socket.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::ClientError;
use crate::ErrorBody;

/// A request to be sent. Displayed as `POST /v1/apply`.
pub(super) struct Call {
    method: Method,
    path: String,
    body: Option<Bytes>,
}

/// An answer that was a success.
pub(super) struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    /// A request without a body.
    pub(super) fn new(method: Method, path: impl Into<String>) -> Call {
        Call { method, path: path.into(), body: None }
    }

    /// A `GET`.
    pub(super) fn get(path: impl Into<String>) -> Call {
        Call::new(Method::GET, path)
    }

    /// A `POST` with `body` as JSON.
    pub(super) fn post(path: &str, body: &impl Serialize) -> Result<Call, ClientError> {
        let mut call = Call::new(Method::POST, path);
        let json = serde_json::to_vec(body).map_err(|error| call.unwritable(error))?;
        call.body = Some(json.into());
        Ok(call)
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(&self.method).uri(&self.path).header(HOST, "fiefd");
        if self.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(self.body.clone().unwrap_or_default())).map_err(|error| self.unwritable(error))
    }

    fn unwritable(&self, reason: impl ToString) -> ClientError {
        ClientError::Request { call: self.to_string(), reason: reason.to_string() }
    }

    fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken { call: self.to_string(), source }
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body)
            .map_err(|source| ClientError::Answer { call: call.to_string(), source })
    }
}

/// Connects, asks, and reads the whole answer.
pub(super) async fn send(socket: &Path, call: &Call) -> Result<Answer, ClientError> {
    let request = call.request()?;
    let stream =
        UnixStream::connect(socket).await.map_err(|error| ClientError::connect(socket.into(), error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| call.broken(error))?;
    // The connection ends with `sender`; what goes wrong on it shows in the answer.
    tokio::spawn(connection);

    let (head, body) = sender.send_request(request).await.map_err(|error| call.broken(error))?.into_parts();
    let body = body.collect().await.map_err(|error| call.broken(error))?.to_bytes();
    if head.status.is_success() {
        Ok(Answer { headers: head.headers, body })
    } else {
        Err(ClientError::Api { status: head.status.as_u16(), body: complaint(head.status, &body) })
    }
}

/// The daemon's complaint; its framework answers some errors (an unknown path) with plain text.
fn complaint(status: StatusCode, body: &[u8]) -> ErrorBody {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(body);
        let said = if text.trim().is_empty() { "nothing more" } else { text.trim() };
        ErrorBody { error: format!("fiefd answered {status}: {said}"), help: None, diagnostics: Vec::new() }
    })
}
