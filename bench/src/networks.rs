//! The benchmarks whose ids begin with `networks.`.

mod clients;
mod held;
pub mod talk;
pub mod town;
mod yard;

use std::time::Duration;

use held::Held;
use talk::Talk;
use town::{Road, Town};

use crate::compare::{compare, median};
use crate::report::Row;

/// How many networks, each a tenant's, with two endpoints.
const SIZES: [usize; 3] = [1, 64, 1000];
/// Here everything is measured.
const FULL: usize = 1000;
/// A conversation may cost so much more that 0.95 of its speed, and through NAT 0.9, is left.
const ACROSS: f64 = 1.0 / 0.95;
const OUT: f64 = 1.0 / 0.9;
/// A network and its endpoints may take 20 ms where a namespace with a pair of devices, an address and a route takes 0.95
/// ms: so long each of a thousand took on the machine that the goal was written for.
const CREATED: f64 = 20.0 / 0.95;
/// The daemon gives memory back when it has been quiet for ten seconds.
const QUIET: Duration = Duration::from_secs(12);
/// What is measured.
const CREATE: &str = "create";
const MEMORY: &str = "memory";
const FIEFD: &str = "fiefd";
const TCP: &str = "tcp";
const RR: &str = "rr";
const NAT: &str = "nat.rr";
const CHANGE: &str = "change";
const DELETE: &str = "delete";
/// Rounds of a change.
const ROUNDS: usize = 7;

/// Runs the benchmarks whose ids begin with `only`; `tell` gets each result as soon as it is known.
pub fn run(only: &str, tell: &mut dyn FnMut(Row)) {
    let wants = |n: &usize| measured(*n).iter().any(|what| id(what, *n).starts_with(only));
    let sizes: Vec<usize> = SIZES.into_iter().filter(wants).collect();
    if sizes.is_empty() {
        return;
    }
    let descriptors = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(descriptors).expect("a limit");
    nix::sys::resource::setrlimit(descriptors, hard, hard).expect("up to the hard one");
    // First of all: namespaces that are still going would be in its way.
    let yard = yard::namespace();
    let Some(one) = Town::open(1) else {
        eprintln!("fief-bench: no busybox or dnsmasq below target/peers; scripts/peers.sh puts them there");
        return;
    };
    let mut suite = Suite { only, tell, yard };
    for n in sizes {
        let many = (n > 1).then(|| Town::open(n)).flatten();
        suite.measure(many.as_ref().unwrap_or(&one), &one);
    }
}

struct Suite<'a> {
    only: &'a str,
    tell: &'a mut dyn FnMut(Row),
    /// What the kernel needs for a namespace with a pair of devices.
    yard: Duration,
}

impl Suite<'_> {
    /// Everything that is measured of this many networks.
    fn measure(&mut self, town: &Town, one: &Town) {
        let n = town.pairs.len();
        let yard = self.yard;
        self.wanted(CREATE, n, |id| created(id, town, yard));
        if [MEMORY, FIEFD].iter().any(|what| self.wants(what, n)) {
            fief_testkit::attempt(QUIET, || Err::<(), String>(String::new())).ok();
            let each = Held::now(town.daemon.pid()).each(town.made.before, n);
            let whole = each.kernel + each.cache + each.daemon;
            let what = format!(
                "a network; {:.0} in the kernel and {:.0} that it can give back, {:.0} in fiefd; to the same devices made by hand",
                each.kernel, each.cache, each.daemon
            );
            let by_hand = town.made.by_hand;
            let row =
                |id: &str| Row::value(id, what, whole, "kB").against(by_hand, whole / by_hand).limit(400.0);
            self.wanted(MEMORY, n, row);
            let what = "a network, in fiefd and its bpf maps";
            self.wanted(FIEFD, n, |id| Row::value(id, what, each.daemon, "kB").limit(64.0));
        }
        self.wanted(TCP, n, |id| {
            let what = "a KiB over TCP, endpoint to endpoint, to a plain bridge";
            talked(id, what, &town.across(), Talk::stream).goal(ACROSS)
        });
        self.wanted(RR, n, |id| {
            let what = "a byte for a byte over TCP, endpoint to endpoint, to a plain bridge";
            talked(id, what, &town.across(), Talk::exchange).goal(ACROSS)
        });
        self.wanted(NAT, n, |id| {
            let what =
                format!("a byte for a byte over TCP to the outside, {n} networks, to one plain masquerade");
            let row = talked(id, &what, &town.out(), Talk::exchange);
            // The way through two namespaces is longer than the plain one, whatever the number.
            if n == FULL { row.goal(OUT) } else { row }
        });
        self.wanted(CHANGE, n, |id| changed(id, town, one));
        self.wanted(DELETE, n, |id| {
            let took = town.timed("delete", &town.documents()).as_secs_f64();
            Row::value(id, format!("fief delete of {n} networks"), took, "s")
        });
    }

    fn wanted(&mut self, what: &str, n: usize, row: impl FnOnce(&str) -> Row) {
        if self.wants(what, n) {
            (self.tell)(row(&id(what, n)));
        }
    }

    fn wants(&self, what: &str, n: usize) -> bool {
        measured(n).contains(&what) && id(what, n).starts_with(self.only)
    }
}

