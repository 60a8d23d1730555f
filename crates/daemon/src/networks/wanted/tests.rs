use std::collections::{BTreeMap, HashMap};

use fief_host::{Address, Link as Device, Listing, Route, RouteKind};
use fief_model::{Document, Slot, Source};

use super::super::links::Links;
use super::super::probe::Silence;
use super::names::short_name;
use super::*;
use crate::config::uplinks::Uplinks;
use crate::store::{MemberIds, Uplink};

/// What a text describes, as stored.
pub(super) struct Stock {
    pub(super) tenants: BTreeMap<String, Stored>,
    pub(super) networks: BTreeMap<String, StoredNetwork>,
    pub(super) endpoints: BTreeMap<String, StoredEndpoint>,
    uplinks: BTreeMap<String, Uplink>,
    probed: Uplinks,
    silent: BTreeMap<String, Silence>,
    pub(super) leases: HashMap<(String, Mac), Ipv4Addr>,
}

impl Stock {
    pub(super) fn of(text: &str) -> Stock {
        let mut stock = Stock {
            tenants: BTreeMap::new(),
            networks: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            probed: Uplinks::default(),
            silent: BTreeMap::new(),
            leases: HashMap::new(),
        };
        for (index, device) in (0..).zip(["eth0", "eth1"]) {
            let slot = Slot::new(100 + u16::from(index)).unwrap();
            stock.uplinks.insert(device.into(), Uplink { slot, index });
        }
        stock.add(text);
        stock
    }

    pub(super) fn add(&mut self, text: &str) {
        let source = Source { name: "test".into(), text: text.into() };
        let set = || "default".to_owned();
        for located in fief_model::parse(&[source]).unwrap() {
            match located.document {
                Document::Tenant(tenant) => {
                    let slot = Slot::new(1 + self.tenants.len() as u16).unwrap();
                    let (members, selected) = (MemberIds::default(), MemberIds::default());
                    let name = tenant.metadata.name.clone();
                    self.tenants.insert(name, Stored { tenant, set: set(), slot, members, selected });
                }
                Document::Network(network) => {
                    self.networks.insert(network.metadata.key(), StoredNetwork { network, set: set() });
                }
                Document::Endpoint(endpoint) => {
                    self.endpoints.insert(endpoint.metadata.key(), StoredEndpoint { endpoint, set: set() });
                }
                Document::NetworkPolicy(_) => {}
            }
        }
    }

    pub(super) fn wanted(&self, observed: &Observed, leases: &HashMap<(String, Mac), Ipv4Addr>) -> Wanted {
        let mut wanted = Wanted::default();
        self.renew_with(&mut wanted, observed, leases, &Stale::all());
        wanted
    }

    pub(super) fn renew(&self, wanted: &mut Wanted, observed: &Observed, stale: &Stale) {
        self.renew_with(wanted, observed, &self.leases, stale);
    }

    fn renew_with(
        &self,
        wanted: &mut Wanted,
        observed: &Observed,
        leases: &HashMap<(String, Mac), Ipv4Addr>,
        stale: &Stale,
    ) {
        let documents = Documents {
            tenants: Layered::of(&self.tenants),
            networks: Layered::of(&self.networks),
            endpoints: Layered::of(&self.endpoints),
            markless: false,
            uplinks: &self.uplinks,
        };
        let links = Links("248.0.0.0/12".parse().unwrap());
        let (uplinks, silent) = (&self.probed, self.silent.clone());
        let ground = Ground { links, leases, table_base: 256_000_000, uplinks, silent };
        wanted.renew(&documents, observed, &ground, stale);
    }
}

/// A host with eth0 and eth1, each with an address and a default route, with or without a carrier.
pub(super) fn host(carriers: [bool; 2]) -> Observed {
    let mut listing = Listing::default();
    for (at, carrier) in (0..).zip(carriers) {
        let (index, name) = (2 + at, format!("eth{at}"));
        listing.links.push(Device { index, name, up: true, carrier, ethernet: true, ..Device::default() });
        let net = format!("192.168.{at}.2/24").parse().unwrap();
        listing.addresses.push(Address { device: index, net, ours: false });
        listing.main.push(Route {
            table: Route::MAIN,
            prefix: "0.0.0.0/0".parse().unwrap(),
            metric: at,
            kind: RouteKind::Unicast,
            device: Some(index),
            via: Some(format!("192.168.{at}.1").parse().unwrap()),
            source: None,
            on_link: false,
            mtu: None,
            detour: None,
        });
    }
    Observed::from_listing(listing, ["eth0".to_owned(), "eth1".to_owned()].into())
}

