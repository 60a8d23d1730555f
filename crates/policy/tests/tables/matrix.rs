//! The outside truth table for network policies: each of its verdicts, by the reference and by the tables, and its
//! steps reached one from the other.

use fief_policy::Direction;
use fief_policy::reference::Answer;
use fief_policy::verdict::Action;
use fief_policykit::host::Host;
use fief_policykit::matrix::{Expected, load, steps};

#[test]
fn networkpolicy_matrix_reference() {
    let Some(cases) = load() else { return };
    let (mut right, mut all) = (0, 0);
    for case in &cases {
        for (scene, expected) in steps(case) {
            for Expected { trip, ingress, egress, combined } in expected {
                let allows = |direction| passes(scene.reference(&trip, direction).as_ref());
                let (into, out) = (allows(Direction::Ingress), allows(Direction::Egress));
                all += 1;
                right += usize::from((into, out, into && out) == (ingress, egress, combined));
            }
        }
    }
    println!("reference: {right} of {all} verdicts");
    assert_eq!((right, all), (123_669, 123_669));
}

#[test]
fn networkpolicy_matrix_tables() {
    let Some(cases) = load() else { return };
    let (mut right, mut all, mut reached) = (0, 0, 0);
    let mut throughout = Host::new();
    for case in &cases {
        let mut by_steps = Host::new();
        for (scene, expected) in steps(case) {
            let fresh = Host::of(&scene);
            by_steps.reach(&scene);
            throughout.reach(&scene);
            assert_eq!(by_steps.content(), fresh.content(), "case {}", case["N"]);
            assert_eq!(throughout.content(), fresh.content(), "case {}, from the one before", case["N"]);
            assert_eq!(by_steps.tables.sizes(), fresh.tables.sizes());
            assert_eq!(throughout.tables.sizes(), fresh.tables.sizes());
            reached += 1;
            for Expected { trip, ingress, egress, combined } in expected {
                let verdicts = [&fresh, &by_steps, &throughout].map(|host| {
                    let allows = |direction| host.verdict(&scene, &trip, direction).passes();
                    let (into, out) = (allows(Direction::Ingress), allows(Direction::Egress));
                    (into, out, into && out) == (ingress, egress, combined)
                });
                all += 1;
                right += usize::from(verdicts == [true; 3]);
                if all % 7 == 0 {
                    Direction::BOTH.iter().for_each(|way| drop(fresh.agree(&scene, &trip, *way)));
                }
            }
        }
    }
    println!("tables: {right} of {all} verdicts, {reached} steps reached afresh and from the one before");
    assert_eq!((right, all, reached), (123_669, 123_669, 256));
}

fn passes(answer: Option<&Answer>) -> bool {
    answer.is_none_or(|answer| matches!(answer.action, Action::Allow | Action::Redirect))
}
