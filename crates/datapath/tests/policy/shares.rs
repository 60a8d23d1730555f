//! What spaces have of the room for conversations, which is the host's.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use fief_datapath::ports::{Occupant, Room};
use fief_policy::Direction::{Egress, Ingress};
use fief_policykit::scene::slot;
use fief_testkit::Lab;
use fief_testkit::frame::Packet;
use rustix::mount::{MountFlags, mount};

use crate::machine::{DEVICE, Machine, from_to, occupant};
use crate::tracking::{ACK, CALLS, CLIENT, SERVER, SYN_ACK, scene, since_start};

/// A space has five of these for sure, and three quarters are for who comes first.
const ROOM: Room = Room { answered: 640, waiting: 640 };
const SHARE: u16 = 5;
const FIRST: usize = 480;
/// Another tenant, on whose networks the endpoint is as well.
const OTHER: u16 = 4242;

/// A port of somebody who calls everybody and whom nobody calls.
struct Caller(Machine);

impl Caller {
    fn new(pins: Option<&Path>) -> Option<Caller> {
        let mut machine = Machine::with_room(ROOM, pins)?;
        machine.reach(&scene(CALLS));
        [slot().into(), OTHER].into_iter().for_each(|space| machine.policy.enforce(space));
        Some(Caller(machine))
    }

    /// The port is one of this space.
    fn is_in(&self, space: u16) {
        let identity = self.0.host.at[&SERVER[0].parse().unwrap()];
        let place = Occupant { space, ..occupant(slot().into(), identity) };
        self.0.policy.ports().place(DEVICE, &place).unwrap();
    }

    fn sends(&mut self, frame: &[u8]) -> bool {
        self.0.policy.try_frame(Egress, frame).unwrap().passes
    }

    fn hears(&mut self, frame: &[u8]) -> bool {
        self.0.policy.try_frame(Ingress, frame).unwrap().passes
    }

    fn asks(&mut self, from: Range<u16>) {
        from.for_each(|from| assert!(self.sends(&out().udp(from, 53, b"question"))));
    }

    /// How many of those who asked get no answer?
    fn lost(&mut self, to: Range<u16>) -> usize {
        to.filter(|to| !self.hears(&back().udp(53, *to, b"answer"))).count()
    }

    fn connect(&mut self, from: u16) {
        assert!(self.sends(&out().tcp_syn(from, 80)));
        self.hears(&back().tcp((80, from), SYN_ACK, (1, 2), b""));
    }

    fn goes_on(&mut self, to: u16) -> bool {
        self.hears(&back().tcp((80, to), ACK, (2, 2), b"more"))
    }

    /// Everything is over; how much was there?
    fn sweep(&self) -> usize {
        self.0.policy.ports().sweep(since_start() + Duration::from_secs(10_000)).unwrap()
    }
}

fn out() -> Packet {
    from_to(SERVER[0].parse().unwrap(), CLIENT[0].parse().unwrap())
}

fn back() -> Packet {
    from_to(CLIENT[0].parse().unwrap(), SERVER[0].parse().unwrap())
}

#[test]
fn whoever_fills_the_room_leaves_others_their_share() {
    let Some(mut caller) = Caller::new(None) else { return };
    caller.is_in(slot().into());
    caller.asks(1000..2000);
    caller.is_in(OTHER);
    caller.asks(5000..5000 + SHARE);
    assert_eq!(caller.lost(5000..5000 + SHARE), 0, "whatever others have, they are heard");
    caller.is_in(slot().into());
    assert!(caller.lost(1000..2000) >= 1000 - FIRST, "who has so many gets no more");
    assert!((FIRST..=FIRST + usize::from(SHARE)).contains(&caller.sweep()));

    // What is over makes room.
    caller.asks(2000..2200);
    assert!(caller.lost(2000..2200) < 10, "the control");
}

#[test]
fn whoever_fills_the_room_of_the_answered_leaves_others_their_share() {
    let Some(mut caller) = Caller::new(None) else { return };
    caller.is_in(slot().into());
    (1000..2000).for_each(|from| caller.connect(from));
    caller.is_in(OTHER);
    (5000..5000 + SHARE).for_each(|from| caller.connect(from));
    // Only those that were answered stay whatever else is begun at this port.
    caller.asks(10_000..20_000);
    assert!((5000..5000 + SHARE).all(|to| caller.goes_on(to)));
    assert!((1000..1100).all(|to| caller.goes_on(to)), "the first");
    assert!(!(1900..2000).any(|to| caller.goes_on(to)), "who came too late");
    caller.sweep();
    caller.connect(1900);
    caller.asks(10_000..20_000);
    assert!(caller.goes_on(1900), "the control");
}

#[test]
fn programs_that_are_loaded_again_know_who_has_how_much() {
    let Some(lab) = Lab::new("shares") else { return };
    let pins = lab.dir().join("bpf");
    std::fs::create_dir(&pins).unwrap();
    mount("bpf", &pins, "bpf", MountFlags::empty(), None).unwrap();
    let Some(mut caller) = Caller::new(Some(&pins)) else { return };
    caller.is_in(slot().into());
    caller.asks(1000..2000);
    drop(caller);
    let mut caller = Caller::new(Some(&pins)).unwrap();
    caller.is_in(slot().into());
    caller.asks(2000..3000);
    // Whoever knew of none of the former would take the rest of the room as well.
    assert!((FIRST..=FIRST + usize::from(SHARE)).contains(&caller.sweep()));
}
