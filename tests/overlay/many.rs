//! Much by plugs: frames that come quickly go together, what has come together is fetched together, and segments are joined where
//! the user asks for it. What arrives is what was sent.

use std::time::Duration;

use fief_testkit::Capture;

use crate::lan::{Family, GROUP, Lan};
use crate::room::SOON;
use crate::vde::{Member, Vde};

/// Takes everything of one connection; gives its digest back.
const TAKES: &str = r"
import hashlib, socket
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('10.9.0.2', 7000)); s.listen(1)
print('listens', flush=True)
c, digest = s.accept()[0], hashlib.sha256()
while True:
    data = c.recv(1 << 20)
    if not data: break
    digest.update(data)
c.sendall(digest.hexdigest().encode())
";
/// Sends pieces of odd lengths.
const SENDS: &str = r"
import hashlib, random, socket
random.seed(7)
c, digest = socket.create_connection(('10.9.0.2', 7000), 10), hashlib.sha256()
for turn in range(150):
    data = random.randbytes(random.randrange(1, 100000))
    c.sendall(data); digest.update(data)
c.shutdown(socket.SHUT_WR)
said = b''
while len(said) < 64: said += c.recv(64)
print('the same' if said.decode() == digest.hexdigest() else 'damaged')
";
/// An Ethernet frame with an MTU of 1500.
const WHOLE: usize = 1514;

#[track_caller]
fn sends(a: &Member, b: &Member) {
    for member in [a, b] {
        member.ns.ip("link set eth0 mtu 1400\n");
    }
    let mut takes = b.ns.spawn(&["/usr/bin/python3", "-c", TAKES]);
    takes.wait_for_output("listens\n", SOON);
    fief_testkit::eventually(SOON, || if a.pings("10.9.0.2", 56) { Ok(()) } else { Err(a.plug.output()) });
    let command = a.ns.command(&["/usr/bin/python3", "-c", SENDS]).timeout(Duration::from_secs(60));
    let said = command.run().ok();
    assert!(said.stdout.contains("the same"), "{said}");
}

#[test]
fn vxvde_much_goes_and_comes_together() {
    for family in Family::BOTH {
        for joins in [true, false] {
            let Some(lan) = Lan::open("many", 2, "") else { return };
            let Some(vde) = Vde::unpack(&lan.lab) else { return };
            let url = |options: &str| {
                let six = if family == Family::V6 { "/v6" } else { "" };
                format!("vxvdex:///{options}{six}")
            };
            let url = url(if joins { "lro=9216" } else { "" });
            let a = vde.member(&lan, 0, GROUP, &url, ("a", "10.9.0.1/24"));
            let b = vde.member(&lan, 1, GROUP, &url, ("b", "10.9.0.2/24"));
            let (wire, end) = (lan.wire_of(0, "eth0"), Capture::on(&b.ns, "eth0"));
            sends(&a, &b);
            let together = wire.count(|frame| frame.outgoing && frame.bytes.len() > WHOLE);
            let joined = end.count(|frame| !frame.outgoing && frame.bytes.len() > WHOLE);
            println!("{url}: {together} packets with several frames, {joined} frames of several segments");
            assert!(together > 20, "{url}: {together}");
            assert!(if joins { joined > 20 } else { joined == 0 }, "{url}: {joined}");
            let refused = lan.daemons[0].cli(&["-o", "json", "get", "overlay-counters"]).ok().json();
            assert_eq!(refused["refused"]["foreign-out"], 0, "{refused}");
        }
    }
}

/// On one host nothing passes the card, and the gate at it: each frame goes alone.
#[test]
fn vxvde_much_between_two_of_one_host() {
    let Some(lan) = Lan::open("many-one", 1, "") else { return };
    let Some(vde) = Vde::unpack(&lan.lab) else { return };
    let a = vde.member(&lan, 0, GROUP, "vxvdex://", ("a", "10.9.0.1/24"));
    let b = vde.member(&lan, 0, GROUP, "vxvdex://", ("b", "10.9.0.2/24"));
    sends(&a, &b);
}
