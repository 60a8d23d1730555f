//! The programs in the kernel: compiled from C, loaded, attached, pinned, fed.
//!
//! Maps and links are pinned, so the datapath keeps working while the daemon is down, and a restarted daemon adopts
//! what it finds: links whose programs are the same bytes with the same settings stay as they are, others are
//! replaced one by one, the new one attached before the old one goes.
//!
//! Architecture invariant: nothing here decides; the maps are filled with what the daemon's plan says.

pub mod aliases;
mod attach;
pub mod maps;
mod netfilter;
pub mod overlay;
pub mod policy;
pub mod ports;
mod raw;
mod remark;
pub mod segment;
mod syscall;
mod table;
pub mod tasks;
#[cfg(feature = "teeth")]
mod teeth;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::{Btf, Ebpf, EbpfLoader};
use fief_marks::{MarkLayout, Positions};
use sha2::{Digest, Sha256};

use aliases::{Aliases, Ranges};
pub use attach::Device;
pub use maps::{ALONE, Counters, Entries, HOST_ACCESS, Maps, NEIGHBOURS, Owner, UDP_ALIAS, UDP_REFUSE};
use raw::Raw;
use tasks::Tasks;

/// The compiled programs, aligned as the ELF reader wants them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fief.bpf.o"));
/// What the maps look like; another text means other maps.
static ABI: &str = concat!(
    include_str!("../bpf/lib/abi.h"),
    include_str!("../bpf/lib/alias.h"),
    include_str!("../bpf/lib/listeners.h"),
    include_str!("../bpf/lib/names.h"),
    include_str!("../bpf/lib/select.h"),
    include_str!("../bpf/lib/tenancy.h")
);

/// What the programs take as constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Where our field in the packet mark is.
    pub positions: Positions,
    /// Does the host's `local` rule stand behind the tree?
    pub local_moved: bool,
    /// Was `tcp_fwmark_accept` on before fief? Then the host's own accepted sockets have their SYN's whole mark.
    pub foreign_accepted: bool,
    /// The cookie of our network namespace.
    pub netns_cookie: u64,
    /// Where aliases are taken from.
    pub aliases: Ranges,
    /// The number (inode) of the control group below which processes are served.
    pub cgroup: u64,
}

