//! Objects with marks that many build machines' kernels lack, held against what `fief marks scan` finds.

#[path = "../marks/scanned.rs"]
mod scanned;

use fief_testkit::{Lab, Ns, Output};

use scanned::{Counted, Row, Seen, alone, common, here, scan, without};

/// Objects of one kind, with what must not be found beside them.
struct Objects {
    what: &'static str,
    /// Lines that make them beside [`DEVICES`]: those of ip(8) and tc(8), and else of sh(1).
    made: &'static str,
    /// Every use of a mark in them, a line each: `SUBSYSTEM ` and what [`Seen::declared`] takes.
    declared: &'static str,
}

/// Two devices; `up0` has places for filters on both its ways.
const DEVICES: &str = "ip link add up0 type veth peer name down0\ntc qdisc add dev up0 clsact\n";

#[test]
fn filters_that_compare_marks() {
    const FILTERS: &[Objects] = &[
        Objects {
            what: "tc filters by mark (fw)",
            made: "tc filter add dev up0 ingress protocol ip prio 1 handle 0x10/0xf0 fw action pass
                tc filter add dev up0 ingress protocol ip prio 1 handle 0x20/0xf0 fw action pass
                tc filter add dev up0 egress protocol ip prio 1 handle 0x300 fw action pass
                tc filter add dev up0 egress protocol ip prio 2 matchall action pass",
            declared: "traffic-control tc filter fw dev up0 ingress: packet reads 0xf0 is 0x10
                traffic-control tc filter fw dev up0 ingress: packet reads 0xf0 is 0x20
                traffic-control tc filter fw dev up0 egress: packet reads 0xffffffff is 0x300",
        },
        Objects {
            what: "tc filters whose mark is a class (fw)",
            made: "tc qdisc add dev up0 root handle 1: htb
                tc qdisc add dev down0 root handle 2: htb
                tc filter add dev up0 parent 1: protocol ip prio 1 fw
                tc filter add dev down0 parent 2: protocol ip prio 1 handle 0x4/0xc fw classid 2:1
                tc filter add dev down0 parent 2: protocol ip prio 2 u32 match u32 0 0 classid 2:1",
            declared: "traffic-control tc filter fw dev up0 parent 1:0: packet reads 0xffffffff
                traffic-control tc filter fw dev down0 parent 2:0: packet reads 0xc is 0x4",
        },
        Objects {
            what: "tc filters of u32 with a mark",
            made: "tc filter add dev up0 ingress protocol ip prio 1 u32 match mark 0x100 0x300 \
                match ip dst 192.0.2.1/32 action pass
                tc filter add dev up0 ingress protocol ip prio 2 u32 match ip dst 192.0.2.2/32 action pass",
            declared: "traffic-control tc filter u32 dev up0 ingress: packet reads 0x300 is 0x100",
        },
        Objects {
            what: "tc filters of flower with a connection's mark",
            made:
                "tc filter add dev up0 ingress protocol ip prio 1 flower ct_state +trk ct_mark 0x400/0xc00 \
                action pass
                tc filter add dev up0 egress protocol ip prio 1 flower ct_state +trk ct_mark 0x5 action pass
                tc filter add dev up0 ingress protocol ip prio 2 flower ct_state +trk dst_ip 192.0.2.1 \
                action pass",
            declared: "traffic-control tc filter flower dev up0 ingress: connection reads 0xc00 is 0x400
                traffic-control tc filter flower dev up0 egress: connection reads 0xffffffff is 0x5",
        },
        Objects {
            what: "tc filters of basic with a mark",
            made: "tc filter add dev up0 ingress protocol ip prio 1 basic match \
                'meta(nf_mark mask 0xf000 eq 0x1000)' action pass
                tc filter add dev up0 ingress protocol ip prio 2 basic match \
                'meta(priority eq 4) and meta(nf_mark shift 4 mask 0xf gt 2)' action pass
                tc filter add dev up0 egress protocol ip prio 1 basic match 'meta(nf_mark eq 7)' action pass
                tc filter add dev up0 egress protocol ip prio 2 basic match 'meta(priority mask 0xf eq 1)' \
                action pass",
            declared: "traffic-control tc filter basic dev up0 ingress: packet reads 0xf000
                traffic-control tc filter basic dev up0 ingress: packet reads 0xf0
                traffic-control tc filter basic dev up0 egress: packet reads 0xffffffff",
        },
        Objects {
            what: "tc filters of flow with a mark",
            made: "tc qdisc add dev up0 root handle 1: htb
                tc filter add dev up0 parent 1: protocol ip prio 1 handle 1 flow map key mark baseclass 1:1
                tc filter add dev up0 parent 1: protocol ip prio 2 handle 2 flow hash keys src,dst divisor 8",
            declared: "traffic-control tc filter flow dev up0 parent 1:0: packet reads 0xffffffff",
        },
    ];
    hold("marks-filters", FILTERS);
}

