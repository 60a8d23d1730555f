//! Network policies as Kubernetes writes them.

use std::time::Duration;

use fief_model::policy::{LabelOperator, PolicyType, PortName, Transport};
use fief_model::{Document, Kept, Located, NetworkPolicy, Places, Source, claim, parse, validate};
use fief_testkit::computed;

const WRITTEN: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {\"spec\":{}}
  creationTimestamp: null
  generation: 3
  labels:
    fief/tenant: blue
  managedFields:
  - apiVersion: networking.k8s.io/v1
    fieldsV1: { \"f:spec\": { \".\": {} } }
    time: \"2026-01-01T00:00:00Z\"
  name: front
  namespace: shop
  resourceVersion: \"4711\"
  uid: 6f6f0a1c-0d3c-4d1e-9d5c-3a1b8c1d2e3f
spec:
  podSelector:
    matchLabels:
      app: front
  ingress:
  - from:
    - namespaceSelector:
        matchExpressions:
        - { key: team, operator: NotIn, values: [a, b] }
      podSelector: {}
    - ipBlock:
        cidr: 10.0.0.0/8
        except:
        - 10.1.0.0/16
    ports:
    - port: http
    - port: 8000
      endPort: 8080
      protocol: UDP
  - {}
  egress:
  - ports: [{ protocol: SCTP }, {}]
  policyTypes:
  - Ingress
status: {}
";

#[test]
fn what_kubectl_writes_is_read_and_rules_know_their_lines() {
    let [located] = &read(WRITTEN)[..] else { panic!("one policy") };
    let (policy, positions) = (policy(located), &located.positions);
    assert_eq!(located.document.name(), "blue/shop/front");
    assert_eq!((policy.tenant(), policy.metadata.namespace.as_str()), (Some("blue"), "shop"));
    let rule = &policy.spec.ingress[0];
    let expression = &rule.from[0].namespace_selector.as_ref().unwrap().match_expressions[0];
    assert_eq!((expression.operator, expression.values.len()), (LabelOperator::NotIn, 2));
    assert_eq!(rule.from[1].ip_block.as_ref().unwrap().except[0].to_string(), "10.1.0.0/16");
    assert_eq!(rule.ports[0].port, Some(PortName::Name("http".into())));
    assert_eq!((rule.ports[1].protocol, rule.ports[1].end_port), (Transport::Udp, Some(8080)));
    assert_eq!(policy.spec.ingress[1].ports, []);
    assert_eq!(policy.spec.egress[0].ports[1].protocol, Transport::Tcp);
    assert_eq!(positions.at("spec.ingress[0]"), (24, 5));
    assert_eq!(positions.at("spec.ingress[1]"), (38, 5));
    assert_eq!(positions.at("spec.egress[0]"), (40, 5));
    let places = Places { file: "t.yaml".into(), pod_selector: 21, ingress: vec![24, 38], egress: vec![40] };
    assert_eq!(Places::of(policy, located), places);

    let again = located.document.to_yaml();
    assert_eq!(read(&again)[0].document, located.document, "{again}");
    assert!(!again.contains("uid") && !again.contains("status"), "{again}");
}

#[test]
fn directions_that_are_left_out_follow_from_the_rules() {
    let isolates = |spec: &str| {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: a }}\nspec: {spec}\n"
        );
        let read = read(&text);
        let spec = &policy(&read[0]).spec;
        (spec.isolates(PolicyType::Ingress), spec.isolates(PolicyType::Egress))
    };
    assert_eq!(isolates("{}"), (true, false));
    assert_eq!(isolates("{ policyTypes: [] }"), (true, false));
    assert_eq!(isolates("{ egress: [] }"), (true, false));
    assert_eq!(isolates("{ egress: [{}] }"), (true, true));
    assert_eq!(isolates("{ policyTypes: [Egress], ingress: [{}] }"), (false, true));
    assert_eq!(isolates("{ policyTypes: [Ingress], egress: [{}] }"), (true, false));
}

