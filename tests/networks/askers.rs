//! Whom the services of a network answer, and what about. Each check has a name that scripts/test-teeth.sh knows.

use std::net::Ipv4Addr;
use std::time::Duration;

use fief_testkit::{Capture, Frame, attempt, eventually, inject};

use crate::app::App;
use crate::node::{Node, by_dhcp, endpoint, network, network_named, tenant};
use crate::room::{NEVER, SOON, wait};

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
const METADATA: &str = "http://169.254.169.254/latest/meta-data";

/// A client's message of DHCP (RFC 2131) in a frame of its sender's: what it is, whom it names, which address it asks
/// for.
fn dhcp(sender: [u8; 6], kind: u8, named: [u8; 6], wanted: Option<Ipv4Addr>) -> Vec<u8> {
    // BOOTREQUEST, Ethernet, six bytes; then a number, and fields that a client without an address leaves empty.
    let mut message = vec![1, 1, 6, 0, 7, 7, 7, kind];
    message.resize(28, 0);
    message.extend(named);
    message.resize(236, 0);
    message.extend([99, 130, 83, 99, 53, 1, kind]);
    if let Some(address) = wanted {
        message.extend([50, 4]);
        message.extend(address.octets());
    }
    message.push(255);
    Frame::new(sender, [0xff; 6]).ip("0.0.0.0", "255.255.255.255").udp(68, 67, &message)
}

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

#[test]
fn who_names_another_in_dhcp_gets_nothing_and_takes_nothing() {
    let Some(node) = Node::open("named", 1) else { return };
    // Two addresses: one for each of those who are there. A third is in the documents only.
    let range = "dhcp: { range: 10.10.1.50-10.10.1.51 }";
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &[range])]);
    let (liar, honest) = (node.workload("ni1", "liar"), node.workload("ni1", "honest"));
    let absent = [0x02, 0, 0, 0, 0, 0x77];
    let card = "{ network: net, interface: eth0, mac: \"02:00:00:00:00:77\" }".to_owned();
    node.apply(&[
        endpoint("ni1", "liar", &[by_dhcp("net", "eth0")], &liar.attach()),
        endpoint("ni1", "honest", &[by_dhcp("net", "eth0")], &honest.attach()),
        endpoint("ni1", "absent", &[card], "attach: { netns: nobody-there }"),
    ]);
    [&liar, &honest].iter().for_each(|app| {
        app.wait_for("eth0");
        app.ns.ip("link set eth0 up\n");
    });
    let own = liar.ns.mac("eth0");
    let capture = Capture::on(&liar.ns, "eth0");
    // BOOTREPLY to this client.
    let answered = |named: [u8; 6]| {
        capture.count(|frame| frame.bytes.get(42) == Some(&2) && frame.bytes.get(70..76) == Some(&named))
    };
    for named in [absent, honest.ns.mac("eth0")] {
        for _ in 0..3 {
            inject(&liar.ns, "eth0", &dhcp(own, DISCOVER, named, None));
            for address in [50, 51].map(|last| Ipv4Addr::new(10, 10, 1, last)) {
                inject(&liar.ns, "eth0", &dhcp(own, REQUEST, named, Some(address)));
            }
        }
        wait(NEVER);
        assert_eq!(answered(named), 0, "it was told what is another's");
    }
    // As itself it is answered, by the same frame.
    eventually(SOON, || {
        inject(&liar.ns, "eth0", &dhcp(own, DISCOVER, own, None));
        wait(Duration::from_millis(100));
        if answered(own) > 0 { Ok(()) } else { Err("no offer") }.map_err(str::to_owned)
    });
    let mut taken = [liar.udhcpc("eth0").address, honest.udhcpc("eth0").address].map(|it| it.octets()[3]);
    taken.sort_unstable();
    assert_eq!(taken, [50, 51], "both addresses were there for them");
    assert_eq!(node.view("network", "ni1", "net")["status"]["leases"], 2);
}

/// A tenant with two networks and an endpoint on each; they reach each other.
#[track_caller]
fn two_networks(name: &str) -> Option<(Node, App, App)> {
    let node = Node::open(name, 1)?;
    node.apply(&[
        tenant("ni1"),
        network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"]),
        network_named("ni1", "other", "10.10.2.0/24", &["uplinks: [eth0]"]),
    ]);
    // Not `a`: dig(1) takes that for a type.
    let a = node.place("ni1", "app", A);
    let b = node.workload("ni1", "b");
    let card = "{ network: other, interface: eth0, address: 10.10.2.12 }".to_owned();
    node.apply(&[endpoint("ni1", "b", &[card], &b.attach())]);
    let beyond = Ipv4Addr::new(10, 10, 2, 12);
    eventually(SOON, || if a.pings(beyond) { Ok(()) } else { Err(format!("{beyond} does not answer")) });
    Some((node, a, b))
}