#[test]
fn actions_that_change_marks() {
    const ACTIONS: &[Objects] = &[
        Objects {
            what: "tc's action skbedit",
            made: "tc filter add dev up0 ingress prio 1 protocol ip matchall action skbedit mark 0x5/0xf
                tc filter add dev up0 egress prio 1 protocol ip matchall action skbedit mark 0x50
                tc filter add dev up0 egress prio 2 protocol ip matchall action skbedit priority 1:7",
            declared: "traffic-control tc filter matchall dev up0 ingress: packet writes 0xf becomes 0x5
                traffic-control tc filter matchall dev up0 egress: packet writes 0xffffffff becomes 0x50",
        },
        Objects {
            what: "tc's action connmark",
            made: "tc filter add dev up0 ingress prio 1 protocol ip matchall action connmark
                tc filter add dev up0 ingress prio 2 protocol ip matchall action pass",
            declared: "traffic-control tc filter matchall dev up0 ingress: packet writes 0xffffffff
                traffic-control tc filter matchall dev up0 ingress: connection reads 0xffffffff",
        },
        Objects {
            what: "tc's action ct",
            made: "tc filter add dev up0 ingress prio 1 protocol ip matchall action ct commit mark 0x8/0xc
                tc filter add dev up0 ingress prio 2 protocol ip matchall action ct commit zone 3
                tc filter add dev up0 egress prio 1 protocol ip matchall action ct commit mark 0x30",
            declared: "traffic-control tc filter matchall dev up0 ingress: connection writes 0xc becomes 0x8
                traffic-control tc filter matchall dev up0 egress: \
                connection writes 0xffffffff becomes 0x30",
        },
        Objects {
            what: "tc's action ctinfo",
            made: "tc filter add dev up0 ingress prio 1 protocol ip matchall action ctinfo cpmark 0xff00
                tc filter add dev up0 egress prio 1 protocol ip matchall action ctinfo \
                dscp 0xfc000000 0x01000000",
            declared: "traffic-control tc filter matchall dev up0 ingress: packet writes 0xffffffff
                traffic-control tc filter matchall dev up0 ingress: connection reads 0xff00
                traffic-control tc filter matchall dev up0 egress: connection reads 0xfd000000",
        },
        Objects {
            what: "tc's action ife",
            made: "tc filter add dev up0 egress prio 1 protocol ip matchall \
                action ife encode type 0xed3e allow mark pipe
                tc filter add dev up0 ingress prio 1 protocol 0xed3e matchall \
                action ife decode allow mark pipe
                tc filter add dev up0 egress prio 2 protocol ip matchall \
                action ife encode type 0xed3e use mark 17 pipe",
            declared: "traffic-control tc filter matchall dev up0 egress: packet reads 0xffffffff
                traffic-control tc filter matchall dev up0 ingress: packet writes 0xffffffff",
        },
        Objects {
            what: "two of tc's actions in a row",
            made: "tc filter add dev up0 ingress protocol ip prio 1 handle 0x1/0x1 fw \
                action skbedit mark 0x20/0x30 pipe action ct commit mark 0x40/0xc0",
            declared: "traffic-control tc filter fw dev up0 ingress: \
                packet reads 0x1 is 0x1 writes 0x30 becomes 0x20
                traffic-control tc filter fw dev up0 ingress: connection writes 0xc0 becomes 0x40",
        },
    ];
    hold("marks-actions", ACTIONS);
}