const HEAD: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\n---\n\
    apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: red }\n---\n";
const NETWORK: &str = "apiVersion: fief/v1alpha1\nkind: Network\nmetadata: { name: web, tenant: blue }\n";

#[test]
fn the_first_uplink_that_works_is_taken_and_each_has_an_address() {
    let spec = "spec: { subnets: [10.10.1.0/24], uplinks: [eth0, eth1] }\n";
    let stock = Stock::of(&format!("{HEAD}{NETWORK}{spec}"));
    let exit = |carriers| {
        let wanted = stock.wanted(&host(carriers), &HashMap::new());
        let space = &wanted.spaces["blue"];
        assert_eq!(space.transit.len(), 2, "both, whichever is used");
        (
            space.segments["blue/web"].exit,
            wanted.networks["blue/web"].iter().map(|c| c.reason.clone()).collect(),
        )
    };
    let link = |uplink: u8| Some(Ipv4Addr::new(248, 1 + uplink, 0, 1));
    assert_eq!(exit([true, true]), (link(0), Vec::<String>::new()));
    assert_eq!(exit([false, true]), (link(1), vec![]));
    assert_eq!(exit([false, false]), (None, vec!["UplinkDown".into()]));
}

#[test]
fn an_uplink_that_does_not_answer_is_passed_over_and_still_asked() {
    let spec = "spec: { subnets: [10.10.1.0/24], uplinks: [eth0, eth1] }\n";
    let mut stock = Stock::of(&format!("{HEAD}{NETWORK}{spec}"));
    let silence = r#"{ "eth0": { "lost": 3, "targets": ["192.168.0.1"] } }"#;
    stock.silent = serde_json::from_str(silence).unwrap();
    let look = |stock: &Stock, carriers| {
        let wanted = stock.wanted(&host(carriers), &HashMap::new());
        let asked: Vec<String> = wanted.probes().into_iter().map(|probe| probe.uplink).collect();
        (wanted.spaces["blue"].segments["blue/web"].exit, wanted.networks["blue/web"].clone(), asked)
    };
    let link = |uplink: u8| Some(Ipv4Addr::new(248, 1 + uplink, 0, 1));
    let both = ["eth0".to_owned(), "eth1".to_owned()];
    assert_eq!(look(&stock, [true, true]), (link(0), vec![], vec![]), "nobody is to be probed");
    stock.probed = serde_saphyr::from_str("probe: {}").unwrap();
    assert_eq!(look(&stock, [true, true]), (link(1), vec![], both.to_vec()));
    // A device that is down is not asked.
    let (exit, conditions, asked) = look(&stock, [true, false]);
    assert_eq!((exit, asked), (None, vec!["eth0".to_owned()]));
    assert_eq!(
        conditions[0].message,
        "none of its uplinks works: eth0 does not answer: 3 probes to 192.168.0.1 lost; eth1 has no carrier"
    );
    let wanted = stock.wanted(&host([true, true]), &HashMap::new());
    let [probe, _] = &wanted.probes()[..] else { panic!("two are asked") };
    assert_eq!(probe.source, Ipv4Addr::new(192, 168, 0, 2));
    assert_eq!(probe.targets, [fief_host::probe::Target::Neighbour(Ipv4Addr::new(192, 168, 0, 1))]);
}

