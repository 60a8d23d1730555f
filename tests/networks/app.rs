//! A workload: a namespace with nothing but `lo` until something gives it a device, and ordinary programs in it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fief_testkit::{Capture, Captured, Child, Dial, Echo, EchoOptions, Ns, attempt, eventually};

use crate::room::SOON;
use crate::tools::Tools;
use crate::town::Town;

/// What udhcpc runs. It keeps to the interface it is told of; the first one's default route is preferred, as a
/// distribution's scripts have it. The answer goes into a file as it came.
const SCRIPT: &str = r#"#!/bin/sh
set -eu
case "$1" in
deconfig)
	ip -4 addr flush dev "$interface"
	ip link set "$interface" up
	;;
bound | renew)
	ip addr replace "$ip/$mask" dev "$interface"
	for router in ${router:-}; do
		ip route replace default via "$router" dev "$interface" metric "$((100 + ${interface#eth}))"
	done
	for server in ${dns:-}; do echo "nameserver $server"; done >"$BOOK.$interface.resolv"
	env | sort >"$BOOK.$interface.lease.new"
	mv "$BOOK.$interface.lease.new" "$BOOK.$interface.lease"
	;;
esac
"#;

/// A workload.
#[derive(Debug, Clone)]
pub struct App {
    /// Its namespace.
    pub ns: Ns,
    tools: Tools,
    dir: PathBuf,
}

/// What a web server of ours says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who it is.
    pub who: String,
    /// Whom it sees.
    pub from: Ipv4Addr,
}

/// A lease, and the client that keeps it.
pub struct Lease {
    _client: Child,
    /// The address.
    pub address: Ipv4Addr,
    text: String,
}

impl App {
    /// A new workload; its names are resolved by nobody yet.
    #[track_caller]
    pub fn new(town: &Town, name: &str) -> App {
        App::of(town, town.lab.ns(name))
    }

    /// A namespace that is there already, as a workload.
    #[track_caller]
    pub fn of(town: &Town, ns: Ns) -> App {
        let app = App { ns, tools: town.tools.clone(), dir: town.lab.dir().to_path_buf() };
        app.resolve_by(&[]);
        app
    }

    /// How a document attaches it.
    pub fn attach(&self) -> String {
        format!("attach: {{ netns: {} }}", self.ns.path().display())
    }

    /// Runs udhcpc on an interface until it has a lease; the client stays to renew it. Its resolver is then the
    /// server's.
    #[track_caller]
    pub fn udhcpc(&self, interface: &str) -> Lease {
        self.wait_for(interface);
        let script = self.dir.join("udhcpc.script");
        if !script.exists() {
            fs::write(&script, SCRIPT).expect("the lab's directory is writable");
            self.ns.run(&[Path::new("chmod"), Path::new("755"), &script]).ok();
        }
        let written = self.file(&format!("{interface}.lease"));
        drop(fs::remove_file(&written));
        let words =
            ["udhcpc", "-f", "-t", "20", "-T", "1", "-O", "mtu", "-O", "ntpsrv", "-i", interface, "-s"];
        let command = words.iter().fold(self.ns.command(&[&self.tools.busybox]), |it, word| it.arg(word));
        let client = command.arg(&script).env("BOOK", self.file("")).spawn();
        let read = || fs::read_to_string(&written).map_err(|error| error.to_string());
        let Ok(text) = attempt(SOON, read) else {
            let seen = self.watch(interface, Duration::from_secs(3));
            panic!("{}: no lease on {interface}: {}{seen}", self.ns.short(), client.output());
        };
        self.resolve_as_leased(interface);
        let address = value(&text, "ip").and_then(|ip| ip.parse().ok()).expect("a lease has an address");
        Lease { _client: client, address, text }
    }

    /// What crosses an interface within a while, for whoever reads why a test has failed.
    fn watch(&self, interface: &str, time: Duration) -> String {
        let capture = Capture::on(&self.ns, interface);
        drop(attempt(time, || Err::<(), _>(String::new())));
        let line = |frame: &Captured| {
            let way = if frame.outgoing { "out" } else { "in" };
            let bytes: String = frame.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\n{interface} {way} {bytes}")
        };
        capture.stop().iter().map(line).collect()
    }

    /// Runs ISC's client on an interface, for its lease only: it changes nothing and ends.
    #[track_caller]
    pub fn dhclient(&self, interface: &str) -> Ipv4Addr {
        self.wait_for(interface);
        self.ns.ip(&format!("link set {interface} up\n"));
        let leases = self.file(&format!("{interface}.dhclient"));
        drop(fs::remove_file(&leases));
        let nowhere = self.file(&format!("{interface}.dhclient.pid"));
        let words = ["-4", "-1", "-d", "-sf", "/bin/true", "-cf", "/dev/null", "-lf"];
        let command = words.iter().fold(self.ns.command(&[&self.tools.dhclient]), |it, word| it.arg(word));
        let client = command.arg(&leases).arg("-pf").arg(&nowhere).arg(interface).spawn();
        eventually(SOON, || {
            let text = fs::read_to_string(&leases).unwrap_or_default();
            let found =
                text.lines().filter_map(|line| line.trim().strip_prefix("fixed-address ")).next_back();
            let found = found.and_then(|address| address.trim_end_matches(';').parse().ok());
            found.ok_or_else(|| format!("{}: no lease: {}", self.ns.short(), client.output()))
        })
    }

    /// Its programs ask these resolvers from now on.
    #[track_caller]
    pub fn resolve_by(&self, servers: &[Ipv4Addr]) {
        let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        let text = lines + "options attempts:1 timeout:2\n";
        fs::write(self.file("resolv"), text).expect("the lab's directory is writable");
    }

