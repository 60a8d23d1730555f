//! The nf_tables guard (nft(8)), table `inet fief`: what programs on devices cannot see.
//!
//! Programs are attached to exactly the devices that tenants name. Two doors lie beside those devices, and both hooks
//! are bound to the network namespace, whatever cgroup a process is in:
//!
//! ```text
//!   set devices { type iface_index }     the devices that tenants name
//!   set own4, own6 { type ipv4_addr / ipv6_addr }     the tenants' local addresses
//!   set exits { type mark . iface_index }     by which device which tenant may leave
//!
//!   input (priority 300)        iif @devices accept; iif lo accept;
//!                               ip daddr @own4 counter drop; ip6 daddr @own6 counter drop
//!   postrouting (priority 300)  meta mark & MASK != 0 (meta mark & MASK) . oif @exits accept;
//!                               oif lo accept;
//!                               meta mark & MASK == 0 meta l4proto udp ip saddr @own4 counter drop; (the same in IPv6)
//!                               meta mark & MASK == 0 accept;
//!                               meta l4proto igmp ip daddr 224.0.0.22 accept;
//!                               meta l4proto icmpv6 ip6 daddr ff02::16 accept; counter drop
//! ```
//!
//! A server with one UDP socket for everybody answers with the address that was called and no mark, and would so leave
//! by the host's own routes, which may lead to another tenant's router.
//!
//! The two group addresses are those of IGMPv3 and MLDv2 reports: the kernel writes them with a length where the mark
//! should be (`reserved_tailroom` shares its place in `struct sk_buff`), so their mark says nothing.
//!
//! The table has the `owner` and `persist` flags (Linux 6.9): `nft flush ruleset` passes over it while the daemon
//! lives, and it stays when the daemon dies.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::net::{Ipv4Addr, Ipv6Addr};

use fief_marks::MarkLayout;
use netlink_bindings::nftables::{
    CmpOps, MetaKeys, Nfgenmsg, OpBatchBeginDo, OpBatchEndDo, OpDelsetelemDo, OpDestroytableDo, OpNewchainDo,
    OpNewruleDo, OpNewsetDo, OpNewsetelemDo, OpNewtableDo, PayloadBase, PushExprListAttrs, Registers,
    TableFlags,
};
use netlink_bindings::traits::Pusher;

use crate::HostError;
use crate::netlink::{Message, Socket};
use crate::teeth::is_off;

/// The table's name, in the `inet` family.
pub const TABLE: &CStr = c"fief";

/// Message types of nf_tables (linux/netfilter/nf_tables.h).
const NEWTABLE: u16 = 0;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const DESTROYTABLE: u16 = 26;
const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
const NFPROTO_INET: u8 = 1;
const NF_ACCEPT: u32 = 1;
const NF_DROP: u32 = 0;
const HOOK_INPUT: u32 = 1;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY: i32 = 300;
const V4: u8 = libc::NFPROTO_IPV4 as u8;
const V6: u8 = libc::NFPROTO_IPV6 as u8;
/// Where IGMPv3 reports go (RFC 3376, 4.2.14).
const IGMP_REPORTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
/// Where MLDv2 reports go (RFC 3810, 5.2.14).
const MLD_REPORTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Devices that tenants may name.
const MOST_DEVICES: u32 = 65_536;
/// Elements in one message: an attribute is at most 64 KiB.
const CHUNK: usize = 1000;

/// What the guard's sets hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuardSets {
    /// Indices of the devices that tenants name.
    pub devices: BTreeSet<u32>,
    /// The tenants' local IPv4 addresses.
    pub own4: BTreeSet<Ipv4Addr>,
    /// The tenants' local IPv6 addresses.
    pub own6: BTreeSet<Ipv6Addr>,
    /// Slot's mark and device index: by which device which tenant may leave.
    pub exits: BTreeSet<(u32, u32)>,
}

/// The guard table of this network namespace, owned while this value lives.
pub struct Guard {
    socket: Socket,
    layout: MarkLayout,
    sets: Option<GuardSets>,
}

impl Guard {
    /// Opens the way to it; changes nothing.
    pub fn open(layout: MarkLayout) -> Result<Guard, HostError> {
        Ok(Guard { socket: Socket::open(libc::NETLINK_NETFILTER)?, layout, sets: None })
    }

