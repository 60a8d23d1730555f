//! `fief exec`, `ps`, `identify`, `pids`.

use std::time::Duration;

use fief_testkit::{Command, eventually};

use crate::room::{PORT, Room, SOON, echo};
use crate::{GROUP, MEMBER, STRANGER, house, python};

/// `fief ARGS` on the host, seen by fief.
fn fief(room: &Room, args: &[&str]) -> Command {
    room.daemon.cli_command(args).cgroup(room.lab.cgroup())
}

#[test]
fn a_command_reaches_its_tenants_servers_and_no_others() {
    let Some(room) = house("exec") else { return };
    // Both tenants have a server at the same address.
    let servers = [0, 1].map(|i| room.street.client(i).enter(|| echo(&format!("[::]:{PORT}"))));
    let peer = fief_testkit::peer();
    let peer = peer.to_str().expect("a plain path");
    for v6 in [false, true] {
        let to = crate::room::client(v6).to_string();
        for i in [0, 1] {
            let (name, text) = (room.street.name(i), format!("for {i} v6 {v6}"));
            let heard = || servers.each_ref().map(|server| server.heard().len());
            let mut expected = heard();
            expected[i] += 2;
            for protocol in ["tcp", "udp"] {
                let said = fief(&room, &["exec", &name, "--", peer, protocol, &to, &text]).run().ok();
                assert!(said.stdout.contains(&text), "{said}");
            }
            assert_eq!(heard(), expected, "{name}: its own server heard both, and the other nothing");
        }
    }
}

#[test]
fn a_command_is_the_callers_in_everything_else() {
    let Some(room) = house("execself") else { return };
    let script = "echo $# \"$1\" $HOLD; id -u; id -G; cat; exit 7";
    let ran = fief(&room, &["exec", "t0", "--", "sh", "-c", script, "sh", "a b", ""])
        .user_with_groups(MEMBER, MEMBER, &[MEMBER, 4790])
        .env("HOLD", "on")
        .input("standard input")
        .run();
    assert_eq!(ran.code(), 7, "{ran}");
    assert_eq!(ran.stdout, format!("2 a b on\n{MEMBER}\n{MEMBER} 4790\nstandard input"));
    // What it may do is what the caller may: no capability came along.
    let caps = fief(&room, &["exec", "t0", "--", "grep", "CapEff", "/proc/self/status"]).user(MEMBER, MEMBER);
    assert!(caps.run().ok().stdout.contains("0000000000000000"));
    // A service of every tenant, started from a tenant's shell by an administrator.
    let binary = fief_testkit::bin("fief");
    let binary = binary.to_str().expect("a plain path");
    let mark = "import socket; print(socket.socket().getsockopt(1, 36))";
    let inner = ["exec", "t0", "--", binary, "exec", "--all", "--", crate::PYTHON, "-c", mark];
    assert_eq!(fief(&room, &inner).run().ok().stdout, "0\n");
    assert_eq!(fief(&room, &inner).user(MEMBER, MEMBER).run().code(), 125, "a member stays where he is");
    assert_eq!(fief(&room, &["exec", "t0", "--", crate::PYTHON, "-c", mark]).run().ok().stdout, "1\n");
    let gone = fief(&room, &["exec", "t0", "--", "/no/such/program"]).run();
    assert_eq!(gone.code(), 127, "{gone}");
    let nobody = fief(&room, &["exec", "nosuch", "--", "true"]).run();
    assert!(nobody.code() == 125 && nobody.stderr.contains("no tenant nosuch"), "{nobody}");
    // Outside of what fief serves the kernel does not know the option, and the message says so.
    let argv = [binary, "exec", "t0", "--", "true"];
    let unseen = room.host().command(&argv).run();
    assert!(unseen.code() == 125 && unseen.stderr.contains("no fief serves"), "{unseen}");
}

