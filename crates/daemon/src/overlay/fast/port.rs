//! Near ends of users' interfaces: veth devices `f1`, `f2` ... in the overlay's namespace, whose alias says whose they are.

use std::collections::HashMap;
use std::sync::Arc;

use fief_datapath::overlay::Inside;
use fief_host::devices::{self, Build, Classifier, Device, Direction, Named, NewLink, Settings, Veth};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_overlay::{MOST_NETWORKS, Segment};

use super::{Refusal, unavailable};
use crate::networks::carry_out;

const PREFIX: &str = "f";
/// How every alias of ours begins.
const MARK: &str = "fief join";

/// For whom an interface was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The group, whose segment it is on.
    pub group: u32,
    /// Which of its networks.
    pub network: u8,
    /// Who asked.
    pub user: u32,
    /// In which namespace.
    pub namespace: u64,
    /// Its name.
    pub device: String,
}

/// An interface that there is.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// What its near end's name ends in.
    pub number: u32,
    /// Its near end, by number.
    pub index: u32,
    /// Its MTU.
    pub mtu: u32,
    /// The far end, by number in its own namespace.
    pub peer: Option<u32>,
    /// For whom.
    pub origin: Origin,
}

impl Standing {
    /// Is it on this one?
    pub fn is_on(&self, segment: &Segment) -> bool {
        self.origin.segment().is_some_and(|own| own.vni() == segment.vni())
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Origin { group, network, user, namespace, device } = self;
        write!(f, "{MARK} group={group} network={network} user={user} netns={namespace} device={device}")
    }
}

impl Origin {
    /// On which segment it is.
    pub fn segment(&self) -> Option<Segment> {
        Segment::of_network(self.group, self.network, if self.network == 0 { 1 } else { MOST_NETWORKS }).ok()
    }

    fn read(alias: &str) -> Option<Origin> {
        let fields: HashMap<&str, &str> =
            alias.strip_prefix(MARK)?.split_whitespace().filter_map(|field| field.split_once('=')).collect();
        Some(Origin {
            group: fields.get("group")?.parse().ok()?,
            network: fields.get("network").map_or(Some(0), |network| network.parse().ok())?,
            user: fields.get("user")?.parse().ok()?,
            namespace: fields.get("netns")?.parse().ok()?,
            device: (*fields.get("device")?).to_owned(),
        })
    }
}

/// Every interface that was made to its end.
pub(super) fn list(home: &Namespace) -> Result<Vec<Standing>, Refusal> {
    let mut socket = Socket::open_in(home, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let devices = devices::list(&mut socket).map_err(unavailable)?;
    let standing = |device: Device| {
        let number = device.name.strip_prefix(PREFIX)?.parse().ok()?;
        let origin = Origin::read(device.alias.as_deref()?)?;
        Some(Standing { number, index: device.index, mtu: device.mtu, peer: device.peer, origin })
    };
    Ok(devices.into_iter().filter_map(standing).collect())
}

/// Removes what a daemon began and did not end.
pub(super) fn remove_halves(home: &Namespace) -> Result<(), Refusal> {
    let mut socket = Socket::open_in(home, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let devices = devices::list(&mut socket).map_err(unavailable)?;
    let number = |device: &Device| device.name.strip_prefix(PREFIX)?.parse::<u32>().ok();
    let is_half = |device: &Device| {
        number(device).is_some() && device.alias.as_deref().and_then(Origin::read).is_none()
    };
    for half in devices.iter().filter(|device| is_half(device)) {
        let _ = devices::carry_out(&mut socket, &[Build::DeleteLink(Named::Index(half.index))]);
    }
    Ok(())
}

/// Makes the pair, with its program, the near end down: so nothing passes. Gives the near end's number.
pub(super) fn make(
    home: &Namespace,
    number: u32,
    mtu: u32,
    inside: &Inside,
    user: &Arc<Namespace>,
    device: &str,
) -> Result<u32, Refusal> {
    let name = format!("{PREFIX}{number}");
    let mut socket = Socket::open_in(home, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let link = NewLink { name: name.clone(), mtu: Some(mtu), ..NewLink::default() };
    let peer = NewLink { name: device.to_owned(), mtu: Some(mtu), up: true, ..NewLink::default() };
    let veth = Veth { link, peer, peer_namespace: Some(user.clone()) };
    let made =
        devices::carry_out(&mut socket, &[Build::AddVeth(veth)]).into_iter().collect::<Result<(), _>>();
    made.map_err(|error| match error.errno() {
        Some(libc::EEXIST) => Refusal::Wrong(format!(
            "this namespace has an interface {device} already; remove it, or name another one with --dev"
        )),
        _ => unavailable(error),
    })?;
    let near = devices::index_of(&mut socket, &name).map_err(unavailable)?;
    let near = near.ok_or_else(|| Refusal::Unavailable(format!("the near end of {device} went away")))?;
    let builds = [
        Build::NoAddressGeneration(Named::Index(near)),
        Build::AddClassifiers(Named::Index(near)),
        program(near, inside),
    ];
    if let Err(error) = carry_out(&mut socket, &builds) {
        let _ = remove(home, near);
        return Err(unavailable(error));
    }
    Ok(near)
}

/// Has an interface that an earlier daemon made go by our program.
pub(super) fn renew(home: &Namespace, near: u32, inside: &Inside) -> Result<(), Refusal> {
    let mut socket = Socket::open_in(home, libc::NETLINK_ROUTE).map_err(unavailable)?;
    carry_out(&mut socket, &[program(near, inside)]).map_err(unavailable)
}

fn program(near: u32, inside: &Inside) -> Build {
    Build::SetClassifier(Classifier {
        device: Named::Index(near),
        direction: Direction::Ingress,
        program: inside.from_port.clone(),
        name: "fief-from-port",
    })
}

/// Opens the near end, and says for whom it is. Last: without that text it is one that was not made to its end.
pub(super) fn open(home: &Namespace, near: u32, origin: &Origin) -> Result<(), Refusal> {
    let mut socket = Socket::open_in(home, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let up = Settings { up: Some(true), ..Settings::default() };
    let said = Settings { alias: Some(origin.to_string()), ..Settings::default() };
    let builds = [up, said].map(|settings| Build::Set { device: Named::Index(near), settings });
    carry_out(&mut socket, &builds).map_err(unavailable)
}

/// Removes the pair.
pub(super) fn remove(home: &Namespace, near: u32) -> Result<(), Refusal> {
    let mut socket = Socket::open_in(home, libc::NETLINK_ROUTE).map_err(unavailable)?;
    let delete = [Build::DeleteLink(Named::Index(near))];
    let done = devices::carry_out(&mut socket, &delete).into_iter().collect::<Result<(), _>>();
    match done {
        Err(error) if error.errno() != Some(libc::ENODEV) => Err(unavailable(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_says_all_that_is_to_be_known() {
        let origin =
            Origin { group: 1000, network: 1, user: 1001, namespace: 4_026_532_008, device: "eth0".into() };
        assert_eq!(Origin::read(&origin.to_string()), Some(origin));
        for half in [
            "",
            "fief join",
            "fief join group=1000 user=1 netns=x device=eth0",
            "group=1 user=1 netns=1 device=a",
        ] {
            assert_eq!(Origin::read(half), None, "{half}");
        }
    }
}
