//! The benchmarks whose ids begin with `marks.`: what looking at a big host costs.

use std::fmt::Write;
use std::net::UdpSocket;

use fief_testkit::{Lab, Ns, bin};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};

use crate::compare::median;
use crate::report::Row;

/// What "a big host" is.
const RULES: usize = 50_000;
const SOCKETS: usize = 10_000;
/// Rounds of each; in each, both sides run once.
const ROUNDS: usize = 7;
const IDS: [&str; 4] =
    ["marks.scan.50k", "marks.scan.memory", "marks.scan.distinct", "marks.scan.distinct.memory"];

/// Runs a program and says how long it took and how much memory it had at most: a process of its own, for the kernel
/// remembers the most of all children together.
const MEASURE: &str = "import resource, subprocess, sys, time
begin = time.monotonic()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
took = time.monotonic() - begin
print(took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)";

/// Measures what begins with `only`.
pub fn run(only: &str, tell: &mut impl FnMut(Row)) {
    if !IDS.iter().any(|id| id.starts_with(only)) {
        return;
    }
    let Some(lab) = Lab::new("bench-marks") else { return };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard one");
    let alike = lab.ns("alike");
    // As many different ones as a host with many services has: a hundred.
    let held = furnish(&alike, |i| (i % 100) as u32);
    let fief = bin("fief").display().to_string();
    let scan = [fief.as_str(), "marks", "scan", "--here", "-o", "json"];
    // The same objects, listed by the kernel's own tools.
    let tools = ["sh", "-c", "nft list ruleset; ss -tuanem"];
    let (mut took, mut listed, mut ratios, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (one, most) = measured(&alike, &scan);
        let (other, _) = measured(&alike, &tools);
        took.push(one);
        listed.push(other);
        ratios.push(one / other);
        memory.push(most);
    }
    let what = "a whole scan of 50,000 nft rules and 10,000 sockets; to nft list ruleset and ss";
    tell(Row::value(IDS[0], what, median(took), "s").against(median(listed), median(ratios)).goal(1.0));
    tell(Row::value(IDS[1], "the most memory it has", median(memory), "MiB").goal(64.0));
    drop(held);
    let distinct = lab.ns("distinct");
    // Every rule another mask and value.
    let _held = furnish(&distinct, |i| i as u32);
    let (took, memory): (Vec<f64>, Vec<f64>) = (0..3).map(|_| measured(&distinct, &scan)).unzip();
    tell(Row::value(IDS[2], "the same where no two rules are alike", median(took), "s"));
    tell(Row::value(IDS[3], "the most memory it has", median(memory), "MiB").goal(128.0));
}

/// Rules in five hundred chains, half of which match and half of which write, and sockets of which half have a mark.
fn furnish(ns: &Ns, kind: fn(usize) -> u32) -> Vec<UdpSocket> {
    const CHAINS: usize = 500;
    let mut rules = String::from("table inet big {\n");
    for chain in 0..CHAINS {
        writeln!(rules, " chain c{chain} {{").expect("a string grows");
        for i in (chain..RULES).step_by(CHAINS) {
            let (mask, value) = (0xffff_0000 | kind(i), kind(i) & 0xff);
            let rule = match i % 2 {
                0 => format!("meta mark and {mask:#x} == {value:#x} counter"),
                _ => format!("meta mark set meta mark and {:#x} or {:#x}", !mask, kind(i)),
            };
            writeln!(rules, "  {rule}").expect("a string grows");
        }
        rules.push_str(" }\n");
    }
    rules.push_str("}\n");
    ns.nft(&rules);
    ns.enter(|| {
        let socket = |i: usize| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let mark = if i.is_multiple_of(2) { 0 } else { kind(i) + 1 };
            setsockopt(&socket, sockopt::Mark, &mark).expect("root may mark");
            socket
        };
        (0..SOCKETS).map(socket).collect()
    })
}

/// Seconds and MiB.
fn measured(ns: &Ns, argv: &[&str]) -> (f64, f64) {
    let wrapped: Vec<&str> = ["/usr/bin/python3", "-c", MEASURE].iter().chain(argv).copied().collect();
    let said = ns.command(&wrapped).timeout(std::time::Duration::from_secs(120)).run().ok().stdout;
    let mut numbers = said.split_whitespace().map(|word| word.parse().expect("a number"));
    (numbers.next().expect("seconds"), numbers.next().expect("MiB"))
}
