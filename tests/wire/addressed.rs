//! The address called decides; else the interface's default; and only on the tenant's own devices.

use std::net::IpAddr;

use fief_testkit::{Capture, Dial, Frame, Lab, Ns, Street, eventually, inject, mark};

use crate::room::{MODES, NEVER, PORT, Room, SOON, answered, client, echo};

fn local(street: &Street, i: usize, v6: bool) -> IpAddr {
    if v6 { street.local6(i).into() } else { street.local4(i).into() }
}

/// A frame from router `i` to the host, from the client behind it.
fn from_client(street: &Street, i: usize, to: IpAddr, text: &str) -> Vec<u8> {
    let frame = Frame::new(street.router_mac(i), street.host_mac());
    frame.ip(client(to.is_ipv6()).ip(), to).udp(4000, PORT, text.as_bytes())
}

#[test]
fn the_address_called_decides_and_counters_equal_what_was_sent() {
    let Some(room) = Room::open("wire-called", 2, "") else { return };
    let street = &room.street;
    // Nobody asks for a neighbour, so there is nothing to count but what the test sends.
    for i in [0, 1] {
        let mac = street.router_mac(i).map(|byte| format!("{byte:02x}")).join(":");
        for router in [IpAddr::from(street.router4(i)), street.router6(i).into()] {
            room.host().ip(&format!("neigh replace {router} lladdr {mac} dev eth0 nud permanent\n"));
        }
    }
    for v6 in [false, true] {
        for (tenant, packets) in [(0, 5_u64), (1, 9)] {
            let to = local(street, tenant, v6);
            let length = from_client(street, tenant, to, "counted")[14..].len() as u64;
            let bytes = || (room.count(tenant, "rxPackets"), room.count(tenant, "rxBytes"));
            let (before, other) = (bytes(), room.count(1 - tenant, "rxPackets"));
            for _ in 0..packets {
                inject(street.router(tenant), "eth0", &from_client(street, tenant, to, "counted"));
            }
            eventually(SOON, || match bytes() {
                now if now == (before.0 + packets, before.1 + packets * length) => Ok(()),
                now => Err(format!("{packets} packets of {length} bytes: {before:?} became {now:?}")),
            });
            assert_eq!(room.count(1 - tenant, "rxPackets"), other);
        }
    }
}

#[test]
fn what_is_sent_is_counted_for_its_tenant() {
    let Some(room) = Room::open("wire-sent", 2, "") else { return };
    for v6 in [false, true] {
        let counts = |i: usize| (room.count(i, "txPackets"), room.count(i, "txBytes"));
        let (before, other) = (counts(0), counts(1));
        let mark = room.mark(0);
        for _ in 0..7 {
            let sent = room.host().enter(|| crate::odd::Datagram::to(client(v6), mark).send(&[7; 100]));
            sent.expect("the tenant has a route");
        }
        let length = if v6 { 40 } else { 20 } + 8 + 100;
        eventually(SOON, || match counts(0) {
            now if now == (before.0 + 7, before.1 + 7 * length) => Ok(()),
            now => Err(format!("{before:?} became {now:?}")),
        });
        assert_eq!(counts(1), other);
    }
}

/// Addresses that are nobody's here: the host forwards them, and the interface's default says by whose table.
#[test]
fn an_address_that_is_nobodys_belongs_to_the_interfaces_default() {
    for mode in MODES {
        let Some(room) = Room::with("wire-default", 2, mode, |_, street| {
            street.host.set_sysctl("net.ipv4.ip_forward", 1);
            street.host.set_sysctl("net.ipv6.conf.all.forwarding", 1);
            street.yaml(0)
                + "---\n"
                + &street.yaml(1).replace("{ name: eth0,", "{ name: eth0, default: true,")
        }) else {
            return;
        };
        let street = &room.street;
        let ways = [0, 1].map(|i| Capture::on(street.router(i), "eth0"));
        for (text, to) in [("stray v4", "100.64.7.7"), ("stray v6", "2001:db8:77::7")] {
            let before = [0, 1].map(|i| room.count(i, "rxPackets"));
            // From router 0, so that going on to router 1 is the default's doing.
            inject(street.router(0), "eth0", &from_client(street, 0, to.parse().unwrap(), text));
            assert!(ways[1].wait_for(text.as_bytes(), SOON), "{mode:?} {text} follows tenant 1's table");
            // Neighbour discovery for groups is nobody's either, so there may be more than the stray.
            assert!(room.count(1, "rxPackets") > before[1]);
            assert_eq!(room.count(0, "rxPackets"), before[0]);
            // An address that is somebody's stays theirs.
            let own = local(street, 0, to.contains(':'));
            inject(street.router(0), "eth0", &from_client(street, 0, own, "called"));
            eventually(SOON, || match room.count(0, "rxPackets") {
                now if now > before[0] => Ok(()),
                now => Err(format!("{now}")),
            });
        }
    }
}

