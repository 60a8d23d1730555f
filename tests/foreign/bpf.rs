//! A stranger's tcx program: two instructions, loaded and attached without any library (bpf(2)).

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use fief_testkit::Ns;

const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// `r0 = TCX_NEXT; exit`: lets everything through to whoever comes next.
const PROGRAM: [u64; 2] = [0xffff_ffff_0000_00b7, 0x0000_0000_0000_0095];

/// The head of `union bpf_attr` for BPF_PROG_LOAD, up to the name.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct Link {
    program: u32,
    device: u32,
    kind: u32,
    flags: u32,
    rest: [u64; 6],
}

/// Strangers on both directions of a device; they go when this is dropped.
pub struct Strangers(Vec<OwnedFd>);

impl Strangers {
    /// Attaches them.
    pub fn on(ns: &Ns, device: &str) -> io::Result<Strangers> {
        let index = ns.ifindex(device);
        ns.enter(|| {
            let program = load()?;
            let links = [TCX_INGRESS, TCX_EGRESS].map(|kind| attach(&program, index, kind));
            Ok(Strangers(links.into_iter().collect::<io::Result<_>>()?))
        })
    }

    /// Are both still attached where they were? (`ifindex` of a link becomes 0 when it is detached.)
    pub fn attached(&self) -> bool {
        self.0.iter().all(|link| {
            let path = format!("/proc/self/fdinfo/{}", link.as_raw_fd());
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let index = text.lines().find_map(|line| line.strip_prefix("ifindex:"));
            index.is_some_and(|index| index.trim() != "0")
        })
    }
}

fn load() -> io::Result<OwnedFd> {
    // SAFETY: the attribute is plain integers, for which zeros are a value.
    let mut attribute: Load = unsafe { zeroed() };
    attribute.kind = SCHED_CLS;
    attribute.count = PROGRAM.len() as u32;
    attribute.instructions = PROGRAM.as_ptr() as u64;
    attribute.license = c"GPL".as_ptr() as u64;
    attribute.name[..8].copy_from_slice(b"stranger");
    bpf(PROG_LOAD, &attribute)
}

fn attach(program: &OwnedFd, device: u32, kind: u32) -> io::Result<OwnedFd> {
    bpf(LINK_CREATE, &Link { program: program.as_raw_fd() as u32, device, kind, flags: 0, rest: [0; 6] })
}

fn bpf<T>(command: libc::c_long, attribute: &T) -> io::Result<OwnedFd> {
    // SAFETY: the pointer and size are those of a live attribute; the pointers in it are to statics.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>() as libc::c_uint)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
