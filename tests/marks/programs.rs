//! bpf programs, compiled as their makers do: which bits of the mark their instructions read and write.

use std::time::Duration;

use fief_testkit::{Lab, Ns, Output, eventually, skip};

use super::scanned::{Row, alone, marks, scan};

/// A program's name, its body, and the bits it reads and writes; none where it does not touch the mark.
type Case = (&'static str, &'static str, Option<(u32, u32)>);

const CASES: [Case; 10] = [
    ("cil_from_netdev", "skb->mark = (skb->mark & ~0xf00) | 0x200; return 0;", Some((0, 0xf00))),
    ("fm_none", "skb->priority = skb->len; skb->tc_index = 7; return skb->protocol;", None),
    ("fm_whole", "skb->mark = 0x539; return 0;", Some((0, u32::MAX))),
    ("fm_reads", "return (skb->mark & 0xf00) == 0x200 ? 2 : 0;", Some((0xf00, 0))),
    ("fm_high", "return skb->mark >> 16 == 5 ? 2 : 0;", Some((0xffff_0000, 0))),
    ("fm_branch", "if (skb->len > 100) skb->mark |= 0x10000; return 0;", Some((0, 0x10000))),
    ("fm_both", "if (skb->mark & 0x40000) skb->mark &= ~0x80000; return 0;", Some((0x40000, 0x80000))),
    (
        "fm_call",
        "unsigned int r = random(); skb->mark = (skb->mark & 0xfffe01ff) | (r & 0xff) << 9; return 0;",
        Some((0, 0x1fe00)),
    ),
    ("fm_copy", "skb->priority = skb->mark & 0xff; return 0;", Some((0xff, 0))),
    ("fm_function", "set(skb); return 0;", Some((0, 0xf000_0000))),
];

/// `struct __sk_buff` as far as it is needed (linux/bpf.h), a helper by its number, a function to be called.
const HEAD: &str = "
struct __sk_buff {
    unsigned int len, pkt_type, mark, queue_mapping, protocol, vlan[3], priority, ifindexes[2], tc_index;
};
static unsigned int (*random)(void) = (void *)7;
static __attribute__((noinline)) void set(struct __sk_buff *skb)
{
    skb->mark = (skb->mark & 0x0fffffff) | 0x30000000;
}
";
/// Instruction sets: with arithmetic of 64 bits only, and with that of 32.
const SETS: [&str; 2] = ["v1", "v3"];

/// Compiles a program and attaches it.
#[track_caller]
fn attach(lab: &Lab, ns: &Ns, (name, body, _): Case, set: &str) -> Output {
    let (source, object) = (lab.dir().join(format!("{name}.c")), lab.dir().join(format!("{name}.o")));
    let text = format!(
        "{HEAD}__attribute__((section(\"tc\"), used)) int {name}(struct __sk_buff *skb) {{ {body} }}\n\
         __attribute__((section(\"license\"), used)) char terms[] = \"GPL\";\n"
    );
    std::fs::write(&source, text).expect("the lab's directory is writable");
    let (source, object) = (source.display(), object.display());
    ns.sh(&format!("clang -O2 -g -target bpf -mcpu={set} -c {source} -o {object}")).ok();
    ns.sh(&format!("tc filter add dev lo ingress bpf direct-action obj {object} sec tc"))
}

fn named<'a>(rows: &'a [Row], name: &str) -> Vec<&'a Row> {
    let place = format!("sched_cls {name}");
    rows.iter().filter(|row| row.subsystem == "bpf" && row.seen.place == place).collect()
}

#[test]
fn instructions_say_which_bits_a_program_touches() {
    let Some(lab) = Lab::new("marks-bpf") else { return };
    // Programs are in no namespace: nobody else may look meanwhile.
    let _exclusive = alone(true);
    let ns = lab.ns("host");
    ns.sh("tc qdisc add dev lo clsact").ok();
    let first = attach(&lab, &ns, CASES[0], SETS[0]);
    if first.stderr.contains("kind \"bpf\"") {
        return skip("this kernel does not take bpf filters of tc(8)");
    }
    first.ok();
    let others = SETS.iter().flat_map(|set| CASES.iter().map(move |case| (case, set))).skip(1);
    others.for_each(|(case, set)| drop(attach(&lab, &ns, *case, set).ok()));
    let rows = scan(&lab, &ns, &["--here"]);
    let mut wrong = Vec::new();
    for (name, body, bits) in CASES {
        let found = named(&rows, name);
        let seen: Vec<_> = found.iter().map(|row| (row.seen.reads, row.seen.writes, row.count)).collect();
        // Both instruction sets come to the same.
        let expected: Vec<_> = bits.iter().map(|bits| (bits.0, bits.1, SETS.len() as u64)).collect();
        if seen != expected {
            wrong.push(format!("{name}: {seen:x?} instead of {expected:x?}: {body}"));
        }
        assert!(found.iter().all(|row| row.heuristic && row.seen.mark == "packet"), "{found:?}");
    }
    println!("{} of {} programs have exactly their bits", CASES.len() - wrong.len(), CASES.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let cilium = named(&rows, "cil_from_netdev")[0];
    assert_eq!(
        (cilium.seen.owner.as_str(), cilium.by.as_str(), cilium.seen.becomes),
        ("cilium", "name", Some(0x200))
    );
    assert_eq!(named(&rows, "fm_whole")[0].seen.becomes, Some(0x539));

    ns.sh("tc qdisc del dev lo clsact").ok();
    gone(&lab, &ns);
    ns.sh("tc qdisc add dev lo clsact").ok();
    attach(&lab, &ns, CASES[0], SETS[0]).ok();
    let met = marks(&lab, &ns, &["check", "0xff00"]);
    let says = "warning: cilium and fief share bits 0xf00 of the packet mark";
    assert!(met.code() == 1 && met.stdout.contains(says), "{met}");
    let beside = marks(&lab, &ns, &["check", "0xf0ff"]);
    assert!(beside.code() == 0 && beside.stdout.contains("nothing collides"), "{beside}");
    ns.sh("tc qdisc del dev lo clsact").ok();
    gone(&lab, &ns);
}

/// The kernel frees programs a little later.
#[track_caller]
fn gone(lab: &Lab, ns: &Ns) {
    eventually(Duration::from_secs(20), || {
        let rows = scan(lab, ns, &["--here"]);
        let left: Vec<&str> =
            CASES.iter().map(|case| case.0).filter(|name| !named(&rows, name).is_empty()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("still there: {left:?}")) }
    });
}
