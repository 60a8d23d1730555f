//! The marks of TCP sockets move with the field: an iterator over all of the calling thread's network namespace
//! (bpf_iter_tcp, Linux 5.9; setting options there, Linux 5.14), which the kernel runs while its file is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};

use aya::Btf;
use aya_obj::btf::BtfKind;
use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_type};

use crate::raw::{Kind, Raw};
use crate::{DatapathError, chain, syscall};

/// The program's name.
pub(crate) const PROGRAM: &str = "remark";

/// BPF_ITER_CREATE's part of `union bpf_attr`.
#[repr(C)]
struct IterAttr {
    link_fd: u32,
    flags: u32,
}

/// Runs it once over all sockets.
pub(crate) fn run(programs: &Raw) -> Result<(), DatapathError> {
    const ATTACH: bpf_attach_type = bpf_attach_type::BPF_TRACE_ITER;
    let failed =
        |error: String| DatapathError::Attach { program: PROGRAM, place: "TCP sockets".into(), error };
    let kernel = Btf::from_sys_fs().map_err(|e| failed(chain(&e)))?;
    let kind = Kind {
        program: bpf_prog_type::BPF_PROG_TYPE_TRACING,
        attach_type: ATTACH as u32,
        attach_to: kernel
            .id_by_type_name_kind("bpf_iter_tcp", BtfKind::Func)
            .map_err(|e| failed(chain(&e)))?,
    };
    let program = programs.load(PROGRAM, kind).map_err(failed)?;
    let walk = || -> io::Result<()> {
        let link = syscall::link(program.as_fd(), None, ATTACH)?;
        let attr = IterAttr { link_fd: link.as_raw_fd().cast_unsigned(), flags: 0 };
        let mut walk = File::from(syscall::descriptor(bpf_cmd::BPF_ITER_CREATE, &attr)?);
        let mut nothing = [0; 4096];
        while walk.read(&mut nothing)? > 0 {}
        Ok(())
    };
    walk().map_err(|e| failed(e.to_string()))
}
