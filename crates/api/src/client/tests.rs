//! The client against a socket that says what a daemon would.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use super::*;

/// A daemon that gives one canned answer and returns what it was asked.
fn daemon(root: &Path, answer: &str) -> (Client, JoinHandle<String>) {
    let paths = Paths::new(Some(root));
    std::fs::create_dir_all(paths.socket().parent().unwrap()).unwrap();
    let listener = UnixListener::bind(paths.socket()).unwrap();
    let answer = answer.to_owned();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 65536];
        let length = stream.read(&mut buffer).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    });
    (Client::new(&paths).unwrap(), server)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_missing_socket_names_the_remedy() {
    let root = tempfile::tempdir().unwrap();
    let error = Client::new(&Paths::new(Some(root.path()))).unwrap().status().unwrap_err();
    assert!(error.is_not_running());
    let text = error.to_string();
    assert!(text.contains("fiefd is not running at") && text.contains("start it with `fiefd`"), "{text}");
    assert!(text.contains("run/fief/fiefd.sock") && text.contains("--root"), "{text}");
}

#[test]
fn a_socket_that_nobody_serves_is_stale() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(Some(root.path()));
    std::fs::create_dir_all(paths.socket().parent().unwrap()).unwrap();
    drop(UnixListener::bind(paths.socket()).unwrap());
    let client = Client::new(&paths).unwrap();
    let error = client.status().unwrap_err();
    assert!(matches!(error, ClientError::Stale(_)), "{error}");
}

#[test]
fn a_root_too_deep_for_a_socket_is_said_to_be() {
    let root = format!("/tmp/{}", "x".repeat(120));
    let error = Client::new(&Paths::new(Some(Path::new(&root)))).unwrap().status().unwrap_err();
    assert!(matches!(error, ClientError::TooLong(_)), "{error}");
}

#[test]
fn a_listing_carries_its_revision() {
    let root = tempfile::tempdir().unwrap();
    let (client, server) = daemon(root.path(), &answer("200 OK", "fief-revision: 7\r\n", "[]"));
    let listing = client.tenants_since(Revision(6)).unwrap();
    assert_eq!(listing.revision, Revision(7));
    assert!(listing.tenants.is_empty());
    assert!(server.join().unwrap().starts_with("GET /v1/tenants?since=6 HTTP/1.1\r\n"));
}

#[test]
fn a_refusal_keeps_its_diagnostics() {
    let root = tempfile::tempdir().unwrap();
    let body = r#"{"error":"1 complaint","help":"mend it","diagnostics":
        [{"source":"a.yaml","line":3,"column":4,"message":"no","help":null}]}"#;
    let (client, server) = daemon(root.path(), &answer("422 Unprocessable Entity", "", body));
    let ClientError::Api { status, body } = client.apply(&ApplyRequest::default()).unwrap_err() else {
        panic!("not an answer of the daemon")
    };
    assert_eq!((status, body.diagnostics[0].line), (422, 3));
    assert_eq!(body.help.as_deref(), Some("mend it"));
    let asked = server.join().unwrap();
    assert!(asked.starts_with("POST /v1/apply HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("content-type: application/json"), "{asked}");
}

#[test]
fn an_answer_in_plain_text_is_still_an_answer() {
    let root = tempfile::tempdir().unwrap();
    let (client, _) = daemon(root.path(), &answer("404 Not Found", "", ""));
    let error = client.tenant("blue").unwrap_err();
    assert_eq!(error.status(), Some(404));
    assert_eq!(error.to_string(), "fiefd answered 404 Not Found: nothing more");
}

#[test]
fn a_name_stays_one_segment() {
    let root = tempfile::tempdir().unwrap();
    let (client, server) = daemon(root.path(), &answer("200 OK", "", r#"{"outcomes":[]}"#));
    client.delete_tenant("a/b?c d").unwrap();
    assert!(server.join().unwrap().starts_with("DELETE /v1/tenants/a%2Fb%3Fc%20d HTTP/1.1\r\n"));
}

#[test]
fn an_answer_of_another_shape_is_named() {
    let root = tempfile::tempdir().unwrap();
    let (client, _) = daemon(root.path(), &answer("200 OK", "", "{}"));
    let text = client.status().unwrap_err().to_string();
    assert!(text.starts_with("cannot read fiefd's answer to GET /v1/status"), "{text}");
}

#[test]
fn a_connection_that_breaks_off_is_named() {
    let root = tempfile::tempdir().unwrap();
    let (client, _) = daemon(root.path(), "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[");
    let text = client.doctor().unwrap_err().to_string();
    assert!(text.starts_with("fiefd broke off GET /v1/doctor"), "{text}");
}
