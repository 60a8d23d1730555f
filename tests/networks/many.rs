//! Many networks with one subnet, from one file, all asked at once: everybody hears its own peer and its own
//! names, and what is deleted leaves nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use fief_testkit::{Dial, Ns, Snapshot, attempt, eventually};
use fief_tests::peers::query;
use fief_tests::scene::soak;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::node::{Node, at, endpoint, network, tenant};
use crate::room::SOON;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 10, 1, 11), Ipv4Addr::new(10, 10, 1, 12)];
const NAMES: [&str; 2] = ["a", "b"];
const PORT: u16 = 8000;
/// Where no server listens.
const NOBODY: u16 = 8001;
/// Requests that are under way at the same time, at least.
const AT_ONCE: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(600);

/// Networks with two endpoints each, whose servers listen.
struct Many {
    node: Node,
    networks: Vec<Pair>,
}

/// One network, which is all that its tenant has.
struct Pair {
    tenant: String,
    ends: [Ns; 2],
    /// What the name `who` means here, and here only.
    own: Ipv4Addr,
}

/// A question that was asked and not yet answered.
struct Asked<'a> {
    by: &'a Pair,
    end: usize,
    stream: TcpStream,
}

impl Many {
    /// Nothing is applied yet.
    #[track_caller]
    fn open(name: &str, n: usize) -> Option<Many> {
        let node = Node::open(name, 1)?;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard one");
        let pair = |i: usize| Pair {
            tenant: format!("t{i:04}"),
            ends: NAMES.map(|name| node.town.lab.ns(&format!("{name}{i}"))),
            own: Ipv4Addr::new(10, 99, (i / 250) as u8, (1 + i % 250) as u8),
        };
        let networks = (0..n).map(pair).collect();
        Some(Many { node, networks })
    }

    /// Everything in one file.
    fn documents(&self) -> String {
        let of = |pair: &Pair| {
            let Pair { tenant: name, ends, own } = pair;
            let names = format!("dns: {{ names: {{ who: {own}, only-{name}: {own} }} }}");
            let mut documents =
                vec![tenant(name), network(name, "10.10.1.0/24", &["uplinks: [eth0]", &names])];
            for ((short, address), ns) in NAMES.iter().zip(ADDRESSES).zip(ends) {
                let attach = format!("attach: {{ netns: {} }}", ns.path().display());
                documents.push(endpoint(name, short, &[at(address)], &attach));
            }
            documents.join("---\n")
        };
        self.networks.iter().map(of).collect::<Vec<_>>().join("---\n")
    }

    /// `fief VERB -f -`, and how long that took.
    #[track_caller]
    fn timed(&self, verb: &str, documents: &str) -> Duration {
        let begin = Instant::now();
        let command = self.node.daemon.cli_command(&[verb, "-f", "-"]).input(documents).timeout(PATIENCE);
        let output = command.run();
        assert!(output.success(), "{output}\n--- log of fiefd\n{}", self.node.daemon.log());
        begin.elapsed()
    }

    /// So many views of a kind there are, and all of them are ready.
    #[track_caller]
    fn ready(&self, kind: &str, count: usize) {
        eventually(PATIENCE, || {
            let listed = self.node.daemon.cli(&["get", kind, "-o", "json"]).ok().json();
            let views: Vec<&Value> = listed.as_array().into_iter().flatten().collect();
            let unready = views.iter().find(|view| view["status"]["phase"] != "Ready");
            match unready {
                None if views.len() == count => Ok(()),
                other => Err(format!("{} {kind}, of whom {other:?}", views.len())),
            }
        });
    }

    /// Every endpoint's server, for all networks as `[a, b]`.
    #[track_caller]
    fn servers(&self) -> Vec<[TcpListener; 2]> {
        let one = |ns: &Ns, at: Ipv4Addr| {
            let server =
                ns.enter(|| TcpListener::bind((IpAddr::V4(at), PORT))).expect("the address is there");
            server.set_nonblocking(true).expect("a socket can be told");
            server
        };
        let both = |pair: &Pair| [0, 1].map(|end| one(&pair.ends[end], ADDRESSES[end]));
        self.networks.iter().map(both).collect()
    }

