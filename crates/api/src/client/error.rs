//! Why a call did not bring what was asked for.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::ErrorBody;

/// Why a call failed. The text names the remedy where the client knows one; the daemon's own is in
/// [`ErrorBody::help`].
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error("fiefd is not running at {}: start it with `fiefd`, or name its --root", .0.display())]
    NotRunning(PathBuf),
    /// There is a socket and nobody behind it.
    #[error("fiefd is no longer running at {}: nobody answers there; start it again with `fiefd`, or name its --root", .0.display())]
    Stale(PathBuf),
    /// The caller may not open the socket or a directory above it.
    #[error("permission denied at {}: only root and members of the group `fief` or of a tenant may speak to fiefd", .0.display())]
    Denied(PathBuf),
    /// The socket's path is longer than a Unix socket address may be.
    #[error("{} is too long for a Unix socket (unix(7): 107 bytes): choose a shorter --root", .0.display())]
    TooLong(PathBuf),
    /// Connecting failed in another way.
    #[error("cannot connect to fiefd at {}: {source}", socket.display())]
    Connect {
        /// The daemon's socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection broke off.
    #[error("fiefd broke off {call}: {source}; its log says why")]
    Broken {
        /// Method and path.
        call: String,
        /// What went wrong on the wire.
        source: hyper::Error,
    },
    /// The daemon took too long.
    #[error("fiefd did not answer {call} within {} s; its log says what it is doing", after.as_secs())]
    Silent {
        /// Method and path.
        call: String,
        /// How long the client waited.
        after: Duration,
    },
    /// The daemon answered with something this client does not understand.
    #[error("cannot read fiefd's answer to {call}: {source}; are fief and fiefd of the same version?")]
    Answer {
        /// Method and path.
        call: String,
        /// Where the JSON went wrong.
        source: serde_json::Error,
    },
    /// A listing came without its revision.
    #[error("fiefd's answer to {call} has no revision; are fief and fiefd of the same version?")]
    NoRevision {
        /// Method and path.
        call: String,
    },
    /// The request cannot be written as JSON or HTTP.
    #[error("cannot write the request {call}: {reason}")]
    Request {
        /// Method and path.
        call: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The daemon said no.
    #[error("{}", body.error)]
    Api {
        /// HTTP status.
        status: u16,
        /// What it said.
        body: ErrorBody,
    },
    /// The client itself could not start.
    #[error("cannot start the client: {0}")]
    Runtime(io::Error),
}

impl ClientError {
    /// Is nobody there to answer?
    pub fn is_not_running(&self) -> bool {
        matches!(self, ClientError::NotRunning(_) | ClientError::Stale(_))
    }

    /// The HTTP status of an answer that was not a success.
    pub fn status(&self) -> Option<u16> {
        match self {
            ClientError::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Connecting to `socket` failed with `source`.
    pub(super) fn connect(socket: PathBuf, source: io::Error) -> ClientError {
        use io::ErrorKind::{ConnectionRefused, InvalidInput, NotADirectory, NotFound, PermissionDenied};
        match source.kind() {
            NotFound | NotADirectory => ClientError::NotRunning(socket),
            ConnectionRefused => ClientError::Stale(socket),
            PermissionDenied => ClientError::Denied(socket),
            InvalidInput => ClientError::TooLong(socket),
            _ => ClientError::Connect { socket, source },
        }
    }
}
