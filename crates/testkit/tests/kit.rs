//! The kit's own tests: a test language that lies is worse than none.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fief_testkit::{
    Capture, Dial, Echo, EchoOptions, Families, Frame, Lab, Snapshot, Street, attempt, bin, eventually,
    inject, mark, set_mark, tcp_exchange,
};

const SOON: Duration = Duration::from_secs(5);
const US: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const THEM: [u8; 6] = [2, 0, 0, 0, 0, 0x22];

#[test]
fn namespaces_come_and_go() {
    let Some(lab) = Lab::new("comego") else { return };
    let before = Snapshot::here();
    let (a, b) = (lab.ns("a"), lab.ns("b"));
    assert_ne!(a.inode(), b.inode());
    assert_eq!(lab.ns("a").inode(), a.inode());
    assert!(a.run(&["ip", "netns", "list"]).ok().stdout.contains(a.name()));
    assert!(a.run(&["ip", "link", "show", "lo"]).ok().stdout.contains("LOWER_UP"));
    lab.veth((&a, "eth0"), (&b, "port0"));
    a.ip("addr add 192.0.2.1/24 dev eth0");
    b.ip("addr add 192.0.2.2/24 dev port0");
    a.run(&["ping", "-c1", "-W2", "192.0.2.2"]).ok();
    let (path, dir) = (a.path(), lab.dir().to_path_buf());
    assert!(path.exists() && dir.exists());
    assert_eq!(lab.close(), Vec::<String>::new());
    assert!(!path.exists() && !dir.exists());
    before.assert_same(&Snapshot::here());
}

#[test]
fn entering_is_for_the_closure_alone() {
    let Some(lab) = Lab::new("enter") else { return };
    let a = lab.ns("a");
    let own = || fs::metadata("/proc/thread-self/ns/net").expect("we have a namespace").ino();
    let outside = own();
    assert_eq!(a.enter(own), a.inode());
    assert_eq!(own(), outside);
    let panicked = std::panic::catch_unwind(|| a.enter(|| panic!("seen outside")));
    assert!(panicked.is_err());
    a.set_sysctl("net.ipv4.ip_forward", 1);
    assert_eq!(a.sysctl("net.ipv4.ip_forward"), "1");
    assert_eq!(lab.ns("b").sysctl("net.ipv4.ip_forward"), "0");
}

#[test]
fn programs_are_watched() {
    let Some(lab) = Lab::new("programs") else { return };
    let a = lab.ns("a");
    assert_eq!(a.command(&["cat"]).input("as given").run().ok().stdout, "as given");
    assert_eq!(a.sh("exit 7").fails().code(), 7);
    let begin = Instant::now();
    let late = a.command(&["sleep", "60"]).timeout(Duration::from_millis(200)).run();
    assert_eq!(late.code(), 128 + 9);
    assert!(begin.elapsed() < SOON);

    let nobody = a.command(&["id"]).user_with_groups(65534, 65534, &[4711]).run().ok().stdout;
    assert!(nobody.contains("uid=65534") && nobody.contains("4711"), "{nobody}");

    let closed = lab.dir().join("closed");
    fs::create_dir(&closed).expect("the lab's directory is writable");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("it is ours");
    fs::copy("/bin/true", closed.join("program")).expect("a file can be copied");
    let exposed = lab.expose(&closed.join("program"));
    a.command(&[exposed]).user(65534, 65534).run().ok();

    let mut child = a.spawn(&["sh", "-c", "echo first; sleep 60"]);
    child.wait_for_output("first", SOON);
    assert!(child.ended().is_none());
    child.kill();
    assert!(child.ended().is_some());
}

/// A child started from a thread that ends lives on; it would not if that thread were its parent.
#[test]
fn a_child_outlives_the_thread_that_asked_for_it() {
    let Some(lab) = Lab::new("thread") else { return };
    let a = lab.ns("a");
    let mut child =
        std::thread::scope(|scope| scope.spawn(|| a.spawn(&["sleep", "60"])).join()).expect("no panic");
    let ended = attempt(Duration::from_millis(100), || child.ended().ok_or_else(String::new));
    assert!(ended.is_err(), "{ended:?}");
}

