//! Sockets of tenants' namespaces in the hands of programs that are outside of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fief_testkit::{Output, eventually};
use libc::{AF_INET, SOCK_DGRAM, SOCK_STREAM};

use crate::app::App;
use crate::node::{Node, http, network};
use crate::room::SOON;
use crate::town::Town;

const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
/// The member of the first tenant, and of no other.
const MEMBER: u32 = 47_111;

/// Two tenants with one subnet, a member in the first, and in each a web server that says whose it is.
struct House {
    node: Node,
    apps: [App; 2],
    _servers: [fief_testkit::Child; 2],
    get: String,
}

const NAMES: [&str; 2] = ["ni1", "ni2"];

impl House {
    fn open(name: &str) -> Option<House> {
        let node = Node::open(name, 1)?;
        for (name, members) in
            NAMES.iter().zip([format!("members: {{ users: [\"{MEMBER}\"] }}"), String::new()])
        {
            node.apply(&[
                format!(
                    "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec: {{ {members} }}\n"
                ),
                network(name, "10.10.1.0/24", &["uplinks: [eth0]"]),
            ]);
        }
        let apps = NAMES.map(|name| node.place(name, "b", B));
        let servers = [0, 1].map(|i| node.town.serve(&apps[i].ns, NAMES[i]));
        for (app, name) in apps.iter().zip(NAMES) {
            app.reaches(&http(B), name);
        }
        let home = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let get = node.town.lab.dir().join("get").display().to_string();
        let [include, source] =
            ["include", "examples/socket.c"].map(|path| home.join(path).display().to_string());
        node.town.host.run(&["gcc", "-Wall", "-Wextra", "-Werror", "-I", &include, &source, "-o", &get]).ok();
        Some(House { node, apps, _servers: servers, get })
    }

    fn sockets(&self) -> PathBuf {
        self.node.daemon.root().join("run/fief/sockets.sock")
    }

    /// The example, as somebody.
    fn get(&self, user: u32, tenant: &str, address: Ipv4Addr) -> Output {
        let (address, at) = (address.to_string(), self.sockets().display().to_string());
        self.node.town.host.command(&[&self.get, tenant, &address, "80", &at]).user(user, user).run()
    }

    fn ask(&self, tenant: &str, kind: i32) -> std::io::Result<OwnedFd> {
        self.node.town.host.enter(|| libfief::socket_by(&self.sockets(), tenant, AF_INET, kind, 0))
    }
}

#[test]
fn one_program_calls_the_same_address_in_every_tenant() {
    let Some(mut house) = House::open("handed") else { return };
    for name in NAMES {
        assert!(house.get(0, name, B).ok().stdout.contains(&format!("{name} sees {GATEWAY}")));
        // By the tenant's own way out.
        let outside = house.get(0, name, Town::SITE).ok().stdout;
        assert!(outside.contains(&format!("site sees {}", Town::host_address(0))), "{outside}");
    }
    // A listener in each namespace, on one port, from one process; and datagrams.
    let listeners = NAMES.map(|name| {
        let socket = house.ask(name, SOCK_STREAM).expect("root may have it");
        nix::sys::socket::bind(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            &nix::sys::socket::SockaddrIn::new(10, 10, 1, 1, 9000),
        )
        .expect("each namespace has its ports");
        nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(5).expect("a small number"))
            .expect("it listens");
        TcpListener::from(socket)
    });
    // The daemon is not needed any more.
    house.node.daemon.kill9();
    for ((listener, app), name) in listeners.iter().zip(&house.apps).zip(NAMES) {
        let mut call = app.ns.enter(|| TcpStream::connect((GATEWAY, 9000))).expect("somebody listens");
        let (mut accepted, from) = listener.accept().expect("the call comes");
        assert_eq!(from.ip(), B);
        accepted.write_all(name.as_bytes()).expect("it is open");
        drop(accepted);
        let mut text = String::new();
        call.read_to_string(&mut text).expect("it says something");
        assert_eq!(text, name);
    }
    // And without it there are no new ones.
    assert!(house.ask("ni1", SOCK_STREAM).is_err());
    house.node.daemon.restart();
    eventually(SOON, || house.ask("ni1", SOCK_STREAM).map(drop).map_err(|error| error.to_string()));
}

