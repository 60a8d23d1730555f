//! The hosts that are measured: each a network namespace at one end of a cable, with a daemon and a cgroup of its own.
//!
//! ```text
//!   host [eth0]────────[eth0] far          no bridge between: it would add to both sides of every ratio
//!        198.18.0.1 and the tenants'       198.19.0.10
//!        fd00:18::1                        fd00:18::c
//! ```
//!
//! Every neighbour entry that is used is permanent. The address that datagrams are sent to has the Ethernet address of
//! nobody, so the far end drops them at once and its cost stays out of the ratio.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fief_testkit::{Daemon, DaemonOptions, Lab, Ns};

/// The far end's own addresses: it sends packets and opens connections.
pub const FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 19, 0, 10)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 0xc))];
/// The host's own addresses.
const HOST: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 1))];
/// A device at the far end that drops what it is given.
pub const SINK: &str = "sink";
/// The station that nobody is.
const NOBODY: &str = "02:00:00:00:00:fe";
/// Nothing here takes longer, whatever the number of tenants.
const PATIENCE: Duration = Duration::from_secs(300);

/// A family, as an index into pairs of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

/// A host and the far end of its cable.
pub struct World {
    /// Where the daemon runs.
    pub host: Ns,
    /// The other end.
    pub far: Ns,
    /// How many tenants there are; 0 without fief.
    pub tenants: usize,
    /// The mark of the last tenant; 0 without fief.
    pub mark: u32,
    /// How long `fief apply` took.
    pub created: Duration,
    cgroup: PathBuf,
    documents: PathBuf,
    daemon: Option<Daemon>,
    // Last: it ends what is above.
    _lab: Lab,
}

impl World {
    /// A host with `tenants` tenants made by `fief apply`; with 0, a host that has no fief at all.
    pub fn open(tenants: usize) -> World {
        // A lab moves its thread into a mount namespace, and there are several labs.
        std::thread::spawn(move || World::build(tenants))
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e))
    }

    fn build(tenants: usize) -> World {
        let lab = Lab::new(&format!("bench-{tenants}")).expect("the benchmarks need root");
        let (host, far) = (lab.ns("host"), lab.ns("far"));
        lab.veth((&host, "eth0"), (&far, "eth0"));
        let daemon = (tenants > 0).then(|| Daemon::start(&lab, &host, DaemonOptions::default()));
        let (cgroup, documents) = (lab.cgroup().to_path_buf(), lab.dir().join("tenants.yaml"));
        let text: Vec<String> = (0..tenants).map(document).collect();
        fs::write(&documents, text.join("---\n")).expect("the lab's directory is writable");
        let mut world = World {
            host,
            far,
            tenants,
            mark: 0,
            created: Duration::ZERO,
            cgroup,
            documents,
            daemon,
            _lab: lab,
        };
        world.furnish();
        if tenants > 0 {
            world.create();
        }
        world
    }

    fn furnish(&self) {
        let (host, far) = (mac(&self.host), mac(&self.far));
        let mut lines = [String::new(), String::new()];
        for family in [Family::V4, Family::V6] {
            let index = family as usize;
            let length = [15, 64][index];
            let nodad = ["", " nodad"][index];
            for (text, own) in lines.iter_mut().zip([HOST[index], FAR[index]]) {
                writeln!(text, "addr add {own}/{length} dev eth0{nodad}").expect("a string grows");
            }
            let neighbours = [(0, FAR[index], far.as_str()), (0, self.sink(family), NOBODY)];
            for (side, address, mac) in neighbours.into_iter().chain([(1, self.local(family), host.as_str())])
            {
                writeln!(lines[side], "neigh replace {address} lladdr {mac} dev eth0 nud permanent")
                    .expect("a string grows");
            }
        }
        writeln!(lines[1], "link add {SINK} type ifb\nlink set {SINK} up").expect("a string grows");
        self.host.ip(&lines[0]);
        self.far.ip(&lines[1]);
    }

    fn create(&mut self) {
        self.created = self.timed(&["apply", "-f"]);
        let daemon = self.daemon();
        let name = format!("t{}", self.tenants - 1);
        let json = daemon.cli(&["get", "tenants", &name, "-o", "json"]).ok().json();
        let mark = find(&json, "mark").and_then(|mark| mark.as_str()).unwrap_or_default();
        let phase = find(&json, "phase").and_then(|phase| phase.as_str()).unwrap_or_default();
        assert_eq!(phase.to_lowercase(), "ready", "{name} is not ready: {json}\n{}", daemon.log());
        let number = mark.split('/').next().and_then(|text| text.strip_prefix("0x"));
        let number = number.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.mark = number.unwrap_or_else(|| panic!("no mark in {json}"));
    }

    /// Deletes every tenant and says how long `fief delete` took.
    pub fn delete(&self) -> Duration {
        self.timed(&["delete", "-f"])
    }

    /// How long one `ip netns add` takes, for comparison.
    pub fn namespace(&self) -> Duration {
        const MANY: u32 = 50;
        let begin = Instant::now();
        self.host.sh(&format!("for i in $(seq {MANY}); do ip netns add bench-$i; done")).ok();
        let one = begin.elapsed() / MANY;
        self.host.sh(&format!("for i in $(seq {MANY}); do ip netns del bench-$i; done")).ok();
        one
    }

    fn timed(&self, words: &[&str]) -> Duration {
        let documents = self.documents.to_str().expect("a plain path");
        let argv: Vec<&str> = words.iter().copied().chain([documents]).collect();
        let begin = Instant::now();
        self.daemon().cli_command(&argv).timeout(PATIENCE).run().ok();
        begin.elapsed()
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon().pid()
    }

    /// Everything the daemon said.
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a host with tenants has a daemon")
    }

    /// Runs `work` in the host's namespace and in the cgroup that its daemon serves. Sockets made there belong to both
    /// for ever, so one thread can measure several hosts in turn.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let home = home(&self.cgroup);
        join(&self.cgroup);
        let done = self.host.enter(work);
        join(&home);
        done
    }

    /// The last tenant's own address, or the host's without fief.
    pub fn local(&self, family: Family) -> IpAddr {
        if self.tenants == 0 { HOST[family as usize] } else { addresses(self.tenants - 1)[family as usize] }
    }

    /// Where datagrams go: the last tenant's router on the wire.
    pub fn sink(&self, family: Family) -> IpAddr {
        routers(self.tenants.max(1) - 1)[family as usize]
    }
}

