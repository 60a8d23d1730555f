//! The cgroup of a lab, in the version 2 hierarchy wherever that is mounted (cgroups(7)).

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use crate::poll::attempt;

/// Names of our directories begin so; the pid follows.
const PREFIX: &str = "fief-lab-";

/// A directory in the cgroup v2 tree, removed with everything below it on drop.
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup whose name carries our pid, and removes those of labs that were killed.
    pub(crate) fn create(name: &str) -> io::Result<Cgroup> {
        let root = mount_point(&fs::read_to_string("/proc/self/mountinfo")?)
            .ok_or_else(|| io::Error::other("no cgroup2 file system is mounted"))?;
        sweep(&root);
        let path = root.join(format!("{PREFIX}{}-{name}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Cgroup { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Linux 5.14 and later; processes leave the cgroup some time after they are killed.
        drop(fs::write(self.path.join("cgroup.kill"), "1"));
        let gone = attempt(Duration::from_secs(5), || {
            remove_tree(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))
        });
        if let Err(why) = gone {
            eprintln!("LEFTOVER cgroup {why}");
        }
    }
}

/// The mount point of the cgroup2 file system in the text of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let is_v2 = source.split(' ').next() == Some("cgroup2");
        is_v2.then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
    })
}

/// Removes the empty cgroups of processes that are no more.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            drop(remove_tree(&entry.path()));
        }
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_found_beside_version_1() {
        let text = "36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(text), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("36 31 0:33 / /x rw - cgroup cgroup2 rw"), None);
    }
}
