//! Policies in force: at ports of endpoints, for packets of programs that know nothing of them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use fief_testkit::{Capture, Dial, Frame, eventually, inject_all, slowness};

use fief_tests::scene::soak;

use crate::app::App;
use crate::flow::{Flow, Talk};
use crate::node::{Node, at, network, tenant};
use crate::room::{SOON, wait};
use crate::town::Town;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 13);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
const ECHO: u16 = 7000;
const SECOND: u16 = 7001;

/// An endpoint that policies can select by its name.
fn labelled(name: &str, address: Ipv4Addr, app: &App) -> String {
    labelled_of("shop", name, address, name, app)
}

fn labelled_of(tenant: &str, name: &str, address: Ipv4Addr, label: &str, app: &App) -> String {
    format!(
        "apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: {name}, tenant: {tenant}, \
         labels: {{ app: {label} }} }}\nspec:\n  networks: [{}]\n  {}\n",
        at(address),
        app.attach()
    )
}

/// The tenant's policy `name`.
fn policy(name: &str, spec: &str) -> String {
    policy_of("shop", name, spec)
}

fn policy_of(tenant: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: {name}, labels: \
         {{ fief/tenant: {tenant} }} }}\nspec: {spec}\n"
    )
}

/// Who has this label calls the server at one port.
fn called_by(label: &str, port: u16) -> String {
    policy(
        "server",
        &format!(
            "{{ podSelector: {{ matchLabels: {{ app: server }} }}, policyTypes: [Ingress, Egress], ingress: [{{ from: \
             [{{ podSelector: {{ matchLabels: {{ app: {label} }} }} }}], ports: [{{ port: {port} }}, \
             {{ port: {port}, protocol: UDP }}] }}] }}"
        ),
    )
}

struct Shop {
    node: Node,
    client: App,
    server: App,
    other: App,
}

impl Shop {
    /// A client, a server and somebody else on one network, without policies.
    fn open(name: &str) -> Option<Shop> {
        let node = Node::open(name, 1)?;
        let [client, server, other] = ["client", "server", "other"].map(|name| node.workload("shop", name));
        let spec = ["uplinks: [eth0]", "dhcp: { range: 10.10.1.100-10.10.1.200 }"];
        node.apply(&[
            tenant("shop"),
            network("shop", "10.10.1.0/24", &spec),
            labelled("client", CLIENT, &client),
            labelled("server", SERVER, &server),
            labelled("other", OTHER, &other),
        ]);
        for (app, address) in [(&client, CLIENT), (&server, SERVER), (&other, OTHER)] {
            app.wait_for("eth0");
            eventually(SOON, || {
                (app.address("eth0") == Some(address)).then_some(()).ok_or(address.to_string())
            });
        }
        Some(Shop { node, client, server, other })
    }
}

/// Is a connection answered, both ways?
fn connects(from: &App, to: Ipv4Addr, port: u16) -> bool {
    let dial = Dial::to(SocketAddr::from((to, port))).timeout(Duration::from_millis(700) * slowness());
    let Ok(stream) = from.ns.enter(|| dial.connect()) else { return false };
    Talk::of(stream).tries(Duration::from_millis(700) * slowness())
}

