//! The ports of networks' bridges: locked to their endpoint's Ethernet address, with programs that watch and judge.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Once};

use fief_api::Condition;
use fief_datapath::ports::Pair;
use fief_host::HostError;
use fief_host::devices::{
    self, Build, Classifier, Device, Direction, Fdb, FdbState, Named, NewLink, Port as PortSettings, Settings,
};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::teeth::is_off;
use sha2::{Digest, Sha256};

use super::numbers::Numbers;
use super::occupants::Watch;
use super::space::carry_out;
use super::vrf::Home;
use super::wanted::{Port, Segment, condition};
use super::workload;

/// Where ports are made.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The namespace of the bridge.
    pub namespace: &'a Namespace,
    /// The bridge.
    pub bridge: u32,
    /// Its network.
    pub segment: &'a Segment,
    /// What its devices are under.
    pub home: Home,
    /// The slot whose addresses are spoken there.
    pub slot: u16,
    /// The programs for its ports, if there are any to be had.
    pub watch: Option<Watch<'a>>,
}

/// Attaches an endpoint, unless it is, and gives the port what it is to have; returns its number. `near` is the port's device
/// as it was found.
pub(super) fn attach(
    socket: &mut Socket,
    place: &Place<'_>,
    numbers: &mut Numbers,
    near: Option<&Device>,
    name: &str,
    port: &Port,
) -> Result<u32, Condition> {
    let Place { namespace, bridge, segment, home, slot, watch } = *place;
    resize(near, segment, port)?;
    let refused = |error: HostError| condition("AttachRefused", error.to_string());
    let there = devices::index_of(socket, name).map_err(refused)?;
    if there.is_none() {
        // Only the short way needs to know it by its number.
        let index =
            watch.and_then(|watch| watch.link()).and_then(|_| numbers.take(port.attach.tap.is_some()));
        let link = NewLink {
            name: name.to_owned(),
            index,
            mtu: Some(segment.mtu),
            group: home.group,
            ..NewLink::default()
        };
        workload::plug(socket, namespace, link, port)?;
    }
    let device = || Named::Name(name.to_owned());
    // Frames come in with the endpoint's address or not at all, and nobody else's are learned to be there.
    let locked = PortSettings {
        locked: Some(!is_off("net-locked")),
        learning: Some(false),
        ..PortSettings::default()
    };
    let settings = Settings {
        master: Some(Some(Named::Index(bridge))),
        mtu: Some(segment.mtu),
        group: home.group,
        ..Settings::default()
    };
    let up = Settings { up: Some(true), ..Settings::default() };
    let done = Settings { alias: Some(fingerprint(port)), ..Settings::default() };
    carry_out(
        socket,
        &[
            Build::NoAddressGeneration(device()),
            Build::Set { device: device(), settings },
            Build::SetPort { device: device(), port: locked },
        ],
    )
    .map_err(refused)?;
    let Some(index) = devices::index_of(socket, name).map_err(refused)? else {
        return Err(condition("AttachRefused", format!("device {name} went away")));
    };
    if let Some(watch) = watch {
        watch.place(slot, segment, port, index)?;
        let equipped = if watch.is_at(name, index) { Ok(()) } else { equip(socket, index, watch.pair()) };
        if let Err(error) = equipped
            && watch.is_judging()
        {
            // Nobody would judge what passes there.
            let down = Settings { up: Some(false), ..Settings::default() };
            devices::carry_out(socket, &[Build::Set { device: Named::Index(index), settings: down }]);
            return Err(refused(error));
        }
    }
    let state = if is_off("switch-sticky") { FdbState::Static } else { FdbState::Sticky };
    let entry = Fdb { device: index, mac: port.mac.0, state };
    carry_out(socket, &[Build::SetFdb(entry), Build::Set { device: device(), settings: up }])
        .map_err(refused)?;
    if there.is_none()
        && let Err(reason) = workload::configure(port, segment.mtu)
    {
        devices::carry_out(socket, &[Build::DeleteLink(device())]);
        return Err(reason);
    }
    // Last: without this text the port is one that was not made to its end.
    carry_out(socket, &[Build::Set { device: device(), settings: done }]).map_err(refused)?;
    Ok(index)
}

/// Puts programs at a device; those of an earlier daemon go. A kernel without classifiers (cls_bpf) is told of once: where
/// nothing is judged, packets pass all the same.
pub(super) fn equip(socket: &mut Socket, device: u32, pair: &Pair) -> Result<(), HostError> {
    static TOLD: Once = Once::new();
    let device = Named::Index(device);
    let classifier = |direction, program: &Arc<OwnedFd>, name| {
        let (device, program) = (device.clone(), program.clone());
        Build::SetClassifier(Classifier { device, direction, program, name })
    };
    let builds = [
        Build::AddClassifiers(device.clone()),
        classifier(Direction::Ingress, &pair.ingress, "fief-way-in"),
        classifier(Direction::Egress, &pair.egress, "fief-way-out"),
    ];
    carry_out(socket, &builds).inspect_err(|error| {
        TOLD.call_once(|| tracing::warn!(%error, "ports have no programs: nobody finds out lies there"));
    })
}

/// Gives the far end of a port that stands the network's MTU, where the near end has another; that is set behind it, so
/// that an attempt that failed is made again. What a workload does with its interface otherwise is its own affair.
fn resize(near: Option<&Device>, segment: &Segment, port: &Port) -> Result<(), Condition> {
    match near {
        Some(near) if near.mtu != segment.mtu => workload::resize(port, near, segment.mtu),
        _ => Ok(()),
    }
}

/// What a port is for, as its text for people.
pub(super) fn fingerprint(port: &Port) -> String {
    let attach = &port.attach;
    let place = [attach.netns.clone(), attach.pid.map(|pid| format!("pid {pid}")), attach.tap.clone()];
    let place: Vec<String> = place.into_iter().flatten().collect();
    let address = port.address.map(|net| format!(" {net}")).unwrap_or_default();
    let text = format!(
        "fief endpoint {} {} {}{address} {}",
        port.endpoint,
        port.interface,
        port.mac,
        place.join(" ")
    );
    // A text for a device holds 255 bytes; a path may be longer.
    if text.len() <= 255 {
        return text;
    }
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("fief endpoint {digest}")
}
