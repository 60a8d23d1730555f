//! The yardstick of making a network: what the kernel needs for its least part, in the same run and by the same requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fief_host::devices::{self, Build, InterfaceAddress, Named, NewLink, Settings, Veth};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::{Route, RouteKind};
use fief_testkit::{Lab, Ns, attempt};

/// So many at once: one takes the longer the more there are.
const MANY: u32 = 1000;
/// The first free numbers of devices: on the host, and beside `lo` in a new namespace.
const FIRST: u32 = 10_000;
const INNER: u32 = 2;
/// More than they need to go.
const SOON: Duration = Duration::from_secs(120);

/// How long it takes to make a network namespace, a pair of veth devices that leads there, an address and a default route: one
/// of a thousand. They are gone when this returns.
pub fn namespace() -> Duration {
    // A lab moves its thread into a mount namespace.
    let measured = std::thread::spawn(|| {
        let lab = Lab::new("bench-yard").expect("the benchmarks need root");
        made(&lab, &lab.ns("host"))
    });
    measured.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn made(lab: &Lab, host: &Ns) -> Duration {
    let path = |i: u32| lab.dir().join(format!("yard-{i}"));
    let took = host.enter(|| {
        let mut outer = Socket::open(libc::NETLINK_ROUTE).expect("a netlink socket");
        let begin = Instant::now();
        for i in 0..MANY {
            let inner = Arc::new(Namespace::create(&path(i)).expect("root may make one"));
            let link = |name: String, index: u32| NewLink {
                name,
                index: Some(index),
                up: true,
                ..NewLink::default()
            };
            let veth = Veth {
                link: link(format!("yard{i}"), FIRST + i),
                peer: link("eth0".into(), INNER),
                peer_namespace: Some(inner.clone()),
            };
            carry_out(&mut outer, vec![Build::AddVeth(veth)]);
            let mut socket = Socket::open_in(&inner, libc::NETLINK_ROUTE).expect("a netlink socket");
            let up = Settings { up: Some(true), ..Settings::default() };
            let net = "10.0.0.2/24".parse().expect("a prefix");
            let route = Route {
                table: Route::MAIN,
                prefix: "0.0.0.0/0".parse().expect("a prefix"),
                metric: 0,
                kind: RouteKind::Unicast,
                device: Some(INNER),
                via: Some([10, 0, 0, 1].into()),
                source: None,
                on_link: false,
                mtu: None,
                detour: None,
            };
            let builds = vec![
                Build::Set { device: Named::Index(INNER), settings: up },
                Build::AddAddress(InterfaceAddress { device: INNER, net, noprefixroute: false }),
                Build::SetRoute(route),
            ];
            carry_out(&mut socket, builds);
        }
        begin.elapsed() / MANY
    });
    (0..MANY).for_each(|i| Namespace::remove(&path(i)).expect("it is ours"));
    // They go one after the other, and what they held is not to be missing from what is measured next.
    let gone = || match host.enter(|| nix::net::if_::if_nameindex().map(|all| all.iter().count())) {
        Ok(1) => Ok(()),
        left => Err(format!("{left:?}")),
    };
    attempt(SOON, gone).expect("devices go with their namespaces");
    took
}

fn carry_out(socket: &mut Socket, builds: Vec<Build>) {
    for done in devices::carry_out(socket, &builds) {
        done.expect("the kernel makes it");
    }
}
