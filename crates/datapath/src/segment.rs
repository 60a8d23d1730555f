//! The guard of segments' sockets (bpf/segment.bpf.c): a control group with programs, and what they know of a socket.
//!
//! The programs are attached to the control group itself (BPF_PROG_ATTACH) and are pinned nowhere: they are there as long
//! as the group, and the group, even when its directory is removed, as long as the last socket that was made in it
//! (cgroup_bpf_release in kernel/bpf/cgroup.c). So the guard needs no daemon, and leaves nothing. The gate (gate.rs) is at a network
//! card instead, in the same manner.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramError, ProgramFd};
use aya::{Ebpf, EbpfLoader};
use aya_obj::generated::{bpf_attach_type, bpf_cmd};

use crate::{DatapathError, chain, syscall};

mod gate;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/segment.bpf.o"));

const PROGRAMS: [(&str, bpf_attach_type); 10] = [
    ("segment_out", bpf_attach_type::BPF_CGROUP_INET_EGRESS),
    ("segment_in", bpf_attach_type::BPF_CGROUP_INET_INGRESS),
    ("segment_send4", bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG),
    ("segment_send6", bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG),
    ("segment_connect4", bpf_attach_type::BPF_CGROUP_INET4_CONNECT),
    ("segment_connect6", bpf_attach_type::BPF_CGROUP_INET6_CONNECT),
    ("segment_bind4", bpf_attach_type::BPF_CGROUP_INET4_BIND),
    ("segment_bind6", bpf_attach_type::BPF_CGROUP_INET6_BIND),
    ("segment_set", bpf_attach_type::BPF_CGROUP_SETSOCKOPT),
    ("segment_get", bpf_attach_type::BPF_CGROUP_GETSOCKOPT),
];

/// What was refused, as `enum reason` of bpf/lib/segment.h numbers it.
pub const REASONS: [&str; 9] = [
    "not-locked",
    "foreign-out",
    "foreign-in",
    "not-a-peer",
    "wrong-packet",
    "too-clever",
    "option",
    "rebound",
    "too-many",
];

/// What a guarded socket may do.
#[derive(Debug, Clone, Copy)]
pub struct Sock {
    /// What stands before every frame.
    pub header: [u8; 8],
    /// The multicast group.
    pub group: IpAddr,
    /// Its port.
    pub group_port: u16,
    /// The address that the socket is bound to.
    pub own: IpAddr,
    /// Its port.
    pub own_port: u16,
    /// The network card's index.
    pub device: u32,
    /// The most hops a datagram may go.
    pub most_hops: u8,
    /// Does it only hear?
    pub mute: bool,
    /// Is there a gate at the card ([`Guard::gate`])? Then many datagrams may leave in one packet.
    pub gated: bool,
    /// Datagrams a second that it may send to the group.
    pub rate: u32,
}

/// What the programs have to tell: the first refusal of each kind. Readable when there is something.
pub struct News(RingBuf<MapData>);

