//! Sockets in, answers out: the thin part around the pure ones.

pub(crate) mod dhcp;
mod dhcp6;
pub(crate) mod dns;
pub(crate) mod metadata;
mod network;
mod ra;
mod tcp;
mod upstream;

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

pub(crate) use network::Network;

/// How many packets of one socket are handled before the others have their turn.
const TURN: usize = 32;
/// How long a socket that fails is left alone. A device that goes down says so once; nothing may spin on one that goes on.
const PAUSE: Duration = Duration::from_millis(100);

thread_local! {
    /// What arrives on any socket, one packet at a time: there is one thread, and nobody waits with it in hand.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 65_536]);
}

/// Lends the buffer.
fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| work(buffer))
}

/// The next DNS message on a connection: its length, then itself (RFC 1035, 4.2.2).
///
/// # Errors
/// Those of the connection, and its end.
pub(crate) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// After an error of a socket: is it to be left alone for a while?
fn serious(error: &io::Error) -> bool {
    // A datagram sent earlier was refused by its receiver, which the next call is told (udp(7)).
    !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted)
}