    /// Makes the sets hold exactly this, in one transaction. The first call puts a fresh table in the place of
    /// whatever an earlier daemon left, without a moment between.
    pub fn hold(&mut self, wanted: &GuardSets) -> Result<(), HostError> {
        let mut messages = Vec::new();
        match &self.sets {
            None => {
                messages.extend(self.skeleton());
                change_elements(&mut messages, NEWSETELEM, wanted);
            }
            Some(held) if held == wanted => return Ok(()),
            Some(held) => {
                change_elements(&mut messages, DELSETELEM, &difference(held, wanted));
                change_elements(&mut messages, NEWSETELEM, &difference(wanted, held));
            }
        }
        self.transact(messages)?;
        self.sets = Some(wanted.clone());
        Ok(())
    }

    /// What the sets hold, once they were made to hold something.
    pub fn held(&self) -> Option<&GuardSets> {
        self.sets.as_ref()
    }

    /// Removes the table, if it is there.
    pub fn remove(&mut self) -> Result<(), HostError> {
        self.sets = None;
        self.transact(vec![destroy()])
    }

    fn transact(&mut self, messages: Vec<Message>) -> Result<(), HostError> {
        let mut batch = Vec::with_capacity(messages.len() + 2);
        batch.push(boundary(libc::NFNL_MSG_BATCH_BEGIN as u16));
        batch.extend(messages);
        batch.push(boundary(libc::NFNL_MSG_BATCH_END as u16));
        self.socket.transact(&mut batch)
    }

    fn skeleton(&self) -> Vec<Message> {
        let mask = self.layout.mask().to_ne_bytes();
        let mut messages = vec![
            destroy(),
            message(NEWTABLE, libc::NLM_F_CREATE, "create nft table fief", |body| {
                let flags = TableFlags::Owner as u32 | TableFlags::Persist as u32;
                drop(OpNewtableDo::encode_request(body, &inet()).push_name(TABLE).push_flags(flags));
            }),
            set(c"devices", 1, TYPE_IFINDEX, 4),
            set(c"own4", 2, TYPE_IPADDR, 4),
            set(c"own6", 3, TYPE_IP6ADDR, 16),
            set(c"exits", 4, TYPE_MARK << 6 | TYPE_IFINDEX, 8),
            chain(c"input", HOOK_INPUT),
            chain(c"postrouting", HOOK_POSTROUTING),
            rule(c"input", |e| {
                verdict(lookup(meta(e, MetaKeys::Iif, Registers::Reg1), c"devices"), NF_ACCEPT)
            }),
            rule(c"input", |e| {
                verdict(equal(meta(e, MetaKeys::Iif, Registers::Reg1), &1u32.to_ne_bytes()), NF_ACCEPT)
            }),
            // First what is most: a tenant's packet on its way.
            rule(c"postrouting", |e| {
                let tenants = compare(marked(e, &mask), CmpOps::Neq, &[0; 4]);
                verdict(lookup(meta(tenants, MetaKeys::Oif, Registers::Reg3201), c"exits"), NF_ACCEPT)
            }),
            rule(c"postrouting", |e| {
                verdict(equal(meta(e, MetaKeys::Oif, Registers::Reg1), &1u32.to_ne_bytes()), NF_ACCEPT)
            }),
        ];
        if !is_off("nft-source") {
            messages.extend([(V4, c"own4"), (V6, c"own6")].map(|(family, own)| {
                rule(c"postrouting", move |e| {
                    let unmarked = protocol(equal(marked(e, &mask), &[0; 4]), libc::IPPROTO_UDP as u8);
                    verdict(counter(lookup(source(unmarked, family), own)), NF_DROP)
                })
            }));
        }
        messages.extend([
            rule(c"postrouting", |e| verdict(equal(marked(e, &mask), &[0; 4]), NF_ACCEPT)),
            rule(c"postrouting", |e| {
                let report = protocol(e, libc::IPPROTO_IGMP as u8);
                verdict(equal(destination(report, V4), &IGMP_REPORTS.octets()), NF_ACCEPT)
            }),
            rule(c"postrouting", |e| {
                let report = protocol(e, libc::IPPROTO_ICMPV6 as u8);
                verdict(equal(destination(report, V6), &MLD_REPORTS.octets()), NF_ACCEPT)
            }),
        ]);
        if !is_off("nft-input") {
            messages.extend([
                rule(c"input", |e| verdict(counter(lookup(destination(e, V4), c"own4")), NF_DROP)),
                rule(c"input", |e| verdict(counter(lookup(destination(e, V6), c"own6")), NF_DROP)),
            ]);
        }
        if !is_off("nft-postrouting") {
            messages.push(rule(c"postrouting", |e| verdict(counter(e), NF_DROP)));
        }
        messages
    }
}

