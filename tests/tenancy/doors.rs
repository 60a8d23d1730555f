//! Every door that somebody who may not act as a tenant can try.

use fief_testkit::{Capture, eventually};

use crate::room::{NEVER, SOON, client};
use crate::{GROUP, MEMBER, PYTHON, STRANGER, house, python};

/// The option on all three, by name and number, and what is left afterwards.
const TRY: &str = "s = socket.socket()\n\
    for what in (SOCKET, THREAD, PROCESS): print(error(put, s, what, 't0'), error(s.setsockopt, SOL, what, 1))\n\
    print(mark(s), mark(socket.socket()), get(s, THREAD) == '')\n";
const REFUSED: &str = "EPERM EPERM\nEPERM EPERM\nEPERM EPERM\n0 0 True\n";
const LET_IN: &str = "works works\nworks works\nworks works\n1 1 False\n";

#[test]
fn the_option_asks_who_the_caller_is() {
    let Some(room) = house("doors") else { return };
    let tried = |uid, groups: &[u32]| python(&room, TRY).user_with_groups(uid, uid, groups).run().ok().stdout;
    assert_eq!(tried(STRANGER, &[]), REFUSED);
    assert_eq!(tried(MEMBER, &[]), LET_IN);
    assert_eq!(tried(STRANGER, &[GROUP]), LET_IN);
}

#[test]
fn root_of_a_user_namespace_is_who_he_was() {
    let Some(room) = house("doorsuser") else { return };
    let tried = |uid: u32| {
        let script = format!(
            "import subprocess\n\
             os.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})\n\
             os.execvp('unshare', ['unshare', '--user', '--map-root-user', sys.executable, '-c', '''import os\n{TRY}'''])\n"
        );
        // The script inside begins with the same words as the one outside.
        let prelude = "import socket, errno\nSOL, SOCKET, THREAD, PROCESS, NAME = 0x6669, 1, 2, 3, 0x100\n\
            def put(s, what, name): s.setsockopt(SOL, what | NAME, name.encode())\n\
            def get(s, what): return s.getsockopt(SOL, what | NAME, 64).rstrip(bytes(1)).decode()\n\
            def mark(s): return s.getsockopt(socket.SOL_SOCKET, 36)\n\
            def error(work, *a):\n try: work(*a)\n except OSError as e: return errno.errorcode[e.errno]\n return \"works\"\n\
            print(os.getuid())\n";
        let script = script.replace("import os\n", &format!("import os\n{prelude}"));
        python(&room, &script).run().ok().stdout
    };
    assert_eq!(tried(STRANGER), format!("0\n{REFUSED}"));
    assert_eq!(tried(MEMBER), format!("0\n{LET_IN}"));
}

#[test]
fn a_mark_by_option_is_the_same_question() {
    let Some(room) = house("doorsmark") else { return };
    let script = "s = socket.socket(); SO_MARK = 36\n\
        print(error(s.setsockopt, socket.SOL_SOCKET, SO_MARK, 0x10001), mark(s))\n\
        print(error(s.setsockopt, socket.SOL_SOCKET, SO_MARK, 0x10000), mark(s))\n";
    let by = |uid: u32| {
        // CAP_NET_RAW is all that the kernel asks for a mark.
        let id = uid.to_string();
        let words = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
        let caps = ["--inh-caps", "+net_raw", "--ambient-caps", "+net_raw", "--"];
        let inner = python_words(script);
        let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
        let argv: Vec<&str> = words.into_iter().chain(caps).chain(inner).collect();
        room.host().command(&argv).cgroup(room.lab.cgroup()).run().ok().stdout
    };
    assert_eq!(by(STRANGER), "EPERM 0\nworks 65536\n", "bits beside the field are his to set");
    assert_eq!(by(MEMBER), "works 65537\nEPERM 65537\n", "a member may enter, and not choose the host");
}

fn python_words(script: &str) -> [String; 3] {
    let prelude = "import socket, errno\n\
        def mark(s): return s.getsockopt(socket.SOL_SOCKET, 36)\n\
        def error(work, *a):\n try: work(*a)\n except OSError as e: return errno.errorcode[e.errno]\n return 'works'\n";
    [PYTHON.into(), "-c".into(), format!("{prelude}{script}")]
}

#[test]
fn a_mark_by_control_message_does_not_change_sides() {
    let Some(room) = house("doorscmsg") else { return };
    let wires = [0, 1].map(|i| Capture::on(room.street.client(i), "eth0"));
    let marks = [room.mark(0), room.mark(1)];
    for v6 in [false, true] {
        let (family, to) = if v6 { ("AF_INET6", client(true)) } else { ("AF_INET", client(false)) };
        let before = room.count(0, "refused");
        let script = format!(
            "import struct\n\
             def send(own, mark, text):\n\
             \x20s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n\
             \x20if own: put(s, SOCKET, own)\n\
             \x20s.sendmsg([text.encode()], [(socket.SOL_SOCKET, 36, struct.pack('I', mark))], 0, ('{}', {}))\n\
             print(error(send, 't0', {other}, 'from t0 as t1 {v6}'), error(send, 't0', 0, 'from t0 as host {v6}'))\n\
             send('t0', {own}, 'from t0 as t0 {v6}'); send('', {other}, 'for everybody as t1 {v6}')\n",
            to.ip(),
            to.port(),
            own = marks[0],
            other = marks[1],
        );
        python(&room, &script).run().ok();
        // Who is nobody's may say with each datagram whose it is; the positive control beside it.
        assert!(wires[0].wait_for(format!("from t0 as t0 {v6}").as_bytes(), SOON));
        assert!(wires[1].wait_for(format!("for everybody as t1 {v6}").as_bytes(), SOON));
        eventually(SOON, || match room.count(0, "refused") {
            now if now > before => Ok(()),
            now => Err(format!("{before} became {now}")),
        });
    }
    crate::room::wait(NEVER);
    for text in ["from t0 as t1", "from t0 as host"] {
        assert!(wires.iter().all(|wire| !wire.contains(text.as_bytes())), "{text}");
    }
}

