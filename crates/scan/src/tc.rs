//! Traffic control: queues, classes, filters and their actions (net/sched).

use std::collections::BTreeMap;

use fief_host::HostError;
use fief_host::netlink::Socket;
use fief_host::netlink::attribute::{all, find, number, text};
use fief_marks::registry::Mark;

use crate::sink::Sink;
use crate::uses::{Effects, Subsystem, Use};
use crate::word::Word;

/// `struct tcmsg`: family, ifindex, handle, parent, info.
const HEADER: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_INGRESS_BLOCK: u16 = 13;
const TCA_EGRESS_BLOCK: u16 = 14;
/// TCM_IFINDEX_MAGIC_BLOCK: the parent is then the number of a block that devices share.
const SHARED_BLOCK: u32 = u32::MAX;
/// TC_H_CLSACT with TC_H_MIN_INGRESS and TC_H_MIN_EGRESS.
const CLSACT: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
/// TCF_META_ID_NFMARK, below the type in the upper four bits.
const META_MARK: u16 = 12;
/// TCF_EM_META.
const EMATCH_META: u16 = 4;
const IFE_ENCODE: u8 = 1;
/// FLOW_KEY_MARK.
const FLOW_KEY_MARK: u32 = 1 << 7;

/// A device and a place in it to which filters may be attached.
type Parent = (u32, u32);
/// Lists of fw filters that nothing has been seen in yet, by priority, protocol and chain.
/// Each with what an empty one does.
type Heads = BTreeMap<(u32, u32), Use>;

/// Looks at all devices.
pub(crate) fn scan(sink: &mut Sink<'_>, devices: &BTreeMap<u32, String>) -> Result<(), HostError> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
    let mut parents: Vec<Parent> = Vec::new();
    dump(&mut socket, libc::RTM_GETQDISC, "list queues", (0, 0), |body| {
        sink.seen();
        queue(body, devices, &mut parents, sink);
    })?;
    let busy: Vec<u32> =
        parents.iter().map(|(device, _)| *device).filter(|device| *device != SHARED_BLOCK).collect();
    for device in busy {
        dump(&mut socket, libc::RTM_GETTCLASS, "list classes", (device, 0), |body| {
            parents.extend(header(body).map(|header| (device, header.handle)));
        })?;
    }
    parents.sort_unstable();
    parents.dedup();
    for parent in parents {
        let mut heads = Heads::new();
        let listed = dump(&mut socket, libc::RTM_GETTFILTER, "list filters", parent, |body| {
            sink.seen();
            // A block that devices share is listed for each of them, and by itself.
            if parent.0 == SHARED_BLOCK || header(body).is_some_and(|header| header.device != SHARED_BLOCK) {
                filter(body, devices, &mut heads, sink);
            }
        });
        heads.into_values().for_each(|of_its_own| sink.add(of_its_own, String::new));
        match listed {
            // The device went, or its kind of queue has no filters.
            Err(error) if error.errno().is_some_and(|e| e != libc::EPERM) => {}
            other => other?,
        }
    }
    Ok(())
}

fn dump(
    socket: &mut Socket,
    kind: u16,
    what: &str,
    (device, parent): Parent,
    mut each: impl FnMut(&[u8]),
) -> Result<(), HostError> {
    let encode = |body: &mut Vec<u8>| {
        body.extend([0; 4]);
        [device, 0, parent, 0].iter().for_each(|word| body.extend(word.to_ne_bytes()));
    };
    socket.dump(kind, what, encode, |_, body| each(body))
}

struct Header {
    device: u32,
    handle: u32,
    parent: u32,
    /// Of a filter: its priority and protocol.
    info: u32,
}

fn header(body: &[u8]) -> Option<Header> {
    let word = |at: usize| body.get(at..).and_then(number);
    Some(Header { device: word(4)?, handle: word(8)?, parent: word(12)?, info: word(16)? })
}

/// A queue: who may have filters below it, and whether it goes by marks itself.
fn queue(body: &[u8], devices: &BTreeMap<u32, String>, parents: &mut Vec<Parent>, sink: &mut Sink<'_>) {
    let (Some(header), Some(attributes)) = (header(body), body.get(HEADER..)) else { return };
    let kind = find(attributes, TCA_KIND).map(text).unwrap_or_default();
    match kind.as_str() {
        "clsact" => parents.extend(CLSACT.map(|parent| (header.device, parent))),
        "noqueue" => {}
        _ => parents.push((header.device, header.handle)),
    }
    let blocks = [TCA_INGRESS_BLOCK, TCA_EGRESS_BLOCK].map(|kind| find(attributes, kind).and_then(number));
    parents
        .extend(blocks.into_iter().flatten().filter(|block| *block != 0).map(|block| (SHARED_BLOCK, block)));
    // TCA_CAKE_FWMARK: the bits that choose a tin.
    let tins =
        find(attributes, TCA_OPTIONS).filter(|_| kind == "cake").and_then(|o| find(o, 18)).and_then(number);
    if let Some(mask) = tins {
        let template = at(&header, devices, "qdisc cake");
        sink.add(Use { reads: mask, ..template }, String::new);
    }
}

