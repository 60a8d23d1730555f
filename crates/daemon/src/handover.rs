//! Sockets inside tenants' namespaces, made by the daemon for whoever may act as the tenant: where a socket belongs to a
//! namespace there is no option that moves it, and no user may enter.
//!
//! ```text
//!   caller ── connect, 76 bytes: family, type, protocol, name ──▶ /run/fief/sockets.sock
//!          ◀── 4 bytes: 0 or an errno ── with 0 the descriptor (SCM_RIGHTS, unix(7)) ──
//! ```
//!
//! Numbers are in the host's byte order. One question a connection. `include/fief.h` and `crates/libfief` ask it.
//!
//! With the type 0x10000 the question is for the two sockets of a segment of the overlay: the name is then a group's number,
//! or empty for the caller's own, the protocol which of its networks, and with 0 come two descriptors, the one that sends first, and the 8 bytes of the header.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fief_host::namespaces::Namespace;
use fief_host::teeth::is_off;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{UnixListener, UnixStream};

use crate::engine::{Engine, Handle};
use crate::members::Caller;
use crate::overlay::broker::Broker;

/// Bytes of a name, with the zero behind it.
const NAME: usize = 64;
const QUESTION: usize = 12 + NAME;
/// Who connects and asks nothing is sent away.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections of one user at a time; more are closed, so that nobody waits for another.
const AT_ONCE: usize = 64;
/// The type of a segment's sockets, which is none of socket(2).
const SEGMENT: u32 = 0x10000;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    family: AddressFamily,
    kind: SocketType,
    flags: SocketFlags,
    protocol: Option<Protocol>,
    tenant: String,
}