#[test]
fn datagrams_go_where_the_socket_is() {
    let Some(house) = House::open("handed-udp") else { return };
    let heard =
        house.apps.each_ref().map(|app| app.ns.enter(|| UdpSocket::bind((B, 7000))).expect("it is free"));
    for (name, socket) in NAMES.iter().zip(&heard) {
        socket.set_read_timeout(Some(SOON)).expect("a socket has a time-out");
        let asks =
            UdpSocket::from(house.ask(name, SOCK_DGRAM | libc::SOCK_NONBLOCK).expect("root may have it"));
        asks.send_to(name.as_bytes(), (B, 7000)).expect("a route is there");
        let mut buffer = [0; 8];
        let (length, from) = socket.recv_from(&mut buffer).expect("it arrives");
        assert_eq!((&buffer[..length], from.ip()), (name.as_bytes(), GATEWAY.into()));
        assert!(asks.recv(&mut buffer).is_err(), "it was to wait for nothing");
    }
    // Each got its own tenant's, and nothing else.
    for socket in &heard {
        socket.set_nonblocking(true).expect("a socket can be told");
        assert!(socket.recv(&mut [0; 8]).is_err());
    }
}

#[test]
fn nobody_gets_a_socket_of_a_tenant_he_may_not_act_as() {
    let Some(house) = House::open("handed-doors") else { return };
    assert!(house.get(MEMBER, "ni1", B).ok().stdout.contains("ni1 sees"));
    let refused = |user, tenant: &str| house.get(user, tenant, B).fails().stderr;
    assert!(refused(MEMBER, "ni2").contains("Operation not permitted"));
    assert!(refused(MEMBER + 1, "ni1").contains("Operation not permitted"));
    assert!(refused(0, "ni3").contains("No such file or directory"));
    // One of the host's own stack is had by the option. Where fief writes no marks there is none.
    if !fief_testkit::is_markless() {
        house.node.apply(&[crate::node::tenant("plain")]);
        assert!(refused(0, "plain").contains("Operation not supported"));
    }
    // No other kind of socket: one of packets would see and forge what is everybody's in there.
    for (family, kind, errno) in [
        (libc::AF_PACKET, libc::SOCK_RAW, libc::EAFNOSUPPORT),
        (AF_INET, libc::SOCK_RAW, libc::ESOCKTNOSUPPORT),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::EAFNOSUPPORT),
    ] {
        assert_eq!(raw(&house, family, kind), errno, "{family} {kind}");
    }
    assert_eq!(raw(&house, AF_INET, SOCK_STREAM), 0);
    // Who is no member any more gets none.
    house.node.apply(&[crate::node::tenant("ni1")]);
    assert!(refused(MEMBER, "ni1").contains("Operation not permitted"));
}

/// The answer to a question that the library would not ask.
fn raw(house: &House, family: i32, kind: i32) -> i32 {
    let mut stream = UnixStream::connect(house.sockets()).expect("the daemon listens");
    let mut question: Vec<u8> = [family, kind, 0].into_iter().flat_map(i32::to_ne_bytes).collect();
    question.extend(b"ni1");
    question.resize(76, 0);
    stream.write_all(&question).expect("it takes a question");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("it answers");
    i32::from_ne_bytes(answer)
}

#[test]
fn who_asks_nothing_or_nonsense_keeps_nobody_waiting() {
    let Some(house) = House::open("handed-flood") else { return };
    let script = "import socket, sys, time\n\
        held = []\n\
        for length in [0, 1, 75] * 100:\n\
        \x20s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); held.append(s)\n\
        \x20try: s.send(bytes([255] * length))\n\
        \x20except OSError: pass\n\
        print('held', flush=True); time.sleep(60)\n";
    let at = house.sockets().display().to_string();
    let command = house.node.town.host.command(&["/usr/bin/python3", "-c", script, &at]);
    let mut flood = command.user(MEMBER + 1, MEMBER + 1).spawn();
    flood.wait_for_output("held", SOON);
    let began = Instant::now();
    house.get(MEMBER, "ni1", B).ok();
    house.get(0, "ni2", B).ok();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // Who holds too many is refused himself, until they have been sent away.
    house.get(MEMBER + 1, "ni1", B).fails();
    assert!(house.node.daemon.cli(&["status"]).success());
}
