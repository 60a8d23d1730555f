//! What fief writes, fief reads.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fief_model::{
    Document, Interface, Isolation, Mac, Members, Metadata, Namespace, PolicyMode, Route, RouteKind, Select,
    Source, Tenant, TenantSpec, Udp, parse,
};
use ipnet::IpNet;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn to_yaml_and_back(tenants in vec(tenant(), 1..4)) {
        let documents: Vec<Document> = tenants.into_iter().map(Document::Tenant).collect();
        let text: String = documents.iter().map(|document| format!("---\n{}", document.to_yaml())).collect();
        let located = parse(&[Source { name: "-".into(), text: text.clone() }])
            .unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}\n{text}"));
        let read: Vec<Document> = located.into_iter().map(|located| located.document).collect();
        prop_assert_eq!(read, documents, "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-a-c:{}\\[\\]&*!|>'\"%#,? \t\n.~<0-9é]{0,80}") {
        let _ = parse(&[Source { name: "-".into(), text }]);
    }
}

#[test]
fn what_is_left_to_its_default_is_left_out() {
    let text = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata:\n  name: blue\nspec:\n  isolation: auto\n  \
                routes:\n  - to: default\n    via: \"192.0.2.1\"\n    on-link: true\n";
    let located = parse(&[Source { name: "-".into(), text: text.into() }]).unwrap();
    assert_eq!(located[0].document.to_yaml(), text);
}

/// Texts that a careless writer would leave unquoted.
fn text() -> impl Strategy<Value = String> {
    let traps = [
        "",
        "~",
        "null",
        "true",
        "no",
        "1",
        "0x1f",
        "1e3",
        ".inf",
        "1_000",
        "1:20",
        "2001-01-01",
        "<<",
        "=",
        "- a",
        "a: b",
        "a #b",
        "*a",
        "&a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "'",
        "\"",
        "a\nb",
        "a\n",
        "\n",
        " a ",
        "\t",
        "---",
        "...",
        "?",
        ":",
        "-",
        "[",
        "{",
        ",",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
        "\0",
        "\u{7f}",
        "é",
        "💥",
        "\r",
    ];
    prop_oneof![
        proptest::sample::select(traps.to_vec()).prop_map(String::from),
        "[a-z0-9.-]{1,20}",
        any::<String>(),
        "[ a-z\n]{70,200}",
    ]
}

fn tenant() -> impl Strategy<Value = Tenant> {
    let members =
        (vec(text(), 0..3), vec(text(), 0..3)).prop_map(|(users, groups)| Members { users, groups });
    let isolation = prop_oneof![Just(Isolation::Auto), Just(Isolation::Fib)];
    let udp = prop_oneof![Just(Udp::Alias), Just(Udp::Pktinfo), Just(Udp::Refuse)];
    let select = (vec(text(), 0..3), vec(text(), 0..3), vec(text(), 0..3))
        .prop_map(|(cgroups, users, groups)| Select { cgroups, users, groups });
    let labels = btree_map(text().prop_filter("no merge key", |key| key != "<<"), text(), 0..3);
    let namespaces =
        btree_map(text().prop_filter("no merge key", |key| key != "<<"), labels, 0..3).prop_map(|all| {
            all.into_iter().map(|(name, labels)| (name, Namespace { labels })).collect::<BTreeMap<_, _>>()
        });
    let spec = (
        isolation,
        vec(interface(), 0..4),
        vec(route(), 0..4),
        members,
        any::<bool>(),
        udp,
        select,
        (namespaces, prop_oneof![Just(PolicyMode::Enforce), Just(PolicyMode::Audit)]),
    )
        .prop_map(|(isolation, interfaces, routes, members, host_access, udp, select, policies)| {
            let (namespaces, policy_mode) = policies;
            TenantSpec {
                isolation,
                interfaces,
                routes,
                members,
                host_access,
                udp,
                select,
                namespaces,
                policy_mode,
            }
        });
    let labels = btree_map(text().prop_filter("no merge key", |key| key != "<<"), text(), 0..4);
    (text(), labels, spec).prop_map(|(name, labels, spec): (_, BTreeMap<_, _>, _)| Tenant {
        metadata: Metadata { name, labels },
        spec,
    })
}

fn interface() -> impl Strategy<Value = Interface> {
    let addresses = vec(net(), 0..4);
    let neighbours = option::of(vec(any::<[u8; 6]>().prop_map(Mac), 0..3));
    (text(), addresses, any::<bool>(), any::<bool>(), neighbours).prop_map(
        |(name, addresses, manage, default, neighbours)| Interface {
            name,
            addresses,
            manage,
            default,
            neighbours,
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    let kind = prop_oneof![
        Just(RouteKind::Unicast),
        Just(RouteKind::Blackhole),
        Just(RouteKind::Unreachable),
        Just(RouteKind::Prohibit)
    ];
    let gateway = (option::of(any::<IpAddr>()), option::of(text()), option::of(any::<IpAddr>()));
    (text(), gateway, kind, option::of(any::<u32>()), any::<bool>(), option::of(any::<u32>())).prop_map(
        |(to, (via, interface, from), kind, metric, on_link, mtu)| Route {
            to,
            via,
            interface,
            from,
            kind,
            metric,
            on_link,
            mtu,
        },
    )
}

fn net() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), any::<u8>()).prop_map(|(address, length)| {
        let most = if address.is_ipv6() { 128 } else { 32 };
        IpNet::new(address, length % (most + 1)).unwrap()
    })
}