fn at(header: &Header, devices: &BTreeMap<u32, String>, what: &str) -> Use {
    let unknown = || format!("device {}", header.device);
    let device = devices.get(&header.device).cloned().unwrap_or_else(unknown);
    let (where_, names) = match (header.device, header.parent) {
        (SHARED_BLOCK, block) => (format!("block {block}"), Vec::new()),
        (_, 0xffff_fff2) => (format!("dev {device} ingress"), vec![format!("device {device}")]),
        (_, 0xffff_fff3) => (format!("dev {device} egress"), vec![format!("device {device}")]),
        (_, u32::MAX) => (format!("dev {device} root"), vec![format!("device {device}")]),
        (_, parent) => (
            format!("dev {device} parent {:x}:{:x}", parent >> 16, parent & 0xffff),
            vec![format!("device {device}")],
        ),
    };
    Use::at(Subsystem::TrafficControl, format!("tc {what} {where_}"), names)
}

/// A filter. The kernel writes the head of each list of them before what is in it: with handle 0, without
/// options.
fn filter(body: &[u8], devices: &BTreeMap<u32, String>, heads: &mut Heads, sink: &mut Sink<'_>) {
    let (Some(header), Some(attributes)) = (header(body), body.get(HEADER..)) else { return };
    let kind = find(attributes, TCA_KIND).map(text).unwrap_or_default();
    let options = find(attributes, TCA_OPTIONS).unwrap_or_default();
    let mut effects = Effects::default();
    let list = (header.info, find(attributes, TCA_CHAIN).and_then(number).unwrap_or(0));
    let word = |kind| find(options, kind).and_then(number);
    let actions = match kind.as_str() {
        "fw" => {
            // A list with nothing in it takes the whole mark for a class (net/sched/cls_fw.c).
            match header.handle {
                0 => {
                    let template = at(&header, devices, "filter fw");
                    heads.insert(list, Use { reads: u32::MAX, ..template });
                }
                value => {
                    heads.remove(&list);
                    effects.matched(Mark::Packet, value, word(5).unwrap_or(u32::MAX));
                }
            }
            4
        }
        "u32" => {
            // TCA_U32_MARK: value, mask, how often it held.
            let mark = find(options, 10).and_then(|mark| Some((number(mark)?, number(mark.get(4..)?)?)));
            if let Some((value, mask)) = mark {
                effects.matched(Mark::Packet, value, mask);
            }
            7
        }
        "flower" => {
            if let Some(value) = word(95) {
                effects.matched(Mark::Connection, value, word(96).unwrap_or(u32::MAX));
            }
            3
        }
        "basic" => {
            find(options, 2).into_iter().for_each(|matches| extended(matches, &mut effects));
            3
        }
        "cgroup" => {
            find(options, 3).into_iter().for_each(|matches| extended(matches, &mut effects));
            1
        }
        "flow" => {
            if word(1).is_some_and(|keys| keys & FLOW_KEY_MARK != 0) {
                effects.read_mark(Mark::Packet, u32::MAX);
            }
            find(options, 11).into_iter().for_each(|matches| extended(matches, &mut effects));
            9
        }
        "matchall" => 2,
        "bpf" => {
            // TCA_BPF_ID.
            sink.attached.extend(word(11));
            1
        }
        "route" => 6,
        _ => 0,
    };
    for (_, one) in find(options, actions).into_iter().flat_map(all) {
        action(one, &mut effects);
        // TCA_ACT_BPF_ID.
        let program = find(one, 2).filter(|_| find(one, 1).map(text).as_deref() == Some("bpf"));
        sink.attached.extend(program.and_then(|options| find(options, 9)).and_then(number));
    }
    let template = at(&header, devices, &format!("filter {kind}"));
    effects.uses(&template).for_each(|found| sink.add(found, || format!("handle {:#x}", header.handle)));
}

/// `struct tcf_ematch_hdr` and what belongs to its kind: meta compares two values, and each may be the mark.
fn extended(matches: &[u8], effects: &mut Effects) {
    // TCA_EMATCH_TREE_LIST.
    for (_, one) in find(matches, 2).into_iter().flat_map(all) {
        let (Some(kind), Some(data)) = (one.get(2..4), one.get(8..)) else { continue };
        if u16::from_ne_bytes([kind[0], kind[1]]) != EMATCH_META {
            continue;
        }
        // TCA_EM_META_HDR: two of kind, shift, op.
        let ends = find(data, 1).unwrap_or_default();
        for (end, value) in ends.chunks_exact(4).zip([2, 3]) {
            if u16::from_ne_bytes([end[0], end[1]]) & 0xfff == META_MARK {
                // Its own value of a mark is the mask, for what is left after the shift.
                let mask = find(data, value).and_then(number).filter(|mask| *mask != 0);
                let bits = mask.unwrap_or(u32::MAX).checked_shl(end[2].into()).unwrap_or(0);
                effects.read_mark(Mark::Packet, bits);
            }
        }
    }
}