impl AsRawFd for News {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Iterator for News {
    /// Which of [`REASONS`], and whose segment; 0 if that is not known.
    type Item = (&'static str, u32);

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.0.next()?;
        let (reason, header) = item.split_first_chunk()?;
        let reason = REASONS.get(u32::from_ne_bytes(*reason) as usize)?;
        Some((*reason, u32::from_be_bytes(*header.first_chunk()?) >> 8))
    }
}

/// A control group whose sockets are guarded.
pub struct Guard {
    programs: Ebpf,
    refused: PerCpuArray<MapData, u64>,
    gates: Vec<u32>,
}

impl Guard {
    /// Loads the programs and attaches them to a control group (version 2), in which no socket has been made yet.
    pub fn attach(cgroup: BorrowedFd<'_>, place: &str) -> Result<(Guard, News), DatapathError> {
        let mut loader = EbpfLoader::new();
        let teeth = teeth();
        loader.override_global("segment_teeth", &teeth, true);
        let mut programs = loader.load(OBJECT).map_err(|e| DatapathError::Load(chain(&e)))?;
        // All of them first: a kernel that refuses one gets none.
        for (name, _) in PROGRAMS {
            load(&mut programs, name).map_err(|e| DatapathError::Load(format!("{name}: {}", chain(&e))))?;
        }
        load(&mut programs, gate::NAME)
            .map_err(|e| DatapathError::Load(format!("{}: {}", gate::NAME, chain(&e))))?;
        for (name, kind) in PROGRAMS {
            let failed =
                |error: String| DatapathError::Attach { program: name, place: place.to_owned(), error };
            let program = descriptor(&programs, name).map_err(|e| failed(chain(&e)))?;
            attach(program.as_fd(), cgroup, kind).map_err(|e| failed(e.to_string()))?;
        }
        bind(&programs)
            .map_err(|e| DatapathError::Load(format!("tie segment_claimed to a program: {}", chain(&e))))?;
        let mut take = |name: &str| {
            programs.take_map(name).ok_or_else(|| DatapathError::Load(format!("the object has no {name}")))
        };
        let failed = |e: aya::maps::MapError| DatapathError::Load(chain(&e));
        let refused = PerCpuArray::try_from(take("segment_refused")?).map_err(failed)?;
        let news = RingBuf::try_from(take("segment_news")?).map_err(failed)?;
        Ok((Guard { programs, refused, gates: Vec::new() }, News(news)))
    }

    /// Says whose a socket is, which cannot be taken back. Until then it neither sends nor hears. It must have an address.
    /// Gives its cookie, which nobody can ask for afterwards.
    pub fn lock(&self, socket: BorrowedFd<'_>, may: &Sock) -> io::Result<u64> {
        let (cookie, fd) = (rustix::net::sockopt::socket_cookie(socket)?, socket.as_raw_fd());
        if !is_off(16) {
            update(map(&self.programs, "segment_claimed")?, &cookie, &u64::from(fd.cast_unsigned()))?;
        }
        update(map(&self.programs, "segment_socks")?, &fd, &Value::new(may))?;
        Ok(cookie)
    }

    /// Is the socket with this cookie one of ours, and not closed yet?
    pub fn has(&self, cookie: u64) -> bool {
        let Ok(map) = map(&self.programs, "segment_claimed") else { return false };
        let mut found = 0_u64;
        let attr = ElementAttr {
            map_fd: map.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: (&raw const cookie) as u64,
            value: (&raw mut found) as u64,
            flags: 0,
        };
        syscall::call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &attr).is_ok()
    }

    /// Sees that the gate is at a network card of the calling thread's namespace. One that an earlier daemon has put there is
    /// replaced: they are all alike.
    ///
    /// Errors: the kernel is older than 6.6 (tcx), and what the kernel says.
    pub fn gate(&mut self, device: &str, index: u32) -> Result<(), DatapathError> {
        let failed =
            |error: String| DatapathError::Attach { program: gate::NAME, place: device.to_owned(), error };
        let program = descriptor(&self.programs, gate::NAME).map_err(|e| failed(chain(&e)))?;
        if gate::attach(program.as_fd(), device, index).map_err(failed)? {
            self.gates.push(index);
        }
        Ok(())
    }

    /// Takes away the gates that were put up by this daemon in the calling thread's namespace, and in no other's place: to be
    /// called when none of its sockets is left. Others stay as long as the card, for who knows how long a socket lasts.
    pub fn ungate(&mut self) {
        let Ok(program) = descriptor(&self.programs, gate::NAME) else { return };
        for index in self.gates.drain(..) {
            // Somebody else's is there by now, or the card has gone.
            let _ = gate::detach(program.as_fd(), index);
        }
    }

    /// How often each of [`REASONS`] was one.
    pub fn refused(&self) -> [u64; REASONS.len()] {
        let count = |reason: usize| {
            let values = u32::try_from(reason).ok().and_then(|reason| self.refused.get(&reason, 0).ok());
            values.map_or(0, |values| values.iter().sum())
        };
        std::array::from_fn(count)
    }
}

