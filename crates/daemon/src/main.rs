//! fiefd: keeps a host as its tenants' documents say.

mod api;
mod arbiter;
mod config;
mod contention;
mod doctor;
mod engine;
mod files;
mod handover;
mod lock;
mod members;
mod networks;
mod observed;
mod overlay;
mod plan;
mod policies;
mod slots;
mod store;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use fief_api::Paths;
use fief_host::{cgroup, kernel};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::engine::{Engine, Handle};
use crate::overlay::Joins;
use crate::overlay::broker::Broker;
use crate::overlay::fast::Fast;

/// Keeps a host as its tenants' documents say.
#[derive(Parser)]
#[command(name = "fiefd", version)]
struct Arguments {
    /// Keep state, configuration, socket and bpf pins below DIR, and a control group of its own: runs beside a real
    /// fiefd, in a network namespace of its own
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Configuration file [default: fiefd.yaml in /etc/fief, or in DIR/etc/fief]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Control group (version 2) whose processes' sockets are served [default: the root of the hierarchy, or with
    /// --root a group named after DIR]
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Log as JSON lines
    #[arg(long)]
    log_json: bool,
}

fn main() -> std::process::ExitCode {
    fief_host::memory::keep_little();
    let arguments = Arguments::parse();
    log(arguments.log_json);
    match run(&arguments) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    kernel::require_floor()?;
    let missing = kernel::missing_capabilities();
    anyhow::ensure!(
        missing.is_empty(),
        "fiefd lacks {}: run it as root, with all capabilities",
        missing.join(", ")
    );
    open_many();
    let root = arguments.root.as_deref().map(absolute).transpose()?;
    let paths = Paths::new(root.as_deref());
    let config_file = arguments.config.clone().unwrap_or_else(|| paths.config().join("fiefd.yaml"));
    let config = Config::read(&config_file)?;
    let lock = lock::take()?;
    let cgroup = match &arguments.cgroup {
        Some(path) => path.clone(),
        None => default_cgroup(root.as_deref())?,
    };
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
    let (overlay, rules) = (Fast::new(&config.overlay, &paths), config.overlay.rules());
    let broker = Arc::new(Broker::new(config.overlay.clone(), &cgroup, paths.root()));
    let (mut engine, handle) = Engine::open(config, paths.clone(), cgroup, bell.clone())?;
    engine.begin().context("look at the host")?;
    if let Err(refusal) = files::apply(&mut engine) {
        // The tenants of the last good configuration stay: a typing mistake must not stop them.
        tracing::error!(?refusal, "the documents in {} were refused", paths.config().display());
    }
    // Where fief writes no marks nobody is in its way.
    let watcher = match engine.is_markless() {
        true => None,
        false => Some(watch_marks(handle.clone(), paths.config(), bell.clone())?),
    };
    let thread = std::thread::Builder::new().name("engine".into()).spawn(move || engine.run())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(&paths, handle.clone(), broker.clone(), Joins::adopt(overlay, broker, rules)))?;
    handle.stop();
    let _ = thread.join();
    rustix::io::write(&*bell, &1_u64.to_ne_bytes())?;
    let _ = watcher.map(std::thread::JoinHandle::join);
    drop(lock);
    Ok(())
}

/// A thread of its own: a look at 50,000 rules takes longer than an answer may.
fn watch_marks(
    engine: Handle,
    config: PathBuf,
    bell: Arc<OwnedFd>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("marks".into()).spawn(move || {
        if let Err(error) = arbiter::watch(&engine, &config, &bell) {
            tracing::error!(%error, "nobody watches the marks");
        }
    })
}

async fn serve(paths: &Paths, handle: Handle, broker: Arc<Broker>, joins: Joins) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let socket = paths.socket();
    let listener = api::bind(&socket)?;
    let callers = api::bind(&paths.sockets())?;
    tokio::spawn(handover::serve(callers, handle.clone(), broker));
    tokio::spawn(joins.clone().watch());
    // Without systemd there is nobody to notify, and that is fine.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(pid = std::process::id(), socket = %socket.display(), "ready");
    let reloader = handle.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match reloader.ask(files::apply).await {
                Some(Err(refusal)) => tracing::error!(?refusal, "reload refused"),
                _ => tracing::info!("reloaded"),
            }
        }
    });
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    };
    // A watcher may hold its connection for a minute; stopping does not wait for it.
    let (told, wait) = tokio::sync::oneshot::channel::<()>();
    let graceful = async move {
        stop.await;
        let _ = told.send(());
    };
    tokio::select! {
        done = api::serve(listener, handle, joins, graceful) => done?,
        () = async { let _ = wait.await; tokio::time::sleep(std::time::Duration::from_secs(1)).await; } => {}
    }
    for file in [&socket, &paths.sockets()] {
        let _ = std::fs::remove_file(file);
    }
    tracing::info!("stopped; the tenants' datapath stays");
    Ok(())
}

/// Takes all descriptors that may be had: a network has half a dozen, and a session's first limit is a thousand.
fn open_many() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn default_cgroup(root: Option<&Path>) -> anyhow::Result<PathBuf> {
    let mount = cgroup::mount_point()?;
    let Some(root) = root else { return Ok(mount) };
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    let path = mount.join(format!("fief-{:016x}", hasher.finish()));
    cgroup::create(&path)?;
    Ok(path)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    path.canonicalize().with_context(|| format!("find {}", path.display()))
}

fn log(json: bool) {
    let filter = EnvFilter::try_from_env("FIEF_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    if json { builder.json().init() } else { builder.with_target(false).init() }
}
