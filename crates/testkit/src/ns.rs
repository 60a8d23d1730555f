//! One network namespace (network_namespaces(7)).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::child::{Child, Output};
use crate::command::Command;
use crate::nursery::Nursery;

/// Where ip(8) looks for names (ip-netns(8)). A tmpfs of the lab's own lies over it.
pub(crate) const NAMES: &str = "/run/netns";

/// A network namespace with `lo` up. Cloning it makes a second handle, not a second namespace.
///
/// Programs enter by setns(2): `ip netns exec` would mount a fresh /sys that lacks cgroup2 and bpffs.
#[derive(Clone)]
pub struct Ns {
    inner: Arc<Inner>,
}

struct Inner {
    short: String,
    name: String,
    file: File,
    dir: PathBuf,
    nursery: Nursery,
}

impl Ns {
    /// Makes the namespace and gives it a name for ip(8); called on the nursery's thread.
    pub(crate) fn create(short: &str, name: String, dir: PathBuf, nursery: Nursery) -> io::Result<Ns> {
        let path = Path::new(NAMES).join(&name);
        let made = path.clone();
        // A thread for it alone: the nursery must stay where it is.
        let file =
            std::thread::spawn(move || unshared(&made)).join().expect("making a namespace does not panic")?;
        Ok(Ns { inner: Arc::new(Inner { short: short.to_owned(), name, file, dir, nursery }) })
    }

    /// The name it has in the test.
    pub fn short(&self) -> &str {
        &self.inner.short
    }

    /// The name that `ip netns` shows inside the lab.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The file that stands for it, below `/run/netns`. Exists only in the lab's mount namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.inner.name)
    }

    /// Its inode number, as in `readlink /proc/PID/ns/net`.
    pub fn inode(&self) -> u64 {
        rustix::fs::fstat(&self.inner.file).expect("an open file has a status").st_ino
    }

    /// Runs `work` inside, on a thread of its own. A panic goes through.
    ///
    /// Sockets opened there belong to this namespace for ever and can be handed out.
    #[track_caller]
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = move || {
            setns(&self.inner.file, CloneFlags::CLONE_NEWNET).expect("root may enter the namespace");
            work()
        };
        match std::thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A program to run inside, with everything about it still open.
    pub fn command<S: AsRef<OsStr>>(&self, argv: &[S]) -> Command {
        Command::new(self, argv)
    }

    /// Runs a program inside to its end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, argv: &[S]) -> Output {
        self.command(argv).run()
    }

    /// Runs a line of sh(1) inside to its end.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Output {
        self.run(&["sh", "-c", line])
    }

    /// Starts a program inside.
    #[track_caller]
    pub fn spawn<S: AsRef<OsStr>>(&self, argv: &[S]) -> Child {
        self.command(argv).spawn()
    }

    /// Starts a program inside and in a cgroup.
    #[track_caller]
    pub fn spawn_in_cgroup<S: AsRef<OsStr>>(&self, cgroup: &Path, argv: &[S]) -> Child {
        self.command(argv).cgroup(cgroup).spawn()
    }

    /// Runs many lines of ip(8) in one process (`ip -batch`); every one must succeed.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        let output = self.command(&["ip", "-batch", "-"]).input(lines).run();
        assert!(output.success(), "{output}\nof the lines:\n{lines}");
    }

    /// Loads nftables rules (`nft -f -`), which must succeed.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        self.command(&["nft", "-f", "-"]).input(rules).run().ok();
    }

    /// Reads a sysctl of this namespace, by its name with dots, or with slashes where a device's name has dots.
    #[track_caller]
    pub fn sysctl(&self, name: &str) -> String {
        let path = sysctl_path(name);
        let read = self.enter(|| fs::read_to_string(&path));
        read.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim_end().to_owned()
    }

    /// Writes a sysctl of this namespace. Only names below `net` belong to a namespace, so only those are taken.
    #[track_caller]
    pub fn set_sysctl(&self, name: &str, value: impl ToString) {
        let (path, value) = (sysctl_path(name), value.to_string());
        let written = self.enter(|| fs::write(&path, value));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The number of a device.
    #[track_caller]
    pub fn ifindex(&self, device: &str) -> u32 {
        let index = self.enter(|| nix::net::if_::if_nametoindex(device));
        index.unwrap_or_else(|error| panic!("no device {device} in {}: {error}", self.short()))
    }

    /// The Ethernet address of a device.
    #[track_caller]
    pub fn mac(&self, device: &str) -> [u8; 6] {
        let of_device = |entry: nix::ifaddrs::InterfaceAddress| {
            let link = entry.address.filter(|_| entry.interface_name == device);
            link.and_then(|address| address.as_link_addr()?.addr())
        };
        let found =
            self.enter(|| nix::ifaddrs::getifaddrs().expect("addresses can be listed").find_map(of_device));
        found.unwrap_or_else(|| panic!("no device {device} with an Ethernet address in {}", self.short()))
    }

    /// Makes the IPv4 neighbours that are known now permanent. The kernel's table of those that are not is one for all
    /// namespaces of a machine (`gc_thresh3`, arp(7)): a thousand of them that speak at the same time overflow it.
    #[track_caller]
    pub fn keep_neighbours(&self) {
        let kept = self.enter(crate::neighbours::keep);
        kept.unwrap_or_else(|error| panic!("cannot keep the neighbours of {}: {error}", self.short()));
    }

    /// A second descriptor of the namespace.
    pub(crate) fn file(&self) -> io::Result<OwnedFd> {
        Ok(self.inner.file.try_clone()?.into())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub(crate) fn nursery(&self) -> &Nursery {
        &self.inner.nursery
    }
}

impl std::fmt::Debug for Ns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ns").field(&self.inner.name).finish()
    }
}

/// Moves the calling thread into a new namespace, makes it ready and binds it to `path`.
fn unshared(path: &Path) -> io::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    // Duplicate address detection would keep every address of a test back for a second (ip-sysctl.rst).
    for scope in ["all", "default"] {
        drop(fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0"));
    }
    loopback_up()?;
    // "thread-self": "self" is the process, which is elsewhere.
    let own = "/proc/thread-self/ns/net";
    File::create(path)?;
    nix::mount::mount(Some(own), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    File::open(own)
}

/// `ip link set lo up` without starting a program, which is most of what making a namespace would cost (netdevice(7)).
fn loopback_up() -> io::Result<()> {
    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain C data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq with its name and flags, and `request` is one that outlives the call.
    let done = unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn sysctl_path(name: &str) -> PathBuf {
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    assert!(relative.starts_with("net/"), "{name} would be the whole machine's");
    Path::new("/proc/sys").join(relative)
}
