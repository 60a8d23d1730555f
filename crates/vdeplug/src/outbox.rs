//! Frames that leave: many in one packet, where many come (UDP_SEGMENT, udp(7)).
//!
//! A program of VDE hands over one frame at a time and waits with poll(2) in between. So while frames come quickly they are kept,
//! and the descriptor that it waits for is readable: it comes round by `vde_recv`, and when it has come round without another
//! frame, or when there is room for no more, they go. A program that comes round no more has them sent by a thread, a
//! few milliseconds later.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg_addr};

/// Frames that come within this time of the one before come quickly.
const QUICK: Duration = Duration::from_micros(20);
/// The most of one packet: all kernels cut up 64, and the guard makes one piece of them, which is easily had up to 32 KiB.
const MOST: usize = 64;
const ROOM: usize = 31_000;
/// So many frames are kept for a program that does not come round.
const UNSEEN: u32 = 256;
/// After a packet that the kernel refused frames go alone for so long.
const ALONE: Duration = Duration::from_secs(1);
/// When the thread sends what is left over.
const LATE: Duration = Duration::from_millis(4);
/// After so many times with nothing to do it sleeps until it is called.
const IDLE: u32 = 50;

/// Sends datagrams.
pub struct Outbox {
    socket: OwnedFd,
    header: [u8; 8],
    /// The group.
    all: SocketAddr,
    /// Readable while something is kept.
    waits: OwnedFd,
    kept: Mutex<Kept>,
    called: Condvar,
}

/// What is kept: datagrams for one peer, all as long as the first.
struct Kept {
    datagrams: Vec<u8>,
    count: usize,
    length: usize,
    to: SocketAddr,
    /// The longest that goes with others: longer ones are cut into fragments.
    longest: usize,
    last: Instant,
    alone_until: Option<Instant>,
    /// Frames since the program came round.
    unseen: u32,
    has_grown: bool,
    is_told: bool,
    /// How many have ever been kept.
    ever: u64,
    helper: Helper,
}

/// The thread.
enum Helper {
    None,
    Awake,
    Asleep,
    /// There shall be none any more.
    Over,
}

/// What [`Outbox::come_round`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Round {
    /// Nothing is kept.
    Empty,
    /// Frames are kept, for there may be more.
    Growing,
    /// They have been sent.
    Sent,
}

