//! Drawn policies, drawn packets: the tables and the reference name the same rule, however the tables were reached.
//!
//! `FIEF_SEED` repeats a run; `FIEF_SOAK=1` asks a million times.

use fief_policykit::draw::Draw;
use fief_policykit::histogram::{Histogram, Kinds, seed};
use fief_policykit::host::Host;

/// What one scene is asked.
const TRIPS: usize = 250;

#[test]
fn drawn_policies_decide_as_the_reference_says() {
    let soak = std::env::var("FIEF_SOAK").is_ok_and(|soak| soak == "1");
    let (seed, scenes) = (seed(), if soak { 4000 } else { 200 });
    let mut draw = Draw(seed);
    let mut throughout = Host::new();
    let mut scene = draw.scene();
    let mut count = Histogram::default();
    for n in 0..scenes {
        scene = if draw.in_a_hundred(40) { draw.scene() } else { draw.neighbour(&scene) };
        throughout.reach(&scene);
        if n % 4 == 0 {
            let fresh = Host::of(&scene);
            assert_eq!(throughout.content(), fresh.content(), "seed {seed}, scene {n}");
            assert_eq!(throughout.tables.sizes(), fresh.tables.sizes(), "seed {seed}, scene {n}");
        }
        let kinds = Kinds::of(&scene);
        let in_force = scene.in_force();
        for _ in 0..TRIPS {
            let (trip, direction) = draw.trip(&scene);
            let verdict = throughout.verdict(&scene, &trip, direction);
            let reference = scene.ask(&in_force, &trip, direction);
            let tables = throughout.answer(verdict);
            assert_eq!(tables, reference, "seed {seed}, {direction:?} {trip:?}\n{scene:#?}");
            count.add(&kinds, &scene, (&trip, direction), reference.as_ref());
        }
    }
    count.check(seed);
}
