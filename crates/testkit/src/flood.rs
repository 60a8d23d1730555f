//! More frames than programs can send: the kernel runs an XDP program on a frame over and over (BPF_PROG_TEST_RUN with
//! BPF_F_TEST_XDP_LIVE_FRAMES, Documentation/bpf/bpf_prog_run.rst), and each time it is sent.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::bpf::{descriptor, test_run};
use crate::frame::checksum;
use crate::ns::Ns;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 2;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 2;
/// How many are sent with one call.
const AT_ONCE: u32 = 1 << 13;
/// Where things are: IPv4's header, its identification, its sum, the lower half of its source, the sum of UDP.
const IP: usize = 14;
const ID: usize = 18;
const SUM: usize = 24;
const SOURCE: usize = 28;
const UDP_SUM: usize = 40;

/// Frames that leave by one device, of several kinds by chance, until this is ended or dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<u64>>>,
}

impl Flood {
    /// Sends frames of IPv4 by `device`, a veth whose far end is `to` of another namespace.
    ///
    /// Each is from another address, which differs in its last 16 bits, and has no sum of UDP.
    #[track_caller]
    pub fn begin((ns, device): (&Ns, &str), (far, to): (&Ns, &str), frames: &[Vec<u8>]) -> Flood {
        let taken = far.enter(|| set_gro(to));
        taken.unwrap_or_else(|error| panic!("GRO of {to} in {}: {error}", far.short()));
        let longest = frames.iter().map(Vec::len).max().expect("there are frames");
        let frames: Vec<Vec<u8>> = frames.iter().map(|frame| with_any_source(frame, longest)).collect();
        let program = program(&frames).expect("root may load such a program");
        let (index, frame) = (ns.ifindex(device), frames[0].clone());
        let stop = Arc::new(AtomicBool::new(false));
        let (is_over, ns) = (stop.clone(), ns.clone());
        let thread = std::thread::spawn(move || {
            ns.enter(|| {
                let _kept = keep(&program)?;
                let mut sent = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    run(&program, &frame, index)?;
                    sent += u64::from(AT_ONCE);
                }
                Ok(sent)
            })
        });
        Flood { stop, thread: Some(thread) }
    }

    /// Ends it; how many were sent. Those that arrived the receiver's counters tell.
    #[track_caller]
    pub fn end(mut self) -> u64 {
        let sent = self.finish().expect("it has not ended before");
        sent.unwrap_or_else(|error| panic!("cannot send frames by XDP: {error}"))
    }

    fn finish(&mut self) -> Option<io::Result<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        drop(self.finish());
    }
}

/// The frame with a header whose sum is right if the lower half of its source is the complement of its identification.
fn with_any_source(frame: &[u8], length: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    // Behind a packet is padding.
    frame.resize(length.next_multiple_of(4), 0);
    frame[ID..][..2].copy_from_slice(&[0xff; 2]);
    frame[SOURCE..][..2].copy_from_slice(&[0; 2]);
    frame[SUM..][..2].copy_from_slice(&[0; 2]);
    frame[UDP_SUM..][..2].copy_from_slice(&[0; 2]);
    let sum = checksum(&frame[IP..IP + 20]);
    frame[SUM..][..2].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// One instruction (Documentation/bpf/standardization/instruction-set.rst).
const fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    let [a, b] = offset.to_le_bytes();
    let [c, d, e, f] = number.to_le_bytes();
    u64::from_ne_bytes([code, from << 4 | to, a, b, c, d, e, f])
}

/// Writes one of the frames, with another source, and sends it back by the device. The kernel uses its pages again as
/// their last receiver left them, so all of it is written each time.
fn program(frames: &[Vec<u8>]) -> io::Result<OwnedFd> {
    let words = frames[0].len() / 4;
    let (count, block) = (frames.len() as i32, words as i16 + 2);
    let mut code = vec![
        instruction(0xbf, 6, 1, 0, 0),                        // r6 = r1
        instruction(0x85, 0, 0, 0, 7),                        // call bpf_get_prandom_u32
        instruction(0xbf, 7, 0, 0, 0),                        // r7 = r0
        instruction(0x77, 7, 0, 0, 16),                       // r7 >>= 16
        instruction(0x97, 7, 0, 0, count),                    // r7 %= count
        instruction(0x61, 1, 6, 0, 0),                        // r1 = data
        instruction(0x61, 2, 6, 4, 0),                        // r2 = data_end
        instruction(0xbf, 3, 1, 0, 0),                        // r3 = r1
        instruction(0x07, 3, 0, 0, words as i32 * 4),         // r3 += length
        instruction(0x2d, 3, 2, count as i16 * block + 3, 0), // if r3 > r2 goto the end
    ];
    for (number, frame) in (0..).zip(frames) {
        code.push(instruction(0x55, 7, 0, block - 1, number)); // if r7 != number goto the next
        let words = frame.chunks_exact(4).map(|word| <[u8; 4]>::try_from(word).map_or(0, i32::from_le_bytes));
        code.extend(words.zip(0..).map(|(word, place)| instruction(0x62, 1, 0, place * 4, word)));
        code.push(instruction(0x05, 0, 0, (count - 1 - number) as i16 * block, 0)); // goto behind the last
    }
    code.extend([
        instruction(0x6b, 1, 0, SOURCE as i16, 0), // *(u16 *)(r1 + SOURCE) = r0
        instruction(0xa7, 0, 0, 0, -1),            // r0 ^= -1
        instruction(0x6b, 1, 0, ID as i16, 0),     // *(u16 *)(r1 + ID) = r0
        instruction(0xb7, 0, 0, 0, 3),             // r0 = XDP_TX
        instruction(0x95, 0, 0, 0, 0),             // exit
    ]);
    /// The first part of `union bpf_attr` for BPF_PROG_LOAD.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        more: [u64; 12],
    }
    let mut attr = Load {
        kind: BPF_PROG_TYPE_XDP,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Dual BSD/GPL".as_ptr() as u64,
        more: [0; 12],
    };
    descriptor(BPF_PROG_LOAD, &mut attr)
}

/// Puts the program at the loopback device of the thread's namespace, where nothing passes. Every run of one that is at no
/// device waits for the kernel to change its code twice (bpf_dispatcher_change_prog), for as long as ten thousand frames.
fn keep(program: &OwnedFd) -> io::Result<OwnedFd> {
    let mut attr =
        [program.as_raw_fd() as u32, nix::net::if_::if_nametoindex("lo")?, BPF_XDP, XDP_FLAGS_SKB_MODE];
    descriptor(BPF_LINK_CREATE, &mut attr)
}

/// Sends so many, as if the frame had come in by the device of the thread's namespace that has this number.
fn run(program: &OwnedFd, frame: &[u8], device: u32) -> io::Result<()> {
    // `struct xdp_md` (linux/bpf.h): data, its end, what lies before it, the device, its queue, the device to leave by.
    let words = [0, frame.len() as u32, 0, device, 0, 0];
    let context: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    test_run(program, frame, &context, AT_ONCE, BPF_F_TEST_XDP_LIVE_FRAMES).map(drop)
}

/// With GRO a veth takes frames from a ring, as a card does, and only then whole frames of XDP (veth_xdp_xmit in
/// drivers/net/veth.c).
fn set_gro(device: &str) -> io::Result<()> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_SGRO: u32 = 0x2c;
    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = [ETHTOOL_SGRO, 1];
    // SAFETY: ifreq is plain C data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: SIOCETHTOOL takes an ifreq whose data is a `struct ethtool_value`; both outlive the call.
    let done = unsafe { libc::ioctl(control.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
