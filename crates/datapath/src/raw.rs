//! Kinds of programs that aya 0.14 has no word for (netfilter, lwt_xmit), or none that fits (iterators): loaded here
//! (linux/bpf.h); parsing and relocation are aya's.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use aya::maps::Map;
use aya::{Btf, Ebpf};
use aya_obj::generated::{bpf_cmd, bpf_insn, bpf_prog_type};

use crate::{DatapathError, chain, syscall};

/// The verifier's last words.
const LOG_SIZE: usize = 1 << 20;

/// Programs, relocated and ready to be loaded.
pub(crate) struct Raw {
    programs: HashMap<&'static str, Vec<bpf_insn>>,
    license: CString,
}

/// What a raw program is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub program: bpf_prog_type,
    /// 0 where the kind has none.
    pub attach_type: u32,
    /// The function of the kernel that it is for, by its number in the kernel's BTF; 0 where there is none.
    pub attach_to: u32,
}

impl Raw {
    /// Takes programs out of the object, fits them to this kernel's structures; `loaded` is the same object with its
    /// maps made.
    pub(crate) fn read(
        object: &[u8],
        names: impl Iterator<Item = &'static str>,
        globals: HashMap<&str, (&[u8], bool)>,
        kernel: &Btf,
        loaded: &Ebpf,
    ) -> Result<Raw, DatapathError> {
        let failed = |e: &dyn std::error::Error| DatapathError::Load(format!("relocate: {}", chain(e)));
        let mut object = aya_obj::Object::parse(object).map_err(|e| failed(&e))?;
        object.patch_map_data(globals).map_err(|e| failed(&e))?;
        object.relocate_btf(kernel).map_err(|e| failed(&e))?;
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let maps = object.maps.clone();
        let fds: Vec<(&str, RawFd, &aya_obj::Map)> = maps
            .iter()
            .filter_map(|(name, map)| Some((name.as_str(), descriptor(loaded.map(name)?)?, map)))
            .collect();
        object.relocate_maps(fds.into_iter(), &sections).map_err(|e| failed(&e))?;
        object.relocate_calls(&sections).map_err(|e| failed(&e))?;
        let programs = names.map(|name| {
            let program = object.programs.get(name);
            let function = program.and_then(|p| object.functions.get(&p.function_key()));
            let function = function.ok_or_else(|| DatapathError::Load(format!("no {name}")))?;
            Ok((name, function.instructions.clone()))
        });
        Ok(Raw { programs: programs.collect::<Result<_, DatapathError>>()?, license: object.license.clone() })
    }

    /// Verifies one of them, as a program of this kind.
    pub(crate) fn load(&self, name: &'static str, kind: Kind) -> Result<OwnedFd, String> {
        let instructions = self.programs.get(name).ok_or("not in the object")?;
        let mut prog_name = [0; 16];
        prog_name[..name.len()].copy_from_slice(name.as_bytes());
        let mut attr = LoadAttr {
            prog_type: kind.program as u32,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: self.license.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
            prog_name,
            prog_ifindex: 0,
            expected_attach_type: kind.attach_type,
            prog_btf_fd: 0,
            func_info_rec_size: 0,
            func_info: 0,
            func_info_cnt: 0,
            line_info_rec_size: 0,
            line_info: 0,
            line_info_cnt: 0,
            attach_btf_id: kind.attach_to,
        };
        if let Ok(program) = syscall::descriptor(bpf_cmd::BPF_PROG_LOAD, &attr) {
            return Ok(program);
        }
        // Once more, to hear why.
        let mut log = vec![0u8; LOG_SIZE];
        (attr.log_level, attr.log_size, attr.log_buf) = (1, LOG_SIZE as u32, log.as_mut_ptr() as u64);
        syscall::descriptor(bpf_cmd::BPF_PROG_LOAD, &attr).map_err(|error| {
            let text = String::from_utf8_lossy(&log);
            let text = text.trim_end_matches('\0').trim();
            let last: Vec<&str> = text.lines().rev().take(4).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("; ");
            format!("{error}; the verifier says: {last}")
        })
    }
}

fn descriptor(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::SockHash(data)
        | Map::Unsupported(data) => Some(data.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}

/// BPF_PROG_LOAD's part of `union bpf_attr`.
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}
