//! The gate of guarded sockets, a program that comes first where packets leave by a network card.
//!
//! It is attached to the card itself (BPF_PROG_ATTACH with tcx, Linux 6.6) and not by a link: a link ends with its last
//! descriptor or pin, and the sockets it is there for last longer than a daemon.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::programs::tc::{SchedClassifier, TcAttachType};
use aya_obj::generated::{bpf_attach_type, bpf_cmd};

use crate::{chain, syscall};

/// The program's name.
pub(super) const NAME: &str = "segment_gate";

/// In front of all others (linux/bpf.h).
const BPF_F_BEFORE: u32 = 8;

/// BPF_PROG_ATTACH's and BPF_PROG_DETACH's part of `union bpf_attr`, for tcx.
#[repr(C)]
struct Attr {
    target_ifindex: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    relative_fd: u32,
    expected_revision: u64,
}

/// Attaches the program, and takes away those of its name that were there before. Says whether there were none.
pub(super) fn attach(program: BorrowedFd<'_>, device: &str, index: u32) -> Result<bool, String> {
    let (_, before) = SchedClassifier::query_tcx(device, TcAttachType::Egress).map_err(|e| chain(&e))?;
    match syscall::call(bpf_cmd::BPF_PROG_ATTACH, &attr(program, index, BPF_F_BEFORE)) {
        Ok(_) => {}
        // It is ours already.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error.to_string()),
    }
    let mut is_first = true;
    for old in before.iter().filter(|old| old.name_as_str() == Some(NAME)) {
        let fd = old.fd().map_err(|e| chain(&e))?;
        detach(fd.as_fd(), index).map_err(|e| e.to_string())?;
        is_first = false;
    }
    Ok(is_first)
}

/// Takes the program away.
pub(super) fn detach(program: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    syscall::call(bpf_cmd::BPF_PROG_DETACH, &attr(program, index, 0)).map(drop)
}

fn attr(program: BorrowedFd<'_>, index: u32, flags: u32) -> Attr {
    Attr {
        target_ifindex: index,
        attach_bpf_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: bpf_attach_type::BPF_TCX_EGRESS as u32,
        attach_flags: flags,
        replace_bpf_fd: 0,
        relative_fd: 0,
        expected_revision: 0,
    }
}