/// nft's own numbers for its data types (nftables' include/datatype.h); they make `nft list` readable.
const TYPE_IPADDR: u32 = 7;
const TYPE_IP6ADDR: u32 = 8;
const TYPE_MARK: u32 = 19;
const TYPE_IFINDEX: u32 = 20;

fn difference(of: &GuardSets, less: &GuardSets) -> GuardSets {
    GuardSets {
        devices: &of.devices - &less.devices,
        own4: &of.own4 - &less.own4,
        own6: &of.own6 - &less.own6,
        exits: &of.exits - &less.exits,
    }
}

fn change_elements(messages: &mut Vec<Message>, kind: u16, sets: &GuardSets) {
    let devices = sets.devices.iter().map(|i| i.to_ne_bytes().to_vec());
    let own4 = sets.own4.iter().map(|a| a.octets().to_vec());
    let own6 = sets.own6.iter().map(|a| a.octets().to_vec());
    let exits = sets.exits.iter().map(|(mark, device)| [mark.to_ne_bytes(), device.to_ne_bytes()].concat());
    elements(messages, kind, c"devices", devices.collect());
    elements(messages, kind, c"own4", own4.collect());
    elements(messages, kind, c"own6", own6.collect());
    elements(messages, kind, c"exits", exits.collect());
}

fn elements(messages: &mut Vec<Message>, kind: u16, set: &CStr, keys: Vec<Vec<u8>>) {
    for chunk in keys.chunks(CHUNK) {
        let what = format!("change {} elements of nft set {}", chunk.len(), set.to_string_lossy());
        messages.push(message(kind, libc::NLM_F_CREATE, what, |body| {
            let encoder = match kind {
                DELSETELEM => OpDelsetelemDo::encode_request(body, &inet()),
                _ => OpNewsetelemDo::encode_request(body, &inet()),
            };
            let mut list = encoder.push_table(TABLE).push_set(set).nested_elements();
            for key in chunk {
                list = list.nested_elem().nested_key().push_value(key).end_nested().end_nested();
            }
            drop(list.end_nested());
        }));
    }
}

fn set(name: &CStr, id: u32, key_type: u32, key_length: u32) -> Message {
    message(NEWSET, libc::NLM_F_CREATE, format!("create nft set {}", name.to_string_lossy()), |body| {
        let encoder =
            OpNewsetDo::encode_request(body, &inet()).push_table(TABLE).push_name(name).push_flags(0);
        let encoder = encoder.push_key_type(key_type).push_key_len(key_length).push_id(id);
        // For `nft list` only: NFTNL_UDATA_SET_KEYBYTEORDER (0), 4 bytes, host order (1) or network order (2).
        let order = if key_type == TYPE_IPADDR || key_type == TYPE_IP6ADDR { 2u32 } else { 1 };
        let mut note = vec![0, 4];
        note.extend_from_slice(&order.to_ne_bytes());
        let encoder = encoder.push_userdata(&note);
        // A set of bounded size is a plain hash table with a lookup of its own for keys of four bytes (nft_hash_fast);
        // every packet that comes in asks for its device.
        if key_type == TYPE_IFINDEX {
            drop(encoder.nested_desc().push_size(MOST_DEVICES).end_nested());
        }
    })
}

fn chain(name: &CStr, hook: u32) -> Message {
    message(NEWCHAIN, libc::NLM_F_CREATE, format!("create nft chain {}", name.to_string_lossy()), |body| {
        let encoder = OpNewchainDo::encode_request(body, &inet()).push_table(TABLE).push_name(name);
        let encoder = encoder.nested_hook().push_num(hook).push_priority(PRIORITY).end_nested();
        drop(encoder.push_policy(NF_ACCEPT).push_type(c"filter"));
    })
}

type Expressions<'a> = PushExprListAttrs<netlink_bindings::nftables::PushRuleAttrs<&'a mut Vec<u8>>>;

fn rule(chain: &CStr, expressions: impl for<'a> FnOnce(Expressions<'a>) -> Expressions<'a>) -> Message {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
    message(NEWRULE, flags, format!("add a rule to nft chain {}", chain.to_string_lossy()), |body| {
        let encoder = OpNewruleDo::encode_request(body, &inet()).push_table(TABLE).push_chain(chain);
        drop(expressions(encoder.nested_expressions()).end_nested());
    })
}

