//! The benchmarks whose ids begin with `policy.`.

mod change;
mod compile;
mod connections;
mod endpoint;
mod memory;
mod packet;
mod place;
mod probe;

use connections::Connections;
use packet::About;
use place::Place;

use crate::compare::compare;
use crate::networks::talk::Talk;
use crate::networks::town::Road;
use crate::report::Row;

/// Policies that are compiled, and that a packet is judged by.
const POLICIES: usize = 10_000;
/// Seconds.
const COMPILE_GOAL: f64 = 2.0;
/// Milliseconds.
const P50_GOAL: f64 = 10.0;
const P99_GOAL: f64 = 50.0;
const ENDPOINT_GOAL: f64 = 1.0;
const PACKET_GOAL: f64 = 1.1;
/// So much more an exchange may cost that 0.97 of its speed is left.
const RR_GOAL: f64 = 1.0 / 0.97;
/// KiB.
const MEMORY_GOAL: f64 = 2.0;

const COMPILE: &str = "policy.compile.10k";
const PACKETS: [(&str, About, &str); 2] = [
    ("policy.packet.10k", About::Others, "one of them about its endpoint"),
    ("policy.packet.10k.crowd", About::Subject, "all of them about its endpoint"),
];
const CHANGES: [&str; 2] = ["policy.change.p50", "policy.change.p99"];
const ENDPOINTS: [(&str, bool, &str); 2] = [
    ("policy.endpoint", false, "labels that others have"),
    ("policy.endpoint.new", true, "labels that nobody has had"),
];
const RR: &str = "policy.rr";
const CRR: &str = "policy.crr";
const OUT: &str = "policy.out.rr";
const MEMORY: &str = "policy.memory";

/// Runs the benchmarks whose ids begin with `only`; `tell` gets each result as soon as it is known.
pub fn run(only: &str, tell: &mut dyn FnMut(Row)) {
    let wants = |id: &str| id.starts_with(only);
    // First what starts programs: a process that has compiled is large, and its children begin more slowly (fork(2) copies its
    // page tables).
    let at_place = CHANGES.into_iter().chain(ENDPOINTS.map(|(id, ..)| id)).chain([RR, CRR, OUT]);
    if at_place.into_iter().any(wants) {
        at(&Place::open(), &wants, tell);
    }
    if wants(MEMORY) {
        let each = memory::measure();
        let what = format!("an identity; {:.2} in fiefd, {:.2} in its bpf maps", each.process, each.maps);
        tell(Row::value(MEMORY, what, each.process + each.maps, "KiB").limit(MEMORY_GOAL));
    }
    if shapes().iter().any(|id| wants(id)) {
        compiled().into_iter().filter(|row| wants(&row.id)).for_each(&mut *tell);
    }
    for (id, about, which) in PACKETS.into_iter().filter(|(id, ..)| wants(id)) {
        let found = packet::compared(about);
        let what = format!("a packet that {POLICIES} policies deny, {which}, to one policy");
        tell(
            Row::value(id, what, found.subject, "ns").against(found.baseline, found.ratio).goal(PACKET_GOAL),
        );
    }
}

/// What needs a host.
fn at(place: &Place, wants: &impl Fn(&str) -> bool, tell: &mut dyn FnMut(Row)) {
    let count = place::POLICIES;
    let roads = [
        (RR, place.across(), "a byte for a byte over TCP, endpoint to endpoint"),
        (OUT, place.out(), "a byte for a byte over TCP to the outside"),
    ];
    for (id, roads, what) in roads.iter().filter(|(id, ..)| wants(id)) {
        let [mut ruled, mut free] = [&roads[0], &roads[1]].map(Talk::along);
        let found = compare(|| ruled.exchange(), || free.exchange());
        let what = format!("{what}, {count} policies, to none");
        tell(Row::value(*id, what, found.subject, "ns").against(found.baseline, found.ratio).goal(RR_GOAL));
    }
    if wants(CRR) {
        let roads: [Road<'_>; 2] = place.across();
        let [mut ruled, mut free] = [&roads[0], &roads[1]].map(Connections::along);
        let found = compare(|| ruled.run(), || free.run());
        let what = format!("a TCP connection, a byte for a byte, its end; {count} policies, to none");
        tell(Row::value(CRR, what, found.subject, "ns").against(found.baseline, found.ratio));
    }
    for (id, are_new, which) in ENDPOINTS.into_iter().filter(|(id, ..)| wants(id)) {
        let added = endpoint::measure(place, are_new);
        let what = format!(
            "what {count} policies add to fief apply of one endpoint ({which}): {:.1} where there are none, {:.1} here",
            added.free, added.ruled
        );
        tell(Row::value(id, what, added.difference, "ms").limit(ENDPOINT_GOAL));
    }
    if CHANGES.into_iter().any(wants) {
        let found = change::measure(place);
        let what = format!(
            "fief apply of one label until a packet sees it, {count} policies; fiefd's part {:.2} ({:.2} until it \
             answers); to `true` as a process",
            found.daemon, found.answered
        );
        for (id, value, goal) in [(CHANGES[0], found.p50, P50_GOAL), (CHANGES[1], found.p99, P99_GOAL)] {
            if wants(id) {
                let row =
                    Row::value(id, what.clone(), value, "ms").against(found.process, value / found.process);
                tell(row.limit(goal));
            }
        }
    }
}

/// The worst of the shapes, and each of them.
fn compiled() -> Vec<Row> {
    let each = compile::seconds();
    let worst = each.iter().copied().max_by(|(_, a), (_, b)| a.total_cmp(b));
    let row = |id: String, shape: &str, value| {
        let what = format!("{POLICIES} policies ({shape}), 1000 endpoints, 10000 identities, from nothing");
        Row::value(id, what, value, "s")
    };
    let first = worst.map(|(shape, value)| row(COMPILE.into(), shape, value).limit(COMPILE_GOAL));
    first.into_iter().chain(each.iter().map(|(shape, value)| row(of_shape(shape), shape, *value))).collect()
}

fn of_shape(shape: &str) -> String {
    format!("{COMPILE}.{shape}")
}

/// The ids of compiling.
fn shapes() -> Vec<String> {
    let each = fief_policykit::shapes::SHAPES.iter().map(|shape| of_shape(shape.name));
    [COMPILE.to_owned()].into_iter().chain(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_there_twice() {
        let fixed = PACKETS.map(|(id, ..)| id).into_iter().chain(CHANGES).chain(ENDPOINTS.map(|(id, ..)| id));
        let all: Vec<String> =
            fixed.chain([RR, CRR, OUT, MEMORY]).map(str::to_owned).chain(shapes()).collect();
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(
            (all.len(), all.iter().all(|id| id.starts_with("policy."))),
            (distinct.len(), true),
            "{all:?}"
        );
    }
}
