//! Programs: one that has ended, and one that runs.

use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::poll::{attempt, eventually};

/// What a program said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Output {
    /// Asserts success; the panic shows everything the program said.
    #[track_caller]
    pub fn ok(self) -> Output {
        assert!(self.success(), "{self}");
        self
    }

    /// Asserts failure; the panic shows everything the program said.
    #[track_caller]
    pub fn fails(self) -> Output {
        assert!(!self.success(), "should have failed: {self}");
        self
    }

    /// Did it exit with 0?
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Its exit status, 128 + N when signal N ended it (as the shell counts).
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n{}{}", self.command, self.status, self.stdout, self.stderr)
    }
}

/// A running program. It is killed on drop, and with the test's process whatever ends that.
#[derive(Debug)]
pub struct Child {
    pub(crate) command: String,
    pub(crate) process: std::process::Child,
    pub(crate) log: PathBuf,
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Everything it has said until now, both streams.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until its output contains `text`; fails the test when it has not after `timeout`, or when it ends without.
    #[track_caller]
    pub fn wait_for_output(&mut self, text: &str, timeout: Duration) {
        eventually(timeout, || {
            // The order matters: what it says last is in the file before its end can be seen.
            let ended = self.ended();
            let output = self.output();
            if output.contains(text) {
                return Ok(());
            }
            if let Some(status) = ended {
                panic!("{} ended ({status}) without saying {text:?}:\n{output}", self.command);
            }
            Err(format!("{} has not said {text:?}:\n{output}", self.command))
        });
    }

    /// Has it ended, and how?
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end; fails the test when it still runs after `timeout`.
    #[track_caller]
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let ended = attempt(timeout, || self.ended().ok_or_else(String::new));
        ended.unwrap_or_else(|_| panic!("{} still runs after {timeout:?}:\n{}", self.command, self.output()))
    }

    /// Sends it a signal, `Signal::SIGTERM` for example. A child that has ended is left alone.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // Not yet waited for, so the pid is still this child's.
            let pid = Pid::from_raw(self.pid().cast_signed());
            kill(pid, signal).expect("a child can be signalled");
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