#[test]
fn who_is_not_allowed_is_not_heard() {
    let Some(shop) = Shop::open("pol-wall") else { return };
    let Shop { node, client, server, other } = &shop;
    let _echoes = [server.echo(ECHO), server.echo(SECOND), client.echo(ECHO)];
    let all = [(client, ECHO), (client, SECOND), (other, ECHO), (other, SECOND)];
    for (from, port) in all {
        assert!(connects(from, SERVER, port), "without policies everybody is heard");
    }
    node.apply(&[called_by("client", ECHO)]);
    let heard: Vec<bool> = all.iter().map(|(from, port)| connects(from, SERVER, *port)).collect();
    assert_eq!(heard, [true, false, false, false]);
    let udp = |from: &App, to, port| from.hears((to, port).into(), Duration::from_millis(500)).is_ok();
    assert!(udp(client, SERVER, ECHO) && !udp(other, SERVER, ECHO) && !udp(client, SERVER, SECOND));
    assert!(!connects(server, CLIENT, ECHO), "the server calls nobody");
    assert!(connects(other, CLIENT, ECHO), "of whom no policy speaks");
    // Another label, and at once it is somebody else.
    node.apply(&[labelled_of("shop", "other", OTHER, "client", other)]);
    assert!(connects(other, SERVER, ECHO));
    node.apply(&[labelled("other", OTHER, other)]);
    assert!(!connects(other, SERVER, ECHO));
    node.daemon.cli(&["delete", "policy", "shop/default/server"]).ok();
    for (from, port) in all {
        assert!(connects(from, SERVER, port), "without policies again");
    }
}

/// A datagram that waits for its answer.
struct Question {
    asker: UdpSocket,
    /// Beside the asker, and has asked nothing.
    silent: UdpSocket,
    asked: UdpSocket,
}

impl Question {
    #[track_caller]
    fn ask(from: &App, to: &App) -> Question {
        let socket = |app: &App| {
            let socket = app.ns.enter(|| UdpSocket::bind((app.address("eth0").expect("an address"), 0)));
            let socket = socket.expect("a free port");
            socket.set_read_timeout(Some(Duration::from_millis(700) * slowness())).expect("a timeout");
            socket
        };
        let [asker, silent, asked] = [from, from, to].map(socket);
        asker.send_to(b"question", asked.local_addr().expect("an address")).expect("it is sent");
        asked.recv(&mut [0; 16]).expect("the question arrives");
        Question { asker, silent, asked }
    }

    #[track_caller]
    fn hears_late(self) {
        for (socket, hears) in [(&self.asker, true), (&self.silent, false)] {
            self.asked.send_to(b"answer", socket.local_addr().expect("an address")).expect("it is sent");
            assert_eq!(
                socket.recv(&mut [0; 16]).is_ok(),
                hears,
                "the one that asked hears, the other does not"
            );
        }
    }
}

#[test]
fn what_goes_on_goes_on_through_first_policies_and_restarts() {
    let Some(mut shop) = Shop::open("pol-goes") else { return };
    let _echoes = [shop.server.echo(ECHO), shop.client.echo(ECHO)];
    // Both directions: what the server began, and what was begun at it.
    let site = App::of(&shop.node.town, shop.node.town.site.clone());
    let _outside = site.echo(ECHO);
    let mut talks = [
        Talk::open(&shop.client.ns, (SERVER, ECHO).into()),
        Talk::open(&shop.client.ns, (Town::SITE, ECHO).into()),
    ];
    let mut forbidden = Talk::open(&shop.other.ns, (SERVER, ECHO).into());
    forbidden.goes_on();
    let flows = [
        Flow::start(&shop.client.ns, (SERVER, ECHO).into()),
        Flow::start(&shop.client.ns, (Town::SITE, ECHO).into()),
    ];
    talks.iter_mut().for_each(Talk::goes_on);
    // The client is called by nobody, and gets its answers.
    let closed = policy("client", "{ podSelector: { matchLabels: { app: client } } }");
    shop.node.apply(&[called_by("client", ECHO), closed]);
    talks.iter_mut().for_each(Talk::goes_on);
    assert!(!forbidden.tries(Duration::from_millis(700)), "a connection that may not be there is silent");
    for _ in 0..3 {
        let question = Question::ask(&shop.client, &shop.other);
        shop.node.daemon.kill9();
        talks.iter_mut().for_each(Talk::goes_on);
        assert!(!connects(&shop.other, SERVER, ECHO) && connects(&shop.client, SERVER, ECHO));
        shop.node.daemon.restart();
        talks.iter_mut().for_each(Talk::goes_on);
        assert!(!connects(&shop.other, SERVER, ECHO) && connects(&shop.client, SERVER, ECHO));
        question.hears_late();
    }
    flows.into_iter().for_each(|flow| println!("{:?}", flow.lost_nothing()));
}

