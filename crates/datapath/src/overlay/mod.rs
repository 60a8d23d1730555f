//! The programs of the overlay's fast path (bpf/overlay.bpf.c) and their maps.
//!
//! Those at the underlay's device are tcx links with pins; those in the overlay's namespace are classifiers, which go with
//! their device. The maps are pinned: a new daemon goes on with them, and what they have learned.

pub mod maps;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;
use aya::{Ebpf, EbpfLoader};

use crate::attach::{classifier, unpin_others};
use crate::{DatapathError, Device, chain, digest, directory, remove_others};
use maps::Maps;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/overlay.bpf.o"));
/// What the maps look like; another text means other maps.
static ABI: &str = include_str!("../../bpf/lib/overlay.h");
/// The programs at the underlay's device.
const AT_UNDERLAY: [(&str, TcAttachType); 2] =
    [("underlay_in", TcAttachType::Ingress), ("underlay_out", TcAttachType::Egress)];

/// The programs in the overlay's namespace.
#[derive(Debug, Clone)]
pub struct Inside {
    /// At a port, for what its user sends.
    pub from_port: Arc<OwnedFd>,
    /// At the vxlan device of IPv4, for what other hosts send.
    pub from_wire4: Arc<OwnedFd>,
    /// At that of IPv6.
    pub from_wire6: Arc<OwnedFd>,
    /// At the gate, for what the program at the underlay's device has unpacked.
    pub from_gate: Arc<OwnedFd>,
    /// At its other end, for what the program at a port has packed.
    pub to_card: Arc<OwnedFd>,
}

/// The programs, loaded, with their maps.
pub struct Overlay {
    programs: Ebpf,
    maps: Maps,
    links: PathBuf,
    digest: String,
}

impl Overlay {
    /// Loads and verifies the programs and opens their maps, making those that are not pinned yet. Attaches nothing.
    ///
    /// `pins` is a directory on a bpf file system; it is made if missing. An Ethernet address that was silent for `age` is asked
    /// for again.
    pub fn load(pins: &Path, age: Duration) -> Result<Overlay, DatapathError> {
        let maps = pins.join(format!("maps-{}", digest(&[ABI.as_bytes()])));
        let links = pins.join("links");
        [&maps, &links].into_iter().try_for_each(|path| directory(path))?;
        #[cfg(feature = "teeth")]
        let teeth = teeth();
        #[cfg(not(feature = "teeth"))]
        let teeth = 0_u32;
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let mut loader = EbpfLoader::new();
        loader
            .default_map_pin_directory(&maps)
            .override_global("fief_overlay_teeth", &teeth, true)
            .override_global("fief_overlay_age", &age, true);
        let mut programs = loader.load(OBJECT).map_err(|e| DatapathError::Load(chain(&e)))?;
        for (name, program) in programs.programs_mut() {
            let failed = |e: &dyn std::error::Error| DatapathError::Load(format!("{name}: {}", chain(e)));
            let program: &mut SchedClassifier = program.try_into().map_err(|e| failed(&e))?;
            program.load().map_err(|e| failed(&e))?;
        }
        let opened = Maps::open(&mut programs)?;
        remove_others(pins, "maps-", &format!("maps-{}", digest(&[ABI.as_bytes()])));
        let digest = digest(&[OBJECT, &teeth.to_ne_bytes(), &age.to_ne_bytes()]);
        Ok(Overlay { programs, maps: opened, links, digest })
    }

    /// The maps.
    pub fn maps(&mut self) -> &mut Maps {
        &mut self.maps
    }

    /// The maps, to look at.
    pub fn tables(&self) -> &Maps {
        &self.maps
    }

    /// The programs for the overlay's namespace.
    pub fn inside(&self) -> Result<Inside, DatapathError> {
        Ok(Inside {
            from_port: self.program("from_port")?,
            from_wire4: self.program("from_wire4")?,
            from_wire6: self.program("from_wire6")?,
            from_gate: self.program("from_gate")?,
            to_card: self.program("to_card")?,
        })
    }

    /// Attaches the programs of the underlay to this device of the calling thread's network namespace, and to no other;
    /// adopts them where they are.
    pub fn attach(&mut self, device: &Device) -> Result<(), DatapathError> {
        let mut wanted = std::collections::HashSet::new();
        for (name, direction) in AT_UNDERLAY {
            let pin = format!("{name}-{}-{}", device.index, self.digest);
            classifier(&mut self.programs, &self.links, name, direction, device, &pin)?;
            wanted.insert(pin);
        }
        unpin_others(&self.links, |_| true, &wanted);
        Ok(())
    }

    fn program(&self, name: &str) -> Result<Arc<OwnedFd>, DatapathError> {
        let failed = |e: &dyn std::error::Error| DatapathError::Load(format!("{name}: {}", chain(e)));
        let absent = || DatapathError::Load(format!("no {name}"));
        let program: &SchedClassifier =
            self.programs.program(name).ok_or_else(absent)?.try_into().map_err(|e| failed(&e))?;
        let descriptor = program.fd().map_err(|e| failed(&e))?.as_fd().try_clone_to_owned();
        descriptor.map(Arc::new).map_err(|e| failed(&e))
    }
}

/// The protection that `FIEF_TEETH` names, as a bit: TOOTH_* of the programs.
#[cfg(feature = "teeth")]
fn teeth() -> u32 {
    const NAMES: [&str; 11] = [
        "overlay-goodbye",
        "overlay-segment",
        "overlay-macs",
        "overlay-rate",
        "overlay-port",
        "overlay-local",
        "overlay-goodbyes",
        "overlay-expiry",
        "overlay-header",
        "overlay-filter",
        "overlay-unheard",
    ];
    let Ok(named) = std::env::var("FIEF_TEETH") else { return 0 };
    NAMES.iter().enumerate().map(|(position, name)| if *name == named { 1 << position } else { 0 }).sum()
}
