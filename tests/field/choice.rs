//! Which place is chosen, what is refused, and who is named.

use std::time::Duration;

use fief_testkit::{Daemon, DaemonOptions, Families, Lab, Ns, Street, eventually};
use serde_json::Value;

use crate::room::{Room, SOON};

/// The daemon's own view of its field.
fn field(daemon: &Daemon) -> Value {
    daemon.cli(&["marks", "move", "--dry-run", "-o", "json"]).ok().json()["field"].clone()
}

fn marker(host: &Ns, bits: u32) {
    host.nft(&format!(
        "table inet marker {{\n chain c {{ type filter hook prerouting priority -150; \
         meta mark set meta mark or {bits:#x}; }}\n}}\n"
    ));
}

#[test]
fn the_first_start_lies_beside_what_runs_and_says_why() {
    for bits in [0, 0x4000, 0x0001_0001_u32] {
        let Some(lab) = Lab::new(&format!("field-choose-{bits:x}")) else { return };
        let street = Street::new(&lab, 2, Families::Both);
        if bits != 0 {
            marker(&street.host, bits);
        }
        let daemon = Daemon::start(&lab, &street.host, DaemonOptions::default());
        let field = field(&daemon);
        let placed =
            u32::from_str_radix(&field["mask"].as_str().expect("a mask")[2..], 16).expect("hexadecimal");
        assert_eq!(placed & bits, 0, "{field} beside {bits:#x}");
        assert!(bits != 0 || placed == 0xffff, "{field}");
        let reason = field["reason"].as_str().expect("a reason");
        let says = if bits == 0 { "nobody else uses the mark" } else { "stand in the way of 0xffff" };
        assert!(reason.contains(says), "{reason}");
        // `choose` says the same without a daemon's help.
        let chosen = daemon.cli(&["marks", "choose", "-o", "json"]).ok().json();
        assert_eq!(chosen["mask"], field["mask"], "{chosen}");
        assert_eq!(field["intruders"], Value::Array(Vec::new()), "{field}");
    }
}

