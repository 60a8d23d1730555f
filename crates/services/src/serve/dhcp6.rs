//! DHCPv6 over a packet socket, as DHCPv4 is: the kernel says which Ethernet address a frame came from, and an answer goes
//! back to that address and nobody else.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::SystemTime;

use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto};
use tokio::io::unix::AsyncFd;

use super::{Network, PAUSE, TURN, serious, with_buffer};
use crate::dhcp6::{answer, datagram, packet};

/// Answers until it is dropped.
pub(super) async fn serve(network: Rc<Network>, socket: AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        for _ in 0..TURN {
            match ready.try_io(|socket| receive(&network, socket.get_ref())) {
                Ok(Ok(Some((to, packet)))) => send(&network, socket.get_ref(), &to, &packet),
                Ok(Ok(None)) => network.count(|counters| counters.dhcp6_ignored += 1),
                Ok(Err(error)) if serious(&error) => {
                    tracing::debug!(network = network.config().key, %error, "receiving DHCPv6");
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

/// One message, as the packet that answers it, and for whom that is.
fn receive(network: &Network, socket: &OwnedFd) -> io::Result<Option<(LinkAddr, Vec<u8>)>> {
    with_buffer(|buffer| {
        let (length, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer)?;
        network.count(|counters| counters.dhcp6_received += 1);
        let decided = from.and_then(|from| Some((from, decide(network, from, buffer.get(..length)?)?)));
        Ok(decided)
    })
}

fn decide(network: &Network, from: LinkAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let config = network.config();
    let elsewhere = config.bridge != 0 && from.ifindex() != config.bridge as usize;
    let mac = from.addr().filter(|_| from.halen() == 6 && !elsewhere)?;
    let (client, message) = datagram(bytes)?;
    let endpoint = config.endpoints.iter().find(|endpoint| endpoint.mac == mac)?;
    // One limit for both kinds of DHCP.
    if !network.leases.borrow_mut().admit(mac, SystemTime::now()) {
        return None;
    }
    packet(client, &answer(&config, endpoint, message)?)
}

/// Sends it. A socket whose queue is full loses it, as a wire might; the client asks again.
fn send(network: &Network, socket: &OwnedFd, to: &LinkAddr, packet: &[u8]) {
    match sendto(socket.as_raw_fd(), packet, to, MsgFlags::MSG_DONTWAIT) {
        Ok(_) => network.count(|counters| counters.dhcp6_replies += 1),
        Err(error) => tracing::debug!(network = network.config().key, %error, "sending DHCPv6"),
    }
}
