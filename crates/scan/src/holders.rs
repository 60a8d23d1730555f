//! Which process has a socket (proc_pid_fd(5)).

use std::collections::HashMap;

/// Names of processes by the inode of a socket they hold; read when it is first asked for.
#[derive(Default)]
pub(crate) struct Holders(Option<HashMap<u32, String>>);

impl Holders {
    /// The name of a process that holds this socket.
    pub(crate) fn of(&mut self, inode: u32) -> Option<String> {
        self.0.get_or_insert_with(read).get(&inode).cloned()
    }
}

fn read() -> HashMap<u32, String> {
    let mut holders = HashMap::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if process.file_name().to_string_lossy().parse::<u32>().is_err() {
            continue;
        }
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        for descriptor in descriptors.flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            if let Some(inode) = inode.and_then(|number| number.parse().ok()) {
                holders.entry(inode).or_insert_with(|| name.trim_end().to_owned());
            }
        }
    }
    holders
}
