//! AF_NETLINK sockets (netlink(7)): requests in batches, dumps, notifications.
//!
//! The messages' attributes are encoded and decoded by the `netlink-bindings` crate. The transport is ours because
//! its companion stops a batch at the first refusal and hides the descriptor that a monitor must poll; we need the
//! answer to every message of a batch of hundreds.

pub mod address;
pub mod attribute;
pub mod detour;
pub mod elsewhere;
pub mod link;
pub mod monitor;
pub mod route;
pub mod rule;
mod transaction;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use netlink_bindings::builtin::NlmsgerrAttrs;

use crate::HostError;
use crate::namespaces::Namespace;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// A batch is sent when it has grown past this; the kernel refuses a single write above its send buffer.
const BATCH: usize = 32 * 1024;

/// A connected netlink socket of one protocol (NETLINK_ROUTE, NETLINK_NETFILTER, NETLINK_SOCK_DIAG).
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message, whole, with the words to use when the kernel refuses it.
pub struct Message {
    bytes: Vec<u8>,
    what: String,
}

impl Message {
    /// A message of `kind` with `flags` (NLM_F_REQUEST and NLM_F_ACK are added) whose body `encode` writes.
    pub fn new(kind: u16, flags: i32, what: impl Into<String>, encode: impl FnOnce(&mut Vec<u8>)) -> Message {
        let mut bytes = vec![0; HEADER];
        encode(&mut bytes);
        let length = bytes.len() as u32;
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Message { bytes, what: what.into() }
    }

    /// Takes NLM_F_ACK away again: for messages of an nf_tables batch, of which one answer is enough.
    pub fn unacknowledged(mut self) -> Message {
        self.want_ack(false);
        self
    }

    fn want_ack(&mut self, wanted: bool) {
        let without = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) & !(libc::NLM_F_ACK as u16);
        let flags = if wanted { without | libc::NLM_F_ACK as u16 } else { without };
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    fn stamp(&mut self, sequence: u32) {
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }

    fn wants_ack(&self) -> bool {
        u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) & libc::NLM_F_ACK as u16 != 0
    }
}

