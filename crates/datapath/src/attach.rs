//! Links: where a program sits, and the pin that keeps it there.
//!
//! A pin's name says what it is: `PROGRAM-PLACE-DIGEST`, the place being a device index or a control group's inode
//! and the digest that of the program bytes and settings. A pin with our digest whose program is really attached is
//! adopted; any other one of the same program and place goes after its successor sits.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::{CgroupAttachMode, FdLink, LinkOrder};
use aya::programs::tc::{SchedClassifier, TcAttachOptions, TcAttachType};
use aya::programs::{CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, Program, ProgramError, SockOps};

use crate::{DatapathError, chain};

/// A device to attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name now.
    pub name: String,
}

/// The loopback device's index in every network namespace.
const LOOPBACK: u32 = 1;

pub(crate) fn load_all(programs: &mut Ebpf) -> Result<(), DatapathError> {
    for (name, program) in programs.programs_mut() {
        let loaded = match program {
            Program::SchedClassifier(p) => p.load(),
            Program::CgroupSockAddr(p) => p.load(),
            Program::CgroupSkb(p) => p.load(),
            Program::SockOps(p) => p.load(),
            _ => continue,
        };
        loaded.map_err(|e| DatapathError::Load(format!("{name}: {}", chain(&e))))?;
    }
    Ok(())
}

pub(crate) fn devices(
    programs: &mut Ebpf,
    links: &Path,
    digest: &str,
    devices: &[Device],
) -> Vec<DatapathError> {
    let mut errors = Vec::new();
    let mut wanted = HashSet::new();
    let lo = Device { index: LOOPBACK, name: "lo".into() };
    let places = devices
        .iter()
        .flat_map(|d| [("wire_ingress", TcAttachType::Ingress, d), ("wire_egress", TcAttachType::Egress, d)])
        .chain([("lo_ingress", TcAttachType::Ingress, &lo)]);
    for (program, direction, device) in places {
        let pin = format!("{program}-{}-{digest}", device.index);
        match classifier(programs, links, program, direction, device, &pin) {
            Ok(()) => drop(wanted.insert(pin)),
            Err(error) => errors.push(error),
        }
    }
    let of_devices = ["wire_ingress-", "wire_egress-", "lo_ingress-"];
    unpin_others(links, |name| of_devices.iter().any(|p| name.starts_with(p)), &wanted);
    errors
}

fn classifier(
    programs: &mut Ebpf,
    links: &Path,
    name: &'static str,
    direction: TcAttachType,
    device: &Device,
    pin: &str,
) -> Result<(), DatapathError> {
    let failed = |error: String| DatapathError::Attach { program: name, place: device.name.clone(), error };
    let program: &mut SchedClassifier = programs
        .program_mut(name)
        .and_then(|p| p.try_into().ok())
        .ok_or_else(|| failed("not in the object".into()))?;
    let path = links.join(pin);
    if path.exists() && is_attached(program, direction, device) {
        return Ok(());
    }
    let _ = std::fs::remove_file(&path);
    // Inward we come first, so that whoever marks after us sees the tenant; outward last, so that nobody changes
    // the mark behind our check.
    let order = match direction {
        TcAttachType::Egress => LinkOrder::last(),
        _ => LinkOrder::first(),
    };
    let id = program
        .attach_with_options(&device.name, direction, TcAttachOptions::TcxOrder(order))
        .map_err(|e| failed(chain(&e)))?;
    let link = program.take_link(id).map_err(|e| failed(chain(&e)))?;
    let link: FdLink = link.try_into().map_err(|e: aya::programs::links::LinkError| failed(chain(&e)))?;
    link.pin(&path).map_err(|e| failed(chain(&e)))?;
    Ok(())
}

/// Is a program with our tag and name among those on the device? Somebody may have detached a link that is
/// still pinned.
fn is_attached(program: &SchedClassifier, direction: TcAttachType, device: &Device) -> bool {
    let Ok(ours) = program.info() else { return false };
    let Ok((_, there)) = SchedClassifier::query_tcx(&device.name, direction) else { return false };
    there.iter().any(|p| p.tag() == ours.tag() && p.name() == ours.name())
}

pub(crate) fn cgroup(
    programs: &mut Ebpf,
    links: &Path,
    digest: &str,
    path: &Path,
    cgroup: BorrowedFd<'_>,
) -> Result<(), DatapathError> {
    let inode = std::fs::metadata(path).map(|m| m.ino()).unwrap_or(0);
    let mut wanted = HashSet::new();
    for name in ["connect4", "connect6", "sendmsg4", "sendmsg6", "accepted", "on_receive"] {
        let pin = format!("{name}-{inode}-{digest}");
        let at = links.join(&pin);
        wanted.insert(pin);
        if at.exists() {
            continue;
        }
        let failed =
            |error: String| DatapathError::Attach { program: name, place: path.display().to_string(), error };
        let program = programs.program_mut(name).ok_or_else(|| failed("not in the object".into()))?;
        let link = attach_cgroup(program, cgroup).map_err(|e| failed(chain(&*e)))?;
        link.pin(&at).map_err(|e| failed(chain(&e)))?;
    }
    let of_cgroups = ["connect", "sendmsg", "accepted-", "on_receive-"];
    unpin_others(links, |name| of_cgroups.iter().any(|p| name.starts_with(p)), &wanted);
    Ok(())
}

fn attach_cgroup(
    program: &mut Program,
    cgroup: BorrowedFd<'_>,
) -> Result<FdLink, Box<dyn std::error::Error>> {
    // A bpf link sits beside whatever else is attached there; `Single` only says that no flag is set.
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSockAddr(p) => {
            let id = CgroupSockAddr::attach(p, cgroup, mode)?;
            Ok(p.take_link(id)?.try_into()?)
        }
        Program::CgroupSkb(p) => {
            let id = CgroupSkb::attach(p, cgroup, CgroupSkbAttachType::Ingress, mode)?;
            Ok(p.take_link(id)?.try_into()?)
        }
        Program::SockOps(p) => {
            let id = SockOps::attach(p, cgroup, mode)?;
            Ok(p.take_link(id)?.try_into()?)
        }
        _ => Err(Box::new(ProgramError::UnexpectedProgramType)),
    }
}

/// Removes the pins of one kind that are not wanted: their links detach.
pub(crate) fn unpin_others(links: &Path, is_of_kind: impl Fn(&str) -> bool, wanted: &HashSet<String>) {
    for (name, path) in pins(links) {
        if is_of_kind(&name) && !wanted.contains(&name) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn pins(links: &Path) -> Vec<(String, std::path::PathBuf)> {
    let entries = std::fs::read_dir(links).into_iter().flatten().flatten();
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect()
}