#[test]
fn a_port_map_leads_to_whoever_has_the_address() {
    let spec = "spec: { subnets: [10.10.1.0/24], uplinks: [eth0], dhcp: {}, allowEndpoints: [red], \
        portMaps: [{ uplink: eth0, port: 8080, to: \"app:80\" }] }\n---\n";
    let app = |tenant: &str, more: &str| {
        format!(
            "apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: app, tenant: {tenant} }}\n\
             spec: {{ networks: [{{ network: blue/web{more} }}], attach: {{ netns: app }} }}\n---\n"
        )
    };
    let at = |text: String, leases: &HashMap<(String, Mac), Ipv4Addr>| {
        let wanted = Stock::of(&text).wanted(&host([true, true]), leases);
        let space = &wanted.spaces["blue"];
        let inside = Ipv4Addr::new(248, 1, 0, 1);
        if !space.mapped.is_empty() {
            assert_eq!(space.called[&(Ipv4Addr::new(192, 168, 0, 2), 6, 8080)], inside);
        }
        space.mapped.get(&(inside, 6, 8080)).copied()
    };
    let none = HashMap::new();
    let base = format!("{HEAD}{NETWORK}{spec}");
    assert_eq!(at(base.clone(), &none), None, "nobody is called so");
    let (nine, seven) = (Ipv4Addr::new(10, 10, 1, 9), Ipv4Addr::new(10, 10, 1, 7));
    assert_eq!(at(base.clone() + &app("blue", ", address: 10.10.1.9"), &none), Some((nine, 80)));
    // Another tenant's may be called by its name alone, but not where the own tenant has one.
    let guest = app("red", ", address: 10.10.1.7");
    assert_eq!(at(base.clone() + &guest, &none), Some((seven, 80)));
    assert_eq!(at(base.clone() + &guest + &app("blue", ", address: 10.10.1.9"), &none), Some((nine, 80)));
    // Leased: once there is a lease.
    let leased = base + &app("blue", ", mac: \"02:00:00:00:00:07\"");
    assert_eq!(at(leased.clone(), &none), None);
    let lease = (("blue/web".to_owned(), "02:00:00:00:00:07".parse().unwrap()), seven);
    assert_eq!(at(leased, &HashMap::from([lease])), Some((seven, 80)));
}

#[test]
fn an_endpoint_has_one_default_route_and_only_where_it_may_be() {
    let more = "spec: { subnets: [10.10.1.0/24] }\n---\napiVersion: fief/v1alpha1\nkind: Network\n\
        metadata: { name: out, tenant: blue }\nspec: { subnets: [10.10.2.0/24], uplinks: [eth0] }\n---\n\
        apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: { name: app, tenant: blue }\n\
        spec: { networks: [{ network: web, address: 10.10.1.9 }, { network: out, interface: eth1, address: 10.10.2.9 }], \
        attach: { netns: app } }\n---\napiVersion: fief/v1alpha1\nkind: Endpoint\n\
        metadata: { name: spy, tenant: red }\nspec: { networks: [{ network: blue/web, address: 10.10.1.66 }], \
        attach: { netns: spy } }\n";
    let stock = Stock::of(&format!("{HEAD}{NETWORK}{more}"));
    let wanted = stock.wanted(&host([true, true]), &HashMap::new());
    let ports = |key: &str| wanted.spaces["blue"].segments[key].ports.values().cloned().collect::<Vec<_>>();
    let (inner, outer) = (ports("blue/web"), ports("blue/out"));
    assert_eq!((inner.len(), outer.len()), (1, 1), "red's is not allowed");
    assert_eq!((inner[0].default_via, outer[0].default_via), (None, Some("10.10.2.1".parse().unwrap())));
    assert_eq!(lacking(&stock.endpoints["red/spy"].endpoint, &stock.networks)[0].reason, "NotAllowed");
    assert!(!wanted.spaces.contains_key("red"), "no network, no namespace");
}

