//! bpf(2) itself, for the few commands that aya 0.14 does not offer.

use std::cell::Cell;
use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{BPF_F_AFTER, BPF_F_BEFORE, bpf_attach_type, bpf_cmd};

/// BPF_OBJ_PIN's part of `union bpf_attr`.
#[repr(C)]
struct PinAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// BPF_LINK_CREATE's part of `union bpf_attr`, for what needs no more than this.
#[repr(C)]
struct LinkAttr {
    prog_fd: u32,
    /// Or the number of a device.
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Links a program to a control group, or, without one, to what its kind is for.
pub(crate) fn link(
    program: BorrowedFd<'_>,
    target: Option<BorrowedFd<'_>>,
    attach_type: bpf_attach_type,
) -> io::Result<OwnedFd> {
    let attr = LinkAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: target.map_or(0, |target| target.as_raw_fd().cast_unsigned()),
        attach_type: attach_type as u32,
        flags: 0,
    };
    descriptor(bpf_cmd::BPF_LINK_CREATE, &attr)
}

/// Links a program to a device of the calling thread's namespace (tcx), as the first one there or as the last. It is attached
/// as long as the link is held.
pub(crate) fn link_device(
    program: BorrowedFd<'_>,
    device: u32,
    attach_type: bpf_attach_type,
    is_first: bool,
) -> io::Result<OwnedFd> {
    // Beside no other program in particular, before is the beginning and after the end.
    let flags = if is_first { BPF_F_BEFORE } else { BPF_F_AFTER };
    let attr = LinkAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: device,
        attach_type: attach_type as u32,
        flags,
    };
    descriptor(bpf_cmd::BPF_LINK_CREATE, &attr)
}

/// Pins a link to a path on a bpf file system.
pub(crate) fn pin(link: &OwnedFd, at: &Path) -> io::Result<()> {
    let path = CString::new(at.as_os_str().as_bytes())?;
    let attr =
        PinAttr { pathname: path.as_ptr() as u64, bpf_fd: link.as_raw_fd().cast_unsigned(), file_flags: 0 };
    call(bpf_cmd::BPF_OBJ_PIN, &attr).map(drop)
}

/// BPF_LINK_UPDATE's part of `union bpf_attr`.
#[repr(C)]
struct UpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Puts another program into the place of the one that a pinned link holds: in one step, so that no packet or call meets
/// both, or none.
pub(crate) fn replace(pinned: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let path = CString::new(pinned.as_os_str().as_bytes())?;
    let attr = PinAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let link = descriptor(bpf_cmd::BPF_OBJ_GET, &attr)?;
    let attr = UpdateAttr {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_prog_fd: 0,
    };
    call(bpf_cmd::BPF_LINK_UPDATE, &attr).map(drop)
}

/// BPF_MAP_LOOKUP_BATCH's part of `union bpf_attr`.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    /// The kernel writes how many it gave.
    count: Cell<u32>,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Every value of an array of `length` numbers, in one call.
pub(crate) fn lookup_all(array: BorrowedFd<'_>, length: u32) -> io::Result<Vec<u32>> {
    let mut keys = vec![0_u32; length as usize];
    let mut values = keys.clone();
    let mut reached = 0_u32;
    let attr = BatchAttr {
        in_batch: 0,
        out_batch: (&raw mut reached) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: Cell::new(length),
        map_fd: array.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // The kernel says ENOENT when it has come to the end, and that is what is asked for.
    match call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &attr) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(values),
    }
}

/// A command that answers with a new descriptor.
pub(crate) fn descriptor<A>(command: bpf_cmd, attr: &A) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: the command just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Any command. `attr` is the beginning of `union bpf_attr` and holds only pointers that live until the call returns.
pub(crate) fn call<A>(command: bpf_cmd, attr: &A) -> io::Result<RawFd> {
    // SAFETY: `attr` is of the length that goes with it, and the kernel takes the rest of the union as zeroes; what it
    // points to the callers, all in this crate, keep alive.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command as u32, std::ptr::from_ref(attr), size_of::<A>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(answer).map_err(io::Error::other)
}
