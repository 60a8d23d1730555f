//! TCP as fast as it goes, between a thread of ours in one namespace and one in another, with other processes in between: so by
//! the clock, and not by the processor time of a thread.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::networks::town::Road;

/// Before the first measurement, in which windows open.
const BEFORE: Duration = Duration::from_millis(50);
/// How long one takes.
const WINDOW: Duration = Duration::from_millis(250);
const CHUNK: usize = 64 * 1024;

/// A connection with both of its ends.
pub struct Pace {
    from: TcpStream,
    to: TcpStream,
}

impl Pace {
    /// A connection along a road.
    pub fn along(road: &Road<'_>) -> Pace {
        let listener = road.listen();
        let at = listener.local_addr().expect("it listens");
        let from = road.from.enter(|| TcpStream::connect(at)).expect("the other end answers");
        let (to, peer) = listener.accept().expect("somebody has called");
        assert_eq!(peer.ip(), road.seen, "another road was taken");
        Pace { from, to }
    }

    /// Gbit/s.
    pub fn run(&mut self) -> f64 {
        let (is_over, begin) = (AtomicBool::new(false), Instant::now());
        let Pace { from, to } = self;
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let (data, mut sent) = (vec![0; CHUNK], 0);
                while !is_over.load(Ordering::Relaxed) {
                    from.write_all(&data).expect("the other end reads");
                    sent += CHUNK as u64;
                }
                sent
            });
            let mut buffer = vec![0; CHUNK];
            let mut read = || to.read(&mut buffer).expect("the other end writes") as u64;
            let mut received = 0;
            while begin.elapsed() < BEFORE {
                received += read();
            }
            let (begin, before) = (Instant::now(), received);
            while begin.elapsed() < WINDOW {
                received += read();
            }
            let speed = (received - before) as f64 * 8.0 / begin.elapsed().as_nanos() as f64;
            is_over.store(true, Ordering::Relaxed);
            // He may be waiting for room.
            to.set_read_timeout(Some(Duration::from_millis(10))).expect("a socket can wait");
            while !sender.is_finished() {
                received += some(to.read(&mut buffer));
            }
            to.set_read_timeout(None).expect("a socket can wait");
            let sent = sender.join().expect("the sender does not panic");
            while received < sent {
                received += to.read(&mut buffer).expect("the other end has written") as u64;
            }
            speed
        })
    }
}

/// Nothing, where nothing has come in time.
fn some(done: std::io::Result<usize>) -> u64 {
    match done {
        Ok(count) => count as u64,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("the other end writes: {error}"),
    }
}
