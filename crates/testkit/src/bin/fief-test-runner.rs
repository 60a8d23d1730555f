//! Runs test executables: each test in a process of its own, two at a time, none longer than agreed. Beside those of whole
//! daemons, which mostly wait, run those of single crates, one at a time and with what the others leave of the processors.
//!
//! A process each, because tests change what belongs to a process or a thread: mount namespaces, signals, cgroups.
//! Usage: `fief-test-runner MESSAGES [--all] [NAME]...`, where MESSAGES is what
//! `cargo test --no-run --message-format=json` printed, `--all` runs ignored tests too, and each NAME is a part of the names
//! of the tests to run. Environment: `FIEF_TEST_TIMEOUT` in seconds, `FIEF_TEST_JOBS`, and then there are no more.
#![expect(clippy::disallowed_methods, reason = "starting programs is what a runner is for")]

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fief_testkit::attempt;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const TIMEOUT_S: u64 = 120;
const JOBS: u64 = 2;
/// The package of those that run whole daemons.
const SCENARIOS: &str = "tests";
/// How nice those are that run beside them: a third of a processor where all are wanted (sched(7)).
const BESIDE: i32 = 5;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("fief-test-runner: {why}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| !word.is_empty()).collect();
    let all = words.iter().position(|word| word == "--all").map(|at| words.remove(at)).is_some();
    let [messages, names @ ..] = words.as_slice() else {
        return Err("usage: fief-test-runner MESSAGES [--all] [NAME]...".to_owned());
    };
    let text = std::fs::read_to_string(messages).map_err(|error| format!("{messages}: {error}"))?;
    let mut tests = Vec::new();
    for suite in suites(&text) {
        tests.extend(suite.tests(names)?);
    }
    if tests.is_empty() {
        return Err(format!("no test has {:?} in its name", names.join(" and ")));
    }
    Ok(report(&run_all(&tests, all)?))
}

/// One test executable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Suite {
    package: String,
    target: String,
    directory: PathBuf,
    executable: PathBuf,
}

#[derive(Debug, Clone)]
struct Test {
    suite: Suite,
    name: String,
    ignored: bool,
}

enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

/// The executables that cargo names, one JSON object a line.
fn suites(messages: &str) -> BTreeSet<Suite> {
    let values = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let suite = |value: serde_json::Value| {
        let executable = PathBuf::from(value["executable"].as_str()?);
        let directory = Path::new(value["manifest_path"].as_str()?).parent()?.to_path_buf();
        let package = directory.file_name()?.to_str()?.to_owned();
        let is_test = value["profile"]["test"] == true;
        is_test.then(|| Suite { package, target: value["target"]["name"].to_string(), directory, executable })
    };
    values.filter_map(suite).collect()
}

fn has(name: &str, part: &str) -> bool {
    part.split('|').any(|part| name.contains(part))
}

impl Suite {
    /// Its tests with all of these in their names; `a|b` is either of them.
    fn tests(&self, parts: &[String]) -> Result<Vec<Test>, String> {
        let ignored: HashSet<String> = self.list(&["--ignored"])?.into_iter().collect();
        let test = |name: String| Test { suite: self.clone(), ignored: ignored.contains(&name), name };
        let has_all = |test: &Test| parts.iter().all(|part| has(&test.to_string(), part));
        Ok(self.list(&[])?.into_iter().map(test).filter(has_all).collect())
    }

    fn list(&self, more: &[&str]) -> Result<Vec<String>, String> {
        let output = self.command().args(["--list", "--format", "terse"]).args(more).output();
        let output = output.map_err(|error| format!("{}: {error}", self.executable.display()))?;
        if !output.status.success() {
            return Err(format!("{} cannot list its tests: {}", self.executable.display(), output.status));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }

    /// As cargo would start it.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory).stdin(Stdio::null());
        command
    }
}

fn run_all(tests: &[Test], all: bool) -> Result<Vec<(&Test, Verdict)>, String> {
    let timeout = Duration::from_secs(number("FIEF_TEST_TIMEOUT", TIMEOUT_S)?);
    let jobs = number("FIEF_TEST_JOBS", JOBS)?.max(1);
    let is_beside = std::env::var_os("FIEF_TEST_JOBS").is_none();
    let (scenarios, others): (Vec<&Test>, Vec<&Test>) =
        tests.iter().partition(|test| test.suite.package == SCENARIOS);
    let [scenarios, others] = [scenarios, others].map(|tests| Mutex::new(tests.into_iter()));
    let work = |nice: i32| {
        let mut done = Vec::new();
        let mine: &[_] = if nice > 0 { &[&others] } else { &[&scenarios, &others] };
        while let Some(test) = mine.iter().find_map(|queue| queue.lock().ok()?.next()) {
            let begin = Instant::now();
            let verdict = test.run(all, timeout, nice);
            // One call, so that lines of two threads do not mix.
            print!("{}", line(test, &verdict, begin.elapsed()));
            done.push((test, verdict));
        }
        done
    };
    std::thread::scope(|scope| {
        let lanes = std::iter::repeat_n(0, jobs as usize).chain(is_beside.then_some(BESIDE));
        let work = &work;
        let threads: Vec<_> = lanes.map(|nice| scope.spawn(move || work(nice))).collect();
        let done =
            threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned()));
        Ok(done.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    })
}

