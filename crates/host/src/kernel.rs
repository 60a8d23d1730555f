//! What this kernel is and has.

use std::path::Path;

use rustix::system::uname;

use crate::HostError;

/// The oldest kernel fief runs on: tcx (6.6) and PIDFD_THREAD (6.9), rounded up to the LTS.
pub const FLOOR: (u32, u32) = (6, 12);

/// The running kernel's version.
pub fn version() -> (u32, u32) {
    let release = uname().release().to_string_lossy().into_owned();
    parse(&release)
}

/// Refuses a kernel below [`FLOOR`].
pub fn require_floor() -> Result<(), HostError> {
    let (major, minor) = version();
    if (major, minor) >= FLOOR {
        return Ok(());
    }
    let (floor_major, floor_minor) = FLOOR;
    Err(HostError::Missing(format!(
        "this kernel is Linux {major}.{minor}; fief needs {floor_major}.{floor_minor} or later \
         (Debian 12: linux-image-amd64 from bookworm-backports)"
    )))
}

/// Is IPv6 there at all? `ipv6.disable=1` on the kernel's command line takes it away, with its sysctls.
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// What there is of programs that judge at a port's end (cls_bpf).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classifiers {
    /// They are in the kernel.
    Ready,
    /// They are a module, which the kernel loads when they are wanted.
    Loadable,
    /// There are none.
    Missing,
}

/// Looks for classifiers, in what runs and in what this kernel could load.
pub fn classifiers() -> Classifiers {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let modules = format!("/lib/modules/{}/modules.dep", uname().release().to_string_lossy());
    classifiers_in(&symbols, &std::fs::read_to_string(modules).unwrap_or_default())
}

fn classifiers_in(symbols: &str, modules: &str) -> Classifiers {
    let is_module = |line: &str| {
        line.split(':')
            .next()
            .and_then(|path| path.rsplit('/').next())
            .is_some_and(|name| name.starts_with("cls_bpf.ko"))
    };
    if symbols.lines().any(|line| line.split_whitespace().nth(2) == Some("cls_bpf_classify")) {
        Classifiers::Ready
    } else if modules.lines().any(is_module) {
        Classifiers::Loadable
    } else {
        Classifiers::Missing
    }
}

/// The capabilities fief needs and this process lacks (capabilities(7)), by name.
pub fn missing_capabilities() -> Vec<&'static str> {
    const NEEDED: [(u32, &str); 4] =
        [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    NEEDED.into_iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| name).collect()
}

/// The inode number of the current thread's network namespace: what `ls -L /proc/self/ns/net` shows.
pub fn network_namespace() -> Result<u64, HostError> {
    let stat = rustix::fs::stat("/proc/thread-self/ns/net")
        .map_err(|e| HostError::io("look at the network namespace", e))?;
    Ok(stat.st_ino)
}

/// The cookie of the current thread's network namespace (SO_NETNS_COOKIE, Linux 5.14): what
/// bpf_get_netns_cookie() returns.
pub fn network_namespace_cookie() -> Result<u64, HostError> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let what = "read the network namespace's cookie";
    let probe = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(|e| HostError::io(what, e))?;
    netns_cookie(&probe).map_err(|e| HostError::io(what, e))
}

/// Is there a file system of this type at a path (statfs(2) magic)?
pub fn is_bpffs(path: &Path) -> bool {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type as u64 == BPF_FS_MAGIC)
}

/// Mounts a bpf file system at a path, unless one is there.
pub fn mount_bpffs(path: &Path) -> Result<(), HostError> {
    if is_bpffs(path) {
        return Ok(());
    }
    let what = || format!("mount a bpf file system at {}", path.display());
    std::fs::create_dir_all(path).map_err(|e| HostError::io(what(), e))?;
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount("bpf", path, "bpf", flags, Some(c"mode=0700")).map_err(|e| HostError::io(what(), e))
}

pub(crate) fn netns_cookie(socket: &std::os::fd::OwnedFd) -> std::io::Result<u64> {
    use std::os::fd::AsRawFd;
    const SO_NETNS_COOKIE: i32 = 71;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: both pointers describe locals that outlive the call, and `length` is the size of `cookie`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &mut length,
        )
    };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(cookie) }
}

fn parse(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parse("6.12.43+deb12-amd64"), (6, 12));
        assert!(parse("6.9.1") < FLOOR && parse("6.12-rc1") >= FLOOR && parse("7.0") > FLOOR);
    }

    #[test]
    fn classifiers_are_in_the_kernel_or_a_module_or_nowhere() {
        let symbols = "0000000000000000 T cls_bpf_exec\n0000000000000000 t cls_bpf_classify\t[cls_bpf]\n";
        let modules = "kernel/net/sched/act_bpf.ko.xz:\nkernel/net/sched/cls_bpf.ko.xz: kernel/lib/x.ko\n";
        assert_eq!(classifiers_in(symbols, ""), Classifiers::Ready);
        assert_eq!(classifiers_in("", modules), Classifiers::Loadable);
        assert_eq!(
            classifiers_in("0 t cls_bpf_classify_not\n", "kernel/net/sched/act_bpf.ko: cls_bpf.ko\n"),
            Classifiers::Missing
        );
    }
}