#[test]
fn places_for_filters_and_queues_with_marks() {
    const PLACES: &[Objects] = &[
        Objects {
            what: "tc filters on a queue and on a class of it",
            made: "tc qdisc add dev up0 root handle 1: htb default 1
                tc class add dev up0 parent 1: classid 1:1 htb rate 1mbit
                tc class add dev up0 parent 1:1 classid 1:2 htb rate 1mbit
                tc filter add dev up0 parent 1: protocol ip prio 1 handle 0x1/0xf fw classid 1:1
                tc filter add dev up0 parent 1:1 protocol ip prio 1 handle 0x2/0xf fw classid 1:2
                tc filter add dev up0 parent 1:1 protocol ip prio 2 u32 match ip dst 192.0.2.1 classid 1:2",
            declared: "traffic-control tc filter fw dev up0 parent 1:0: packet reads 0xf is 0x1
                traffic-control tc filter fw dev up0 parent 1:1: packet reads 0xf is 0x2",
        },
        Objects {
            what: "tc filters on a block that two devices share",
            made: "tc qdisc add dev down0 ingress_block 7 clsact
                tc qdisc del dev up0 clsact
                tc qdisc add dev up0 ingress_block 7 egress_block 8 clsact
                tc filter add block 7 protocol ip prio 1 handle 0x3/0xf fw action pass
                tc filter add block 8 protocol ip prio 1 matchall action skbedit mark 0x40/0x40
                tc filter add dev down0 egress protocol ip prio 1 handle 0x4/0xf fw action pass
                tc filter add block 7 protocol ip prio 2 matchall action pass",
            declared: "traffic-control tc filter fw block 7: packet reads 0xf is 0x3
                traffic-control tc filter matchall block 8: packet writes 0x40 becomes 0x40
                traffic-control tc filter fw dev down0 egress: packet reads 0xf is 0x4",
        },
        Objects {
            what: "tc filters on a queue for what comes in",
            made: "tc qdisc add dev down0 ingress
                tc filter add dev down0 parent ffff: protocol ip prio 1 handle 0x5/0xf fw action pass
                tc filter add dev down0 parent ffff: protocol ip prio 2 matchall action pass",
            declared: "traffic-control tc filter fw dev down0 parent ffff:0: packet reads 0xf is 0x5",
        },
        Objects {
            what: "queues that choose by a mark (cake)",
            made: "tc qdisc add dev up0 root cake fwmark 0xf0
                tc qdisc add dev down0 root cake",
            declared: "traffic-control tc qdisc cake dev up0 root: packet reads 0xf0",
        },
    ];
    hold("marks-places", PLACES);
}

#[test]
fn devices_that_mark_what_they_send() {
    const TUNNELS: &[Objects] = &[
        Objects {
            what: "WireGuard devices",
            made: "ip link add wg0 type wireguard
                ip link add wg1 type wireguard
                ip link add wg2 type wireguard
                wg set wg0 fwmark 0x51800 listen-port 1000
                wg set wg1 listen-port 1001
                wg set wg2 fwmark 0x51800
                wg set wg2 fwmark off",
            declared: "wireguard wg wg0: packet writes 0xffffffff becomes 0x51800",
        },
        Objects {
            what: "GRE tunnels",
            made: "ip link add a0 type gre local 192.0.2.1 remote 192.0.2.2 fwmark 0x71
                ip link add a1 type gretap local 192.0.2.1 remote 192.0.2.3 fwmark 0x72
                ip link add a2 type gre local 192.0.2.1 remote 192.0.2.4 key 0x73",
            declared: "device dev a0 (gre): packet writes 0xffffffff becomes 0x71
                device dev a1 (gretap): packet writes 0xffffffff becomes 0x72",
        },
        Objects {
            what: "GRE tunnels through IPv6",
            made: "ip link add a0 type ip6gre local 2001:db8::1 remote 2001:db8::2 fwmark 0x74
                ip link add a1 type ip6gretap local 2001:db8::1 remote 2001:db8::3 fwmark 0x75
                ip link add a2 type ip6gre local 2001:db8::1 remote 2001:db8::4",
            declared: "device dev a0 (ip6gre): packet writes 0xffffffff becomes 0x74
                device dev a1 (ip6gretap): packet writes 0xffffffff becomes 0x75",
        },
        Objects {
            what: "tunnels of IP in IP",
            made: "ip link add a0 type ipip local 192.0.2.1 remote 192.0.2.2 fwmark 0x76
                ip link add a1 type sit local 192.0.2.1 remote 192.0.2.2 fwmark 0x77
                ip link add a2 type ip6tnl local 2001:db8::1 remote 2001:db8::2 fwmark 0x78
                ip link add a3 type ipip local 192.0.2.1 remote 192.0.2.3",
            declared: "device dev a0 (ipip): packet writes 0xffffffff becomes 0x76
                device dev a1 (sit): packet writes 0xffffffff becomes 0x77
                device dev a2 (ip6tnl): packet writes 0xffffffff becomes 0x78",
        },
        Objects {
            what: "tunnels for IPsec (vti)",
            made: "ip link add a0 type vti local 192.0.2.1 remote 192.0.2.2 fwmark 0x79
                ip link add a1 type vti6 local 2001:db8::1 remote 2001:db8::2 fwmark 0x7a
                ip link add a2 type vti local 192.0.2.1 remote 192.0.2.3",
            declared: "device dev a0 (vti): packet writes 0xffffffff becomes 0x79
                device dev a1 (vti6): packet writes 0xffffffff becomes 0x7a",
        },
    ];
    hold("marks-tunnels", TUNNELS);
}