#[test]
fn policies_hold_while_the_daemon_is_killed() {
    let (kills, connections) = if soak() { (100, 1000) } else { (4, 100) };
    let Some(mut shop) = Shop::open("pol-kill") else { return };
    let _echoes = [shop.server.echo(ECHO), shop.client.echo(ECHO)];
    // One datagram a millisecond from each: as they go on, one comes back always and one never more.
    let forbidden = Flow::start(&shop.other.ns, (SERVER, ECHO).into());
    shop.node.apply(&[called_by("client", ECHO)]);
    let allowed = Flow::start(&shop.client.ns, (SERVER, ECHO).into());
    let mut talks: Vec<Talk> =
        (0..connections).map(|_| Talk::open(&shop.client.ns, (SERVER, ECHO).into())).collect();
    for _ in 0..kills {
        shop.node.daemon.kill9();
        talks.iter_mut().for_each(Talk::goes_on);
        shop.node.daemon.restart();
        talks.iter_mut().for_each(Talk::goes_on);
    }
    println!("{:?}", allowed.lost_nothing());
    let tally = forbidden.finish();
    let first = tally.lost.first().copied().expect("it was refused");
    assert!(tally.sent > first + 1000, "{} sent, refused from {first} on", tally.sent);
    assert_eq!(tally.returned, first, "what came back came before the policy");
}

#[test]
fn a_change_counts_at_once_on_the_short_way_too() {
    let Some(shop) = Shop::open("pol-short") else { return };
    let _echo = shop.server.echo(ECHO);
    // A way would be remembered for a second; how much of that is left is chance.
    for _ in 0..3 {
        shop.node.apply(&[called_by("client", ECHO)]);
        let flow = Flow::start(&shop.client.ns, (SERVER, ECHO).into());
        wait(Duration::from_millis(300));
        crate::short::count(&shop.node, "shop");
        wait(Duration::from_millis(1500));
        let whole = crate::short::counted(&shop.node, "shop");
        assert!((1..100).contains(&whole), "{whole} packets of more than a thousand took the whole way");
        shop.node.apply(&[called_by("somebody", ECHO)]);
        wait(Duration::from_millis(400));
        let tally = flow.finish();
        let last = tally.lost.first().copied().expect("nothing comes back any more");
        assert_eq!(tally.returned, last, "what came back came before the change: {}", tally.sent);
        assert!(tally.sent - last > 300, "{last} of {} came back, one a millisecond", tally.sent);
        shop.node.run_inside("shop", &["nft", "delete table inet probe"]).ok();
    }
}

#[test]
fn a_change_counts_at_once_on_the_short_way_to_the_outside_too() {
    let Some(shop) = Shop::open("pol-out") else { return };
    let _echo = App::of(&shop.node.town, shop.node.town.site.clone()).echo(ECHO);
    let outwards = |port: u16| {
        let to = Town::SITE;
        let spec = format!(
            "{{ podSelector: {{}}, policyTypes: [Egress], egress: [{{ to: [{{ ipBlock: {{ cidr: {to}/32 }} }}], \
             ports: [{{ port: {port}, protocol: UDP }}] }}] }}"
        );
        policy("outwards", &spec)
    };
    crate::host_way::count(&shop.node);
    for _ in 0..3 {
        shop.node.apply(&[outwards(ECHO)]);
        let flow = Flow::start(&shop.client.ns, (Town::SITE, ECHO).into());
        wait(Duration::from_millis(300));
        crate::host_way::counted(&shop.node);
        wait(Duration::from_millis(1500));
        let whole = crate::host_way::counted(&shop.node);
        assert!(whole < 100, "{whole} packets of more than a thousand took the whole way through the host");
        shop.node.apply(&[outwards(SECOND)]);
        wait(Duration::from_millis(400));
        let tally = flow.finish();
        let last = tally.lost.first().copied().expect("nothing comes back any more");
        assert_eq!(tally.returned, last, "what came back came before the change: {}", tally.sent);
        assert!(tally.sent - last > 300, "{last} of {} came back, one a millisecond", tally.sent);
    }
}

