//! A host with two tenants that are alike but for policies, and an outside.
//!
//! ```text
//!   e0 .. e19 [eth0]── net of `ruled`, 10.10.1.0/24 ──┐    1,000 policies
//!                                                     ├─ host [eth0]────[host] outside 192.0.2.1
//!   e0 .. e19 [eth0]── net of `free`, 10.10.1.0/24 ───┘    none
//!   late      [eth0]   in each of them: comes and goes
//! ```

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fief_testkit::{Command, Daemon, DaemonOptions, Lab, Ns};

use super::probe::Probe;
use crate::networks::town::{DEVICE, OUTSIDE, Road, is_up};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
/// Endpoints of each tenant; namespaces are what limits them.
const ENDPOINTS: usize = 20;
/// Its policies, and how many applications they are about; those behind [`ENDPOINTS`] have no endpoint here.
pub const POLICIES: usize = 1_000;
const APPLICATIONS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(300);

/// Who is allowed to call `e1`, and who is not.
pub const FRONT: &str = "front";
const BACK: &str = "back";

/// Fields end in this order.
pub struct Place {
    /// The daemon.
    pub daemon: Daemon,
    /// Where it runs.
    pub host: Ns,
    /// With policies.
    pub ruled: Tenant,
    /// Without.
    pub free: Tenant,
    outside: Ns,
    /// It ends what is above.
    _lab: Lab,
}

/// A tenant with a network.
pub struct Tenant {
    name: &'static str,
    /// The workloads of its endpoints.
    pub workloads: Vec<Ns>,
    /// Where an endpoint comes and goes.
    late: Ns,
}

impl Place {
    /// Everything is there, and the rules count.
    pub fn open() -> Place {
        // A lab moves its thread into a mount namespace, and there may be several labs.
        std::thread::spawn(Place::build).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn build() -> Place {
        let lab = Lab::new("bench-policy").expect("the benchmarks need root");
        let [host, outside] = ["host", "outside"].map(|name| lab.ns(name));
        for scope in ["all", "default"] {
            host.set_sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), 0);
        }
        lab.veth((&host, DEVICE), (&outside, "host"));
        host.ip(&format!("addr add {HOST}/24 dev {DEVICE}\nroute add default via {OUTSIDE}\n"));
        outside.ip(&format!("addr add {OUTSIDE}/24 dev host\n"));
        let tenant = |name: &'static str, endpoints| Tenant {
            name,
            workloads: (0..endpoints).map(|n| lab.ns(&format!("{name}-e{n}"))).collect(),
            late: lab.ns(&format!("{name}-late")),
        };
        let (ruled, free) = (tenant("ruled", ENDPOINTS), tenant("free", ENDPOINTS));
        let daemon = Daemon::start(&lab, &host, DaemonOptions::default());
        let place = Place { daemon, host, ruled, free, outside, _lab: lab };
        let policies: Vec<String> = (0..POLICIES).map(policy).collect();
        for documents in [place.ruled.documents(), place.free.documents(), policies.join("---\n")] {
            place.told("apply", documents);
        }
        for ns in place.ruled.workloads.iter().chain(&place.free.workloads) {
            assert!(is_up(ns), "no device in {}:\n{}", ns.short(), place.daemon.log());
            ns.ip(&format!("route replace default via {GATEWAY} dev {DEVICE}\n"));
        }
        place.proven();
        place
    }

    /// Who is allowed is heard, and who is not is not.
    fn proven(&self) {
        for (caller, answered) in [(0, true), (2, false)] {
            let mut probe = Probe::between([caller, 1].map(|n| (&self.ruled.workloads[n], address(n))));
            if let Err(why) = probe.until(|| true, answered) {
                panic!("policies are not in force, e{caller}: {why}\n{}", self.daemon.log());
            }
        }
    }

    /// `fief VERB -f -`, not yet begun.
    pub fn command(&self, verb: &str, documents: String) -> Command {
        self.daemon.cli_command(&[verb, "-f", "-"]).input(documents).timeout(PATIENCE)
    }

    /// `fief VERB -f -`, and how long that took.
    pub fn told(&self, verb: &str, documents: String) -> Duration {
        let command = self.command(verb, documents);
        let begin = Instant::now();
        let output = command.run();
        let took = begin.elapsed();
        assert!(output.success(), "{output}\n{}", self.daemon.log());
        took
    }

    /// From one endpoint to another one, with policies and without.
    pub fn across(&self) -> [Road<'_>; 2] {
        [&self.ruled, &self.free].map(|tenant| Road {
            from: &tenant.workloads[0],
            to: &tenant.workloads[1],
            at: address(1),
            seen: address(0),
        })
    }

    /// From an endpoint to the outside, with policies and without.
    pub fn out(&self) -> [Road<'_>; 2] {
        [&self.ruled, &self.free].map(|tenant| Road {
            from: &tenant.workloads[0],
            to: &self.outside,
            at: OUTSIDE,
            seen: HOST,
        })
    }
}

impl Tenant {
    fn documents(&self) -> String {
        let mut text = format!(
            "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {tenant} }}\n---\napiVersion: fief/v1alpha1\nkind: \
             Network\nmetadata: {{ name: net, tenant: {tenant} }}\nspec: {{ type: local, subnets: [10.10.1.0/24], uplinks: \
             [{DEVICE}] }}\n",
            tenant = self.name
        );
        for n in 0..self.workloads.len() {
            let role = if n < 2 { FRONT } else { BACK };
            write!(text, "---\n{}", self.endpoint(n, role)).expect("a string grows");
        }
        text
    }

    /// The document of the `n`th endpoint.
    pub fn endpoint(&self, n: usize, role: &str) -> String {
        self.document(&format!("e{n}"), n, n, role, &self.workloads[n])
    }

    /// That of one more, of the first one's application.
    pub fn late(&self, role: &str) -> String {
        self.document("late", self.workloads.len(), 0, role, &self.late)
    }

    fn document(&self, name: &str, n: usize, application: usize, role: &str, ns: &Ns) -> String {
        format!(
            "apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: {name}, tenant: {}, labels: {{ app: app{application}, role: \
             {role} }} }}\nspec:\n  networks: [{{ network: net, interface: {DEVICE}, address: {} }}]\n  attach: {{ netns: {} \
             }}\n",
            self.name,
            address(n),
            ns.path().display()
        )
    }
}

/// The address of the `n`th endpoint.
pub fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 10, 1, 11 + n as u8)
}

/// The first two are what is measured: who calls `e1`, and whom `e0` calls. Of the others each is about an application that
/// another one calls at one port.
fn policy(n: usize) -> String {
    let spec = match n {
        0 => format!(
            "{{ podSelector: {{ matchLabels: {{ app: app1 }} }}, ingress: [{{ from: [{{ podSelector: {{ matchLabels: {{ role: \
             {FRONT} }} }} }}] }}] }}"
        ),
        1 => "{ podSelector: { matchLabels: { app: app0 } }, policyTypes: [Egress], egress: [{ to: [{ podSelector: {} }, { \
              ipBlock: { cidr: 192.0.2.0/24 } }] }] }"
            .to_owned(),
        _ => format!(
            "{{ podSelector: {{ matchLabels: {{ app: app{} }} }}, ingress: [{{ from: [{{ podSelector: {{ matchLabels: {{ app: \
             app{} }} }} }}], ports: [{{ port: {} }}] }}] }}",
            n % APPLICATIONS,
            (n * 7 + 1) % APPLICATIONS,
            8000 + n
        ),
    };
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: p{n}, labels: {{ fief/tenant: ruled }} \
         }}\nspec: {spec}\n"
    )
}
