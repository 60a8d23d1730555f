//! The room of the tests about isolation: a street with a daemon, and sockets that its cgroup programs see.
#![allow(dead_code, reason = "each test executable uses its own part")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fief_testkit::{Daemon, DaemonOptions, Dial, Echo, EchoOptions, Families, Lab, Ns, Street, eventually};
use serde_json::Value;

/// Where servers listen.
pub const PORT: u16 = 8000;
/// Long enough for every answer in namespaces of one machine, however busy it is.
pub const SOON: Duration = Duration::from_secs(10);
/// How long we wait for what must not come. Whatever crosses namespaces takes microseconds.
pub const NEVER: Duration = Duration::from_millis(250);

/// Gives what must not come the time to come.
#[expect(clippy::disallowed_methods, reason = "there is no event for what does not happen")]
pub fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// The configuration `localRule: move`.
pub const MOVE: &str = "localRule: move\n";
/// Both places of the `local` rule, as configuration.
pub const MODES: [&str; 2] = ["", MOVE];

/// A street with a daemon on its host. Fields are dropped in this order.
pub struct Room {
    pub daemon: Daemon,
    pub street: Street,
    pub lab: Lab,
}

impl Room {
    /// A room with plain tenants.
    #[track_caller]
    pub fn open(name: &str, tenants: usize, config: &str) -> Option<Room> {
        Room::with(name, tenants, config, |_, street| street.documents())
    }

    /// A room whose tenants have VRFs, and documents that the test writes. `None` too, with a printed reason, where the
    /// kernel has none; the virtual machine's has.
    #[track_caller]
    pub fn apart(
        name: &str,
        tenants: usize,
        config: &str,
        documents: impl FnOnce(&Lab, &Street) -> String,
    ) -> Option<Room> {
        let lab = Lab::new(name)?;
        if !lab.ns("probe").sh("ip link add probe type vrf table 5").success() {
            let in_vm = std::env::var_os("FIEF_TEST_VM").is_some();
            assert!(!in_vm, "the virtual machine's kernel has VRFs");
            fief_testkit::skip("this kernel has no VRFs; `make test-vm` runs it");
            return None;
        }
        let street = Street::apart(&lab, tenants);
        Some(Room::on(lab, street, config, documents))
    }

    /// Has each tenant a VRF?
    pub fn has_vrfs(&self) -> bool {
        self.street.apart
    }

    /// A room with many tenants of whom nobody calls.
    #[track_caller]
    pub fn without_clients(name: &str, tenants: usize) -> Option<Room> {
        let lab = Lab::new(name)?;
        let street = Street::sparse(&lab, tenants, &[], Families::Both);
        let daemon = Daemon::start(&lab, &street.host, DaemonOptions::default());
        daemon.apply(&street.documents()).ok();
        Some(Room { daemon, street, lab })
    }

    /// A room whose documents the test writes; it may furnish the host before the daemon starts.
    #[track_caller]
    pub fn with(
        name: &str,
        tenants: usize,
        config: &str,
        documents: impl FnOnce(&Lab, &Street) -> String,
    ) -> Option<Room> {
        let lab = Lab::new(name)?;
        let street = Street::new(&lab, tenants, Families::Both);
        Some(Room::on(lab, street, config, documents))
    }

    #[track_caller]
    fn on(lab: Lab, street: Street, config: &str, documents: impl FnOnce(&Lab, &Street) -> String) -> Room {
        let documents = documents(&lab, &street);
        let options = DaemonOptions { config_yaml: Some(config.to_owned()), ..DaemonOptions::default() };
        let daemon = Daemon::start(&lab, &street.host, options);
        daemon.apply(&documents).ok();
        Room { daemon, street, lab }
    }

    /// The host's namespace.
    pub fn host(&self) -> &Ns {
        &self.street.host
    }

    /// Tenant `i` as `fief get` shows it.
    #[track_caller]
    pub fn view(&self, i: usize) -> Value {
        let view = self.daemon.cli(&["get", "tenant", &self.street.name(i), "-o", "json"]).ok().json();
        if view.is_array() { view[0].clone() } else { view }
    }

    /// The mark of tenant `i`'s packets.
    #[track_caller]
    pub fn mark(&self, i: usize) -> u32 {
        let view = self.view(i);
        let text = view["status"]["mark"].as_str().unwrap_or_else(|| panic!("no mark in {view}"));
        let (value, _) = text.split_once('/').expect("a mark has a mask");
        u32::from_str_radix(value.trim_start_matches("0x"), 16).expect("a mark is hexadecimal")
    }

