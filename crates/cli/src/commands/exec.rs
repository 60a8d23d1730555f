//! `fief exec`: becomes a tenant, then the command.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use fief_host::HostError;
use fief_host::devices::{self, Device};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use libfief::Whose;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::args::ExecArgs;
use crate::context::Context;

/// What env(1) and its kin say when they fail themselves.
const NOT_ENTERED: u8 = 125;
const NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

#[expect(clippy::disallowed_methods, reason = "to start a program is what this command is for")]
pub fn run(args: ExecArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let tenant = args.tenant.unwrap_or_default();
    let namespace = context.namespace_of(&tenant);
    let mut command = args.command;
    let entered = match Namespace::at(&namespace) {
        Ok(namespace) if !tenant.is_empty() => {
            namespace.enter().map_err(|error| reason_of_namespace(&tenant, &error))
        }
        _ => libfief::any_socket().and_then(|any| libfief::set(&any, Whose::Process, &tenant)).or_else(
            |error| {
                let vrf = vrf_of(&tenant, &error).ok_or_else(|| reason(&tenant, &error))?;
                command = in_vrf(&tenant, &vrf, command.split_off(0))?;
                Ok(())
            },
        ),
    };
    if let Err(reason) = entered {
        eprintln!("error: {reason}");
        return Ok(ExitCode::from(NOT_ENTERED));
    }
    if args.all {
        raise_descriptors();
    }
    let (program, words) = command.split_first().expect("the parser demands a command");
    // Only comes back if it fails.
    let error = Command::new(program).args(words).exec();
    eprintln!("error: cannot run {}: {error}", program.display());
    Ok(ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN }))
}

/// A service of every tenant may need a socket or more for each: the soft limit, which is often 1,024 for the sake of
/// select(2), rises to the hard one. Where that is not enough `accept` and `socket` say EMFILE, as ever.
fn raise_descriptors() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        eprintln!("warning: at most {soft} files and sockets may be open: cannot raise the limit: {error}");
    }
}

/// Only an administrator of the host may change namespaces (setns(2)); membership does not reach so far.
fn reason_of_namespace(tenant: &str, error: &HostError) -> String {
    match error.errno() {
        Some(libc::EPERM) => {
            format!(
                "tenant {tenant} has a network namespace, which only an administrator of the host may enter"
            )
        }
        _ => format!("cannot enter {tenant}: {error}"),
    }
}

/// The VRF of a tenant with networks, which is none that the kernel's programs know.
fn vrf_of(tenant: &str, error: &io::Error) -> Option<String> {
    let is_unknown = [Some(libc::ENOENT), Some(libc::ENOPROTOOPT), Some(libc::EOPNOTSUPP)];
    if tenant.is_empty() || !is_unknown.contains(&error.raw_os_error()) {
        return None;
    }
    let alias = format!("fief tenant {tenant}");
    let is_its =
        |device: &Device| device.kind.as_deref() == Some("vrf") && device.alias.as_ref() == Some(&alias);
    let listed = Socket::open(libc::NETLINK_ROUTE).and_then(|mut socket| devices::list(&mut socket)).ok()?;
    Some(listed.into_iter().find(is_its)?.name)
}

/// A command whose sockets are a VRF's, as ip-vrf(8) has them be: by a program at a control group of its own.
fn in_vrf(tenant: &str, vrf: &str, command: Vec<OsString>) -> Result<Vec<OsString>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err(format!(
            "the networks of tenant {tenant} are in VRF {vrf}, which only an administrator of the host may enter"
        ));
    }
    Ok(["ip", "vrf", "exec", vrf].map(OsString::from).into_iter().chain(command).collect())
}

fn reason(tenant: &str, error: &io::Error) -> String {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EPERM) if tenant.is_empty() => {
            "this process is a tenant's, and only an administrator of the host may leave it".into()
        }
        Some(nix::errno::Errno::EPERM) => format!(
            "you may not act as {tenant} (its members may: `members` in its document, and administrators of the host)"
        ),
        Some(nix::errno::Errno::ENOENT) => format!("there is no tenant {tenant} (see `fief get tenants`)"),
        Some(nix::errno::Errno::ENOPROTOOPT | nix::errno::Errno::EOPNOTSUPP) => {
            "no fief serves this network \
            namespace and control group, or its kernel cannot follow processes (see `fief doctor`; there must be a \
            tenant)"
                .into()
        }
        _ => format!("cannot enter {tenant}: {error}"),
    }
}
