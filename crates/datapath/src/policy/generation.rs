//! The generation, and how to wait until no program looks at an older one.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::Map;

use crate::DatapathError;
use crate::maps::take;

const NAME: &str = "policy_now";
/// linux/membarrier.h
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// The number in the map, mapped into this process: raised in one store, which no packet sees half of.
pub(super) struct Generation {
    number: NonNull<AtomicU32>,
}

// SAFETY: an atomic number in a mapping that is this value's own.
unsafe impl Send for Generation {}

impl Generation {
    pub(super) fn open(programs: &mut Ebpf) -> Result<Generation, DatapathError> {
        let failed = |error: String| DatapathError::Map { map: NAME, error };
        let Map::Array(data) = take(programs, NAME)? else { return Err(failed("not an array".into())) };
        // SAFETY: a new mapping, which nothing else of this process lies in; the kernel makes it a whole page.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<AtomicU32>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(failed(std::io::Error::last_os_error().to_string()));
        }
        let number = NonNull::new(mapped.cast()).ok_or_else(|| failed("mapped at zero".into()))?;
        Ok(Generation { number })
    }

    fn number(&self) -> &AtomicU32 {
        // SAFETY: the first bytes of the mapping, which lives as long as this value; a page begins aligned.
        unsafe { self.number.as_ref() }
    }

    pub(super) fn get(&self) -> u32 {
        self.number().load(Ordering::Acquire)
    }

    pub(super) fn raise(&self, to: u32) {
        self.number().store(to, Ordering::Release);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // SAFETY: the whole of the mapping made by `open`; the only references into it are borrowed from `self`.
        let _ = unsafe { libc::munmap(self.number.as_ptr().cast(), size_of::<AtomicU32>()) };
    }
}

/// Returns when every program that was running has ended: membarrier(2) waits for an RCU grace period
/// (kernel/sched/membarrier.c), and programs run inside of its readers' sections. Kernels with tickless processors
/// refuse it (EINVAL); there they have a tenth of a second, in which none that runs with interrupts off is still at it.
pub(super) fn wait_for_programs() {
    // SAFETY: numbers only; it returns when others' work is done and changes nothing.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
