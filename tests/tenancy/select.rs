//! `spec.select` and slices: processes whose new sockets are a tenant's without any command.

use std::fs;
use std::path::PathBuf;

use fief_testkit::Command;

use crate::room::Room;
use crate::{GROUP, MEMBER, STRANGER, python};

/// A control group below the one that fief watches, made by whoever manages services.
#[track_caller]
fn group(room: &Room, path: &str) -> PathBuf {
    let path = room.lab.cgroup().join(path.trim_start_matches('/'));
    fs::create_dir_all(&path).expect("the lab's cgroup is ours");
    path
}

/// The tenant of a socket that a process makes there, and the group that it is in afterwards.
#[track_caller]
fn whose(room: &Room, at: &str) -> String {
    let script = "s = socket.socket()\nprint(get(s, SOCKET) or '-', open('/proc/self/cgroup').read().rsplit(':', 1)[1])";
    let path = group(room, at);
    let output = python(room, script).cgroup(path).run().ok();
    let (tenant, cgroup) = output.stdout.split_once(' ').expect("two words");
    assert!(cgroup.trim().ends_with(at.trim_end_matches('/')), "nobody is moved: {cgroup}");
    tenant.to_owned()
}

fn mine(room: &Room) -> Command {
    python(room, "print(get(socket.socket(), SOCKET) or '-')")
}

#[test]
fn a_control_group_and_all_below_it() {
    let room = Room::with("select-cgroups", 3, "", |_, street| {
        let select = |groups: &str| format!("  select: {{ cgroups: [{groups}] }}\n");
        [
            street.yaml_with(0, &select("/services.slice/ldap.service")),
            street.yaml_with(1, &select("/services.slice, /other")),
            street.yaml_with(2, &select("/services.slice/ldap.service/inner/most")),
        ]
        .join("---\n")
    });
    let Some(room) = room else { return };
    // None of them was there when the documents were applied, and some come again.
    for round in 0..2 {
        for (at, tenant) in [
            ("/services.slice", "t1"),
            ("/services.slice/web.service", "t1"),
            ("/services.slice/ldap.service", "t0"),
            ("/services.slice/ldap.service/inner", "t0"),
            ("/services.slice/ldap.service/inner/most", "t2"),
            ("/services.slice/ldap.service/inner/most/of/all", "t2"),
            ("/other", "t1"),
            ("/otherwise", "-"),
            ("/ldap.service", "-"),
            ("/", "-"),
        ] {
            assert_eq!(whose(&room, at), tenant, "{at}, round {round}");
        }
        let old = room.lab.cgroup().join("services.slice/web.service");
        fs::remove_dir(&old).expect("its process has ended");
    }
    // Lists of processes say the same.
    let sleeper =
        room.host().command(&["sleep", "60"]).cgroup(group(&room, "/services.slice/ldap.service/x")).spawn();
    let identified = room.daemon.cli(&["identify", &sleeper.pid().to_string()]).ok().stdout;
    assert_eq!(identified, "t0\n");
    let listed = room.daemon.cli(&["pids", "t0"]).ok().stdout;
    assert!(listed.contains(&format!("{}  sleep", sleeper.pid())), "{listed}");
    drop(sleeper);
    // What a program or a command says counts more.
    let fief = fief_testkit::bin("fief");
    let command = |argv: &[&str]| room.host().command(argv).cgroup(group(&room, "/other"));
    let script = "import socket; print(socket.socket().getsockopt(1, 36))";
    let exec = command(&[fief.to_str().expect("a plain path"), "exec", "t2", "--", "python3", "-c", script]);
    assert_eq!(exec.run().ok().stdout.trim(), (room.mark(2)).to_string());
    room.daemon.cli(&["delete", "tenant", "t1"]).ok();
    assert_eq!(whose(&room, "/services.slice/web.service"), "-", "a deleted tenant selects nobody");
    assert_eq!(whose(&room, "/services.slice/ldap.service"), "t0");
}

