//! Who is at the other end of a Unix socket (unix(7)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// The peer's effective user, effective group and supplementary groups, as the kernel saw them when the connection
/// was made (SO_PEERCRED, SO_PEERGROUPS). The groups' first is the effective one.
pub fn credentials(socket: impl AsFd) -> io::Result<(u32, Vec<u32>)> {
    let fd = socket.as_fd();
    let peer = rustix::net::sockopt::socket_peercred(fd)?;
    let mut groups = vec![peer.gid.as_raw()];
    groups.extend(supplementary(fd.as_raw_fd())?);
    Ok((peer.uid.as_raw(), groups))
}

/// The process at the other end, by number.
pub fn process(socket: impl AsFd) -> io::Result<i32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.pid.as_raw_nonzero().get())
}

/// The process at the other end, as a descriptor that no other process ever gets (SO_PEERPIDFD, Linux 6.5).
pub fn pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    /// include/uapi/asm-generic/socket.h.
    const SO_PEERPIDFD: i32 = 77;
    let mut number: i32 = -1;
    let mut bytes = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointers and the length describe locals that outlive the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            std::ptr::from_mut(&mut number).cast(),
            &mut bytes,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn supplementary(fd: i32) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut bytes = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: the pointer and length describe `groups`, which outlives the call; the kernel writes at most
        // `bytes` and stores how much it wrote or would need.
        let done = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        if done == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE says how many there are: at most NGROUPS_MAX, 65536.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// The most descriptors of one answer.
const MOST: usize = 2;

/// Answers over a stream: four bytes, which are 0 and bring descriptors (SCM_RIGHTS) and `more` behind them, or an error's
/// number.
pub fn hand_over(socket: impl AsFd, made: Result<&[OwnedFd], Errno>, more: &[u8]) -> io::Result<()> {
    let number = made.err().map_or(0, |error| error.raw_os_error()).to_ne_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = made.unwrap_or_default().iter().map(AsFd::as_fd).collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[io::IoSlice::new(&number), io::IoSlice::new(more)], &mut control, flags)?;
    Ok(())
}
