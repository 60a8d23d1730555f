//! Builds into requests, and those to the kernel, as many as possible in one write.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use super::classifier;
use super::settings::{change, no_address_generation};
use super::{Bridge, Build, Named, NewLink, Settings, Veth, Vlan, Vrf, index_of};
use crate::HostError;
use crate::namespaces::Namespace;
use crate::netlink::attribute::push;
use crate::netlink::{Message, Socket};

/// Does these in order, in the network namespace of a NETLINK_ROUTE socket, and returns the kernel's answer to each. One
/// that fails does not stop those behind it; its words name the object, as `add bridge n-web`.
pub fn carry_out(socket: &mut Socket, builds: &[Build]) -> Vec<Result<(), HostError>> {
    let mut work = Work { socket, answers: Vec::with_capacity(builds.len()), waiting: Waiting::default() };
    for build in builds {
        work.take(build);
    }
    work.flush();
    work.answers
}

struct Work<'a> {
    socket: &'a mut Socket,
    answers: Vec<Result<(), HostError>>,
    waiting: Waiting,
}

/// Requests that are not yet sent, and the descriptors that they name.
#[derive(Default)]
struct Waiting {
    messages: Vec<Message>,
    descriptors: Vec<OwnedFd>,
}

impl Work<'_> {
    fn take(&mut self, build: &Build) {
        match self.prepare(build) {
            Ok(message) => self.waiting.messages.push(message),
            Err(error) => {
                self.flush();
                self.answers.push(Err(error));
            }
        }
        let rest = rest_of(build);
        if rest.is_empty() {
            return;
        }
        // The rest is about the new device, and must not meet another one of its name if it could not be made.
        self.flush();
        if let Some(answer) = self.answers.last_mut().filter(|answer| answer.is_ok()) {
            *answer =
                rest.iter().try_for_each(|(namespace, rest)| finish(self.socket, namespace.as_ref(), rest));
        }
    }

    fn flush(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        self.answers.extend(self.socket.execute(&mut waiting.messages));
    }

    fn prepare(&mut self, build: &Build) -> Result<Message, HostError> {
        let what = build.to_string();
        Ok(match build {
            Build::AddBridge(bridge) => bridge.message(what),
            Build::AddVrf(vrf) => vrf.message(what),
            Build::AddVlan(vlan) => vlan.message(what),
            Build::AddVxlan(vxlan) => {
                let namespace = vxlan.namespace.as_ref().map(|ns| ns.descriptor()).transpose()?;
                let message = vxlan.message(what, namespace.as_ref());
                self.waiting.descriptors.extend(namespace);
                message
            }
            Build::AddVni(vni) => vni.add(what),
            Build::DeleteVni(vni) => vni.delete(what),
            Build::AddVeth(Veth {
                link: NewLink { index: None, .. },
                peer: NewLink { index: Some(_), .. },
                ..
            }) => {
                return Err(HostError::Missing(format!("{what}: to number its peer, number it too")));
            }
            Build::AddVeth(veth) => {
                let namespace = veth.peer_namespace.as_ref().map(|ns| ns.descriptor()).transpose()?;
                let message = veth.message(what, namespace.as_ref());
                self.waiting.descriptors.extend(namespace);
                message
            }
            Build::Set { device, settings } => {
                // A request that has a new name cannot have the old one too.
                let device = match settings.name {
                    Some(_) => self.numbered(device, &what)?,
                    None => device.clone(),
                };
                let mut settings = settings.clone();
                if let Some(Some(master)) = &settings.master {
                    settings.master = Some(Some(self.numbered(master, &what)?));
                }
                settings.message(&device, what)
            }
            Build::NoAddressGeneration(device) => no_address_generation(device, what),
            Build::Move { device, namespace } => {
                let namespace = namespace.descriptor()?;
                let number = namespace.as_raw_fd().to_ne_bytes();
                self.waiting.descriptors.push(namespace);
                change(device, what, |body| push(body, libc::IFLA_NET_NS_FD, &number))
            }
            Build::DeleteLink(device) => delete(device, what),
            Build::DeleteGroup(group) => {
                let group = group.to_ne_bytes();
                Message::new(libc::RTM_DELLINK, 0, what, |body| {
                    super::settings::name_device(body, &Named::Index(0), 0, 0);
                    push(body, libc::IFLA_GROUP, &group);
                })
            }
            Build::SetPort { device, port } => port.message(device, what),
            Build::AddClassifiers(device) => classifier::place(self.number_of(device, &what)?, what),
            Build::SetClassifier(classifier) => {
                classifier.message(self.number_of(&classifier.device, &what)?, what)
            }
            Build::SetFdb(entry) => entry.set(what),
            Build::DeleteFdb(entry) => entry.delete(what),
            Build::SetNeighbour(neighbour) => neighbour.set(what),
            Build::DeleteNeighbour(neighbour) => neighbour.delete(what),
            Build::AddAddress(address) => address.add(what),
            Build::DeleteAddress(address) => address.delete(what),
            Build::SetRoute(route) => route.set(None),
            Build::DeleteRoute(route) => route.delete(),
        })
    }

    /// The device by its number.
    fn numbered(&mut self, device: &Named, what: &str) -> Result<Named, HostError> {
        self.number_of(device, what).map(Named::Index)
    }

    /// A device's number; what waits may be about to make or rename it, and goes first.
    fn number_of(&mut self, device: &Named, what: &str) -> Result<u32, HostError> {
        let name = match device {
            Named::Index(index) => return Ok(*index),
            Named::Name(name) => name,
        };
        self.flush();
        let absent = || HostError::io(what, std::io::Error::from_raw_os_error(libc::ENODEV));
        index_of(self.socket, name)?.ok_or_else(absent)
    }
}

