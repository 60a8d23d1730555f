//! What two tenants contradict.

use fief_model::{Source, parse, validate};

use crate::refuse;

const SECOND: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: red }\nspec:\n  interfaces:\n  \
                      - { name: eth0, addresses: [192.0.2.7/24], default: true }\n---\n\
                      apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: @\n";

#[test]
fn what_two_tenants_cannot_both_have() {
    refuse(&[
        (
            SECOND,
            "{ name: ▸red }",
            "{ name: blue }",
            "tenant `red` is described twice",
            "the first is at t.yaml:3:19",
        ),
        (
            SECOND,
            "{ name: b }\nspec: { isolation: fib, interfaces: [{ name: eth1, addresses: [▸192.0.2.7/32] }] }",
            "{ name: b }\nspec: { isolation: vrf, interfaces: [{ name: eth1, addresses: [192.0.2.7/32] }] }",
            "192.0.2.7 belongs to tenant `red` (t.yaml:6:31)",
            "another address",
        ),
        (
            SECOND,
            "{ name: b }\nspec: { interfaces: [{ name: eth0, addresses: [▸192.0.2.7/32] }] }",
            "{ name: b }\nspec: { interfaces: [{ name: eth1, addresses: [192.0.2.7/32] }] }",
            "192.0.2.7 belongs to tenant `red` (t.yaml:6:31)",
            "devices of its own",
        ),
        (
            SECOND,
            "{ name: b }\nspec: { isolation: vrf, interfaces: [{ name: ▸eth0 }] }",
            "{ name: b }\nspec: { isolation: vrf, interfaces: [{ name: eth1 }] }",
            "`eth0` is named by tenant `red` (t.yaml:6:13), too, and a VRF has its devices alone",
            "a device of its own",
        ),
        (
            SECOND,
            "{ name: b }\nspec: { interfaces: [{ name: eth0, default: ▸true }] }",
            "{ name: b }\nspec: { interfaces: [{ name: eth1, default: true }] }",
            "`eth0` has a default tenant already: `red` (t.yaml:6:55)",
            "delete `default: true`",
        ),
    ]);
}

#[test]
fn what_a_stored_tenant_has_is_taken_unless_it_comes_in_again() {
    let text = |name: &str| {
        format!(
            "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec:\n  interfaces:\n  \
             - {{ name: eth0, addresses: [192.0.2.7/24], default: true }}\n"
        )
    };
    let read = |text: String| parse(&[Source { name: "t.yaml".into(), text }]).unwrap();
    let stored = read(text("red"));
    let fief_model::Document::Tenant(red) = &stored[0].document else { panic!("a tenant") };
    let kept = fief_model::Kept { tenants: vec![red], ..Default::default() };
    let diagnostics = validate(&read(text("blue")), &kept);
    let found: Vec<_> = diagnostics.iter().map(|d| (d.line, d.column, d.message.as_str())).collect();
    assert_eq!(
        found,
        [
            (6, 31, "192.0.2.7 belongs to tenant `red` (applied earlier)"),
            (6, 55, "`eth0` has a default tenant already: `red` (applied earlier)"),
        ]
    );
    assert!(validate(&read(text("red")), &kept).is_empty());
}
