//! Netfilter programs (BPF_PROG_TYPE_NETFILTER, Linux 6.4): linked to a hook of this network namespace, and pinned.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_type};

use crate::raw::{Kind, Raw};
use crate::{DatapathError, syscall};

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
const KIND: Kind = Kind {
    program: bpf_prog_type::BPF_PROG_TYPE_NETFILTER,
    attach_type: bpf_attach_type::BPF_NETFILTER as u32,
    attach_to: 0,
};

/// The programs' names.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().map(|hook| hook.program)
}

/// Links each program to its hook of the calling thread's network namespace, unless a pin says that it is there.
pub(crate) fn attach(programs: &Raw, links: &Path, digest: &str) -> Result<(), DatapathError> {
    let mut wanted = HashSet::new();
    for hook in &HOOKS {
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
        let program = programs.load(hook.program, KIND).map_err(failed)?;
        let link = link(&program, hook).map_err(|e| failed(e.to_string()))?;
        syscall::pin(&link, &at).map_err(|e| failed(format!("pin {}: {e}", at.display())))?;
    }
    crate::attach::unpin_others(links, |name| HOOKS.iter().any(|h| name.starts_with(h.program)), &wanted);
    Ok(())
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
