//! Datagrams from one endpoint to another one that answers, and what became of each: both ends on one thread.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use fief_testkit::Ns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const PORT: u16 = 7000;
/// One is sent so often, and answered in that time unless nobody hears it.
const PACE: Duration = Duration::from_micros(250);
/// So many in a row that say the same are an answer, which nothing late will change.
const ENOUGH: usize = 40;
const PATIENCE: Duration = Duration::from_secs(30);

/// A pair of sockets.
pub struct Probe {
    client: UdpSocket,
    server: UdpSocket,
    /// When each was sent that counts, and whether it was answered; the number of the first of them.
    sent: Vec<(Instant, bool)>,
    first: u64,
}

impl Probe {
    /// From the workload that has the one address to that which has the other.
    pub fn between([from, to]: [(&Ns, Ipv4Addr); 2]) -> Probe {
        let bind = |(ns, address): (&Ns, Ipv4Addr), port| {
            let socket = ns.enter(|| UdpSocket::bind((address, port))).expect("the address is there");
            socket.set_nonblocking(true).expect("a socket can be told");
            socket
        };
        let (client, server) = (bind(from, 0), bind(to, PORT));
        client.connect((to.1, PORT)).expect("there is a route");
        Probe { client, server, sent: Vec::new(), first: 0 }
    }

    /// Sends until `is_over`, and on until nothing changes any more; gives when the first datagram was sent from which on
    /// all of them were answered, or none was.
    pub fn until(&mut self, is_over: impl Fn() -> bool, answered: bool) -> Result<Instant, String> {
        self.first += self.sent.len() as u64;
        self.sent.clear();
        let begin = Instant::now();
        loop {
            self.send();
            let settled = self.sent.iter().rev().take_while(|(_, heard)| *heard == answered);
            if is_over() && settled.take(ENOUGH).count() == ENOUGH {
                break;
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("a packet is {} answered", if answered { "not" } else { "still" }));
            }
        }
        let since = self.sent.iter().rev().take_while(|(_, heard)| *heard == answered).last();
        since.map(|(at, _)| *at).ok_or_else(|| "nothing was sent".into())
    }

    fn send(&mut self) {
        let number = self.first + self.sent.len() as u64;
        let at = Instant::now();
        self.sent.push((at, false));
        // An error is the last answer's, a port unreachable for example; what becomes of this one is seen.
        let _ = self.client.send(&number.to_be_bytes());
        while let Some(left) = PACE.checked_sub(at.elapsed()) {
            let mut ready = [&self.server, &self.client].map(|socket| PollFd::new(socket, PollFlags::IN));
            let time = Timespec { tv_sec: 0, tv_nsec: left.as_nanos() as i64 };
            poll(&mut ready, Some(&time)).expect("descriptors of our own");
            self.answer();
        }
    }

    /// The server answers what has come, and the client takes the answers in, late ones too.
    fn answer(&mut self) {
        let mut data = [0; 8];
        while let Ok((length, from)) = self.server.recv_from(&mut data) {
            let _ = self.server.send_to(&data[..length], from);
        }
        while self.client.recv(&mut data).is_ok_and(|length| length == data.len()) {
            let index = u64::from_be_bytes(data).checked_sub(self.first);
            let sent = index.and_then(|index| self.sent.get_mut(usize::try_from(index).ok()?));
            sent.into_iter().for_each(|(_, heard)| *heard = true);
        }
    }
}
