//! A plug in the segment of the caller's group: frames in and out of the two sockets that the daemon hands over.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fief_overlay::{
    BadUrl, GroupName, LIFETIME, Macs, Payload, SHORTEST_FRAME, SLOTS, Url, is_group, join, read, source,
};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::{getsockname, sockopt};

use crate::inbox::Inbox;
use crate::outbox::{Outbox, Round};

/// Where the daemon hands sockets over, if it is not the system's own.
const SOCKETS: &str = "FIEF_SOCKETS";

/// How often in a row the group's socket may be left out.
const LEFT_OUT: u8 = 8;
/// How often in a row a program that only comes round for what it sends is given nothing that has come.
const SKIPPED: u8 = 8;

/// A plug.
pub struct Plug {
    outgoing: Arc<Outbox>,
    group: OwnedFd,
    /// Our own address.
    own: SocketAddr,
    header: [u8; 8],
    macs: Mutex<Macs<SocketAddr>>,
    /// The longest frame that segments are joined to; 0 if they are not.
    longest: usize,
    incoming: Mutex<Incoming>,
    /// Readable when there is something to receive: in a socket, or in the inbox.
    events: OwnedFd,
}

struct Incoming {
    inbox: Inbox,
    /// An eventfd(2) that says that the inbox has more.
    more: OwnedFd,
    told: bool,
    /// How often the group's socket has been left out, because the other one had something.
    left_out: u8,
    skipped: u8,
}

/// Why there is no plug.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What was asked for cannot be meant.
    #[error("{0}")]
    Url(#[from] BadUrl),
    /// There is no such group.
    #[error("there is no group `{0}` on this host")]
    Group(String),
    /// What the user may not choose.
    #[error("`{option}` is not the user's to choose: {remedy}")]
    Fixed {
        /// The option.
        option: &'static str,
        /// Whose it is.
        remedy: &'static str,
    },
    /// The daemon has none for the caller.
    #[error("{}", refused(.0))]
    Refused(io::Error),
    /// Something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> OpenError {
        OpenError::Io(errno.into())
    }
}

