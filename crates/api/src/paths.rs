//! Where things are, and how `--root DIR` moves all of them.

use std::path::{Path, PathBuf};

/// Names of tenants' network namespaces begin so.
pub const NAMESPACE: &str = "fief-";

/// The places of one daemon. Without a root these are the system's own (hier(7)); with `--root DIR` every one of
/// them lies below DIR, so that tests and demonstrations run beside a real daemon.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The places below `root`, or the system's own.
    pub fn new(root: Option<&Path>) -> Paths {
        Paths { root: root.map_or_else(|| PathBuf::from("/"), Path::to_path_buf) }
    }

    /// Is this the system's own daemon?
    pub fn is_system(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The API's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.run().join("fiefd.sock")
    }

    /// What lasts until the next boot.
    pub fn run(&self) -> PathBuf {
        self.root.join("run/fief")
    }

    /// Where sockets inside tenants' namespaces are asked for.
    pub fn sockets(&self) -> PathBuf {
        self.root.join("run/fief/sockets.sock")
    }

    /// The network namespace that the overlay's devices are in. Nobody is meant to enter it, so it is not among those
    /// that have names.
    pub fn overlay(&self) -> PathBuf {
        self.run().join("overlay/net")
    }

    /// Durable state.
    pub fn state(&self) -> PathBuf {
        self.root.join("var/lib/fief")
    }

    /// Documents read at boot and on reload, and `fiefd.yaml`.
    pub fn config(&self) -> PathBuf {
        self.root.join("etc/fief")
    }

    /// Where tenants' network namespaces have their names (ip-netns(8)).
    pub fn namespaces(&self) -> PathBuf {
        self.root.join("run/netns")
    }

    /// A tenant's network namespace.
    pub fn namespace_of(&self, tenant: &str) -> PathBuf {
        self.namespaces().join(format!("{NAMESPACE}{tenant}"))
    }

    /// The bpf file system that holds our pins.
    pub fn bpffs(&self) -> PathBuf {
        self.root.join("sys/fs/bpf")
    }
}
