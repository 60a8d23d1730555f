//! What the rules cost a packet: the kernel runs the program at a port (BPF_PROG_TEST_RUN) on one that they deny, so that no
//! conversation of it is ever remembered.

use std::net::Ipv4Addr;

use fief_datapath::policy::Policy;
use fief_datapath::ports::Occupant;
use fief_policy::{Compiler, Direction};
use fief_policykit::scene::slot;
use fief_policykit::shapes::{APPS, CROWD, ENDPOINTS, Shape, identity};
use fief_testkit::Frame;

use super::POLICIES;
use crate::compare::{Compared, compare};
use crate::test_run;

/// The loopback device: the port in question.
const DEVICE: u32 = 1;
/// The caller's, which nothing is sent to.
const CALLER_DEVICE: u32 = 2;
const SUBJECT: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const CALLER: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
/// No rule names it. What the first policy allows has another one in each shape.
const CLOSED: u16 = 443;
const REPEAT: u32 = 20_000;
/// linux/pkt_cls.h.
const TC_ACT_SHOT: i32 = 2;

/// Whom the policies are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// One about the subject, the others about others.
    Others,
    /// All of them about the subject.
    Subject,
}

/// Nanoseconds a packet with all policies, to the first of them alone.
pub fn compared(about: About) -> Compared {
    let (shape, open) = match about {
        About::Others => (APPS, 80),
        About::Subject => (CROWD, 1000),
    };
    // Every ENDPOINTS-th of `apps` is about the same application.
    let of_others = |n: &usize| about == About::Subject || *n == 0 || !n.is_multiple_of(ENDPOINTS);
    let many = Judge::of(shape, (0..).filter(of_others).take(POLICIES), open);
    let one = Judge::of(shape, 0..1, open);
    compare(|| many.run(), || one.run())
}

struct Judge {
    policy: Policy,
    frame: Vec<u8>,
}

impl Judge {
    fn of(shape: Shape, policies: impl Iterator<Item = usize>, open: u16) -> Judge {
        let mut compiler = Compiler::new(Policy::ROOM);
        let delta = compiler.update(shape.changes(policies)).expect("there is room for everything");
        let mut policy =
            Policy::load(&Policy::ROOM, Policy::CONVERSATIONS, None).expect("the kernel takes the programs");
        policy.apply(&delta).expect("there is room for everything");
        let space = slot().number();
        let first = identity(0).0;
        for (device, address) in [(DEVICE, SUBJECT), (CALLER_DEVICE, CALLER)] {
            let occupant = Occupant {
                space,
                slot: space,
                identity: first,
                owner: device,
                is_guarded: false,
                is_audited: false,
            };
            policy.ports().place(device, &occupant).expect("there is room");
            policy.ports().hold(space, address.into(), device).expect("there is room");
        }
        policy.enforce(space);
        let call = |port| {
            Frame::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ip(CALLER, SUBJECT).tcp_syn(40_000, port)
        };
        let allowed = policy.try_frame(Direction::Ingress, &call(open)).expect("the program takes a frame");
        assert!(allowed.passes && allowed.verdict.is_some(), "what is allowed does not pass: {allowed:?}");
        Judge { policy, frame: call(CLOSED) }
    }

    fn run(&self) -> f64 {
        let program = &self.policy.ports().gate.egress;
        let ran = test_run::run(program, &self.frame, DEVICE, REPEAT).expect("the program takes a frame");
        assert_eq!(ran.answer, TC_ACT_SHOT, "what is denied passes");
        ran.took
    }
}
