//! The field moves under everything that runs.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use fief_testkit::{Child, Dial, Frame, Ns, eventually, inject};
use fief_tests::peers::peer;

use crate::crowd::{Crowd, marks};
use crate::room::{PORT, Room, SOON};

const OLD: &str = "0xffff0000";
const NEW: &str = "0xffff";

/// The server of everybody, a process of its own with room for a crowd.
pub fn serve(room: &Room) -> Child {
    let program = fief_testkit::peer();
    let line = format!("ulimit -n 8192; exec {} serve [::]:{PORT} --pktinfo", program.display());
    let mut server = room.host().spawn_in_cgroup(room.lab.cgroup(), &["sh", "-c", &line]);
    server.wait_for_output("ready", SOON);
    server
}

/// `fief exec TENANT -- ...` on the host.
fn exec(room: &Room, tenant: usize, argv: &[&str]) -> Child {
    let fief = fief_testkit::bin("fief").display().to_string();
    let root = room.daemon.root().display().to_string();
    let name = room.street.name(tenant);
    let words = ["--root", &root, "exec", &name, "--"];
    let argv: Vec<&str> = std::iter::once(fief.as_str()).chain(words).chain(argv.iter().copied()).collect();
    room.host().spawn_in_cgroup(room.lab.cgroup(), &argv)
}

/// Nothing of the host's says a tenant by the old bits.
#[track_caller]
fn is_gone(host: &Ns, old: u32) {
    for family in ["-4", "-6"] {
        let rules = host.sh(&format!("ip {family} rule show")).ok().stdout;
        assert!(!rules.contains(&format!("/{old:#x}")), "{rules}");
    }
    let left: Vec<_> = marks(host)
        .into_iter()
        .filter(|(mark, line)| mark & old != 0 && !line.contains("TIME-WAIT"))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn the_field_moves_under_iperf_and_a_thousand_connections() {
    let Some(iperf) = peer("iperf3") else { return };
    let iperf = iperf.display().to_string();
    let Some(room) = Room::open("field-move", 3, &format!("markMask: \"{OLD}\"\n")) else { return };
    let _server = serve(&room);
    let mut crowd = Crowd::gather(&room, 2, 500);
    assert_eq!(crowd.len(), 1000);
    // iperf3 as tenant 2, from the host to its remote network, until well behind the move.
    let mut far = room.street.client(2).spawn(&[&iperf, "-s", "-1", "--forceflush"]);
    far.wait_for_output("listening", SOON);
    let to = fief_testkit::Street::CLIENT_V4.to_string();
    let mut near = exec(&room, 2, &[&iperf, "-c", &to, "-t", "12", "-i", "1", "--forceflush"]);
    near.wait_for_output("sec", SOON);
    let datagrams = Datagrams::open(&room);
    datagrams.speak("before");
    crowd.speak("before");
    assert!(marks(room.host()).iter().filter(|(mark, _)| mark >> 16 != 0).count() >= 1000);

    let begin = Instant::now();
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| room.daemon.cli(&["marks", "move", "--to", NEW]).ok());
        let mut rounds = 0;
        while !moved.is_finished() {
            crowd.speak(&format!("round {rounds}"));
            datagrams.speak(&format!("round {rounds}"));
            rounds += 1;
        }
        let said = moved.join().expect("no panic").stdout;
        assert!(said.contains("the field is at 0xffff"), "{said}");
        assert!(said.contains("markMask in fiefd.yaml still says 0xffff0000"), "{said}");
        assert!(rounds > 0);
    });
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());

    is_gone(room.host(), 0xffff_0000);
    crowd.speak("after");
    datagrams.speak("after");
    // Each socket is its tenant's, by the new bits, and there are as many as before.
    let sockets = room.daemon.cli(&["sockets", "-o", "json"]).ok().json();
    for tenant in 0..2 {
        let name = room.street.name(tenant);
        let of = |socket: &&serde_json::Value| {
            socket["tenant"] == name.as_str()
                && socket["state"] == "ESTABLISHED"
                && socket["protocol"] == "tcp"
        };
        assert_eq!(sockets.as_array().expect("a list").iter().filter(of).count(), 500, "{name}");
    }
    let ended = near.wait(Duration::from_secs(30));
    let output = near.output();
    assert!(ended.success(), "{output}");
    let dry = output.lines().any(|line| line.contains(" 0.00 bits/sec"));
    assert!(!dry, "a second without a byte: {output}");
    let status = room.daemon.cli(&["status", "-o", "json"]).ok().json();
    assert_eq!(status["repairs"], 0, "nobody had changed anything: {}", room.daemon.log());
    // New ones come under the new bits.
    let mut later = Crowd::gather(&room, 3, 2);
    later.speak("later");
}

