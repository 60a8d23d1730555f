//! What cannot be read as a document.

use crate::{complaints, refuse};

const DOC: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n@\n";
const VERSION: &str = "apiVersion: @\nkind: Tenant\nmetadata: { name: blue }\n";
const KIND: &str = "apiVersion: fief/v1alpha1\nkind: @\nmetadata: { name: blue }\n";

#[test]
fn what_is_not_a_document() {
    refuse(&[
        (
            "@",
            "▸",
            "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: a }",
            "nothing to apply",
            "leave this source out",
        ),
        (DOC, "x: ▸[", "spec: {}", "not YAML", "]"),
        (DOC, "spec: ▸{ a: b", "spec: { isolation: fib }", "not YAML", "}"),
        (VERSION, "\"x\n▸a: b", "fief/v1alpha1", "not YAML", "close the quotes"),
        (DOC, "spec: ▸*x", "spec: {}", "not YAML", "mark it with `&name`"),
        (DOC, "spec: ▸!!map {}", "spec: {}", "tag `!!map`", "delete the tag"),
        (
            DOC,
            "spec: { ▸<<: { isolation: fib } }",
            "spec: { isolation: fib }",
            "merge keys",
            "write the fields out",
        ),
        (DOC, "spec: { ▸[a]: b }", "spec: {}", "a list cannot be a key", "plain word"),
        (DOC, "---\n▸- a", "spec: {}", "a document is a list", "begin it with"),
        (DOC, "---\n▸text", "spec: {}", "a document is a text", "begin it with"),
        (
            "@kind: Tenant\nmetadata: { name: a }\n",
            "▸",
            "apiVersion: fief/v1alpha1\n",
            "`apiVersion` is missing",
            "fief/v1alpha1",
        ),
        (VERSION, "▸v1", "fief/v1alpha1", "unknown apiVersion `v1`", "write `apiVersion: fief/v1alpha1`"),
        (VERSION, "▸[v1]", "fief/v1alpha1", "`apiVersion` is a list", "fief/v1alpha1"),
        (KIND, "Tenants", "Tenant", "unknown kind `Tenants`", "did you mean `Tenant`?"),
        (KIND, "ConfigMap", "Tenant", "unknown kind `ConfigMap`", "known kinds: Tenant"),
        (KIND, "''", "Tenant", "`kind` is", "write `kind: Tenant`"),
        (
            "▸apiVersion: fief/v1alpha1\n@metadata: { name: a }\n",
            "",
            "kind: Tenant\n",
            "`kind` is missing",
            "kind: Tenant",
        ),
        (
            "▸apiVersion: fief/v1alpha1\nkind: Tenant\n@",
            "",
            "metadata: { name: a }\n",
            "`metadata` is missing",
            "metadata: { name",
        ),
        (DOC, "▸sepc: {}", "spec: {}", "unknown field `sepc` in the document", "did you mean `spec`?"),
        (DOC, "spec: {}\n▸spec: {}", "spec: {}", "`spec` is given twice", "the first is on line 4"),
        (DOC, "▸kind: Tenant", "spec: {}", "`kind` is given twice", "line 2"),
    ]);
}

#[test]
fn one_document_tells_all_it_can() {
    let text = "apiVersion: fief/v1\nkind: Tenant\nmetadata: { nam: blue }\nspec:\n  isolation: vlan\n  interfaces:\n  \
                - { name: 1, adresses: [], addresses: [x, 192.0.2.1/24, y] }\n  - { default: 1 }\n  routes: {}\n";
    let found: Vec<_> = complaints(text).iter().map(|d| (d.line, d.column)).collect();
    let wanted =
        [(1, 13), (3, 11), (3, 13), (5, 14), (7, 13), (7, 16), (7, 42), (7, 59), (8, 5), (8, 16), (9, 11)];
    assert_eq!(found.len(), wanted.len(), "{found:?}");
    assert_eq!(found, wanted);
}