/// Effective ids count, real and saved ones do not.
#[test]
fn who_one_was_does_not_count() {
    let Some(room) = house("doorsreal") else { return };
    let tried = |real: u32, effective: u32| {
        let script = format!(
            "os.setgroups([]); os.setresgid({real}, {effective}, {real}); os.setresuid({real}, {effective}, {real})\n\
             print(error(put, socket.socket(), SOCKET, 't0'))\n"
        );
        python(&room, &script).run().ok().stdout
    };
    assert_eq!(tried(MEMBER, STRANGER), "EPERM\n");
    assert_eq!(tried(STRANGER, MEMBER), "works\n");
}

/// Whoever may not act as a tenant does not do so through a process that may.
#[test]
fn a_process_of_a_member_is_not_led_by_a_stranger() {
    let Some(room) = house("doorsptrace") else { return };
    let mut member = python(
        &room,
        "put(socket.socket(), PROCESS, 't0'); print('in', flush=True)\nimport time; time.sleep(30)",
    )
    .user(MEMBER, MEMBER)
    .spawn();
    member.wait_for_output("in", SOON);
    let attach = format!(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\npid = {}\n\
         r = libc.ptrace(16, pid, 0, 0); print(r, errno.errorcode.get(ctypes.get_errno()))\n\
         if r == 0: os.waitpid(pid, 0); libc.ptrace(17, pid, 0, 0)\n\
         print(error(os.open, f'/proc/{{pid}}/mem', os.O_RDWR))\n",
        member.pid()
    );
    let tried = |uid: u32| python(&room, &attach).user(uid, uid).run().ok().stdout;
    assert_eq!(tried(STRANGER), "-1 EPERM\nEACCES\n");
    // The control: his own processes a member may lead, where the machine lets anybody (Yama).
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if matches!(yama.trim(), "" | "0") {
        assert_eq!(tried(MEMBER), "0 None\nworks\n");
    }
    // Nor is there an option for another's thread: each of the three is the caller's own.
    let script = "put(socket.socket(), PROCESS, 't0')";
    python(&room, script).user(STRANGER, STRANGER).run().fails();
    assert_eq!(
        python(&room, "print(get(socket.socket(), PROCESS) == '')")
            .user(STRANGER, STRANGER)
            .run()
            .ok()
            .stdout,
        "True\n"
    );
}

/// A socket that is handed over stays whose it is; who gets it becomes nobody by it.
#[test]
fn a_passed_descriptor_stays_whose_it_is() {
    let Some(room) = house("doorspassed") else { return };
    let script = format!(
        "a, b = socket.socketpair()\n\
         if os.fork() == 0:\n\
         \x20os.setgroups([]); os.setresgid({STRANGER}, {STRANGER}, {STRANGER}); os.setresuid({STRANGER}, {STRANGER}, {STRANGER})\n\
         \x20fd = socket.recv_fds(b, 1, 1)[1][0]; s = socket.socket(fileno=fd)\n\
         \x20print(get(s, SOCKET), error(put, s, SOCKET, 't1'), error(put, s, SOCKET, ''), get(s, SOCKET), flush=True)\n\
         \x20print(error(put, s, THREAD, 't0'), mark(socket.socket()), flush=True)\n\
         \x20os._exit(0)\n\
         os.setgroups([]); os.setresgid({MEMBER}, {MEMBER}, {MEMBER}); os.setresuid({MEMBER}, {MEMBER}, {MEMBER})\n\
         s = socket.socket(); put(s, SOCKET, 't0'); socket.send_fds(a, [b'x'], [s.fileno()])\n\
         os.wait()\n"
    );
    assert_eq!(python(&room, &script).run().ok().stdout, "t0 EPERM EPERM t0\nEPERM 0\n");
}

/// Control groups are moved between by whoever manages them.
#[test]
fn a_stranger_does_not_move_into_a_tenants_control_group() {
    let Some(room) = crate::room::Room::with("doorscgroup", 1, "", |_, street| {
        street.yaml_with(0, "  select: { cgroups: [/blue] }\n")
    }) else {
        return;
    };
    let blue = room.lab.cgroup().join("blue");
    std::fs::create_dir_all(&blue).expect("the lab's cgroup is ours");
    let script = format!(
        "def move():\n\x20with open('{}/cgroup.procs', 'w') as f: f.write(str(os.getpid()))\n\
         print(error(move), mark(socket.socket()))\n",
        blue.display()
    );
    assert_eq!(python(&room, &script).user(STRANGER, STRANGER).run().ok().stdout, "EACCES 0\n");
    assert_eq!(python(&room, &script).run().ok().stdout, "works 1\n", "the control: root may");
}