/// An action (TCA_ACT_KIND, TCA_ACT_OPTIONS).
fn action(one: &[u8], effects: &mut Effects) {
    let kind = find(one, 1).map(text).unwrap_or_default();
    let options = find(one, 2).unwrap_or_default();
    let word = |kind| find(options, kind).and_then(number);
    match kind.as_str() {
        "skbedit" => {
            if let Some(value) = word(5) {
                effects.set(Mark::Packet, value, word(8).unwrap_or(u32::MAX));
            }
        }
        "connmark" => effects.store(Mark::Packet, Word::mark(Mark::Connection)),
        "ct" => {
            if let Some(value) = word(5) {
                effects.set(Mark::Connection, value, word(6).unwrap_or(u32::MAX));
            }
        }
        "ctinfo" => {
            if let Some(mask) = word(7) {
                effects.store(Mark::Packet, Word::mark(Mark::Connection).and(Word::constant(mask)));
            }
            // TCA_CTINFO_PARMS_DSCP_MASK, and the bits that say whether there is one.
            let service = [word(5), word(6)].into_iter().flatten().fold(0, |bits, mask| bits | mask);
            effects.read_mark(Mark::Connection, service);
        }
        "ife" => {
            // TCA_IFE_METALST with IFE_META_SKBMARK; a value there goes to the wire in place of the packet's.
            let mark = find(options, 6).and_then(|carried| find(carried, 1));
            // `struct tc_ife`: what all actions have, then the flags.
            let flags = find(options, 1).and_then(|parameters| parameters.get(20).copied());
            match (mark, flags.map(|flags| flags & IFE_ENCODE)) {
                (Some([]), Some(IFE_ENCODE)) => {
                    effects.read_mark(Mark::Packet, u32::MAX);
                }
                (Some(_), Some(0)) => effects.store(Mark::Packet, Word::default()),
                _ => {}
            }
        }
        _ => {}
    }
}

/// For the fuzzer: reads these bytes as a queue and as a filter.
pub fn fuzz(bytes: &[u8]) {
    let mut quiet = |_| ();
    let mut sink = Sink::new(String::new(), &mut quiet);
    queue(bytes, &BTreeMap::new(), &mut Vec::new(), &mut sink);
    filter(bytes, &BTreeMap::new(), &mut Heads::new(), &mut sink);
}

#[cfg(test)]
mod tests {
    use fief_host::netlink::attribute::push;

    use super::*;

    /// A filter of this kind and handle as the kernel lists it, without a priority.
    fn listed(kind: &str, handle: u32, options: Option<&[u8]>) -> Vec<u8> {
        let mut body = [0, 1, handle, CLSACT[0], 0].map(u32::to_ne_bytes).concat();
        push(&mut body, TCA_KIND, kind.as_bytes());
        options.into_iter().for_each(|options| push(&mut body, TCA_OPTIONS, options));
        body
    }

    /// Bits read and written of each mark by what is listed.
    fn uses(listing: &[Vec<u8>]) -> Vec<(Mark, u32, u32)> {
        let mut quiet = |_| ();
        let mut sink = Sink::new(String::new(), &mut quiet);
        let mut heads = Heads::new();
        listing.iter().for_each(|body| filter(body, &BTreeMap::new(), &mut heads, &mut sink));
        heads.into_values().for_each(|of_its_own| sink.add(of_its_own, String::new));
        sink.look("filters", |_| Ok(()));
        let uses = sink.finish().uses.into_vec();
        uses.into_iter().map(|found| (found.what.mark, found.what.reads, found.what.writes)).collect()
    }

    #[test]
    fn only_an_empty_list_of_fw_filters_goes_by_the_whole_mark() {
        let mut options = Vec::new();
        push(&mut options, 5, &0xf0_u32.to_ne_bytes());
        let (head, one) = (listed("fw", 0, None), listed("fw", 0x10, Some(&options)));
        assert_eq!(uses(std::slice::from_ref(&head)), [(Mark::Packet, u32::MAX, 0)]);
        assert_eq!(uses(&[head, one]), [(Mark::Packet, 0xf0, 0)]);
        assert!(uses(&[listed("flower", 0, None)]).is_empty());
    }

    #[test]
    fn a_shift_in_meta_moves_the_mask() {
        for (shift, mask, bits) in
            [(0, 0xf0_u32, 0xf0_u32), (4, 0xf, 0xf0), (8, 0, 0xffff_ff00), (40, 0xf, 0)]
        {
            let (mut meta, mut list, mut tree) = (Vec::new(), Vec::new(), Vec::new());
            let [low, high] = META_MARK.to_ne_bytes();
            push(&mut meta, 1, &[low, high, shift, 0, 0, 0, 0, 0]);
            push(&mut meta, 2, &mask.to_ne_bytes());
            let header = [0, EMATCH_META, 0, 0].map(u16::to_ne_bytes).concat();
            push(&mut list, 1, &[header, meta].concat());
            push(&mut tree, 2, &list);
            let mut effects = Effects::default();
            extended(&tree, &mut effects);
            let mut expected = Effects::default();
            expected.read_mark(Mark::Packet, bits);
            assert_eq!(effects, expected, "shift {shift}, mask {mask:#x}");
        }
    }
}