#[test]
fn the_network_itself_is_reached_whatever_policies_say() {
    let Some(shop) = Shop::open("pol-ground") else { return };
    let Shop { node, client, .. } = &shop;
    node.apply(&[policy("all", "{ podSelector: {}, policyTypes: [Ingress, Egress] }")]);
    // Leases come; names and everything else need a rule.
    assert_eq!(client.udhcpc("eth0").address, CLIENT);
    assert!(client.dig(GATEWAY, "server").is_empty());
    node.apply(&[policy(
        "all",
        "{ podSelector: {}, policyTypes: [Ingress, Egress], egress: [{ to: [{ ipBlock: { cidr: 10.10.1.1/32 } }], \
         ports: [{ port: 53, protocol: UDP }] }] }",
    )]);
    assert_eq!(client.dig(GATEWAY, "server"), [SERVER]);
}

#[test]
fn one_address_in_two_tenants_is_allowed_in_one_and_denied_in_the_other() {
    let Some(shop) = Shop::open("pol-twins") else { return };
    let Shop { node, client, server, .. } = &shop;
    let [twin, twins_server] = ["client", "server"].map(|name| node.workload("twin", name));
    node.apply(&[
        tenant("twin"),
        network("twin", "10.10.1.0/24", &[]),
        labelled_of("twin", "client", CLIENT, "client", &twin),
        labelled_of("twin", "server", SERVER, "server", &twins_server),
    ]);
    twin.wait_for("eth0");
    let _echoes = [server.echo(ECHO), twins_server.echo(ECHO)];
    eventually(SOON, || connects(&twin, SERVER, ECHO).then_some(()).ok_or("not yet".to_owned()));
    let denies = "{ podSelector: { matchLabels: { app: server } } }";
    node.apply(&[called_by("client", ECHO), policy_of("twin", "server", denies)]);
    assert!(connects(client, SERVER, ECHO) && !connects(&twin, SERVER, ECHO));
    node.apply(&[
        policy("server", denies),
        policy_of("twin", "server", "{ podSelector: {}, ingress: [{}] }"),
    ]);
    assert!(!connects(client, SERVER, ECHO) && connects(&twin, SERVER, ECHO));
}

/// What `fief flows` says, as JSON.
fn flows(node: &Node, more: &[&str]) -> Vec<serde_json::Value> {
    let words = [&["flows", "-o", "json"], more].concat();
    node.daemon.cli(&words).ok().json().as_array().cloned().unwrap_or_default()
}