    /// One of tenant `i`'s counters.
    #[track_caller]
    pub fn count(&self, i: usize, counter: &str) -> u64 {
        let view = self.view(i);
        view["status"]["counters"][counter].as_u64().unwrap_or_else(|| panic!("no {counter} in {view}"))
    }

    /// Does `work` in a namespace, with the cgroup programs watching the sockets it opens. They go by the cgroup of a
    /// socket's maker, and that is a whole process: it moves there and back.
    #[track_caller]
    pub fn inside<T: Send>(&self, ns: &Ns, work: impl FnOnce() -> T + Send) -> T {
        seen(self.lab.cgroup(), ns, work)
    }

    /// An unmodified echo server on the host, `[::]:8000`.
    #[track_caller]
    pub fn server(&self) -> Echo {
        self.inside(self.host(), || echo(&format!("[::]:{PORT}")))
    }

    /// The address and port of tenant `i`'s server in a family.
    pub fn local(&self, i: usize, v6: bool) -> SocketAddr {
        if v6 { (self.street.local6(i), PORT).into() } else { (self.street.local4(i), PORT).into() }
    }
}

/// As [`Room::inside`], for whoever has no room.
#[track_caller]
pub fn seen<T: Send>(cgroup: &Path, ns: &Ns, work: impl FnOnce() -> T + Send) -> T {
    let _visit = Visit::to(cgroup);
    ns.enter(work)
}

/// An echo server in the namespace of the caller, which must have room for it.
#[track_caller]
pub fn echo(address: &str) -> Echo {
    let address = address.parse().expect("an address");
    // Right after a fork elsewhere in this process the port may be held by a copy for an instant.
    eventually(SOON, || {
        Echo::listen(address, EchoOptions { pktinfo: true, ..EchoOptions::default() })
            .map_err(|e| e.to_string())
    })
}

/// The same port on the address of the client behind every router.
pub fn client(v6: bool) -> SocketAddr {
    if v6 { (Street::CLIENT_V6, PORT).into() } else { (Street::CLIENT_V4, PORT).into() }
}

/// The host's own address, which is no tenant's.
pub fn host_address(v6: bool) -> SocketAddr {
    if v6 { (Street::HOST_V6, PORT).into() } else { (Street::HOST_V4, PORT).into() }
}

/// 127.0.0.1 or ::1.
pub fn loopback(v6: bool) -> SocketAddr {
    if v6 {
        (std::net::Ipv6Addr::LOCALHOST, PORT).into()
    } else {
        (std::net::Ipv4Addr::LOCALHOST, PORT).into()
    }
}

/// An echo over TCP whose answer must be what was said.
#[track_caller]
pub fn answered(what: &str, dial: &Dial) {
    match dial.clone().timeout(SOON).tcp(what.as_bytes()) {
        Ok(answer) => assert_eq!(String::from_utf8_lossy(&answer), what),
        Err(error) => panic!("{what}: not answered: {error}"),
    }
}

/// The errno of a failure, by name, or what else came out.
pub fn outcome<T>(result: &std::io::Result<T>) -> String {
    match result {
        Ok(_) => "works".to_owned(),
        Err(error) => match error.raw_os_error() {
            // SO_SNDTIMEO and SO_RCVTIMEO end a call with EAGAIN; connect(2) says EINPROGRESS.
            Some(libc::EAGAIN | libc::EINPROGRESS) => "silence".to_owned(),
            Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
            None if error.kind() == std::io::ErrorKind::TimedOut => "silence".to_owned(),
            None => error.to_string(),
        },
    }
}

/// Keeps the process in another cgroup while it lives. One at a time, and never when the lab goes: a lab kills
/// everybody in its cgroup.
struct Visit {
    home: std::path::PathBuf,
    _alone: MutexGuard<'static, ()>,
}

static VISITING: Mutex<()> = Mutex::new(());

impl Visit {
    #[track_caller]
    fn to(cgroup: &Path) -> Visit {
        let alone = VISITING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let own = fs::read_to_string("/proc/self/cgroup").expect("a process has cgroups");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("").to_owned();
        let root = cgroup.parent().expect("the lab's cgroup lies in the root");
        let visit = Visit { home: root.join(own), _alone: alone };
        enter(cgroup).unwrap_or_else(|error| panic!("cannot enter {}: {error}", cgroup.display()));
        visit
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        enter(&self.home)
            .unwrap_or_else(|error| panic!("cannot go back to {}: {error}", self.home.display()));
    }
}

fn enter(cgroup: &Path) -> std::io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}
