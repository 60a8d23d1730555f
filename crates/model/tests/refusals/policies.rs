//! Network policies, and what they need of other documents.

use crate::{META, SPEC, complaints_of_policies, refuse, refuse_as};

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: @\n";
const RULES: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: web }\nspec:\n  \
                     podSelector: {}\n  @\n";
const PEER: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: web }\nspec:\n  \
                    ingress:\n  - from:\n    - @\n";
const PORT: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: web }\nspec:\n  \
                    egress:\n  - ports: [{ port: 1 }, @]\n";
const END: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n---\n\
                   apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: { name: b, tenant: blue@";

#[test]
fn headers_and_fields() {
    refuse_as(
        complaints_of_policies,
        &[
            ("@\n", "▸[]", &POLICY.replace('@', "{ name: a }"), "is a list, not a mapping", "Tenant"),
            (
                "apiVersion: @\nkind: NetworkPolicy\nmetadata: { name: a }\n",
                "▸fief/v1alpha1",
                "networking.k8s.io/v1",
                "unknown apiVersion `fief/v1alpha1`",
                "networking.k8s.io/v1",
            ),
            (
                "apiVersion: networking.k8s.io/v1\nkind: @\nmetadata: { name: a }\n",
                "▸Networkpolicy",
                "NetworkPolicy",
                "unknown kind",
                "did you mean `NetworkPolicy`?",
            ),
            (POLICY, "▸{ namespace: a }", "{ name: a }", "`metadata.name` is missing", "lower-case"),
            (POLICY, "{ name: ▸Web }", "{ name: web.front-1 }", "`Web` is not a name for a policy", "253"),
            (POLICY, "{ name: a, namespace: ▸a.b }", "{ name: a, namespace: a-b }", "`a.b`", "write `a-b`"),
            (POLICY, "{ name: a, ▸tenant: b }", "{ name: a }", "unknown field `tenant`", "the fields here"),
            (RULES, "▸egres: []", "egress: []", "unknown field `egres` in `spec`", "did you mean `egress`?"),
            (RULES, "▸ingress:", "ingress: []", "`spec.ingress` has no value", "nothing is allowed"),
            (RULES, "ingress: [{ ▸to: [] }]", "ingress: [{ from: [] }]", "unknown field `to`", "from, ports"),
            (RULES, "egress: [{ ▸to: }]", "egress: [{ to: [] }]", "has no value", "it is everybody"),
            (
                RULES,
                "policyTypes: [▸ingress]",
                "policyTypes: [Ingress]",
                "`ingress` is not a direction",
                "`Ingress` or `Egress`",
            ),
            (
                RULES,
                "policyTypes: [Egress, ▸Egress]",
                "policyTypes: [Egress, Ingress]",
                "listed twice",
                "delete one",
            ),
        ],
    );
}

#[test]
fn peers() {
    refuse_as(
        complaints_of_policies,
        &[
            (PEER, "{}", "{ podSelector: {} }", "says nothing", "namespaceSelector"),
            (
                PEER,
                "{ podSelector: {}, ipBlock: ▸{ cidr: 10.0.0.0/8 } }",
                "{ ipBlock: { cidr: 10.0.0.0/8 } }",
                "`ipBlock` beside a selector",
                "two peers",
            ),
            (
                PEER,
                "{ ipBlock: { cidr: ▸10.0.0.0 } }",
                "{ ipBlock: { cidr: 10.0.0.0/8 } }",
                "`10.0.0.0` is not a prefix",
                "10.0.0.0/8",
            ),
            (
                PEER,
                "{ ipBlock: { cidr: 10.0.0.0/8, except: [10.1.0.0/16, ▸10.0.0.0/8] } }",
                "{ ipBlock: { cidr: 10.0.0.0/8, except: [10.1.0.0/16] } }",
                "10.0.0.0/8 is no part of 10.0.0.0/8",
                "longer prefix",
            ),
            (
                PEER,
                "{ ipBlock: { cidr: 10.0.0.0/8, except: [▸\"fd00::/8\"] } }",
                "{ ipBlock: { cidr: \"::/0\", except: [\"fd00::/8\"] } }",
                "fd00::/8 is no part",
                "inside of it",
            ),
            (
                PEER,
                "{ podSelector: { matchLabels: { app: ▸1 } } }",
                "{ podSelector: { matchLabels: { app: \"1\" } } }",
                "`1` is a number",
                "in quotes",
            ),
            (
                PEER,
                "{ podSelector: { matchExpressions: [{ key: app, operator: ▸Is, values: [a] }] } }",
                "{ podSelector: { matchExpressions: [{ key: app, operator: In, values: [a] }] } }",
                "`Is` is not an operator",
                "`DoesNotExist`",
            ),
            (
                PEER,
                "{ podSelector: { matchExpressions: [{ key: app, operator: In, values: ▸[] }] } }",
                "{ podSelector: { matchExpressions: [{ key: app, operator: In, values: [a, \"\"] }] } }",
                "`In` without values",
                "values: [shop]",
            ),
            (
                PEER,
                "{ podSelector: { matchExpressions: [{ key: app, operator: Exists, values: ▸[a] }] } }",
                "{ podSelector: { matchExpressions: [{ key: app, operator: Exists }] } }",
                "`Exists` takes no values",
                "delete",
            ),
            (
                PEER,
                "{ namespaceSelector: { matchExpressions: [{ key: ▸-a, operator: Exists }] } }",
                "{ namespaceSelector: { matchExpressions: [{ key: a, operator: DoesNotExist }] } }",
                "`-a` is not a label's name",
                "as in",
            ),
            (
                PEER,
                "{ namespaceSelector: { matchLabels: { a: ▸b c } } }",
                "{ namespaceSelector: { matchLabels: { a: b } } }",
                "`b c` is not a label's value",
                "letter or digit",
            ),
        ],
    );
}

#[test]
fn ports() {
    refuse_as(
        complaints_of_policies,
        &[
            (PORT, "{ port: ▸0 }", "{ port: 65535 }", "0 is no port", "1 to 65535"),
            (PORT, "{ port: ▸65536 }", "{ port: 65535 }", "`65536` is not a port", "1 to 65535"),
            (PORT, "{ port: ▸\"80\" }", "{ port: 80 }", "`80` is not a port's name", "without quotes"),
            (PORT, "{ port: ▸Http }", "{ port: http }", "`Http` is not a port's name", "lower-case"),
            (PORT, "{ port: ▸a23456789-123456 }", "{ port: a23456789-12345 }", "port's name", "1 to 15"),
            (PORT, "{ port: ▸[80] }", "{ port: 80 }", "is a list, not a port", "or the name"),
            (PORT, "{ protocol: ▸tcp, port: 80 }", "{ protocol: SCTP, port: 80 }", "`tcp`", "`TCP`, `UDP`"),
            (PORT, "{ port: 80, endPort: ▸79 }", "{ port: 80, endPort: 80 }", "begins at 80", "from 80 on"),
            (PORT, "{ port: http, endPort: ▸90 }", "{ port: http }", "without the number", "delete this"),
            (PORT, "{ endPort: ▸90 }", "{}", "without the number", "delete this"),
            (PORT, "{ port: 80, ▸endport: 90 }", "{ port: 80, endPort: 90 }", "`endport`", "`endPort`?"),
        ],
    );
}

#[test]
fn a_policy_is_a_tenants() {
    let tenant = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\nspec: { policyMode: audit }\n---\n";
    let context = &format!("{tenant}{POLICY}");
    refuse(&[
        (
            context,
            "▸{ name: a }",
            "{ name: a, labels: { fief/tenant: blue } }",
            "no tenant's",
            "--tenant blue",
        ),
        (
            context,
            "{ name: a, labels: { fief/tenant: ▸red } }",
            "{ name: a, labels: { fief/tenant: blue } }",
            "there is no tenant `red`",
            "describe it",
        ),
        (SPEC, "policyMode: ▸off", "policyMode: enforce", "`off` is not a way with policies", "`audit`"),
    ]);
}

#[test]
fn names_are_given_once() {
    let first = POLICY.replace('@', "{ name: a, namespace: n, labels: { fief/tenant: blue } }");
    let context = format!("{first}---\n{POLICY}");
    refuse_as(
        complaints_of_policies,
        &[
            (
                &context,
                "{ name: ▸a, namespace: n, labels: { fief/tenant: blue } }",
                "{ name: a, namespace: n, labels: { fief/tenant: red } }",
                "policy `blue/n/a` is described twice",
                "t.yaml:3:19",
            ),
            (
                &context,
                "{ name: ▸a, namespace: n, labels: { fief/tenant: blue } }",
                "{ name: a, labels: { fief/tenant: blue } }",
                "described twice",
                "keep one",
            ),
        ],
    );
}

#[test]
fn namespaces_of_tenants_and_ports_of_endpoints() {
    const REST: &str =
        " }\nspec: { networks: [{ network: web, address: 10.0.0.1 }], attach: { netns: b } }\n";
    const PORTS: &str =
        " }\nspec: { networks: [{ network: web, address: 10.0.0.1 }], attach: { netns: b }, ports: ";
    let namespace = &*(END.to_owned() + REST);
    let port = &*(END.replace('@', PORTS) + "[@] }\n");
    refuse(&[
        (SPEC, "namespaces: { Shop: ▸{} }", "namespaces: { shop: {} }", "`Shop` is not a name", "`shop`"),
        (SPEC, "namespaces: ▸[shop]", "namespaces: { shop: {} }", "is a list, not a mapping", "labels"),
        (
            SPEC,
            "namespaces: { shop: { ▸label: {} } }",
            "namespaces: { shop: { labels: {} } }",
            "unknown field `label`",
            "did you mean `labels`?",
        ),
        (
            SPEC,
            "namespaces: { shop: { labels: { a: ▸b c } } }",
            "namespaces: { shop: { labels: { a: b } } }",
            "`b c` is not a label's value",
            "letter",
        ),
        (
            SPEC,
            "namespaces: { shop: { labels: { kubernetes.io/metadata.name: ▸a } } }",
            "namespaces: { shop: { labels: { kubernetes.io/metadata.name: shop } } }",
            "of namespace `shop` is another name",
            "by itself",
        ),
        (META, "{ name: a, ▸namespace: b }", "{ name: a }", "unknown field `namespace`", "name, labels"),
        (namespace, ", namespace: ▸A.b", ", namespace: a-b", "`A.b` is not a name", "`a-b`"),
        (port, "{ name: ▸Http, port: 80 }", "{ name: http, port: 80 }", "not a port's name", "1 to 15"),
        (port, "{ name: http, port: ▸0 }", "{ name: http, port: 1 }", "0 is no port", "65535"),
        (
            port,
            "{ name: dns, port: 53 }, { name: ▸dns, port: 54 }",
            "{ name: dns, port: 53 }, { name: dns, port: 53, protocol: udp }",
            "`dns` is listed twice",
            "of its own",
        ),
        (
            port,
            "{ name: a, port: 1, protocol: ▸SCTP }",
            "{ name: a, port: 1, protocol: sctp }",
            "`SCTP` is not a protocol",
            "`sctp`",
        ),
    ]);
}