/// Answers until the runtime ends.
pub async fn serve(listener: UnixListener, engine: Handle, broker: Arc<Broker>) {
    let callers = Callers::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some((caller, place)) = callers.seat(&stream) else { continue };
                let (engine, broker) = (engine.clone(), broker.clone());
                tokio::spawn(async move {
                    let attended = attend(stream, caller, &engine, broker);
                    let attended = tokio::time::timeout(PATIENCE, attended).await;
                    if let Ok(Err(error)) = attended {
                        tracing::debug!(%error, "a caller for a socket went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no socket can be handed over");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// How many connections each user has.
#[derive(Clone, Default)]
struct Callers(Arc<Mutex<HashMap<u32, usize>>>);

impl Callers {
    /// Who calls, and his place, unless he has too many.
    fn seat(&self, stream: &UnixStream) -> Option<(Caller, Place)> {
        let (user, groups) = fief_host::peer::credentials(stream).ok()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry(user).or_default();
        if *own >= AT_ONCE {
            return None;
        }
        *own += 1;
        Some((Caller { user, groups, process: None }, Place { user, all: self.clone() }))
    }
}

/// A connection that counts until it ends.
struct Place {
    user: u32,
    all: Callers,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                all.remove(&self.user);
            }
        }
    }
}

async fn attend(
    mut stream: UnixStream,
    caller: Caller,
    engine: &Handle,
    broker: Arc<Broker>,
) -> io::Result<()> {
    let mut bytes = [0; QUESTION];
    stream.read_exact(&mut bytes).await?;
    let (made, more) = match SegmentQuestion::read(&bytes) {
        Some(Ok(question)) => {
            // The kernel makes the caller wait while the socket's maker changes control groups.
            let asked = tokio::task::spawn_blocking(move || {
                broker.open(&caller, question.group, question.network, question.family)
            });
            match asked.await.unwrap_or(Err(Errno::AGAIN)) {
                Ok(pair) => (Ok(vec![pair.unicast, pair.group]), pair.header.to_vec()),
                Err(error) => (Err(error), Vec::new()),
            }
        }
        Some(Err(error)) => (Err(error), Vec::new()),
        None => (make(&bytes, caller, engine).await.map(|socket| vec![socket]), Vec::new()),
    };
    stream.writable().await?;
    let made = made.as_deref().map_err(|error| *error);
    stream.try_io(Interest::WRITABLE, || fief_host::peer::hand_over(&stream, made, &more))
}

async fn make(bytes: &[u8; QUESTION], caller: Caller, engine: &Handle) -> Result<OwnedFd, Errno> {
    let question = Question::read(bytes)?;
    let name = question.tenant.clone();
    let place = engine.view(move |engine| place_of(engine, &name, &caller)).await.ok_or(Errno::AGAIN)??;
    let made = place.visit(|| question.socket());
    made.unwrap_or(Err(Errno::AGAIN))
}

/// The namespace of a tenant that the caller may act as.
fn place_of(engine: &Engine, name: &str, caller: &Caller) -> Result<Namespace, Errno> {
    let stored = engine.tenant(name).ok_or(Errno::NOENT)?;
    if !is_off("net-handed") && !caller.may_write() && !caller.is_member(&stored.members) {
        return Err(Errno::PERM);
    }
    if engine.isolation_of(&stored.tenant) != "netns" {
        // A tenant of the host's own stack: its sockets are anybody's who sets the option.
        return Err(Errno::OPNOTSUPP);
    }
    Namespace::at(&engine.paths.namespace_of(name)).map_err(|_| Errno::AGAIN)
}

/// A segment's sockets.
#[derive(Debug, PartialEq, Eq)]
struct SegmentQuestion {
    family: AddressFamily,
    group: Option<u32>,
    network: u8,
}

impl SegmentQuestion {
    /// `None`: it is another question. Errors: as [`Question::read`].
    fn read(bytes: &[u8; QUESTION]) -> Option<Result<SegmentQuestion, Errno>> {
        if number(bytes, 4) != Ok(SEGMENT) {
            return None;
        }
        let read = || {
            let group = match name(bytes)? {
                "" => None,
                group => Some(group.parse().map_err(|_| Errno::INVAL)?),
            };
            let network = number(bytes, 8)?.try_into().map_err(|_| Errno::NXIO)?;
            Ok(SegmentQuestion { family: family(bytes)?, group, network })
        };
        Some(read())
    }
}

fn number(bytes: &[u8; QUESTION], at: usize) -> Result<u32, Errno> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_ne_bytes).ok_or(Errno::INVAL)
}

fn family(bytes: &[u8; QUESTION]) -> Result<AddressFamily, Errno> {
    match number(bytes, 0)? {
        family if family == u32::from(AddressFamily::INET.as_raw()) => Ok(AddressFamily::INET),
        family if family == u32::from(AddressFamily::INET6.as_raw()) => Ok(AddressFamily::INET6),
        _ => Err(Errno::AFNOSUPPORT),
    }
}

fn name(bytes: &[u8; QUESTION]) -> Result<&str, Errno> {
    let name = bytes.get(12..).unwrap_or_default();
    let end = name.iter().position(|byte| *byte == 0).ok_or(Errno::INVAL)?;
    std::str::from_utf8(name.get(..end).unwrap_or_default()).map_err(|_| Errno::INVAL)
}

impl Question {
    /// Errors: EINVAL where it cannot be read, EAFNOSUPPORT, EPROTONOSUPPORT and ESOCKTNOSUPPORT as socket(2) has them, for
    /// everything but TCP and UDP over IP.
    fn read(bytes: &[u8; QUESTION]) -> Result<Question, Errno> {
        let family = family(bytes)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let asked = SocketFlags::from_bits_retain(number(bytes, 4)?);
        let (kind, own) = match (asked - flags).bits() {
            kind if kind == SocketType::STREAM.as_raw() => (SocketType::STREAM, ipproto::TCP),
            kind if kind == SocketType::DGRAM.as_raw() => (SocketType::DGRAM, ipproto::UDP),
            _ => return Err(Errno::SOCKTNOSUPPORT),
        };
        let protocol = match number(bytes, 8)? {
            0 => None,
            protocol if protocol == own.as_raw().get() => Some(own),
            _ => return Err(Errno::PROTONOSUPPORT),
        };
        let tenant = name(bytes)?.to_owned();
        Ok(Question { family, kind, flags: asked & flags, protocol, tenant })
    }

