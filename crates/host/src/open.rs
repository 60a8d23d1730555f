//! Sockets by the descriptors that processes have of them (pidfd_getfd(2), Linux 5.6): for what can only be done with a
//! descriptor, as setting the mark of a UDP socket of somebody else.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::net::{SocketAddrAny, getsockname, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::HostError;
use crate::kernel::{netns_cookie, network_namespace_cookie};

/// A socket that some process has open.
pub struct Open {
    fd: OwnedFd,
    /// Its mark.
    pub mark: u32,
    /// The address it is bound to; `None` if it is bound to none, or to every one.
    pub local: Option<IpAddr>,
}

/// Shows every open socket of the current thread's network namespace that has an Internet address family, or sends
/// packets, each once, but for TCP; `wanted` says which mark it shall have. Returns how many were changed.
///
/// What is on its way between processes, or known to io_uring only, is not seen.
pub fn remark(wanted: impl Fn(&Open) -> Option<u32>) -> Result<usize, HostError> {
    let ours = network_namespace_cookie()?;
    let (mut seen, mut changed) = (HashSet::new(), 0);
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        let descriptors = sockets_of(&process.path().join("fd"), &mut seen);
        if descriptors.is_empty() {
            continue;
        }
        // One that has ended meanwhile has no sockets.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        for descriptor in descriptors {
            let Ok(fd) = pidfd_getfd(process.as_fd(), descriptor, PidfdGetfdFlags::empty()) else { continue };
            let is_marked = matches!(
                sockopt::socket_domain(&fd),
                Ok(rustix::net::AddressFamily::INET
                    | rustix::net::AddressFamily::INET6
                    | rustix::net::AddressFamily::PACKET)
            );
            let is_tcp = matches!(sockopt::socket_type(&fd), Ok(rustix::net::SocketType::STREAM));
            if !is_marked || is_tcp || netns_cookie(&fd).ok() != Some(ours) {
                continue;
            }
            let Ok(mark) = mark_of(&fd) else { continue };
            let open = Open { mark, local: local(&fd), fd };
            if let Some(mark) = wanted(&open).filter(|wanted| *wanted != open.mark)
                && set_mark(&open.fd, mark).is_ok()
            {
                changed += 1;
            }
        }
    }
    Ok(changed)
}

/// The descriptors that are sockets nobody has shown yet.
fn sockets_of(directory: &Path, seen: &mut HashSet<u64>) -> Vec<i32> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let socket = entries.filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        let descriptor = entry.file_name().to_str()?.parse().ok()?;
        seen.insert(inode).then_some(descriptor)
    });
    socket.collect()
}

fn local(fd: &OwnedFd) -> Option<IpAddr> {
    let address =
        getsockname(fd).ok().and_then(|any: SocketAddrAny| std::net::SocketAddr::try_from(any).ok())?;
    let ip = address.ip().to_canonical();
    (!ip.is_unspecified()).then_some(ip)
}

/// Reads SO_MARK (socket(7)).
fn mark_of(fd: &impl AsRawFd) -> io::Result<u32> {
    let mut mark = 0_u32;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the pointers describe `mark` and `length`, which outlive the call.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            (&raw mut mark).cast(),
            &raw mut length,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(mark) }
}

/// Sets SO_MARK (needs CAP_NET_ADMIN or CAP_NET_RAW).
fn set_mark(fd: &impl AsRawFd, mark: u32) -> io::Result<()> {
    // SAFETY: the pointer and length describe `mark`, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            (&raw const mark).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