#[test]
fn ipsec_with_marks() {
    const IPSEC: &[Objects] = &[
        Objects {
            what: "IPsec policies",
            made: "policy='ip xfrm policy add src 10.0.0.0/8 dst'
                tunnel='tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel'
                $policy 10.1.0.0/16 dir out mark 0x20 mask 0xf0 $tunnel
                $policy 10.2.0.0/16 dir in mark 0x20 $tunnel
                $policy 10.3.0.0/16 dir fwd $tunnel",
            declared: "xfrm-policy ip xfrm policy 10.0.0.0/8 10.1.0.0/16 out: ipsec reads 0xf0 is 0x20
                xfrm-policy ip xfrm policy 10.0.0.0/8 10.2.0.0/16 in: ipsec reads 0xffffffff is 0x20",
        },
        Objects {
            what: "IPsec states (ESP)",
            made: "state='ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp'
                mode='mode tunnel aead rfc4106(gcm(aes))'
                key=0x0102030405060708090a0b0c0d0e0f1011121314
                $state spi 0x101 $mode $key 128 \
                mark 0x10 mask 0xf0 output-mark 0x7 mask 0xf
                $state spi 0x102 $mode $key 128 mark 0x300
                $state spi 0x103 $mode $key 128 output-mark 0x9
                $state spi 0x104 $mode $key 128",
            declared: "xfrm-state ip xfrm state 192.0.2.1 192.0.2.2 spi 0x101: ipsec reads 0xf0 is 0x10
                xfrm-state ip xfrm state 192.0.2.1 192.0.2.2 spi 0x101: packet writes 0xf becomes 0x7
                xfrm-state ip xfrm state 192.0.2.1 192.0.2.2 spi 0x102: ipsec reads 0xffffffff is 0x300
                xfrm-state ip xfrm state 192.0.2.1 192.0.2.2 spi 0x103: \
                packet writes 0xffffffff becomes 0x9",
        },
    ];
    hold("marks-ipsec", IPSEC);
}

#[test]
fn open_vswitch_flows_with_marks() {
    const FLOWS: &[Objects] = &[Objects {
        what: "flows of Open vSwitch's datapath",
        made: "ovs-dpctl add-dp dp0
            ovs-dpctl add-dp dp1
            flow='ovs-dpctl add-flow' to='in_port(0),eth(),eth_type(0x0800),ipv4(dst=192.0.2'
            $flow dp0 \"skb_mark(0x10/0xf0),$to.1)\" 0
            $flow dp0 \"ct_state(+trk),ct_mark(0x4/0xc),$to.2)\" 0
            $flow dp0 \"$to.3)\" 'set(skb_mark(0x50)),0'
            $flow dp0 \"$to.4)\" 'set(skb_mark(0x5/0xf)),0'
            $flow dp0 \"$to.5)\" 'ct(commit,mark=0x8/0xc),0'
            $flow dp0 \"$to.6)\" 'sample(sample=50.0%,actions(set(skb_mark(0x1/0x3)))),0'
            $flow dp0 \"$to.7)\" 'clone(set(skb_mark(0x2/0x3)),0)'
            $flow dp0 \"$to.8)\" 'check_pkt_len(size=100,gt(set(skb_mark(0x3/0x3)),0),le(0))'
            $flow dp0 \"$to.9)\" 'ct(commit,zone=3),0'
            $flow dp1 \"skb_mark(0x20/0xf0),$to.1)\" 0",
        declared: "open-vswitch datapath dp0: packet reads 0xf0 is 0x10
            open-vswitch datapath dp0: connection reads 0xc is 0x4
            open-vswitch datapath dp0: packet writes 0xffffffff becomes 0x50
            open-vswitch datapath dp0: packet writes 0xf becomes 0x5
            open-vswitch datapath dp0: connection writes 0xc becomes 0x8
            open-vswitch datapath dp0: packet writes 0x3 becomes 0x1
            open-vswitch datapath dp0: packet writes 0x3 becomes 0x2
            open-vswitch datapath dp0: packet writes 0x3 becomes 0x3
            open-vswitch datapath dp1: packet reads 0xf0 is 0x20",
    }];
    hold("marks-ovs", FLOWS);
}