    /// Its programs ask the resolvers that came with an interface's lease.
    #[track_caller]
    pub fn resolve_as_leased(&self, interface: &str) {
        let text = fs::read_to_string(self.file(&format!("{interface}.resolv"))).expect("a lease was had");
        fs::write(self.file("resolv"), text + "options attempts:1 timeout:2\n")
            .expect("the lab's directory is writable");
    }

    /// What a web server answers, asked once by curl.
    pub fn get(&self, url: &str) -> Result<Seen, String> {
        let text = self.fetch(url)?;
        Seen::read(&text).ok_or_else(|| format!("{url} says {text:?} to {}", self.ns.short()))
    }

    /// The body of a page, asked once by curl, which has a second.
    pub fn fetch(&self, url: &str) -> Result<String, String> {
        let curl = self.tools.curl.display().to_string();
        let words = [&curl, "-sS", "--fail", "--noproxy", "*", "--connect-timeout", "1", "--max-time", "3"];
        let output = self.with_names(&[&words[..], &[url]].concat());
        if output.success() { Ok(output.stdout) } else { Err(format!("{}: {output}", self.ns.short())) }
    }

    /// As [`App::get`], port 80 of an address, by a client that waits for a tenth of a second only.
    pub fn glance(&self, address: Ipv4Addr) -> Result<Seen, String> {
        let dial = Dial::to((address, 80).into()).timeout(Duration::from_millis(100));
        let answer = self.ns.enter(|| dial.tcp(b"GET / HTTP/1.0\r\n\r\n"));
        let answer = answer.map_err(|error| format!("{} to {address}: {error}", self.ns.short()))?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        text.split_once("\r\n\r\n").and_then(|(_, body)| Seen::read(body)).ok_or(text)
    }

    /// Waits until the server at `url` is `who`, and says whom it saw.
    #[track_caller]
    pub fn reaches(&self, url: &str, who: &str) -> Ipv4Addr {
        let seen = eventually(SOON, || self.get(url));
        assert_eq!(seen.who, who, "{} asked {url}", self.ns.short());
        seen.from
    }

    /// Nobody answers at `url`.
    #[track_caller]
    pub fn is_refused(&self, url: &str) {
        if let Ok(text) = self.fetch(url) {
            panic!("{} asked {url} and heard {text:?}", self.ns.short());
        }
    }

    /// The A records of a name, as a resolver has them; none if it says nothing.
    pub fn dig(&self, server: Ipv4Addr, name: &str) -> Vec<Ipv4Addr> {
        let (dig, at) = (self.tools.dig.display().to_string(), format!("@{server}"));
        let output = self.ns.run(&[dig.as_str(), "+short", "+tries=1", "+time=2", &at, name, "A"]);
        output.stdout.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// Is a ping answered, once and within a second?
    pub fn pings(&self, address: Ipv4Addr) -> bool {
        self.ns.run(&["ping", "-n", "-c", "1", "-W", "1", &address.to_string()]).success()
    }

    /// The first IPv4 address of an interface.
    pub fn address(&self, interface: &str) -> Option<Ipv4Addr> {
        let shown = self.ns.sh(&format!("ip -4 -o addr show dev {interface} 2>/dev/null")).stdout;
        let after = shown.split_once("inet ")?.1;
        after.split(['/', ' ']).next()?.parse().ok()
    }

    /// Waits until the interface is there.
    #[track_caller]
    pub fn wait_for(&self, interface: &str) {
        eventually(SOON, || {
            let shown = self.ns.sh(&format!("ip link show dev {interface}"));
            if shown.success() { Ok(()) } else { Err(format!("{} {shown}", self.ns.short())) }
        });
    }

    /// Has it this interface?
    pub fn has(&self, interface: &str) -> bool {
        self.ns.sh(&format!("ip link show dev {interface}")).success()
    }

    /// An echo server on every address of it.
    #[track_caller]
    pub fn echo(&self, port: u16) -> Echo {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        // Right after a fork elsewhere in this process the port may be held by a copy for an instant.
        eventually(SOON, || {
            self.ns.enter(|| Echo::listen(address, EchoOptions::default())).map_err(|error| error.to_string())
        })
    }

    /// Is an echo server answered over UDP, before the time is over?
    pub fn hears(&self, to: SocketAddr, time: Duration) -> Result<(), String> {
        let dial = Dial::to(to).timeout(Duration::from_millis(100));
        attempt(time, || self.ns.enter(|| dial.udp(b"hello")).map(drop).map_err(|error| error.to_string()))
    }

    /// Runs a program that resolves names by this workload's resolv.conf, in a mount namespace that ends with it.
    fn with_names(&self, words: &[&str]) -> fief_testkit::Output {
        let line = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let command = self.ns.command(&["unshare", "-m", "sh", "-c", line]).arg(self.file("resolv"));
        words.iter().fold(command, |command, word| command.arg(word)).run()
    }

    /// `DIR/app1.NAME`; the script adds the name itself.
    fn file(&self, name: &str) -> PathBuf {
        let short = self.ns.short();
        self.dir.join(if name.is_empty() { short.to_owned() } else { format!("{short}.{name}") })
    }
}

impl Seen {
    fn read(text: &str) -> Option<Seen> {
        let (who, from) = text.trim_end().split_once(" sees ")?;
        Some(Seen { who: who.to_owned(), from: from.parse().ok()? })
    }
}

impl Lease {
    /// What the server said of something, by udhcpc's name for it: `router`, `dns`, `lease`, `mtu`, `ntpsrv`.
    pub fn said(&self, name: &str) -> Option<&str> {
        value(&self.text, name)
    }
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}