#[test]
fn a_slice_by_its_name() {
    let room = Room::with("select-slices", 2, "", |_, street| {
        street.documents()
            + "---\n"
            + &street
                .yaml(1)
                .replace("name: t1", "name: t1-b")
                .replace("198.18.1.2/15", "198.18.1.9/15")
                .replace("::a:2/64", "::a:9/64")
    });
    let Some(room) = room else { return };
    for (at, tenant) in [
        ("/fief.slice", "-"),
        ("/fief.slice/all.service", "-"),
        ("/fief.slice/fief-t0.slice/ldap.service", "t0"),
        ("/fief.slice/fief-t1.slice/ldap.service", "t1"),
        ("/fief.slice/fief-t1.slice/fief-t1-b.slice/ldap.service", "t1-b"),
        ("/fief-t0.slice/ldap.service", "-"),
        ("/fief.slice/fief-t9.slice/ldap.service", "-"),
        ("/fief.slice/fief-t0.service", "-"),
        ("/fief.slice/fief-t0.slices/x", "-"),
        ("/fief.slice/fief-.slice/x", "-"),
    ] {
        assert_eq!(whose(&room, at), tenant, "{at}");
    }
}

#[test]
fn users_and_groups_behind_control_groups() {
    let room = Room::with("select-users", 3, "", |_, street| {
        let select = |what: &str| format!("  select: {{ {what} }}\n");
        [
            street.yaml_with(0, &select(&format!("users: [\"{MEMBER}\"]"))),
            street.yaml_with(1, &select(&format!("groups: [\"{GROUP}\"]"))),
            street.yaml_with(2, &select("cgroups: [/fixed]")),
        ]
        .join("---\n")
    });
    let Some(room) = room else { return };
    let run = |command: Command| command.run().ok().stdout.trim().to_owned();
    assert_eq!(run(mine(&room)), "-");
    assert_eq!(run(mine(&room).user(MEMBER, STRANGER)), "t0");
    assert_eq!(run(mine(&room).user(MEMBER, GROUP)), "t0", "a user before a group");
    assert_eq!(run(mine(&room).user(STRANGER, GROUP)), "t1");
    assert_eq!(
        run(mine(&room).user_with_groups(STRANGER, STRANGER, &[GROUP])),
        "-",
        "supplementary groups do not count"
    );
    let fixed = group(&room, "/fixed");
    assert_eq!(run(mine(&room).user(MEMBER, GROUP).cgroup(fixed)), "t2", "a control group before both");
    // Who is selected is no member for that: he may not say so of other sockets.
    let script = "s = socket.socket()\nprint(error(put, s, THREAD, 't1'))";
    assert_eq!(run(python(&room, script).user(MEMBER, STRANGER)), "EPERM");
}

#[test]
fn what_two_tenants_select_is_refused_with_the_place() {
    let Some(room) = Room::open("select-refused", 2, "") else { return };
    let select = |i: usize, what: &str| room.street.yaml_with(i, &format!("  select: {{ {what} }}\n"));
    for (first, second, says) in [
        ("cgroups: [/a]", "cgroups: [/b, /a]", "`/a` is selected by tenant `t0`"),
        ("users: [root]", "users: [root]", "`root` is selected by tenant `t0`"),
        ("groups: [\"7\"]", "groups: [\"7\"]", "`7` is selected by tenant `t0`"),
        ("cgroups: [/a]", "cgroups: [a]", "is not the path of a control group"),
        ("cgroups: [/a]", "cgroups: [/a/../b]", "is not the path of a control group"),
        ("cgroups: [/a]", "cgroups: [/fief.slice/fief-t0.slice]", "lies in fief.slice"),
        ("cgroups: [/a]", "users: [no-such-user-here]", "there is no user `no-such-user-here`"),
    ] {
        let refused = room.daemon.apply(&format!("{}---\n{}", select(0, first), select(1, second))).fails();
        assert!(refused.stderr.contains(says), "{second}: {refused}");
    }
}
