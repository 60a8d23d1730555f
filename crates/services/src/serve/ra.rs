//! Router advertisements over a raw socket (raw(7), RFC 3542). The kernel computes checksums, and gives the source an
//! address of the link, which hosts demand.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendto, setsockopt, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;

use super::{Network, PAUSE, TURN, serious, with_buffer};
use crate::ra::{Timetable, advertisement, is_solicitation};

/// All nodes of a link (RFC 4291, 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Advertises until it is dropped.
pub(super) async fn serve(network: Rc<Network>, socket: AsyncFd<OwnedFd>) {
    if let Err(error) = setsockopt(socket.get_ref(), sockopt::Ipv6RecvHopLimit, &true) {
        tracing::error!(network = network.config().key, %error, "no router advertisements here");
        return;
    }
    let mut table = Timetable::new(Instant::now());
    let mut said = advertisement(&network.config());
    loop {
        tokio::select! {
            () = sleep_until(table.next().into()) => {
                send(&network, &socket, said.as_deref());
                table.sent(Instant::now(), rand::random());
            }
            () = network.changed.notified() => {
                let now = advertisement(&network.config());
                if now != said {
                    said = now;
                    table.changed(Instant::now());
                }
            }
            ready = socket.readable() => {
                let Ok(mut ready) = ready else { return };
                let mut failed = false;
                for _ in 0..TURN {
                    match ready.try_io(|socket| receive(socket.get_ref())) {
                        Ok(Ok(asked)) => heard(&network, &mut table, asked),
                        Ok(Err(error)) if serious(&error) => {
                            tracing::debug!(network = network.config().key, %error, "receiving solicitations");
                            failed = true;
                            break;
                        }
                        Ok(Err(_)) => {}
                        Err(_would_block) => break,
                    }
                }
                drop(ready);
                if failed {
                    tokio::time::sleep(PAUSE).await;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

/// One message: where it is from, and whether it asks.
fn receive(socket: &OwnedFd) -> io::Result<Option<Ipv6Addr>> {
    with_buffer(|buffer| {
        let mut control = nix::cmsg_space!(std::ffi::c_int);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let hops = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv6HopLimit(hops) => Some(hops),
            _ => None,
        });
        let (source, length) = (message.address.map(|source| source.ip()), message.bytes);
        let read = |source: &Ipv6Addr| is_solicitation(*source, hops.unwrap_or(0), &buffer[..length]);
        Ok(source.filter(read))
    })
}

fn heard(network: &Network, table: &mut Timetable, asked: Option<Ipv6Addr>) {
    // Who is still without an address is on the link all the same: the hop limit says so.
    let asked = asked.filter(|source| source.is_unspecified() || network.is_local((*source).into()));
    network.count(|counters| match asked {
        Some(_) => counters.ra_asked += 1,
        None => counters.ra_ignored += 1,
    });
    if asked.is_some() {
        table.asked(Instant::now(), rand::random());
    }
}

/// Sends it. One that is lost, as on any wire, is sent again soon.
fn send(network: &Network, socket: &AsyncFd<OwnedFd>, message: Option<&[u8]>) {
    let Some(message) = message else { return };
    let to = SockaddrIn6::from(SocketAddrV6::new(ALL_NODES, 0, 0, network.config().bridge));
    match sendto(socket.get_ref().as_raw_fd(), message, &to, MsgFlags::MSG_DONTWAIT) {
        Ok(_) => network.count(|counters| counters.ra_sent += 1),
        Err(error) => tracing::debug!(network = network.config().key, %error, "sending an advertisement"),
    }
}
