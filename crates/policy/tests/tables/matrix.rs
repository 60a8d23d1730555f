//! The outside truth table for network policies: each of its verdicts, by the reference and by the tables, and its steps
//! reached one from the other.

use std::io::BufReader;
use std::path::PathBuf;

use fief_policy::Direction;
use fief_policy::identity::Labels;
use fief_policy::reference::Answer;
use fief_policy::verdict::Action;
use serde_json::Value;

use crate::host::Host;
use crate::scene::{End, Scene, ScenePod, Trip, documents};

/// What is expected of one trip.
struct Expected {
    trip: Trip,
    ingress: bool,
    egress: bool,
    combined: bool,
}

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

/// The data; `None`, and said so, where it is not.
fn load() -> Option<Vec<Value>> {
    let directory = std::env::var_os("FIEF_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| [env!("CARGO_MANIFEST_DIR"), "../../../shared/data"].iter().collect());
    let path = directory.join("networkpolicy-matrix.json.xz");
    let Ok(file) = std::fs::File::open(&path) else {
        fief_testkit::missing(&format!("there is no {}", path.display()));
        return None;
    };
    let mut text = Vec::new();
    lzma_rs::xz_decompress(&mut BufReader::new(file), &mut text).unwrap();
    Some(serde_json::from_slice(&text).unwrap())
}

fn steps(case: &Value) -> impl Iterator<Item = (Scene, Vec<Expected>)> {
    case["Steps"].as_array().unwrap().iter().map(|step| {
        let scene = scene(step);
        let expected = step["Verdicts"].as_array().unwrap().iter().map(|v| verdict(&scene, v)).collect();
        (scene, expected)
    })
}

fn scene(step: &Value) -> Scene {
    let labels = |value: &Value| -> Labels {
        let labels = value.as_object().into_iter().flatten();
        labels.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
    };
    let pods = step["Pods"].as_array().unwrap().iter().map(|pod| {
        let text = |key: &str| pod[key].as_str().unwrap();
        let namespace = text("Ns");
        let mut made =
            ScenePod::new(namespace, &labels(&step["Namespaces"][namespace]), text("Name"), text("IP"));
        made.pod.labels = labels(&pod["Labels"]);
        for (protocol, number) in PROTOCOLS {
            for port in [80, 81] {
                made = made.port(&format!("serve-{port}-{}", protocol.to_lowercase()), number, port);
            }
        }
        made
    });
    let policies = step["Policies"].as_array().unwrap().iter().map(|policy| {
        let mut policy = policy.clone();
        // Some lack the header, as objects in memory do.
        policy["apiVersion"] = "networking.k8s.io/v1".into();
        policy["kind"] = "NetworkPolicy".into();
        format!("---\n{policy}\n")
    });
    let text: String = policies.collect();
    let documents = if text.is_empty() { Vec::new() } else { documents("matrix", &text) };
    Scene { pods: pods.collect(), documents, rules: Vec::new() }
}

const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];

fn verdict(scene: &Scene, verdict: &Value) -> Expected {
    let text = |key: &str| verdict[key].as_str().unwrap();
    let end = |key: &str| {
        let is = |pod: &ScenePod| format!("{}/{}", pod.pod.namespace, pod.name) == text(key);
        End::Pod(scene.pods.iter().position(is).unwrap())
    };
    let protocol = PROTOCOLS.iter().find(|(name, _)| *name == text("Proto")).unwrap().1;
    let port = u16::try_from(verdict["Port"].as_u64().unwrap()).unwrap();
    let allowed = |key: &str| match text(key) {
        "allowed" => true,
        "blocked" => false,
        other => panic!("{other}"),
    };
    Expected {
        trip: Trip { from: end("From"), to: end("To"), protocol, port },
        ingress: allowed("Ingress"),
        egress: allowed("Egress"),
        combined: allowed("Combined"),
    }
}
