//! The tables of iptables and ip6tables as they were before nf_tables (ip_tables.c, ip6_tables.c): read only.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::AddressFamily;

use crate::{Family, HostError};

/// IPT_SO_GET_INFO and IP6T_SO_GET_INFO; the entries are one further.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// XT_TABLE_MAXNAMELEN.
const NAME: usize = 32;

/// `struct ipt_getinfo`, the same in both families: name, hooks that are there, where their chains begin, where they end,
/// number of entries, bytes of entries.
const INFO: usize = NAME + 4 + 20 + 20 + 4 + 4;
const VALID_HOOKS: usize = NAME;
const HOOK_ENTRY: usize = NAME + 4;
const SIZE: usize = INFO - 4;

/// `struct ipt_get_entries` before its entries, which are aligned to 8.
const ENTRIES_AT: usize = 40;

/// A table as the kernel keeps it.
pub struct Table {
    /// Where the chain of each hook begins; `u32::MAX` where the table has none.
    pub hooks: [u32; 5],
    /// `struct ipt_entry`s or `struct ip6t_entry`s, one behind the other.
    pub entries: Vec<u8>,
}

/// The tables that the current thread's network namespace has.
pub fn names(family: Family) -> Vec<String> {
    let file = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Reads a table. Errors with EAGAIN if it changed meanwhile, more often than is patient.
pub fn read(family: Family, table: &str) -> Result<Table, HostError> {
    let failed = |e: io::Error| HostError::io(format!("read table {table} of iptables"), e);
    let mut last = io::Error::from_raw_os_error(libc::EAGAIN);
    for _ in 0..5 {
        match try_to_read(family, table) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => last = error,
            other => return other.map_err(failed),
        }
    }
    Err(failed(last))
}

fn try_to_read(family: Family, table: &str) -> io::Result<Table> {
    let (domain, level) = match family {
        Family::V4 => (AddressFamily::INET, libc::SOL_IP),
        Family::V6 => (AddressFamily::INET6, libc::SOL_IPV6),
    };
    let socket = rustix::net::socket(domain, rustix::net::SocketType::RAW, Some(rustix::net::ipproto::RAW))?;
    let mut name = [0; NAME];
    name.iter_mut().take(NAME - 1).zip(table.bytes()).for_each(|(to, byte)| *to = byte);
    let mut info = [0_u8; INFO];
    info[..NAME].copy_from_slice(&name);
    option(&socket, level, GET_INFO, &mut info)?;
    let word = |at: usize| {
        let [a, b, c, d] = [info[at], info[at + 1], info[at + 2], info[at + 3]];
        u32::from_ne_bytes([a, b, c, d])
    };
    let valid = word(VALID_HOOKS);
    let hooks = std::array::from_fn(|hook| match valid >> hook & 1 {
        1 => word(HOOK_ENTRY + 4 * hook),
        _ => u32::MAX,
    });
    let size = word(SIZE);
    let mut entries = vec![0; ENTRIES_AT + size as usize];
    entries[..NAME].copy_from_slice(&name);
    entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    option(&socket, level, GET_ENTRIES, &mut entries)?;
    Ok(Table { hooks, entries: entries.split_off(ENTRIES_AT) })
}

fn option(socket: &OwnedFd, level: i32, name: i32, value: &mut [u8]) -> io::Result<()> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the pointer and length describe `value`, which outlives the call, and the kernel writes no more than that.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
