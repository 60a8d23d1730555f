//! A client that says one thing and hears one answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::socket::{bind_device, sctp, set_mark};

/// A client with everything about its socket still open. It acts in the namespace of the calling thread.
#[derive(Debug, Clone)]
pub struct Dial {
    to: SocketAddr,
    timeout: Duration,
    bind: Option<SocketAddr>,
    device: Option<String>,
    mark: Option<u32>,
}

/// Connects, sends `payload` and the end of the stream, and reads the answer to its end.
///
/// `timeout` holds for the connection, and again for each read.
pub fn tcp_exchange(
    to: SocketAddr,
    payload: &[u8],
    timeout: Duration,
    bind: Option<SocketAddr>,
) -> io::Result<Vec<u8>> {
    let mut dial = Dial::to(to).timeout(timeout);
    dial.bind = bind;
    dial.tcp(payload)
}

impl Dial {
    /// A client of the server at `to`, which waits for two seconds.
    pub fn to(to: SocketAddr) -> Dial {
        Dial { to, timeout: Duration::from_secs(2), bind: None, device: None, mark: None }
    }

    /// How long it waits for the connection, and for each part of the answer.
    pub fn timeout(mut self, timeout: Duration) -> Dial {
        self.timeout = timeout;
        self
    }

    /// The address it speaks from.
    pub fn bind(mut self, from: SocketAddr) -> Dial {
        self.bind = Some(from);
        self
    }

    /// The device its socket is tied to.
    pub fn device(mut self, name: &str) -> Dial {
        self.device = Some(name.to_owned());
        self
    }

    /// The mark of its socket.
    pub fn mark(mut self, value: u32) -> Dial {
        self.mark = Some(value);
        self
    }

    /// Says `payload` over TCP and hears the answer to its end.
    pub fn tcp(&self, payload: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.connect()?;
        stream.write_all(payload)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }

    /// Says `payload` over SCTP and hears as much back. An association has no half that could end alone.
    pub fn sctp(&self, payload: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.connected(self.furnished(sctp(&self.to)?)?)?;
        stream.write_all(payload)?;
        let mut answer = vec![0; payload.len()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// A TCP connection.
    pub fn connect(&self) -> io::Result<TcpStream> {
        self.connected(self.socket(SockType::Stream)?)
    }

    fn connected(&self, socket: OwnedFd) -> io::Result<TcpStream> {
        // Bounds connect(2) as well.
        setsockopt(&socket, sockopt::SendTimeout, &time_val(self.timeout))?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(self.to)).map_err(|error| match error {
            nix::Error::EINPROGRESS => io::ErrorKind::TimedOut.into(),
            other => io::Error::from(other),
        })?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(self.timeout))?;
        Ok(stream)
    }

    /// Says `payload` over UDP, from an unconnected socket, and hears the first datagram and who sent it.
    pub fn udp(&self, payload: &[u8]) -> io::Result<(Vec<u8>, SocketAddr)> {
        let socket = UdpSocket::from(self.socket(SockType::Datagram)?);
        socket.set_read_timeout(Some(self.timeout))?;
        socket.send_to(payload, self.to)?;
        let mut answer = vec![0; 65_536];
        let (length, from) = socket.recv_from(&mut answer)?;
        answer.truncate(length);
        Ok((answer, from))
    }

    /// A socket with all options set, not yet connected.
    pub fn socket(&self, kind: SockType) -> io::Result<OwnedFd> {
        let family = if self.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        self.furnished(socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?)
    }

    fn furnished(&self, socket: OwnedFd) -> io::Result<OwnedFd> {
        if let Some(mark) = self.mark {
            set_mark(&socket, mark)?;
        }
        if let Some(device) = &self.device {
            bind_device(&socket, device)?;
        }
        if let Some(from) = self.bind {
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        }
        Ok(socket)
    }
}

fn time_val(duration: Duration) -> TimeVal {
    TimeVal::new(duration.as_secs().cast_signed(), duration.subsec_micros().into())
}
