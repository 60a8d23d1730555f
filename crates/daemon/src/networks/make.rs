//! Making tenants' places, one after the other: most of the time goes by in the kernel, which does one of these requests at a
//! time, whoever asks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use fief_datapath::ports::{Pair, Ports};
use fief_host::devices::{self, Build, Named, Neighbour};
use fief_host::netlink::Socket;
use fief_host::{HostError, sysctl};

use super::links::{self, SPACE_MAC};
use super::occupants::{Subjects, Watch};
use super::port;
use super::space::{self, Standing, carry_out};
use super::vrf;
use super::wanted::Space;

/// A place that is to be made.
pub(super) struct Job {
    pub tenant: String,
    /// Where its namespace is.
    pub path: PathBuf,
    pub space: Arc<Space>,
    pub before: Option<Standing>,
    /// Can nothing of it be there?
    pub is_first: bool,
    /// Is what stands as it was left, its programs too?
    pub is_known: bool,
}

/// What became of one.
pub(super) struct Made {
    pub job: Job,
    pub standing: Result<Standing, HostError>,
    /// What closes slowly.
    pub closing: Vec<Socket>,
}

/// What all of them need.
#[derive(Clone, Copy)]
pub(super) struct Tools<'a> {
    pub subjects: &'a Subjects,
    /// Programs for ports where nothing is judged,
    pub plain: Option<&'a Ports>,
    /// and where something is.
    pub judging: Option<&'a Ports>,
    /// Programs for the host's ends of links.
    pub outer: Option<&'a Pair>,
}

/// Makes one.
pub(super) fn one(job: Job, tools: Tools<'_>) -> Made {
    let mut closing = Vec::new();
    let known = job.before.as_ref().filter(|_| job.is_known).map(|standing| &standing.ports);
    let watch = Watch::new(&job.space, tools, known);
    let standing = make(&job, watch, tools.outer, &mut closing);
    Made { standing, closing, job }
}

fn make(
    job: &Job,
    watch: Option<Watch<'_>>,
    outer: Option<&Pair>,
    closing: &mut Vec<Socket>,
) -> Result<Standing, HostError> {
    let Job { tenant, path, space, before, is_first, .. } = job;
    let mut standing = match space.vrf {
        Some(table) => vrf::build(tenant, space, table, *is_first, watch)?,
        None => space::build(path, tenant, space, before.as_ref(), watch, closing)?,
    };
    let device = links::device(space.slot);
    let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
    let there = devices::index_of(&mut socket, &device)?;
    if space.transit.is_empty() {
        if there.is_some() {
            carry_out(&mut socket, &[Build::DeleteLink(Named::Name(device))])?;
        }
        return Ok(standing);
    }
    // A link whose other end went with a namespace is gone as well.
    let is_there =
        there.is_some() && (standing.vrf.is_none() || vrf::has_link(&mut socket, &device, space.slot)?);
    if !is_there {
        let link = match standing.vrf {
            Some(vrf) => vrf::link(&device, tenant, space.slot, vrf),
            None => space::link(&device, space.slot, tenant, &standing.namespace),
        };
        carry_out(&mut socket, &[link])?;
        let of = |leaf| format!("net.ipv4.conf.{device}.{leaf}");
        // Whose a source is, the host's table says; the kernel would look through all rules for it, for each packet
        // (fib_validate_source).
        let [forwarding, filter, local, redirects] =
            ["forwarding", "rp_filter", "accept_local", "send_redirects"].map(of);
        sysctl::write_all(&[(&forwarding, "1"), (&filter, "0"), (&local, "1"), (&redirects, "0")])?;
        carry_out(&mut socket, &[Build::NoAddressGeneration(Named::Name(device.clone()))])?;
    }
    let Some(index) = devices::index_of(&mut socket, &device)? else {
        return Err(HostError::Missing(format!("device {device}")));
    };
    let is_at_home = is_there && watch.is_some_and(|watch| watch.is_at_home());
    if let Some(pair) = outer.filter(|_| standing.vrf.is_none() && !is_at_home) {
        // Without them the way is longer.
        let _ = port::equip(&mut socket, index, pair);
    }
    let neighbours = space.transit.values().map(|address| {
        let address = (*address).into();
        Build::SetNeighbour(Neighbour { device: index, address, mac: SPACE_MAC })
    });
    carry_out(&mut socket, &neighbours.collect::<Vec<_>>())?;
    match standing.vrf {
        Some(vrf) => vrf::connect(space, vrf)?,
        None => space::connect(&standing, watch.filter(|watch| !is_there || !watch.is_at_home()))?,
    }
    standing.link = Some(index);
    Ok(standing)
}

/// What is left of a place that could not be made as it is wanted: what stood goes on, and is looked at anew.
pub(super) fn left_of(before: Standing) -> Standing {
    let space = Space { segments: BTreeMap::new(), ..Space::clone(&before.space) };
    Standing { space: Arc::new(space), ..before }
}