/// UDP: the server of everybody, and a tenant's own socket that nothing but its mark says whose it is.
struct Datagrams<'a> {
    room: &'a Room,
    sender: UdpSocket,
    far: UdpSocket,
}

impl Datagrams<'_> {
    #[track_caller]
    fn open(room: &Room) -> Datagrams<'_> {
        let far = room.street.client(2).enter(|| UdpSocket::bind("0.0.0.0:9000").expect("free"));
        far.set_read_timeout(Some(SOON)).expect("an option");
        // Unbound and unconnected.
        let sender = room.inside(room.host(), || {
            let fresh = Dial::to("192.0.2.1:9".parse().expect("an address"));
            let fresh = fresh.socket(nix::sys::socket::SockType::Datagram).expect("a socket");
            libfief::set(&fresh, libfief::Whose::Socket, &room.street.name(2)).expect("an administrator may");
            UdpSocket::from(fresh)
        });
        Datagrams { room, sender, far }
    }

    #[track_caller]
    fn speak(&self, round: &str) {
        let to: SocketAddr = (fief_testkit::Street::CLIENT_V4, 9000).into();
        self.sender.send_to(round.as_bytes(), to).unwrap_or_else(|e| panic!("{round}: {e}"));
        let mut heard = [0; 100];
        let length = self.far.recv(&mut heard).unwrap_or_else(|e| panic!("{round}: not heard: {e}"));
        assert_eq!(String::from_utf8_lossy(&heard[..length]), round);
        for tenant in 0..2 {
            let what = format!("{round}: datagram of tenant {tenant}");
            let dial = Dial::to(self.room.local(tenant, false)).timeout(SOON);
            let answer = self.room.street.client(tenant).enter(|| dial.udp(what.as_bytes()));
            let (answer, from) = answer.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(String::from_utf8_lossy(&answer), what);
            assert_eq!(from, self.room.local(tenant, false));
        }
    }
}

/// Half-open connections and those in TIME-WAIT; connections that nobody has accepted yet.
#[test]
fn connections_that_are_no_sockets_yet_or_no_longer_are_not_lost() {
    let Some(room) = Room::open("field-half", 2, &format!("markMask: \"{OLD}\"\n")) else { return };
    let listener = room.inside(room.host(), || std::net::TcpListener::bind(("::", PORT)).expect("free"));
    let mut waiting = Crowd::gather(&room, 2, 8);
    // The client's kernel hears no answer to its first SYN for a while: half-open on the host.
    let client = room.street.client(0);
    deafen(client);
    let to = room.local(0, false);
    let half_open = std::thread::scope(|scope| {
        let dial = Dial::to(to).timeout(Duration::from_secs(40));
        let calling = scope.spawn(move || client.enter(|| dial.connect()));
        await_half_open(room.host());
        let moving = scope.spawn(|| room.daemon.cli(&["marks", "move", "--to", NEW]).ok());
        // The move waits for it, and its connections are served meanwhile.
        eventually(SOON, || {
            let view = room.daemon.cli(&["marks", "move", "--dry-run", "-o", "json"]).ok().json();
            let left = view["field"]["moving"]["socketsLeft"].as_u64().unwrap_or(0);
            if left >= 1 { Ok(()) } else { Err(view.to_string()) }
        });
        client.nft("delete table inet deaf\n");
        let connected = calling.join().expect("no panic").expect("the connection is made after all");
        moving.join().expect("no panic");
        connected
    });
    is_gone(room.host(), 0xffff_0000);
    // Accepted only now, all of them by the new bits, each its own tenant's.
    let mut held = Vec::new();
    for _ in 0..waiting.len() + 1 {
        let (stream, _) = listener.accept().expect("a connection");
        let local = stream.local_addr().expect("bound").ip().to_canonical();
        let tenant =
            (0..2).find(|i| [room.local(*i, false).ip(), room.local(*i, true).ip()].contains(&local));
        let mark = fief_testkit::mark(&stream).expect("an option");
        assert_eq!(mark, room.mark(tenant.expect("a tenant's address")), "{local}");
        held.push(std::thread::spawn(move || echo(stream)));
    }
    waiting.speak("accepted late");
    drop((waiting, half_open));
    held.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

/// This client hears no answer to its SYNs, until its table `deaf` is deleted.
pub fn deafen(client: &Ns) {
    client.nft(
        "table inet deaf {
           chain in { type filter hook input priority 0; tcp sport 8000 tcp flags & (syn|ack) == (syn|ack) drop; }
         }",
    );
}

