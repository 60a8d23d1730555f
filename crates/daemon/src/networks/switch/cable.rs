//! A switch in its tenant's namespace: the rules for its frames, and the port that leads to the host.

use std::sync::Arc;

use fief_host::HostError;
use fief_host::devices::{self, Build, Named, NewLink, Port, Settings, Veth};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::nft::Table;
use fief_host::nft::{Batch, Family};

use super::super::links::GROUP;
use super::super::rules::TABLE;
use super::super::space::carry_out;
use super::super::wanted::{Segment, Space};
use super::frames;

/// Makes the rules for frames as they are wanted, before a port is there. `before` is what stands.
pub fn guard(
    namespace: &Namespace,
    space: &Space,
    before: Option<&Table>,
    closing: &mut Vec<Socket>,
) -> Result<Option<Table>, HostError> {
    let table = frames::of_space(space);
    if table.as_ref() == before {
        return Ok(table);
    }
    let mut socket = Socket::open_in(namespace, libc::NETLINK_NETFILTER)?;
    match &table {
        Some(table) => drop(frames::set(before, table, &mut socket)?),
        None => {
            let mut batch = Batch::new(Family::Bridge, TABLE);
            batch.delete_table_if_there();
            batch.commit(&mut socket)?;
        }
    }
    closing.push(socket);
    Ok(table)
}

/// Leads a switch's bridge to the host.
pub fn plug(
    inside: &mut Socket,
    namespace: &Arc<Namespace>,
    bridge: u32,
    key: &str,
    segment: &Segment,
) -> Result<(), HostError> {
    let Some(cable) = &segment.cable else { return Ok(()) };
    if devices::index_of(inside, &cable.inner)?.is_none() {
        let mut host = Socket::open(libc::NETLINK_ROUTE)?;
        let link = NewLink {
            name: cable.outer.clone(),
            group: Some(GROUP),
            mtu: Some(segment.mtu),
            alias: Some(super::origin(key)),
            ..NewLink::default()
        };
        let peer = NewLink { name: cable.inner.clone(), mtu: Some(segment.mtu), ..NewLink::default() };
        let pair = Veth { link, peer, peer_namespace: Some(namespace.clone()) };
        // One that is there leads to a namespace that is gone, or going.
        if devices::index_of(&mut host, &cable.outer)?.is_some() {
            devices::carry_out(&mut host, &[Build::DeleteLink(Named::Name(cable.outer.clone()))]);
        }
        carry_out(&mut host, &[Build::AddVeth(pair)])?;
    }
    let inner = || Named::Name(cable.inner.clone());
    let port =
        Settings { master: Some(Some(Named::Index(bridge))), mtu: Some(segment.mtu), ..Settings::default() };
    // Whoever is outside is learned here, and nobody is asked who he is.
    let open = Port { learning: Some(true), locked: Some(false), ..Port::default() };
    let up = Settings { up: Some(true), ..Settings::default() };
    carry_out(
        inside,
        &[
            Build::NoAddressGeneration(inner()),
            Build::Set { device: inner(), settings: port },
            Build::SetPort { device: inner(), port: open },
            Build::Set { device: inner(), settings: up },
        ],
    )
}
