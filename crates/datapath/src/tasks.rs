//! The tenants of threads and processes: task storage (BPF_MAP_TYPE_TASK_STORAGE), which from outside is asked by pidfd
//! (pidfd_open(2); for a thread that is not its group's leader with PIDFD_THREAD, Linux 6.9). aya has no word for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::maps::{Map, MapData};
use aya_obj::generated::bpf_cmd;

use crate::syscall::call;

/// `struct task_tenant`: the slots of one task, 0 where there is none.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskTenant {
    /// What the thread has chosen.
    pub thread: u32,
    /// In a thread group's leader: what the process begins with.
    pub process: u32,
}

/// The map of task storage.
pub struct Tasks {
    map: MapData,
}

/// BPF_MAP_LOOKUP_ELEM's and BPF_MAP_UPDATE_ELEM's part of `union bpf_attr`.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Tasks {
    pub(crate) fn new(map: Map) -> Option<Tasks> {
        match map {
            Map::Unsupported(map) => Some(Tasks { map }),
            _ => None,
        }
    }

    /// What the task of this pidfd has; `None` if nothing was ever said of it, or it is gone.
    pub fn of(&self, pidfd: BorrowedFd<'_>) -> Option<TaskTenant> {
        let mut value = TaskTenant::default();
        self.element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, pidfd.as_raw_fd(), &mut value).ok()?;
        Some(value)
    }

    /// Writes it.
    pub fn set(&self, pidfd: BorrowedFd<'_>, mut value: TaskTenant) -> io::Result<()> {
        self.element(bpf_cmd::BPF_MAP_UPDATE_ELEM, pidfd.as_raw_fd(), &mut value)
    }

    fn element(&self, command: bpf_cmd, pidfd: RawFd, value: &mut TaskTenant) -> io::Result<()> {
        let attr = ElementAttr {
            map_fd: self.map.fd().as_fd().as_raw_fd().cast_unsigned(),
            pad: 0,
            key: (&raw const pidfd) as u64,
            value: std::ptr::from_mut(value) as u64,
            flags: 0,
        };
        call(command, &attr).map(drop)
    }
}