/// What uses a mark: the namespace, the kernel's part, what it does.
type Placed = (String, String, Seen);

/// Makes each of these objects in a namespace of their own, and holds what is found against what is declared.
#[track_caller]
fn hold(name: &str, all: &[Objects]) {
    let Some(lab) = Lab::new(name) else { return };
    let _shared = alone(false);
    let places: Vec<(&Objects, Ns)> =
        all.iter().zip(1..).map(|(o, i)| (o, lab.ns(&format!("o{i}")))).collect();
    let made: Vec<_> = places.iter().filter(|(objects, ns)| objects.make(ns)).collect();
    let Some((_, first)) = made.first() else { return };
    let (mut expected, mut found) = (Counted::new(), Counted::new());
    made.iter().for_each(|(objects, ns)| objects.declare(ns, &mut expected));
    for (netns, row) in find(&lab, first, &made) {
        assert!(!row.heuristic && row.by.is_empty(), "{row:?}");
        *found.entry((netns, row.subsystem, row.seen)).or_default() += row.count;
    }
    let of = expected.values().sum::<u64>();
    println!("{} of {of} declared uses of {} kinds found", common(&expected, &found), made.len());
    let (missing, undeclared) = (without(&expected, &found), without(&found, &expected));
    assert!(
        missing.is_empty() && undeclared.is_empty(),
        "not found:\n{}\nfound and not declared:\n{}",
        missing.join("\n"),
        undeclared.join("\n")
    );
}

/// What is found in these namespaces, and in which. Programs are the machine's, and other tests have some.
#[track_caller]
fn find(lab: &Lab, first: &Ns, made: &[&(&Objects, Ns)]) -> Vec<(String, Row)> {
    if made.len() == 1 {
        return here(lab, first).into_iter().map(|row| (first.name().to_owned(), row)).collect();
    }
    // All of them at once: an emulated processor takes a second to start a scan.
    let named: Vec<&str> = made.iter().flat_map(|(_, ns)| ["--netns", ns.name()]).collect();
    let mut rows = scan(lab, first, &named);
    rows.retain(|row| row.subsystem != "bpf");
    rows.into_iter().map(|row| (row.netns.clone(), row)).collect()
}

impl Objects {
    /// Makes them; `false`, with a word, where the kernel or a program is not there for it.
    #[track_caller]
    fn make(&self, ns: &Ns) -> bool {
        let Some(why) = self.refused(ns) else { return true };
        let in_vm = std::env::var_os("FIEF_TEST_VM").is_some();
        assert!(!in_vm, "the virtual machine's kernel has {}: {why}", self.what);
        fief_testkit::skip(&format!("this machine cannot have {}; `make test-vm` runs it", self.what));
        false
    }

    /// Says why they cannot be made. One process for many lines, for the same reason as above.
    fn refused(&self, ns: &Ns) -> Option<Output> {
        let script = format!("{DEVICES}{}", self.made);
        let lines: Vec<(&str, &str)> = script.lines().map(|line| program(line.trim())).collect();
        lines.chunk_by(|one, next| one.0 == next.0).find_map(|lines| {
            let text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
            let output = match lines[0].0 {
                "sh" => ns.sh(&format!("set -e\n{text}")),
                batch => ns.command(&[batch, "-batch", "-"]).input(text).run(),
            };
            (!output.success()).then_some(output)
        })
    }

    fn declare(&self, ns: &Ns, expected: &mut Counted<Placed>) {
        for line in self.declared.lines() {
            let (subsystem, seen) = line.trim().split_once(' ').expect("a subsystem and its use");
            let placed = (ns.name().to_owned(), subsystem.to_owned(), Seen::declared(seen, "nobody"));
            *expected.entry(placed).or_default() += 1;
        }
    }
}

/// Which program takes a line, and what of it.
fn program(line: &str) -> (&str, &str) {
    match line.split_once(' ') {
        Some((program @ ("ip" | "tc"), rest)) => (program, rest),
        _ => ("sh", line),
    }
}
