//! Datagrams that have come: fetched many at a time (recvmmsg(2)), given away one by one.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The most of one call.
const BATCH: usize = 32;
/// vxvde's largest frame, 9234 bytes, with the header before it.
const LONGEST: usize = 9248;

/// What has come and is not given away yet.
pub struct Inbox {
    space: Vec<u8>,
    // What recvmmsg(2) fills in, made once: to clear it costs as much as a datagram.
    addresses: Vec<libc::sockaddr_storage>,
    parts: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    /// How many to ask for: few, where few come.
    most: usize,
    come: Vec<(usize, SocketAddr)>,
    next: usize,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Inbox {
        // SAFETY: these are plain C data, for which all zeroes is a value.
        let (address, part, message) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Inbox {
            space: vec![0; BATCH * LONGEST],
            addresses: vec![address; BATCH],
            parts: vec![part; BATCH],
            messages: vec![message; BATCH],
            most: BATCH,
            come: Vec::with_capacity(BATCH),
            next: 0,
        }
    }

    /// The next datagram, and who sent it.
    pub fn take(&mut self) -> Option<(&[u8], SocketAddr)> {
        let at = self.next;
        let (length, from) = *self.come.get(at)?;
        self.next += 1;
        let datagram = self.space.get(at * LONGEST..).and_then(|rest| rest.get(..length))?;
        Some((datagram, from))
    }

    /// Is there another one?
    pub fn has_more(&self) -> bool {
        self.next < self.come.len()
    }

    /// Fetches what a socket has, without waiting; to be called when all are given away. Says whether there was anything.
    pub fn fetch(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.come.clear();
        self.next = 0;
        let places = self.space.chunks_exact_mut(LONGEST);
        for (((message, part), address), place) in
            self.messages.iter_mut().zip(&mut self.parts).zip(&mut self.addresses).zip(places).take(self.most)
        {
            part.iov_base = place.as_mut_ptr().cast();
            part.iov_len = place.len();
            message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each of the first `most` messages, of which there are at most BATCH, points to an address, a part and a
        // place of its own, all of which live until this function returns; the lengths are theirs. No time is given, so that
        // none is written.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                self.most as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            let nothing = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            return if nothing { Ok(false) } else { Err(error) };
        }
        let count = count.unsigned_abs() as usize;
        for (message, address) in self.messages.iter().zip(&self.addresses).take(count) {
            let whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let length = if whole { message.msg_len as usize } else { 0 };
            self.come.push((length.min(LONGEST), address_of(address)));
        }
        self.most = if count == self.most { 2 * count } else { count + 1 }.min(BATCH);
        Ok(count > 0)
    }
}

/// The kernel's form of an address (ip(7), ipv6(7)). Of IPv6 the flow is left out: it differs from datagram to datagram.
fn address_of(storage: &libc::sockaddr_storage) -> SocketAddr {
    let at = std::ptr::from_ref(storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET6 => {
            // SAFETY: the family says that a sockaddr_in6 stands there, and the storage is large enough and aligned for it.
            let six = unsafe { &*at.cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(six.sin6_addr.s6_addr);
            SocketAddrV6::new(address, u16::from_be(six.sin6_port), 0, six.sin6_scope_id).into()
        }
        _ => {
            // SAFETY: as above; all zeroes, where the kernel wrote none, is one too.
            let four = unsafe { &*at.cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(u32::from_be(four.sin_addr.s_addr));
            (address, u16::from_be(four.sin_port)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn datagrams_come_in_order_with_their_senders_and_one_that_is_too_long_is_empty() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (to, from) = (UdpSocket::bind(host).unwrap(), UdpSocket::bind(host).unwrap());
            let mut inbox = Inbox::new();
            assert!(!inbox.fetch(to.as_fd()).unwrap() && inbox.take().is_none());
            from.send_to(b"one", to.local_addr().unwrap()).unwrap();
            from.send_to(&[7; LONGEST + 1], to.local_addr().unwrap()).unwrap();
            from.send_to(b"two", to.local_addr().unwrap()).unwrap();
            assert!(inbox.fetch(to.as_fd()).unwrap());
            let own = from.local_addr().unwrap();
            for text in [&b"one"[..], b"", b"two"] {
                assert!(inbox.has_more());
                assert_eq!(inbox.take(), Some((text, own)));
            }
            assert!(!inbox.has_more() && inbox.take().is_none());
            assert!(!inbox.fetch(to.as_fd()).unwrap());
        }
    }

    #[test]
    fn more_than_a_batch_is_fetched_again() {
        let (to, from) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        for number in 0..BATCH as u8 + 3 {
            from.send_to(&[number], to.local_addr().unwrap()).unwrap();
        }
        let mut inbox = Inbox::new();
        let mut all = Vec::new();
        while inbox.fetch(to.as_fd()).unwrap() {
            while let Some((datagram, _)) = inbox.take() {
                all.extend_from_slice(datagram);
            }
        }
        assert_eq!(all, (0..BATCH as u8 + 3).collect::<Vec<u8>>());
    }
}
