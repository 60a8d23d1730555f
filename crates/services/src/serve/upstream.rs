//! Asking other DNS servers, from inside the network's namespace.
//!
//! Every query has a socket, and with it a port, of its own, an ID of its own, and the first time letters of its own: whoever
//! forges an answer has to guess all three (RFC 5452). Some servers do not keep letters as they are, so that the second
//! time they are as the client wrote them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::{read_message, with_buffer};
use crate::dns::Transport;
use crate::dns::question::{disguised, restored};
use crate::sockets::{ConnectUdp, OpenTcp};

/// How long one server has.
const PATIENCE: Duration = Duration::from_secs(2);

/// How sockets are made inside the namespace.
pub(crate) struct Upstream {
    udp: ConnectUdp,
    tcp: Option<OpenTcp>,
}

impl Upstream {
    pub(super) fn new(udp: ConnectUdp, tcp: Option<OpenTcp>) -> Upstream {
        Upstream { udp, tcp }
    }

    /// Asks one server after the other, a single one twice; the first answer counts.
    pub(super) async fn ask(
        &self,
        servers: &[SocketAddr],
        transport: Transport,
        query: &[u8],
    ) -> Option<Vec<u8>> {
        let again = if servers.len() == 1 { 1 } else { 0 };
        for (nth, server) in servers.iter().chain(&servers[..again]).enumerate() {
            let sent = disguised(query, rand::random(), || nth == 0 && rand::random())?;
            let asked = async {
                match (transport, &self.tcp) {
                    (Transport::Tcp, Some(open)) => tcp(open(*server)?, *server, query, &sent).await,
                    _ => self.datagrams(*server, query, &sent).await,
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "asking"),
                Err(_) => tracing::debug!(%server, "no answer in time"),
            }
        }
        None
    }

    async fn datagrams(&self, server: SocketAddr, query: &[u8], sent: &[u8]) -> io::Result<Vec<u8>> {
        let socket = (self.udp)(server)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        socket.send(sent).await?;
        loop {
            socket.readable().await?;
            let taken = with_buffer(|buffer| {
                let length = socket.try_recv(buffer)?;
                Ok::<_, io::Error>(restored(query, sent, buffer[..length].to_vec()))
            });
            match taken {
                Ok(Some(answer)) => return Ok(answer),
                // Somebody else's, or forged: the right one may still come.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn tcp(
    socket: std::os::fd::OwnedFd,
    server: SocketAddr,
    query: &[u8],
    sent: &[u8],
) -> io::Result<Vec<u8>> {
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    let mut stream = TcpSocket::from_std_stream(socket).connect(server).await?;
    let length = u16::try_from(sent.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), sent].concat()).await?;
    let answer = read_message(&mut stream).await?;
    restored(query, sent, answer).ok_or_else(|| io::Error::other("the answer is to another question"))
}
