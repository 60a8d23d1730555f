//! Hearing that somebody changes rules (netlink multicast groups).
//!
//! Tables of the iptables before nf_tables, bpf programs and WireGuard marks have no event in Linux; they are seen when
//! something else makes us look, and by `fief marks check`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use fief_host::HostError;
use fief_host::netlink::Socket;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

/// Protocols with the groups that tell of rules: NFNLGRP_NFTABLES; RTNLGRP_LINK, _TC, _IPV4_RULE, _IPV6_RULE;
/// XFRMNLGRP_SA and _POLICY.
const GROUPS: [(i32, &[u32]); 3] =
    [(libc::NETLINK_NETFILTER, &[7]), (libc::NETLINK_ROUTE, &[1, 4, 8, 19]), (libc::NETLINK_XFRM, &[3, 4])];

/// A subscription to changes of rules in the network namespace that it was opened in.
pub struct Watch {
    sockets: Vec<Socket>,
}

impl Watch {
    /// Subscribes to what this kernel has.
    pub fn open() -> Result<Watch, HostError> {
        let mut sockets = Vec::new();
        for (protocol, groups) in GROUPS {
            let socket = match Socket::open(protocol) {
                Err(error) if error.errno() == Some(libc::EPROTONOSUPPORT) => continue,
                other => other?,
            };
            // A crowd of changes is one piece of news: a small buffer that overruns says the same.
            socket.grow_receive_buffer(64 * 1024);
            socket.bind()?;
            for group in groups {
                socket.subscribe(*group)?;
            }
            sockets.push(socket);
        }
        Ok(Watch { sockets })
    }

    /// Waits until something changes, and then until it has been quiet for `quiet`, `longest` at most; or until `bell`, an
    /// eventfd(2), is rung.
    pub fn wait(
        &mut self,
        bell: BorrowedFd<'_>,
        quiet: Duration,
        longest: Duration,
    ) -> Result<(), HostError> {
        let mut pause = None;
        let mut begin = None;
        loop {
            if self.ready(bell, pause)? {
                let mut rings = [0; 8];
                rustix::io::read(bell, &mut rings).map_err(|e| HostError::io("read from an eventfd", e))?;
                return Ok(());
            }
            let begin = *begin.get_or_insert_with(Instant::now);
            let heard = self.take();
            if (!heard && begin.elapsed() >= quiet) || begin.elapsed() >= longest {
                return Ok(());
            }
            pause = Some(quiet);
        }
    }

    /// Waits for news; says whether it is the bell.
    fn ready(&self, bell: BorrowedFd<'_>, pause: Option<Duration>) -> Result<bool, HostError> {
        let pause = pause.map(|p| Timespec { tv_sec: p.as_secs() as i64, tv_nsec: p.subsec_nanos().into() });
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::from_borrowed_fd(bell, PollFlags::IN)];
        fds.extend(self.sockets.iter().map(|s| PollFd::from_borrowed_fd(s.as_fd(), PollFlags::IN)));
        loop {
            match poll(&mut fds, pause.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(HostError::io("wait for changes of rules", error)),
                Ok(_) => return Ok(fds[0].revents().contains(PollFlags::IN)),
            }
        }
    }

    /// Reads what has come; says whether there was anything.
    fn take(&mut self) -> bool {
        self.sockets.iter_mut().fold(false, |heard, socket| heard | socket.discard())
    }
}
