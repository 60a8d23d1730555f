//! Drawn policies, drawn packets: the program and the tables name the same rule, while policies change in the maps.
//!
//! `FIEF_SEED` repeats a run; `FIEF_SOAK=1` asks a million times.

use fief_policykit::draw::Draw;
use fief_policykit::histogram::{Histogram, Kinds, seed};

use crate::machine::{Machine, address};

/// What one scene is asked.
const TRIPS: usize = 250;

#[test]
fn drawn_policies_decide_in_bpf_as_the_tables_say() {
    let Some(mut machine) = Machine::new() else { return };
    let soak = std::env::var("FIEF_SOAK").is_ok_and(|soak| soak == "1");
    let (seed, scenes) = (seed(), if soak { 4000 } else { 160 });
    let mut draw = Draw(seed);
    let mut scene = draw.scene();
    let mut count = Histogram::default();
    for _ in 0..scenes {
        scene = if draw.in_a_hundred(40) { draw.scene() } else { draw.neighbour(&scene) };
        machine.reach(&scene);
        let kinds = Kinds::of(&scene);
        let mut asked = 0;
        while asked < TRIPS {
            let (trip, direction) = draw.trip(&scene);
            if address(&scene, trip.from).is_ipv4() != address(&scene, trip.to).is_ipv4() {
                continue;
            }
            let judged = machine.judge(&scene, &trip, direction);
            let tables = machine.host.verdict(&scene, &trip, direction);
            assert_eq!(judged.verdict, Some(tables), "seed {seed}, {direction:?} {trip:?}\n{scene:#?}");
            let answer = machine.host.answer(tables);
            count.add(&kinds, &scene, (&trip, direction), answer.as_ref());
            asked += 1;
        }
    }
    count.check(seed);
}
