//! The gate: a pair of veth devices between the namespace of the underlay and the overlay's. The program at the card unpacks what
//! is for a port and hands it through here, from one namespace to the next without a queue (bpf/lib/decap.h), and the one at
//! a port what it has packed (bpf/lib/encap.h). Nothing else gets through: programs at both ends drop what those did not mark.

use std::sync::Arc;

use fief_datapath::overlay::Inside;
use fief_host::devices::{self, Build, Classifier, Device, Direction, Named, NewLink, Settings, Veth};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;

use super::{Refusal, unavailable};
use crate::networks::carry_out;

/// The ends in the overlay's namespace and the underlay's.
const INNER: &str = "gate";
const OUTER: &str = "fief-overlay";
/// The text that both ends bear once they are made.
const ALIAS: &str = "fief overlay gate";

/// The ends, by number.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gate {
    /// In the overlay's namespace.
    pub inner: u32,
    /// In the underlay's.
    pub outer: u32,
}

/// Makes it, or sees that it is there, with our programs.
pub(super) fn make(home: &Namespace, underlay: &Arc<Namespace>, inside: &Inside) -> Result<Gate, Refusal> {
    let mut inner = Socket::open_in(home, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let mut outer = Socket::open_in(underlay, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let (gate, is_new) = match find(&mut inner, &mut outer)? {
        Some(gate) => (gate, false),
        None => (pair(&mut inner, &mut outer, underlay)?, true),
    };
    let ends = [(inner, gate.inner, &inside.from_gate), (outer, gate.outer, &inside.to_card)];
    for (mut socket, index, program) in ends {
        let device = || Named::Index(index);
        let classifier = Classifier {
            device: device(),
            direction: Direction::Ingress,
            program: program.clone(),
            name: "fief-gate",
        };
        let mut builds = vec![Build::AddClassifiers(device()), Build::SetClassifier(classifier)];
        if is_new {
            // Each is an event, which would bring us here again.
            let settings = Settings { up: Some(true), alias: Some(ALIAS.into()), ..Settings::default() };
            builds.extend([Build::NoAddressGeneration(device()), Build::Set { device: device(), settings }]);
        }
        carry_out(&mut socket, &builds).map_err(unavailable)?;
    }
    Ok(gate)
}

/// The one that there is, if it is whole. What is left of another one goes.
fn find(inner: &mut Socket, outer: &mut Socket) -> Result<Option<Gate>, Refusal> {
    let is_whole = |device: &Device| device.up && device.alias.as_deref() == Some(ALIAS);
    let Some(here) = devices::find_named(inner, INNER).map_err(unavailable)? else { return Ok(None) };
    let there = devices::find_named(outer, OUTER).map_err(unavailable)?;
    match there {
        Some(there) if is_whole(&here) && is_whole(&there) && here.peer == Some(there.index) => {
            Ok(Some(Gate { inner: here.index, outer: there.index }))
        }
        _ => {
            carry_out(inner, &[Build::DeleteLink(Named::Index(here.index))]).map_err(unavailable)?;
            Ok(None)
        }
    }
}

fn pair(inner: &mut Socket, outer: &mut Socket, underlay: &Arc<Namespace>) -> Result<Gate, Refusal> {
    let link = |name: &str| NewLink { name: name.to_owned(), ..NewLink::default() };
    let veth = Veth { link: link(INNER), peer: link(OUTER), peer_namespace: Some(underlay.clone()) };
    let made = devices::carry_out(inner, &[Build::AddVeth(veth)]).into_iter().collect::<Result<(), _>>();
    made.map_err(|error| match error.errno() {
        Some(libc::EEXIST) => Refusal::Unavailable(format!(
            "there is a device {OUTER} beside the network card, and it is not the overlay's; rename it"
        )),
        _ => unavailable(error),
    })?;
    let absent = || Refusal::Unavailable("the gate of the overlay went away".into());
    let here = devices::index_of(inner, INNER).map_err(unavailable)?.ok_or_else(absent)?;
    let there = devices::index_of(outer, OUTER).map_err(unavailable)?.ok_or_else(absent)?;
    Ok(Gate { inner: here, outer: there })
}
