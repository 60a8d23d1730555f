//! A socket made in another control group than ours: a socket keeps the one of the process that made it (cgroup_sk_alloc in
//! kernel/cgroup/cgroup.c), and there is no option that changes it. So a child goes there, makes it, and ends.
//!
//! The child has our memory and our descriptors (CLONE_VM, CLONE_FILES), and the calling thread waits for its end
//! (CLONE_VFORK), as posix_spawn(3) does it: nothing is copied, and the socket is ours when the call returns. It is a process
//! of its own nevertheless, so that it can be moved alone: threads move with their process, unless the whole tree is threaded.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType};

/// Two system calls need less; a page is left for a signal that cannot be blocked.
const STACK: usize = 64 << 10;

/// What the child is to do, and what came of it: a descriptor, or an error's number below zero.
struct Task {
    procs: c_int,
    family: c_int,
    kind: c_int,
    result: c_int,
}

/// Makes a socket as a process of the control group whose `cgroup.procs` this is, in the calling thread's network namespace.
pub fn socket(procs: BorrowedFd<'_>, family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    let mut task = Task {
        procs: procs.as_raw_fd(),
        family: family.as_raw().into(),
        kind: kind.as_raw().cast_signed() | libc::SOCK_CLOEXEC,
        result: -libc::EAGAIN,
    };
    // Of words of 16 bytes: a stack is aligned so.
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    let blocked = Blocked::all()?;
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_VFORK;
    // SAFETY: the child runs `child` on a stack of its own, which lives until it has ended, because CLONE_VFORK holds this
    // thread until then; so does `task`. It makes system calls only, and no handler of a signal runs in it.
    let child = unsafe {
        let top = stack.as_mut_ptr_range().end;
        libc::clone(child, top.cast(), flags, (&raw mut task).cast())
    };
    let cloned = if child < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    drop(blocked);
    cloned?;
    reap(child);
    if task.result < 0 {
        return Err(io::Error::from_raw_os_error(-task.result));
    }
    // SAFETY: the child has just made this descriptor in our table, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(task.result) })
}

extern "C" fn child(task: *mut c_void) -> c_int {
    // SAFETY: `socket` passes its Task, which nobody else touches while the child runs.
    let task = unsafe { &mut *task.cast::<Task>() };
    // SAFETY: "0", one byte, is whoever writes it; the numbers are those of a descriptor and of a socket's kind. errno is the
    // waiting thread's, which looks at it after clone(2) only.
    unsafe {
        task.result = if libc::write(task.procs, c"0".as_ptr().cast(), 1) == 1 {
            libc::socket(task.family, task.kind, 0)
        } else {
            -1
        };
        if task.result < 0 {
            task.result = -*libc::__errno_location();
        }
        libc::_exit(0)
    }
}

fn reap(child: c_int) {
    // SAFETY: no status is asked for. The child ended before clone(2) returned; it sends no signal at its end, which is what
    // __WALL is for.
    while unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::__WALL) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// All signals, kept from the calling thread while this lives: a child would run our handlers in our memory.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> io::Result<Blocked> {
        // SAFETY: sigset_t is plain data, and sigfillset and pthread_sigmask fill what they are given.
        let (error, before) = unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            (libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before), before)
        };
        if error == 0 { Ok(Blocked(before)) } else { Err(io::Error::from_raw_os_error(error)) }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is the one that the thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}
