//! The tenant of a socket, a thread, a process: commands, the socket option, and every door beside them.

#[path = "tenancy/dead.rs"]
mod dead;
#[path = "tenancy/doors.rs"]
mod doors;
#[path = "tenancy/exec.rs"]
mod exec;
mod odd;
#[path = "tenancy/option.rs"]
mod option;
#[path = "tenancy/programs.rs"]
mod programs;
mod room;
#[path = "tenancy/select.rs"]
mod select;
#[path = "tenancy/threads.rs"]
mod threads;

use fief_testkit::{Command, Street};
use room::Room;

/// The user who is a member of tenant 0, and the group whose people are.
const MEMBER: u32 = 4711;
const GROUP: u32 = 4712;
/// Debian's own, which every user may run.
const PYTHON: &str = "/usr/bin/python3";
/// Somebody else.
const STRANGER: u32 = 4799;

/// The documents of a street whose first tenant has members.
fn documents(street: &Street) -> String {
    let members = format!("  members: {{ users: [\"{MEMBER}\"], groups: [\"{GROUP}\"] }}\n");
    format!("{}---\n{}", street.yaml_with(0, &members), street.yaml(1))
}

fn house(name: &str) -> Option<Room> {
    Room::with(name, 2, "", |_, street| documents(street))
}

/// Python on the host, seen by fief, with the option's numbers at hand: `get` and `put` of a name, `mark` of a socket.
fn python(room: &Room, script: &str) -> Command {
    let prelude = "import socket, sys, os, errno, threading\n\
        SOL, SOCKET, THREAD, PROCESS, NAME = 0x6669, 1, 2, 3, 0x100\n\
        def put(s, what, name): s.setsockopt(SOL, what | NAME, name.encode() or bytes(1))\n\
        def get(s, what): return s.getsockopt(SOL, what | NAME, 64).rstrip(bytes(1)).decode()\n\
        def mark(s): return s.getsockopt(socket.SOL_SOCKET, 36)\n\
        def error(work, *a):\n\
        \x20try: work(*a)\n\
        \x20except OSError as e: return errno.errorcode[e.errno]\n\
        \x20return 'works'\n";
    let program = format!("{prelude}{script}");
    room.host().command(&[PYTHON, "-c", &program]).cgroup(room.lab.cgroup())
}
