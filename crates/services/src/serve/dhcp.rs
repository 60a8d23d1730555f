//! DHCP over a packet socket (packet(7)). The kernel says which Ethernet address a frame came from, and an answer goes back
//! to that address and nobody else, even where its IP address is everybody's: who else is on the network learns nothing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::SystemTime;

use dhcproto::v4::MessageType;
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto};
use tokio::io::unix::AsyncFd;

use super::{Network, PAUSE, TURN, serious, with_buffer};
use crate::dhcp::{Ignored, Outcome, Reply, answer, datagram, packet};
use crate::saver::Job;

/// An answer that waits for its lease to be on the disk.
pub(crate) struct Waiting {
    socket: Rc<AsyncFd<OwnedFd>>,
    to: LinkAddr,
    reply: Reply,
}

/// Answers until it is dropped.
pub(super) async fn serve(network: Rc<Network>, socket: Rc<AsyncFd<OwnedFd>>) {
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        for _ in 0..TURN {
            match ready.try_io(|socket| receive(&network, socket.get_ref())) {
                Ok(Ok(arrived)) => handle(&network, &socket, arrived),
                Ok(Err(error)) if serious(&error) => {
                    tracing::debug!(network = network.config().key, %error, "receiving DHCP");
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(Err(_)) => {}
                Err(_would_block) => break,
            }
        }
        drop(ready);
        tokio::task::yield_now().await;
    }
}

/// What became of one packet.
struct Arrived {
    from: Option<LinkAddr>,
    outcome: Result<Outcome, Ignored>,
}

fn receive(network: &Network, socket: &OwnedFd) -> io::Result<Arrived> {
    with_buffer(|buffer| {
        let (length, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer)?;
        let packet = buffer.get(..length).unwrap_or(buffer);
        Ok(Arrived { from, outcome: decide(network, from, packet) })
    })
}

fn decide(network: &Network, from: Option<LinkAddr>, packet: &[u8]) -> Result<Outcome, Ignored> {
    let config = network.config();
    let from = from.ok_or(Ignored::Malformed)?;
    let elsewhere = config.bridge != 0 && from.ifindex() != config.bridge as usize;
    let source = from.addr().filter(|_| from.halen() == 6 && !elsewhere).ok_or(Ignored::Malformed)?;
    let message = datagram(packet).ok_or(Ignored::Malformed)?;
    answer(&mut network.leases.borrow_mut(), &config, SystemTime::now(), source, message)
}

fn handle(network: &Rc<Network>, socket: &Rc<AsyncFd<OwnedFd>>, arrived: Arrived) {
    network.count(|counters| counters.dhcp_received += 1);
    let Some(to) = arrived.from else { return };
    let waiting = |reply| Waiting { socket: Rc::clone(socket), to, reply };
    match arrived.outcome {
        Ok(Outcome::Nothing) => {}
        Ok(Outcome::Reply(reply)) => waiting(reply).send(network),
        Ok(Outcome::Commit(change, reply)) => {
            if reply.is_none() && change.put.is_none() {
                network.count(|counters| counters.dhcp_declined += 1);
                tracing::warn!(network = network.config().key, address = ?change.remove, "a client found this address in use");
            }
            network.saver().add(Job::of(network, change, reply.map(waiting)));
        }
        Err(ignored) => ignore(network, ignored),
    }
}

fn ignore(network: &Network, ignored: Ignored) {
    network.count(|counters| match ignored {
        Ignored::Malformed => counters.dhcp_malformed += 1,
        Ignored::Spoofed => counters.dhcp_spoofed += 1,
        Ignored::Unknown => counters.dhcp_unknown += 1,
        Ignored::Limited => counters.dhcp_limited += 1,
        Ignored::Exhausted => counters.dhcp_exhausted += 1,
    });
    // Once: a client without an address goes on asking.
    if ignored == Ignored::Exhausted && !std::mem::replace(&mut network.leases.borrow_mut().want_said, true) {
        tracing::warn!(network = network.config().key, "no address is free: enlarge the range of its DHCP");
    }
}

impl Waiting {
    /// Sends it. A socket whose queue is full loses it, as a wire might; the client asks again.
    pub(crate) fn send(self, network: &Network) {
        let config = network.config();
        let Some(packet) = packet(config.gateway, self.reply.to, &self.reply.message) else { return };
        let sent = sendto(self.socket.get_ref().as_raw_fd(), &packet, &self.to, MsgFlags::MSG_DONTWAIT);
        if let Err(error) = sent {
            tracing::debug!(network = config.key, %error, "sending DHCP");
            return;
        }
        network.count(|counters| match self.reply.kind {
            MessageType::Offer => counters.dhcp_offers += 1,
            MessageType::Nak => counters.dhcp_naks += 1,
            _ => counters.dhcp_acks += 1,
        });
    }
}
