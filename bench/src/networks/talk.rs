//! TCP between two namespaces, both ends on one thread: a veth pair delivers within the call that sends, so its
//! processor time is the whole cost of the way, both directions, and nobody has to be woken.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt};

use super::town::Road;
use crate::compare::cost;

/// Exchanges of a byte in a run.
const EXCHANGES: u32 = 2000;
/// Bytes of one write, and how many of them are a run.
const CHUNK: usize = 64 * 1024;
const CHUNKS: u32 = 400;
/// KiB of a chunk.
const KIB: f64 = CHUNK as f64 / 1024.0;
/// What a socket may hold, so that a chunk never waits.
const ROOM: usize = 1024 * 1024;

/// A connection with both of its ends.
pub struct Talk {
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    /// A connection along a road, which must be the road it says it is.
    pub fn along(road: &Road<'_>) -> Talk {
        let listener = road.listen();
        setsockopt(&listener, sockopt::RcvBuf, &ROOM).expect("a socket has a buffer");
        let port = listener.local_addr().expect("it listens").port();
        let client = road.from.enter(|| dial(&SockaddrIn::from(std::net::SocketAddrV4::new(road.at, port))));
        let client = client.unwrap_or_else(|error| panic!("cannot connect to {}: {error}", road.at));
        let (server, peer) = listener.accept().expect("somebody has called");
        assert_eq!(peer.ip(), road.seen, "another road was taken");
        setsockopt(&server, sockopt::SndBuf, &ROOM).expect("a socket has a buffer");
        let client = TcpStream::from(client);
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("TCP can be told not to wait");
        }
        Talk { client, server }
    }

    /// Nanoseconds an exchange of one byte for one byte.
    pub fn exchange(&mut self) -> f64 {
        self.block(true);
        cost(EXCHANGES, || (0..EXCHANGES).for_each(|_| self.one().expect("both ends are ours")))
    }

    /// Nanoseconds a KiB from client to server.
    pub fn stream(&mut self) -> f64 {
        self.block(false);
        let data = vec![0_u8; CHUNK];
        let mut buffer = vec![0_u8; CHUNK];
        let mut chunk = || self.chunk(&data, &mut buffer).expect("both ends are ours");
        cost(CHUNKS, || (0..CHUNKS).for_each(|_| chunk())) / KIB
    }

    fn one(&mut self) -> io::Result<()> {
        let mut byte = [7];
        self.client.write_all(&byte)?;
        self.server.read_exact(&mut byte)?;
        self.server.write_all(&byte)?;
        self.client.read_exact(&mut byte)
    }

    fn chunk(&mut self, data: &[u8], buffer: &mut [u8]) -> io::Result<()> {
        let (mut written, mut read) = (0, 0);
        while read < data.len() {
            if written < data.len() {
                written += some(self.client.write(&data[written..]))?;
            }
            read += some(self.server.read(buffer))?;
        }
        Ok(())
    }

    fn block(&self, waits: bool) {
        for stream in [&self.client, &self.server] {
            stream.set_nonblocking(!waits).expect("a socket can be told");
        }
    }
}

/// Nothing, where nothing could be done just now.
fn some(done: io::Result<usize>) -> io::Result<usize> {
    match done {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

fn dial(to: &SockaddrIn) -> io::Result<OwnedFd> {
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&client, sockopt::SndBuf, &ROOM)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&client), to)?;
    Ok(client)
}