fn addresses(i: usize) -> [IpAddr; 2] {
    [on_wire(18, i), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0xa, 1 + i as u16))]
}

fn routers(i: usize) -> [IpAddr; 2] {
    [on_wire(19, i), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0xb, 1 + i as u16))]
}

fn on_wire(second: u8, i: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, second, (1 + i / 250) as u8, (1 + i % 250) as u8))
}

fn document(i: usize) -> String {
    let ([own4, own6], [via4, via6]) = (addresses(i), routers(i));
    format!(
        "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: t{i} }}\nspec:\n  interfaces:\n    \
         - {{ name: eth0, addresses: [\"{own4}/15\", \"{own6}/64\"] }}\n  routes:\n    \
         - {{ to: default, via: \"{via4}\" }}\n    - {{ to: default, via: \"{via6}\" }}\n"
    )
}

fn mac(ns: &Ns) -> String {
    ns.mac("eth0").map(|byte| format!("{byte:02x}")).join(":")
}

/// The first value with this key, at any depth.
fn find<'a>(json: &'a serde_json::Value, key: &str) -> Option<&'a serde_json::Value> {
    match json {
        serde_json::Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|v| find(v, key))),
        serde_json::Value::Array(list) => list.iter().find_map(|v| find(v, key)),
        _ => None,
    }
}

/// The cgroup that this process is in, as a directory beside the lab's.
fn home(lab: &Path) -> PathBuf {
    let root = lab.parent().expect("the lab's cgroup is below the root").to_path_buf();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Some(root.join(path)).filter(|path| path.is_dir()).unwrap_or(root)
}

fn join(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), "0")
        .unwrap_or_else(|error| panic!("cannot enter {}: {error}", cgroup.display()));
}