#[test]
fn a_list_is_its_items_wherever_they_stand() {
    let item = WRITTEN.replace('\n', "\n  ");
    let text = format!(
        "apiVersion: v1\nkind: List\nmetadata: {{ resourceVersion: \"\" }}\nitems:\n- {item}\n- apiVersion: \
         fief/v1alpha1\n  kind: Tenant\n  metadata: {{ name: blue }}\n"
    );
    let [first, second] = &read(&text)[..] else { panic!("two documents") };
    assert_eq!(Places::of(policy(first), first).ingress, [28, 42]);
    assert_eq!((second.document.kind(), second.positions.at("metadata.name").0), ("Tenant", 51));
    for (broken, message) in [
        (text.replace("items:", "item:"), "`items` is missing"),
        (
            text.replace("metadata: { resourceVersion", "more: 1\nmetadata: { resourceVersion"),
            "unknown field `more`",
        ),
        (text.replace("apiVersion: v1\n", "apiVersion: v2\n"), "unknown apiVersion `v2`"),
        (text.replace("kind: Tenant", "kind: List"), "unknown kind `List`"),
        ("apiVersion: v1\nkind: List\nitems: {}\n".to_owned(), "`items` is a mapping, not a list"),
        ("apiVersion: v1\nkind: List\nitems: []\n".to_owned(), "nothing to apply"),
    ] {
        let diagnostics = parse(&[Source { name: "t.yaml".into(), text: broken.clone() }]).unwrap_err();
        assert!(
            diagnostics.iter().any(|d| d.message.contains(message)),
            "{message}: {diagnostics:#?}\n{broken}"
        );
    }
}

#[test]
fn a_claim_gives_a_tenant_to_policies_and_refuses_what_is_anothers() {
    let named = "labels:\n    fief/tenant: blue\n  ";
    let source = |text: String| [Source { name: "t.yaml".into(), text }];
    let network =
        "---\napiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: n, tenant: red }\nspec: {}\n";
    let mut documents = parse(&source(WRITTEN.replace(named, "") + network)).unwrap();
    let complaint = &validate(&documents, &Kept { unknown: true, ..Kept::default() })[0];
    assert!(complaint.message.contains("no tenant's"), "{complaint}");
    assert_eq!(claim(&mut documents, "red"), []);
    assert_eq!(documents[0].document.tenant(), "red");
    assert_eq!(documents[0].document.name(), "red/shop/front");
    let mut documents = parse(&source(WRITTEN.to_owned() + network)).unwrap();
    let refused = claim(&mut documents, "red");
    assert_eq!(refused.len(), 1, "{refused:#?}");
    assert_eq!((refused[0].line, refused[0].column), (10, 18));
    assert!(refused[0].message.contains("tenant `blue`'s"), "{}", refused[0]);
    assert_eq!(claim(&mut documents, "blue").len(), 1, "the network is red's");
}

#[test]
fn many_policies_are_read_in_passing_and_too_many_are_one_complaint() {
    const BOUND: Duration = Duration::from_secs(60);
    let policy = |n: u32| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: p{n} }}\nspec:\n  \
             podSelector: {{ matchLabels: {{ app: a{n} }} }}\n  ingress: [{{ ports: [{{ port: 80 }}] }}]\n"
        )
    };
    let text: String = (0..100_000).map(policy).collect();
    let (read, took) = computed(|| parse(&[Source { name: "t.yaml".into(), text: text.clone() }]));
    println!("100,000 policies, {} bytes: {took:?}", text.len());
    assert!(took < BOUND, "{took:?}");
    match read {
        Ok(located) => assert_eq!(located.len(), 100_000),
        Err(diagnostics) => {
            assert_eq!(diagnostics.len(), 1);
            assert!(diagnostics[0].message.contains("values in one input"), "{}", diagnostics[0]);
        }
    }

    let bomb: String = (1..30)
        .map(|level| format!("a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(9)))
        .collect();
    let text = format!("{WRITTEN}\n---\na0: &a0 [x]\n{bomb}");
    let diagnostics = parse(&[Source { name: "t.yaml".into(), text }]).unwrap_err();
    assert!(diagnostics.iter().any(|d| d.message.contains("anchors and aliases copy")), "{diagnostics:#?}");
}

fn policy(located: &Located) -> &NetworkPolicy {
    match &located.document {
        Document::NetworkPolicy(policy) => policy,
        other => panic!("{other:?}"),
    }
}

fn read(text: &str) -> Vec<Located> {
    let mut located = parse(&[Source { name: "t.yaml".into(), text: text.into() }])
        .unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}\n{:.3000}", text));
    assert_eq!(claim(&mut located, "blue"), []);
    assert_eq!(validate(&located, &Kept { unknown: true, ..Kept::default() }), []);
    located
}