impl OpenError {
    /// The number that stands for it.
    pub fn errno(&self) -> i32 {
        match self {
            OpenError::Url(_) | OpenError::Fixed { .. } => libc::EINVAL,
            OpenError::Group(_) => libc::ENOENT,
            OpenError::Refused(error) | OpenError::Io(error) => error.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

fn refused(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "this host has no overlay (`overlay.device` in fiefd.yaml)",
        Some(libc::EPERM) => "the group is not yours; only the effective one counts here (newgrp)",
        Some(libc::EACCES) => {
            "groups of this number have no segment: it is below minGid, or from /etc/subgid"
        }
        Some(libc::ERANGE) => {
            "the group's number is above 8388607, the last that has a segment, or 1048575 where groups have several networks"
        }
        Some(libc::ENXIO) => "a group has no such network on this host (`overlay.networksPerGroup`)",
        Some(libc::EMFILE) => {
            "the group has as many members on this host as it may (`overlay.membersPerGroup`)"
        }
        Some(libc::ENODEV) => "the overlay's network card is not there",
        Some(libc::EADDRNOTAVAIL) => "the overlay's network card has no address of this family",
        Some(libc::ENOENT | libc::ECONNREFUSED) => "no fiefd runs here",
        _ => return error.to_string(),
    };
    why.to_owned()
}

impl Plug {
    /// Plugs in.
    pub fn open(url: &str) -> Result<Plug, OpenError> {
        let url = Url::read(url.strip_prefix("vxvdex://").unwrap_or(url))?;
        let at = std::env::var_os(SOCKETS).map_or_else(|| PathBuf::from(libfief::SOCKETS), PathBuf::from);
        let family = if url.six { libc::AF_INET6 } else { libc::AF_INET };
        let group = url.group.as_ref().map(number_of).transpose()?;
        let libfief::Segment { unicast, group, header } =
            libfief::network_by(&at, family, group, url.network).map_err(OpenError::Refused)?;
        let (to, own) = (name_of(&group)?, name_of(&unicast)?);
        is_as_wanted(&url, to, header)?;
        if let Some(bytes) = url.receive_buffer {
            for socket in [&unicast, &group] {
                sockopt::set_socket_recv_buffer_size(socket, bytes as usize)?;
            }
        }
        // Where the guard is an earlier daemon's, each datagram comes alone.
        let _ = nix::sys::socket::setsockopt(&unicast, nix::sys::socket::sockopt::UdpGroSegment, &true);
        let outgoing = Outbox::new(unicast, header, to)?;
        let more = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for source in [outgoing.socket(), outgoing.waits(), group.as_fd(), more.as_fd()] {
            epoll::add(&events, source, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        let macs = Macs::new(url.places.unwrap_or(SLOTS), url.lifetime.unwrap_or(LIFETIME));
        let incoming = Incoming { inbox: Inbox::new(), more, told: false, left_out: 0, skipped: 0 };
        Ok(Plug {
            outgoing: Arc::new(outgoing),
            group,
            own,
            header,
            macs: Mutex::new(macs),
            longest: url.longest.unwrap_or(0),
            incoming: Mutex::new(incoming),
            events,
        })
    }

    /// Readable when there is something to receive.
    pub fn descriptor(&self) -> i32 {
        self.events.as_raw_fd()
    }

    /// The next frame, cut off where there is no room for it; `None` if there is none now.
    pub fn receive(&self, to: &mut [u8]) -> io::Result<Option<usize>> {
        let mut incoming = lock(&self.incoming);
        let round = match incoming.told {
            // It comes again for what there is more: what it answers to all of that goes together.
            true => self.outgoing.pass(),
            false => self.outgoing.come_round(),
        };
        // Most times it comes for the sake of what it sends, and there is nothing: to look is a system call.
        if round == Round::Growing && !incoming.told && incoming.skipped < SKIPPED {
            incoming.skipped += 1;
            return Ok(None);
        }
        incoming.skipped = 0;
        let received = self.next(&mut incoming, to);
        incoming.tell()?;
        received
    }

    fn next(&self, incoming: &mut Incoming, to: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            while let Some((datagram, from)) = incoming.inbox.take() {
                if let Some(frame) = self.frame(datagram, from) {
                    let length = frame.len().min(to.len());
                    if let (Some(to), Some(frame)) = (to.get_mut(..length), frame.get(..length)) {
                        to.copy_from_slice(frame);
                    }
                    return Ok(Some(self.join(incoming, to, length, from)));
                }
            }
            // Most of it is for one's own address. The group's socket has its turn when that one is silent, and else now and
            // then: neither waits for the other to be silent.
            let (unicast, group) = (self.outgoing.socket(), self.group.as_fd());
            let is_groups_turn = incoming.left_out == LEFT_OUT;
            if !is_groups_turn && incoming.inbox.fetch(unicast)? {
                incoming.left_out += 1;
                continue;
            }
            incoming.left_out = 0;
            let is_silent = !incoming.inbox.fetch(group)?;
            if is_silent && (!is_groups_turn || !incoming.inbox.fetch(unicast)?) {
                return Ok(None);
            }
        }
    }

    /// Joins to a frame what follows it and comes from the same peer; how long it is then.
    fn join(&self, incoming: &mut Incoming, to: &mut [u8], mut length: usize, from: SocketAddr) -> usize {
        let most = to.len().min(self.longest);
        let Some(room) = to.get_mut(..most) else { return length };
        while let Some((datagram, next_from)) = incoming.inbox.look() {
            let next = datagram.strip_prefix(&self.header).filter(|_| next_from == from);
            let Some(together) = next.and_then(|next| join(room, length, next)) else { break };
            length = together;
            incoming.inbox.take();
        }
        length
    }

    /// What a datagram brings, if it is a frame; notes what it says of its sender.
    fn frame<'a>(&self, datagram: &'a [u8], from: SocketAddr) -> Option<&'a [u8]> {
        // Our own, by multicast.
        if from.port() == self.own.port() && from.ip() == self.own.ip() {
            return None;
        }
        let (header, payload) = read(datagram)?;
        if header.bytes() != self.header {
            return None;
        }
        match payload {
            Payload::Goodbye => {
                lock(&self.macs).forget(from, Instant::now());
                None
            }
            Payload::Frame(frame) => {
                let (_, mac) = source(frame)?;
                lock(&self.macs).learn(mac, from, Instant::now());
                Some(frame)
            }
        }
    }

    /// Sends a frame to whoever has its address, or to all. One that is lost on the way is no error, as on a wire.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let Some((mac, _)) = source(frame).filter(|_| frame.len() >= SHORTEST_FRAME) else { return Ok(()) };
        let now = Instant::now();
        let peer = if is_group(mac) { None } else { lock(&self.macs).find(mac, now) };
        let sent = match peer {
            None => self.outgoing.send_all(frame),
            Some(peer) => self.outgoing.send(frame, peer, now),
        };
        match sent {
            Ok(()) => Ok(()),
            Err(Errno::BADF | Errno::NOTSOCK | Errno::FAULT) => sent.map_err(io::Error::from),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        // Peers forget what was behind us.
        self.outgoing.close();
        let _ = self.outgoing.send_all(&[]);
    }
}

impl Incoming {
    /// Lets the descriptor say whether the inbox has more.
    fn tell(&mut self) -> io::Result<()> {
        let has_more = self.inbox.has_more();
        if has_more && !self.told {
            rustix::io::write(&self.more, &1_u64.to_ne_bytes())?;
        } else if !has_more && self.told {
            rustix::io::read(&self.more, &mut [0; 8])?;
        }
        self.told = has_more;
        Ok(())
    }
}

/// What the daemon and its guard have chosen is not to be chosen again: it is refused here, and not passed over.
fn is_as_wanted(url: &Url, to: SocketAddr, header: [u8; 8]) -> Result<(), OpenError> {
    let fixed = |option, remedy| Err(OpenError::Fixed { option, remedy });
    let [.., high, middle, low, _] = header;
    if url.vni.is_some_and(|vni| vni != u32::from_be_bytes([0, high, middle, low])) {
        return fixed("vni", "a group's network has a number of its own; `net` says which");
    }
    if url.port.is_some_and(|port| port != to.port()) {
        return fixed("port", "`overlay.port` in fiefd.yaml says it");
    }
    let same_base = |base: IpAddr| match (base, to.ip()) {
        (IpAddr::V4(base), IpAddr::V4(to)) => base.octets().first() == to.octets().first(),
        (IpAddr::V6(base), IpAddr::V6(to)) => base.octets().get(..13) == to.octets().get(..13),
        _ => false,
    };
    if url.multicast.is_some_and(|base| !same_base(base)) {
        return fixed("group", "`overlay.group4` and `overlay.group6` in fiefd.yaml say it");
    }
    if url.ttl.is_some_and(|ttl| ttl != 1) {
        return fixed("ttl", "`overlay.maxTtl` in fiefd.yaml says it");
    }
    if url.device.is_some() {
        return fixed("if", "`overlay.device` in fiefd.yaml says it");
    }
    if url.bind.is_some() {
        return fixed("bind", "it is the address of `overlay.device`");
    }
    Ok(())
}

fn number_of(group: &GroupName) -> Result<u32, OpenError> {
    match group {
        GroupName::Number(number) => Ok(*number),
        GroupName::Name(name) => match nix::unistd::Group::from_name(name) {
            Ok(Some(group)) => Ok(group.gid.as_raw()),
            _ => Err(OpenError::Group(name.clone())),
        },
    }
}

fn name_of(socket: &OwnedFd) -> Result<SocketAddr, OpenError> {
    Ok(SocketAddr::try_from(getsockname(socket)?)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
