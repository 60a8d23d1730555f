//! The shipped `fief` where no daemon runs.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use common::{BLUE, Ran, command, fief, fief_reading};
use tempfile::{TempDir, tempdir};

/// A document with an unknown field in line 4, column 9.
const MISSPELT: &str = "\
apiVersion: fief/v1alpha1
kind: Tenant
metadata: { name: blue }
spec: { isolatoin: fib }
";

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn the_help_lists_every_command_in_one_line() {
    let Ran { status, out, .. } = fief(tempdir().unwrap().path(), ["--help"]);
    assert_eq!(status, 0);
    let commands =
        "apply diff validate delete get status doctor sockets schema completion man".split_whitespace();
    for name in commands {
        assert!(out.lines().any(|line| line.starts_with(&format!("  {name} "))), "{name} is not in\n{out}");
    }
}

#[test]
fn wrong_usage_is_2() {
    let root = directory(&[("a.yaml", BLUE.as_bytes())]);
    let wrong: [&[&str]; 9] = [
        &[],
        &["nonsense"],
        &["apply"],
        &["apply", "-f", "a.yaml", "--prune"],
        &["apply", "-f", "a.yaml", "--set", ""],
        &["delete"],
        &["delete", "tenant"],
        &["delete", "tenant", "blue", "-f", "a.yaml"],
        &["get", "nonsense"],
    ];
    for args in wrong {
        let Ran { status, err, .. } = fief(root.path(), args);
        assert_eq!(status, 2, "{args:?}: {err}");
    }
    let prune = fief(root.path(), ["apply", "-f", "a.yaml", "--prune"]);
    assert!(prune.err.contains("--set"), "{}", prune.err);
}

