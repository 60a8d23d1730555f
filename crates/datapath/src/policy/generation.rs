//! The generations, and how to wait until no program looks at an older one.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::Map;

use crate::DatapathError;
use crate::maps::take;

const NAME: &str = "policy_now";
/// linux/membarrier.h
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// How many slots there can be.
pub(super) const SLOTS: u32 = 65_536;
/// Bytes of the mapping.
const LENGTH: usize = SLOTS as usize * size_of::<AtomicU64>();

/// The numbers in the map, one for each slot, mapped into this process: raised in one store, which no packet sees half of.
pub(super) struct Generations {
    numbers: NonNull<AtomicU64>,
}

// SAFETY: atomic numbers in a mapping that is this value's own.
unsafe impl Send for Generations {}

impl Generations {
    pub(super) fn open(programs: &mut Ebpf) -> Result<Generations, DatapathError> {
        let failed = |error: String| DatapathError::Map { map: NAME, error };
        let Map::Array(data) = take(programs, NAME)? else { return Err(failed("not an array".into())) };
        // SAFETY: a new mapping, which nothing else of this process lies in; the kernel gives no more than the map has.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                LENGTH,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(failed(std::io::Error::last_os_error().to_string()));
        }
        let numbers = NonNull::new(mapped.cast()).ok_or_else(|| failed("mapped at zero".into()))?;
        Ok(Generations { numbers })
    }

    fn number(&self, slot: u16) -> &AtomicU64 {
        // SAFETY: one of as many numbers as a slot has values; the mapping lives as long as this value, and a page begins
        // aligned.
        unsafe { self.numbers.add(usize::from(slot)).as_ref() }
    }

    /// 0: nothing is in force there yet.
    pub(super) fn get(&self, slot: u16) -> u32 {
        // Programs know no more of it.
        self.number(slot).load(Ordering::Acquire) as u32
    }

    pub(super) fn raise(&self, slot: u16) {
        self.number(slot).fetch_add(1, Ordering::Release);
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        // SAFETY: the whole of the mapping made by `open`; the only references into it are borrowed from `self`.
        let _ = unsafe { libc::munmap(self.numbers.as_ptr().cast(), LENGTH) };
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