impl Outbox {
    /// One that sends by this socket, and to the group what is for all.
    pub fn new(socket: OwnedFd, header: [u8; 8], all: SocketAddr) -> Result<Outbox, Errno> {
        let kept = Kept {
            datagrams: Vec::with_capacity(ROOM),
            count: 0,
            length: 0,
            to: all,
            longest: ROOM,
            last: Instant::now(),
            alone_until: None,
            unseen: UNSEEN,
            has_grown: false,
            is_told: false,
            ever: 0,
            helper: Helper::None,
        };
        let waits = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Outbox { socket, header, all, waits, kept: Mutex::new(kept), called: Condvar::new() })
    }

    /// What it sends by.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Readable while the program should come round.
    pub fn waits(&self) -> BorrowedFd<'_> {
        self.waits.as_fd()
    }

    /// Sends a frame to the group.
    pub fn send_all(&self, frame: &[u8]) -> Result<(), Errno> {
        self.flush(&mut self.lock());
        self.one(frame, self.all)
    }

    /// Sends a frame to a peer, soon. If the guard has forgotten him, as it does with who has long been silent, everybody
    /// is asked.
    pub fn send(self: &Arc<Outbox>, frame: &[u8], peer: SocketAddr, now: Instant) -> Result<(), Errno> {
        let mut kept = self.lock();
        let length = self.header.len() + frame.len();
        let is_quick = now.saturating_duration_since(kept.last) < QUICK;
        kept.last = now;
        kept.unseen = kept.unseen.saturating_add(1);
        let fits = kept.to == peer && length <= kept.length && kept.datagrams.len() + length <= ROOM;
        if kept.count > 0 && !fits {
            self.flush(&mut kept);
        }
        if kept.count == 0 && !(is_quick && kept.may_keep(length, now) && self.has_helper(&mut kept)) {
            return self.alone(frame, peer);
        }
        if kept.count == 0 {
            (kept.to, kept.length) = (peer, length);
        }
        kept.datagrams.extend_from_slice(&self.header);
        kept.datagrams.extend_from_slice(frame);
        kept.count += 1;
        kept.ever += 1;
        kept.has_grown = true;
        // A shorter one can only be the last.
        if length < kept.length || kept.count == MOST {
            self.flush(&mut kept);
        } else {
            self.tell(&mut kept);
        }
        Ok(())
    }

    /// The program comes round.
    pub fn come_round(&self) -> Round {
        let mut kept = self.lock();
        kept.unseen = 0;
        if kept.count == 0 {
            if std::mem::take(&mut kept.is_told) {
                let _ = rustix::io::read(&self.waits, &mut [0; 8]);
            }
            return Round::Empty;
        }
        if std::mem::take(&mut kept.has_grown) {
            return Round::Growing;
        }
        self.flush(&mut kept);
        Round::Sent
    }

    /// The program comes by, and will again: it may send more.
    pub fn pass(&self) -> Round {
        let mut kept = self.lock();
        kept.unseen = 0;
        if kept.count == 0 { Round::Empty } else { Round::Growing }
    }

    /// Sends what is kept, and no more of it later.
    pub fn close(&self) {
        let mut kept = self.lock();
        self.flush(&mut kept);
        kept.helper = Helper::Over;
        drop(kept);
        self.called.notify_one();
    }

    /// One that is lost on the way is no error, as on a wire.
    fn flush(&self, kept: &mut Kept) {
        if kept.count == 0 {
            return;
        }
        let datagrams = std::mem::take(&mut kept.datagrams);
        let (count, length, to) = (std::mem::take(&mut kept.count), kept.length, kept.to);
        kept.has_grown = false;
        let sent = if count == 1 { Err(nix::Error::E2BIG) } else { self.together(&datagrams, length, to) };
        if let Err(error) = sent {
            match error {
                nix::Error::E2BIG => {}
                nix::Error::EMSGSIZE | nix::Error::EINVAL => kept.longest = length - 1,
                _ => kept.alone_until = Some(Instant::now() + ALONE),
            }
            for datagram in datagrams.chunks(length) {
                let _ = self.alone(datagram.get(self.header.len()..).unwrap_or_default(), to);
            }
        }
        kept.datagrams = datagrams;
        kept.datagrams.clear();
    }

    fn together(&self, datagrams: &[u8], length: usize, to: SocketAddr) -> nix::Result<()> {
        let (length, to) =
            (u16::try_from(length).map_err(|_| nix::Error::EMSGSIZE)?, SockaddrStorage::from(to));
        let (parts, cut) = ([IoSlice::new(datagrams)], [ControlMessage::UdpGsoSegments(&length)]);
        match sendmsg(self.socket.as_raw_fd(), &parts, &cut, MsgFlags::MSG_NOSIGNAL, Some(&to)) {
            Ok(_) | Err(nix::Error::ENOBUFS) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn alone(&self, frame: &[u8], peer: SocketAddr) -> Result<(), Errno> {
        match self.one(frame, peer) {
            Err(Errno::PERM) => self.one(frame, self.all),
            sent => sent,
        }
    }

    fn one(&self, frame: &[u8], to: SocketAddr) -> Result<(), Errno> {
        let parts = [IoSlice::new(&self.header), IoSlice::new(frame)];
        let mut control = SendAncillaryBuffer::default();
        sendmsg_addr(&self.socket, &to, &parts, &mut control, SendFlags::NOSIGNAL).map(drop)
    }

    /// Lets the program come round, and sees that somebody does.
    fn tell(&self, kept: &mut Kept) {
        if !kept.is_told {
            kept.is_told = rustix::io::write(&self.waits, &1_u64.to_ne_bytes()).is_ok();
        }
        if matches!(kept.helper, Helper::Asleep) {
            self.called.notify_one();
        }
    }

    /// Starts the thread, when it is wanted for the first time: programs may fork before.
    fn has_helper(self: &Arc<Outbox>, kept: &mut Kept) -> bool {
        if matches!(kept.helper, Helper::None) {
            let outbox = self.clone();
            kept.helper = match start(move || outbox.help()) {
                Ok(_) => Helper::Awake,
                Err(_) => Helper::Over,
            };
        }
        !matches!(kept.helper, Helper::Over)
    }

    fn help(&self) {
        let (mut kept, mut idle) = (self.lock(), 0);
        while !matches!(kept.helper, Helper::Over) {
            let before = kept.ever;
            if idle > IDLE {
                kept.helper = Helper::Asleep;
                kept = self.called.wait(kept).unwrap_or_else(PoisonError::into_inner);
                if matches!(kept.helper, Helper::Asleep) {
                    kept.helper = Helper::Awake;
                }
                idle = 0;
                continue;
            }
            (kept, _) = self.called.wait_timeout(kept, LATE).unwrap_or_else(PoisonError::into_inner);
            idle = if kept.ever == before { idle + 1 } else { 0 };
            if idle > 0 {
                self.flush(&mut kept);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn may_keep(&mut self, length: usize, now: Instant) -> bool {
        if self.alone_until.is_some_and(|until| now >= until) {
            self.alone_until = None;
        }
        self.unseen < UNSEEN && self.alone_until.is_none() && length <= self.longest
    }
}

/// Starts a thread that takes none of the program's signals.
fn start(work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = std::thread::Builder::new().name("vxvdex".into()).spawn(work);
    before.thread_set_mask()?;
    started
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const HEADER: [u8; 8] = [8, 0, 0, 0, 0, 3, 0xe8, 0];
    const SOON: Duration = Duration::from_secs(5);

    /// An outbox, and who hears what is for a peer and for all.
    fn opened(host: &str) -> (Arc<Outbox>, UdpSocket, UdpSocket) {
        let [socket, peer, all] = [(); 3].map(|()| UdpSocket::bind((host, 0)).unwrap());
        for hears in [&peer, &all] {
            hears.set_read_timeout(Some(SOON)).unwrap();
        }
        let to = all.local_addr().unwrap();
        (Arc::new(Outbox::new(socket.into(), HEADER, to).unwrap()), peer, all)
    }

    fn frame(number: usize, length: usize) -> Vec<u8> {
        let mut frame = vec![number as u8; length];
        frame[0] = (number >> 8) as u8;
        frame
    }

    #[track_caller]
    fn hears(socket: &UdpSocket, frame: &[u8]) {
        let mut buffer = vec![0; 1 << 16];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], [&HEADER, frame].concat());
    }

    #[track_caller]
    fn hears_nothing(socket: &UdpSocket) {
        socket.set_nonblocking(true).unwrap();
        let heard = socket.recv(&mut [0; 64]).map_err(|error| error.kind());
        assert_eq!(heard, Err(std::io::ErrorKind::WouldBlock));
        socket.set_nonblocking(false).unwrap();
    }

    fn is_readable(outbox: &Outbox) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let (waits, now) = (outbox.waits(), Timespec { tv_sec: 0, tv_nsec: 0 });
        poll(&mut [PollFd::new(&waits, PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    #[test]
    fn all_frames_come_each_once_and_in_order() {
        for host in ["127.0.0.1", "::1"] {
            let (outbox, peer, all) = opened(host);
            let to = peer.local_addr().unwrap();
            // Long ones, short ones, some that are cut into fragments, some for all.
            let lengths = [1400, 1400, 1400, 60, 60, 1400, 9000, 9000, 200, 9234, 14];
            for number in 0..600 {
                let sent = frame(number, lengths[number % lengths.len()]);
                if number % 100 == 99 {
                    outbox.send_all(&sent).unwrap();
                } else {
                    outbox.send(&sent, to, Instant::now()).unwrap();
                }
                if number % 7 == 0 {
                    outbox.come_round();
                }
                // The socket holds some fifty of the longest.
                if number % 20 == 19 {
                    while outbox.come_round() != Round::Empty {}
                    let for_peer = (number - 19..=number).filter(|number| number % 100 != 99);
                    for_peer.for_each(|number| hears(&peer, &frame(number, lengths[number % lengths.len()])));
                }
            }
            (99..600)
                .step_by(100)
                .for_each(|number| hears(&all, &frame(number, lengths[number % lengths.len()])));
            hears_nothing(&peer);
            hears_nothing(&all);
            outbox.close();
        }
    }

    #[test]
    fn what_comes_quickly_is_kept_until_the_program_has_come_round_for_nothing() {
        let (outbox, peer, _all) = opened("127.0.0.1");
        let (to, now) = (peer.local_addr().unwrap(), Instant::now());
        // Who sends and never comes round has every frame sent at once.
        outbox.send(&frame(1, 100), to, now).unwrap();
        outbox.send(&frame(2, 100), to, now).unwrap();
        assert!(!is_readable(&outbox));
        hears(&peer, &frame(1, 100));
        hears(&peer, &frame(2, 100));
        assert_eq!(outbox.come_round(), Round::Empty);
        // A helper that is late is none of this test's.
        outbox.lock().helper = Helper::Awake;
        outbox.send(&frame(3, 100), to, now).unwrap();
        outbox.send(&frame(4, 100), to, now).unwrap();
        assert!(is_readable(&outbox));
        hears_nothing(&peer);
        assert_eq!(outbox.come_round(), Round::Growing);
        hears_nothing(&peer);
        assert_eq!(outbox.come_round(), Round::Sent);
        hears(&peer, &frame(3, 100));
        hears(&peer, &frame(4, 100));
        assert_eq!(outbox.come_round(), Round::Empty);
        assert!(!is_readable(&outbox));
        // One that comes slowly is not kept.
        outbox.send(&frame(5, 100), to, now + Duration::from_millis(1)).unwrap();
        assert!(!is_readable(&outbox));
        hears(&peer, &frame(5, 100));
        // What does not fit goes before what comes next: one for another, a longer one, one for all.
        outbox.send(&frame(6, 100), to, now + Duration::from_millis(1)).unwrap();
        hears_nothing(&peer);
        outbox.send(&frame(7, 101), to, now + Duration::from_millis(1)).unwrap();
        hears(&peer, &frame(6, 100));
        hears_nothing(&peer);
        outbox.send_all(&frame(8, 100)).unwrap();
        hears(&peer, &frame(7, 101));
    }

    #[test]
    fn who_comes_round_no_more_has_them_sent() {
        let (outbox, peer, _all) = opened("127.0.0.1");
        let to = peer.local_addr().unwrap();
        for number in 0..3 {
            outbox.come_round();
            let now = Instant::now();
            outbox.send(&frame(number, 100), to, now).unwrap();
            outbox.send(&frame(number, 100), to, now).unwrap();
            hears(&peer, &frame(number, 100));
            hears(&peer, &frame(number, 100));
            // The next time the thread is to be woken.
            until("the thread stays awake", || matches!(outbox.lock().helper, Helper::Asleep));
        }
        outbox.close();
        until("the thread is still there", || Arc::strong_count(&outbox) == 1);
    }

    #[track_caller]
    fn until(what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + SOON;
        while !is_so() {
            assert!(Instant::now() < end, "{what}");
            std::thread::yield_now();
        }
    }
}