#[test]
fn what_is_dropped_names_the_line_that_says_so() {
    let Some(shop) = Shop::open("pol-drop") else { return };
    let Shop { node, client, server, other } = &shop;
    let _echoes = [server.echo(ECHO), server.echo(SECOND)];
    node.apply(&[called_by("client", ECHO)]);
    assert!(connects(client, SERVER, ECHO));
    assert_eq!(flows(node, &[]), [] as [serde_json::Value; 0], "nothing was dropped");
    assert!(!connects(other, SERVER, ECHO) && !connects(client, SERVER, SECOND));
    let dropped = flows(node, &["--verdict", "dropped", "--tenant", "shop"]);
    let of = |peer: &str, port: u16| {
        let is_it = |flow: &&serde_json::Value| flow["peer"] == peer && flow["port"] == port;
        dropped.iter().find(is_it).unwrap_or_else(|| panic!("{peer} at {port}: {dropped:#?}"))
    };
    for (peer, address, port) in [("shop/other", OTHER, ECHO), ("shop/client", CLIENT, SECOND)] {
        let flow = of(peer, port);
        assert_eq!(flow["endpoint"], "shop/server");
        assert_eq!((&flow["direction"], &flow["protocol"]), (&"ingress".into(), &"tcp".into()));
        assert_eq!((&flow["verdict"], &flow["reason"]), (&"dropped".into(), &"rule".into()));
        assert_eq!(flow["peerAddress"], address.to_string());
        assert_eq!(flow["rule"]["policy"], "NetworkPolicy default/server");
        assert_eq!(flow["rule"]["line"], 4, "the line of `podSelector`: {flow}");
        assert!(flow["packets"].as_u64() >= Some(1));
    }
    assert_eq!(dropped.len(), 2, "{dropped:#?}");
    // The same for people.
    let said = node.daemon.cli(&["flows"]).ok().stdout;
    assert!(said.contains("shop/other (10.10.1.13)") && said.contains("7000/tcp"), "{said}");
    assert!(flows(node, &["--verdict", "audited"]).is_empty());
    assert!(flows(node, &["--tenant", "nobody"]).is_empty());

    // Only recorded, it passes, and is told apart.
    let audited = tenant("shop").trim_end().to_owned() + "\nspec: { policyMode: audit }\n";
    node.apply(&[audited]);
    assert!(connects(other, SERVER, ECHO));
    let recorded = flows(node, &["--verdict", "audited"]);
    assert!(recorded.iter().any(|flow| flow["peer"] == "shop/other"), "{recorded:#?}");
    node.apply(&[tenant("shop")]);
    assert!(!connects(other, SERVER, ECHO));
}

#[test]
fn nobody_on_a_network_is_somebody_else() {
    let Some(shop) = Shop::open("pol-liar") else { return };
    let Shop { node, client, server, other } = &shop;
    let _echo = server.echo(ECHO);
    // Without any policy too.
    assert!(connects(other, SERVER, ECHO));
    other.ns.run(&["ip", "address", "add", "10.10.1.99/24", "dev", "eth0"]).ok();
    let from = |address: Ipv4Addr| {
        let dial =
            Dial::to((SERVER, ECHO).into()).bind((address, 0).into()).timeout(Duration::from_millis(500));
        other.ns.enter(|| dial.udp(b"hello")).is_ok()
    };
    assert!(from(Ipv4Addr::new(10, 10, 1, 99)), "an address that nobody has");
    other.ns.run(&["ip", "address", "add", &format!("{CLIENT}/32"), "dev", "eth0"]).ok();
    assert!(!from(CLIENT), "one that somebody has");
    // And by ARP, to whoever would believe it.
    let heard = Capture::on(&server.ns, "eth0");
    let (own, theirs) = (other.ns.mac("eth0"), server.ns.mac("eth0"));
    let claims = |address| Frame::new(own, theirs).arp_reply(address, (theirs, SERVER));
    let nobodys = Ipv4Addr::new(10, 10, 1, 98);
    inject_all(&other.ns, "eth0", &[claims(CLIENT), claims(GATEWAY), claims(nobodys)]);
    assert!(heard.wait_for(&claims(nobodys)[14..], SOON), "the control");
    assert!(!heard.contains(&claims(CLIENT)[14..]) && !heard.contains(&claims(GATEWAY)[14..]));
    assert!(connects(client, SERVER, ECHO), "whose it is, still has it");
    let dropped = flows(node, &["--verdict", "dropped"]);
    let is_it = |flow: &&serde_json::Value| flow["endpoint"] == "shop/other" && flow["reason"] == "spoofed";
    let lies: Vec<_> = dropped.iter().filter(is_it).collect();
    assert!(lies.iter().any(|flow| flow["address"] == CLIENT.to_string()), "{dropped:#?}");
}