/// Waits until a connection is half-open on the host: it has no place in the next field yet.
#[track_caller]
pub fn await_half_open(host: &Ns) {
    eventually(SOON, || {
        let list = host.sh("ss -H -tn state syn-recv").ok().stdout;
        if list.contains(":8000") { Ok(()) } else { Err(format!("not half-open: {list}")) }
    });
}

fn echo(mut stream: std::net::TcpStream) {
    let mut other = stream.try_clone().expect("a second handle");
    // The client's end is what ends it.
    let _ = std::io::copy(&mut stream, &mut other);
}

/// A listener and others bits of the mark stay what they were; a foreign bit in the old field is no tenant.
#[test]
fn foreign_bits_in_the_old_field_select_nobody() {
    let Some(room) = Room::open("field-foreign", 2, &format!("markMask: \"{OLD}\"\n")) else { return };
    let _server = serve(&room);
    let mark = room.mark(1);
    // Somebody on the host has long set bits that happen to be tenant 1's number, on a socket with the host's address.
    let foreign = room.host().enter(|| {
        let dial = Dial::to("192.0.2.1:9".parse().expect("an address")).mark(mark | 0x7);
        let from = crate::room::host_address(false);
        dial.bind((from.ip(), 0).into()).socket(nix::sys::socket::SockType::Datagram).expect("root may mark")
    });
    let listening = room.host().enter(|| {
        let dial = Dial::to("192.0.2.1:9".parse().expect("an address")).mark(mark | 0x7);
        let from = crate::room::host_address(false);
        let socket = dial.bind((from.ip(), 8100).into()).socket(nix::sys::socket::SockType::Stream);
        let socket = std::net::TcpListener::from(socket.expect("root may mark"));
        nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(1).expect("a number"))
            .expect("bound");
        socket
    });
    let own = room.inside(room.host(), || {
        Dial::to("192.0.2.1:9".parse().expect("an address"))
            .mark(mark | 0x80)
            .bind((room.local(1, false).ip(), 0).into())
            .socket(nix::sys::socket::SockType::Datagram)
            .expect("an administrator may")
    });
    room.daemon.cli(&["marks", "move", "--to", "0xff00"]).ok();
    let slot = room.view(1)["status"]["slot"].as_u64().expect("a number") as u32;
    assert_eq!(fief_testkit::mark(&listening).expect("an option"), mark | 0x7, "nobody touches it");
    assert_eq!(fief_testkit::mark(&foreign).expect("an option"), mark | 0x7, "nobody touches it");
    assert_eq!(
        fief_testkit::mark(&own).expect("an option"),
        slot << 8 | 0x80,
        "the tenant's socket has moved"
    );
    // What is sent with the old bits now is the host's: no tenant's router sees it.
    let captures = [0, 1].map(|i| fief_testkit::Capture::on(room.street.client(i), "eth0"));
    let to: SocketAddr = (fief_testkit::Street::CLIENT_V4, 9).into();
    let send = |mark: u32, what: &str| {
        let socket =
            room.host().enter(|| Dial::to(to).mark(mark).socket(nix::sys::socket::SockType::Datagram));
        let socket = UdpSocket::from(socket.expect("root may mark"));
        // The host itself has no way there.
        let _ = socket.send_to(what.as_bytes(), to);
    };
    send(mark, "by the old bits");
    send(slot << 8, "by the new bits");
    assert!(captures[1].wait_for(b"by the new bits", SOON), "the positive control");
    assert!(captures.iter().all(|capture| !capture.contains(b"by the old bits")));
}

