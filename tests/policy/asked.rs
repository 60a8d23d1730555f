//! `fief policy test`.

use std::fmt::Write;

use fief_policykit::matrix;
use fief_policykit::scene::End;
use fief_testkit::DaemonOptions;
use fief_tests::scene::soak;

use crate::shop::{Shop, WEB, blue, endpoint, policy, tenant};

#[test]
fn a_verdict_names_the_line_that_decided() {
    let Some(shop) = Shop::furnished("policy-asked") else { return };
    let file = shop.lab.dir().join("web.yaml");
    std::fs::write(&file, WEB).unwrap();
    shop.daemon.cli(&["apply", "-f", file.to_str().unwrap()]).ok();
    let said = shop.test("front", "back", "http").ok().stdout;
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[1].starts_with("egress     blue/front  allowed  -")
            && lines[1].ends_with("no policy is about it"),
        "{said}"
    );
    assert!(lines[2].starts_with("ingress    blue/back   allowed"), "{said}");
    assert!(
        lines[2].contains("web.yaml:7") && lines[2].ends_with("NetworkPolicy shop/web spec.ingress[0]"),
        "{said}"
    );
    assert_eq!(lines[3], "8080/tcp from blue/front (10.1.0.1) to blue/back (10.1.0.2): allowed");
    let denied = shop.test("other", "blue/back", "8080");
    assert_eq!(denied.code(), 1);
    assert!(denied.stdout.contains("web.yaml:5") && denied.stdout.contains("spec.podSelector"), "{denied}");
    let json = shop
        .daemon
        .cli(&["policy", "test", "--from", "other", "--to", "back", "--port", "80", "-o", "json"])
        .fails();
    assert_eq!(
        (json.json()["allowed"].as_bool(), json.json()["sides"][1]["rule"]["line"].as_u64()),
        (Some(false), Some(5))
    );

    // What names and protocols mean.
    for (from, to, port, code) in [
        ("front", "back", "80/tcp", 1),
        ("front", "back", "8080/tcp", 0),
        ("front", "back", "8080/udp", 1),
        ("front", "back", "http/tcp", 0),
        ("front", "back", "icmp", 1),
        ("back", "front", "icmp", 0),
        ("back", "front", "443/sctp", 0),
        // An address that is an endpoint's is this endpoint; any other is the world.
        ("10.1.0.1", "back", "8080", 0),
        ("192.0.2.1", "back", "8080", 1),
        ("back", "192.0.2.1", "443", 0),
        ("front", "10.1.0.2", "http", 0),
    ] {
        let output = shop.test(from, to, port);
        assert_eq!(output.code(), code, "{from} {to} {port}: {output}");
    }
    for (from, to, port, says) in [
        ("nobody", "back", "80", "there is no endpoint nobody"),
        ("192.0.2.1", "192.0.2.2", "80", "neither"),
        ("back", "back", "80", "itself"),
        ("front", "back", "0", "`0` is no port"),
        ("front", "back", "80/dccp", "`dccp` is no protocol"),
        ("front", "back", "ldap", "has no port `ldap`"),
        ("front", "192.0.2.1", "http", "an address gives no port the name"),
    ] {
        let output = shop.test(from, to, port);
        assert!(output.code() == 2 && output.stderr.contains(says), "{from} {to} {port}: {output}");
    }
}

/// The positive half of what a host is told that could judge nothing.
#[test]
fn the_doctor_says_whether_policies_are_possible() {
    let Some(shop) = Shop::open("policy-doctor", DaemonOptions::default()) else { return };
    let checks = shop.daemon.cli(&["doctor", "-o", "json"]).ok().json();
    let check = checks.as_array().and_then(|all| all.iter().find(|check| check["name"] == "policies"));
    assert_eq!(check.expect("a line of the doctor's")["verdict"], "ok", "{checks}");
}

#[test]
fn each_side_is_asked_by_the_policies_of_its_tenant() {
    let Some(shop) = Shop::furnished("policy-sides") else { return };
    let red = tenant("red").replace("}\n---", "}\nspec: { policyMode: audit }\n---");
    let documents = red
        + &endpoint("red", "front", "app: front", "10.1.0.9")
        + &policy("red", "none", "{ podSelector: {}, policyTypes: [Egress] }");
    shop.apply(&[], &documents).ok();
    // To blue, red's front is an address, whatever its labels are.
    let output = shop.test("red/front", "blue/back", "http");
    assert_eq!(output.code(), 1);
    assert!(output.stdout.contains("egress     red/front  denied"), "{output}");
    assert!(output.stdout.contains("ingress    blue/back  denied"), "{output}");
    assert!(output.stdout.contains("red/front only records it"), "{output}");
    let said = shop.test("front", "back", "http");
    assert!(said.code() == 2 && said.stderr.contains("2 tenants have an endpoint front"), "{said}");
    let words = ["policy", "test", "--from", "front", "--to", "back", "--port", "http", "--tenant", "blue"];
    shop.daemon.cli(&words).ok();
    // Labels of namespaces, and what an endpoint's new labels make of it.
    shop.apply(&[], &blue().replace("app: other", "app: front")).ok();
    assert_eq!(shop.test("other", "back", "http").code(), 0);
    // One whose address is not known yet is asked where no rule asks for it.
    let leased = endpoint("blue", "leased", "app: front", "10.1.0.7").replace(", address: 10.1.0.7", "");
    shop.apply(&[], &leased).ok();
    assert_eq!(shop.test("leased", "back", "http").code(), 0);
    shop.apply(
        &[],
        &policy(
            "blue",
            "block",
            "{ podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: 10.9.0.0/16 } }] }] }",
        ),
    )
    .ok();
    let output = shop.test("leased", "back", "http");
    assert!(output.code() == 2 && output.stderr.contains("has no address yet"), "{output}");
}

/// Some steps of the outside truth table, by the shipped daemon: all of its documents, and a part of its questions.
#[test]
fn networkpolicy_matrix_asked() {
    let Some(cases) = matrix::load() else { return };
    let Some(shop) = Shop::open("policy-matrix", DaemonOptions::default()) else { return };
    let (stride, pace) = if soak() { (1, 11) } else { (29, 11) };
    let (mut asked, mut allowed, mut steps, mut wrong) = (0, 0, 0, String::new());
    for (number, case) in cases.iter().enumerate().step_by(stride) {
        for (scene, expected) in matrix::steps(case) {
            steps += 1;
            shop.apply(&["--set", "matrix", "--prune"], &scene.yaml("matrix")).ok();
            for one in expected.iter().skip(number % pace).step_by(pace) {
                let (End::Pod(from), End::Pod(to)) = (one.trip.from, one.trip.to) else { continue };
                if from == to {
                    continue;
                }
                let [from, to] = [from, to].map(|pod| scene.pods[pod].endpoint());
                let protocol = match one.trip.protocol {
                    6 => "tcp",
                    17 => "udp",
                    _ => "sctp",
                };
                let output = shop.test(&from, &to, &format!("{}/{protocol}", one.trip.port));
                asked += 1;
                allowed += usize::from(one.combined);
                if output.code() != i32::from(!one.combined) {
                    writeln!(wrong, "case {number}: {output}").unwrap();
                }
            }
        }
    }
    println!("{steps} steps, {asked} questions, {allowed} of them allowed");
    assert_eq!(wrong, "");
    assert!(asked > 200 && allowed * 5 > asked && allowed < asked, "{allowed} of {asked}");
}
