//! bpf(2) itself, for programs that the kernel runs on a frame (BPF_PROG_TEST_RUN) and for small ones made by hand.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_PROG_QUERY: libc::c_long = 16;

/// The part of `union bpf_attr` for test runs.
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// What a run found.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// What the program said, the last time.
    pub answer: i32,
    /// Nanoseconds, once.
    pub took: f64,
}

/// Has the kernel run a program on a frame, as often as is wished. The context is the one of the program's kind, in bytes
/// (linux/bpf.h); flags are BPF_F_TEST_*.
pub fn test_run(
    program: &impl AsFd,
    frame: &[u8],
    context: &[u8],
    repeat: u32,
    flags: u32,
) -> io::Result<Ran> {
    // SAFETY: plain C data, for which all zeroes is a value.
    let mut attr: TestRun = unsafe { zeroed() };
    attr.prog_fd = program.as_fd().as_raw_fd() as u32;
    (attr.data_in, attr.data_size_in) = (frame.as_ptr() as u64, frame.len() as u32);
    (attr.ctx_in, attr.ctx_size_in) = (context.as_ptr() as u64, context.len() as u32);
    (attr.repeat, attr.flags) = (repeat, flags);
    call(BPF_PROG_TEST_RUN, (&raw mut attr).cast(), size_of::<TestRun>())?;
    Ok(Ran { answer: attr.retval.cast_signed(), took: f64::from(attr.duration) })
}

/// The first program where packets come in by a device of the thread's network namespace (tcx); `None` if there is none.
pub fn first_at(device: u32) -> io::Result<Option<OwnedFd>> {
    const BPF_TCX_INGRESS: u32 = 46;
    const MOST: u32 = 64;
    /// The part of `union bpf_attr` for queries.
    #[repr(C)]
    struct Query {
        target_ifindex: u32,
        attach_type: u32,
        flags: [u32; 2],
        prog_ids: u64,
        count: u32,
        pad: u32,
        more: [u64; 4],
    }
    let mut ids = [0_u32; MOST as usize];
    let mut attr = Query {
        target_ifindex: device,
        attach_type: BPF_TCX_INGRESS,
        flags: [0; 2],
        prog_ids: ids.as_mut_ptr() as u64,
        count: MOST,
        pad: 0,
        more: [0; 4],
    };
    call(BPF_PROG_QUERY, (&raw mut attr).cast(), size_of::<Query>())?;
    match ids[0] {
        0 => Ok(None),
        id => descriptor(BPF_PROG_GET_FD_BY_ID, &mut [id, 0, 0, 0]).map(Some),
    }
}

/// A command that answers with a new descriptor.
pub(crate) fn descriptor<A>(command: libc::c_long, attr: &mut A) -> io::Result<OwnedFd> {
    let fd = call(command, std::ptr::from_mut(attr).cast(), size_of::<A>())?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn call(command: libc::c_long, attr: *mut libc::c_void, size: usize) -> io::Result<libc::c_long> {
    // SAFETY: the pointer is to a live `union bpf_attr` of this size, and what it points to lives as long.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}
