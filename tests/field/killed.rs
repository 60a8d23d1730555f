//! A daemon that dies in the middle of a move.

use std::time::Duration;

use fief_testkit::{Dial, eventually};

use crate::crowd::Crowd;
use crate::moved::{await_half_open, deafen, serve};
use crate::room::{Room, wait};

/// Killed at different times, started again: the field arrives, and no connection has noticed.
#[test]
fn a_move_goes_on_where_it_was() {
    let Some(mut room) = Room::open("field-kill", 2, "markMask: \"0xffff0000\"\n") else { return };
    let _server = serve(&room);
    let mut crowd = Crowd::gather(&room, 2, 20);
    // What the configuration says would be a move of its own.
    std::fs::remove_file(room.daemon.root().join("etc/fief/fiefd.yaml")).expect("it was written");
    room.daemon.restart();
    let places = ["0x0000ffff", "0xffff0000"];
    let arrive = |room: &Room, mask: u32| {
        eventually(Duration::from_secs(30), || {
            let field = room.daemon.cli(&["marks", "move", "--dry-run", "-o", "json"]).ok().json();
            let field = &field["field"];
            let is_there = field["mask"] == format!("{mask:#x}") && field["moving"].is_null();
            if is_there { Ok(()) } else { Err(field.to_string()) }
        });
    };
    let mut at = 1;
    for (round, pause) in [0, 100, 300, 700, 1200, 2000].into_iter().enumerate() {
        let to = places[1 - at];
        if room.daemon.cli(&["marks", "move", "--to", to, "--no-wait"]).success() {
            at = 1 - at;
        }
        wait(Duration::from_millis(pause));
        room.daemon.kill9();
        crowd.speak(&format!("round {round}, dead"));
        room.daemon.restart();
        crowd.speak(&format!("round {round}, alive"));
        let mask = u32::from_str_radix(&places[at][2..], 16).expect("hexadecimal");
        arrive(&room, mask);
        crowd.speak(&format!("round {round}, arrived"));
    }
}

/// The configuration says another place than the one that a move is under way to: that one ends, and then the field
/// goes where it shall.
#[test]
fn a_configured_place_waits_for_the_move_that_is_under_way() {
    let Some(mut room) = Room::open("field-goal", 2, "markMask: \"0xffff0000\"\n") else { return };
    let _server = serve(&room);
    let mut crowd = Crowd::gather(&room, 2, 4);
    let field = |room: &Room| {
        room.daemon.cli(&["marks", "move", "--dry-run", "-o", "json"]).ok().json()["field"].clone()
    };
    // A half-open connection holds the move up.
    let (client, to) = (room.street.client(0).clone(), room.local(0, false));
    deafen(&client);
    let calling = std::thread::spawn({
        let client = client.clone();
        move || client.enter(|| Dial::to(to).timeout(Duration::from_secs(40)).connect())
    });
    await_half_open(room.host());
    room.daemon.cli(&["marks", "move", "--to", "0x0000ffff", "--no-wait"]).ok();
    room.daemon.kill9();
    room.daemon.restart();
    let after = field(&room);
    assert_eq!(after["moving"]["to"], "0xffff", "it is still under way: {after}");
    client.nft("delete table inet deaf\n");
    eventually(Duration::from_secs(30), || {
        let field = field(&room);
        let is_back = field["mask"] == "0xffff0000" && field["moving"].is_null();
        if is_back && field["reason"].to_string().contains("fiefd.yaml") {
            Ok(())
        } else {
            Err(field.to_string())
        }
    });
    crowd.speak("arrived");
    calling.join().expect("no panic").expect("the connection is made after all");
}
