//! The bpf programs that are loaded on this machine, with their instructions as the kernel runs them (bpf(2)): read only.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::HostError;

const MAP_LOOKUP_ELEM: i32 = 1;
const PROG_LOAD: i32 = 5;
const PROG_GET_NEXT_ID: i32 = 11;
const PROG_GET_FD_BY_ID: i32 = 13;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;
/// BPF_TCX_INGRESS and BPF_TCX_EGRESS.
const TCX: [u32; 2] = [46, 47];

/// Programs longer than this are not looked at (the verifier's own limit is a million).
const LONGEST: u32 = 8 * 1_000_000;

/// A loaded program.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its number.
    pub id: u32,
    /// Its name, cut to 15 characters by the kernel.
    pub name: String,
    /// `enum bpf_prog_type`.
    pub kind: u32,
    /// Its maps.
    pub maps: Vec<Map>,
    /// Eight bytes an instruction.
    pub instructions: Vec<[u8; 8]>,
}

/// A map of a program's.
#[derive(Debug, Clone)]
pub struct Map {
    /// Its number.
    pub id: u32,
    /// Its name, cut to 15 characters by the kernel.
    pub name: String,
    /// What is in it, where that is constants: one value that programs may only read.
    pub constants: Vec<u8>,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: [u8; 16],
}

/// BPF_MAP_LOOKUP_ELEM's part of `union bpf_attr`.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// BPF_OBJ_GET_INFO_BY_FD's part of `union bpf_attr`.
#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The part of `union bpf_attr` that asks for numbers: from where, the next one, flags.
#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: std::cell::Cell<u32>,
    flags: u32,
}

/// BPF_PROG_QUERY's part of `union bpf_attr`, as far as the count.
#[repr(C)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: std::cell::Cell<u32>,
    pad: u32,
}

/// BPF_PROG_LOAD's part of `union bpf_attr`, as far as the expected attach type.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// Hands every program to `each`. One that goes meanwhile is left out.
pub fn visit(mut each: impl FnMut(Program)) -> Result<(), HostError> {
    let mut last = 0;
    loop {
        let attr = IdAttr { id: last, ..IdAttr::default() };
        match call(PROG_GET_NEXT_ID, &attr) {
            Ok(_) => last = attr.next.get(),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(HostError::io("list bpf programs", error)),
        }
        let opened = descriptor(PROG_GET_FD_BY_ID, &IdAttr { id: last, ..IdAttr::default() });
        if let Some(program) = opened.ok().and_then(|fd| read(&fd).ok()) {
            each(program);
        }
    }
}

/// The numbers of the programs that sit on a device of the current thread's namespace (tcx, Linux 6.6), in and out.
pub fn on_device(index: u32) -> Vec<u32> {
    const MOST: usize = 64;
    let mut found = Vec::new();
    for attach_type in TCX {
        let mut ids = [0_u32; MOST];
        let attr = QueryAttr {
            target: index,
            attach_type,
            query_flags: 0,
            attach_flags: 0,
            ids: ids.as_mut_ptr() as u64,
            count: std::cell::Cell::new(MOST as u32),
            pad: 0,
        };
        // An older kernel has no such place, and a device that is gone no programs.
        if call(PROG_QUERY, &attr).is_ok() {
            found.extend(ids.into_iter().take(attr.count.get() as usize));
        }
    }
    found
}

/// What the kernel makes of a program that reads the packet mark, or a new socket's: the instruction that does it says
/// where in its structure the mark is. `None` if it may not be asked.
pub fn mark_offsets() -> Option<(i16, i16)> {
    const SOCKET_FILTER: u32 = 1;
    const CGROUP_SOCK: u32 = 9;
    const SOCK_CREATE: u32 = 2;
    /// Of `mark` in `struct __sk_buff` and `struct bpf_sock`.
    const IN_SKB: i16 = 8;
    const IN_SOCK: i16 = 16;
    let probe = |kind, attach_type, offset: i16| {
        let [low, high] = offset.to_ne_bytes();
        // r2 = *(u32 *)(r1 + offset); r0 = 1; exit
        let program =
            [[0x61, 0x12, low, high, 0, 0, 0, 0], [0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
        let license = c"GPL";
        let attr = LoadAttr {
            kind,
            count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            attach_type,
            ..LoadAttr::default()
        };
        let loaded = descriptor(PROG_LOAD, &attr).ok()?;
        let read = read(&loaded).ok()?;
        let load = read.instructions.iter().find(|insn| insn[0] == 0x61)?;
        Some(i16::from_ne_bytes([load[2], load[3]]))
    };
    Some((probe(SOCKET_FILTER, 0, IN_SKB)?, probe(CGROUP_SOCK, SOCK_CREATE, IN_SOCK)?))
}

fn read(fd: &OwnedFd) -> io::Result<Program> {
    let mut info = ProgramInfo::default();
    describe(fd, &mut info)?;
    let length = info.xlated_prog_len.min(LONGEST) / 8 * 8;
    let mut instructions = vec![[0_u8; 8]; length as usize / 8];
    let mut maps = vec![0_u32; info.nr_map_ids.min(1024) as usize];
    let mut again = ProgramInfo {
        xlated_prog_len: length,
        xlated_prog_insns: instructions.as_mut_ptr() as u64,
        nr_map_ids: maps.len() as u32,
        map_ids: maps.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    describe(fd, &mut again)?;
    let maps = maps.into_iter().filter_map(|id| read_map(id).ok()).collect();
    Ok(Program { id: info.id, name: text(&info.name), kind: info.kind, maps, instructions })
}

fn read_map(id: u32) -> io::Result<Map> {
    const ARRAY: u32 = 2;
    const RDONLY_PROG: u32 = 1 << 7;
    const MOST: u32 = 1 << 20;
    let map = descriptor(MAP_GET_FD_BY_ID, &IdAttr { id, ..IdAttr::default() })?;
    let mut info = MapInfo::default();
    describe(&map, &mut info)?;
    let is_constant = info.kind == ARRAY && info.max_entries == 1 && info.map_flags & RDONLY_PROG != 0;
    let mut constants = Vec::new();
    if is_constant && info.value_size <= MOST {
        // The kernel writes a multiple of eight.
        constants.resize((info.value_size as usize).next_multiple_of(8), 0);
        let key = 0_u32;
        let attr = ElementAttr {
            map_fd: map.as_raw_fd().cast_unsigned(),
            pad: 0,
            key: (&raw const key) as u64,
            value: constants.as_mut_ptr() as u64,
            flags: 0,
        };
        if call(MAP_LOOKUP_ELEM, &attr).is_err() {
            constants.clear();
        }
    }
    Ok(Map { id, name: text(&info.name), constants })
}

fn describe<T>(fd: &OwnedFd, info: &mut T) -> io::Result<()> {
    let attr = InfoAttr {
        fd: fd.as_raw_fd().cast_unsigned(),
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    call(OBJ_GET_INFO_BY_FD, &attr).map(drop)
}

fn text(name: &[u8; 16]) -> String {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

fn descriptor<A>(command: i32, attr: &A) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: the command just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call<A>(command: i32, attr: &A) -> io::Result<i32> {
    // SAFETY: `attr` is the beginning of `union bpf_attr` for this command, of the length that goes with it; what it
    // points to its maker keeps alive until the call returns, and where the kernel writes is as long as it is told.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<A>()) };
    match i32::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}
