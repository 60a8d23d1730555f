//! A program about to run in a namespace.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Pid, Uid};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::child::{Child, Output};
use crate::ns::Ns;

/// Longer than anything a test starts and waits for.
const PATIENCE: Duration = Duration::from_secs(60);

static LOGS: AtomicUsize = AtomicUsize::new(0);

/// A program about to run in a namespace. Made by [`Ns::command`].
#[must_use = "nothing runs until run() or spawn()"]
#[derive(Clone)]
pub struct Command {
    ns: Ns,
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Option<String>,
    cgroup: Option<PathBuf>,
    user: Option<(u32, u32, Vec<u32>)>,
    directory: Option<PathBuf>,
    timeout: Duration,
}

impl Command {
    pub(crate) fn new<S: AsRef<OsStr>>(ns: &Ns, argv: &[S]) -> Command {
        assert!(!argv.is_empty(), "a command has a name at least");
        let argv = argv.iter().map(|word| word.as_ref().to_os_string()).collect();
        let (env, timeout) = (Vec::new(), PATIENCE);
        Command { ns: ns.clone(), argv, env, input: None, cgroup: None, user: None, directory: None, timeout }
    }

    /// One argument more.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Command {
        self.argv.push(word.as_ref().to_os_string());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.env.push((name.as_ref().to_os_string(), value.as_ref().to_os_string()));
        self
    }

    /// What it reads from standard input; nothing if left out.
    pub fn input(mut self, text: impl Into<String>) -> Command {
        self.input = Some(text.into());
        self
    }

    /// The cgroup it runs in, a directory; that of the test if left out.
    pub fn cgroup(mut self, path: impl Into<PathBuf>) -> Command {
        self.cgroup = Some(path.into());
        self
    }

    /// Runs it as this user and group, with no supplementary groups.
    pub fn user(self, uid: u32, gid: u32) -> Command {
        self.user_with_groups(uid, gid, &[])
    }

    /// Runs it as this user and group, with these supplementary groups.
    pub fn user_with_groups(mut self, uid: u32, gid: u32, groups: &[u32]) -> Command {
        self.user = Some((uid, gid, groups.to_vec()));
        self
    }

    /// The directory it runs in.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Command {
        self.directory = Some(path.into());
        self
    }

    /// How long [`Command::run`] waits before it kills; one minute if left out.
    pub fn timeout(mut self, timeout: Duration) -> Command {
        self.timeout = timeout;
        self
    }

    /// Runs it to its end. A program that takes longer than the time-out is killed, which shows in its status.
    #[track_caller]
    pub fn run(self) -> Output {
        let (shown, timeout) = (self.to_string(), self.timeout);
        let child = self.start(Stdio::piped(), Stdio::piped());
        let watchdog = Watchdog::start(child.id(), timeout);
        let output = child.wait_with_output().expect("a child can be waited for");
        drop(watchdog);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output {
            command: shown,
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            status: output.status,
        }
    }

    /// Starts it and goes on; both its streams go to one file.
    #[track_caller]
    pub fn spawn(self) -> Child {
        let program = Path::new(&self.argv[0]).file_name().unwrap_or(OsStr::new("program")).display();
        let log = self.ns.dir().join(format!("{}-{program}.log", LOGS.fetch_add(1, Ordering::Relaxed)));
        let file =
            OpenOptions::new().create(true).append(true).open(&log).expect("the lab's directory is writable");
        let shown = self.to_string();
        let twin = file.try_clone().expect("a descriptor can be doubled");
        Child { command: shown, process: self.start(Stdio::from(file), Stdio::from(twin)), log }
    }

    #[track_caller]
    fn start(self, stdout: Stdio, stderr: Stdio) -> process::Child {
        let shown = self.to_string();
        let nursery = self.ns.nursery().clone();
        let child = nursery.call(move || self.prepare()?.stdout(stdout).stderr(stderr).spawn());
        child.unwrap_or_else(|error| panic!("cannot start {shown}: {error}"))
    }

    fn prepare(self) -> io::Result<process::Command> {
        let mut command = process::Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env).stdin(match self.input {
            Some(text) => Stdio::from(scratch(&text)?),
            None => Stdio::null(),
        });
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        let procs = self
            .cgroup
            .map(|dir| OpenOptions::new().write(true).open(dir.join("cgroup.procs")))
            .transpose()?;
        let birth = Birth { ns: self.ns.file()?, procs, user: self.user, parent: process::id() };
        // SAFETY: runs between fork and exec; `Birth::enter` makes system calls and allocates nothing.
        unsafe { command.pre_exec(move || birth.enter()) };
        Ok(command)
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}]", self.ns.name())?;
        self.argv.iter().try_for_each(|word| write!(f, " {}", word.display()))
    }
}

/// What a child does before it becomes the program.
struct Birth {
    ns: OwnedFd,
    procs: Option<File>,
    user: Option<(u32, u32, Vec<u32>)>,
    parent: u32,
}

impl Birth {
    fn enter(&self) -> io::Result<()> {
        setns(&self.ns, CloneFlags::CLONE_NEWNET)?;
        if let Some(procs) = &self.procs {
            nix::unistd::write(procs, b"0")?;
        }
        if let Some((uid, gid, groups)) = &self.user {
            self.become_user(*uid, *gid, groups)?;
        }
        // After the change of user, which clears it. The signal comes at the end of the nursery's thread.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        let orphaned = Pid::parent().as_raw().cast_unsigned() != self.parent;
        if orphaned { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn become_user(&self, uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
        // The system call, because libc's wrapper would involve the other threads that fork has not copied.
        // SAFETY: the pointer and the length are those of one slice of gid_t.
        let set = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        nix::unistd::setresgid(gid, gid, gid)?;
        Ok(nix::unistd::setresuid(uid, uid, uid)?)
    }
}

/// An unnamed file that holds `text`, read from its beginning.
fn scratch(text: &str) -> io::Result<File> {
    let fd = rustix::fs::memfd_create("input", rustix::fs::MemfdFlags::CLOEXEC)?;
    File::from(fd.try_clone()?).write_all(text.as_bytes())?;
    // A description of its own: dup() shares the offset, and the program is to begin at 0.
    File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Kills a process that takes too long; dropped in time, it does nothing.
struct Watchdog {
    _done: mpsc::Sender<()>,
}

impl Watchdog {
    fn start(pid: u32, timeout: Duration) -> Watchdog {
        let (done, wait) = mpsc::channel::<()>();
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid is not 0");
        // Taken while the child is not yet waited for, so it is this child's and stays so.
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        std::thread::spawn(move || {
            let late = wait.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Timeout);
            if late && let Ok(pidfd) = pidfd {
                pidfd_send_signal(pidfd, Signal::KILL).ok();
            }
        });
        Watchdog { _done: done }
    }
}
