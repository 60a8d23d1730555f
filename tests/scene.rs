//! A street with a running daemon and one server for everybody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fief_testkit::{Child, Daemon, DaemonOptions, Dial, Families, Lab, Ns, Street};

/// How soon what was changed behind fief's back must be put back.
pub const SOON: Duration = Duration::from_secs(1);

/// Is this the soak run, with full numbers?
pub fn soak() -> bool {
    std::env::var("FIEF_SOAK").is_ok_and(|value| value == "1")
}

/// A street, its daemon, and one server on `[::]:8000`. Fields end in this order.
pub struct Scene {
    /// The daemon under test.
    pub daemon: Daemon,
    /// The unmodified server, in the daemon's cgroup.
    pub server: Child,
    /// Wire, routers, clients.
    pub street: Street,
    /// The world.
    pub lab: Lab,
}

impl Scene {
    /// Both families; no tenant is applied yet.
    #[track_caller]
    pub fn new(name: &str, tenants: usize) -> Option<Scene> {
        Scene::with(name, tenants, &(0..tenants).collect::<Vec<_>>(), DaemonOptions::default())
    }

    /// As [`Scene::new`], with clients for some tenants only and a daemon of the caller's choice.
    #[track_caller]
    pub fn with(name: &str, tenants: usize, present: &[usize], options: DaemonOptions) -> Option<Scene> {
        let lab = Lab::new(name)?;
        let street = Street::sparse(&lab, tenants, present, Families::Both);
        let daemon = Daemon::start(&lab, &street.host, options);
        let peer = fief_testkit::peer();
        let argv = [peer.as_os_str(), "serve".as_ref(), "[::]:8000".as_ref()];
        let mut server = street.host.spawn_in_cgroup(lab.cgroup(), &argv);
        server.wait_for_output("ready", Duration::from_secs(5));
        Some(Scene { daemon, server, street, lab })
    }

    /// Is this tenant's client answered, in both families?
    pub fn answered(&self, tenant: usize) -> Result<(), String> {
        let targets = [self.street.local4(tenant).into(), self.street.local6(tenant).into()];
        targets.into_iter().try_for_each(|ip| {
            let nonce = format!("nonce of tenant {tenant} at {ip}");
            let dial = Dial::to(SocketAddr::new(ip, 8000)).timeout(Duration::from_millis(1500));
            let answer = self.street.client(tenant).enter(|| dial.tcp(nonce.as_bytes()));
            match answer {
                Ok(bytes) if bytes == nonce.as_bytes() => Ok(()),
                Ok(bytes) => Err(format!("tenant {tenant} at {ip}: another answer, {} bytes", bytes.len())),
                Err(error) => Err(format!("tenant {tenant} at {ip}: {error}")),
            }
        })
    }

    /// What fief has made in the kernel, by section, to be compared.
    #[track_caller]
    pub fn made(&self) -> Made {
        Made::of(&self.street.host, &self.daemon)
    }

    /// `fief get tenants NAME -o json`, its status.
    #[track_caller]
    pub fn status_of(&self, tenant: &str) -> serde_json::Value {
        self.daemon.cli(&["get", "tenants", tenant, "-o", "json"]).ok().json()["status"].clone()
    }

    /// Waits until the tenant is Ready.
    #[track_caller]
    pub fn wait_ready(&self, tenant: &str, timeout: Duration) {
        fief_testkit::eventually(timeout, || {
            let status = self.status_of(tenant);
            if status["phase"] == "Ready" { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// The reasons for which the tenant waits.
    #[track_caller]
    pub fn reasons(&self, tenant: &str) -> Vec<String> {
        let status = self.status_of(tenant);
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().map(|c| c["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// Rules, routes, addresses, links and the maps' entries: what an apply makes. Lines are sorted: the order in
/// which equals stand tells only their age, and rules begin with their preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made(BTreeMap<String, String>);

impl Made {
    /// In this namespace, by this daemon.
    #[track_caller]
    pub fn of(host: &Ns, daemon: &Daemon) -> Made {
        let mut sections = BTreeMap::new();
        for question in [
            "ip -4 rule show",
            "ip -6 rule show",
            "ip -4 route show table all",
            "ip -6 route show table all",
            "ip -o addr show",
            "nft --stateless list ruleset",
            "cat /proc/sys/net/ipv4/fwmark_reflect /proc/sys/net/ipv4/tcp_fwmark_accept",
        ] {
            let answer = host.sh(question).ok().stdout;
            let lines = answer.lines().map(|line| line.split(" valid_lft").next().unwrap_or_default().trim());
            let mut lines: Vec<String> = lines.map(str::to_owned).collect();
            lines.sort();
            sections.insert(question.to_owned(), lines.join("\n"));
        }
        let links = host.sh(&format!("ls {}/sys/fs/bpf/fief/links 2>/dev/null", daemon.root().display()));
        sections.insert("links".to_owned(), links.stdout);
        for map in ["own4", "own6", "exits", "tenants"] {
            let root = daemon.root().display();
            // A map that is there twice is a leftover, and shows.
            let dump = host.sh(&format!(
                "for m in {root}/sys/fs/bpf/fief/maps-*/*{map}; do [ -e $m ] && bpftool map dump pinned $m; done"
            ));
            let text = dump.stdout.replace("}{", "}\n{").replace("},{", "},\n{");
            let mut lines: Vec<&str> =
                text.lines().map(str::trim).filter(|l| !l.starts_with("Found")).collect();
            lines.sort_unstable();
            sections.insert(format!("map {map}"), lines.join("\n"));
        }
        Made(sections)
    }

    /// What differs, for people; `None` if nothing does.
    pub fn differs(&self, other: &Made) -> Option<String> {
        let differing = self.0.iter().filter(|(key, text)| other.0.get(*key) != Some(text));
        let shown = differing.map(|(key, text)| {
            let there = other.0.get(key).map_or("", String::as_str);
            let only = |a: &str, b: &str, sign: &str| {
                let lines = a.lines().filter(|line| !b.lines().any(|l| l == *line));
                lines.map(|line| format!("{sign} {line}\n")).collect::<String>()
            };
            format!("== {key}\n{}{}", only(text, there, "-"), only(there, text, "+"))
        });
        let text: String = shown.collect();
        if text.is_empty() { None } else { Some(text) }
    }

    /// One section.
    pub fn section(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}
