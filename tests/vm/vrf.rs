//! Tenants with VRFs: everything of theirs may be the same, on devices of their own.
//!
//! ```text
//!   host [eth1]──[eth0] client 0   192.0.2.1, fd00:2::1
//!        [eth2]──[eth0] client 1   the same again
//!   t0 on eth1, t1 on eth2: 192.0.2.11, fd00:2::b
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use fief_testkit::{Capture, Child, Daemon, DaemonOptions, Dial, Echo, Lab, Ns, Snapshot, eventually};
use nix::sys::socket::SockType;
use serde_json::Value;

use crate::odd::{DOORS, Datagram};
use crate::room::{MOVE, answered, echo, outcome, seen};

const SOON: Duration = Duration::from_secs(20);

/// The tenants' address, and their clients'.
const LOCAL: [&str; 2] = ["192.0.2.11", "fd00:2::b"];
const CLIENT: [&str; 2] = ["192.0.2.1", "fd00:2::1"];

/// A host with a device for each tenant. Fields end in this order.
struct House {
    daemon: Daemon,
    clients: Vec<Ns>,
    host: Ns,
    lab: Lab,
}

impl House {
    #[track_caller]
    fn open(name: &str, tenants: usize, config: &str) -> Option<House> {
        let lab = Lab::new(name)?;
        let host = lab.ns("host");
        if !has_vrf(&lab) {
            let in_vm = std::env::var_os("FIEF_TEST_VM").is_some();
            assert!(!in_vm, "the virtual machine's kernel has VRFs");
            fief_testkit::skip("this kernel has no VRFs; `make test-vm` runs it");
            return None;
        }
        for scope in ["all", "default"] {
            host.set_sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), 0);
        }
        host.ip("link set lo up\n");
        let clients = (0..tenants).map(|i| cable(&lab, &host, i)).collect();
        let options = DaemonOptions { config_yaml: Some(config.to_owned()), ..DaemonOptions::default() };
        let daemon = Daemon::start(&lab, &host, options);
        Some(House { daemon, clients, host, lab })
    }

    /// An unmodified server for everybody.
    #[track_caller]
    fn serve(&self) -> Child {
        let peer = fief_testkit::peer();
        let argv = [peer.to_str().expect("a plain path"), "serve", "[::]:8000"];
        let mut server = self.host.spawn_in_cgroup(self.lab.cgroup(), &argv);
        server.wait_for_output("ready", SOON);
        server
    }

    #[track_caller]
    fn status(&self, tenant: &str) -> Value {
        self.daemon.cli(&["get", "tenants", tenant, "-o", "json"]).ok().json()["status"].clone()
    }

    /// The mark of a tenant's packets.
    #[track_caller]
    fn mark(&self, tenant: &str) -> u32 {
        let mark = self.status(tenant)["mark"].as_str().expect("a mark").to_owned();
        let value = mark.split('/').next().expect("a value").trim_start_matches("0x");
        u32::from_str_radix(value, 16).expect("hexadecimal")
    }

    #[track_caller]
    fn wait_ready(&self, tenant: &str) {
        eventually(SOON, || {
            let status = self.status(tenant);
            if status["phase"] == "Ready" { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// Is a client answered, in both families?
    fn is_answered(&self, i: usize) -> Result<(), String> {
        LOCAL.iter().try_for_each(|to| {
            let text = format!("client {i} to {to}");
            let call = self.call(i, to).and_then(|mut call| {
                call.write_all(text.as_bytes())?;
                call.shutdown(std::net::Shutdown::Write)?;
                let mut answer = String::new();
                call.read_to_string(&mut answer)?;
                Ok(answer)
            });
            match call {
                Ok(answer) if answer == text => Ok(()),
                Ok(answer) => Err(format!("{text}: answered {answer:?}")),
                Err(error) => Err(format!("{text}: {error}")),
            }
        })
    }

    #[track_caller]
    fn all_clients_hear(&self, why: &str) {
        for i in 0..self.clients.len() {
            self.is_answered(i).unwrap_or_else(|error| panic!("{why}: {error}"));
        }
    }

    /// What fief has made.
    fn made(&self) -> String {
        let shown = "ip rule; ip -6 rule; ip -br link; ip -br addr; ip route show table all; ip -6 route show table all";
        self.host.sh(shown).ok().stdout
    }

    /// What there is, for people.
    fn picture(&self) -> String {
        let shown =
            "ip rule; ip -6 rule; ip -d link; ip addr; ip route show table all; ip -6 route show table all";
        self.host.sh(shown).stdout + &self.daemon.log()
    }

    /// A connection that stays open, always from one address and port.
    fn call(&self, i: usize, to: &str) -> std::io::Result<TcpStream> {
        let v6 = to.contains(':');
        let from = SocketAddr::new(CLIENT[usize::from(v6)].parse().expect("an address"), 40000);
        let to = SocketAddr::new(to.parse().expect("an address"), 8000);
        self.clients[i].enter(|| Dial::to(to).bind(from).timeout(Duration::from_secs(5)).connect())
    }

    /// Is every client answered, all at once?
    #[track_caller]
    fn all_are_answered(&self, why: &str) {
        for to in LOCAL {
            let calls: Vec<_> = (0..self.clients.len())
                .map(|i| {
                    self.call(i, to).unwrap_or_else(|error| {
                        panic!("{why}: client {i} to {to}: {error}\n{}", self.picture())
                    })
                })
                .collect();
            let sockets = self.daemon.cli(&["sockets", "-o", "json"]).ok().json();
            let mut tenants: Vec<&str> = sockets
                .as_array()
                .expect("a list")
                .iter()
                .filter(|s| {
                    s["local"].as_str().is_some_and(|l| l.contains(to)) && s["state"] == "ESTABLISHED"
                })
                .map(|s| s["tenant"].as_str().expect("a name"))
                .collect();
            tenants.sort_unstable();
            let expected: Vec<String> = (0..calls.len()).map(|i| format!("t{i}")).collect();
            assert_eq!(tenants, expected, "{why}: {sockets}");
            for (i, mut call) in calls.into_iter().enumerate() {
                let text = format!("client {i} to {to}");
                call.write_all(text.as_bytes()).expect("connected");
                call.shutdown(std::net::Shutdown::Write).expect("connected");
                let mut answer = String::new();
                call.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{why}: {text}: {error}"));
                assert_eq!(answer, text, "{why}");
            }
        }
    }
}

fn has_vrf(lab: &Lab) -> bool {
    lab.ns("probe").sh("ip link add probe type vrf table 5").success()
}

#[track_caller]
fn cable(lab: &Lab, host: &Ns, i: usize) -> Ns {
    let client = lab.ns(&format!("c{i}"));
    lab.veth((host, &format!("eth{}", i + 1)), (&client, "eth0"));
    client.ip(&format!("addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n", CLIENT[0], CLIENT[1]));
    client
}

fn document(i: usize, more: &str) -> String {
    format!(
        "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: t{i} }}\nspec:\n  interfaces:\n    \
         - {{ name: eth{}, addresses: [{}/24, \"{}/64\"] }}\n{more}",
        i + 1,
        LOCAL[0],
        LOCAL[1]
    )
}

const VRF: &str = "  isolation: vrf\n";

/// Nothing of the rest may remain when it goes; and it keeps the programs loaded when the others go.
const IDLE: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: idle }\nspec:\n  interfaces:\n    \
                    - { name: absent, addresses: [192.0.2.200/24] }\n";

/// Deaths of the daemon, falls of a link, somebody who takes things away, a device that comes late, and the end.
#[test]
fn two_tenants_with_the_same_addresses_share_a_listener_and_leave_nothing_behind() {
    let Some(mut house) = House::open("vrf-two", 2, "") else { return };
    // The host's own on a device that a tenant gets: there as before when the tenant is gone.
    house.host.ip("addr add 203.0.113.5/24 dev eth1\naddr add fd00:113::5/64 dev eth1 nodad\n");
    let doctor = house.daemon.cli(&["doctor"]).stdout;
    assert!(doctor.contains("this kernel makes VRFs"), "{doctor}");
    let before = Snapshot::of(&house.host);
    let documents = || [0, 1, 2].map(|i| document(i, VRF)).join("---\n");
    house.daemon.apply(&(documents() + "---\n" + IDLE)).ok();
    for tenant in ["t0", "t1"] {
        house.wait_ready(tenant);
        assert_eq!(house.status(tenant)["isolation"], "vrf");
    }
    let reasons = house.status("t2")["conditions"].to_string();
    assert!(reasons.contains("DeviceMissing"), "{reasons}");
    let server = house.serve();
    house.all_are_answered("at first");

    let made = house.made();
    house.daemon.kill9();
    house.all_clients_hear("without a daemon");
    house.daemon.restart();
    house.wait_ready("t1");
    assert_eq!(made, house.made(), "a new daemon finds all as it should be");

    for (what, deed) in [
        ("the link falls and rises", "ip link set eth1 down && ip link set eth1 up"),
        ("the VRF is set down", "ip link set vrf1 down"),
        ("somebody takes the device", "ip link set eth1 nomaster"),
        ("somebody deletes the VRF", "ip link del vrf1"),
        ("somebody deletes the rules", "ip rule del pref 1000; ip -6 rule del pref 1000"),
    ] {
        house.host.sh(deed).ok();
        eventually(SOON, || house.is_answered(0).map_err(|why| format!("{what}: {why}")));
        house.wait_ready("t0");
    }

    let late = cable(&house.lab, &house.host, 2);
    house.clients.push(late);
    house.wait_ready("t2");
    house.all_are_answered("the late one, too");
    house.daemon.cli(&["delete", "tenant", "t2"]).ok();
    drop(house.clients.pop());
    house.host.sh("ip link del eth3").ok();
    house.all_are_answered("two are left");

    // The kernel makes its rule once for a namespace. fief's own serves those that come later.
    house.daemon.cli(&["delete", "tenant", "t0", "t1"]).ok();
    let rules = house.host.sh("ip rule; ip -6 rule; ip mrule; ip -d link show type vrf").ok().stdout;
    assert!(!rules.contains("l3mdev") && !rules.contains("vrf"), "{rules}");
    // Whose documents say nothing of isolation get a VRF because of each other.
    house.daemon.apply(&[0, 1].map(|i| document(i, "")).join("---\n")).ok();
    house.wait_ready("t1");
    assert_eq!(house.status("t1")["isolation"], "vrf");
    house.all_are_answered("again");
    drop(server);
    house.daemon.cli(&["delete", "tenant", "t0", "t1", "idle"]).ok();
    before.assert_same(&Snapshot::of(&house.host));
}

/// An unprivileged user who is a member of t0.
const MEMBER: u32 = 4711;
const STRANGER: u32 = 4712;

/// Who names a device of a VRF and is not its tenant's gets nothing in and nothing out.
#[test]
fn only_its_tenant_gets_into_a_vrf() {
    let Some(house) = House::open("vrf-doors", 2, MOVE) else { return };
    let far = house.lab.ns("far");
    house.lab.veth((&house.host, "spare"), (&far, "eth0"));
    far.ip(&format!("addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n", CLIENT[0], CLIENT[1]));
    house.host.ip("addr add 192.0.2.99/24 dev spare\naddr add fd00:2::99/64 dev spare nodad\n\
         link property add dev eth1 altname wan0\n");
    // On the device before it was a tenant's: it keeps what it named, and hears nothing there any more.
    let (any, called): (SocketAddr, SocketAddr) = (
        "0.0.0.0:7001".parse().expect("an address"),
        format!("{}:7001", LOCAL[0]).parse().expect("an address"),
    );
    let early = ["eth1", "spare"].map(|device| {
        let dial = Dial::to(any).device(device).bind(any);
        let socket = seen(house.lab.cgroup(), &house.host, || dial.socket(SockType::Datagram));
        let socket = UdpSocket::from(socket.expect("root may name it"));
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        socket
    });
    let select = "  select: { cgroups: [/work.slice] }\n";
    let documents = [
        document(0, &format!("{VRF}  members: {{ users: [\"{MEMBER}\"] }}\n{select}")),
        document(1, &format!("{VRF}  select: {{ users: [\"{}\"] }}\n", STRANGER + 1)),
    ];
    house.daemon.apply(&documents.join("---\n")).ok();
    house.wait_ready("t0");
    house.wait_ready("t1");
    let servers = [&house.clients[0], &house.clients[1], &far].map(|ns| ns.enter(|| echo("[::]:9000")));
    let knock = |ns: &Ns, to: SocketAddr| {
        let socket = ns.enter(|| Dial::to(to).socket(SockType::Datagram)).expect("a socket");
        UdpSocket::from(socket).send_to(b"knock", to).expect("a way");
    };
    knock(&house.clients[0], called);
    knock(&far, "192.0.2.99:7001".parse().expect("an address"));
    assert_eq!(early[1].recv(&mut [0; 8]).expect("it is on a device of the host's"), 5);
    assert!(early[0].recv(&mut [0; 8]).is_err(), "a socket of nobody's heard a tenant's datagram");
    assert_eq!(house.status("t0")["counters"]["dropListener"], 1);
    house.named_by_option(&servers);
    house.named_otherwise(&far);
    house.own_sockets(&servers);
}

impl House {
    /// SO_BINDTODEVICE, by the names of the VRF, of the device under it, and another name of that.
    fn named_by_option(&self, servers: &[Echo; 3]) {
        let peer = self.lab.expose(&fief_testkit::bin("fief-peer"));
        let call = |user: u32, protocol: &str, options: &[&str]| {
            let to = format!("{}:9000", CLIENT[0]);
            let argv = [&[peer.to_str().expect("a plain path"), protocol, &to, "knock"], options].concat();
            self.host.command(&argv).cgroup(self.lab.cgroup()).user(user, user).run()
        };
        for protocol in ["tcp", "udp"] {
            for device in ["vrf1", "eth1", "wan0"] {
                for more in [&[][..], &["--bind", "0.0.0.0:7000"]] {
                    let options = [&["--device", device, "--timeout", "1000"], more].concat();
                    let what = format!("{protocol} {options:?}");
                    let stranger = call(STRANGER, protocol, &options);
                    assert!(stranger.stderr.contains("not permitted"), "{what}: {}", stranger.stderr);
                    if device != "wan0" {
                        call(MEMBER, protocol, &options).ok();
                    }
                }
            }
            call(STRANGER, protocol, &["--device", "spare"]).ok();
        }
        assert_eq!(servers[0].heard().len(), 8, "{:?}", servers[0].heard());
        assert_eq!(servers[1].heard(), Vec::<String>::new());
        assert_eq!(servers[2].heard().len(), 2, "{:?}", servers[2].heard());
    }

    /// The other doors, which only packets show: from sockets of nobody's and of the other tenant's.
    fn named_otherwise(&self, far: &Ns) {
        let (own, other) = (self.mark("t0"), self.mark("t1"));
        let wires = [Capture::on(&self.clients[0], "eth0"), Capture::on(far, "eth0")];
        let macs =
            [&self.clients[0], far].map(|ns| ns.mac("eth0").map(|byte| format!("{byte:02x}")).join(":"));
        let link_local = "fe80::99";
        for (device, mac) in ["eth1", "spare"].iter().zip(&macs) {
            for ip in [CLIENT[0], CLIENT[1], link_local] {
                self.host.ip(&format!("neigh replace {ip} lladdr {mac} dev {device} nud permanent\n"));
            }
        }
        let before = self.status("t0")["counters"]["dropUnmarked"].as_u64().expect("a counter");
        let mut controls = Vec::new();
        for to in [CLIENT[0], CLIENT[1], link_local, "239.1.2.3", "ff02::123"] {
            let to = SocketAddr::new(to.parse().expect("an address"), 9);
            for door in DOORS.into_iter().filter(|door| *door != "SO_BINDTODEVICE") {
                let send = |mark: u32, device: &str, text: &str| {
                    let datagram = Datagram::to(to, mark).by(door, device, self.host.ifindex(device))?;
                    let sent = seen(self.lab.cgroup(), &self.host, || datagram.send(text.as_bytes()));
                    Some(outcome(&sent))
                };
                let Some(_) = send(0, "eth1", "door of nobody's") else { continue };
                send(0, "vrf1", "door of nobody's");
                send(other, "eth1", "door of another's");
                send(other, "vrf1", "door of another's");
                let text = format!("control {door} {to}");
                controls.push((door, send(0, "spare", &text).expect("the door is there"), text));
            }
        }
        crate::room::wait(crate::room::NEVER);
        for (door, outcome, text) in controls {
            // A UNICAST_IF without a route by that device is a wish, not a door.
            let left = wires[1].contains(text.as_bytes()) || door == "UNICAST_IF";
            assert!(outcome == "works" && left, "{text} did not leave ({outcome}), so it proves nothing");
        }
        assert!(!wires[0].contains(b"door of"), "somebody else's packet is on the tenant's wire");
        let dropped = self.status("t0")["counters"]["dropUnmarked"].as_u64().expect("a counter") - before;
        assert!(dropped > 0, "the guard had to stop some");
        let datagram = Datagram::to(SocketAddr::new(CLIENT[0].parse().expect("an address"), 9), own);
        seen(self.lab.cgroup(), &self.host, || datagram.send(b"its own tenant's")).expect("its way");
        assert!(wires[0].wait_for(b"its own tenant's", SOON));
    }

    /// Sockets of processes that a tenant selects: bound to its VRF, so that each may have one port for itself.
    fn own_sockets(&self, servers: &[Echo; 3]) {
        let peer = self.lab.expose(&fief_testkit::bin("fief-peer"));
        let peer = peer.to_str().expect("a plain path");
        let slice = self.lab.cgroup().join("work.slice");
        std::fs::create_dir_all(&slice).expect("the lab's cgroup is ours");
        let as_t0 = |argv: &[&str]| self.host.command(argv).cgroup(&slice).user(STRANGER, STRANGER);
        let as_t1 = |argv: &[&str]| {
            self.host.command(argv).cgroup(self.lab.cgroup()).user(STRANGER + 1, STRANGER + 1)
        };
        let before = [0, 1].map(|i| servers[i].heard().len());
        for v6 in [false, true] {
            let to = SocketAddr::new(CLIENT[usize::from(v6)].parse().expect("an address"), 9000).to_string();
            for protocol in ["tcp", "udp"] {
                as_t0(&[peer, protocol, &to, "from t0"]).run().ok();
                as_t1(&[peer, protocol, &to, "from t1"]).run().ok();
            }
        }
        assert_eq!([0, 1].map(|i| servers[i].heard().len()), before.map(|count| count + 4));
        // One port, two owners, who have their own devices to tell them apart.
        let argv = [peer, "serve", "0.0.0.0:8080"];
        let mut own = [as_t0(&argv).spawn(), as_t1(&argv).spawn()];
        own.iter_mut().for_each(|server| server.wait_for_output("ready", SOON));
        let local =
            |v6: bool, port: u16| SocketAddr::new(LOCAL[usize::from(v6)].parse().expect("an address"), port);
        for (client, server) in self.clients.iter().zip(&own) {
            let dial = Dial::to(local(false, 8080)).timeout(SOON);
            client.enter(|| {
                answered("for itself", &dial);
                assert_eq!(dial.udp(b"for itself").expect("an answer").0, b"for itself");
            });
            let heard = server.output();
            assert_eq!(heard.matches("tcp from").count(), 1, "{heard}");
            assert_eq!(heard.matches("udp from").count(), 1, "{heard}");
        }
        // And three: everybody's first, which theirs stand beside.
        let everybody = self.serve();
        let any = local(false, 8000);
        let any = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), any.port());
        let listeners = ["t0", "t1"].map(|tenant| {
            let dial = Dial::to(any).mark(self.mark(tenant)).bind(any);
            seen(self.lab.cgroup(), &self.host, || {
                let socket = dial.socket(SockType::Stream).expect("the port is its own");
                nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(8).expect("eight"))
                    .expect("it listens");
                std::net::TcpListener::from(socket)
            })
        });
        for (client, listener) in self.clients.iter().zip(&listeners) {
            let call =
                client.enter(|| Dial::to(local(false, 8000)).timeout(SOON).connect()).expect("answered");
            listener.set_nonblocking(true).expect("an option");
            let accepted = eventually(SOON, || listener.accept().map_err(|error| error.to_string()));
            assert_eq!(accepted.1, call.local_addr().expect("connected"));
            // Over IPv6 it has no listener: everybody's answers.
            client.enter(|| answered("for everybody", &Dial::to(local(true, 8000))));
        }
        let heard = everybody.output();
        assert_eq!(heard.matches("tcp from").count(), 2, "{heard}");
    }
}