/// What the kernel does not take from a request that makes a device: texts; the MTU of a bridge, which would follow its
/// ports unless it was changed once; and of a veth's other end, which it makes
/// before there is anything to connect it to, the master and that it is up.
fn rest_of(build: &Build) -> Vec<(Option<Arc<Namespace>>, Build)> {
    let rest = |link: &NewLink, settings: Settings| {
        let settings = Settings { alias: link.alias.clone(), ..settings };
        let device = Named::Name(link.name.clone());
        (settings != Settings::default()).then_some(Build::Set { device, settings })
    };
    match build {
        Build::AddBridge(Bridge { link, .. })
        | Build::AddVrf(Vrf { link, .. })
        | Build::AddVlan(Vlan { link, .. }) => {
            let settings = Settings { mtu: link.mtu, ..Settings::default() };
            rest(link, settings).map(|rest| (None, rest)).into_iter().collect()
        }
        Build::AddVeth(Veth { link, peer, peer_namespace }) => {
            let settings = Settings {
                master: peer.master.map(|master| Some(Named::Index(master))),
                up: peer.up.then_some(true),
                ..Settings::default()
            };
            let link = rest(link, Settings::default()).map(|rest| (None, rest));
            let peer = rest(peer, settings).map(|rest| (peer_namespace.clone(), rest));
            link.into_iter().chain(peer).collect()
        }
        _ => Vec::new(),
    }
}

fn finish(socket: &mut Socket, namespace: Option<&Arc<Namespace>>, rest: &Build) -> Result<(), HostError> {
    let rest = std::slice::from_ref(rest);
    let answers = match namespace {
        Some(namespace) => carry_out(&mut Socket::open_in(namespace, libc::NETLINK_ROUTE)?, rest),
        None => carry_out(socket, rest),
    };
    answers.into_iter().collect()
}

fn delete(device: &Named, what: String) -> Message {
    Message::new(libc::RTM_DELLINK, 0, what, |body| super::settings::name_device(body, device, 0, 0))
}
