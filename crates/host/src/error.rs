//! What can go wrong between us and the kernel.

/// A refused or failed request, with what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel refused a request.
    #[error("{what}: {source}{detail}")]
    Refused {
        /// What was asked, in words.
        what: String,
        /// The kernel's errno.
        source: std::io::Error,
        /// The kernel's own explanation (extended acknowledgement), with `: ` before it, or empty.
        detail: String,
    },
    /// The kernel sent faster than we read, or a dump was interrupted: what we know may be wrong; list again.
    #[error("the kernel's notifications overran; listing again")]
    Overrun,
    /// An answer that makes no sense.
    #[error("the kernel's answer to {0} could not be read")]
    Garbled(String),
    /// The host lacks something.
    #[error("{0}")]
    Missing(String),
}

impl HostError {
    /// A failed system call with what it was for.
    pub fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> HostError {
        HostError::Refused { what: what.into(), source: source.into(), detail: String::new() }
    }

    /// The errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            HostError::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
