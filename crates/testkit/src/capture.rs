//! Frames as they cross a device (packet(7)).

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::ns::Ns;
use crate::poll::attempt;

/// How often the thread looks whether it should end.
const TICK_US: i64 = 10_000;
/// Enough for a burst that the thread is too late for.
const BUFFER: usize = 16 << 20;

/// One frame that crossed the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Did it leave by the device (and not arrive)?
    pub outgoing: bool,
    /// From the Ethernet header on, with the VLAN tag that the kernel keeps apart put back.
    pub bytes: Vec<u8>,
}

/// Collects every frame on a device, both directions, until stopped or dropped.
///
/// What it has not seen proves something only if it lost nothing, so every question fails the test when it did.
pub struct Capture {
    socket: Arc<OwnedFd>,
    frames: Arc<Mutex<Vec<Captured>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    device: String,
}

/// Sends one frame out of a device, as it is.
#[track_caller]
pub fn inject(ns: &Ns, device: &str, frame: &[u8]) {
    inject_all(ns, device, std::slice::from_ref(&frame));
}

/// Sends frames out of a device, as they are.
#[track_caller]
pub fn inject_all<F: AsRef<[u8]> + Sync>(ns: &Ns, device: &str, frames: &[F]) {
    let index = ns.ifindex(device);
    let sent = ns.enter(|| {
        // Protocol 0: this socket receives nothing.
        let socket = packet_socket(0)?;
        let to = link_address(index, 0);
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        frames.iter().map(AsRef::as_ref).try_for_each(|frame| {
            // SAFETY: both pointers are to live values of the lengths that go with them.
            let sent = unsafe {
                let to = (&raw const to).cast();
                libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, to, length)
            };
            if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        })
    });
    sent.unwrap_or_else(|error: io::Error| panic!("cannot send on {device} of {}: {error}", ns.short()));
}

impl Capture {
    /// Starts; every frame from the return of this call on is seen.
    #[track_caller]
    pub fn on(ns: &Ns, device: &str) -> Capture {
        let index = ns.ifindex(device);
        let opened = ns.enter(|| listening(index));
        let socket =
            opened.unwrap_or_else(|error| panic!("cannot capture on {device} of {}: {error}", ns.short()));
        let (socket, frames, end) =
            (Arc::new(socket), Arc::<Mutex<Vec<Captured>>>::default(), Arc::default());
        let reader =
            Reader { socket: Arc::clone(&socket), frames: Arc::clone(&frames), end: Arc::clone(&end) };
        let thread = Some(std::thread::spawn(move || reader.run()));
        Capture { socket, frames, end, thread, device: device.to_owned() }
    }

    /// Everything until now.
    #[track_caller]
    pub fn frames(&self) -> Vec<Captured> {
        let lost = lost(&self.socket).expect("a packet socket counts");
        assert_eq!(
            lost, 0,
            "the capture on {} has lost frames; what it has not seen proves nothing",
            self.device
        );
        self.frames.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// How many frames until now are as `wanted` has it.
    #[track_caller]
    pub fn count(&self, wanted: impl Fn(&Captured) -> bool) -> usize {
        self.frames().iter().filter(|frame| wanted(frame)).count()
    }

    /// Did a frame with these bytes in it cross until now?
    #[track_caller]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.count(|frame| frame.contains(bytes)) > 0
    }

    /// Waits until a frame with these bytes in it has crossed; false after `timeout`.
    #[track_caller]
    pub fn wait_for(&self, bytes: &[u8], timeout: Duration) -> bool {
        attempt(timeout, || if self.contains(bytes) { Ok(()) } else { Err(String::new()) }).is_ok()
    }

    /// Forgets what was seen until now.
    pub fn clear(&self) {
        self.frames.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }

    /// Ends, and gives everything that crossed before.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Captured> {
        self.finish();
        self.frames()
    }

    fn finish(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Captured {
    /// Are these bytes in it?
    pub fn contains(&self, bytes: &[u8]) -> bool {
        assert!(!bytes.is_empty(), "nothing is in every frame");
        self.bytes.windows(bytes.len()).any(|window| window == bytes)
    }
}

struct Reader {
    socket: Arc<OwnedFd>,
    frames: Arc<Mutex<Vec<Captured>>>,
    end: Arc<AtomicBool>,
}

impl Reader {
    /// Looks at the flag only when nothing is queued, so that everything before the end is kept.
    fn run(&self) {
        loop {
            match receive(&self.socket) {
                Ok(frame) => self.frames.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(frame),
                Err(_) if self.end.load(Ordering::Relaxed) => return,
                Err(_) => (),
            }
        }
    }
}

/// A socket that hears one device and nothing from before.
fn listening(index: u32) -> io::Result<OwnedFd> {
    let everything = (libc::ETH_P_ALL as u16).to_be();
    // Opened deaf and tied to its device before it hears, or it would begin with frames of other devices.
    let socket = packet_socket(0)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, TICK_US))?;
    let on: libc::c_int = 1;
    let address = link_address(index, everything);
    // SAFETY: both pointers are to live values of the lengths that go with them.
    let done = unsafe {
        let (on, address) = ((&raw const on).cast(), (&raw const address).cast());
        let int = size_of::<libc::c_int>() as libc::socklen_t;
        let fd = socket.as_raw_fd();
        libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, on, int)
            | libc::bind(fd, address, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if done == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn packet_socket(protocol: u16) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn link_address(index: u32, protocol: u16) -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll is plain C data, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index.cast_signed();
    address
}

/// The next frame, or an error when none comes within a tick.
fn receive(socket: &OwnedFd) -> io::Result<Captured> {
    let mut bytes = vec![0_u8; 70_000];
    let mut control = [0_u64; 16];
    // SAFETY: both are plain C data, for which all zeroes is a value.
    let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in `message` is to a live buffer of the length beside it.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(length);
    if let Some(tag) = vlan_tag(&message) {
        bytes.splice(12..12, tag);
    }
    Ok(Captured { outgoing: from.sll_pkttype == libc::PACKET_OUTGOING, bytes })
}

/// The tag that the kernel has taken out of the frame, as it was there.
fn vlan_tag(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: `message` was filled in by recvmsg(2); the macros stay within its control buffer.
    let first = unsafe { libc::CMSG_FIRSTHDR(message).as_ref()? };
    if (first.cmsg_level, first.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: a message of this type carries a tpacket_auxdata; it may lie unaligned.
    let data: libc::tpacket_auxdata =
        unsafe { libc::CMSG_DATA(first).cast::<libc::tpacket_auxdata>().read_unaligned() };
    let tagged = data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
    let with_type = data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let kind = if with_type { data.tp_vlan_tpid } else { 0x8100 };
    let ([a, b], [c, d]) = (kind.to_be_bytes(), data.tp_vlan_tci.to_be_bytes());
    tagged.then_some([a, b, c, d])
}

/// Frames lost since the last call.
fn lost(socket: &OwnedFd) -> io::Result<u32> {
    let mut counted = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: PACKET_STATISTICS writes one tpacket_stats, and `counted` is one.
    let done = unsafe {
        let to = (&raw mut counted).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, to, &mut length)
    };
    if done == 0 { Ok(counted.tp_drops) } else { Err(io::Error::last_os_error()) }
}
