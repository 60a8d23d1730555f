//! Netfilter programs (BPF_PROG_TYPE_NETFILTER, Linux 6.4): loaded, linked to a hook of this network namespace, pinned.
//!
//! aya 0.14 has no word for this kind of program, so it is loaded and linked here (linux/bpf.h); parsing and
//! relocation are aya's.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use aya::maps::Map;
use aya::{Btf, Ebpf};
use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_insn, bpf_prog_type};

use crate::{DatapathError, chain, syscall};

/// Where a program sits: its name, family and hook (linux/netfilter.h).
struct Hook {
    program: &'static str,
    family: u32,
    hook: u32,
}

const LOCAL_IN: u32 = 1;
const POST_ROUTING: u32 = 4;
/// Behind everything that others may do to a packet or its mark, source translation included (linux/netfilter_ipv4.h).
const PRIORITY: i32 = 300;
/// Two bpf programs of one hook may not have the same priority (EBUSY), and a successor stands before the old one goes.
const PRIORITIES: i32 = 16;
const HOOKS: [Hook; 4] = [
    Hook { program: "delivered4", family: libc::NFPROTO_IPV4 as u32, hook: LOCAL_IN },
    Hook { program: "delivered6", family: libc::NFPROTO_IPV6 as u32, hook: LOCAL_IN },
    Hook { program: "leaving4", family: libc::NFPROTO_IPV4 as u32, hook: POST_ROUTING },
    Hook { program: "leaving6", family: libc::NFPROTO_IPV6 as u32, hook: POST_ROUTING },
];
/// The verifier's last words.
const LOG_SIZE: usize = 1 << 20;

/// The programs, relocated and ready to be loaded.
pub(crate) struct Guard {
    programs: Vec<(&'static Hook, Vec<bpf_insn>)>,
    license: CString,
}

impl Guard {
    /// Takes the programs out of the object, fits them to this kernel's structures; `loaded` is the same object with its maps made.
    pub(crate) fn read(
        object: &[u8],
        globals: HashMap<&str, (&[u8], bool)>,
        kernel: &Btf,
        loaded: &Ebpf,
    ) -> Result<Guard, DatapathError> {
        let failed = |e: &dyn std::error::Error| DatapathError::Load(format!("netfilter: {}", chain(e)));
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
        let programs = HOOKS.iter().map(|hook| {
            let program = object.programs.get(hook.program);
            let function = program.and_then(|p| object.functions.get(&p.function_key()));
            let function = function.ok_or_else(|| DatapathError::Load(format!("no {}", hook.program)))?;
            Ok((hook, function.instructions.clone()))
        });
        Ok(Guard {
            programs: programs.collect::<Result<_, DatapathError>>()?,
            license: object.license.clone(),
        })
    }

    /// Links each program to its hook of the calling thread's network namespace, unless a pin says that it is there.
    pub(crate) fn attach(&self, links: &Path, digest: &str) -> Result<(), DatapathError> {
        let mut wanted = HashSet::new();
        for (hook, instructions) in &self.programs {
            let pin = format!("{}-netns-{digest}", hook.program);
            let at = links.join(&pin);
            wanted.insert(pin);
            if at.exists() {
                continue;
            }
            let failed = |error: String| DatapathError::Attach {
                program: hook.program,
                place: "the network namespace".into(),
                error,
            };
            let program = load(hook.program, instructions, &self.license).map_err(failed)?;
            let link = link(&program, hook).map_err(|e| failed(e.to_string()))?;
            syscall::pin(&link, &at).map_err(|e| failed(format!("pin {}: {e}", at.display())))?;
        }
        crate::attach::unpin_others(links, |name| HOOKS.iter().any(|h| name.starts_with(h.program)), &wanted);
        Ok(())
    }
}

fn descriptor(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::PerCpuHashMap(data) | Map::Unsupported(data) => {
            Some(data.fd().as_fd().as_raw_fd())
        }
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
}

/// BPF_LINK_CREATE's part of `union bpf_attr`, for netfilter.
#[repr(C)]
struct LinkAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    pf: u32,
    hooknum: u32,
    priority: i32,
    netfilter_flags: u32,
}

fn load(name: &str, instructions: &[bpf_insn], license: &CString) -> Result<OwnedFd, String> {
    let mut prog_name = [0; 16];
    prog_name[..name.len()].copy_from_slice(name.as_bytes());
    let mut attr = LoadAttr {
        prog_type: bpf_prog_type::BPF_PROG_TYPE_NETFILTER as u32,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
        prog_ifindex: 0,
        expected_attach_type: bpf_attach_type::BPF_NETFILTER as u32,
    };
    let error = match syscall::descriptor(bpf_cmd::BPF_PROG_LOAD, &attr) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    // Once more, to hear why.
    let mut log = vec![0u8; LOG_SIZE];
    (attr.log_level, attr.log_size, attr.log_buf) = (1, LOG_SIZE as u32, log.as_mut_ptr() as u64);
    match syscall::descriptor(bpf_cmd::BPF_PROG_LOAD, &attr) {
        Ok(program) => Ok(program),
        Err(_) => {
            let text = String::from_utf8_lossy(&log);
            let text = text.trim_end_matches('\0').trim();
            let last: Vec<&str> = text.lines().rev().take(4).collect();
            Err(format!(
                "{error}; the verifier says: {}",
                last.into_iter().rev().collect::<Vec<_>>().join("; ")
            ))
        }
    }
}

fn link(program: &OwnedFd, hook: &Hook) -> io::Result<OwnedFd> {
    let mut attr = LinkAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: 0,
        attach_type: bpf_attach_type::BPF_NETFILTER as u32,
        flags: 0,
        pf: hook.family,
        hooknum: hook.hook,
        priority: PRIORITY,
        netfilter_flags: 0,
    };
    loop {
        match syscall::descriptor(bpf_cmd::BPF_LINK_CREATE, &attr) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attr.priority < PRIORITY + PRIORITIES => {
                attr.priority += 1;
            }
            done => return done,
        }
    }
}