    /// Every endpoint meets its peer and its network's gateway, once, and keeps their Ethernet addresses.
    #[track_caller]
    fn meet(&self) {
        for pair in &self.networks {
            let [a, b] = &pair.ends;
            let call = |to| a.enter(|| Dial::to(to).timeout(SOON).connect());
            let refused = call((ADDRESSES[1], NOBODY).into()).map(drop).map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "the peer of {}", pair.says(0));
            call((GATEWAY, 53).into()).unwrap_or_else(|error| panic!("{}: {error}", pair.says(0)));
            [a, b].iter().for_each(|ns| ns.keep_neighbours());
        }
    }

    /// Every endpoint asks its peer, many times over, before anybody is answered.
    #[track_caller]
    fn ask_peers(&self, servers: &[[TcpListener; 2]]) -> usize {
        let times = AT_ONCE.div_ceil(2 * self.networks.len());
        let mut asked = Vec::new();
        for by in &self.networks {
            for (end, _) in (0..2).flat_map(|end| (0..times).map(move |time| (end, time))) {
                let to = Dial::to((ADDRESSES[1 - end], PORT).into()).timeout(SOON);
                let mut stream = by.ends[end].enter(|| to.connect()).unwrap_or_else(|error| {
                    panic!("{} of {} cannot call its peer: {error}", NAMES[end], by.tenant)
                });
                stream.write_all(by.says(end).as_bytes()).expect("a connection takes a line");
                stream.shutdown(Shutdown::Write).expect("a connection can be half closed");
                asked.push(Asked { by, end, stream });
            }
        }
        for (pair, listeners) in self.networks.iter().zip(servers) {
            for (end, listener) in listeners.iter().enumerate() {
                (0..times).for_each(|_| pair.answer(end, listener));
                let more = listener.accept().map(|(_, from)| from);
                let nobody = more.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
                assert!(nobody, "{} has called {} of {} as well", show(&more), NAMES[end], pair.tenant);
            }
        }
        let count = asked.len();
        for Asked { by, end, mut stream } in asked {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer has an end");
            assert_eq!(answer, by.says(1 - end), "{} of {} heard it", NAMES[end], by.tenant);
        }
        count
    }

    /// Every network's resolver is asked for names that all have, for its own, and for another's, before any answer is
    /// looked at. The answers, by question.
    #[track_caller]
    fn ask_names(&self) -> usize {
        let n = self.networks.len();
        let times = AT_ONCE.div_ceil(4 * n);
        let mut asked = Vec::new();
        for (i, pair) in self.networks.iter().enumerate() {
            let next = &self.networks[(i + 1) % n].tenant;
            let questions = [
                ("who".to_owned(), Some(pair.own)),
                (format!("only-{}", pair.tenant), Some(pair.own)),
                (format!("b.net.{}.internal", pair.tenant), Some(ADDRESSES[1])),
                (format!("only-{next}"), None),
            ];
            let ask = || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect((GATEWAY, 53))?;
                socket.set_read_timeout(Some(SOON))?;
                Ok::<_, std::io::Error>(socket)
            };
            for (name, expected) in questions.iter().flat_map(|question| (0..times).map(move |_| question)) {
                let socket = pair.ends[0].enter(ask).expect("a socket can be made");
                socket.send(&query(i as u16, name)).expect("the resolver is there");
                asked.push((socket, i, name.clone(), *expected));
            }
        }
        let count = asked.len();
        for (socket, i, name, expected) in asked {
            let who = &self.networks[i].tenant;
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer);
            let length = length.unwrap_or_else(|error| panic!("{who} asked for {name}: {error}"));
            assert_eq!(buffer[..2], (i as u16).to_be_bytes(), "{who} heard another's answer");
            assert_eq!(record(&buffer[..length]), expected, "{who} asked for {name}");
        }
        count
    }

    /// The files of namespaces that fief keeps.
    fn namespaces(&self) -> usize {
        std::fs::read_dir(self.node.daemon.root().join("run/netns"))
            .map_or(0, |found| found.flatten().count())
    }
}

