//! DNS over connections (RFC 7766): the same answers, each with its length before it.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Network, PAUSE, dns::resolve, read_message};
use crate::dns::{Answer, Transport, answer};

/// How long a connection may be silent, and how long one message may take.
const IDLE: Duration = Duration::from_secs(10);

/// Accepts until it is dropped.
pub(super) async fn serve(network: Rc<Network>, listener: TcpListener) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(network = network.config().key, %error, "accepting DNS");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !network.is_local(client.ip()) {
            network.count(|counters| counters.dns_foreign += 1);
            continue;
        }
        let Some(place) = network.dns_connections.take(client.ip()) else {
            network.count(|counters| counters.dns_dropped += 1);
            continue;
        };
        let connected = Rc::clone(&network);
        network.begin(async move {
            if let Err(error) = converse(&connected, stream).await {
                tracing::trace!(%client, %error, "a DNS connection has ended");
            }
            drop(place);
        });
    }
}

async fn converse(network: &Network, mut stream: TcpStream) -> io::Result<()> {
    let client = stream.peer_addr()?.ip();
    loop {
        let query = timeout(IDLE, read_message(&mut stream)).await??;
        network.count(|counters| counters.dns_queries += 1);
        let view = network.view();
        let reply = match answer(&view, Transport::Tcp, &query) {
            Answer::Reply(reply) => {
                network.count(|counters| counters.dns_own += 1);
                Some(reply)
            }
            Answer::Forward => match network.queries.take(client) {
                Some(_place) => resolve(network, Transport::Tcp, &query).await,
                None => None,
            },
            Answer::Drop => None,
        };
        let Some(reply) = reply else {
            network.count(|counters| counters.dns_dropped += 1);
            return Ok(());
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), reply.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