fn meta(list: Expressions<'_>, key: MetaKeys, register: Registers) -> Expressions<'_> {
    list.nested_elem()
        .nested_data_meta()
        .push_dreg(register as u32)
        .push_key(key as u32)
        .end_nested()
        .end_nested()
}

/// Register 1 := the mark under our mask.
fn marked<'a>(list: Expressions<'a>, mask: &[u8; 4]) -> Expressions<'a> {
    let register = Registers::Reg1 as u32;
    meta(list, MetaKeys::Mark, Registers::Reg1)
        .nested_elem()
        .nested_data_bitwise()
        .push_sreg(register)
        .push_dreg(register)
        .push_len(4)
        .nested_mask()
        .push_value(mask)
        .end_nested()
        .nested_xor()
        .push_value(&[0; 4])
        .end_nested()
        .end_nested()
        .end_nested()
}

/// Goes on only if this is the packet's protocol, behind extension headers.
fn protocol(list: Expressions<'_>, number: u8) -> Expressions<'_> {
    equal(meta(list, MetaKeys::L4Proto, Registers::Reg1), &[number])
}

fn equal<'a>(list: Expressions<'a>, value: &[u8]) -> Expressions<'a> {
    compare(list, CmpOps::Eq, value)
}

fn compare<'a>(list: Expressions<'a>, how: CmpOps, value: &[u8]) -> Expressions<'a> {
    list.nested_elem()
        .nested_data_cmp()
        .push_sreg(Registers::Reg1 as u32)
        .push_op(how as u32)
        .nested_data()
        .push_value(value)
        .end_nested()
        .end_nested()
        .end_nested()
}

fn lookup<'a>(list: Expressions<'a>, set: &CStr) -> Expressions<'a> {
    let mut expression = list.nested_elem().nested_data_lookup();
    // NFTA_LOOKUP_SREG is 2 (linux/netfilter/nf_tables.h); the bindings' push_sreg writes another number.
    let attribute = expression.as_vec_mut();
    attribute.extend_from_slice(&8u16.to_ne_bytes());
    attribute.extend_from_slice(&2u16.to_ne_bytes());
    attribute.extend_from_slice(&(Registers::Reg1 as u32).to_be_bytes());
    expression.push_set(set).end_nested().end_nested()
}

/// Register 1 := the packet's destination; goes on only if the packet is of this family.
fn destination(list: Expressions<'_>, family: u8) -> Expressions<'_> {
    address(list, family, [16, 24])
}

/// Register 1 := the source address, of packets of this family.
fn source(list: Expressions<'_>, family: u8) -> Expressions<'_> {
    address(list, family, [12, 8])
}

/// Register 1 := the address at this place of the IPv4 or IPv6 header.
fn address(list: Expressions<'_>, family: u8, places: [u32; 2]) -> Expressions<'_> {
    let is_v4 = i32::from(family) == libc::NFPROTO_IPV4;
    let (offset, length) = if is_v4 { (places[0], 4) } else { (places[1], 16) };
    equal(meta(list, MetaKeys::Nfproto, Registers::Reg1), &[family])
        .nested_elem()
        .nested_data_payload()
        .push_dreg(Registers::Reg1 as u32)
        .push_base(PayloadBase::NetworkHeader as u32)
        .push_offset(offset)
        .push_len(length)
        .end_nested()
        .end_nested()
}

fn counter(list: Expressions<'_>) -> Expressions<'_> {
    list.nested_elem().nested_data_counter().push_bytes(0).push_packets(0).end_nested().end_nested()
}

fn verdict(list: Expressions<'_>, code: u32) -> Expressions<'_> {
    list.nested_elem()
        .nested_data_immediate()
        .push_dreg(Registers::RegVerdict as u32)
        .nested_data()
        .nested_verdict()
        .push_code(code)
        .end_nested()
        .end_nested()
        .end_nested()
        .end_nested()
}

fn destroy() -> Message {
    message(DESTROYTABLE, 0, "remove nft table fief", |body| {
        drop(OpDestroytableDo::encode_request(body, &inet()).push_name(TABLE));
    })
}

fn message(kind: u16, flags: i32, what: impl Into<String>, encode: impl FnOnce(&mut Vec<u8>)) -> Message {
    Message::new(SUBSYSTEM | kind, flags, what, encode)
}

fn boundary(kind: u16) -> Message {
    let mut header = Nfgenmsg::new();
    header.set_res_id(libc::NFNL_SUBSYS_NFTABLES as u16);
    Message::new(kind, 0, "nft batch", |body| match i32::from(kind) {
        libc::NFNL_MSG_BATCH_BEGIN => drop(OpBatchBeginDo::encode_request(body, &header)),
        _ => drop(OpBatchEndDo::encode_request(body, &header)),
    })
    .unacknowledged()
}

fn inet() -> Nfgenmsg {
    Nfgenmsg { nfgen_family: NFPROTO_INET, ..Nfgenmsg::new() }
}