impl Pair {
    /// What an endpoint says of itself.
    fn says(&self, end: usize) -> String {
        format!("{} of {}", NAMES[end], self.tenant)
    }

    /// Answers the next caller, who must be the peer and say so.
    #[track_caller]
    fn answer(&self, end: usize, listener: &TcpListener) {
        let called = attempt(SOON, || listener.accept().map_err(|error| error.to_string()));
        let (mut stream, from) =
            called.unwrap_or_else(|error| panic!("nobody calls {}: {error}", self.says(end)));
        assert_eq!(from.ip(), ADDRESSES[1 - end], "who calls {}", self.says(end));
        stream.set_nonblocking(false).expect("a socket can be told");
        let mut question = String::new();
        stream.read_to_string(&mut question).expect("a question has an end");
        assert_eq!(question, self.says(1 - end), "who calls {}", self.says(end));
        stream.write_all(self.says(end).as_bytes()).expect("a connection takes a line");
    }
}

/// The address of an answer's only record, if there is one (RFC 1035, 4.1.1).
fn record(answer: &[u8]) -> Option<Ipv4Addr> {
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    let rcode = answer[3] & 15;
    if count == 0 {
        // A name that is not there is said to be so, or that nobody else may be asked.
        assert!(matches!(rcode, 3 | 5), "an answer without a record and with code {rcode}");
        return None;
    }
    assert_eq!((count, rcode), (1, 0), "records and code of {answer:?}");
    // Behind the question, which ends with its type and class: a pointer, type, class, life, length, address.
    let end = answer[12..].iter().position(|byte| *byte == 0).expect("a name has an end");
    let address: [u8; 4] = answer[12 + end + 5 + 12..][..4].try_into().expect("four bytes");
    Some(address.into())
}

fn show<T: std::fmt::Debug>(found: &std::io::Result<T>) -> String {
    format!("{found:?}")
}

fn from_one_file(name: &str, n: usize) {
    let Some(many) = Many::open(name, n) else { return };
    let (host, bare) = (Snapshot::of(&many.node.town.host), Snapshot::of(&many.networks[0].ends[0]));
    let documents = many.documents();
    let apply = many.timed("apply", &documents);
    many.ready("networks", n);
    many.ready("endpoints", 2 * n);
    assert_eq!(many.namespaces(), n);
    assert!(host.diff(&Snapshot::of(&many.node.town.host)).is_some(), "a host with networks looks otherwise");
    many.meet();
    let servers = many.servers();
    let begin = Instant::now();
    let (peers, names) = (many.ask_peers(&servers), many.ask_names());
    assert!(peers >= AT_ONCE && names >= AT_ONCE);
    let asked = begin.elapsed();
    drop(servers);
    let delete = many.timed("delete", &documents);
    println!("{n} networks: apply {apply:.1?}, {peers} + {names} questions {asked:.1?}, delete {delete:.1?}");
    assert_eq!(many.namespaces(), 0);
    eventually(SOON, || match host.diff(&Snapshot::of(&many.node.town.host)) {
        None => Ok(()),
        Some(diff) => Err(diff),
    });
    for end in many.networks.iter().flat_map(|pair| &pair.ends) {
        assert!(
            !end.enter(|| nix::net::if_::if_nametoindex("eth0").is_ok()),
            "{} keeps its device",
            end.short()
        );
    }
    bare.assert_same(&Snapshot::of(&many.networks[0].ends[0]));
}

#[test]
fn many_networks_with_one_subnet_from_one_file() {
    from_one_file("many", if soak() { 256 } else { 64 });
}

#[test]
#[ignore = "takes minutes; `make soak` runs it"]
fn a_thousand_networks_with_one_subnet_from_one_file() {
    from_one_file("many-1k", 1000);
}
