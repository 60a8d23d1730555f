//! A registry that says nonsense is not built.

#[path = "src/registry.rs"]
#[allow(dead_code, reason = "only what reads it is of use here")]
mod registry;

fn main() {
    println!("cargo::rerun-if-changed=registry.yaml");
    println!("cargo::rerun-if-changed=src/registry.rs");
    if let Err(error) = registry::Registry::parse(include_str!("registry.yaml")) {
        println!("cargo::error=registry.yaml: {}", error.replace('\n', " "));
    }
}
