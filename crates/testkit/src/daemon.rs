//! The shipped binaries, driven as a user drives them.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::child::{Child, Output};
use crate::command::Command;
use crate::lab::Lab;
use crate::markless::is_markless;
use crate::ns::Ns;
use crate::poll::attempt;

/// How long a daemon may take until it answers; an emulated processor is slow.
const START: Duration = Duration::from_secs(30);
/// How long a daemon may take to put the host back and end; thousands of tenants need their time.
const STOP: Duration = Duration::from_secs(60);
/// How many lines of its log a test that fails shows.
const SHOWN: usize = 50;

/// What differs from a plain start.
#[derive(Debug, Clone, Default)]
pub struct DaemonOptions {
    /// `etc/fief/fiefd.yaml`.
    pub config_yaml: Option<String>,
    /// More files in `etc/fief`: name and text.
    pub files: Vec<(String, String)>,
    /// More variables in its environment.
    pub env: Vec<(String, String)>,
    /// More arguments.
    pub args: Vec<String>,
    /// The name of its root in the lab's directory, `root` if empty; for labs with several daemons.
    pub root: String,
}

/// A running `fiefd`, killed on drop; when the test fails, its log is shown.
pub struct Daemon {
    host: Ns,
    root: PathBuf,
    cgroup: PathBuf,
    cli: PathBuf,
    options: DaemonOptions,
    child: Option<Child>,
    past: String,
}

impl Daemon {
    /// Starts `fiefd --root DIR --cgroup PATH` in `host` and waits until it answers; shows its log when it does not.
    #[track_caller]
    pub fn start(lab: &Lab, host: &Ns, options: DaemonOptions) -> Daemon {
        let mut daemon = Daemon::prepare(lab, host, options);
        daemon.launch();
        daemon
    }

    /// As [`Daemon::start`], for a daemon that must refuse to start: gives what it said and how it ended.
    #[track_caller]
    pub fn refused(lab: &Lab, host: &Ns, options: DaemonOptions) -> Output {
        Daemon::prepare(lab, host, options).daemon_command().timeout(START).run().fails()
    }

    /// Writes the files, starts nothing.
    #[track_caller]
    fn prepare(lab: &Lab, host: &Ns, options: DaemonOptions) -> Daemon {
        let root = lab.dir().join(if options.root.is_empty() { "root" } else { &options.root });
        let config = root.join("etc/fief");
        fs::create_dir_all(&config).expect("the lab's directory is writable");
        let own = options.config_yaml.as_deref().unwrap_or_default();
        let markless = is_markless() && !own.contains("markMask");
        let text = if markless { format!("markMask: none\n{own}") } else { own.to_owned() };
        let main = (markless || options.config_yaml.is_some()).then_some(("fiefd.yaml", &text));
        let more = options.files.iter().map(|(name, text)| (name.as_str(), text));
        for (name, text) in main.into_iter().chain(more) {
            fs::write(config.join(name), text).expect("the lab's directory is writable");
        }
        let (host, cgroup, cli) = (host.clone(), lab.cgroup().to_path_buf(), lab.expose(&bin("fief")));
        Daemon { host, root, cgroup, cli, options, child: None, past: String::new() }
    }

    /// Runs `fief --root DIR ARGS...` to its end.
    #[track_caller]
    pub fn cli<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.cli_command(args).run()
    }

    /// `fief --root DIR ARGS...`, in the host's namespace and the lab's cgroup, with everything else still open:
    /// another user for example.
    #[track_caller]
    pub fn cli_command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let head = [self.cli.as_os_str(), OsStr::new("--root"), self.root.as_os_str()];
        let argv: Vec<&OsStr> = head.into_iter().chain(args.iter().map(AsRef::as_ref)).collect();
        self.host.command(&argv).cgroup(&self.cgroup)
    }

    /// Feeds documents to `fief apply -f -`.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> Output {
        self.cli_command(&["apply", "-f", "-"]).input(yaml).timeout(Duration::from_secs(600)).run()
    }

    /// Its `--root`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its API's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("run/fief/fiefd.sock")
    }

    /// The cgroup whose programs it governs.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Its process.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").pid()
    }

    /// Everything it has said, earlier runs included.
    pub fn log(&self) -> String {
        self.past.clone() + &self.child.as_ref().map(Child::output).unwrap_or_default()
    }

    /// Kills it without a chance to tidy up.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill();
            self.past += &child.output();
        }
    }

    /// SIGTERM, and waits for a clean end.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.signal(Signal::SIGTERM);
            let status = child.wait(STOP);
            self.past += &child.output();
            assert!(status.success(), "fiefd ended with {status}:\n{}", self.past);
        }
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        self.child.as_mut().expect("the daemon runs").signal(signal);
    }

    /// Stops it if it runs, and starts it again with the same root.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    #[track_caller]
    fn launch(&mut self) {
        let mut child = self.daemon_command().spawn();
        let socket = self.socket();
        let up = attempt(START, || match child.ended() {
            // Waiting longer would not help.
            Some(status) => Ok(Err(format!("fiefd ended: {status}"))),
            None => answers(&socket).map(Ok),
        });
        if let Err(why) = up.and_then(|ended| ended) {
            panic!("{why}\n--- log of fiefd\n{}", child.output());
        }
        self.child = Some(child);
    }

    #[track_caller]
    fn daemon_command(&self) -> Command {
        let program = bin("fiefd").into_os_string();
        let argv = [program.as_os_str(), "--root".as_ref(), self.root.as_os_str(), "--cgroup".as_ref()];
        let command = self.host.command(&argv).arg(&self.cgroup);
        let command = self.options.args.iter().fold(command, |command, word| command.arg(word));
        self.options.env.iter().fold(command, |command, (name, value)| command.env(name, value))
    }
}

/// A test that fails shows what its daemon said last, whatever it was that failed.
impl Drop for Daemon {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(SHOWN)..];
        println!("--- fiefd said last, in {}:\n{}", self.root.display(), last.join("\n"));
    }
}

/// Does an HTTP server that is well answer on this socket?
fn answers(socket: &Path) -> Result<(), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: fief\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{}: {error}", socket.display()))?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(format!("fiefd answers {answer:?}")) }
}

/// The kit's own small network program, see `fief-peer --help`.
#[track_caller]
pub fn peer() -> PathBuf {
    bin("fief-peer")
}

/// A binary of this workspace: in `FIEF_BIN_DIR`, else beside the test that runs, else in the target directory's
/// `debug` or `release`.
#[track_caller]
pub fn bin(name: &str) -> PathBuf {
    let mut tried = Vec::new();
    if let Some(dir) = std::env::var_os("FIEF_BIN_DIR") {
        tried.push(PathBuf::from(dir));
    } else {
        // target/debug/deps/test-0123, target/debug/fief-bench, ...
        let own = std::env::current_exe().expect("a process has an executable");
        let profile = own.ancestors().skip(1).find(|dir| dir.file_name().is_some_and(|name| name != "deps"));
        let profile = profile.map(Path::to_path_buf).unwrap_or_default();
        tried.extend([profile.clone(), profile.with_file_name("debug"), profile.with_file_name("release")]);
    }
    let found = tried.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} in {tried:?}; `cargo build --workspace --bins` makes it"))
}
