//! The shipped `fief` with a daemon that gives canned answers: what is asked, and how answers are told.

mod common;

use common::{BLUE, Ran, daemon, fief};
use fief_api::Counters;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

fn root() -> TempDir {
    let root = tempdir().unwrap();
    std::fs::write(root.path().join("blue.yaml"), BLUE).unwrap();
    root
}

fn status(phase: &str) -> Value {
    let counters =
        Counters { rx_bytes: 2048, tx_bytes: 60, drop_device_in: 1, drop_spoof: 2, ..Counters::default() };
    json!({
        "slot": 1, "table": 1001, "mark": "0x1/0xffff", "isolation": "fib", "phase": phase,
        "conditions": [{ "reason": "DeviceMissing", "message": "eth0 is not there" }],
        "counters": counters,
    })
}

fn outcome(name: &str, action: &str) -> Value {
    json!({ "kind": "Tenant", "name": name, "action": action })
}

fn view(name: &str) -> Value {
    let address = if name == "blue" { "192.0.2.11/24" } else { "192.0.2.12/24" };
    let tenant = json!({
        "metadata": { "name": name },
        "spec": { "interfaces": [{ "name": "eth0", "addresses": [address] }] },
    });
    json!({ "tenant": tenant, "set": "default", "status": status("Ready") })
}

fn ok(body: Value) -> (&'static str, String) {
    ("200 OK", body.to_string())
}