#[test]
fn good_documents_are_valid() {
    let root = directory(&[("a.yaml", BLUE.as_bytes())]);
    let Ran { status, out, err } = fief(root.path(), ["validate", "-f", "a.yaml"]);
    assert_eq!((status, out.as_str(), err.as_str()), (0, "1 document is valid\n", ""));
    let piped = fief_reading(root.path(), ["validate", "-f", "-"], BLUE.as_bytes());
    assert_eq!((piped.status, piped.err.as_str()), (0, ""));
    let json = fief(root.path(), ["validate", "-f", "a.yaml", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["documents"], 1);
}

#[test]
fn a_bad_document_is_placed() {
    let root = directory(&[("bad.yaml", MISSPELT.as_bytes())]);
    let Ran { status, out, err } = fief(root.path(), ["validate", "-f", "bad.yaml"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.starts_with("bad.yaml:4:9: "), "{err}");
    assert!(err.contains("isolatoin"), "{err}");
    assert!(err.ends_with("error: 1 complaint about the documents\n"), "{err}");
    assert!(!err.contains('\x1b'), "{err}");
    let piped = fief_reading(root.path(), ["validate", "-f", "-"], MISSPELT.as_bytes());
    assert!(piped.err.starts_with("-:4:9: "), "{}", piped.err);
}

#[test]
fn complaints_are_json_if_asked() {
    let root = directory(&[("bad.yaml", MISSPELT.as_bytes())]);
    let Ran { status, err, .. } = fief(root.path(), ["validate", "-f", "bad.yaml", "-o", "json"]);
    assert_eq!(status, 1);
    let body: serde_json::Value = serde_json::from_str(&err).unwrap();
    let diagnostic = &body["diagnostics"][0];
    assert_eq!((&diagnostic["source"], &diagnostic["line"]), (&"bad.yaml".into(), &4.into()));
    assert_eq!(diagnostic["column"], 9);
}

#[test]
fn many_complaints_end_in_a_count() {
    let documents = vec![MISSPELT; 30].join("---\n");
    let root = directory(&[("bad.yaml", documents.as_bytes())]);
    let Ran { err, .. } = fief(root.path(), ["validate", "-f", "bad.yaml"]);
    assert_eq!(err.matches("bad.yaml:").count(), 20, "{err}");
    assert!(err.contains("... and 10 more\n"), "{err}");
}

#[test]
fn a_directory_is_read_by_name_and_not_below() {
    let bad = MISSPELT.as_bytes();
    let files = [("b.yml", bad), ("a.yaml", bad), ("c.txt", bad), (".hidden.yaml", bad), ("10.yaml", bad)];
    let root = directory(&[]);
    let documents = root.path().join("documents");
    fs::create_dir_all(documents.join("below.yaml")).unwrap();
    fs::write(documents.join("below.yaml/d.yaml"), bad).unwrap();
    files.iter().for_each(|(name, text)| fs::write(documents.join(name), text).unwrap());
    let Ran { err, .. } = fief(root.path(), ["validate", "-f", "documents"]);
    let order = err.lines().filter_map(|line| Some(line.split_once(":4:9: ")?.0));
    let expected = ["documents/10.yaml", "documents/a.yaml", "documents/b.yml"];
    assert_eq!(Vec::from_iter(order), expected, "{err}");
}

#[test]
fn sources_come_in_the_order_given() {
    let root = directory(&[("a.yaml", MISSPELT.as_bytes()), ("b.yaml", MISSPELT.as_bytes())]);
    let Ran { err, .. } = fief(root.path(), ["validate", "-f", "b.yaml", "-f", "a.yaml"]);
    assert!(err.find("b.yaml:4").unwrap() < err.find("a.yaml:4").unwrap(), "{err}");
}

#[test]
fn sources_that_cannot_be_read_are_named_once() {
    let root = directory(&[("latin.yaml", b"kind: Tenant\nname: bl\xfce\n")]);
    fs::create_dir(root.path().join("empty")).unwrap();
    symlink("loop.yaml", root.path().join("loop.yaml")).unwrap();
    let cases = [
        ("missing.yaml", "error: there is no file or directory missing.yaml\n"),
        ("latin.yaml", "error: latin.yaml is not UTF-8: line 2 holds the byte 0xfc; save it as UTF-8\n"),
        ("empty", "error: empty has no *.yaml or *.yml file in it\n"),
        ("loop.yaml", "error: cannot read loop.yaml: Too many levels of symbolic links (os error 40)\n"),
    ];
    for (file, expected) in cases {
        let Ran { status, out, err } = fief(root.path(), ["validate", "-f", file]);
        assert_eq!((status, out.as_str(), err.as_str()), (1, "", expected));
        // Refused before anybody looks for the daemon.
        assert_eq!(fief(root.path(), ["apply", "-f", file]).err, expected);
        assert_eq!(fief(root.path(), ["diff", "-f", file]).status, 2);
    }
    let twice = fief(root.path(), ["validate", "-f", "-", "-f", "-"]);
    assert!(twice.err.contains("only once"), "{}", twice.err);
}

#[test]
fn more_than_32_mib_is_refused_by_name() {
    let root = directory(&[("a.yaml", BLUE.as_bytes()), ("large.yaml", b"")]);
    let large = fs::OpenOptions::new().write(true).open(root.path().join("large.yaml")).unwrap();
    large.set_len(32 << 20).unwrap();
    let Ran { status, err, .. } = fief(root.path(), ["apply", "-f", "a.yaml", "-f", "large.yaml"]);
    assert_eq!(status, 1);
    assert!(err.starts_with("error: large.yaml brings the documents above 32 MiB"), "{err}");
}

#[test]
fn without_a_daemon_the_remedy_is_named() {
    let root = directory(&[("a.yaml", BLUE.as_bytes())]);
    let calls: [&[&str]; 5] = [
        &["apply", "-f", "a.yaml"],
        &["get", "tenants"],
        &["status"],
        &["sockets"],
        &["delete", "tenant", "x"],
    ];
    for args in calls {
        let Ran { status, out, err } = fief(root.path(), args);
        assert_eq!((status, out.as_str()), (1, ""), "{args:?}");
        assert!(err.starts_with("error: fiefd is not running at ") && err.contains("`fiefd`"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    assert_eq!(fief(root.path(), ["diff", "-f", "a.yaml"]).status, 2);
    let json = fief(root.path(), ["status", "-o", "json"]).err;
    let body: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(body["error"].as_str().unwrap().starts_with("fiefd is not running"));
}

#[test]
fn the_doctor_says_in_one_line_that_no_daemon_runs() {
    let root = tempdir().unwrap();
    let Ran { status, out, err } = fief(root.path(), ["doctor"]);
    assert_eq!((status, err.as_str(), out.lines().count()), (1, "", 1));
    assert!(out.starts_with("FAIL  daemon  fiefd is not running at "), "{out}");
    let json: serde_json::Value =
        serde_json::from_str(&fief(root.path(), ["doctor", "-o", "json"]).out).unwrap();
    assert_eq!(json[0]["verdict"], "fail");
}

#[test]
fn the_schema_is_json() {
    let Ran { status, out, .. } = fief(tempdir().unwrap().path(), ["schema"]);
    assert_eq!(status, 0);
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(schema.is_object() && out.contains("isolation"), "{out}");
}

#[test]
fn every_shell_has_a_completion() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let Ran { status, out, .. } = fief(tempdir().unwrap().path(), ["completion", shell]);
        assert_eq!(status, 0, "{shell}");
        assert!(out.contains("validate") && out.contains("fief"), "{shell}");
    }
}

#[test]
fn the_manual_is_roff() {
    let root = tempdir().unwrap();
    let Ran { status, out, .. } = fief(root.path(), ["man"]);
    assert_eq!(status, 0);
    assert!(out.contains(".TH fief 1") && out.contains(r"fief\-apply(1)"), "{out}");
    assert!(fief(root.path(), ["man", "apply"]).out.contains(".TH fief-apply 1"));
    assert_eq!(fief(root.path(), ["man", "nonsense"]).status, 1);
}

#[test]
fn a_reader_that_goes_is_no_error() {
    let root = tempdir().unwrap();
    for args in [&["completion", "bash"][..], &["schema"], &["man"], &["doctor"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(root.path()).args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        assert!(output.status.success(), "{args:?}: {}", output.status);
    }
}

#[test]
fn the_examples_are_valid() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut checked = 0;
    for entry in fs::read_dir(&examples).unwrap() {
        let path = entry.unwrap().path();
        // Programs stand beside the documents.
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        checked += 1;
        let Ran { status, out, err } =
            fief(tempdir().unwrap().path(), ["validate".as_ref(), "-f".as_ref(), path.as_os_str()]);
        assert_eq!(status, 0, "{}: {out}{err}", path.display());
    }
    assert!(checked > 0);
    // All of them on one host, too.
    let Ran { status, err, .. } = fief(&examples, ["validate", "-f", "."]);
    assert_eq!(status, 0, "{err}");
}
