//! nf_tables: every rule of every table, with the sets and maps they look marks up in (nf_tables_api.c).

mod rule;

use std::collections::HashMap;

use fief_host::HostError;
use fief_host::netlink::Socket;
use fief_host::netlink::attribute::{all, find, number, number_be, push, text};

use crate::sink::Sink;
use crate::uses::{Subsystem, Use};
use crate::word::Word;

/// NFNL_SUBSYS_NFTABLES << 8, and the message.
const GET_RULE: u16 = 10 << 8 | 7;
const GET_SET: u16 = 10 << 8 | 10;
const GET_ELEMENTS: u16 = 10 << 8 | 13;

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
/// NFTNL_UDATA_RULE_COMMENT of libnftnl.
const COMMENT: u8 = 0;

/// What nft(8) calls values that are marks (libnftables writes this number, the kernel keeps it).
const TYPE_MARK: u32 = 19;

const ANY: u8 = 0;

/// `struct nfgenmsg`: family, version, resource id.
const HEADER: usize = 4;

/// A set by family, table and name.
type SetKey = (u8, String, String);

/// What is known of a set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Set {
    key_length: u32,
    data_length: u32,
    gives_marks: bool,
    /// What its values have in common, where they are marks.
    values: Word,
}

/// Looks at all tables of the current thread's namespace.
pub(crate) fn scan(sink: &mut Sink<'_>) -> Result<(), HostError> {
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let mut sets = HashMap::new();
    dump(&mut socket, GET_SET, "list nftables sets", ANY, &[], |body| sets.extend(set_of(body)))?;
    for (key, set) in sets.iter_mut().filter(|(_, set)| set.gives_marks) {
        set.values = values_of(&mut socket, key)?;
    }
    dump(&mut socket, GET_RULE, "list nftables rules", ANY, &[], |body| {
        sink.seen();
        look_at(body, &sets, &mut |found, first| sink.add(found, first));
    })
}

fn dump(
    socket: &mut Socket,
    kind: u16,
    what: &str,
    family: u8,
    attributes: &[u8],
    mut each: impl FnMut(&[u8]),
) -> Result<(), HostError> {
    let encode = |body: &mut Vec<u8>| {
        body.extend([family, 0, 0, 0]);
        body.extend(attributes);
    };
    socket.dump(kind, what, encode, |_, body| each(body))
}

fn set_of(body: &[u8]) -> Option<(SetKey, Set)> {
    let (header, attributes) = body.split_at_checked(HEADER)?;
    let length = |kind| find(attributes, kind).and_then(number_be).unwrap_or(0);
    let key = (header[0], text(find(attributes, SET_TABLE)?), text(find(attributes, SET_NAME)?));
    let set = Set {
        key_length: length(SET_KEY_LENGTH),
        data_length: length(SET_DATA_LENGTH),
        gives_marks: length(SET_DATA_TYPE) == TYPE_MARK,
        values: Word::default(),
    };
    Some((key, set))
}

/// What all values of a map of marks have in common.
fn values_of(socket: &mut Socket, (family, table, set): &SetKey) -> Result<Word, HostError> {
    let mut attributes = Vec::new();
    for (kind, name) in [(ELEMENTS_TABLE, table), (ELEMENTS_SET, set)] {
        push(&mut attributes, kind, format!("{name}\0").as_bytes());
    }
    let mut values = None;
    let what = "list the elements of an nftables map";
    let listed = dump(socket, GET_ELEMENTS, what, *family, &attributes, |body| {
        let Some((_, attributes)) = body.split_at_checked(HEADER) else { return };
        for (_, element) in find(attributes, ELEMENTS).into_iter().flat_map(all) {
            let data = find(element, ELEMENT_DATA).and_then(|data| find(data, DATA_VALUE));
            if let Some(value) = data.and_then(number) {
                values = Some(rule::common(values, value));
            }
        }
    });
    match listed {
        // It went, or changed, while we looked: anything may be in it.
        Err(HostError::Overrun) => Ok(Word::default()),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Word::default()),
        other => other.map(|()| values.unwrap_or_default()),
    }
}

/// Reads one rule.
fn look_at(body: &[u8], sets: &HashMap<SetKey, Set>, report: &mut dyn FnMut(Use, &dyn Fn() -> String)) {
    let Some((header, attributes)) = body.split_at_checked(HEADER) else { return };
    let family = header[0];
    let mut parts: [Option<&[u8]>; 8] = [None; 8];
    for (kind, value) in all(attributes) {
        if let Some(part) = parts.get_mut(usize::from(kind)) {
            *part = Some(value);
        }
    }
    let part = |kind: u16| parts[usize::from(kind)];
    let Some(expressions) = part(RULE_EXPRESSIONS) else { return };
    let table = || part(RULE_TABLE).map(text).unwrap_or_default();
    let set = |name: &str| sets.get(&(family, table(), name.to_owned())).copied();
    let read = rule::read(expressions, &set);
    if !read.touches() {
        return;
    }
    let (table, chain) = (table(), part(RULE_CHAIN).map(text).unwrap_or_default());
    let place = format!("{} {table} {chain}", family_name(family));
    let mut names = vec![format!("table {table}"), format!("chain {chain}")];
    names.extend(part(RULE_USERDATA).and_then(comment).map(|comment| format!("comment {comment}")));
    names.extend(read.comments.iter().map(|comment| format!("comment {comment}")));
    let subsystem = if read.is_compat { Subsystem::IptablesNft } else { Subsystem::Nftables };
    let template = Use::at(subsystem, place, names);
    let handle = || {
        let handle = part(RULE_HANDLE).and_then(|h| h.first_chunk()).map(|h| u64::from_be_bytes(*h));
        format!("handle {}", handle.unwrap_or(0))
    };
    for found in read.effects.uses(&template) {
        report(found, &handle);
    }
}

fn comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    while let [kind, length, tail @ ..] = rest {
        let value = tail.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        rest = &tail[usize::from(*length)..];
    }
    None
}

fn family_name(family: u8) -> &'static str {
    match i32::from(family) {
        1 => "inet",
        libc::AF_INET => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        libc::AF_INET6 => "ip6",
        _ => "?",
    }
}

/// For the fuzzer: reads these bytes as a rule and as a set.
pub fn fuzz(body: &[u8]) {
    let mut sets: HashMap<SetKey, Set> = set_of(body).into_iter().collect();
    sets.values_mut().for_each(|set| set.data_length = 4);
    look_at(body, &sets, &mut |_, first| drop(first()));
}
