//! Datagrams that have come: fetched many at a time (recvmmsg(2), and UDP_GRO of udp(7)), given away one by one.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The most of one call.
const BATCH: usize = 32;
/// vxvde's largest frame, 9234 bytes, with the header before it.
const LONGEST: usize = 9248;
/// The most that comes in one delivery.
const PLACE: usize = 1 << 16;
/// Room for one control message with a number.
type Control = [u64; 4];

impl Delivery {
    /// How long the next one is.
    fn length(&self) -> usize {
        self.each.min(self.end - self.at)
    }
}

/// What has come and is not given away yet.
pub struct Inbox {
    space: Vec<u8>,
    // What recvmmsg(2) fills in, made once: to clear it costs as much as a datagram.
    addresses: Vec<libc::sockaddr_storage>,
    parts: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    controls: Vec<Control>,
    /// How many to ask for: few, where few come.
    most: usize,
    come: Vec<Delivery>,
    next: usize,
}

/// Datagrams of one sender, one behind the other.
#[derive(Debug, Clone, Copy)]
struct Delivery {
    from: SocketAddr,
    /// Where the next one begins, and where the last one ends.
    at: usize,
    end: usize,
    /// How long each is, but for the last.
    each: usize,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Inbox {
        // SAFETY: these are plain C data, for which all zeroes is a value.
        let (address, part, message) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Inbox {
            space: vec![0; BATCH * PLACE],
            addresses: vec![address; BATCH],
            parts: vec![part; BATCH],
            messages: vec![message; BATCH],
            controls: vec![[0; 4]; BATCH],
            most: BATCH,
            come: Vec::with_capacity(BATCH),
            next: 0,
        }
    }

    /// The next datagram, and who sent it. One that is longer than any frame is empty.
    pub fn take(&mut self) -> Option<(&[u8], SocketAddr)> {
        let delivery = self.come.get_mut(self.next)?;
        let taken = *delivery;
        delivery.at += taken.length();
        if delivery.at == delivery.end {
            self.next += 1;
        }
        self.read(taken)
    }

    /// The one that would be taken next.
    pub fn look(&self) -> Option<(&[u8], SocketAddr)> {
        self.read(*self.come.get(self.next)?)
    }

    fn read(&self, delivery: Delivery) -> Option<(&[u8], SocketAddr)> {
        let length = if delivery.length() > LONGEST { 0 } else { delivery.length() };
        Some((self.space.get(delivery.at..delivery.at + length)?, delivery.from))
    }

    /// Is there another one?
    pub fn has_more(&self) -> bool {
        self.next < self.come.len()
    }

    /// Fetches what a socket has, without waiting; to be called when all are given away. Says whether there was anything.
    pub fn fetch(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.come.clear();
        self.next = 0;
        let places = self.space.chunks_exact_mut(PLACE);
        let parts = self.parts.iter_mut().zip(&mut self.addresses).zip(&mut self.controls).zip(places);
        for (message, (((part, address), control), place)) in
            self.messages.iter_mut().zip(parts).take(self.most)
        {
            part.iov_base = place.as_mut_ptr().cast();
            part.iov_len = place.len();
            message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = size_of::<Control>();
        }
        // SAFETY: each of the first `most` messages, of which there are at most BATCH, points to an address, a part, a place and
        // room for control messages of its own, all of which live until this function returns; the lengths are theirs. No time is given, so that
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
        for (place, (message, address)) in self.messages.iter().zip(&self.addresses).take(count).enumerate() {
            let whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let length = if whole { (message.msg_len as usize).min(PLACE) } else { 0 };
            let (from, at) = (address_of(address), place * PLACE);
            let each = each_of(&message.msg_hdr).filter(|each| *each > 0).unwrap_or(PLACE);
            self.come.push(Delivery { from, at, end: at + length, each });
        }
        self.most = if count == self.most { 2 * count } else { count + 1 }.min(BATCH);
        Ok(count > 0)
    }
}

/// How long each datagram of a delivery is, if there are several.
fn each_of(message: &libc::msghdr) -> Option<usize> {
    // SAFETY: recvmmsg(2) filled the header in, so that its control messages are whole ones, and where they lie lives.
    let control = unsafe { libc::CMSG_FIRSTHDR(message).as_ref()? };
    if (control.cmsg_level, control.cmsg_type) != (libc::SOL_UDP, libc::UDP_GRO) {
        return None;
    }
    // SAFETY: as above; behind the header of this one there is a number (udp_cmsg_recv in linux/udp.h).
    let each = unsafe { libc::CMSG_DATA(control).cast::<i32>().read_unaligned() };
    usize::try_from(each).ok()
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
                assert_eq!(inbox.look(), Some((text, own)));
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