#[test]
fn members_may_and_others_may_not() {
    let Some(mut room) = house("execwho") else { return };
    let before = room.count(0, "refused");
    let who = |uid, gid, groups: &[u32], tenant: &str| {
        let ran = fief(&room, &["exec", tenant, "--", "true"]).user_with_groups(uid, gid, groups).run();
        (ran.code(), ran.stderr)
    };
    assert_eq!(who(MEMBER, STRANGER, &[], "t0").0, 0, "a user");
    assert_eq!(who(STRANGER, GROUP, &[], "t0").0, 0, "a group");
    assert_eq!(who(STRANGER, STRANGER, &[4701, GROUP, 4790], "t0").0, 0, "a supplementary group");
    assert_eq!(who(0, 0, &[], "t1").0, 0, "an administrator");
    for (uid, gid, groups, tenant) in [
        (STRANGER, STRANGER, &[][..], "t0"),
        (MEMBER, STRANGER, &[], "t1"),
        // The number of a group is not that of a user.
        (GROUP, MEMBER, &[MEMBER], "t0"),
    ] {
        let (code, said) = who(uid, gid, groups, tenant);
        assert_eq!(code, 125, "{uid} {gid} {tenant}");
        assert!(said.contains(&format!("you may not act as {tenant}")), "{said}");
    }
    assert_eq!(room.count(0, "refused"), before + 2, "every refusal is counted");
    assert_eq!(room.count(1, "refused"), 1);
    // The kernel decides, so a dead daemon changes nothing.
    room.daemon.kill9();
    let who = |uid| fief(&room, &["exec", "t0", "--", "true"]).user(uid, uid).run().code();
    assert_eq!([who(MEMBER), who(STRANGER)], [0, 125]);
}

#[test]
fn processes_are_listed_and_identified() {
    let Some(room) = house("ps") else { return };
    let script = "import time\n\
        other = threading.Event()\n\
        def go(): put(socket.socket(), THREAD, 't1'); other.set(); time.sleep(60)\n\
        threading.Thread(target=go, daemon=True).start()\n\
        other.wait(); put(socket.socket(), PROCESS, 't0'); print('there', flush=True); time.sleep(60)\n";
    let mut child = python(&room, script).spawn();
    child.wait_for_output("there", SOON);
    let pid = child.pid().to_string();
    let all = fief(&room, &["ps", "-o", "json"]).run().ok().json();
    let rows: Vec<(String, bool)> = all.as_array().expect("a list").iter().map(row).collect();
    assert_eq!(rows, [("t0".into(), true), ("t1".into(), false)], "{all}");
    assert_eq!(fief(&room, &["identify", &pid]).run().ok().stdout, "t0\n");
    assert_eq!(fief(&room, &["identify", "1"]).run().ok().stdout, "");
    assert_eq!(fief(&room, &["pids", "t0"]).run().ok().stdout, format!("{pid}  python3\n"));
    // A stranger sees nobody's but his own.
    let ask = |args: &[&str]| fief(&room, args).user(STRANGER, STRANGER).run();
    assert_eq!(ask(&["ps", "-o", "json"]).ok().json().as_array().map(Vec::len), Some(0));
    assert!(ask(&["identify", &pid]).fails().stderr.contains("no process"));
    child.kill();
}

fn row(task: &serde_json::Value) -> (String, bool) {
    (task["tenant"].as_str().unwrap_or_default().to_owned(), task["pid"] == task["tid"])
}

#[test]
fn a_deleted_tenants_processes_are_nobodys() {
    let Some(room) = house("execgone") else { return };
    let script = "put(socket.socket(), PROCESS, 't0')\n\
        print('in', get(socket.socket(), PROCESS), mark(socket.socket()) > 0, flush=True)\n\
        sys.stdin.readline(); import time\n\
        while get(socket.socket(), PROCESS): time.sleep(0.01)\n\
        print('out', mark(socket.socket()), flush=True)\n";
    let mut child = python(&room, script).input("\n").spawn();
    child.wait_for_output("in t0 True", SOON);
    room.daemon.cli(&["delete", "tenant", "t0"]).ok();
    child.wait_for_output("out 0", SOON);
    eventually(Duration::from_secs(1), || match fief(&room, &["ps"]).run().ok().stdout {
        text if text.lines().count() == 1 => Ok(()),
        text => Err(text),
    });
}
