//! bpf programs, by their instructions: which bits of `skb->mark` they read and write.
//!
//! A heuristic, and told as one. Not seen: marks reached by other pointers than the one that a program begins with (BTF, as
//! netfilter and tracing programs have them), and bits that are computed in a loop.

mod machine;

use std::collections::BTreeSet;

use fief_host::HostError;
use fief_host::programs::{self, Map, Program};
use fief_marks::registry::Mark;

use crate::sink::Sink;
use crate::uses::{Subsystem, Use};
use machine::read;

/// What the type of a program is called (`enum bpf_prog_type`), for those that begin with a packet.
fn packet_kind(kind: u32) -> Option<&'static str> {
    Some(match kind {
        1 => "socket_filter",
        3 => "sched_cls",
        4 => "sched_act",
        8 => "cgroup_skb",
        10 => "lwt_in",
        11 => "lwt_out",
        12 => "lwt_xmit",
        14 => "sk_skb",
        19 => "lwt_seg6local",
        _ => return None,
    })
}

/// Those that begin with a socket, or may set one's options.
fn socket_kind(kind: u32) -> Option<&'static str> {
    Some(match kind {
        9 => "cgroup_sock",
        13 => "sock_ops",
        18 => "cgroup_sock_addr",
        25 => "cgroup_sockopt",
        _ => return None,
    })
}

/// Where the mark is in `struct sk_buff` and in `struct sock`.
#[derive(Debug, Clone, Copy)]
pub struct Offsets {
    packet: i16,
    socket: i16,
}

/// What stands for the namespace of a program for devices that sits on none that was looked at.
pub const ELSEWHERE: &str = "(elsewhere)";

/// Looks at all programs of the machine. Those for devices are in the namespaces where they sit (`attached`: their numbers
/// by namespace); those of control groups and routes are wherever packets are.
pub(crate) fn scan(sink: &mut Sink<'_>, attached: &[(&str, BTreeSet<u32>)]) -> Result<(), HostError> {
    let Some((packet, socket)) = programs::mark_offsets() else {
        return Err(HostError::Missing(
            "this process may not load bpf programs, nor read others' instructions".into(),
        ));
    };
    programs::visit(|program| {
        sink.seen();
        let sits = attached.iter().filter(|(_, ids)| ids.contains(&program.id)).map(|(netns, _)| *netns);
        let netns: Vec<&str> = match is_for_devices(program.kind) {
            true => sits.collect(),
            false => vec![""],
        };
        let netns = if netns.is_empty() { &[ELSEWHERE][..] } else { &netns };
        look_at(&program, Offsets { packet, socket }, netns, sink);
    })
}

/// sched_cls and sched_act.
fn is_for_devices(kind: u32) -> bool {
    matches!(kind, 3 | 4)
}

fn look_at(program: &Program, offsets: Offsets, netns: &[&str], sink: &mut Sink<'_>) {
    let (kind, effects) = match (packet_kind(program.kind), socket_kind(program.kind)) {
        (Some(kind), _) => (kind, read(program, offsets.packet, Mark::Packet)),
        (_, Some(kind)) => {
            let begins_with_it = program.kind == 9;
            let offset = if begins_with_it { offsets.socket } else { i16::MIN };
            (kind, read(program, offset, Mark::Socket))
        }
        _ => return,
    };
    let is_ours = program.maps.iter().any(|map| map.name.starts_with("fief_"));
    let mut names = vec![format!("program {}", program.name)];
    if is_ours {
        names.push("protocol fief".into());
    }
    let name = if program.name.is_empty() { "(no name)" } else { &program.name };
    let template = Use { heuristic: true, ..Use::at(Subsystem::Bpf, format!("{kind} {name}"), names) };
    for found in effects.uses(&template) {
        for netns in netns {
            let found = Use { netns: (*netns).to_owned(), ..found.clone() };
            sink.add(found, || format!("id {}", program.id));
        }
    }
}

/// For the fuzzer: reads these bytes as a program.
pub fn fuzz(bytes: &[u8]) {
    let (instructions, _) = bytes.as_chunks::<8>();
    let constants = Map { id: 1, name: String::new(), constants: bytes.to_vec() };
    let program = bare(instructions, vec![constants]);
    read(&program, 168, Mark::Packet);
    read(&program, 16, Mark::Socket);
}

fn bare(instructions: &[[u8; 8]], maps: Vec<Map>) -> Program {
    Program { id: 0, name: String::new(), kind: 3, maps, instructions: instructions.to_vec() }
}
