//! The outside truth table for network policies.

use std::io::BufReader;
use std::path::PathBuf;

use fief_policy::identity::Labels;
use serde_json::Value;

use crate::scene::{End, Scene, ScenePod, Trip, documents};

/// What is expected of one trip.
pub struct Expected {
    pub trip: Trip,
    pub ingress: bool,
    pub egress: bool,
    pub combined: bool,
}

/// The data; `None`, and said so, where it is not. Where somebody has said where it is (FIEF_DATA), it must be there.
pub fn load() -> Option<Vec<Value>> {
    let named = std::env::var_os("FIEF_DATA").map(PathBuf::from);
    let beside = || [env!("CARGO_MANIFEST_DIR"), "../../../shared/data"].iter().collect();
    let path = named.clone().unwrap_or_else(beside).join("networkpolicy-matrix.json.xz");
    let Ok(file) = std::fs::File::open(&path) else {
        assert!(named.is_none(), "there is no {}", path.display());
        fief_testkit::skip(&format!("there is no {}", path.display()));
        return None;
    };
    let mut text = Vec::new();
    lzma_rs::xz_decompress(&mut BufReader::new(file), &mut text).unwrap();
    Some(serde_json::from_slice(&text).unwrap())
}

/// The steps of a case: what is in force, and what is expected of it.
pub fn steps(case: &Value) -> impl Iterator<Item = (Scene, Vec<Expected>)> {
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
