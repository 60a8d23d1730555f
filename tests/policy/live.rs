//! The outside truth table on the wire: nine workloads of one tenant in three namespaces, real sockets, every pair.
//!
//! ```text
//!    x-a .1   x-b .2   x-c .3   y-a .4   y-b .5   y-c .6   z-a .7   z-b .8   z-c .9
//!     └────────┴────────┴────────┴── net 192.168.1.0/24 ──┴────────┴────────┘
//! ```
//!
//! Each workload serves TCP and UDP on ports 80 and 81, and SCTP where the kernel has it: the virtual machine's does.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fief_policykit::matrix::{self, Expected};
use fief_policykit::scene::{End, Scene};
use fief_testkit::{DaemonOptions, Dial, Echo, EchoOptions, Ns, eventually};
use fief_tests::scene::soak;

use crate::shop::Shop;

/// Which protocols are asked about, and how long is waited.
#[derive(Clone, Copy)]
struct Asking {
    protocols: &'static [u8],
    /// What is allowed is answered long before, however busy the machine is with the 287 others.
    answered: Duration,
    /// What is denied is waited for so long. Whatever crosses namespaces takes microseconds.
    never: Duration,
    /// One case of so many is asked.
    stride: usize,
}

const USUAL: Asking = Asking {
    protocols: &[6, 17],
    answered: Duration::from_secs(3),
    never: Duration::from_millis(400),
    stride: 9,
};
/// Emulated processors, and an association that is asked for again after three seconds (RFC 9260, section 16).
const EMULATED: Asking = Asking {
    protocols: &[132],
    answered: Duration::from_secs(30),
    never: Duration::from_secs(2),
    stride: 10,
};

/// Addresses of pods are the table's; the gateway is beside them.
const NETWORK: &str = "---\napiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: net, tenant: matrix }\n\
                       spec: { subnets: [192.168.1.0/24], gateways: [192.168.1.254] }\n";

/// The workloads, each with its servers. Servers end before their namespaces.
struct Workloads {
    servers: Vec<Echo>,
    spaces: BTreeMap<String, (Ns, IpAddr)>,
}

impl Workloads {
    /// Those of a scene that are not there yet.
    #[track_caller]
    fn add(&mut self, shop: &Shop, scene: &Scene, options: EchoOptions) {
        for pod in &scene.pods {
            let name = pod.endpoint();
            if self.spaces.contains_key(&name) {
                continue;
            }
            let ns = shop.lab.ns(&name);
            for port in [80, 81] {
                let all = SocketAddr::from(([0, 0, 0, 0], port));
                let server = ns.enter(|| Echo::listen(all, options)).expect("a free port");
                self.servers.push(server);
            }
            self.spaces.insert(name, (ns, pod.address));
        }
    }

    /// The documents of a scene, attached to these.
    fn documents(&self, scene: &Scene) -> String {
        let mut text = scene.yaml("matrix");
        for (name, (ns, _)) in &self.spaces {
            text = text.replace(&format!("netns: {name}\n"), &format!("netns: {}\n", ns.path().display()));
        }
        text + NETWORK
    }
}

/// Hears the called workload's answer.
fn call(from: &Ns, to: IpAddr, protocol: u8, port: u16, patience: Duration) -> io::Result<()> {
    let dial = Dial::to(SocketAddr::new(to, port)).timeout(patience);
    from.enter(|| match protocol {
        6 => dial.tcp(b"matrix").map(drop),
        132 => dial.sctp(b"matrix").map(drop),
        _ => dial.udp(b"matrix").map(drop),
    })
}

/// Every question of a step at once; what was answered otherwise than expected.
fn ask(
    workloads: &Workloads,
    scene: &Scene,
    expected: &[Expected],
    asking: Asking,
) -> (usize, usize, String) {
    let questions: Vec<_> = expected
        .iter()
        .filter(|one| asking.protocols.contains(&one.trip.protocol))
        .filter_map(|one| match (one.trip.from, one.trip.to) {
            (End::Pod(from), End::Pod(to)) if from != to => Some((one, from, to)),
            _ => None,
        })
        .collect();
    let answers: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = questions
            .iter()
            .map(|(one, from, to)| {
                let (from, _) = &workloads.spaces[&scene.pods[*from].endpoint()];
                let (to, allowed) = (scene.pods[*to].address, one.combined);
                let (protocol, port) = (one.trip.protocol, one.trip.port);
                let patience = if allowed { asking.answered } else { asking.never };
                scope.spawn(move || call(from, to, protocol, port, patience))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a question ends")).collect()
    });
    let mut wrong = String::new();
    for ((one, from, to), answer) in questions.iter().zip(&answers) {
        if answer.is_ok() != one.combined {
            let [from, to] = [from, to].map(|pod| scene.pods[*pod].endpoint());
            let word = answer.as_ref().map_or_else(|error| format!("is lost: {error}"), |()| "passes".into());
            writeln!(wrong, "{from} -> {to} {}/{} {word}", one.trip.port, one.trip.protocol)
                .expect("a string grows");
        }
    }
    (questions.len(), questions.iter().filter(|(one, ..)| one.combined).count(), wrong)
}

#[test]
fn networkpolicy_matrix_live() {
    matrix_live("policy-live", USUAL);
}

/// The same over SCTP, which is a kernel's module and seldom there.
#[test]
fn networkpolicy_matrix_live_sctp() {
    if let Err(error) = fief_testkit::sctp(&SocketAddr::from(([127, 0, 0, 1], 80))) {
        assert!(std::env::var_os("FIEF_TEST_VM").is_none(), "the virtual machine has SCTP: {error}");
        return fief_testkit::skip(&format!("this kernel has no SCTP ({error}); `make test-vm` runs it"));
    }
    matrix_live("policy-sctp", EMULATED);
}

fn matrix_live(lab: &str, asking: Asking) {
    let options = EchoOptions { sctp: asking.protocols.contains(&132), ..EchoOptions::default() };
    let Some(cases) = matrix::load() else { return };
    let Some(shop) = Shop::open(lab, DaemonOptions::default()) else { return };
    let mut workloads = Workloads { servers: Vec::new(), spaces: BTreeMap::new() };
    let stride = if soak() { 1 } else { asking.stride };
    let (mut steps, mut asked, mut allowed, mut wrong) = (0, 0, 0, String::new());
    for (number, case) in cases.iter().enumerate().step_by(stride) {
        for (scene, expected) in matrix::steps(case) {
            steps += 1;
            workloads.add(&shop, &scene, options);
            shop.apply(&["--set", "matrix", "--prune"], &workloads.documents(&scene)).ok();
            eventually(Duration::from_secs(20), || {
                let views = shop.daemon.cli(&["get", "endpoints", "-o", "json"]).ok().json();
                let views = views.as_array().expect("a list").clone();
                let waits = views.iter().find(|view| view["status"]["phase"] != "Ready");
                waits.map_or(Ok(()), |view| Err(format!("{view}")))
            });
            let (questions, of_them, said) = ask(&workloads, &scene, &expected, asking);
            asked += questions;
            allowed += of_them;
            if !said.is_empty() {
                let dropped = shop.daemon.cli(&["flows", "--verdict", "dropped"]).stdout;
                writeln!(wrong, "case {number}:\n{said}dropped, of all steps:\n{dropped}")
                    .expect("a string grows");
            }
        }
    }
    println!("{steps} steps, {asked} questions over real sockets, {allowed} of them allowed");
    assert!(wrong.is_empty(), "{wrong:.20000}");
    assert!(steps >= 24 && allowed * 5 > asked && allowed < asked, "{steps} steps, {allowed} of {asked}");
}
