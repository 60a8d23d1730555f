//! Links: where a program sits, and the pin that keeps it there.
//!
//! A pin's name says what it is: `PROGRAM-PLACE-DIGEST`, the place being a device index or a control group's inode
//! and the digest that of the program bytes and settings. A pin with our digest whose program is really attached is
//! adopted; a link of the same program and place with another digest gets the new program in place of the old one, so
//! that nothing is seen twice, or by neither. Where the kernel cannot do that, the old one goes after its successor sits.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::programs::links::{CgroupAttachMode, FdLink, LinkOrder};
use aya::programs::tc::{SchedClassifier, TcAttachOptions, TcAttachType};
use aya::programs::{
    BtfTracePoint, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, Program, ProgramError,
    ProgramFd, SkLookup, SockOps,
};
use aya::{Btf, Ebpf};

use aya_obj::generated::bpf_attach_type;

use crate::{DatapathError, chain, syscall};

/// A device to attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name now.
    pub name: String,
}

/// The programs that sit at a control group.
const OF_CGROUPS: [&str; 16] = [
    "on_create",
    "on_setsockopt",
    "on_getsockopt",
    "bind4",
    "bind6",
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "after_bind4",
    "after_bind6",
    "on_release",
    "getsockname4",
    "getsockname6",
    "on_listen",
    "on_receive",
];

/// The loopback device's index in every network namespace.
const LOOPBACK: u32 = 1;

