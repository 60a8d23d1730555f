//! What happens to devices in other network namespaces (NETLINK_LISTEN_ALL_NSID, netlink(7)): those that have a number
//! in ours (network_namespaces(7), ip-netns(8) `set`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::attribute::{all, push};
use super::{Message, Socket, messages_in};
use crate::HostError;
use crate::namespaces::Namespace;

/// RTNLGRP_LINK (linux/rtnetlink.h).
const LINKS: u32 = 1;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
/// NETNSA_NSID and NETNSA_FD (linux/net_namespace.h).
const NUMBER: u16 = 1;
const DESCRIPTOR: u16 = 3;
/// NETNSA_NSID_NOT_ASSIGNED: none, or whichever is free.
const NONE: i32 = -1;

/// A subscription to devices that go in other namespaces.
pub struct Elsewhere {
    socket: Socket,
}

impl Elsewhere {
    /// Subscribes, in the current thread's network namespace. Needs CAP_NET_BROADCAST.
    pub fn open() -> Result<Elsewhere, HostError> {
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        socket.grow_receive_buffer(16 * 1024 * 1024);
        socket
            .set(libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID, 1)
            .map_err(|e| HostError::io("listen to other network namespaces", e))?;
        socket.bind()?;
        socket.subscribe(LINKS)?;
        Ok(Elsewhere { socket })
    }

    /// Hands the number of every namespace in which a device went to `each`, without waiting for more.
    ///
    /// Errors: [`HostError::Overrun`] when events were lost; it may have been any.
    pub fn drain(&mut self, mut each: impl FnMut(i32)) -> Result<(), HostError> {
        while let Some((length, number)) = self.receive()? {
            let Some(number) = number else { continue };
            let went = messages_in(&self.socket.buffer[..length])
                .any(|(header, _)| header.kind == libc::RTM_DELLINK);
            if went {
                each(number);
            }
        }
        Ok(())
    }

    /// One datagram, and the number of the namespace that it is about if that is another one.
    fn receive(&mut self) -> Result<Option<(usize, Option<i32>)>, HostError> {
        let mut control = [0_u64; 8];
        let mut part = libc::iovec {
            iov_base: self.socket.buffer.as_mut_ptr().cast(),
            iov_len: self.socket.buffer.len(),
        };
        // SAFETY: msghdr is plain integers and pointers, for which zeros are a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: `message` describes `part`, which describes the socket's buffer, and `control`; all outlive the call.
        let length =
            unsafe { libc::recvmsg(self.socket.fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        if length < 0 {
            return match io::Error::last_os_error() {
                e if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(None),
                e if e.raw_os_error() == Some(libc::ENOBUFS) => Err(HostError::Overrun),
                e => Err(HostError::io("read from a netlink socket", e)),
            };
        }
        let mut number = None;
        // SAFETY: the kernel has filled `message`; the macros stay within msg_controllen bytes of `control`, which is
        // aligned as cmsghdr is, and a control message of this type holds an int.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                let is_ours = (*header).cmsg_level == libc::SOL_NETLINK
                    && (*header).cmsg_type == libc::NETLINK_LISTEN_ALL_NSID;
                if is_ours {
                    number = Some(libc::CMSG_DATA(header).cast::<i32>().read_unaligned());
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        Ok(Some((length.cast_unsigned(), number)))
    }
}

impl AsFd for Elsewhere {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The number of a namespace in that of the socket; it gets one if it has none.
pub fn number_of(socket: &mut Socket, namespace: &Namespace) -> Result<i32, HostError> {
    let descriptor = namespace.descriptor()?;
    let named = |body: &mut Vec<u8>, number: Option<i32>| {
        // `struct rtgenmsg`, filled up.
        body.extend([0; 4]);
        push(body, DESCRIPTOR, &descriptor.as_raw_fd().to_ne_bytes());
        if let Some(number) = number {
            push(body, NUMBER, &number.to_ne_bytes());
        }
    };
    let ask = |socket: &mut Socket| -> Result<i32, HostError> {
        let mut found = NONE;
        let message =
            Message::new(RTM_GETNSID, 0, "ask for the number of a namespace", |body| named(body, None));
        socket.ask(message, |_, body| {
            let number = all(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == NUMBER);
            if let Some(bytes) = number.and_then(|(_, value)| value.first_chunk()) {
                found = i32::from_ne_bytes(*bytes);
            }
        })?;
        Ok(found)
    };
    match ask(socket)? {
        NONE => {}
        number => return Ok(number),
    }
    let message = Message::new(RTM_NEWNSID, 0, "give a namespace a number", |body| named(body, Some(NONE)));
    let given: Result<(), HostError> = socket.execute(&mut [message]).into_iter().collect();
    match given {
        Err(error) if error.errno() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    match ask(socket)? {
        NONE => Err(HostError::Garbled("the number of a namespace".into())),
        number => Ok(number),
    }
}