#[test]
fn a_networks_names_are_for_those_who_are_on_it() {
    let Some((_node, a, b)) = two_networks("asker") else { return };
    let other = Ipv4Addr::new(10, 10, 2, 1);
    let at_b = [Ipv4Addr::new(10, 10, 2, 12)];
    assert_eq!(b.dig(other, "b"), at_b);
    assert_eq!(a.dig(GATEWAY, "app"), [A]);
    // The way is open, and the other network's gateway is there; it only does not answer.
    assert!(a.pings(other));
    assert_eq!(a.dig(other, "b"), [] as [Ipv4Addr; 0]);
    assert_eq!(a.dig(GATEWAY, "b"), [] as [Ipv4Addr; 0]);
    assert_eq!(b.dig(other, "b"), at_b);
}

#[test]
fn each_caller_hears_of_its_own_network() {
    let Some((_node, a, b)) = two_networks("caller") else { return };
    for (app, network, name, address) in
        [(&a, "ni1/net", "ni1.app", "10.10.1.11"), (&b, "ni1/other", "ni1.b", "10.10.2.12")]
    {
        let asked = ["network-name", "instance-id", "local-ipv4"].map(|leaf| {
            attempt(SOON, || app.fetch(&format!("{METADATA}/{leaf}"))).unwrap_or_else(|why| panic!("{why}"))
        });
        assert_eq!(asked, [network, name, address]);
    }
}

#[test]
fn who_has_no_address_of_this_network_is_told_nothing() {
    let Some(node) = Node::open("stranger", 1) else { return };
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &[])]);
    let app = node.place("ni1", "a", A);
    app.ns.ip("addr add 10.10.1.77/24 dev eth0\n");
    let curl = node.town.tools.curl.display().to_string();
    let url = format!("{METADATA}/instance-id");
    let ask = |from: &str| {
        let words =
            ["-sS", "--noproxy", "*", "--max-time", "3", "-w", " %{http_code}", "--interface", from, &url];
        app.ns.run(&[&[curl.as_str()], &words[..]].concat()).stdout
    };
    eventually(SOON, || match ask("10.10.1.11") {
        said if said == "ni1.a 200" => Ok(()),
        said => Err(said),
    });
    let said = ask("10.10.1.77");
    assert!(said.ends_with("404") && !said.contains("ni1.a"), "an address that nobody was given: {said}");
    assert_eq!(ask("10.10.1.11"), "ni1.a 200");
}

#[test]
fn other_labels_are_heard_of_at_once_and_nothing_is_made_anew() {
    let Some(node) = Node::open("labels", 1) else { return };
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &[])]);
    let app = node.place("ni1", "app", A);
    let b = node.place("ni1", "b", Ipv4Addr::new(10, 10, 1, 12));
    let labels = || -> Result<serde_json::Value, String> {
        let said = app.fetch("http://169.254.169.254/fief/v1/endpoint")?;
        let said: serde_json::Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        Ok(said["labels"].clone())
    };
    assert_eq!(attempt(SOON, labels), Ok(serde_json::json!({})));
    let ports = || node.run_inside("ni1", &["ip", "-o", "link", "show", "type", "veth"]).ok().stdout;
    let before = ports();
    // A port that is made as it is already says so to whoever listens.
    let mut heard = node.town.host.spawn(&[
        "nsenter",
        &format!("--net={}", node.inside("ni1").display()),
        "ip",
        "monitor",
        "link",
    ]);
    wait(Duration::from_millis(300));
    for role in ["front", "back"] {
        let plain = endpoint("ni1", "app", &[crate::node::at(A)], &app.attach());
        let labelled = plain.replace("tenant: ni1 }", &format!("tenant: ni1, labels: {{ role: {role} }} }}"));
        assert_ne!(plain, labelled);
        node.apply(&[labelled]);
        assert_eq!(labels(), Ok(serde_json::json!({ "role": role })));
    }
    assert_eq!(ports(), before);
    assert_eq!(heard.output(), "");
    // Of one that goes it is told.
    node.daemon.cli(&["delete", "endpoint", "ni1/b"]).ok();
    heard.wait_for_output("Deleted", SOON);
    drop(b);
}