#[test]
fn a_switch_takes_devices_that_the_host_does_not_need() {
    let wanted = |spec: &str, observed: &Observed| {
        let text = format!("{HEAD}{NETWORK}spec: {{ type: switch, {spec} }}\n");
        let mut stock = Stock::of(&text);
        stock.uplinks.clear();
        let wanted = stock.wanted(observed, &HashMap::new());
        let reasons: Vec<String> = wanted.networks["blue/web"].iter().map(|c| c.reason.clone()).collect();
        let space = &wanted.spaces["blue"];
        assert!(space.transit.is_empty() && wanted.links().is_empty(), "nothing of it goes by the link");
        assert_eq!(space.segments["blue/web"].exit, None);
        (wanted.trunks["blue/web"].clone(), reasons)
    };
    let owned = host([true, true]);
    let (trunk, reasons) = wanted("uplinks: [eth0, eth7]", &owned);
    assert_eq!(reasons, ["AddressesOnPort", "DeviceMissing"]);
    assert!(trunk.stp && trunk.ports.iter().all(|port| port.barred));
    for name in [&trunk.bridge, &trunk.cable] {
        assert!(name.len() <= 15, "{name}");
    }
    // Frames with a tag are none of the host's.
    let (trunk, reasons) = wanted("uplinks: [eth0], vlan: 20", &owned);
    assert_eq!((reasons.as_slice(), trunk.stp, trunk.ports[0].barred), (&[] as &[String], false, false));
    assert_eq!(trunk.ports[0].vlan.as_ref().map(|(vlan, name)| (*vlan, name.len())), Some((20, 15)));
    let (_, reasons) = wanted("uplinks: [eth0], vlan: 20", &host([false, true]));
    assert_eq!(reasons, ["UplinkDown"]);
    // A link-local address, which the kernel gives to every device, is no reason.
    let mut free = host([true, true]);
    for address in owned.addresses() {
        free.apply(fief_host::Event::AddressGone(address));
    }
    let local = Address { device: 2, net: "fe80::1/64".parse().unwrap(), ours: false };
    free.apply(fief_host::Event::Address(local));
    assert_eq!(wanted("uplinks: [eth0]", &free).1, [] as [String; 0]);
    let global = Address { device: 2, net: "2001:db8::1/64".parse().unwrap(), ours: false };
    free.apply(fief_host::Event::Address(global));
    assert_eq!(wanted("uplinks: [eth0]", &free).1, ["AddressesOnPort"]);
}

#[test]
fn names_of_devices_fit_and_stay_apart() {
    assert_eq!(short_name("n", "web", "blue/web"), "n-web");
    let long = short_name("e", "a-name-that-is-long", "x");
    assert_eq!(long.len(), 14, "{long}");
    assert_ne!(long, short_name("e", "a-name-that-is-long", "y"));
    // What looks like a hashed name is hashed.
    assert_ne!(short_name("e", &long[2..], "z"), long);
}

#[test]
fn with_a_vrf_names_are_the_hosts_and_the_rest_is_as_without() {
    let of = |isolation: &str| {
        let head = HEAD.replacen("blue }", &format!("blue }}\nspec: {{ isolation: {isolation} }}"), 1);
        let more = "spec: { subnets: [10.10.1.0/24], uplinks: [eth0] }\n---\napiVersion: fief/v1alpha1\n\
            kind: Endpoint\nmetadata: { name: app, tenant: blue }\n\
            spec: { networks: [{ network: web }], attach: { netns: app } }\n";
        let wanted =
            Stock::of(&format!("{head}{NETWORK}{more}")).wanted(&host([true, true]), &HashMap::new());
        wanted.spaces["blue"].clone()
    };
    let (vrf, netns) = (of("vrf"), of("netns"));
    assert_eq!((vrf.vrf, netns.vrf), (Some(256_000_001), None));
    let names = |space: &Space| {
        let segment = &space.segments["blue/web"];
        (segment.bridge.clone(), segment.ports.keys().next().cloned().unwrap())
    };
    assert_eq!(names(&netns), ("n-web".to_owned(), "e-app".to_owned()));
    let (bridge, port) = names(&vrf);
    assert!(bridge.len() == 14 && port.len() == 14 && bridge != "n-web", "{bridge} {port}");
    assert_eq!(
        (&vrf.transit, vrf.segments["blue/web"].exit),
        (&netns.transit, netns.segments["blue/web"].exit)
    );
}

#[test]
fn labels_are_nothing_that_is_to_be_made() {
    let space = |labels: &str, address: &str| {
        let stock = Stock::of(&format!(
            "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: blue }}\n---\napiVersion: fief/v1alpha1\nkind: \
             Network\nmetadata: {{ name: web, tenant: blue }}\nspec: {{ type: local, subnets: [10.10.1.0/24] }}\n---\n\
             apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: app, tenant: blue, labels: {labels} }}\nspec:\n  \
             networks: [{{ network: web, address: {address} }}]\n  attach: {{ netns: app }}\n"
        ));
        stock.wanted(&host([true, true]), &HashMap::new()).spaces.remove("blue").unwrap()
    };
    let before = space("{ app: shop }", "10.10.1.20");
    let labelled = space("{ app: other, role: front }", "10.10.1.20");
    assert!(before != labelled && before.differs_in_labels_only(&labelled));
    assert!(!before.differs_in_labels_only(&space("{ app: shop }", "10.10.1.21")));
}
