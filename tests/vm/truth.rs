//! The truth table of docs/isolation.md on VRFs: the cells of the suite `isolation`, all in one room, whose tenants have an
//! address that they all have.

use crate::table::leaving::Yard;
use crate::table::{arriving, cells, leaving, receiving};

#[test]
fn every_cell_that_differs_with_vrfs() {
    let Some(yard) = Yard::apart("truth") else { return };
    let room = &yard.room;
    let cells: [(&str, &dyn Fn()); 14] = [
        ("own addresses", &|| cells::own_addresses(room)),
        ("connecting elsewhere", &|| cells::connecting_elsewhere(room)),
        ("sending elsewhere", &|| cells::sending_elsewhere(room)),
        ("unseen", &|| cells::unseen(room)),
        ("the host to a tenant", &|| cells::host_to_tenant(room)),
        ("called elsewhere", &|| arriving::called_elsewhere(room)),
        ("spoofed", &|| arriving::spoofed(room)),
        ("an unknown slot", &|| leaving::unknown_slot(&yard, "")),
        ("without a route", &|| leaving::without_a_route(&yard, "")),
        ("foreign bits", &|| leaving::foreign_bits(room)),
        ("foreign devices", &|| leaving::foreign_devices(&yard, "")),
        ("bound elsewhere", &|| leaving::bound_elsewhere(room, "")),
        ("to its own", &|| leaving::to_its_own(room)),
        ("an own listener", &|| receiving::own_listener(room, "")),
    ];
    for (name, cell) in cells {
        println!("cell: {name}");
        cell();
    }
    println!("cell: an own receiver");
    receiving::own_receiver(room, "");
    println!("{} cells on vrf", cells.len() + 1);
}
