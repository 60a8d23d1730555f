//! The programs at the ports of networks' bridges (bpf/ports.bpf.c). They are in no link and on no pin: a port keeps its
//! programs, and they their maps, until it goes or gets others.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya::EbpfLoader;
use aya::programs::SchedClassifier;

use crate::{DatapathError, chain};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ports.bpf.o"));

/// Numbers of ports begin here; FIRST_PORT in bpf/ports.bpf.c.
pub const FIRST: u32 = 4096;
/// How many a tenant has. All ports of a host have numbers (ifindex) of their own, whatever namespace they are in, because
/// the programs know a port by its number.
pub const EACH: u32 = 4096;

/// The programs, loaded.
#[derive(Debug, Clone)]
pub struct Ports {
    /// For what comes in.
    pub ingress: Arc<OwnedFd>,
    /// For what goes out.
    pub egress: Arc<OwnedFd>,
}

impl Ports {
    /// Loads and verifies the programs, with new maps.
    pub fn load() -> Result<Ports, DatapathError> {
        let mut programs = EbpfLoader::new().load(OBJECT).map_err(|e| DatapathError::Load(chain(&e)))?;
        let mut take = |name: &str| -> Result<Arc<OwnedFd>, DatapathError> {
            let failed = |e: &dyn std::error::Error| DatapathError::Load(format!("{name}: {}", chain(e)));
            let absent = || DatapathError::Load(format!("no {name}"));
            let program = programs.program_mut(name).ok_or_else(absent)?;
            let program: &mut SchedClassifier = program.try_into().map_err(|e| failed(&e))?;
            program.load().map_err(|e| failed(&e))?;
            let descriptor = program.fd().map_err(|e| failed(&e))?.as_fd().try_clone_to_owned();
            descriptor.map(Arc::new).map_err(|e| failed(&e))
        };
        Ok(Ports { ingress: take("port_in")?, egress: take("port_out")? })
    }
}