#[test]
fn cgroups_and_leftovers_go_with_the_lab() {
    let Some(lab) = Lab::new("cgroup") else { return };
    let a = lab.ns("a");
    let cgroup = lab.cgroup().to_path_buf();
    let child = a.spawn_in_cgroup(&cgroup, &["sleep", "60"]);
    let members = fs::read_to_string(cgroup.join("cgroup.procs")).expect("a cgroup has members");
    assert_eq!(members.trim(), child.pid().to_string());
    // A grandchild that nobody holds.
    a.sh("setsid sleep 61 >/dev/null 2>&1 &").ok();
    fs::create_dir(cgroup.join("below")).expect("cgroups nest");
    drop(child);
    let leftovers = lab.close();
    assert_eq!(leftovers.len(), 1, "{leftovers:?}");
    // The name depends on how far it has come.
    let known = ["sleep", "setsid", "sh"].iter().any(|name| leftovers[0].ends_with(&format!(" {name}")));
    assert!(known, "{leftovers:?}");
    assert!(!cgroup.exists());
}

/// The test that this starts holds a lab with children, and is killed.
#[test]
fn nothing_outlives_a_killed_test() {
    if std::env::var_os("FIEF_KIT_VICTIM").is_some() {
        return victim();
    }
    let Some(lab) = Lab::new("killer") else { return };
    let own = std::env::current_exe().expect("a process has an executable");
    let a = lab.ns("a");
    let argv =
        [own.to_str().expect("a plain path"), "--exact", "nothing_outlives_a_killed_test", "--nocapture"];
    let mut child = a.command(&argv).env("FIEF_KIT_VICTIM", "1").spawn();
    child.wait_for_output("grandchild ", SOON);
    let said = child.output();
    let field = |name: &str| {
        said.split_whitespace()
            .skip_while(|word| *word != name)
            .nth(1)
            .expect("the victim says it")
            .to_owned()
    };
    let (pid, cgroup) = (field("grandchild"), PathBuf::from(field("cgroup")));
    assert!(PathBuf::from("/proc").join(&pid).exists());
    child.kill();
    eventually(SOON, || match PathBuf::from("/proc").join(&pid).exists() {
        true => Err(format!("{pid} still runs")),
        false => Ok(()),
    });
    // The next lab sweeps the empty cgroup of the dead one.
    lab.cgroup();
    assert!(!cgroup.exists());
}

fn victim() {
    let Some(lab) = Lab::new("victim") else { return };
    let child = lab.ns("v").spawn(&["sleep", "60"]);
    println!("cgroup {} grandchild {} ", lab.cgroup().display(), child.pid());
    std::thread::park();
}

#[test]
fn a_capture_sees_what_crosses_and_nothing_else() {
    let Some(lab) = Lab::new("capture") else { return };
    let (a, b, c) = (lab.ns("a"), lab.ns("b"), lab.ns("c"));
    lab.veth((&a, "eth0"), (&b, "eth0"));
    lab.veth((&a, "eth1"), (&c, "eth0"));
    let (near, far, foreign) = (Capture::on(&a, "eth0"), Capture::on(&b, "eth0"), Capture::on(&c, "eth0"));
    let frame =
        Frame::new(US, THEM).vlan(20).ip("192.0.2.1", "192.0.2.2").udp(7, 9, b"a payload to be found");
    inject(&a, "eth0", &frame);
    assert!(far.wait_for(b"a payload to be found", SOON));
    let seen = far.frames().into_iter().find(|f| f.contains(b"to be found")).expect("it was found");
    assert_eq!(seen.bytes, frame, "as sent, VLAN tag included");
    assert!(!seen.outgoing);
    assert_eq!(near.count(|f| f.outgoing && f.bytes == frame), 1);

    // Positive control: this capture can see a frame, it just did not see that one.
    inject(&a, "eth1", &Frame::new(US, THEM).payload(0x88b5, b"the control"));
    assert!(foreign.wait_for(b"the control", SOON));
    assert!(!foreign.contains(b"to be found"));
    assert!(!far.stop().iter().any(|f| f.contains(b"the control")));
}

