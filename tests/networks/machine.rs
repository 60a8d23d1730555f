//! A virtual machine without a hypervisor: what QEMU does with a TAP device, and Linux as the guest.
//!
//! ```text
//!   fief's side                 this process                  guest namespace
//!   [tap NAME]  ── read/write ── the machine ── read/write ── [eth0], a TAP device too
//! ```
//!
//! Whatever the guest's stack says arrives at the TAP device as bytes from a file descriptor, and nothing else does.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use fief_testkit::Ns;
use nix::sched::{CloneFlags, setns};

/// How often the machine looks whether it should end, in milliseconds.
const TICK: i32 = 20;

/// A running machine; off on drop.
pub struct Machine {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Switches it on: its network card is `outer`, and `guest` gets the far side of the card as `eth0`, up.
    #[track_caller]
    pub fn start(outer: File, guest: &Ns, mac: &str) -> Machine {
        let inner = guest.enter(|| tap("eth0")).expect("root may make a TAP device");
        guest.ip(&format!("link set eth0 address {mac}\nlink set eth0 up\n"));
        let end = Arc::new(AtomicBool::new(false));
        let stop = end.clone();
        let thread = std::thread::spawn(move || run(&outer, &inner, &stop));
        Machine { end, thread: Some(thread) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Opens the TAP device of this name in the namespace of the calling thread, or makes it (tuntap.rst).
pub fn tap(name: &str) -> io::Result<File> {
    // One that was made with many queues wants to be opened so.
    open_tap(name, 0).or_else(|_| open_tap(name, libc::IFF_MULTI_QUEUE))
}

/// Does `work` in the namespace that a file stands for.
pub fn in_namespace<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let file = File::open(path)?;
    std::thread::scope(|scope| {
        let inside = move || setns(&file, CloneFlags::CLONE_NEWNET).map(|()| work());
        scope.spawn(inside).join().expect("the work does not panic").map_err(io::Error::from)
    })
}

fn open_tap(name: &str, more: libc::c_int) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain C data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(name.len() < request.ifr_name.len(), "{name:?} is too long for a device");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | more) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, and `request` is one.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

/// Carries frames both ways until the end.
fn run(outer: &File, inner: &File, end: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    let ear = |file: &File| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    while !end.load(Ordering::Relaxed) {
        let mut ears = [ear(outer), ear(inner)];
        // SAFETY: the pointer is to as many pollfd as are said to be there.
        let ready = unsafe { libc::poll(ears.as_mut_ptr(), ears.len() as libc::nfds_t, TICK) };
        if ready < 0 {
            return;
        }
        for (ear, (mut from, mut to)) in ears.iter().zip([(outer, inner), (inner, outer)]) {
            if ear.revents & libc::POLLIN != 0 {
                // A device that is down takes nothing, as a cable that is not plugged in.
                let length = from.read(&mut buffer).unwrap_or(0);
                drop(to.write(&buffer[..length]));
            } else if ear.revents != 0 {
                // The device was taken away.
                return;
            }
        }
    }
}
