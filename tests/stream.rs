//! Traffic of a tenant that nobody touches, counted packet by packet.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fief_testkit::{Dial, Ns};
use nix::sys::socket::{setsockopt, sockopt};

use crate::scene::Scene;

/// Datagrams a second.
const RATE: u32 = 1000;

/// 1,000 datagrams a second from a client to the tenant's address on the host, numbered, and a conversation over TCP
/// beside them, whose answers leave by the tenant's routes.
pub struct Stream {
    end: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<BTreeSet<u64>>,
    talker: JoinHandle<Result<u64, String>>,
    client: Ns,
    host: Ns,
    resent: u64,
    began: Instant,
}

/// What came of a stream.
#[derive(Debug)]
pub struct Tally {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived.
    pub received: u64,
    /// Rounds of the conversation.
    pub rounds: u64,
    /// Segments that TCP had to send again, on both sides.
    pub resent: u64,
    /// How long it went.
    pub time: Duration,
}

impl Stream {
    /// Starts; the tenant must be there and be served on port 8000.
    #[track_caller]
    pub fn start(scene: &Scene, tenant: usize) -> Stream {
        let (host, client) = (scene.street.host.clone(), scene.street.client(tenant).clone());
        let address = scene.street.local4(tenant);
        let ear = host.enter(|| UdpSocket::bind((address, 9000))).expect("the tenant's address is there");
        setsockopt(&ear, sockopt::RcvBufForce, &(8 << 20)).expect("root may have a large buffer");
        ear.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket has a time-out");
        let mouth = client.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a port is free");
        mouth.connect((address, 9000)).expect("a route is there");
        let target = SocketAddr::new(scene.street.local6(tenant).into(), 8000);
        let dial = Dial::to(target).timeout(Duration::from_secs(5));
        let mut talk = client.enter(|| dial.connect()).expect("the server answers");
        talk.set_nodelay(true).expect("TCP has no delay");

        let resent = resent_by(&host) + resent_by(&client);
        let end = Arc::new(AtomicBool::new(false));
        let (stop, quiet, hush) = (end.clone(), end.clone(), end.clone());
        let sender = std::thread::spawn(move || send(&mouth, &stop));
        let receiver = std::thread::spawn(move || receive(&ear, &quiet));
        let talker = std::thread::spawn(move || {
            let mut rounds = 0_u64;
            while !hush.load(Ordering::Relaxed) {
                let said = rounds.to_be_bytes();
                let mut heard = [0; 8];
                talk.write_all(&said).map_err(|e| format!("round {rounds}: {e}"))?;
                talk.read_exact(&mut heard).map_err(|e| format!("round {rounds}: {e}"))?;
                if said != heard {
                    return Err(format!("round {rounds}: another answer"));
                }
                rounds += 1;
                pause(Duration::from_millis(2));
            }
            Ok(rounds)
        });
        Stream { end, sender, receiver, talker, client, host, resent, began: Instant::now() }
    }

    /// Ends and counts.
    #[track_caller]
    pub fn finish(self) -> Tally {
        self.end.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender does not panic");
        let received = self.receiver.join().expect("the receiver does not panic").len() as u64;
        let rounds =
            self.talker.join().expect("the talker does not panic").expect("the conversation goes on");
        let resent = resent_by(&self.host) + resent_by(&self.client) - self.resent;
        Tally { sent, received, rounds, resent, time: self.began.elapsed() }
    }

    /// Ends, and fails unless everything arrived.
    #[track_caller]
    pub fn lost_nothing(self) -> Tally {
        let tally = self.finish();
        assert!(tally.sent > 100 && tally.rounds > 20, "hardly anything was sent: {tally:?}");
        assert_eq!(tally.sent, tally.received, "datagrams were lost: {tally:?}");
        assert_eq!(tally.resent, 0, "TCP had to send again: {tally:?}");
        tally
    }
}

/// Sends at the agreed rate, whatever the scheduler does in between.
fn send(mouth: &UdpSocket, end: &AtomicBool) -> u64 {
    let began = Instant::now();
    let mut sent = 0_u64;
    while !end.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * f64::from(RATE)) as u64;
        while sent < due {
            mouth.send(&sent.to_be_bytes()).expect("a datagram can be sent");
            sent += 1;
        }
        pause(Duration::from_millis(1));
    }
    sent
}

/// Receives until nothing comes any more after the end.
fn receive(ear: &UdpSocket, end: &AtomicBool) -> BTreeSet<u64> {
    let mut seen = BTreeSet::new();
    let mut buffer = [0; 8];
    loop {
        match ear.recv(&mut buffer) {
            Ok(_) => drop(seen.insert(u64::from_be_bytes(buffer))),
            Err(_) if end.load(Ordering::Relaxed) => return seen,
            Err(_) => (),
        }
    }
}

/// `RetransSegs` of a namespace (proc_pid_net(5), snmp).
fn resent_by(ns: &Ns) -> u64 {
    let text = ns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).expect("snmp is readable");
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:")).map(|line| line.split(' '));
    let (names, mut values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at =
        names.into_iter().position(|name| name == "RetransSegs").expect("TCP counts what it sends again");
    values.nth(at).and_then(|value| value.parse().ok()).expect("a number")
}

#[expect(clippy::disallowed_methods, reason = "a rate is made of pauses")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