/// BPF_MAP_UPDATE_ELEM's and BPF_MAP_LOOKUP_ELEM's part of `union bpf_attr`.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The descriptor of a map of the object.
fn map<'a>(programs: &'a Ebpf, name: &str) -> io::Result<BorrowedFd<'a>> {
    match programs.map(name) {
        Some(Map::SkStorage(map) | Map::SockHash(map)) => Ok(map.fd().as_fd()),
        _ => Err(io::Error::other(format!("the object has no {name}"))),
    }
}

fn update<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let attr = ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags: 0,
    };
    syscall::call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &attr).map(drop)
}

/// BPF_PROG_BIND_MAP's part of `union bpf_attr`.
#[repr(C)]
struct BindAttr {
    prog_fd: u32,
    map_fd: u32,
    flags: u32,
}

/// The map of claimed sockets must last as long as the programs.
fn bind(programs: &Ebpf) -> io::Result<()> {
    let program = descriptor(programs, "segment_out").map_err(io::Error::other)?;
    let map = map(programs, "segment_claimed")?;
    let [prog_fd, map_fd] = [program.as_fd(), map].map(|fd| fd.as_raw_fd().cast_unsigned());
    syscall::call(bpf_cmd::BPF_PROG_BIND_MAP, &BindAttr { prog_fd, map_fd, flags: 0 }).map(drop)
}

/// BPF_PROG_ATTACH's part of `union bpf_attr`.
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// Beside whatever is attached above (linux/bpf.h).
const BPF_F_ALLOW_MULTI: u32 = 2;

/// `struct segment` of bpf/lib/segment.h.
#[repr(C)]
struct Value {
    header: [u8; 8],
    group: [u8; 16],
    own: [u8; 16],
    group_port: [u8; 2],
    own_port: [u8; 2],
    device: u32,
    family: u8,
    most_hops: u8,
    mute: u8,
    locked: u8,
    gated: u32,
    rate: u32,
    left: u32,
    pad: u32,
    counted: u64,
    asked: [u64; 2],
}

impl Value {
    fn new(may: &Sock) -> Value {
        Value {
            header: may.header,
            group: bytes(may.group),
            own: bytes(may.own),
            group_port: may.group_port.to_be_bytes(),
            own_port: may.own_port.to_be_bytes(),
            device: may.device,
            family: if may.group.is_ipv4() { 4 } else { 6 },
            most_hops: may.most_hops,
            mute: may.mute.into(),
            locked: 1,
            gated: may.gated.into(),
            rate: may.rate,
            left: may.rate,
            pad: 0,
            counted: 0,
            asked: [0; 2],
        }
    }
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
    }
}

fn load(programs: &mut Ebpf, name: &str) -> Result<(), ProgramError> {
    match programs.program_mut(name) {
        Some(Program::CgroupSkb(program)) => program.load(),
        Some(Program::CgroupSockAddr(program)) => program.load(),
        Some(Program::CgroupSockopt(program)) => program.load(),
        Some(Program::SchedClassifier(program)) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn descriptor<'a>(programs: &'a Ebpf, name: &str) -> Result<&'a ProgramFd, ProgramError> {
    programs.program(name).ok_or(ProgramError::NotLoaded)?.fd()
}

fn attach(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, kind: bpf_attach_type) -> io::Result<()> {
    let attr = AttachAttr {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: kind as u32,
        attach_flags: BPF_F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    syscall::call(bpf_cmd::BPF_PROG_ATTACH, &attr).map(drop)
}

/// Is the rule against this attack of docs/overlay.md switched off, by `FIEF_TEETH=guard-NN`?
fn is_off(attack: u32) -> bool {
    teeth() & 1 << (attack - 1) != 0
}

/// `guard-NN` is bit NN - 1 of `segment_teeth`.
#[cfg(feature = "teeth")]
fn teeth() -> u32 {
    let named = std::env::var("FIEF_TEETH").unwrap_or_default();
    let number = named.strip_prefix("guard-").and_then(|number| number.parse::<u32>().ok());
    number.and_then(|number| 1_u32.checked_shl(number.wrapping_sub(1))).unwrap_or(0)
}

#[cfg(not(feature = "teeth"))]
fn teeth() -> u32 {
    0
}
