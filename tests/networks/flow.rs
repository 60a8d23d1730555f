//! Traffic of a workload that nobody touches, counted packet by packet, and conversations that must go on.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fief_testkit::{Dial, Ns, eventually, slowness};
use nix::sys::socket::{setsockopt, sockopt};

use crate::room::{SOON, wait};

/// One datagram a millisecond (see [`pace`]), numbered, to an echo server and back.
pub struct Flow {
    end: Arc<AtomicBool>,
    mouth: JoinHandle<u64>,
    ear: JoinHandle<BTreeSet<u64>>,
}

/// What came of a flow.
#[derive(Debug)]
pub struct Tally {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that came back.
    pub returned: u64,
    /// Which ones did not, by their numbers.
    pub lost: Vec<u64>,
}

impl Flow {
    /// Starts when the first datagram has come back: neighbours are known then.
    #[track_caller]
    pub fn start(from: &Ns, to: SocketAddr) -> Flow {
        let mouth = from.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a port is free");
        // As much as comes while the scheduler has others run.
        setsockopt(&mouth, sockopt::RcvBufForce, &(16 << 20)).expect("root may have a large buffer");
        mouth
            .set_read_timeout(Some(Duration::from_millis(300) * slowness()))
            .expect("a socket has a time-out");
        from.enter(|| mouth.connect(to)).expect("a route is there");
        eventually(SOON, || {
            let mut buffer = [0; 16];
            let asked = mouth.send(&u64::MAX.to_be_bytes()).and_then(|_| mouth.recv(&mut buffer));
            asked.map_err(|error| format!("{} to {to}: {error}", from.short()))
        });
        let ear = mouth.try_clone().expect("a descriptor can be doubled");
        let end = Arc::new(AtomicBool::new(false));
        let (stop, quiet) = (end.clone(), end.clone());
        let mouth = std::thread::spawn(move || send(&mouth, &stop));
        let ear = std::thread::spawn(move || receive(&ear, &quiet));
        Flow { end, mouth, ear }
    }

    /// Ends and counts.
    #[track_caller]
    pub fn finish(self) -> Tally {
        self.end.store(true, Ordering::Relaxed);
        let sent = self.mouth.join().expect("the sender does not panic");
        let seen = self.ear.join().expect("the receiver does not panic");
        let lost = (0..sent).filter(|number| !seen.contains(number)).collect();
        Tally { sent, returned: seen.len() as u64, lost }
    }

    /// Ends, and fails unless everything came back.
    #[track_caller]
    pub fn lost_nothing(self) -> Tally {
        let tally = self.finish();
        assert!(tally.sent > 100, "hardly anything was sent: {tally:?}");
        assert_eq!(tally.lost, [] as [u64; 0], "datagrams were lost: {tally:?}");
        tally
    }
}

/// The time between two datagrams. An emulated processor stands still for long enough to fill a socket's queue at more.
fn pace() -> Duration {
    Duration::from_millis(if slowness() == 1 { 1 } else { 40 })
}

/// Sends at the agreed rate, whatever the scheduler does in between.
fn send(mouth: &UdpSocket, end: &AtomicBool) -> u64 {
    let began = Instant::now();
    let mut sent = 0_u64;
    while !end.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_millis() / pace().as_millis()) as u64;
        while sent < due {
            // An error of an earlier datagram is told here; what was lost is counted at the other side.
            drop(mouth.send(&sent.to_be_bytes()));
            sent += 1;
        }
        wait(Duration::from_millis(1));
    }
    sent
}

/// Receives until nothing comes any more after the end.
fn receive(ear: &UdpSocket, end: &AtomicBool) -> BTreeSet<u64> {
    let mut seen = BTreeSet::new();
    let mut buffer = [0; 8];
    loop {
        match ear.recv(&mut buffer).map(|_| u64::from_be_bytes(buffer)) {
            Ok(u64::MAX) => (),
            Ok(number) => drop(seen.insert(number)),
            Err(_) if end.load(Ordering::Relaxed) => return seen,
            Err(_) => (),
        }
    }
}

/// A connection to an echo server that stays open.
pub struct Talk {
    stream: TcpStream,
    what: String,
    rounds: u64,
}

impl Talk {
    /// Opens it and says something once.
    #[track_caller]
    pub fn open(from: &Ns, to: SocketAddr) -> Talk {
        let what = format!("{} to {to}", from.short());
        let dial = Dial::to(to);
        let stream = eventually(SOON, || from.enter(|| dial.connect()).map_err(|e| format!("{what}: {e}")));
        let mut talk = Talk { what, ..Talk::of(stream) };
        talk.goes_on();
        talk
    }

    /// One that is open.
    pub fn of(stream: TcpStream) -> Talk {
        stream.set_nodelay(true).expect("TCP has no delay");
        stream.set_read_timeout(Some(SOON)).expect("a socket has a time-out");
        Talk { stream, what: String::new(), rounds: 0 }
    }

    /// Says something, and tells whether it is heard back within a time.
    pub fn tries(&mut self, time: Duration) -> bool {
        let said = self.rounds.to_be_bytes();
        self.rounds += 1;
        self.stream.set_read_timeout(Some(time)).expect("a socket has a time-out");
        let mut heard = [0; 8];
        let done = self.stream.write_all(&said).and_then(|()| self.stream.read_exact(&mut heard));
        self.stream.set_read_timeout(Some(SOON)).expect("a socket has a time-out");
        done.is_ok() && said == heard
    }

    /// Says something and hears it back.
    #[track_caller]
    pub fn goes_on(&mut self) {
        let said = self.rounds.to_be_bytes();
        let mut heard = [0; 8];
        let done = self.stream.write_all(&said).and_then(|()| self.stream.read_exact(&mut heard));
        done.unwrap_or_else(|error| panic!("{}, round {}: {error}", self.what, self.rounds));
        assert_eq!(said, heard, "{}", self.what);
        self.rounds += 1;
    }
}