#[test]
fn frames_are_what_the_kernel_accepts() {
    let Some(lab) = Lab::new("frames") else { return };
    let (a, b) = (lab.ns("a"), lab.ns("b"));
    lab.veth((&a, "eth0"), (&b, "eth0"));
    b.ip("addr add 192.0.2.2/24 dev eth0\naddr add fd00::2/64 dev eth0 nodad\n\
          neigh add 192.0.2.1 lladdr 02:00:00:00:00:11 dev eth0\nneigh add fd00::1 lladdr 02:00:00:00:00:11 dev eth0");
    let echo =
        b.enter(|| Echo::listen(([0_u16; 8], 4242).into(), EchoOptions::default())).expect("it listens");
    let mac = b.mac("eth0");
    let answers = Capture::on(&a, "eth0");
    for (us, them) in [("192.0.2.1", "192.0.2.2"), ("fd00::1", "fd00::2")] {
        let head = || Frame::new(US, mac).ip(us, them);
        inject(&a, "eth0", &head().udp(1000, 4242, b"odd"));
        inject(&a, "eth0", &head().echo_request(1, 1, b"ping"));
        inject(&a, "eth0", &head().tcp_syn(1001, 4242));
        let whole = head().udp(1002, 4242, b"in two parts, that is");
        let (header, protocol) = if us.contains(':') { (54, 17) } else { (34, 17) };
        inject(&a, "eth0", &head().fragment(9, 0, true).payload(protocol, &whole[header..header + 16]));
        inject(&a, "eth0", &head().fragment(9, 16, false).payload(protocol, &whole[header + 16..]));
        let from_them = |what: &[u8]| {
            let us: IpAddr = us.parse().expect("an address");
            let source = match us {
                IpAddr::V4(_) => vec![192, 0, 2, 2, 192, 0, 2, 1],
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            answers.count(|f| !f.outgoing && f.contains(&source) && f.contains(what))
        };
        let expect = |what: &[u8]| {
            eventually(SOON, || {
                if from_them(what) > 0 { Ok(()) } else { Err(format!("no answer with {what:?}")) }
            });
        };
        expect(b"odd");
        expect(b"ping");
        expect(b"in two parts, that is");
        expect(&[4242_u16.to_be_bytes(), 1001_u16.to_be_bytes()].concat());
    }
    inject(&a, "eth0", &Frame::new(US, [0xff; 6]).arp_request([192, 0, 2, 1].into(), [192, 0, 2, 2].into()));
    assert!(answers.wait_for(&[&[0, 2], &mac[..], &[192, 0, 2, 2]].concat(), SOON), "an ARP reply");
    let target = "fd00::2".parse().expect("an address");
    let group = [0x33, 0x33, 0xff, 0, 0, 2];
    answers.clear();
    inject(&a, "eth0", &Frame::new(US, group).ip("fd00::1", "ff02::1:ff00:2").neighbour_solicitation(target));
    assert!(answers.wait_for(&[&[2, 1], &mac[..]].concat(), SOON), "a neighbour advertisement");
    assert!(echo.heard().iter().any(|line| line.contains("192.0.2.1:1002")), "{:?}", echo.heard());
}

#[test]
fn a_street_has_clients_that_are_all_the_same() {
    let Some(lab) = Lab::new("street") else { return };
    let street = Street::new(&lab, 3, Families::Both);
    for i in 0..3 {
        let client = street.client(i);
        let shown = client.run(&["ip", "-brief", "address", "show", "eth0"]).ok().stdout;
        assert!(shown.contains("10.0.0.1/24") && shown.contains("fd00:a::1/64"), "{shown}");
        let router: [IpAddr; 2] = [street.router4(i).into(), street.router6(i).into()];
        for address in router {
            client.run(&["ping", "-n", "-c1", "-W2", &address.to_string()]).ok();
            street.host.run(&["ping", "-n", "-c1", "-W2", &address.to_string()]).ok();
        }
        assert_eq!(street.router(i).mac("eth0"), street.router_mac(i));
        let yaml = street.yaml(i);
        assert!(yaml.contains(&format!("name: t{i} ")) && yaml.contains("interface"), "{yaml}");
    }
    assert_eq!(street.documents().matches("kind: Tenant").count(), 3);
    assert!(street.host.run(&["ip", "route", "show", "default"]).ok().stdout.is_empty());
    // What a daemon would add by itself: the way from the client to the tenant's address on the host.
    street.host.ip(&format!("addr add {}/15 dev eth0 noprefixroute", street.local4(1)));
    let way = format!("route add 10.0.0.0/24 via {} src {}", street.router4(1), street.local4(1));
    street.host.ip(&way);
    street.client(1).run(&["ping", "-n", "-c1", "-W2", &street.local4(1).to_string()]).ok();
}

#[test]
fn a_hundred_tenants_are_a_matter_of_seconds() {
    let Some(lab) = Lab::new("hundred") else { return };
    let begin = Instant::now();
    let street = Street::new(&lab, 100, Families::Both);
    println!("100 tenants in {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(20));
    street.client(99).run(&["ping", "-n", "-c1", "-W2", &street.router4(99).to_string()]).ok();
    let begin = Instant::now();
    lab.close();
    println!("removed in {:?}", begin.elapsed());
}

#[test]
fn addresses_of_a_long_street_are_all_different() {
    let Some(lab) = Lab::new("long") else { return };
    let street = Street::sparse(&lab, Street::MOST, &[0, Street::MOST - 1], Families::V4);
    let mut all: Vec<IpAddr> = (0..Street::MOST)
        .flat_map(|i| -> [IpAddr; 4] {
            [
                street.local4(i).into(),
                street.router4(i).into(),
                street.local6(i).into(),
                street.router6(i).into(),
            ]
        })
        .chain([Street::HOST_V4.into(), Street::HOST_V6.into()])
        .collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
    let last = Street::MOST - 1;
    street.client(last).run(&["ping", "-n", "-c1", "-W2", &street.router4(last).to_string()]).ok();
    assert!(!street.yaml(last).contains("fd00"));
}

#[test]
fn a_snapshot_detects_every_planted_change() {
    let Some(lab) = Lab::new("snapshot") else { return };
    let (a, b) = (lab.ns("a"), lab.ns("b"));
    lab.veth((&a, "eth0"), (&b, "eth0"));
    a.ip("addr add 192.0.2.1/24 dev eth0");
    a.nft("table inet t {\nchain c {\ntype filter hook input priority 0;\ncounter\n}\n}");
    eventually(SOON, || match a.run(&["ip", "-6", "addr", "show", "dev", "eth0"]).stdout.contains("fe80") {
        true => Ok(()),
        false => Err("no link-local address".to_owned()),
    });
    let before = Snapshot::of(&a);
    a.run(&["ping", "-c1", "-W1", "192.0.2.1"]).ok();
    before.assert_same(&Snapshot::of(&a));

    let planted: &[(&str, &str, &str)] = &[
        ("ip addr add 192.0.2.9/32 dev eth0", "ip addr del 192.0.2.9/32 dev eth0", "192.0.2.9"),
        ("ip route add 203.0.113.0/24 dev eth0 table 77", "ip route flush table 77", "table 77"),
        ("ip -6 route add 2001:db8::/64 dev eth0 table 77", "ip -6 route flush table 77", "2001:db8::"),
        ("ip rule add fwmark 7 lookup 77 pref 9", "ip rule del pref 9", "fwmark 0x7"),
        ("ip -6 rule add fwmark 7 lookup 77 pref 9", "ip -6 rule del pref 9", "fwmark 0x7"),
        ("nft add table inet x", "nft delete table inet x", "table inet x"),
        ("ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500", "mtu 1400"),
        ("tc qdisc add dev eth0 clsact", "tc qdisc del dev eth0 clsact", "clsact"),
        ("ip neigh add 192.0.2.5 lladdr 2::1 dev eth0", "ip neigh del 192.0.2.5 dev eth0", "192.0.2.5"),
        (
            "echo 1 >/proc/sys/net/ipv4/tcp_fwmark_accept",
            "echo 0 >/proc/sys/net/ipv4/tcp_fwmark_accept",
            "tcp_fwmark_accept = 1",
        ),
    ];
    for (plant, remove, trace) in planted {
        let plant = plant.replace("2::1", "02:00:00:00:00:05");
        a.sh(&plant).ok();
        let diff = before.diff(&Snapshot::of(&a)).unwrap_or_else(|| panic!("{plant} was not seen"));
        assert!(diff.contains(trace), "{plant}: {diff}");
        a.sh(remove).ok();
        before.assert_same(&Snapshot::of(&a));
    }
}

#[test]
fn clients_and_servers_talk() {
    let Some(lab) = Lab::new("traffic") else { return };
    let (a, b) = (lab.ns("a"), lab.ns("b"));
    let wire = lab.wire("w");
    wire.attach(&a, "eth0");
    wire.attach_as(&b, "eth0", THEM);
    a.ip("addr add 192.0.2.1/24 dev eth0\naddr add fd00::1/64 dev eth0 nodad");
    b.ip(
        "addr add 192.0.2.2/24 dev eth0\naddr add 192.0.2.3/24 dev eth0\naddr add fd00::2/64 dev eth0 nodad\n\
          addr add fd00::3/64 dev eth0 nodad",
    );
    let options = EchoOptions { pktinfo: true, ..EchoOptions::default() };
    let echo = b.enter(|| Echo::listen(([0_u16; 8], 7007).into(), options)).expect("it listens");
    for address in ["192.0.2.2:7007", "192.0.2.3:7007", "[fd00::2]:7007", "[fd00::3]:7007"] {
        let to: SocketAddr = address.parse().expect("an address");
        assert_eq!(a.enter(|| tcp_exchange(to, b"hello", SOON, None)).expect("it answers"), b"hello");
        let (answer, from) = a.enter(|| Dial::to(to).timeout(SOON).udp(b"hello")).expect("it answers");
        assert_eq!((answer.as_slice(), from), (&b"hello"[..], to), "from the address that was called");
    }
    let from: SocketAddr = "192.0.2.1:5005".parse().expect("an address");
    let to: SocketAddr = "192.0.2.2:7007".parse().expect("an address");
    a.enter(|| Dial::to(to).bind(from).device("eth0").mark(7).tcp(b"x")).expect("it answers");
    assert!(echo.heard().iter().any(|line| line.contains("from 192.0.2.1:5005")), "{:?}", echo.heard());

    let quick = Duration::from_millis(200);
    let nobody: SocketAddr = "192.0.2.77:1".parse().expect("an address");
    assert!(a.enter(|| tcp_exchange(nobody, b"x", quick, None)).is_err());
    let socket = a.enter(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("it binds");
    set_mark(&socket, 0x17).expect("root may mark");
    assert_eq!(mark(&socket).expect("a socket has a mark"), 0x17);
}

#[test]
fn the_peer_program_serves_and_calls() {
    let Some(lab) = Lab::new("peer") else { return };
    let a = lab.ns("a");
    let peer = bin("fief-peer").into_os_string();
    let mut server = a.command(&[&peer]).arg("serve").arg("0.0.0.0:7001").cgroup(lab.cgroup()).spawn();
    server.wait_for_output("ready", SOON);
    let call = |protocol: &str, port: &str| a.command(&[&peer]).arg(protocol).arg(port).arg("hello").run();
    assert_eq!(call("tcp", "127.0.0.1:7001").ok().stdout, "hello\n");
    assert_eq!(call("udp", "127.0.0.1:7001").ok().stdout, "hello\nfrom 127.0.0.1:7001\n");
    server.wait_for_output("tcp from 127.0.0.1:", SOON);
    assert!(call("tcp", "127.0.0.1:7002").fails().stderr.contains("refused"));
}

#[test]
fn waiting_is_bounded_and_says_why() {
    let mut calls = 0;
    assert_eq!(
        eventually(SOON, || {
            calls += 1;
            if calls == 3 { Ok(7) } else { Err(String::new()) }
        }),
        7
    );
    assert_eq!(attempt(Duration::from_millis(5), || Err::<(), _>("why".to_owned())), Err("why".to_owned()));
}
