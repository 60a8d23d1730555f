//! Listeners of one tenant, and of some.

use std::net::SocketAddr;

use fief_testkit::{Child, Dial, eventually};
use fief_tests::peers::peer;

use crate::room::{MODES, NEVER, Room, SOON, client, outcome};

const PORT: u16 = 8080;

/// A server as anybody would write it: says who it is, and what address it believes to have.
const SERVER: &str = r#"
import socket, sys
who, family, address, port = sys.argv[1:5]
sock = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET, socket.SOCK_STREAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
for name in sys.argv[5:]:
    sock.setsockopt(0x6669, 0x104, name.encode())
if family == "6":
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
sock.bind((address, int(port)))
sock.listen(64)
print("ready", sock.getsockname()[:2], flush=True)
while True:
    stream, peer = sock.accept()
    stream.sendall(who.encode())
    stream.close()
"#;

/// Starts it as `tenant`, or as the host.
#[track_caller]
fn serve(room: &Room, tenant: Option<usize>, words: &[&str]) -> Child {
    let name = tenant.map(|i| room.street.name(i));
    let fief = fief_testkit::bin("fief").display().to_string();
    let python = ["python3", "-u", "-c", SERVER];
    let mut argv: Vec<&str> = match &name {
        Some(name) => vec![&fief, "exec", name, "--"],
        None => Vec::new(),
    };
    argv.extend(python);
    argv.extend(words);
    let mut server = room.host().spawn_in_cgroup(room.lab.cgroup(), &argv);
    server.wait_for_output("ready", SOON);
    server
}

/// Who answers tenant `i`'s client?
fn answers(room: &Room, i: usize, v6: bool, port: u16) -> String {
    let to = SocketAddr::new(room.local(i, v6).ip(), port);
    let answer = room.street.client(i).enter(|| Dial::to(to).timeout(SOON).tcp(b""));
    match answer {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        failed => outcome(&failed),
    }
}

#[test]
fn each_tenant_has_its_own_listener_on_one_port() {
    for mode in MODES {
        let Some(room) = Room::open("own-each", 4, mode) else { return };
        for (family, any, families) in [("4", "0.0.0.0", [false].as_slice()), ("6", "::", &[false, true])] {
            let servers: Vec<Child> = (0..3)
                .map(|i| serve(&room, Some(i), &[&format!("server {i}"), family, any, "8080"]))
                .collect();
            for (i, server) in servers.iter().enumerate() {
                let named = format!("ready ('{any}', {PORT})");
                assert!(server.output().contains(&named), "{i}: getsockname says {}", server.output());
                for v6 in families {
                    assert_eq!(answers(&room, i, *v6, PORT), format!("server {i}"), "{family} v6 {v6}");
                    assert_eq!(answers(&room, 3, *v6, PORT), "ECONNREFUSED", "the one without, {family}");
                }
            }
            // Whose listener is gone is refused like whoever never had one; the others do not notice.
            let mut servers: Vec<Option<Child>> = servers.into_iter().map(Some).collect();
            for gone in [0, 2, 1] {
                servers[gone] = None;
                for (i, server) in servers.iter().enumerate() {
                    let wanted =
                        if server.is_some() { format!("server {i}") } else { "ECONNREFUSED".to_owned() };
                    assert_eq!(answers(&room, i, families[0], PORT), wanted, "{gone} has gone: {i}");
                }
            }
        }
    }
}

#[test]
fn a_tenants_own_listener_beside_that_of_everybody() {
    for mode in MODES {
        let Some(room) = Room::open("own-beside", 2, mode) else { return };
        for own_first in [false, true] {
            let start = |tenant: Option<usize>| {
                serve(
                    &room,
                    tenant,
                    &[if tenant.is_some() { "own" } else { "everybody's" }, "6", "::", "8080"],
                )
            };
            let (own, everybodys);
            if own_first {
                own = start(Some(0));
                assert_eq!(answers(&room, 1, false, PORT), "ECONNREFUSED", "it is not for others");
                everybodys = start(None);
            } else {
                everybodys = start(None);
                assert_eq!(answers(&room, 0, true, PORT), "everybody's");
                own = start(Some(0));
            }
            for v6 in [false, true] {
                assert_eq!(answers(&room, 0, v6, PORT), "own", "{own_first} v6 {v6}");
                assert_eq!(answers(&room, 1, v6, PORT), "everybody's", "{own_first} v6 {v6}");
                let host = SocketAddr::new(crate::room::host_address(v6).ip(), PORT);
                let from_host = room.inside(room.host(), || Dial::to(host).tcp(b"")).expect("it listens");
                assert_eq!(from_host, b"everybody's");
            }
            // Where the kernel has really put them nobody comes in.
            let sockets = room.daemon.cli(&["sockets", "-o", "json"]).ok().json();
            let listening = sockets.as_array().into_iter().flatten().filter(|s| s["state"] == "LISTEN");
            let ports: Vec<u16> = listening
                .filter_map(|s| s["local"].as_str()?.rsplit_once(':')?.1.parse().ok())
                .filter(|port| *port != PORT)
                .collect();
            assert!(!ports.is_empty(), "one of them was moved: {sockets:#}");
            for port in ports {
                let to = SocketAddr::new(room.local(1, false).ip(), port);
                let there = room.street.client(1).enter(|| Dial::to(to).timeout(NEVER).tcp(b""));
                assert!(there.is_err(), "{to}: {there:?}");
            }
            drop(own);
            assert_eq!(
                answers(&room, 0, false, PORT),
                "everybody's",
                "who has no own is served with the others"
            );
            drop(everybodys);
        }
    }
}

