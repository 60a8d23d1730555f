//! Running the shipped binary, and a daemon that gives canned answers.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![expect(clippy::disallowed_methods, reason = "a test of a program starts it")]

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

/// A tenant that nothing is wrong with.
pub const BLUE: &str = "\
apiVersion: fief/v1alpha1
kind: Tenant
metadata: { name: blue }
spec:
  interfaces:
    - { name: eth0, addresses: [192.0.2.11/24] }
  routes:
    - { to: default, via: 192.0.2.1 }
";

/// What a run of `fief` left.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// Runs `fief` below `root` (also its working directory) with nothing to read.
pub fn fief<S: AsRef<OsStr>>(root: &Path, args: impl IntoIterator<Item = S>) -> Ran {
    fief_reading(root, args, b"")
}

/// Runs `fief` with `input` to read.
pub fn fief_reading<S: AsRef<OsStr>>(root: &Path, args: impl IntoIterator<Item = S>, input: &[u8]) -> Ran {
    let mut child = command(root)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input);
    ran(child.wait_with_output().unwrap())
}

/// `fief` below `root`, to be run.
pub fn command(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fief"));
    command.current_dir(root).arg("--root").arg(root);
    command
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A daemon below `root` that gives these answers (status line, body), one to each call, and returns the calls.
pub fn daemon(root: &Path, answers: &[(&str, String)]) -> JoinHandle<Vec<String>> {
    fs::create_dir_all(root.join("run/fief")).unwrap();
    let listener = UnixListener::bind(root.join("run/fief/fiefd.sock")).unwrap();
    let answers = answers.iter().map(|(status, body)| ((*status).to_owned(), body.clone()));
    let answers = Vec::from_iter(answers);
    std::thread::spawn(move || answers.iter().map(|(status, body)| serve(&listener, status, body)).collect())
}

fn serve(listener: &UnixListener, status: &str, body: &str) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut call = Vec::new();
    while !complete(&call) {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "the call broke off");
        call.extend(&buffer[..length]);
    }
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nfief-revision: 1\r\ncontent-length: {length}\r\n\r\n{body}")
        .unwrap();
    String::from_utf8(call).unwrap()
}

fn complete(call: &[u8]) -> bool {
    let text = String::from_utf8_lossy(call);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}
