//! Devices: those that mark what they send, and those that carry the mark over the wire (rtnetlink, generic netlink).

use std::collections::BTreeMap;

use fief_host::HostError;
use fief_host::netlink::Socket;
use fief_host::netlink::attribute::{all, find, number, text};
use fief_marks::registry::Mark;

use crate::generic::Family;
use crate::sink::Sink;
use crate::uses::{Effects, Subsystem, Use};
use crate::word::Word;

/// `struct ifinfomsg`.
const HEADER: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const IFLA_VXLAN_GBP: u16 = 23;

const GET_DEVICE: u8 = 0;
const WGDEVICE_A_IFINDEX: u16 = 1;
const WGDEVICE_A_FWMARK: u16 = 7;

/// Looks at all devices; returns their names by index.
pub(crate) fn scan(sink: &mut Sink<'_>) -> Result<BTreeMap<u32, String>, HostError> {
    let mut devices = BTreeMap::new();
    let mut wireguards = Vec::new();
    let encode = |body: &mut Vec<u8>| body.extend([0; HEADER]);
    Socket::open(libc::NETLINK_ROUTE)?.dump(libc::RTM_GETLINK, "list devices", encode, |_, body| {
        sink.seen();
        if let Some((index, name, kind)) = look_at(body, sink) {
            if kind == "wireguard" {
                wireguards.push((index, name.clone()));
            }
            devices.insert(index, name);
        }
    })?;
    devices.keys().for_each(|index| sink.attached.extend(fief_host::programs::on_device(*index)));
    if !wireguards.is_empty()
        && let Some(mut family) = Family::find("wireguard")?
    {
        for (index, name) in wireguards {
            let attributes = [(WGDEVICE_A_IFINDEX, index.to_ne_bytes())];
            family.dump(GET_DEVICE, &attributes, |body| wireguard(&name, body, sink))?;
        }
    }
    Ok(devices)
}

/// Index, name and kind of a device, whose use of marks is noted.
fn look_at(body: &[u8], sink: &mut Sink<'_>) -> Option<(u32, String, String)> {
    let (header, attributes) = body.split_at_checked(HEADER)?;
    let index = number(header.get(4..)?)?;
    let name = find(attributes, IFLA_IFNAME).map(text)?;
    let info = find(attributes, IFLA_LINKINFO).unwrap_or_default();
    let kind = find(info, INFO_KIND).map(text).unwrap_or_default();
    let data = find(info, INFO_DATA).unwrap_or_default();
    let template = Use::at(
        Subsystem::Device,
        format!("dev {name} ({kind})"),
        vec![format!("device {name}"), format!("kind {kind}")],
    );
    // IFLA_*_FWMARK of each kind of tunnel: what it sends is marked so.
    let fwmark = match kind.as_str() {
        "gre" | "gretap" | "ip6gre" | "ip6gretap" | "erspan" | "ip6erspan" => Some(20),
        "ipip" | "sit" | "ip6tnl" => Some(20),
        "vti" | "vti6" => Some(6),
        _ => None,
    };
    let marked = fwmark.and_then(|kind| find(data, kind)).and_then(number).filter(|mark| *mark != 0);
    let mut effects = Effects::default();
    if let Some(value) = marked {
        effects.set(Mark::Packet, value, u32::MAX);
    }
    if kind == "vxlan" && find(data, IFLA_VXLAN_GBP).is_some() {
        // The mark is written into each frame, and set from each that comes.
        effects.read_mark(Mark::Packet, u32::MAX);
        effects.store(Mark::Packet, Word::default());
    }
    let template =
        if kind == "vxlan" { Use { names: group_policy(template.names), ..template } } else { template };
    effects.uses(&template).for_each(|found| sink.add(found, String::new));
    Some((index, name, kind))
}

fn group_policy(mut names: Vec<String>) -> Vec<String> {
    names.push("option gbp".into());
    names
}

fn wireguard(name: &str, body: &[u8], sink: &mut Sink<'_>) {
    let mark = all(body).find(|(kind, _)| *kind == WGDEVICE_A_FWMARK).and_then(|(_, value)| number(value));
    if let Some(value) = mark.filter(|mark| *mark != 0) {
        let template = Use::at(Subsystem::Wireguard, format!("wg {name}"), vec![format!("device {name}")]);
        let mut effects = Effects::default();
        effects.set(Mark::Packet, value, u32::MAX);
        effects.uses(&template).for_each(|found| sink.add(found, String::new));
    }
}

/// For the fuzzer: reads these bytes as a device and as a WireGuard device.
pub fn fuzz(bytes: &[u8]) {
    let mut quiet = |_| ();
    let mut sink = Sink::new(String::new(), &mut quiet);
    let _ = look_at(bytes, &mut sink);
    wireguard("wg0", bytes, &mut sink);
}
