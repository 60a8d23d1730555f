//! Neighbours of the calling thread's network namespace, by the old interface, which takes no program: arp(7).

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// ATF_COM of linux/if_arp.h: the address is complete.
const COMPLETE: libc::c_int = 0x02;

/// Makes every complete entry permanent.
pub(crate) fn keep() -> io::Result<()> {
    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let table = fs::read_to_string("/proc/thread-self/net/arp")?;
    table.lines().skip(1).filter_map(entry).try_for_each(|entry| set(&control, &entry))
}

/// A line of /proc/net/arp: address, type, flags, hardware address, mask, device.
struct Entry<'a> {
    address: Ipv4Addr,
    mac: [u8; 6],
    device: &'a str,
}

fn entry(line: &str) -> Option<Entry<'_>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [address, _, flags, mac, _, device] = words[..] else { return None };
    let flags = libc::c_int::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
    let bytes: Option<Vec<u8>> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let entry = Entry { address: address.parse().ok()?, mac: bytes?.try_into().ok()?, device };
    (flags & COMPLETE != 0).then_some(entry)
}

fn set(control: &OwnedFd, entry: &Entry<'_>) -> io::Result<()> {
    // SAFETY: arpreq is plain C data, for which all zeroes is a value.
    let mut request: libc::arpreq = unsafe { std::mem::zeroed() };
    request.arp_pa.sa_family = libc::AF_INET as libc::sa_family_t;
    // Behind the port of a sockaddr_in.
    let address = entry.address.octets();
    request.arp_pa.sa_data[2..6].iter_mut().zip(address).for_each(|(to, byte)| *to = byte.cast_signed());
    request.arp_ha.sa_family = libc::ARPHRD_ETHER;
    request.arp_ha.sa_data.iter_mut().zip(entry.mac).for_each(|(to, byte)| *to = byte.cast_signed());
    request.arp_dev.iter_mut().zip(entry.device.bytes()).for_each(|(to, byte)| *to = byte.cast_signed());
    request.arp_flags = COMPLETE | libc::ATF_PERM;
    // SAFETY: SIOCSARP reads an arpreq, and `request` is one that outlives the call.
    let done = unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSARP, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = "10.10.1.12       0x1         0x2         02:00:00:00:00:0c     *        eth0";
        let found = entry(line).unwrap();
        assert_eq!((found.address, found.mac[5], found.device), (Ipv4Addr::new(10, 10, 1, 12), 12, "eth0"));
        assert!(entry(&line.replace("0x2", "0x0")).is_none(), "nobody has answered yet");
        assert!(entry("IP address HW type").is_none());
    }
}