/// What can go wrong with programs and maps.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// Loading or verifying failed.
    #[error("load the bpf programs: {0}")]
    Load(String),
    /// Attaching failed.
    #[error("attach bpf program {program} to {place}: {error}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The device or control group.
        place: String,
        /// Why.
        error: String,
    },
    /// A map refused an entry, because it is full or memory is short.
    #[error("write bpf map {map}: {error}")]
    Map {
        /// The map.
        map: &'static str,
        /// Why.
        error: String,
    },
    /// A change has no room in a map; nothing of it was written.
    #[error("bpf map {map} would hold {needed} entries and has room for {most}; nothing was changed")]
    Full {
        /// The map.
        map: &'static str,
        /// How many entries there would be.
        needed: usize,
        /// How many there can be.
        most: usize,
    },
    /// An earlier change of policies was left half written; packets see none of it.
    #[error("the tables of policies were left half written; they must be loaded anew")]
    Unfinished,
    /// A pin or its directory could not be handled.
    #[error("{what} {path}: {source}")]
    Pin {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The loaded programs with their maps.
pub struct Datapath {
    programs: Ebpf,
    maps: Maps,
    tasks: Tasks,
    follows_tasks: bool,
    aliases: Aliases,
    raw: Raw,
    links: PathBuf,
    digest: String,
}

impl Datapath {
    /// Loads and verifies the programs and opens their maps, making those that are not pinned yet. Attaches nothing.
    ///
    /// `pins` is a directory on a bpf file system; it is made if missing. `gone` is a former field, which [`Datapath::remark`]
    /// takes off sockets.
    pub fn load(
        pins: &Path,
        settings: &Settings,
        gone: Option<MarkLayout>,
    ) -> Result<Datapath, DatapathError> {
        let maps = pins.join(format!("maps-{}", digest(&[ABI.as_bytes()])));
        let links = pins.join("links");
        [&maps, &links].into_iter().try_for_each(|path| directory(path))?;
        let kernel = Btf::from_sys_fs().map_err(|e| DatapathError::Load(chain(&e)))?;
        // Linux 6.12 gives task storage to tracing programs only, Linux 6.18 to those of control groups as well. The
        // verifier tells, and does not look at what a constant switches off.
        let mut follows_tasks = true;
        let mut verified = verify(&maps, settings, gone, follows_tasks, &kernel);
        if matches!(&verified, Err(DatapathError::Load(why)) if lacks_task_storage(why)) {
            tracing::info!("this kernel's control-group programs cannot ask for a thread's tenant");
            follows_tasks = false;
            verified = verify(&maps, settings, gone, follows_tasks, &kernel);
        }
        let (mut programs, raw) = verified?;
        let constants = format!("{settings:?} {follows_tasks}");
        let digest = digest(&[OBJECT, constants.as_bytes()]);
        let maps = Maps::open(&mut programs)?;
        let tasks = programs.take_map("fief_tasks").and_then(Tasks::new);
        let tasks = tasks.ok_or_else(|| DatapathError::Load("no map of tasks".into()))?;
        let aliases = Aliases::open(&mut programs, settings.aliases)?;
        remove_others(pins, "maps-", &digest_of_maps());
        Ok(Datapath { programs, maps, tasks, follows_tasks, aliases, raw, links, digest })
    }

    /// Have threads and processes tenants on this kernel?
    pub fn follows_tasks(&self) -> bool {
        self.follows_tasks
    }

    /// The maps.
    pub fn maps(&mut self) -> &mut Maps {
        &mut self.maps
    }

    /// The tenants of threads and processes.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The tables of aliases.
    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// The tables of aliases, to take some out.
    pub fn aliases_mut(&mut self) -> &mut Aliases {
        &mut self.aliases
    }

    /// The programs (lwt_xmit) for the routes of the ranges of aliases, IPv4's and IPv6's.
    pub fn detours(&self) -> Result<[OwnedFd; 2], DatapathError> {
        aliases::load(&self.raw)
    }

    /// Gives the TCP sockets of the calling thread's network namespace their slot's other place, while the field moves, or
    /// takes the former one off them. The programs must be attached, so that no new socket lacks it.
    pub fn remark(&self) -> Result<(), DatapathError> {
        remark::run(&self.raw)
    }

    /// What a slot's packets did.
    pub fn counters(&self, slot: u32) -> Counters {
        self.maps.counters(slot)
    }

    /// Attaches the device programs to exactly these devices (and the loopback program to `lo`, index 1), adopting
    /// what is attached already and detaching the rest. Returns what could not be attached.
    pub fn attach_devices(&mut self, devices: &[Device]) -> Vec<DatapathError> {
        attach::devices(&mut self.programs, &self.links, &self.digest, devices)
    }

    /// Attaches the socket programs to a control group (version 2).
    pub fn attach_cgroup(&mut self, path: &Path, cgroup: impl AsFd) -> Result<(), DatapathError> {
        attach::cgroup(&mut self.programs, &self.links, &self.digest, path, cgroup.as_fd())
    }

    /// Attaches the netfilter programs and the one of socket lookups to the calling thread's network namespace, and the
    /// one of forks.
    pub fn attach_guard(&mut self) -> Result<(), DatapathError> {
        attach::forks(&mut self.programs, &self.links, &self.digest)?;
        attach::lookup(&mut self.programs, &self.links, &self.digest)?;
        netfilter::attach(&self.raw, &self.links, &self.digest)
    }

    /// Detaches everything and removes every pin.
    pub fn remove(self, pins: &Path) -> Result<(), DatapathError> {
        drop(self);
        remove_pins(pins)
    }
}

/// Loads the programs with these constants; maps are pinned in `maps`.
fn verify(
    maps: &Path,
    settings: &Settings,
    gone: Option<MarkLayout>,
    follows_tasks: bool,
    kernel: &Btf,
) -> Result<(Ebpf, Raw), DatapathError> {
    #[cfg(feature = "teeth")]
    let teeth = teeth::off();
    #[cfg(not(feature = "teeth"))]
    let teeth = 0_u32;
    let Positions { read, also } = settings.positions;
    let number = |value: u32| value.to_ne_bytes().to_vec();
    let globals = [
        ("fief_mask", number(read.mask())),
        ("fief_shift", number(read.shift())),
        ("fief_also_mask", number(also.map_or(0, MarkLayout::mask))),
        ("fief_also_shift", number(also.map_or(0, MarkLayout::shift))),
        ("fief_gone_mask", number(gone.map_or(0, MarkLayout::mask))),
        ("fief_gone_shift", number(gone.map_or(0, MarkLayout::shift))),
        ("fief_local_moved", number(u32::from(settings.local_moved))),
        ("fief_foreign_accepted", number(u32::from(settings.foreign_accepted))),
        ("fief_netns_cookie", settings.netns_cookie.to_ne_bytes().to_vec()),
        ("fief_follows_tasks", number(u32::from(follows_tasks))),
        ("fief_alias_base", number(settings.aliases.v4.network().into())),
        ("fief_alias_size", number(settings.aliases.v4.hostmask().into())),
        ("fief_alias_net", settings.aliases.v6.network().octets()[..8].to_vec()),
        ("fief_cgroup_id", settings.cgroup.to_ne_bytes().to_vec()),
        ("fief_teeth", number(teeth)),
    ];
    let mut loader = EbpfLoader::new();
    loader.btf(Some(kernel)).allow_unsupported_maps().default_map_pin_directory(maps);
    for (name, value) in &globals {
        loader.override_global(name, value.as_slice(), true);
    }
    let mut programs = loader.load(OBJECT).map_err(|e| DatapathError::Load(chain(&e)))?;
    attach::load_all(&mut programs, kernel)?;
    let globals = globals.iter().map(|(name, value)| (*name, (value.as_slice(), true))).collect();
    let names = netfilter::names().chain(aliases::PROGRAMS).chain([remark::PROGRAM]);
    let raw = Raw::read(OBJECT, names, globals, kernel, &programs)?;
    Ok((programs, raw))
}

/// A digest of the programs with these settings: another digest, other programs.
pub fn detour(settings: &Settings) -> u32 {
    let digest = Sha256::new().chain_update(OBJECT).chain_update(format!("{settings:?}")).finalize();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

fn lacks_task_storage(why: &str) -> bool {
    ["cannot use helper", "unknown func"].iter().any(|e| why.contains(&format!("{e} bpf_task_storage_get#")))
}

/// Removes every pin below a directory, and the directory: links detach and maps go when nobody else holds them.
pub fn remove_pins(pins: &Path) -> Result<(), DatapathError> {
    match std::fs::remove_dir_all(pins) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(DatapathError::Pin { what: "remove pins below", path: pins.into(), source })
        }
        _ => Ok(()),
    }
}

/// A directory for pins, made if missing.
fn directory(path: &Path) -> Result<(), DatapathError> {
    let failed = |source| DatapathError::Pin { what: "create directory", path: path.into(), source };
    std::fs::create_dir_all(path).map_err(failed)
}

/// Removes maps that an earlier version has pinned, by the beginning of the directories' names.
fn remove_others(pins: &Path, kind: &str, ours: &str) {
    let Ok(entries) = std::fs::read_dir(pins) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(kind) && name != ours {
            tracing::info!(directory = name, "removing the maps of an earlier version");
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn digest_of_maps() -> String {
    format!("maps-{}", digest(&[ABI.as_bytes()]))
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// An error with its causes in one line; the verifier's log is the last of them and only its end matters.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    let keep = text.len().saturating_sub(4000);
    let start = (keep..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[start..].to_owned()
}