/// Connection marks that somebody saves and restores move as well, or the old bits would come back with every packet.
#[test]
fn saved_connection_marks_move() {
    let Some(room) = Room::open("field-ct", 2, &format!("markMask: \"{OLD}\"\n")) else { return };
    room.host().nft(
        "table inet keeper {\n chain pre { type filter hook prerouting priority -150; \
         ct mark != 0 meta mark set ct mark; ct mark set meta mark; }\n \
         chain out { type route hook output priority -150; ct mark != 0 meta mark set ct mark; ct mark set meta mark; }\n}\n",
    );
    let _server = serve(&room);
    let mut crowd = Crowd::gather(&room, 2, 20);
    crowd.speak("before");
    let Some(conntrack) = peer("conntrack") else { return };
    let marks = || {
        let list = room.host().run(&[conntrack.to_str().expect("a path"), "-L"]).ok().stdout;
        let of = list.lines().filter(|line| line.contains("dport=8000"));
        let mark =
            |line: &str| line.split_whitespace().find_map(|w| w.strip_prefix("mark=")?.parse::<u32>().ok());
        of.filter_map(mark).collect::<Vec<u32>>()
    };
    assert!(
        marks().iter().filter(|mark| **mark >> 16 != 0 && **mark & 0xffff == 0).count() >= 20,
        "{:x?}",
        marks()
    );
    // Somebody who copies whole marks is in the way of every field; the move says so, and is told to go on.
    let refused = room.daemon.cli(&["marks", "move", "--to", NEW]).fails();
    assert!(refused.stderr.contains("keeper") && refused.stderr.contains("--force"), "{refused}");
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| room.daemon.cli(&["marks", "move", "--to", NEW, "--force"]).ok());
        let mut round = 0;
        while !moved.is_finished() {
            crowd.speak(&format!("round {round}"));
            round += 1;
        }
        moved.join().expect("no panic");
    });
    crowd.speak("after");
    let after = marks();
    assert!(
        after.iter().all(|mark| mark >> 16 == 0) && after.iter().filter(|m| **m != 0).count() >= 20,
        "{after:x?}"
    );
}

/// The kernel answers for a connection in TIME-WAIT by the mark of what it answers: it finds its way after the move, too.
#[test]
fn a_connection_in_time_wait_still_answers_its_own_tenant() {
    let Some(room) = Room::open("field-tw", 2, &format!("markMask: \"{OLD}\"\n")) else { return };
    let listener = room.inside(room.host(), || std::net::TcpListener::bind(("::", PORT)).expect("free"));
    let to = room.local(1, false);
    let client = room.street.client(1);
    let from: SocketAddr = (fief_testkit::Street::CLIENT_V4, 41_000).into();
    let stream = client.enter(|| Dial::to(to).bind(from).timeout(SOON).connect().expect("answered"));
    // Whoever closes first waits.
    drop(listener.accept().expect("a connection"));
    drop(stream);
    let waits = || room.host().sh("ss -H -tn state time-wait").ok().stdout.contains("41000");
    eventually(SOON, || if waits() { Ok(()) } else { Err("not in TIME-WAIT".to_owned()) });
    room.daemon.cli(&["marks", "move", "--to", NEW]).ok();
    assert!(waits(), "still there");
    let captures = [0, 1].map(|i| fief_testkit::Capture::on(room.street.router(i), "eth0"));
    let stray = Frame::new(room.street.router_mac(1), room.street.host_mac()).ip(from.ip(), to.ip()).tcp(
        (41_000, PORT),
        fief_testkit::frame::ACK,
        (1, 1),
        b"",
    );
    inject(room.street.router(1), "eth0", &stray);
    // From port 8000 to port 41000.
    let answer = [&PORT.to_be_bytes()[..], &41_000_u16.to_be_bytes()[..]].concat();
    assert!(captures[1].wait_for(&answer, SOON), "no answer");
    assert!(!captures[0].contains(&answer));
}