/// One tenant has two addresses, each with a server of its own.
#[test]
fn an_address_of_its_own_beside_any() {
    let Some(room) = Room::open("own-address", 2, "") else { return };
    let _everybodys = serve(&room, None, &["everybody's", "4", "0.0.0.0", "8080"]);
    let local = room.local(0, false).ip().to_string();
    // Whoever binds a tenant's address is that tenant's, without any command.
    let own = serve(&room, None, &["own", "4", &local, "8080"]);
    assert!(own.output().contains(&format!("ready ('{local}', {PORT})")), "{}", own.output());
    assert_eq!(answers(&room, 0, false, PORT), "own");
    assert_eq!(answers(&room, 1, false, PORT), "everybody's");
}

#[test]
fn a_listener_for_a_list_of_tenants() {
    for mode in MODES {
        let Some(room) = Room::open("own-list", 4, mode) else { return };
        let _listed = serve(&room, None, &["for two", "6", "::", "8080", "t1", "t3"]);
        for v6 in [false, true] {
            for i in 0..4 {
                let wanted = if i % 2 == 1 { "for two" } else { "ECONNREFUSED" };
                assert_eq!(answers(&room, i, v6, PORT), wanted, "tenant {i} v6 {v6}");
            }
        }
        // Beside it others of the same port.
        let _everybodys = serve(&room, None, &["everybody's", "6", "::", "8080"]);
        let _own = serve(&room, Some(2), &["own", "4", "0.0.0.0", "8080"]);
        let served: Vec<String> = (0..4).map(|i| answers(&room, i, false, PORT)).collect();
        assert_eq!(served, ["everybody's", "for two", "own", "for two"]);
    }
}

#[test]
fn a_udp_server_for_a_list_of_tenants() {
    let Some(room) = Room::open("own-udp", 3, "") else { return };
    let script = r#"
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(0x6669, 0x104, b"t1")
try:
    sock.setsockopt(0x6669, 0x104, b"nobody")
except OSError as error:
    print(error.errno)
sock.bind(("0.0.0.0", 8080))
print("ready", flush=True)
while True:
    data, peer = sock.recvfrom(100)
    sock.sendto(data, peer)
"#;
    let mut server = room.host().spawn_in_cgroup(room.lab.cgroup(), &["python3", "-u", "-c", script]);
    server.wait_for_output("ready", SOON);
    assert!(server.output().starts_with('2'), "ENOENT for a tenant that is not there: {}", server.output());
    for i in [1, 0, 2] {
        let to = SocketAddr::new(room.local(i, false).ip(), PORT);
        let answer = room
            .street
            .client(i)
            .enter(|| Dial::to(to).timeout(if i == 1 { SOON } else { NEVER }).udp(b"hi"));
        assert_eq!(answer.is_ok(), i == 1, "tenant {i}: {answer:?}");
    }
    assert_eq!((room.count(0, "dropListener"), room.count(1, "dropListener")), (1, 0));
}

/// nginx with workers that share a port (SO_REUSEPORT), in each of two tenants beside everybody's.
#[test]
fn nginx_in_two_tenants_and_for_everybody() {
    let Some(program) = peer("nginx") else { return };
    let Some(room) = Room::open("own-nginx", 3, "") else { return };
    let fief = fief_testkit::bin("fief");
    let mut servers = Vec::new();
    for (who, tenant) in [("everybody's", None), ("own 0", Some("t0")), ("own 1", Some("t1"))] {
        let dir = room.lab.dir().join(who.replace(' ', "-"));
        std::fs::create_dir_all(&dir).expect("the lab's directory is writable");
        let at = dir.display().to_string();
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let places: String = places.map(|place| format!("{place}_temp_path {at}/{place};\n")).concat();
        let text = format!(
            "user root; pid {at}/nginx.pid; error_log stderr; daemon off; worker_processes 2;\nevents {{}}\n\
             http {{\n{places}access_log off;\nserver {{ listen 8080 reuseport; listen [::]:8080 reuseport; \
             location / {{ return 200 \"<{who}>\"; }} }}\n}}\n"
        );
        std::fs::write(dir.join("nginx.conf"), text).expect("the lab's directory is writable");
        let mut argv = match tenant {
            Some(name) => vec![fief.display().to_string(), "exec".into(), name.into(), "--".into()],
            None => Vec::new(),
        };
        argv.extend([
            program.display().to_string(),
            "-p".into(),
            at.clone(),
            "-c".into(),
            format!("{at}/nginx.conf"),
        ]);
        servers.push(room.host().spawn_in_cgroup(room.lab.cgroup(), &argv));
    }
    for (i, wanted) in ["<own 0>", "<own 1>", "<everybody's>"].into_iter().enumerate() {
        for v6 in [false, true] {
            let to = SocketAddr::new(room.local(i, v6).ip(), PORT);
            let ask =
                || room.street.client(i).enter(|| Dial::to(to).timeout(SOON).tcp(b"GET / HTTP/1.0\r\n\r\n"));
            eventually(SOON, || {
                let answer = ask().map_err(|e| format!("{to}: {e}"))?;
                let text = String::from_utf8_lossy(&answer).into_owned();
                if text.ends_with(wanted) { Ok(()) } else { Err(format!("{to}: {text}")) }
            });
            // All of its workers are its own.
            for _ in 0..16 {
                let answer = ask().unwrap_or_else(|e| panic!("{to}: {e}"));
                assert!(String::from_utf8_lossy(&answer).ends_with(wanted));
            }
        }
    }
}