/// The JSON of a call.
fn body(call: &str) -> Value {
    serde_json::from_str(call.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn an_apply_is_told_object_by_object() {
    let root = root();
    let mut waiting = outcome("red", "change");
    waiting["status"] = status("Pending");
    let outcomes =
        json!([outcome("blue", "create"), waiting, outcome("x", "unchanged"), outcome("y", "delete")]);
    let server = daemon(root.path(), &[ok(json!({ "outcomes": outcomes }))]);
    let Ran { status, out, err } = fief(root.path(), ["apply", "-f", "blue.yaml", "--set", "s", "--prune"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "tenant/blue created\n\
         tenant/red changed\n  \
           Pending: eth0 is not there (DeviceMissing)\n\
         tenant/x unchanged\n\
         tenant/y deleted\n"
    );
    let call = server.join().unwrap().remove(0);
    assert!(call.starts_with("POST /v1/apply HTTP/1.1\r\n"), "{call}");
    let sources = json!([{ "name": "blue.yaml", "text": BLUE }]);
    assert_eq!(body(&call), json!({ "sources": sources, "set": "s", "prune": true, "dryRun": false }));
}

#[test]
fn a_dry_run_tells_the_steps() {
    let root = root();
    let answer =
        json!({ "outcomes": [outcome("blue", "create")], "steps": ["add table 1001", "add rule 1001"] });
    let server = daemon(root.path(), &[ok(answer)]);
    let Ran { out, .. } = fief(root.path(), ["apply", "-f", "blue.yaml", "--dry-run"]);
    assert_eq!(out, "tenant/blue would be created\n  add table 1001\n  add rule 1001\n");
    assert_eq!(body(&server.join().unwrap()[0])["dryRun"], true);
}

#[test]
fn many_objects_are_counted_but_deletions_are_named() {
    let root = root();
    let mut outcomes = (0..30).map(|n| outcome(&format!("t{n}"), "create")).collect::<Vec<_>>();
    outcomes.push(outcome("gone", "delete"));
    let answer = ok(json!({ "outcomes": outcomes }));
    let server = daemon(root.path(), &[answer.clone(), answer]);
    let brief = fief(root.path(), ["apply", "-f", "blue.yaml", "--set", "s", "--prune"]);
    assert_eq!(brief.out, "tenant/gone deleted\n31 objects: 30 created, 1 deleted\n");
    let all = fief(root.path(), ["apply", "-f", "blue.yaml", "-v"]);
    assert_eq!(all.out.lines().count(), 31, "{}", all.out);
    server.join().unwrap();
}

#[test]
fn a_refusal_of_the_daemon_is_placed() {
    let root = root();
    let diagnostic = json!({
        "source": "blue.yaml", "line": 3, "column": 19, "message": "`blue` is taken", "help": "choose another",
    });
    let refusal = json!({ "error": "1 complaint", "help": "see above", "diagnostics": [diagnostic] });
    let answer = ("422 Unprocessable Entity", refusal.to_string());
    let server = daemon(root.path(), &[answer.clone(), answer.clone(), answer]);
    let Ran { status, err, .. } = fief(root.path(), ["apply", "-f", "blue.yaml"]);
    assert_eq!(status, 1);
    assert_eq!(
        err,
        "blue.yaml:3:19: `blue` is taken (choose another)\nerror: 1 complaint\nhelp: see above\n"
    );
    assert_eq!(fief(root.path(), ["diff", "-f", "blue.yaml"]).status, 2);
    let json = fief(root.path(), ["apply", "-f", "blue.yaml", "-o", "json"]).err;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), refusal);
    server.join().unwrap();
}

#[test]
fn a_diff_is_1_when_something_differs() {
    let root = root();
    let mut changed = outcome("blue", "change");
    changed["diff"] = "-  isolation: auto\n+  isolation: fib\n".into();
    let differs = json!({ "outcomes": [changed, outcome("red", "unchanged")] });
    let same = json!({ "outcomes": [outcome("red", "unchanged")] });
    let server = daemon(root.path(), &[ok(differs), ok(same)]);
    let Ran { status, out, .. } = fief(root.path(), ["diff", "-f", "blue.yaml"]);
    assert_eq!(
        (status, out.as_str()),
        (1, "tenant/blue would be changed\n-  isolation: auto\n+  isolation: fib\n")
    );
    let Ran { status, out, .. } = fief(root.path(), ["diff", "-f", "blue.yaml"]);
    assert_eq!((status, out.as_str()), (0, ""));
    server.join().unwrap();
}

#[test]
fn a_verdict_is_an_exit_status_and_a_contradiction_is_loud() {
    let root = root();
    let side = |allowed: bool, bug: Value| {
        let rule = json!({ "policy": "NetworkPolicy shop/web", "file": "a\u{1b}.yaml", "line": 7, "path": "spec.ingress[0]" });
        json!({
            "endpoint": "blue/back", "direction": "ingress", "allowed": allowed, "rule": rule,
            "identity": 256, "peer": 2, "audit": !allowed, "bug": bug,
        })
    };
    let answer = |allowed: bool, bug: Value| {
        ok(json!({
            "from": { "address": "192.0.2.1" }, "to": { "endpoint": "blue/back", "address": "10.1.0.2" },
            "protocol": "tcp", "port": 80, "allowed": allowed, "sides": [side(allowed, bug)],
        }))
    };
    let answers = [answer(true, Value::Null), answer(false, Value::Null), answer(true, json!("A and B"))];
    let server = daemon(root.path(), &answers);
    let words = ["policy", "test", "--from", "192.0.2.1", "--to", "back", "--port", "80", "--tenant", "blue"];
    let Ran { status, out, .. } = fief(root.path(), words);
    assert_eq!(status, 0, "{out}");
    assert!(out.contains("allowed  a\u{241b}.yaml:7   NetworkPolicy shop/web spec.ingress[0]\n"), "{out}");
    assert!(out.ends_with("80/tcp from 192.0.2.1 to blue/back (10.1.0.2): allowed\n"), "{out}");
    let Ran { status, out, .. } = fief(root.path(), words);
    assert_eq!(status, 1, "{out}");
    assert!(out.contains(": denied\n") && out.ends_with("policyMode of its tenant is `audit`\n"), "{out}");
    let Ran { status, err, .. } = fief(root.path(), words);
    assert_eq!(status, 2);
    assert!(err.contains("THIS IS A BUG OF FIEF") && err.contains("A and B"), "{err}");
    let call = server.join().unwrap().remove(0);
    let asked = json!({ "from": "192.0.2.1", "to": "back", "port": "80", "tenant": "blue" });
    assert_eq!(body(&call), asked);
}

#[test]
fn tenants_are_listed_in_every_format() {
    let root = root();
    let all = ok(json!([view("blue"), view("red")]));
    let none = ok(json!([]));
    let of_all = [all.clone(), none.clone(), none.clone(), none];
    let answers = [vec![all], of_all.to_vec(), of_all.to_vec(), vec![ok(view("blue"))]].concat();
    let server = daemon(root.path(), &answers);
    let table = fief(root.path(), ["get", "tenants"]).out;
    assert_eq!(
        table.lines().next().unwrap(),
        "NAME  SLOT  ISOLATION  TABLE  MARK        PHASE  ADDRESSES        RX  TX  DROPS"
    );
    assert!(
        table
            .ends_with("\nred      1  fib         1001  0x1/0xffff  Ready  192.0.2.12/24  2.0K  60      3\n")
    );
    assert!(table.lines().all(|line| line == line.trim_end()), "{table}");

    let yaml = fief(root.path(), ["get", "all", "-o", "yaml"]).out;
    std::fs::write(root.path().join("again.yaml"), &yaml).unwrap();
    let again = fief(root.path(), ["validate", "-f", "again.yaml", "-o", "json"]);
    assert_eq!(again.out, "{\n  \"documents\": 2\n}\n", "{yaml}\n{again:?}");
    assert!(!yaml.contains("status"), "{yaml}");
    assert_eq!(yaml.matches("kind: Tenant").count(), 2, "{yaml}");

    let json: Value = serde_json::from_str(&fief(root.path(), ["get", "-o", "json"]).out).unwrap();
    assert_eq!(
        (&json[1]["tenant"]["metadata"]["name"], &json[1]["status"]["phase"]),
        (&"red".into(), &"Ready".into())
    );
    let one = fief(root.path(), ["get", "tenant", "blue", "-o", "json"]).out;
    assert_eq!(serde_json::from_str::<Value>(&one).unwrap()["set"], "default");
    assert!(server.join().unwrap()[9].starts_with("GET /v1/tenants/blue HTTP/1.1\r\n"));
}

#[test]
fn a_watch_prints_changes_until_the_daemon_goes() {
    let root = root();
    let mut moved = view("blue");
    moved["status"]["counters"]["rxBytes"] = 4096.into();
    let stops = ("503 Service Unavailable", json!({ "error": "fiefd stops" }).to_string());
    let answers = [ok(json!([view("blue")])), ok(json!([moved])), ok(json!([view("red")])), stops];
    let server = daemon(root.path(), &answers);
    let Ran { status, out, err } = fief(root.path(), ["get", "tenants", "-w"]);
    let told = out.lines().map(|line| Vec::from_iter(line.split_whitespace().step_by(5).take(2)).join(" "));
    let expected = ["NAME PHASE", "blue Ready", "blue Deleted", "red Ready"];
    assert_eq!(Vec::from_iter(told), expected, "{out}");
    assert_eq!((status, err.as_str()), (1, "error: fiefd stops\n"));
    assert!(server.join().unwrap()[1].starts_with("GET /v1/tenants?since=1 HTTP/1.1\r\n"));
}

#[test]
fn each_name_is_deleted_even_after_a_refusal() {
    let root = root();
    let missing =
        ("404 Not Found", json!({ "error": "there is no tenant `a`", "diagnostics": [] }).to_string());
    let server = daemon(root.path(), &[missing, ok(json!({ "outcomes": [outcome("b", "delete")] }))]);
    let Ran { status, out, err } = fief(root.path(), ["delete", "tenant", "a", "b"]);
    assert_eq!(
        (status, out.as_str(), err.as_str()),
        (1, "tenant/b deleted\n", "error: there is no tenant `a`\n")
    );
    assert!(server.join().unwrap()[1].starts_with("DELETE /v1/tenants/b HTTP/1.1\r\n"));
}

#[test]
fn a_doctor_that_finds_a_failure_fails() {
    let root = root();
    let good = json!({ "name": "kernel", "verdict": "ok", "seen": "6.12" });
    let bad = json!({ "name": "bpf", "verdict": "fail", "seen": "no bpffs", "remedy": "mount it" });
    let server = daemon(root.path(), &[ok(json!([good, bad])), ok(json!([good]))]);
    let Ran { status, out, .. } = fief(root.path(), ["doctor"]);
    let expected = "ok    kernel  6.12\nFAIL  bpf     no bpffs\n              mount it\n";
    assert_eq!((status, out.as_str()), (1, expected));
    assert_eq!(fief(root.path(), ["doctor"]).status, 0);
    server.join().unwrap();
}

#[test]
fn sockets_and_status_are_told() {
    let root = root();
    let socket = json!({
        "tenant": "blue", "protocol": "tcp", "state": "LISTEN", "local": "192.0.2.11:80", "remote": "0.0.0.0:0",
    });
    let state = json!({
        "version": "0.1.0", "pid": 7, "root": "/", "cgroup": "/sys/fs/cgroup", "markMask": "0xffff",
        "localRule": "keep", "ready": 2, "pending": 1, "repairs": 0, "lastReconcileMs": 1.25,
        "sysctls": [{ "name": "net.ipv4.tcp_fwmark_accept", "before": "0", "now": "1" }], "conditions": [],
    });
    let server = daemon(root.path(), &[ok(json!([socket])), ok(state)]);
    let Ran { out, .. } = fief(root.path(), ["sockets", "blue"]);
    assert_eq!(
        out,
        "TENANT  PROTOCOL  STATE   LOCAL          REMOTE\n\
         blue    tcp       LISTEN  192.0.2.11:80  0.0.0.0:0\n"
    );
    let Ran { out, .. } = fief(root.path(), ["status"]);
    assert!(out.contains("tenants     2 Ready, 1 Pending\n"), "{out}");
    assert!(out.contains("net.ipv4.tcp_fwmark_accept = 1 (was 0)\n"), "{out}");
    assert!(server.join().unwrap()[0].starts_with("GET /v1/sockets?tenant=blue HTTP/1.1\r\n"));
}