/// Tenant 0 has `eth0` only; `eth1` is another tenant's, `spare` nobody's.
fn side_doors(lab: &Lab, host: &Ns) -> [Ns; 2] {
    [("eth1", "beyond"), ("spare", "nowhere")].map(|(device, name)| {
        let far = lab.ns(name);
        lab.veth((host, device), (&far, "far"));
        far.ip("addr add 192.0.2.9/24 dev far\naddr add 2001:db8:2::9/64 dev far nodad\n\
             route add 198.18.0.0/15 dev far\nroute add fd00:18::/64 dev far\n");
        // So that an answer has a way back, and its absence means something.
        host.ip(&format!(
            "route replace 192.0.2.9/32 dev {device}\nroute replace 2001:db8:2::9/128 dev {device}\n"
        ));
        far
    })
}

#[test]
fn an_address_called_on_a_device_that_is_not_its_tenants_is_dropped() {
    const OTHER: &str = "---\napiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: other }\nspec:\n  \
                         interfaces:\n    - { name: eth1, addresses: [\"192.0.2.1/24\", \"2001:db8:2::1/64\"] }\n";
    for mode in MODES {
        let mut fars = None;
        let Some(room) = Room::with("wire-device", 1, mode, |lab, street| {
            fars = Some(side_doors(lab, &street.host));
            street.documents() + OTHER
        }) else {
            return;
        };
        let [beyond, nowhere] = fars.expect("made");
        let street = &room.street;
        let server = room.server();
        for v6 in [false, true] {
            let to = local(street, 0, v6);
            let frame = |far: &Ns, device: &str, text: &str| {
                let source = if v6 { "2001:db8:2::9" } else { "192.0.2.9" };
                let host = room.host().mac(device);
                Frame::new(far.mac("far"), host).ip(source, to).udp(4000, PORT, text.as_bytes())
            };
            let heard = server.heard().len();
            let before = room.count(0, "dropDeviceIn");
            inject(&beyond, "far", &frame(&beyond, "eth1", "named device"));
            inject(&nowhere, "far", &frame(&nowhere, "spare", "unnamed device"));
            eventually(SOON, || match room.count(0, "dropDeviceIn") {
                now if now == before + 2 => Ok(()),
                now => Err(format!("{mode:?} v6 {v6}: {before} became {now}")),
            });
            crate::room::wait(NEVER);
            assert_eq!(server.heard().len(), heard, "{:?}", server.heard());
            // The same packet on the tenant's own device is heard.
            inject(street.router(0), "eth0", &from_client(street, 0, to, "own device"));
            eventually(SOON, || match server.heard().len() {
                now if now == heard + 1 => Ok(()),
                now => Err(format!("{now}")),
            });
        }
    }
}

#[test]
fn foreign_bits_of_a_packets_mark_survive_and_the_accepted_socket_has_our_field_only() {
    for (mask, foreign) in [("0xffff", 0x00ab_0000_u32), ("0xffff0000", 0x0000_00ab)] {
        let config = format!("markMask: \"{mask}\"\n");
        let Some(room) = Room::open("wire-bits", 2, &config) else { return };
        // Somebody marks before routing, as kube-proxy and others do, and counts later what is left of it.
        room.host().nft(&format!(
            "table inet somebody {{\n chain early {{ type filter hook prerouting priority -150; \
             meta mark set meta mark or {foreign:#x}; }}\n \
             chain late {{ type filter hook input priority 0; meta mark & {foreign:#x} == {foreign:#x} counter; }}\n}}\n"
        ));
        let listener = room.inside(room.host(), || std::net::TcpListener::bind(("::", PORT)).expect("free"));
        for tenant in [0, 1] {
            for v6 in [false, true] {
                let to = room.local(tenant, v6);
                let held = street_client(&room, tenant, |dial| dial.connect().expect("answered"), to);
                let (accepted, _) = listener.accept().expect("a connection");
                assert_eq!(mark(&accepted).expect("an option"), room.mark(tenant), "{mask} v6 {v6}");
                drop(held);
            }
        }
        let late = room.host().run(&["nft", "list", "chain", "inet", "somebody", "late"]).ok().stdout;
        assert!(!late.contains("packets 0 "), "{late}");
        drop(listener);
        let _server = room.inside(room.host(), || echo(&format!("[::]:{PORT}")));
        for tenant in [0, 1] {
            let to = room.local(tenant, false);
            street_client(&room, tenant, |dial| answered("with foreign bits", &dial), to);
        }
    }
}

fn street_client<T: Send>(
    room: &Room,
    tenant: usize,
    work: impl FnOnce(Dial) -> T + Send,
    to: std::net::SocketAddr,
) -> T {
    room.street.client(tenant).enter(|| work(Dial::to(to).timeout(SOON)))
}

/// A host that filters by the reverse path must ask the packet's own table.
#[test]
fn strict_reverse_path_filtering_of_the_host_lets_tenants_clients_in() {
    let Some(room) = Room::with("wire-rpf", 2, "", |_, street| {
        for name in ["all", "eth0"] {
            street.host.set_sysctl(&format!("net.ipv4.conf.{name}.rp_filter"), 1);
        }
        street.documents()
    }) else {
        return;
    };
    let _server = room.server();
    for tenant in [0, 1] {
        let to = room.local(tenant, false);
        street_client(&room, tenant, |dial| answered("through rp_filter", &dial), to);
    }
    // The filter is still one: a source that the tenant has no route back to, in its own table, is refused.
    assert_eq!(room.host().sysctl("net.ipv4.conf.eth0.rp_filter"), "1");
}
