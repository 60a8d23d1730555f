//! One question to one target, out by one device: does it answer?
//!
//! The socket is bound to the device (SO_BINDTOIFINDEX, socket(7)) and to a source address, so no route of another
//! device serves the question, and an answer that comes in elsewhere is not one. Unprivileged echo sockets would be
//! simpler, but no group may open them until somebody sets `net.ipv4.ping_group_range` (icmp(7)).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, recv, sendto,
    socket_with, sockopt,
};

use crate::HostError;
use crate::packet::{Arp, set};

/// Who is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A neighbour of the device: by ARP (RFC 826), or by an echo where the device has none.
    Neighbour(Ipv4Addr),
    /// Anybody, by an ICMP echo (RFC 792).
    Echo(Ipv4Addr),
    /// A TCP port; one that is closed answers as well.
    Tcp(SocketAddrV4),
}

/// A question under way. It is withdrawn by dropping it.
#[derive(Debug)]
pub struct Question(Asked);

#[derive(Debug)]
enum Asked {
    Arp { socket: OwnedFd, target: Ipv4Addr },
    Echo { socket: OwnedFd, target: Ipv4Addr, number: [u8; 4] },
    Tcp { socket: OwnedFd },
}

/// ICMP_FILTER of linux/icmp.h, an option of raw(7) sockets at their own level.
const ICMP_FILTER: libc::c_int = 1;
const SOL_RAW: libc::c_int = 255;
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// An IPv4 header without options, and the part of an echo that we look at.
const LEAST_HEADER: usize = 20;
const MESSAGE: usize = 8;

impl Question {
    /// Asks from the current thread's network namespace. `number` tells this question from others.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and sendto(2): the device or the address is not there, or there is no route.
    pub fn ask(device: u32, source: Ipv4Addr, target: Target, number: u32) -> Result<Question, HostError> {
        let asked = match target {
            Target::Neighbour(address) => match arp(device, source, address) {
                Ok(Some(asked)) => Ok(asked),
                Ok(None) => echo(device, source, address, number),
                Err(error) => Err(error),
            },
            Target::Echo(address) => echo(device, source, address, number),
            Target::Tcp(address) => tcp(device, source, address),
        };
        asked.map(Question).map_err(|e| HostError::io(format!("ask {target:?} by device #{device}"), e))
    }

    /// Reads what has come. Says whether the answer is among it.
    ///
    /// # Errors
    /// The device went, or the network told that the target is not reached.
    pub fn is_answered(&self) -> io::Result<bool> {
        match &self.0 {
            Asked::Arp { socket, target } => read(socket, |packet| is_arp_reply(packet, *target)),
            Asked::Echo { socket, target, number } => {
                read(socket, |packet| is_echo_reply(packet, *target, *number))
            }
            // Connected, refused, or neither yet.
            Asked::Tcp { socket } => match sockopt::socket_error(socket)? {
                Ok(()) => Ok(rustix::net::getpeername(socket).is_ok()),
                Err(Errno::CONNREFUSED) => Ok(true),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Does it become writable with the answer, or readable?
    pub fn is_written(&self) -> bool {
        matches!(self.0, Asked::Tcp { .. })
    }
}

impl AsFd for Question {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Asked::Arp { socket, .. } | Asked::Echo { socket, .. } | Asked::Tcp { socket } => socket.as_fd(),
        }
    }
}

/// `None` where the device has no ARP.
fn arp(device: u32, source: Ipv4Addr, target: Ipv4Addr) -> io::Result<Option<Asked>> {
    let Some(arp) = Arp::open(device)? else { return Ok(None) };
    arp.request(source, target)?;
    Ok(Some(Asked::Arp { socket: arp.into(), target }))
}

fn echo(device: u32, source: Ipv4Addr, target: Ipv4Addr, number: u32) -> io::Result<Asked> {
    let socket = bound(device, source, SocketType::RAW, Some(ipproto::ICMP))?;
    // A bit for each type that does not come.
    set(&socket, SOL_RAW, ICMP_FILTER, &!(1_u32 << ECHO_REPLY))?;
    let number = number.to_be_bytes();
    let mut message = [ECHO, 0, 0, 0, number[0], number[1], number[2], number[3]];
    let [high, low] = checksum(&message).to_be_bytes();
    (message[2], message[3]) = (high, low);
    sendto(&socket, &message, SendFlags::NOSIGNAL, &SocketAddrV4::new(target, 0))?;
    Ok(Asked::Echo { socket, target, number })
}

fn tcp(device: u32, source: Ipv4Addr, target: SocketAddrV4) -> io::Result<Asked> {
    let socket = bound(device, source, SocketType::STREAM, None)?;
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(Asked::Tcp { socket }),
        Err(error) => Err(error.into()),
    }
}

