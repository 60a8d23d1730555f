//! Control groups, version 2 (cgroups(7)).

use std::path::{Path, PathBuf};

use crate::HostError;

/// Where the version 2 hierarchy is mounted: found in /proc/self/mountinfo, never assumed, because systems that
/// also mount version 1 keep it below /sys/fs/cgroup.
pub fn mount_point() -> Result<PathBuf, HostError> {
    let text =
        std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| HostError::io("read mountinfo", e))?;
    mount_point_in(&text).ok_or_else(|| {
        HostError::Missing(
            "no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup".into(),
        )
    })
}

/// Makes a control group and the ones above it, if missing.
pub fn create(path: &Path) -> Result<(), HostError> {
    std::fs::create_dir_all(path)
        .map_err(|e| HostError::io(format!("create control group {}", path.display()), e))
}

/// Removes a control group, if it is there and empty of processes.
pub fn remove(path: &Path) -> Result<(), HostError> {
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(HostError::io(format!("remove control group {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// mountinfo: `ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS [TAGS...] - TYPE SOURCE SUPER` (proc_pid_mountinfo(5)).
fn mount_point_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == "cgroup2").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_2_mount_is_found_beside_version_1() {
        let mounts = "30 29 0:25 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                      31 29 0:26 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point_in(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point_in(mounts.lines().next().unwrap()), None);
    }
}