impl Socket {
    /// Opens a socket of this protocol with extended acknowledgements and strict dump checking.
    pub fn open(protocol: i32) -> Result<Socket, HostError> {
        // SAFETY: socket(2) takes no pointers; the descriptor it returns is ours alone.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if raw < 0 {
            return Err(HostError::io("open a netlink socket", io::Error::last_os_error()));
        }
        // SAFETY: `raw` is a fresh descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let socket = Socket { fd, sequence: 0, buffer: vec![0; 256 * 1024] };
        socket.option(libc::NETLINK_EXT_ACK, 1);
        socket.option(libc::NETLINK_CAP_ACK, 1);
        socket.option(libc::NETLINK_GET_STRICT_CHK, 1);
        socket.grow_receive_buffer(4 * 1024 * 1024);
        Ok(socket)
    }

    /// Opens a socket in another network namespace, to which it belongs for ever.
    pub fn open_in(namespace: &Namespace, protocol: i32) -> Result<Socket, HostError> {
        namespace.visit(|| Socket::open(protocol))?
    }

    /// Sends every message, in order, in as few writes as fit, and returns the kernel's answer to each.
    pub fn execute(&mut self, messages: &mut [Message]) -> Vec<Result<(), HostError>> {
        let mut answers: Vec<Result<(), HostError>> = Vec::with_capacity(messages.len());
        let mut rest = messages;
        while !rest.is_empty() {
            let mut bytes = 0;
            let taken = rest.iter().take_while(|m| {
                let fits = bytes == 0 || bytes + m.bytes.len() <= BATCH;
                bytes += m.bytes.len();
                fits
            });
            let count = taken.count();
            let (batch, later) = rest.split_at_mut(count);
            match self.exchange(batch) {
                Ok(batch_answers) => answers.extend(batch_answers),
                Err(error) => {
                    let text = error.to_string();
                    answers.extend(batch.iter().map(|m| {
                        Err(HostError::Refused {
                            what: m.what.clone(),
                            source: io::Error::other(text.clone()),
                            detail: String::new(),
                        })
                    }));
                }
            }
            rest = later;
        }
        answers
    }

    /// The kernel works off a write before send(2) returns, so all answers wait by then; one that does not wait will
    /// never come.
    fn exchange(&mut self, batch: &mut [Message]) -> Result<Vec<Result<(), HostError>>, HostError> {
        let first = self.write(batch)?;
        let mut answers: Vec<Option<Result<(), HostError>>> = batch.iter().map(|_| None).collect();
        while let Some(length) = self.try_receive()? {
            for (header, body) in messages_in(&self.buffer[..length]) {
                let index = header.sequence.wrapping_sub(first) as usize;
                if header.kind == libc::NLMSG_ERROR as u16 && index < batch.len() {
                    let answer = acknowledgement(&header, body, &batch[index].what);
                    if answers[index].as_ref().is_none_or(Result::is_ok) {
                        answers[index] = Some(answer);
                    }
                }
            }
        }
        let unanswered = |message: &Message| match message.wants_ack() {
            true => Err(HostError::Garbled(message.what.clone())),
            false => Ok(()),
        };
        Ok(answers
            .into_iter()
            .zip(batch)
            .map(|(a, message)| a.unwrap_or_else(|| unanswered(message)))
            .collect())
    }

    /// Sends these in one write and returns the number of the first.
    fn write(&mut self, batch: &mut [Message]) -> Result<u32, HostError> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(batch.iter().map(|m| m.bytes.len()).sum());
        for message in batch.iter_mut() {
            self.sequence = self.sequence.wrapping_add(1);
            message.stamp(self.sequence);
            bytes.extend_from_slice(&message.bytes);
        }
        // The kernel refuses a write that its send buffer cannot hold whole (EMSGSIZE): the sets of 4,096 tenants.
        self.grow_send_buffer(bytes.len() + bytes.len() / 4);
        rustix::net::send(&self.fd, &bytes, rustix::net::SendFlags::empty())
            .map_err(|e| HostError::io("send a netlink batch", e))?;
        Ok(first)
    }

    /// Asks one question; `each` sees the type and body of what answers it, before the acknowledgement.
    pub fn ask(&mut self, question: Message, mut each: impl FnMut(u16, &[u8])) -> Result<(), HostError> {
        let mut batch = [question];
        let first = self.write(&mut batch)?;
        let mut answer = None;
        while let Some(length) = self.try_receive()? {
            for (header, body) in messages_in(&self.buffer[..length]) {
                match i32::from(header.kind) {
                    _ if header.sequence != first => {}
                    libc::NLMSG_ERROR => answer = Some(acknowledgement(&header, body, &batch[0].what)),
                    _ => each(header.kind, body),
                }
            }
        }
        answer.unwrap_or_else(|| Err(HostError::Garbled(batch[0].what.clone())))
    }

    /// Asks for a listing; `each` sees the type and body of every answer.
    ///
    /// Errors: [`HostError::Overrun`] when the kernel changed the list while writing it out (NLM_F_DUMP_INTR).
    pub fn dump(
        &mut self,
        kind: u16,
        what: &str,
        encode: impl FnOnce(&mut Vec<u8>),
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), HostError> {
        let mut request = Message::new(kind, libc::NLM_F_DUMP, what, encode);
        self.sequence = self.sequence.wrapping_add(1);
        request.stamp(self.sequence);
        rustix::net::send(&self.fd, &request.bytes, rustix::net::SendFlags::empty())
            .map_err(|e| HostError::io(what, e))?;
        let mut interrupted = false;
        loop {
            let length = self.receive()?;
            for (header, body) in messages_in(&self.buffer[..length]) {
                if header.sequence != self.sequence {
                    continue;
                }
                interrupted |= header.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match i32::from(header.kind) {
                    libc::NLMSG_DONE if interrupted => return Err(HostError::Overrun),
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return acknowledgement(&header, body, what),
                    _ => each(header.kind, body),
                }
            }
        }
    }

    /// Gives the socket a port of its own. Requests do that by themselves; a socket that only listens has port 0
    /// until then, and notifications that come from the kernel itself pass over port 0.
    pub fn bind(&self) -> Result<(), HostError> {
        // SAFETY: sockaddr_nl is plain integers, for which zeros are a value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        // SAFETY: the pointer and length describe `address`, which outlives the call.
        let done = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        };
        if done < 0 {
            Err(HostError::io("bind a netlink socket", io::Error::last_os_error()))
        } else {
            Ok(())
        }
    }

    /// Subscribes to a notification group (RTNLGRP_*).
    pub fn subscribe(&self, group: u32) -> Result<(), HostError> {
        self.set(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group as i32)
            .map_err(|e| HostError::io(format!("subscribe to netlink group {group}"), e))
    }

    /// Asks for `bytes` of receive buffer beyond rmem_max (needs CAP_NET_ADMIN); keeps what it has if refused.
    pub fn grow_receive_buffer(&self, bytes: i32) {
        if self.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
            let _ = self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
        }
    }

    /// Asks for a send buffer of at least `bytes`, beyond wmem_max (needs CAP_NET_ADMIN); keeps what it has if refused.
    fn grow_send_buffer(&self, bytes: usize) {
        const DEFAULT: usize = 128 * 1024;
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        if bytes as usize > DEFAULT && self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
            let _ = self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, bytes);
        }
    }

    /// Reads one datagram without waiting; `None` when there is none.
    fn try_receive(&mut self) -> Result<Option<usize>, HostError> {
        self.receive_with(rustix::net::RecvFlags::DONTWAIT)
    }

    /// Reads everything that waits and forgets it; says whether there was anything, lost messages included.
    pub fn discard(&mut self) -> bool {
        let mut any = false;
        loop {
            match self.try_receive() {
                Ok(Some(_)) | Err(HostError::Overrun) => any = true,
                Ok(None) | Err(_) => return any,
            }
        }
    }

    fn receive(&mut self) -> Result<usize, HostError> {
        loop {
            if let Some(length) = self.receive_with(rustix::net::RecvFlags::empty())? {
                return Ok(length);
            }
        }
    }

    fn receive_with(&mut self, flags: rustix::net::RecvFlags) -> Result<Option<usize>, HostError> {
        match rustix::net::recv(&self.fd, &mut self.buffer[..], flags) {
            Ok((length, _)) => Ok(Some(length)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(rustix::io::Errno::NOBUFS) => Err(HostError::Overrun),
            Err(error) => Err(HostError::io("read from a netlink socket", error)),
        }
    }

    fn option(&self, option: i32, value: i32) {
        // Older kernels lack some of these; every one of them only makes answers better.
        let _ = self.set(libc::SOL_NETLINK, option, value);
    }

    fn set(&self, level: i32, option: i32, value: i32) -> io::Result<()> {
        // SAFETY: the pointer and length describe `value`, which outlives the call.
        let done = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(&value).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// The messages of one datagram.
fn messages_in(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let header = Header {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
        };
        Some((header, body))
    })
}

/// Reads `struct nlmsgerr` and, behind it, the extended acknowledgement's text.
fn acknowledgement(header: &Header, body: &[u8], what: &str) -> Result<(), HostError> {
    let Some(code) = body.first_chunk::<4>().map(|c| i32::from_ne_bytes(*c)) else {
        return Err(HostError::Garbled(what.into()));
    };
    if code == 0 {
        return Ok(());
    }
    let attributes = body.get(4 + HEADER..).filter(|_| header.flags & libc::NLM_F_ACK_TLVS as u16 != 0);
    let detail = attributes
        .and_then(|a| NlmsgerrAttrs::new(a).get_msg().ok().map(|m| format!(": {}", m.to_string_lossy())))
        .unwrap_or_default();
    Err(HostError::Refused { what: what.into(), source: io::Error::from_raw_os_error(-code), detail })
}