#[test]
fn an_intruder_is_named_while_it_is_there() {
    let Some(room) = Room::open("field-intruder", 2, "") else { return };
    let conditions = || {
        let status = room.daemon.cli(&["status", "-o", "json"]).ok().json();
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let of = all.iter().filter(|c| c["reason"] == "MarkConflict");
        of.map(|c| c["message"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(conditions(), Vec::<String>::new());
    room.host().nft("table ip nat {\n chain KUBE-MARK-MASQ { meta mark set meta mark or 0x4000; }\n}\n");
    eventually(SOON, || {
        let said = conditions();
        let is_named = said.len() == 1 && said[0].contains("kubernetes uses bits 0x4000");
        if is_named { Ok(()) } else { Err(format!("{said:?}")) }
    });
    let log = room.daemon.log();
    assert!(log.contains("kubernetes uses bits 0x4000 of fief's field"), "{log}");
    // Another part of the kernel has another event.
    room.host().ip("rule add fwmark 0x80/0x80 lookup main pref 1024\n");
    eventually(SOON, || {
        let said = conditions();
        let is_named = said.iter().any(|line| line.contains("bits 0x80 ") && line.contains("ip rule 1024"));
        if is_named { Ok(()) } else { Err(format!("{said:?}")) }
    });
    room.host().ip("rule del fwmark 0x80/0x80 lookup main pref 1024\n");
    // The remedy works: beside it.
    room.daemon.cli(&["marks", "move"]).ok();
    eventually(SOON, || if conditions().is_empty() { Ok(()) } else { Err(format!("{:?}", conditions())) });
    let moved = field(&room.daemon);
    let mask = u32::from_str_radix(&moved["mask"].as_str().expect("a mask")[2..], 16).expect("hexadecimal");
    assert_eq!(mask & 0x4000, 0, "{moved}");
    // A rule with other bits is nobody's business.
    let other = !mask & mask.wrapping_shl(1) | 0x4000;
    room.host()
        .nft(&format!("add rule ip nat KUBE-MARK-MASQ meta mark set meta mark or {:#x}\n", other & !mask));
    crate::room::wait(Duration::from_secs(3));
    assert_eq!(conditions(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let Some(room) = Room::open("field-refused", 20, "") else { return };
    let refused = |words: &[&str], says: &[&str]| {
        let argv: Vec<&str> = ["marks", "move"].iter().chain(words).copied().collect();
        let ran = room.daemon.cli(&argv).fails();
        assert!(says.iter().all(|say| ran.stderr.contains(say)), "{words:?}: {ran}");
        assert!(field(&room.daemon)["moving"].is_null());
        assert_eq!(field(&room.daemon)["mask"], "0xffff", "nothing was moved");
    };
    refused(&["--to", "0xf0"], &["0xf0 holds 15 tenants", "choose a wider field"]);
    refused(&["--to", "0xf0f0"], &["not one run of 4 to 16 adjacent bits"]);
    refused(&["--to", "forty"], &["is not a mark; write for example"]);
    marker(room.host(), 0x1_0000);
    refused(&["--to", "0xffff0000"], &["somebody uses bits 0x10000", "nothing was moved", "--force"]);
    let dry = room.daemon.cli(&["marks", "move", "--to", "0xff000000", "--dry-run"]).ok().stdout;
    assert!(dry.contains("to 0xff000000, for 252 tenants"), "{dry}");
    assert_eq!(field(&room.daemon)["mask"], "0xffff");
    // By way of a third place, where the two share bits.
    room.daemon.cli(&["marks", "move", "--to", "0x3fc"]).ok();
    assert_eq!(field(&room.daemon)["mask"], "0x3fc");
    let header = room.daemon.cli(&["marks", "header"]).ok().stdout;
    assert!(header.contains("#define FIEF_MARK_MASK 0x000003fcU\n#define FIEF_MARK_SHIFT 2\n"), "{header}");
    // It is remembered.
    let mark = room.view(1)["status"]["mark"].clone();
    assert_eq!(mark, "0x8/0x3fc");
}

/// Runs of three bits are too short for any tenant: the least bad place is taken, and said to be that.
#[test]
fn too_few_bits_are_admitted() {
    let Some(lab) = Lab::new("field-few") else { return };
    let street = Street::new(&lab, 2, Families::Both);
    marker(&street.host, 0x8888_8888);
    let daemon = Daemon::start(&lab, &street.host, DaemonOptions::default());
    let said = daemon.cli(&["marks", "choose"]).ok().stdout;
    assert!(said.contains("no place on this host is without conflicts"), "{said}");
    assert!(said.contains("networks need no mark at all"), "{said}");
    let intruders = |says: &str| {
        eventually(SOON, || {
            let found = field(&daemon)["intruders"].clone();
            let is_so = match found.as_array().map(Vec::as_slice) {
                Some([]) => says.is_empty(),
                Some([one]) => !says.is_empty() && one.to_string().contains(says),
                _ => false,
            };
            if is_so { Ok(()) } else { Err(found.to_string()) }
        });
    };
    intruders("bits 0x8888");
    // Half as many: seven bits, and it says for how many tenants.
    street.host.nft("delete table inet marker\n");
    marker(&street.host, 0x8080_8080);
    intruders("bits 0x8080");
    let said = daemon.cli(&["marks", "move"]).ok().stdout;
    assert!(said.contains(", for 127 tenants"), "{said}");
    // Without a tenant there is no rule of fief's whose coming would make the daemon look again.
    intruders("");
}

/// The scan, which knows nothing of how fief is made, sees its rules and programs touch the field, and no other bit.
#[test]
fn fief_is_seen_to_write_its_own_field_only() {
    let Some(room) = Room::open("field-own", 2, "markMask: \"0xff00\"\n") else { return };
    let scanned = room.daemon.cli(&["marks", "scan", "--here", "-o", "json"]).ok().json();
    let bits = |found: &Value, what: &str| {
        u32::from_str_radix(found[what].as_str().expect("bits").trim_start_matches("0x"), 16)
            .expect("hexadecimal")
    };
    let mut seen = Vec::new();
    for found in scanned["uses"].as_array().expect("a list") {
        let place = found["place"].as_str().expect("a place");
        let wanted = ["ip rule", "ip -6 rule", "wire_ingress", "wire_egress", "lo_ingress"];
        let Some(own) = wanted.iter().find(|own| place.contains(**own)) else { continue };
        // Programs of other daemons on this machine sit elsewhere.
        if found["netns"] != "" {
            continue;
        }
        assert_eq!(found["owner"]["name"], "fief", "{found}");
        assert_eq!((bits(found, "reads") | bits(found, "writes")) & !0xff00, 0, "{found}");
        seen.push(*own);
    }
    seen.sort_unstable();
    assert_eq!(seen, ["ip -6 rule", "ip rule", "lo_ingress", "wire_egress", "wire_ingress"]);
}

/// Sockets that carry a tenant's number are nobody's conflict; one that carries a number nobody has is.
#[test]
fn tenants_own_sockets_are_no_intruders() {
    let Some(room) = Room::open("field-sockets", 2, "") else { return };
    let _server = room.server();
    let mut crowd = crate::crowd::Crowd::gather(&room, 2, 4);
    crowd.speak("open");
    let check = || room.daemon.cli(&["marks", "check"]);
    let checked = check();
    assert!(checked.success() && checked.stdout.contains("nothing collides"), "{checked}");
    let chosen = room.daemon.cli(&["marks", "choose", "-o", "json"]).ok().json();
    assert_eq!((&chosen["mask"], &chosen["errors"]), (&Value::from("0xffff"), &Value::from(0)), "{chosen}");
    let _foreign = room.host().enter(|| {
        let dial = fief_testkit::Dial::to("192.0.2.1:9".parse().expect("an address")).mark(0x777);
        let from = (crate::room::host_address(false).ip(), 0).into();
        dial.bind(from).socket(nix::sys::socket::SockType::Datagram).expect("root may mark")
    });
    let checked = check().fails();
    assert!(checked.stdout.contains("packets of this socket are taken for a tenant's"), "{checked}");
}