/// What cannot be right is refused.
#[test]
fn what_a_moved_socket_cannot_do() {
    let Some(room) = Room::open("own-refused", 2, "") else { return };
    let _everybodys = serve(&room, None, &["everybody's", "4", "0.0.0.0", "443"]);
    // A client whose source port somebody listens on.
    let script = r#"
import socket, sys
sock = socket.socket()
sock.bind(("0.0.0.0", 443))
try:
    sock.connect((sys.argv[1], 9))
except OSError as error:
    print("connect", error.errno)
"#;
    let fief = fief_testkit::bin("fief").display().to_string();
    let command = |argv: &[&str]| {
        let mut all = vec![fief.as_str(), "exec", "t0", "--"];
        all.extend(argv);
        room.host().command(&all).cgroup(room.lab.cgroup())
    };
    let to = client(false).ip().to_string();
    let output = command(&["python3", "-c", script, &to]).run().ok();
    assert_eq!(output.stdout, format!("connect {}\n", libc::EADDRINUSE));
    // Nobody gets a low port by being moved from it.
    let bind = "import socket\ntry:\n  socket.socket().bind(('0.0.0.0', 443)); print('bound')\n\
                except OSError as error: print(error.errno)\n";
    let output =
        command(&["setpriv", "--inh-caps=-all", "--bounding-set=-all", "python3", "-c", bind]).run().ok();
    assert_eq!(output.stdout, format!("{}\n", libc::EACCES));
    let output = command(&["python3", "-c", bind]).run().ok();
    assert_eq!(output.stdout, "bound\n", "who may");
    // A second one of the same tenant is refused as ever.
    let _own = serve(&room, Some(0), &["own", "4", "0.0.0.0", "443"]);
    let output = command(&["python3", "-c", bind]).run().ok();
    assert_eq!(output.stdout, format!("{}\n", libc::EADDRINUSE));
    // UDP is not moved: its answers would leave by the wrong port.
    let udp = room.inside(room.host(), || std::net::UdpSocket::bind("0.0.0.0:443"));
    assert!(udp.is_ok());
    let bind = bind.replace("socket.socket()", "socket.socket(type=socket.SOCK_DGRAM)");
    let output = command(&["python3", "-c", &bind]).run().ok();
    assert_eq!(output.stdout, format!("{}\n", libc::EADDRINUSE));
}

/// Four thousand listeners of one process, a thousand ports in each of four tenants, where a shell allows 1,024 files.
#[test]
fn four_thousand_listeners_of_one_process() {
    let Some(room) = Room::open("own-many", 4, "") else { return };
    let script = r#"
import socket, sys, select
listeners = {}
for tenant in range(4):
    for port in range(20000, 21000):
        sock = socket.socket()
        sock.setsockopt(0x6669, 0x101, b"t%d" % tenant)
        sock.bind(("0.0.0.0", port))
        sock.listen(4)
        assert sock.getsockname() == ("0.0.0.0", port)
        listeners[sock.fileno()] = (sock, tenant)
print("ready", len(listeners), flush=True)
poll = select.epoll()
for fd in listeners:
    poll.register(fd, select.EPOLLIN)
while True:
    for fd, _ in poll.poll():
        sock, tenant = listeners[fd]
        stream, _ = sock.accept()
        stream.sendall(b"%d" % tenant)
        stream.close()
"#;
    let fief = fief_testkit::bin("fief").display().to_string();
    let shell = ["sh", "-c", "ulimit -Sn 1024; exec \"$@\"", "sh"];
    let run = |words: &[&str]| {
        let argv: Vec<&str> = shell.iter().chain(words).copied().collect();
        room.host().spawn_in_cgroup(room.lab.cgroup(), &argv)
    };
    // The control: without help this shell's programs have an end.
    let mut alone = run(&["python3", "-u", "-c", script]);
    alone.wait(SOON);
    assert!(alone.output().contains("Too many open files"), "{}", alone.output());
    let mut server = run(&[&fief, "exec", "--all", "--", "python3", "-u", "-c", script]);
    server.wait_for_output("ready 4000", SOON * 3);
    for tenant in 0..4 {
        for port in [20_000, 20_499, 20_999] {
            assert_eq!(answers(&room, tenant, false, port), tenant.to_string(), "{port}");
        }
    }
}
