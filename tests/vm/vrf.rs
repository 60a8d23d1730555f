//! Tenants with VRFs: everything of theirs may be the same, on devices of their own.
//!
//! ```text
//!   host [eth1]──[eth0] client 0   192.0.2.1, fd00:2::1
//!        [eth2]──[eth0] client 1   the same again
//!   t0 on eth1, t1 on eth2: 192.0.2.11, fd00:2::b
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use fief_testkit::{Child, Daemon, DaemonOptions, Dial, Lab, Ns, Snapshot, eventually};
use serde_json::Value;

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

    /// What there is, for people.
    fn picture(&self) -> String {
        let shown = "ip rule; ip -6 rule; ip -d link; ip addr; ip route show table all; ip -6 route show table all";
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
                .map(|i| self.call(i, to).unwrap_or_else(|error| panic!("{why}: client {i} to {to}: {error}\n{}", self.picture())))
                .collect();
            let sockets = self.daemon.cli(&["sockets", "-o", "json"]).ok().json();
            let mut tenants: Vec<&str> = sockets
                .as_array()
                .expect("a list")
                .iter()
                .filter(|s| s["local"].as_str().is_some_and(|l| l.contains(to)) && s["state"] == "ESTABLISHED")
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

#[test]
fn two_tenants_with_the_same_addresses_share_a_listener_and_leave_nothing_behind() {
    let Some(house) = House::open("vrf-two", 2, "") else { return };
    // The host's own on a device that a tenant gets: there as before when the tenant is gone.
    house.host.ip("addr add 203.0.113.5/24 dev eth1\naddr add fd00:113::5/64 dev eth1 nodad\n");
    let doctor = house.daemon.cli(&["doctor"]).stdout;
    assert!(doctor.contains("this kernel makes VRFs"), "{doctor}");
    let before = Snapshot::of(&house.host);
    for round in ["first", "again"] {
        house.daemon.apply(&[0, 1].map(|i| document(i, VRF)).join("---\n")).ok();
        for tenant in ["t0", "t1"] {
            house.wait_ready(tenant);
            assert_eq!(house.status(tenant)["isolation"], "vrf");
        }
        let server = house.serve();
        house.all_are_answered(round);
        drop(server);
        house.daemon.cli(&["delete", "tenant", "t0", "t1"]).ok();
        before.assert_same(&Snapshot::of(&house.host));
    }
}

/// Deaths of the daemon, falls of a link, somebody who takes things away, and a device that comes late.
#[test]
fn what_happens_to_a_vrf_is_mended() {
    let Some(mut house) = House::open("vrf-mended", 2, "") else { return };
    house.daemon.apply(&[0, 1, 2].map(|i| document(i, VRF)).join("---\n")).ok();
    house.wait_ready("t0");
    house.wait_ready("t1");
    let _server = house.serve();
    house.all_are_answered("at first");
    let reasons = house.status("t2")["conditions"].to_string();
    assert!(reasons.contains("DeviceMissing"), "{reasons}");

    let made = |house: &House| {
        let shown = "ip rule; ip -6 rule; ip -br link; ip -br addr; ip route show table all; ip -6 route show table all";
        house.host.sh(shown).ok().stdout
    };
    let before = made(&house);
    house.daemon.kill9();
    house.all_clients_hear("without a daemon");
    house.daemon.restart();
    house.wait_ready("t1");
    assert_eq!(before, made(&house), "a new daemon finds all as it should be");

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
        house.all_are_answered(what);
    }

    let late = cable(&house.lab, &house.host, 2);
    house.clients.push(late);
    house.wait_ready("t2");
    house.all_are_answered("the late one, too");
    // One goes, and the others notice nothing.
    house.daemon.cli(&["delete", "tenant", "t2"]).ok();
    house.clients.pop();
    assert!(!house.host.sh("ip link show vrf3").success());
    house.all_are_answered("two are left");
}