impl Test {
    fn run(&self, all: bool, timeout: Duration, nice: i32) -> Verdict {
        if self.ignored && !all {
            return Verdict::Skipped("ignored; `make soak` runs it".to_owned());
        }
        self.attempt(timeout, nice)
            .unwrap_or_else(|error| Verdict::Failed(format!("cannot be run: {error}\n")))
    }

    fn attempt(&self, timeout: Duration, nice: i32) -> std::io::Result<Verdict> {
        let fd = rustix::fs::memfd_create("output", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut log = File::from(fd);
        let mut command = self.suite.command();
        // With one thread the harness would print the test's name in front of its first line.
        command.args(["--exact", &self.name, "--include-ignored", "--nocapture", "--test-threads=2"]);
        command.stdout(log.try_clone()?).stderr(log.try_clone()?).process_group(0);
        // Ctrl-C reaches the runner alone, whose end must be the tests' end too; this thread waits for the child.
        let birth = move || {
            if nice > 0 {
                // SAFETY: setpriority(2) takes no pointers; where it fails the test is only quicker.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
            }
            Ok(set_pdeathsig(Signal::SIGKILL)?)
        };
        // SAFETY: runs between fork and exec and makes two system calls.
        unsafe { command.pre_exec(birth) };
        let mut child = command.spawn()?;
        let status = wait(&mut child, timeout);
        let mut bytes = Vec::new();
        log.rewind()?;
        log.read_to_end(&mut bytes)?;
        let output = String::from_utf8_lossy(&bytes).into_owned();
        Ok(judge(status, output, timeout))
    }
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.suite.package, self.suite.target.trim_matches('"'), self.name)
    }
}

/// Waits for the end; `None` when it had to be killed.
fn wait(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let ended = attempt(timeout, || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => Err(format!("{other:?}")),
    });
    ended.ok().or_else(|| {
        // Its own process group, and not yet waited for: the number is still that group's.
        killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).ok();
        child.wait().ok();
        None
    })
}

fn judge(status: Option<ExitStatus>, output: String, timeout: Duration) -> Verdict {
    let Some(status) = status else {
        return Verdict::Failed(format!("{output}\nkilled: not done after {timeout:?}\n"));
    };
    if !status.success() {
        let signal = status.signal().map(|signal| format!("killed by signal {signal}\n"));
        return Verdict::Failed(output + &signal.unwrap_or_default());
    }
    // A test that did not run has not passed.
    if !output.contains("test result: ok. 1 passed") {
        return Verdict::Failed(format!("{output}\nthe harness did not run it\n"));
    }
    let reasons: Vec<&str> =
        output.lines().filter_map(|line| line.strip_prefix("SKIP")).map(str::trim).collect();
    if reasons.is_empty() { Verdict::Passed } else { Verdict::Skipped(reasons.join("; ")) }
}

fn line(test: &Test, verdict: &Verdict, took: Duration) -> String {
    let took = took.as_secs_f64();
    match verdict {
        Verdict::Passed => format!("pass {took:6.2} s  {test}\n"),
        Verdict::Skipped(why) => format!("SKIP {took:6.2} s  {test}: {why}\n"),
        Verdict::Failed(output) => format!("FAIL {took:6.2} s  {test}\n{}\n", indented(output)),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    | {line}")).collect::<Vec<_>>().join("\n")
}

/// The closing lines; the last one is for programs too.
fn report(done: &[(&Test, Verdict)]) -> bool {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (test, verdict) in done {
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Skipped(_) => skipped += 1,
            Verdict::Failed(_) => {
                failed += 1;
                println!("failed: {test}");
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    failed == 0
}

fn number(variable: &str, default: u64) -> Result<u64, String> {
    match std::env::var(variable) {
        Ok(text) => text.parse().map_err(|_| format!("{variable}={text} is no number")),
        Err(_) => Ok(default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, output: &str) -> Verdict {
        judge(Some(ExitStatus::from_raw(code << 8)), output.to_owned(), Duration::ZERO)
    }

    #[test]
    fn a_verdict_needs_a_test_that_ran() {
        let ran = "test result: ok. 1 passed; 0 failed";
        assert!(matches!(ended(0, ran), Verdict::Passed));
        assert!(matches!(ended(101, ran), Verdict::Failed(_)));
        assert!(matches!(ended(0, "test result: ok. 0 passed"), Verdict::Failed(_)));
        assert!(matches!(judge(None, ran.to_owned(), Duration::ZERO), Verdict::Failed(_)));
        let skipped = ended(0, &format!("SKIP no root\nSKIP no VRF\n{ran}"));
        assert!(matches!(skipped, Verdict::Skipped(why) if why == "no root; no VRF"));
    }

    #[test]
    fn executables_are_those_of_tests() {
        let test = r#"{"executable":"/t/a-1","manifest_path":"/w/a/Cargo.toml","profile":{"test":true},"target":{"name":"a"}}"#;
        let other = test.replace("true", "false").replace("a-1", "b");
        let found = suites(&format!("{test}\n{other}\nnot json\n{{\"executable\":null}}\n{test}\n"));
        assert_eq!(found.len(), 1);
    }
}