pub(crate) fn load_all(programs: &mut Ebpf, kernel: &Btf) -> Result<(), DatapathError> {
    // First the one that a kernel may refuse for want of task storage: then the rest is not verified in vain.
    const TELLS: &str = "on_create";
    let (tells, others): (Vec<_>, Vec<_>) = programs.programs_mut().partition(|(name, _)| *name == TELLS);
    for (name, program) in tells.into_iter().chain(others) {
        let loaded = match program {
            Program::SchedClassifier(p) => p.load(),
            Program::CgroupSockAddr(p) => p.load(),
            Program::CgroupSkb(p) => p.load(),
            Program::SockOps(p) => p.load(),
            Program::CgroupSock(p) => p.load(),
            Program::CgroupSockopt(p) => p.load(),
            Program::SkLookup(p) => p.load(),
            Program::BtfTracePoint(p) => p.load("sched_process_fork", kernel),
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

pub(crate) fn classifier(
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
    if let Some(predecessor) = predecessor(links, &format!("{name}-{}-", device.index))
        && succeed(&predecessor, program.fd().ok(), &path)
        && is_attached(program, direction, device)
    {
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

/// Attaches to the tracepoint of forks, which is one for the whole machine.
pub(crate) fn forks(programs: &mut Ebpf, links: &Path, digest: &str) -> Result<(), DatapathError> {
    let pin = format!("on_fork-{digest}");
    let at = links.join(&pin);
    if !at.exists() {
        let failed = |error: String| DatapathError::Attach {
            program: "on_fork",
            place: "sched_process_fork".into(),
            error,
        };
        let program: &mut BtfTracePoint = programs
            .program_mut("on_fork")
            .and_then(|p| p.try_into().ok())
            .ok_or_else(|| failed("not in the object".into()))?;
        let id = program.attach().map_err(|e| failed(chain(&e)))?;
        let link = program.take_link(id).map_err(|e| failed(chain(&e)))?;
        let link: FdLink = link.into();
        link.pin(&at).map_err(|e| failed(chain(&e)))?;
    }
    unpin_others(links, |name| name.starts_with("on_fork-"), &HashSet::from([pin]));
    Ok(())
}

/// Attaches to the calling thread's network namespace.
pub(crate) fn lookup(programs: &mut Ebpf, links: &Path, digest: &str) -> Result<(), DatapathError> {
    let pin = format!("on_lookup-{digest}");
    let at = links.join(&pin);
    if !at.exists() {
        const PLACE: &str = "/proc/thread-self/ns/net";
        let failed =
            |error: String| DatapathError::Attach { program: "on_lookup", place: PLACE.into(), error };
        let namespace = std::fs::File::open(PLACE).map_err(|e| failed(e.to_string()))?;
        let program: &mut SkLookup = programs
            .program_mut("on_lookup")
            .and_then(|p| p.try_into().ok())
            .ok_or_else(|| failed("not in the object".into()))?;
        let before = predecessor(links, "on_lookup-");
        if !before.is_some_and(|before| succeed(&before, program.fd().ok(), &at)) {
            let id = program.attach(namespace).map_err(|e| failed(chain(&e)))?;
            let link = program.take_link(id).map_err(|e| failed(chain(&e)))?;
            let link: FdLink = link.into();
            link.pin(&at).map_err(|e| failed(chain(&e)))?;
        }
    }
    unpin_others(links, |name| name.starts_with("on_lookup-"), &HashSet::from([pin]));
    Ok(())
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
    for name in OF_CGROUPS {
        let pin = format!("{name}-{inode}-{digest}");
        let at = links.join(&pin);
        wanted.insert(pin);
        if at.exists() {
            continue;
        }
        let failed =
            |error: String| DatapathError::Attach { program: name, place: path.display().to_string(), error };
        let program = programs.program_mut(name).ok_or_else(|| failed("not in the object".into()))?;
        let before = predecessor(links, &format!("{name}-{inode}-"));
        if before.is_some_and(|before| succeed(&before, program.fd().ok(), &at)) {
            continue;
        }
        attach_cgroup(name, program, cgroup, &at).map_err(|e| failed(chain(&*e)))?;
    }
    unpin_others(links, |name| OF_CGROUPS.iter().any(|p| name.starts_with(p)), &wanted);
    Ok(())
}

fn attach_cgroup(
    name: &str,
    program: &mut Program,
    cgroup: BorrowedFd<'_>,
    pin: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    // A bpf link sits beside whatever else is attached there; `Single` only says that no flag is set.
    let mode = CgroupAttachMode::Single;
    let link: FdLink = match program {
        Program::CgroupSockAddr(p) => {
            let id = CgroupSockAddr::attach(p, cgroup, mode)?;
            p.take_link(id)?.try_into()?
        }
        Program::CgroupSkb(p) => {
            let id = CgroupSkb::attach(p, cgroup, CgroupSkbAttachType::Ingress, mode)?;
            p.take_link(id)?.try_into()?
        }
        Program::CgroupSock(p) => {
            let id = CgroupSock::attach(p, cgroup, mode)?;
            p.take_link(id)?.try_into()?
        }
        Program::SockOps(p) => {
            let id = SockOps::attach(p, cgroup, mode)?;
            p.take_link(id)?.try_into()?
        }
        // aya 0.14 has no way from this kind of link to a pin.
        Program::CgroupSockopt(p) => {
            let kind = match name {
                "on_setsockopt" => bpf_attach_type::BPF_CGROUP_SETSOCKOPT,
                _ => bpf_attach_type::BPF_CGROUP_GETSOCKOPT,
            };
            let link = syscall::link(p.fd()?.as_fd(), Some(cgroup), kind)?;
            return Ok(syscall::pin(&link, pin)?);
        }
        _ => return Err(Box::new(ProgramError::UnexpectedProgramType)),
    };
    link.pin(pin)?;
    Ok(())
}

/// The pin of an earlier program of the same place; pins with our own digest have been looked for before.
fn predecessor(links: &Path, prefix: &str) -> Option<PathBuf> {
    pins(links).find(|(name, _)| name.starts_with(prefix)).map(|(_, path)| path)
}

/// Takes the place of an earlier program, and of its pin; says whether it did.
fn succeed(predecessor: &Path, program: Option<&ProgramFd>, pin: &Path) -> bool {
    let Some(program) = program else { return false };
    // The kernel refuses where the link's device or control group is gone.
    syscall::replace(predecessor, program.as_fd()).is_ok() && std::fs::rename(predecessor, pin).is_ok()
}

/// Removes the pins of one kind that are not wanted: their links detach.
pub(crate) fn unpin_others(links: &Path, is_of_kind: impl Fn(&str) -> bool, wanted: &HashSet<String>) {
    for (name, path) in pins(links) {
        if is_of_kind(&name) && !wanted.contains(&name) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn pins(links: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = std::fs::read_dir(links).into_iter().flatten().flatten();
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
}
