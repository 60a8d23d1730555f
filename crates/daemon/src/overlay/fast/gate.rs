//! The gate: a pair of veth devices between the namespace of the underlay and the overlay's. The program at the card unpacks what
//! is for a port and hands it through here, from one namespace to the next without a queue (bpf/lib/decap.h). Nothing else
//! gets through: the program at the inner end drops what the outer one did not mark for a port.

use std::sync::Arc;

use fief_datapath::overlay::Inside;
use fief_host::devices::{self, Build, Classifier, Direction, Named, NewLink, Settings, Veth};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;

use super::{Refusal, unavailable};
use crate::networks::carry_out;

/// The ends in the overlay's namespace and the underlay's.
const INNER: &str = "gate";
const OUTER: &str = "fief-overlay";
/// The text that both ends bear once they are made.
const ALIAS: &str = "fief overlay gate";

/// Makes it, or sees that it is there, with our program; gives the outer end's number.
pub(super) fn make(home: &Namespace, underlay: &Arc<Namespace>, inside: &Inside) -> Result<u32, Refusal> {
    let mut inner = Socket::open_in(home, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let mut outer = Socket::open_in(underlay, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let is_whole = |device: &devices::Device| device.up && device.alias.as_deref() == Some(ALIAS);
    let there = devices::find_named(&mut inner, INNER).map_err(unavailable)?;
    let beyond = devices::find_named(&mut outer, OUTER).map_err(unavailable)?;
    if let (Some(there), Some(beyond)) = (&there, &beyond)
        && is_whole(there)
        && is_whole(beyond)
        && there.peer == Some(beyond.index)
    {
        carry_out(&mut inner, &[program(there.index, inside)]).map_err(unavailable)?;
        return Ok(beyond.index);
    }
    if let Some(half) = there {
        carry_out(&mut inner, &[Build::DeleteLink(Named::Index(half.index))]).map_err(unavailable)?;
    }
    let link = |name: &str| NewLink { name: name.to_owned(), ..NewLink::default() };
    let veth = Veth { link: link(INNER), peer: link(OUTER), peer_namespace: Some(underlay.clone()) };
    let made = devices::carry_out(&mut inner, &[Build::AddVeth(veth)]).into_iter().collect::<Result<(), _>>();
    made.map_err(|error| match error.errno() {
        Some(libc::EEXIST) => Refusal::Unavailable(format!(
            "there is a device {OUTER} already beside the network card, and it is not the overlay's; rename it"
        )),
        _ => unavailable(error),
    })?;
    let absent = || Refusal::Unavailable("the gate of the overlay went away".into());
    let here = devices::index_of(&mut inner, INNER).map_err(unavailable)?.ok_or_else(absent)?;
    let there = devices::index_of(&mut outer, OUTER).map_err(unavailable)?.ok_or_else(absent)?;
    let settings = || Settings { up: Some(true), alias: Some(ALIAS.into()), ..Settings::default() };
    let quiet = |index| {
        let device = || Named::Index(index);
        [Build::NoAddressGeneration(device()), Build::Set { device: device(), settings: settings() }]
    };
    let mut builds = vec![Build::AddClassifiers(Named::Index(here)), program(here, inside)];
    builds.extend(quiet(here));
    carry_out(&mut inner, &builds).map_err(unavailable)?;
    carry_out(&mut outer, &quiet(there)).map_err(unavailable)?;
    Ok(there)
}

fn program(device: u32, inside: &Inside) -> Build {
    Build::SetClassifier(Classifier {
        device: Named::Index(device),
        direction: Direction::Ingress,
        program: inside.from_gate.clone(),
        name: "fief-from-gate",
    })
}
