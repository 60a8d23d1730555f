//! The socket option itself, from an unmodified Python.

use crate::room::{PORT, Room, SOON};
use crate::{house, python};

fn says(room: &Room, script: &str, lines: &[&str]) {
    let said = python(room, script).run().ok().stdout;
    assert_eq!(said.lines().collect::<Vec<_>>(), lines, "{script}");
}

#[test]
fn a_sockets_tenant_is_chosen_before_bind_and_connect() {
    let Some(room) = house("option") else { return };
    let own = room.local(0, false).ip();
    let script = format!(
        "s = socket.socket(); print(get(s, SOCKET) == '', s.getsockopt(SOL, SOCKET))\n\
         put(s, SOCKET, 't0'); print(get(s, SOCKET), mark(s))\n\
         put(s, SOCKET, 't1'); print(get(s, SOCKET), mark(s))\n\
         s.setsockopt(SOL, SOCKET, 1); print(get(s, SOCKET))\n\
         s.bind(('{own}', 0)); print(error(put, s, SOCKET, 't1'), error(put, s, SOCKET, 't0'))\n\
         u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); put(u, SOCKET, 't1'); u.bind(('::', 0))\n\
         print(error(put, u, SOCKET, 't0'), get(u, SOCKET))\n\
         print(error(put, s, SOCKET, 'nosuch'), error(u.setsockopt, SOL, SOCKET, 999), error(put, s, 9, 't0'))\n"
    );
    let lines = ["True 0", "t0 1", "t1 2", "t0", "EISCONN works", "EISCONN t1", "ENOENT ENOENT ENOPROTOOPT"];
    says(&room, &script, &lines);
}

#[test]
fn an_accepted_socket_says_whose_it_is() {
    let Some(room) = house("optaccept") else { return };
    let script = format!(
        "s = socket.create_server(('::', {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)\n\
         print('ready', flush=True)\n\
         for _ in range(4):\n\
         \x20c, _ = s.accept(); print(get(c, SOCKET), c.getsockopt(SOL, SOCKET), flush=True); c.close()\n"
    );
    let mut server = python(&room, &script).spawn();
    server.wait_for_output("ready", SOON);
    for v6 in [false, true] {
        for i in [0, 1] {
            let to = room.local(i, v6);
            room.street
                .client(i)
                .enter(|| std::net::TcpStream::connect_timeout(&to, SOON))
                .expect("answered");
            server.wait_for_output(&format!("t{i} {}\n", i + 1), SOON);
        }
    }
    assert!(server.wait(SOON).success());
}

#[test]
fn a_socket_bound_to_a_tenants_address_is_that_tenants_whoever_made_it() {
    let Some(room) = house("bound") else { return };
    for (i, v6) in [(0, false), (1, true)] {
        let family = if v6 { "AF_INET6" } else { "AF_INET" };
        let (own, other) = (room.local(i, v6).ip(), room.local(1 - i, v6).ip());
        let script = format!(
            "s = socket.socket(socket.{family}); s.bind(('{own}', 0)); print(get(s, SOCKET))\n\
             s = socket.socket(socket.{family}); put(s, SOCKET, 't{i}'); print(error(s.bind, ('{other}', 0)))\n\
             print(error(s.bind, ('{own}', 0)))\n"
        );
        let said = python(&room, &script).user(crate::STRANGER, crate::STRANGER);
        // A stranger may bind, as anybody may bind any address of a host, but not choose.
        assert!(said.run().fails().stdout.starts_with(&format!("t{i}\n")));
        says(&room, &script, &[&format!("t{i}"), "EADDRNOTAVAIL", "works"]);
    }
}

#[test]
fn threads_processes_and_children_begin_where_their_maker_is() {
    let Some(room) = house("inherit") else { return };
    let script = "import subprocess, json\n\
        def here(): return get(socket.socket(), SOCKET)\n\
        def in_thread():\n\
        \x20out = []; t = threading.Thread(target=lambda: out.append(here())); t.start(); t.join(); return out[0]\n\
        any = socket.socket()\n\
        put(any, PROCESS, 't0'); print(here(), in_thread(), get(any, THREAD), get(any, PROCESS))\n\
        put(any, THREAD, 't1'); print(here(), in_thread(), get(any, THREAD), get(any, PROCESS))\n\
        probe = [sys.executable, '-c', 'import socket; print(socket.socket().getsockopt(0x6669, 0x101, 64).rstrip(bytes(1)).decode())']\n\
        print(subprocess.run(probe, capture_output=True, text=True).stdout.strip())\n\
        r, w = os.pipe()\n\
        if os.fork() == 0:\n\
        \x20os.write(w, here().encode()); put(any, THREAD, ''); os.write(w, here().encode()); os._exit(0)\n\
        os.wait(); print(os.read(r, 64).decode())\n\
        put(any, THREAD, ''); print(here(), get(any, THREAD))\n\
        print(error(any.setsockopt, SOL, PROCESS | NAME, bytes(1)), here() == '')\n";
    // The main thread's own choice is not its workers'; a child of it is where it was; leaving goes back to the
    // process's tenant, never below it. Only an administrator takes a process out.
    let lines = ["t0 t0 t0 t0", "t1 t1 t1 t0", "t1", "t1t1", "t0 t0", "works True"];
    says(&room, script, &lines);
}

#[test]
fn the_header_and_the_examples_are_true() {
    let Some(room) = house("examples") else { return };
    let home = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = |path: std::path::PathBuf| path.to_str().expect("a plain path").to_owned();
    let (include, source) = (text(home.join("include")), text(home.join("examples/tenant.c")));
    let program = text(room.lab.dir().join("tenant"));
    room.host().run(&["gcc", "-Wall", "-Werror", "-I", &include, &source, "-o", &program]).ok();
    let run = |name: &str| room.host().command(&[&program, name]).cgroup(room.lab.cgroup()).run();
    assert_eq!(run("t1").ok().stdout, "t1\n");
    assert!(run("nosuch").fails().stderr.contains("No such file"));
    let server = text(home.join("examples/tenant.py"));
    let port = PORT.to_string();
    let _server = room.host().command(&[crate::PYTHON, &server, &port]).cgroup(room.lab.cgroup()).spawn();
    for i in [0, 1] {
        let to = room.local(i, true);
        let said = || {
            room.street.client(i).enter(|| {
                let mut text = String::new();
                let mut stream = std::net::TcpStream::connect_timeout(&to, SOON)?;
                std::io::Read::read_to_string(&mut stream, &mut text).map(|_| text)
            })
        };
        fief_testkit::eventually(SOON, || match said() {
            Ok(text) if text == format!("you are t{i}\n") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}
