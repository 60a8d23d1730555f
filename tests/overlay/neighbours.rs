//! Users of two groups, on one host and on two, each root in a user namespace of his own: what one does to his sockets is not
//! heard by the other, is counted, and is told once for each kind.

use std::time::Duration;

use fief_testkit::Child;

use crate::guest::{ALL, Guest};
use crate::lan::{Family, GROUP, Lan, OTHER};
use crate::room::{NEVER, SOON, wait};

/// Prints what comes: whether it was one's own group's, and what stood in it.
const LISTENS: &str = r"
print('ready', flush=True)
while True:
    for s in select.select([u, g], [], [])[0]:
        data = s.recv(65536)
        print('heard', data[:8] == header, 'MARK' if b'MARK' in data else 'KRAM' if b'KRAM' in data else '', flush=True)
";

#[test]
fn guarded_socket_two_users_attack_each_other_on_one_host_and_on_two() {
    let Some(lan) = Lan::open("neighbours", 2, ", rate: 1000000") else { return };
    for family in Family::BOTH {
        let listener = |host: usize, group: u32| {
            let mut child = lan.user(host, group, family, LISTENS).spawn();
            child.wait_for_output("ready\n", SOON);
            let said = child.output();
            let port =
                said.lines().find_map(|line| line.strip_prefix("port ")).expect("it says it").to_owned();
            (child, port)
        };
        let listeners =
            [(0, GROUP), (1, GROUP), (0, OTHER), (1, OTHER)].map(|(host, group)| listener(host, group));
        let ports =
            |of: &[(Child, String)]| of.iter().map(|(_, port)| port.clone()).collect::<Vec<_>>().join(", ");
        // Both at once, on both hosts, with the others' ports in their hands.
        let attacks: Vec<Child> =
            [(GROUP, "MARK", ports(&listeners[2..])), (OTHER, "KRAM", ports(&listeners[..2]))]
                .iter()
                .flat_map(|(group, mark, theirs)| {
                    [0, 1].map(|host| {
                        let code = format!(
                            "SEED, COUNT, MARK, THEIRS = {}, 3000, '{mark}', [{theirs}]\n{}",
                            group + host as u32,
                            include_str!("random.py")
                        );
                        lan.user(host, *group, family, &code).spawn()
                    })
                })
                .collect();
        for mut attack in attacks {
            attack.wait_for_output("all 3000", Duration::from_secs(120));
        }
        wait(NEVER);
        for ((child, _), (own, foreign)) in
            listeners.iter().zip([("MARK", "KRAM"), ("MARK", "KRAM"), ("KRAM", "MARK"), ("KRAM", "MARK")])
        {
            let said = child.output();
            assert!(said.contains(&format!("heard True {own}\n")), "nothing of one's own group\n{said}");
            assert!(!said.contains("heard False") && !said.contains(foreign), "{said}");
        }
    }
    for daemon in &lan.daemons {
        let counted = daemon.cli(&["-o", "json", "get", "overlay-counters"]).ok().json();
        let refused = counted["refused"].as_object().expect("kinds");
        let log = daemon.log();
        for (kind, count) in refused {
            let told = log.matches(&format!("reason=\"{kind}\"")).count();
            assert_eq!(told, usize::from(count.as_u64() > Some(0)), "{kind} {count}:\n{log}");
        }
        let several = refused.values().filter(|count| count.as_u64() > Some(10)).count();
        assert!(several >= 5, "{counted}");
    }
}

/// The same with interfaces: what one's neighbour sends, with whatever addresses, is not heard.
#[test]
fn join_two_users_attack_each_other_on_one_host_and_on_two() {
    let Some(lan) = Lan::open("neighbours-fast", 2, ", rate: 1000000") else { return };
    let all = [(0, GROUP), (1, GROUP), (0, OTHER), (1, OTHER)];
    let guests: Vec<Guest> = (41_000..)
        .zip(all)
        .map(|(user, (host, group))| {
            Guest::joined(&lan, host, (user, group), &format!("10.9.0.{}/24", host + 1))
        })
        .collect();
    guests[0].reaches("10.9.0.2", 56);
    guests[2].reaches("10.9.0.2", 56);
    let ears: Vec<Child> = guests.iter().map(Guest::listens).collect();
    let macs: Vec<String> = guests
        .iter()
        .map(|guest| {
            let said = guest.run(&["ip", "-o", "link", "show", "eth0"]).ok().stdout;
            let mac = said.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
            mac.expect("it has one").replace(':', "")
        })
        .collect();
    // To every address of the other group's, from every address: frames, and datagrams of the overlay inside of it.
    let code = r"
import random, socket, sys
macs, own, rnd = [bytes.fromhex(mac) for mac in sys.argv[2].split()], sys.argv[1].encode(), random.Random(7)
s = socket.socket(17, 3); s.bind(('eth0', 0))
for turn in range(5000):
    to, source = (rnd.choice(macs + [b'\xff' * 6, rnd.randbytes(6)]) for _ in range(2))
    tag = rnd.choice([b'', b'', b'\x81\x00\x00\x07', b'\x88\xa8\x0f\xff'])
    try: s.send(to + source + tag + b'\x88\xb5' + own + bytes(rnd.choice([0, 1, 40, 1000, 1400])))
    except OSError: pass
";
    for (guest, text) in guests.iter().zip(["one", "one", "two", "two"]) {
        guest.run(&["/usr/bin/python3", "-c", code, text, &macs.join(" ")]).ok();
    }
    wait(NEVER);
    for (ear, (own, foreign)) in
        ears.iter().zip([("one", "two"), ("one", "two"), ("two", "one"), ("two", "one")])
    {
        let said = ear.output();
        assert!(said.contains(own), "nothing of one's own group");
        assert!(!said.contains(foreign), "something of the other group's");
    }
    // And everybody is still where he was.
    for guest in [&guests[0], &guests[2]] {
        guest.says(ALL, "again");
        guest.reaches("10.9.0.2", 56);
    }
}