    /// The socket, in the calling thread's namespace. On our side it never lasts over an exec.
    fn socket(&self) -> Result<OwnedFd, Errno> {
        let flags = self.flags | SocketFlags::CLOEXEC;
        rustix::net::socket_with(self.family, self.kind, flags, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(family: i32, kind: i32, protocol: i32, name: &[u8]) -> Result<Question, Errno> {
        let mut bytes = [0; QUESTION];
        for (at, number) in [family, kind, protocol].into_iter().enumerate() {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&number.to_ne_bytes());
        }
        bytes[12..12 + name.len()].copy_from_slice(name);
        Question::read(&bytes)
    }

    #[test]
    fn a_segments_sockets_are_another_question() {
        let ask = |family: i32, name: &[u8]| {
            let mut bytes = [0; QUESTION];
            bytes[..4].copy_from_slice(&family.to_ne_bytes());
            bytes[4..8].copy_from_slice(&SEGMENT.to_ne_bytes());
            bytes[12..12 + name.len()].copy_from_slice(name);
            SegmentQuestion::read(&bytes)
        };
        let of = |family, group| Some(Ok(SegmentQuestion { family, group, network: 0 }));
        assert_eq!(ask(libc::AF_INET, b""), of(AddressFamily::INET, None));
        assert_eq!(ask(libc::AF_INET6, b"1000"), of(AddressFamily::INET6, Some(1000)));
        assert_eq!(ask(libc::AF_UNIX, b""), Some(Err(Errno::AFNOSUPPORT)));
        for name in [&b"users"[..], b"-1", b"4294967296", &[b'1'; NAME]] {
            assert_eq!(ask(libc::AF_INET, name), Some(Err(Errno::INVAL)));
        }
        assert!(SegmentQuestion::read(&[0; QUESTION]).is_none());
        assert!(question(libc::AF_INET, 0x10000, 0, b"blue").is_err());
    }

    #[test]
    fn tcp_and_udp_are_to_be_had_and_nothing_else() {
        use libc::{
            AF_INET, AF_INET6, AF_PACKET, IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM,
        };
        let tcp = question(AF_INET, SOCK_STREAM | libc::SOCK_NONBLOCK, IPPROTO_TCP, b"blue").unwrap();
        assert_eq!((tcp.tenant.as_str(), tcp.flags), ("blue", SocketFlags::NONBLOCK));
        assert!(question(AF_INET6, SOCK_DGRAM, 0, b"blue").is_ok());
        assert_eq!(question(AF_PACKET, SOCK_RAW, 0, b"blue"), Err(Errno::AFNOSUPPORT));
        assert_eq!(question(AF_INET, SOCK_RAW, 1, b"blue"), Err(Errno::SOCKTNOSUPPORT));
        assert_eq!(question(AF_INET, SOCK_DGRAM, libc::IPPROTO_ICMP, b"blue"), Err(Errno::PROTONOSUPPORT));
        assert_eq!(question(AF_INET, SOCK_STREAM, IPPROTO_UDP, b"blue"), Err(Errno::PROTONOSUPPORT));
        // A flag of tomorrow's kernel is none that we know.
        assert_eq!(question(AF_INET, SOCK_STREAM | 1 << 30, 0, b"blue"), Err(Errno::SOCKTNOSUPPORT));
        assert_eq!(question(AF_INET, SOCK_STREAM, 0, &[b'x'; NAME]), Err(Errno::INVAL));
        assert_eq!(question(AF_INET, SOCK_STREAM, 0, &[0xff]), Err(Errno::INVAL));
    }
}
