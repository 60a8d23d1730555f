//! A place of a test's own: a thread in a new mount namespace and a new network namespace, with an empty directory. All of
//! it vanishes with the thread, and nothing outside is touched.
#![allow(dead_code, reason = "each test uses a part")]
#![expect(clippy::disallowed_methods, reason = "the tools of the host are the tests' oracles")]

use std::path::{Path, PathBuf};
use std::process::Command;

use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// Runs a test in a place of its own, unless we are not root.
pub fn in_a_place(work: impl FnOnce(&Path) + Send) {
    if !nix::unistd::geteuid().is_root() {
        return fief_testkit::missing("namespaces need root");
    }
    let place = || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("root may unshare");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("mounts can be private");
        // Over a directory that every host has, so that there is none to be removed.
        mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none).expect("a tmpfs");
        work(Path::new("/mnt"));
    };
    let ended = std::thread::scope(|scope| scope.spawn(place).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Makes a namespace and returns where it is.
pub fn namespace(place: &Path, name: &str) -> (PathBuf, Namespace) {
    let path = place.join("netns").join(name);
    let namespace = Namespace::create(&path).expect("a namespace can be made");
    // Duplicate address detection would keep addresses back for a second.
    let switches = [("net.ipv6.conf.all.accept_dad", "0"), ("net.ipv6.conf.default.accept_dad", "0")];
    namespace.set_sysctls(&switches).expect("switches can be set");
    (path, namespace)
}

pub fn route_socket(namespace: &Namespace) -> Socket {
    Socket::open_in(namespace, libc::NETLINK_ROUTE).expect("a socket")
}

pub fn filter_socket(namespace: &Namespace) -> Socket {
    Socket::open_in(namespace, libc::NETLINK_NETFILTER).expect("a socket")
}

/// Runs a program in the namespace that has its file there, and gives its output if it succeeds.
pub fn try_run(namespace: &Path, line: &str) -> Result<String, String> {
    let mut command = Command::new("timeout");
    command.args(["20", "nsenter", &format!("--net={}", namespace.display()), "sh", "-c", line]);
    let output = command.output().expect("nsenter can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{line}: {}{}", text(&output.stdout), text(&output.stderr))),
    }
}

#[track_caller]
pub fn run(namespace: &Path, line: &str) -> String {
    try_run(namespace, line).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a program that writes JSON.
#[track_caller]
pub fn json(namespace: &Path, line: &str) -> Value {
    let text = run(namespace, line);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
}

/// The one device of this name, as `ip -j -d link` shows it.
#[track_caller]
pub fn link(namespace: &Path, name: &str) -> Value {
    json(namespace, &format!("ip -j -d link show dev {name}"))[0].clone()
}

#[track_caller]
pub fn all_ok<E: std::fmt::Display>(answers: Vec<Result<(), E>>) {
    for (index, answer) in answers.into_iter().enumerate() {
        answer.unwrap_or_else(|error| panic!("#{index}: {error}"));
    }
}
