//! What an alias costs: the kernel runs the ingress program on a frame (BPF_PROG_TEST_RUN, bpf(2)) and says how long
//! that took, once for a server that asks which address was called and once for one that does not.

use std::io;
use std::mem::size_of;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};

use fief_testkit::Frame;

use crate::compare::median;
use crate::test_run;
use crate::world::{FAR, Family, World};

const PORTS: [u16; 2] = [9010, 9011];
/// Runs of one kind in a row, and how often.
const BLOCK: usize = 101;
const BLOCKS: usize = 40;

/// Nanoseconds a datagram: for a server that asks nothing, and for one that asks.
pub fn run(world: &World, family: Family) -> [f64; 2] {
    let device = world.host.ifindex("eth0");
    let program = world.host.enter(|| fief_testkit::bpf::first_at(device)).expect("root may ask");
    let program = program.expect("fief's is where packets come in");
    let servers = PORTS.map(|port| world.inside(|| UdpSocket::bind(("::", port))).expect("the port is free"));
    ask(&servers[1]);
    let frames = PORTS.map(|port| {
        let (source, destination) = (world.far.mac("eth0"), world.host.mac("eth0"));
        let ip = Frame::new(source, destination).ip(FAR[family as usize], world.local(family));
        ip.udp(4000, port, &[0; 32])
    });
    world.host.enter(|| {
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..BLOCKS {
            for (frame, found) in frames.iter().zip(&mut found) {
                // As in a stream of datagrams for one server.
                let run = |_| once(&program, frame, device).expect("the program takes a frame");
                found.extend((0..BLOCK).map(run));
            }
        }
        found.map(median)
    })
}

/// Makes a socket ask which address was called, in both families.
pub fn ask(server: &UdpSocket) {
    let set = |option: (i32, i32)| {
        let on: libc::c_int = 1;
        // SAFETY: the pointer is to a live value of the length that goes with it.
        let done = unsafe {
            let length = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(server.as_raw_fd(), option.0, option.1, (&raw const on).cast(), length)
        };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    };
    [(libc::IPPROTO_IP, libc::IP_PKTINFO), (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)]
        .into_iter()
        .for_each(set);
}

/// One run: a frame whose sender has become an alias cannot be used again.
fn once(program: &OwnedFd, frame: &[u8], device: u32) -> io::Result<f64> {
    let ran = test_run::run(program, frame, device, 1)?;
    assert_eq!(ran.answer, -1, "TCX_NEXT: the datagram is let in");
    Ok(ran.took)
}
