//! What an alias costs: the kernel runs the ingress program on a frame (BPF_PROG_TEST_RUN, bpf(2)) and says how long
//! that took, once for a server that asks which address was called and once for one that does not.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use fief_testkit::Frame;

use crate::compare::median;
use crate::world::{FAR, Family, World};

const PORTS: [u16; 2] = [9010, 9011];
/// Runs of one kind in a row, and how often.
const BLOCK: usize = 101;
const BLOCKS: usize = 40;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
/// Where `struct __sk_buff` (linux/bpf.h) has the device's index, and its size.
const IFINDEX: usize = 40;
const CONTEXT: usize = 192;

/// The part of `union bpf_attr` for test runs.
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
}

/// Nanoseconds a datagram: for a server that asks nothing, and for one that asks.
pub fn run(world: &World, family: Family) -> [f64; 2] {
    let program = ingress_program(world);
    let servers = PORTS.map(|port| world.inside(|| UdpSocket::bind(("::", port))).expect("the port is free"));
    ask(&servers[1]);
    let frames = PORTS.map(|port| {
        let (source, destination) = (world.far.mac("eth0"), world.host.mac("eth0"));
        let ip = Frame::new(source, destination).ip(FAR[family as usize], world.local(family));
        ip.udp(4000, port, &[0; 32])
    });
    let mut context = [0; CONTEXT];
    context[IFINDEX..][..4].copy_from_slice(&world.host.ifindex("eth0").to_ne_bytes());
    world.host.enter(|| {
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..BLOCKS {
            for (frame, found) in frames.iter().zip(&mut found) {
                // As in a stream of datagrams for one server.
                let run = |_| once(&program, frame, &context).expect("the program takes a frame");
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
fn once(program: &OwnedFd, frame: &[u8], context: &[u8; CONTEXT]) -> io::Result<f64> {
    // SAFETY: plain C data, for which all zeroes is a value.
    let mut attr: TestRun = unsafe { zeroed() };
    attr.prog_fd = program.as_raw_fd() as u32;
    (attr.data_in, attr.data_size_in) = (frame.as_ptr() as u64, frame.len() as u32);
    (attr.ctx_in, attr.ctx_size_in) = (context.as_ptr() as u64, CONTEXT as u32);
    attr.repeat = 1;
    call(BPF_PROG_TEST_RUN, (&raw mut attr).cast(), size_of::<TestRun>())?;
    assert_eq!(attr.retval.cast_signed(), -1, "TCX_NEXT: the datagram is let in");
    Ok(f64::from(attr.duration))
}

fn ingress_program(world: &World) -> OwnedFd {
    let links = world.links();
    let line = format!("for l in {links}/wire_ingress-*; do bpftool -j link show pinned $l; done");
    let json: serde_json::Value = world.host.sh(&line).ok().json();
    let id = json["prog_id"].as_u64().expect("a link has a program") as u32;
    let mut attr = [id, 0, 0, 0];
    let fd = call(BPF_PROG_GET_FD_BY_ID, attr.as_mut_ptr().cast(), size_of_val(&attr)).expect("root may");
    // SAFETY: the descriptor was just made and belongs to nobody else.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn call(command: libc::c_long, attr: *mut libc::c_void, size: usize) -> io::Result<libc::c_long> {
    // SAFETY: the pointer is to a live `union bpf_attr` of this size, and what it points to lives as long.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}