fn bound(
    device: u32,
    source: Ipv4Addr,
    kind: SocketType,
    protocol: Option<rustix::net::Protocol>,
) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, kind, flags, protocol)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &device.cast_signed())?;
    // Whose sockets this process's are by default is not asked: this is the host's own.
    set(&socket, libc::SOL_SOCKET, libc::SO_MARK, &0_u32)?;
    bind(&socket, &SocketAddrV4::new(source, 0))?;
    Ok(socket)
}

/// Reads all that waits, until one is the answer.
fn read(socket: &OwnedFd, is_answer: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    let mut buffer = [0; 256];
    loop {
        match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) if buffer.get(..length).is_some_and(&is_answer) => return Ok(true),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who sends a reply says so behind the fixed part and its Ethernet address (RFC 826).
fn is_arp_reply(packet: &[u8], target: Ipv4Addr) -> bool {
    packet.get(6..8) == Some(&[0, 2]) && packet.get(14..18) == Some(&target.octets())
}

fn is_echo_reply(packet: &[u8], target: Ipv4Addr, number: [u8; 4]) -> bool {
    let length = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4).max(LEAST_HEADER);
    let Some(message) = packet.get(length..length + MESSAGE) else { return false };
    packet.get(12..16) == Some(&target.octets()) && message[0] == ECHO_REPLY && message[4..] == number
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[test]
    fn an_echo_has_the_checksum_of_its_bytes() {
        // What is right sums to zero with its checksum in it.
        let mut message = [ECHO, 0, 0, 0, 0xab, 0xcd, 0xff, 0xfe];
        let [high, low] = checksum(&message).to_be_bytes();
        (message[2], message[3]) = (high, low);
        assert_eq!(checksum(&message), 0);
        assert_ne!([high, low], [0, 0]);
    }

    #[test]
    fn only_the_answer_is_one() {
        let packet = |from: Ipv4Addr, kind: u8, number: [u8; 4]| {
            let mut packet = vec![0x46, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
            packet.extend(from.octets());
            packet.extend([0; 8]);
            packet.extend([kind, 0, 0, 0]);
            packet.extend(number);
            packet
        };
        let is_answer = |packet: &[u8]| is_echo_reply(packet, TARGET, [1, 2, 3, 4]);
        let right = packet(TARGET, ECHO_REPLY, [1, 2, 3, 4]);
        assert!(is_answer(&right), "a header with an option");
        assert!(!is_answer(&packet(Ipv4Addr::new(192, 0, 2, 2), ECHO_REPLY, [1, 2, 3, 4])));
        assert!(!is_answer(&packet(TARGET, ECHO, [1, 2, 3, 4])), "our own question, come back");
        assert!(!is_answer(&packet(TARGET, ECHO_REPLY, [1, 2, 3, 5])), "an answer to an earlier question");
        (0..right.len()).for_each(|length| assert!(!is_answer(&right[..length]), "{length} bytes"));
    }

    #[test]
    fn only_the_targets_own_arp_reply_is_one() {
        let packet = |operation: u8, from: Ipv4Addr| {
            let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1];
            packet.extend(from.octets());
            packet.extend([0; 10]);
            packet
        };
        assert!(is_arp_reply(&packet(2, TARGET), TARGET));
        assert!(!is_arp_reply(&packet(1, TARGET), TARGET), "it asks");
        assert!(!is_arp_reply(&packet(2, Ipv4Addr::new(192, 0, 2, 9)), TARGET));
        assert!(!is_arp_reply(&[0, 1, 8], TARGET));
    }
}
