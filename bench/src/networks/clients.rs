//! Clients that ask for leases: busybox's udhcpc, one a workload, and what they cost with nothing of ours around them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fief_testkit::{Child, Lab, Ns, attempt};

use super::town::{DEVICE, Town, address, is_up, program};

/// A lease becomes the workload's address, and that is all.
const SCRIPT: &str =
    "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nexec ip addr replace \"$ip/$mask\" dev \"$interface\"\n";
/// For all of them together.
const PATIENCE: Duration = Duration::from_secs(200);
/// So many clients say what one costs.
const ALONE: usize = 128;

/// Starts clients in workloads.
#[derive(Debug)]
pub struct Clients {
    busybox: PathBuf,
    dnsmasq: PathBuf,
    script: PathBuf,
}

impl Clients {
    /// `None` where scripts/peers.sh has not been.
    pub fn find(lab: &Lab) -> Option<Clients> {
        let script = lab.dir().join("udhcpc.script");
        fs::write(&script, SCRIPT).expect("the lab's directory is writable");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, executable).expect("a file of our own");
        Some(Clients { busybox: program("busybox")?, dnsmasq: program("dnsmasq")?, script })
    }

    /// Applies the documents of all networks, starts clients as soon as their devices are up, and gives how long it took
    /// until all of them have a lease and reach each other; and how long `fief apply` did.
    pub fn create(&self, town: &Town) -> (Duration, Duration) {
        let documents = town.documents();
        let begin = Instant::now();
        let applied = std::thread::scope(|scope| {
            let apply = scope.spawn(|| town.timed("apply", &documents));
            let mut clients = Vec::new();
            for ns in town.pairs.iter().flatten() {
                let up = || if is_up(ns) { Ok(()) } else { Err(format!("no device in {}", ns.short())) };
                if let Err(why) = attempt(PATIENCE, up) {
                    panic!("{why}:\n{}", town.daemon.log());
                }
                clients.push(self.start(ns));
            }
            await_all(&mut clients);
            apply.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        (0..town.pairs.len()).for_each(|i| town.reach(i));
        (begin.elapsed(), applied)
    }

    /// What two clients cost, as all of them are started in [`Clients::create`], where an unmodified server on an
    /// ordinary bridge serves them.
    pub fn two_alone(&self, lab: &Lab) -> Duration {
        let wire = lab.wire("alone");
        let server = lab.ns("alone-server");
        wire.attach(&server, DEVICE);
        server.ip(&format!("addr add 10.20.0.1/16 dev {DEVICE}\n"));
        let leases = format!("--dhcp-leasefile={}", lab.dir().join("alone.leases").display());
        let words = [
            self.dnsmasq.to_str().expect("a plain path"),
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
            "--log-facility=-",
            "--port=0",
            "--dhcp-authoritative",
            "--no-ping",
            "--dhcp-range=10.20.1.1,10.20.200.1,1h",
            &leases,
        ];
        let mut dnsmasq = server.spawn(&words);
        dnsmasq.wait_for_output("DHCP, IP range", Duration::from_secs(10));
        let workloads: Vec<Ns> = (0..ALONE).map(|i| lab.ns(&format!("alone{i}"))).collect();
        workloads.iter().for_each(|ns| drop(wire.attach(ns, DEVICE)));
        let begin = Instant::now();
        let mut clients: Vec<Child> = workloads.iter().map(|ns| self.start(ns)).collect();
        await_all(&mut clients);
        let took = begin.elapsed();
        assert!(workloads.iter().all(|ns| address(ns).is_some()), "{}", dnsmasq.output());
        took * 2 / ALONE as u32
    }

    /// One that ends when it has a lease. It asks again after a second.
    fn start(&self, ns: &Ns) -> Child {
        let words = ["udhcpc", "-f", "-q", "-t", "100", "-T", "1", "-i", DEVICE, "-s"];
        let head: [&Path; 1] = [&self.busybox];
        words.iter().fold(ns.command(&head), |command, word| command.arg(word)).arg(&self.script).spawn()
    }
}

/// All of them have ended well.
fn await_all(clients: &mut [Child]) {
    for client in clients {
        let status = client.wait(PATIENCE);
        assert!(status.success(), "{}", client.output());
    }
}
