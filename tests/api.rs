//! The API: who asks is known from the kernel, and nonsense is answered clearly.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use fief_testkit::{Daemon, DaemonOptions, Lab, Ns, Output};
use serde_json::Value;

/// The group `fief` of the lab's own /etc/group.
const FIEF: u32 = 64_242;
const ADMINS: u32 = 64_243;
const NOBODY: u32 = 65_534;

const DOCUMENTS: &str = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: blue }\nspec:\n  members: { users: \
                         [ann, \"64301\"], groups: [blue-admins] }\n---\napiVersion: fief/v1alpha1\nkind: Tenant\n\
                         metadata: { name: red }\nspec:\n  members: { users: [\"64302\"] }\n";

/// A daemon in a lab whose users and groups are the lab's own.
fn served(name: &str) -> Option<(Lab, Ns, Daemon)> {
    let lab = Lab::new(name)?;
    let host = lab.ns("host");
    for (file, lines) in [
        ("passwd", "root:x:0:0::/:/bin/sh\nann:x:64300:64300::/:/bin/sh\n".to_owned()),
        ("group", format!("root:x:0:\nfief:x:{FIEF}:\nblue-admins:x:{ADMINS}:\n")),
    ] {
        let ours = lab.dir().join(file);
        std::fs::write(&ours, lines).expect("the lab's directory is writable");
        host.sh(&format!("mount --bind {} /etc/{file}", ours.display())).ok();
    }
    let daemon = Daemon::start(&lab, &host, DaemonOptions::default());
    daemon.apply(DOCUMENTS).ok();
    Some((lab, host, daemon))
}

/// User, group, supplementary groups.
type Who = (u32, u32, &'static [u32]);

fn as_user(daemon: &Daemon, (user, group, groups): Who, args: &[&str]) -> Output {
    daemon.cli_command(args).user_with_groups(user, group, groups).input(DOCUMENTS).run()
}

fn seen(output: &Output) -> Vec<String> {
    let views = output.clone().ok().json();
    let name = |view: &Value| view["tenant"]["metadata"]["name"].as_str().unwrap().to_owned();
    views.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn who_may_see_and_who_may_write() {
    let Some((_lab, _host, daemon)) = served("who") else { return };
    // user, group, supplementary groups; what they see; may they write?
    let cases: [(Who, &[&str], bool); 9] = [
        ((0, 0, &[]), &["blue", "red"], true),
        ((64_400, FIEF, &[]), &["blue", "red"], true),
        ((64_400, 64_400, &[7, FIEF]), &["blue", "red"], true),
        ((64_300, 64_300, &[]), &["blue"], false),
        ((64_301, NOBODY, &[]), &["blue"], false),
        ((64_400, ADMINS, &[]), &["blue"], false),
        ((64_400, 64_400, &[7, ADMINS, 9]), &["blue"], false),
        ((64_302, 64_302, &[]), &["red"], false),
        // The number of a group is not that of a user, and nobody is nobody.
        ((ADMINS, NOBODY, &[]), &[], false),
    ];
    for (who, sees, writes) in cases {
        let ask = |args: &[&str]| as_user(&daemon, who, args);
        assert_eq!(seen(&ask(&["get", "tenants", "-o", "json"])), sees, "{who:?}");
        for name in ["blue", "red"] {
            let one = ask(&["get", "tenants", name]);
            assert_eq!(one.success(), sees.contains(&name), "{who:?} {one}");
            let sockets = ask(&["sockets", name]);
            assert_eq!(sockets.success(), sees.contains(&name), "{who:?} {sockets}");
            if !sees.contains(&name) {
                // The same words as for one that does not exist.
                let none = ask(&["get", "tenants", "green"]).fails();
                assert_eq!(one.stderr, none.stderr.replace("green", name), "{who:?}");
            }
        }
        for args in
            [&["apply", "-f", "-"][..], &["diff", "-f", "-"], &["apply", "--dry-run", "-f", "-"], &["status"]]
        {
            let output = ask(args);
            assert_eq!(output.success(), writes, "{who:?} {output}");
            if !writes {
                assert!(
                    output.stderr.contains("you may not") && output.stderr.contains("group fief"),
                    "{output}"
                );
            }
        }
        if !writes {
            for args in [&["delete", "-f", "-"][..], &["delete", "tenant", "blue"], &["doctor"], &["sockets"]]
            {
                ask(args).fails();
            }
        }
        assert_eq!(seen(&daemon.cli(&["get", "tenants", "-o", "json"])), ["blue", "red"], "{who:?}");
    }
    // Somebody of the group may do all of it.
    let fief = (64_400, 64_400, &[FIEF][..]);
    as_user(&daemon, fief, &["delete", "tenant", "red"]).ok();
    as_user(&daemon, fief, &["apply", "-f", "-"]).ok();
    as_user(&daemon, fief, &["doctor"]).ok();
}

#[test]
fn unknown_members_are_refused_by_place() {
    let Some((_lab, _host, daemon)) = served("members") else { return };
    let said = daemon.apply(&DOCUMENTS.replace("ann", "bob").replace("blue-admins", "green")).fails().stderr;
    for part in ["-:5:", "no user `bob`", "useradd bob", "no group `green`", "groupadd green"] {
        assert!(said.contains(part), "{said}");
    }
}

/// One request, its status and its body.
fn ask(socket: &Path, request: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket has a time-out");
    // A server that has refused may close before all of it was said.
    drop(stream.write_all(request));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let kind = "Content-Type: application/json\r\nConnection: close\r\n";
    format!("{method} {path} HTTP/1.1\r\nHost: fief\r\n{kind}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn nonsense_is_answered_with_a_sentence() {
    let Some((_lab, _host, daemon)) = served("nonsense") else { return };
    let socket = daemon.socket();
    let good = r#"{"sources":[],"dryRun":true}"#;
    let cases = [
        ("POST", "/v1/apply", "{", 400),
        ("POST", "/v1/apply", "[]", 422),
        ("POST", "/v1/apply", r#"{"sources":[],"dryrun":true}"#, 422),
        ("POST", "/v1/apply", r#"{"sources":[{"name":"x"}]}"#, 422),
        ("POST", "/v1/delete", "null", 422),
        ("GET", "/v1/nothing", "", 404),
        ("GET", "/", "", 404),
        ("GET", "/v1/tenants/green", "", 404),
        ("DELETE", "/v1/tenants/green", "", 404),
        ("GET", "/v1/tenants/%2e%2e%2fetc", "", 404),
        ("PUT", "/v1/apply", good, 405),
    ];
    for (method, path, body, wanted) in cases {
        let (status, answer) = ask(&socket, &request(method, path, body));
        assert_eq!(status, wanted, "{method} {path} {body}: {answer}");
        let error: Value =
            serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{method} {path}: {e}: {answer:?}"));
        assert!(!error["error"].as_str().unwrap().is_empty(), "{answer}");
    }
    let (status, answer) = ask(&socket, b"\x16\x03\x01 what is this\r\n\r\n");
    assert_eq!(status, 400, "{answer}");
    // 100 MiB: refused for its size before it is read to the end.
    let huge = format!(r#"{{"sources":[{{"name":"x","text":"{}"}}]}}"#, "a".repeat(100 << 20));
    let (status, answer) = ask(&socket, &request("POST", "/v1/apply", &huge));
    assert!(status == 413 || answer.is_empty(), "{status} {answer}");
    // Somebody who says nothing keeps nobody waiting.
    let silent: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    assert_eq!(ask(&socket, &request("GET", "/v1/tenants", "")).0, 200);
    drop(silent);
    assert_eq!(seen(&daemon.cli(&["get", "tenants", "-o", "json"])), ["blue", "red"]);
}

#[test]
fn the_openapi_document_lists_every_route() {
    let Some((lab, host, daemon)) = served("openapi") else { return };
    let (status, body) = ask(&daemon.socket(), &request("GET", "/openapi.json", ""));
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&body).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{}", document["openapi"]);
    let routes = [
        ("/v1/apply", &["post"][..]),
        ("/v1/diff", &["post"]),
        ("/v1/delete", &["post"]),
        ("/v1/reload", &["post"]),
        ("/v1/tenants", &["get"]),
        ("/v1/tenants/{name}", &["get", "delete"]),
        ("/v1/networks", &["get"]),
        ("/v1/networks/{tenant}/{name}", &["get", "delete"]),
        ("/v1/endpoints", &["get"]),
        ("/v1/endpoints/{tenant}/{name}", &["get", "delete"]),
        ("/v1/policies", &["get"]),
        ("/v1/policies/{tenant}/{namespace}/{name}", &["get", "delete"]),
        ("/v1/policies/test", &["post"]),
        ("/v1/identities", &["get"]),
        ("/v1/flows", &["get"]),
        ("/v1/overlays", &["get", "post"]),
        ("/v1/overlays/{device}", &["delete"]),
        ("/v1/overlay-counters", &["get"]),
        ("/v1/status", &["get"]),
        ("/v1/doctor", &["get"]),
        ("/v1/sockets", &["get"]),
        ("/v1/processes", &["get"]),
        ("/v1/processes/{pid}", &["get"]),
        ("/v1/aliases/{address}", &["get"]),
        ("/v1/marks", &["get"]),
        ("/v1/marks/move", &["post"]),
    ];
    for (path, methods) in routes {
        let described =
            document["paths"][path].as_object().unwrap_or_else(|| panic!("{path} is not described"));
        let mut there: Vec<&str> = described.keys().map(String::as_str).collect();
        there.sort_unstable_by_key(|method| *method == "delete");
        assert_eq!(there, methods, "{path}");
        // And each is really there: its path with another method is refused for the method.
        let (status, _) = ask(&daemon.socket(), &request("PATCH", &path.replace("{name}", "blue"), ""));
        assert_eq!(status, 405, "{path}");
    }
    assert_eq!(
        document["paths"].as_object().unwrap().len(),
        routes.len(),
        "a route that this test does not know"
    );
    // Every reference leads somewhere.
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 10);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads outside"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    // The specification's own judge, where it is installed.
    let file = lab.dir().join("openapi.json");
    std::fs::write(&file, &body).unwrap();
    let judge = "import sys, json, openapi_spec_validator as v; v.validate(json.load(open(sys.argv[1])))";
    let has = host.run(&["python3", "-c", "import openapi_spec_validator"]).success();
    if has {
        host.run(&["python3", "-c", judge, file.to_str().unwrap()]).ok();
    } else {
        fief_testkit::skip("openapi_spec_validator is not installed; the document was checked by hand only");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => (),
    }
}
