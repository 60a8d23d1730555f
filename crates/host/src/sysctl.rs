//! Switches under /proc/sys (sysctl(8)) of the current network namespace.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::HostError;

/// Reads one, without the newline. `name` has dots, as `net.ipv4.fwmark_reflect`; a device name in it is given
/// with its dots as slashes.
pub fn read(name: &str) -> Result<String, HostError> {
    let text =
        std::fs::read_to_string(path(name)).map_err(|e| HostError::io(format!("read sysctl {name}"), e))?;
    Ok(text.trim_end().to_owned())
}

/// Writes one.
pub fn write(name: &str, value: &str) -> Result<(), HostError> {
    std::fs::write(path(name), value).map_err(|e| HostError::io(format!("set sysctl {name} to {value}"), e))
}

/// Writes several, in order; the first that is refused ends it.
///
/// Every network namespace has its own entry for `net/ipv4` in the one directory `net`, and the kernel compares with all
/// of them (proc_sys_compare in fs/proc/proc_sysctl.c). So what is below is reached through a directory that was looked
/// for once: with thousands of namespaces that is most of the time.
pub fn write_all(switches: &[(&str, &str)]) -> Result<(), HostError> {
    let mut opened: BTreeMap<PathBuf, OwnedFd> = BTreeMap::new();
    for (name, value) in switches {
        let path = path(name);
        let components = path.components().count().min(SHARED);
        let (shared, rest): (PathBuf, PathBuf) =
            (path.components().take(components).collect(), path.components().skip(components).collect());
        let write = || -> io::Result<()> {
            let directory = match opened.entry(shared) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(missing) => {
                    let directory = open(missing.key())?;
                    missing.insert(directory)
                }
            };
            let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
            let file = rustix::fs::openat(directory, &rest, flags, Mode::empty())?;
            File::from(file).write_all(value.as_bytes())
        };
        write().map_err(|e| HostError::io(format!("set sysctl {name} to {value}"), e))?;
    }
    Ok(())
}

/// On which of these devices rp_filter is in force, by its own switch; `all` is the switch of all (ip-sysctl.rst). One that
/// is not there has none.
pub fn reverse_path_filters<'a>(devices: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let Ok(directory) = open(Path::new("/proc/sys/net/ipv4/conf")) else { return Vec::new() };
    let is_set = |device: &&str| {
        let name = Path::new(device).join("rp_filter");
        let opened = rustix::fs::openat(&directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut text = String::new();
        let read = opened.is_ok_and(|file| File::from(file).read_to_string(&mut text).is_ok());
        read && text.trim().parse::<u8>().is_ok_and(|value| value != 0)
    };
    devices.into_iter().filter(is_set).collect()
}

/// Components of a path to the directory of one namespace: `/`, `proc`, `sys`, `net`, `ipv4`.
const SHARED: usize = 5;

fn open(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::empty())?)
}

fn path(name: &str) -> PathBuf {
    // /proc/sys is a view of the reader's own namespace; see proc_sys(5).
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    Path::new("/proc/sys").join(name.chars().map(swap).collect::<String>())
}