/// The id of something that is measured of `n` networks.
fn id(what: &str, n: usize) -> String {
    if what == NAT && n == FULL { format!("networks.{NAT}") } else { format!("networks.{what}.{n}") }
}

/// What is measured of `n` networks.
fn measured(n: usize) -> &'static [&'static str] {
    match n {
        1 => &[TCP, RR, NAT],
        FULL => &[CREATE, MEMORY, FIEFD, TCP, RR, NAT, CHANGE, DELETE],
        _ => &[CREATE, CHANGE],
    }
}

/// Milliseconds a network, to the least that the kernel needs for one.
fn created(id: &str, town: &Town, yard: Duration) -> Row {
    let n = town.pairs.len();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (each, apply) = (ms(town.made.whole) / n as f64, ms(town.made.apply) / n as f64);
    let (yard, alone) = (ms(yard), ms(town.made.clients));
    let what = format!(
        "until both endpoints of {n} networks have leases and meet ({apply:.2} of it fief apply; two udhcpc with a \
         dnsmasq {alone:.2}); to a namespace with a veth pair"
    );
    Row::value(id, what, each, "ms").against(yard, each / yard).goal(CREATED)
}

/// A conversation along the first road, to the same along the second.
fn talked(id: &str, what: &str, roads: &[Road<'_>; 2], talk: impl Fn(&mut Talk) -> f64) -> Row {
    let [mut subject, mut baseline] = [&roads[0], &roads[1]].map(Talk::along);
    let found = compare(|| talk(&mut subject), || talk(&mut baseline));
    Row::value(id, what, found.subject, "ns").against(found.baseline, found.ratio)
}

/// One network comes and goes among many, to the same beside one.
fn changed(id: &str, town: &Town, one: &Town) -> Row {
    let once = |town: &Town| {
        let more = town.one_more();
        let took = town.timed("apply", &more);
        town.timed("delete", &more);
        took.as_secs_f64() * 1e3
    };
    let rounds: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (once(town), once(one))).collect();
    let ratio = median(rounds.iter().map(|(many, one)| many / one).collect());
    let (many, few): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
    let what = format!("fief apply of one network more, {} there, to one there", town.pairs.len());
    Row::value(id, what, median(many), "ms").against(median(few), ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_ids_are_there() {
        let all: Vec<String> =
            SIZES.iter().flat_map(|n| measured(*n).iter().map(|what| id(what, *n))).collect();
        for id in ["create.1000", "memory.1000", "tcp.1", "tcp.1000", "rr.1", "rr.1000", "nat.rr"] {
            let id = format!("networks.{id}");
            assert_eq!(all.iter().filter(|own| **own == id).count(), 1, "{id} in {all:?}");
        }
    }
}
