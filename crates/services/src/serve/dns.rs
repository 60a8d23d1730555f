//! DNS over datagrams.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::UdpSocket;

use super::{Network, PAUSE, TURN, serious, with_buffer};
use crate::dns::{Answer, Transport, answer, failure, fitted};

/// Answers until it is dropped.
pub(super) async fn serve(network: Rc<Network>, socket: Rc<UdpSocket>) {
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        for _ in 0..TURN {
            match with_buffer(|buffer| receive(&network, &socket, buffer)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if serious(&error) => {
                    tracing::debug!(network = network.config().key, %error, "receiving DNS");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

fn receive(network: &Rc<Network>, socket: &Rc<UdpSocket>, buffer: &mut [u8]) -> std::io::Result<()> {
    let (length, client) = socket.try_recv_from(buffer)?;
    let query = &buffer[..length];
    network.count(|counters| counters.dns_queries += 1);
    if !network.is_local(client.ip()) || client.port() == 0 {
        network.count(|counters| counters.dns_foreign += 1);
        return Ok(());
    }
    match answer(&network.view(), Transport::Udp, query) {
        Answer::Reply(reply) => {
            network.count(|counters| counters.dns_own += 1);
            drop(socket.try_send_to(&reply, client));
        }
        Answer::Forward => forward(network, socket, client, query),
        Answer::Drop => network.count(|counters| counters.dns_dropped += 1),
    }
    Ok(())
}

fn forward(network: &Rc<Network>, socket: &Rc<UdpSocket>, client: SocketAddr, query: &[u8]) {
    let Some(place) = network.queries.take(client.ip()) else {
        network.count(|counters| counters.dns_dropped += 1);
        return;
    };
    let (asking, socket, query) = (Rc::clone(network), Rc::clone(socket), query.to_vec());
    network.begin(async move {
        if let Some(reply) = resolve(&asking, Transport::Udp, &query).await {
            drop(socket.try_send_to(&reply, client));
        }
        drop(place);
    });
}

/// Asks the upstream servers, and gives what the client is to be told.
pub(super) async fn resolve(network: &Network, transport: Transport, query: &[u8]) -> Option<Vec<u8>> {
    network.count(|counters| counters.dns_forwarded += 1);
    let upstream = network.upstream.borrow().clone()?;
    let servers = network.config().upstreams.clone();
    match upstream.ask(&servers, transport, query).await {
        Some(answer) => fitted(query, transport, answer),
        None => {
            network.count(|counters| counters.dns_failed += 1);
            failure(query)
        }
    }
}
