//! The outside truth table for network policies, each verdict by the program.

use fief_policy::Direction;
use fief_policykit::matrix::{Expected, load, steps};

use crate::machine::Machine;

#[test]
fn networkpolicy_matrix_bpf() {
    let Some(cases) = load() else { return };
    let Some(mut machine) = Machine::new() else { return };
    let (mut right, mut all, mut reached) = (0, 0, 0);
    for case in &cases {
        for (scene, expected) in steps(case) {
            // Each from the one before, and all in the same maps.
            machine.reach(&scene);
            reached += 1;
            for Expected { trip, ingress, egress, combined } in expected {
                let [into, out] = Direction::BOTH.map(|direction| {
                    let judged = machine.judge(&scene, &trip, direction);
                    let tables = machine.host.verdict(&scene, &trip, direction);
                    assert_eq!(judged.verdict, Some(tables), "{direction:?} {trip:?}, case {}", case["N"]);
                    judged.passes
                });
                all += 1;
                right += usize::from((into, out, into && out) == (ingress, egress, combined));
            }
        }
    }
    println!("bpf: {right} of {all} verdicts, {reached} steps reached one from the other in the same maps");
    assert_eq!((right, all, reached), (123_669, 123_669, 256));
}
