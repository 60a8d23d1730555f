//! Servers from Debian's archive, started as anybody would, asked by two tenants at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use fief_testkit::{Child, Dial, Street};
use fief_tests::peers::peer;

use crate::room::{MODES, Room, SOON};

/// The port that every client speaks from.
const FROM: u16 = 40_000;

/// Waits until something listens on the host's own address.
#[track_caller]
fn wait_for(room: &Room, port: u16, server: &Child) {
    fief_testkit::eventually(Duration::from_secs(20), || {
        let own = [(Street::HOST_V4, port).into(), SocketAddr::from((Street::HOST_V6, port))];
        let up = own.into_iter().all(|to| room.host().enter(|| Dial::to(to).connect()).is_ok());
        if up { Ok(()) } else { Err(format!("nothing listens on {port}:\n{}", server.output())) }
    });
}

/// Both tenants' clients, from the same address and port, have a connection each, then say `request` each, then hear
/// `answer` each. Meanwhile `fief sockets` knows whose is which.
#[track_caller]
fn both_at_once(room: &Room, port: u16, request: &str, answer: &str) {
    for v6 in [false, true] {
        let from: SocketAddr =
            if v6 { (Street::CLIENT_V6, FROM).into() } else { (Street::CLIENT_V4, FROM).into() };
        let open = |tenant: usize| {
            let to = SocketAddr::new(room.local(tenant, v6).ip(), port);
            let dial = Dial::to(to).bind(from).timeout(SOON);
            room.street.client(tenant).enter(|| dial.connect()).unwrap_or_else(|e| panic!("{to}: {e}"))
        };
        let mut streams: Vec<TcpStream> = [0, 1].map(open).into();
        whose(room, port, from);
        for stream in &mut streams {
            stream.write_all(request.as_bytes()).expect("the connection is open");
        }
        for (tenant, stream) in streams.iter_mut().enumerate() {
            stream.set_read_timeout(Some(SOON)).expect("a timeout");
            let mut heard = Vec::new();
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&heard).contains(answer) {
                let length =
                    stream.read(&mut buffer).unwrap_or_else(|e| panic!("tenant {tenant} v6 {v6}: {e}"));
                assert_ne!(length, 0, "tenant {tenant}: {:?}", String::from_utf8_lossy(&heard));
                heard.extend(&buffer[..length]);
            }
        }
    }
}

/// What `fief sockets` says about the connections of both tenants with this peer.
#[track_caller]
fn whose(room: &Room, port: u16, from: SocketAddr) {
    fief_testkit::eventually(SOON, || {
        let sockets = room.daemon.cli(&["sockets", "-o", "json"]).ok().json();
        for tenant in [0, 1] {
            let local = room.local(tenant, from.is_ipv6()).ip().to_string();
            let found = sockets.as_array().into_iter().flatten().find(|socket| {
                let named = socket["local"].as_str().unwrap_or("");
                let is_local = named.contains(&local) && named.ends_with(&format!(":{port}"));
                is_local && socket["state"] == "ESTABLISHED"
            });
            match found {
                Some(socket) if socket["tenant"] == room.street.name(tenant) => (),
                other => return Err(format!("{local} of tenant {tenant}: {other:?} in {sockets:#}")),
            }
        }
        Ok(())
    });
}

#[test]
fn python_http_server() {
    for mode in MODES {
        let Some(room) = Room::open("serve-python", 2, mode) else { return };
        std::fs::write(room.lab.dir().join("page"), "the page\n").expect("the lab's directory is writable");
        let argv = ["python3", "-u", "-m", "http.server", "--bind", "::", "8001"];
        let command = room.host().command(&argv).cgroup(room.lab.cgroup()).directory(room.lab.dir());
        let server = command.spawn();
        wait_for(&room, 8001, &server);
        both_at_once(&room, 8001, "GET /page HTTP/1.0\r\n\r\n", "the page");
    }
}

#[test]
fn nginx() {
    let Some(program) = peer("nginx") else { return };
    let Some(room) = Room::open("serve-nginx", 2, "") else { return };
    let dir = room.lab.dir().display().to_string();
    let config = room.lab.dir().join("nginx.conf");
    std::fs::create_dir_all(room.lab.dir().join("www")).expect("the lab's directory is writable");
    std::fs::write(room.lab.dir().join("www/page"), "the page\n").expect("the lab's directory is writable");
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let places: String = places.map(|place| format!("{place}_temp_path {dir}/{place};\n")).concat();
    let text = format!(
        "user root; pid {dir}/nginx.pid; error_log stderr; daemon off; worker_processes 2;\nevents {{}}\n\
         http {{\n{places}access_log off;\nserver {{ listen 0.0.0.0:8002; listen [::]:8002; root {dir}/www; }}\n}}\n"
    );
    std::fs::write(&config, text).expect("the lab's directory is writable");
    let argv =
        [program.as_os_str(), "-p".as_ref(), room.lab.dir().as_os_str(), "-c".as_ref(), config.as_os_str()];
    let server = room.host().spawn_in_cgroup(room.lab.cgroup(), &argv);
    wait_for(&room, 8002, &server);
    both_at_once(&room, 8002, "GET /page HTTP/1.0\r\n\r\n", "the page");
}

#[test]
fn sshd() {
    let Some(program) = peer("sshd") else { return };
    let Some(room) = Room::open("serve-sshd", 2, "") else { return };
    let dir = room.lab.dir().display().to_string();
    let config =
        "Port 8022\nListenAddress 0.0.0.0\nListenAddress ::\nHostKey /mnt/key\nPidFile none\nUsePAM no\n";
    std::fs::write(room.lab.dir().join("sshd_config"), config).expect("the lab's directory is writable");
    // sshd insists on its user and on /run/sshd. Both are put into a mount namespace that ends with it.
    let line = format!(
        "set -e; ssh-keygen -q -t ed25519 -N '' -f {dir}/key\n\
         cat /etc/passwd >{dir}/passwd; grep -q ^sshd: {dir}/passwd || \
         echo 'sshd:x:65532:65534::/run/sshd:/usr/sbin/nologin' >>{dir}/passwd\n\
         mount --bind {dir}/passwd /etc/passwd; mount --bind {dir} /mnt; mount -t tmpfs tmpfs /run; mkdir /run/sshd\n\
         exec {} -D -e -f /mnt/sshd_config\n",
        program.display()
    );
    let server = room.host().spawn_in_cgroup(room.lab.cgroup(), &["unshare", "-m", "sh", "-c", &line]);
    wait_for(&room, 8022, &server);
    // The server speaks first and goes on when it has heard the client's version (RFC 4253, 4.2 and 7.1).
    both_at_once(&room, 8022, "SSH-2.0-test\r\n", "curve25519-sha256");
}
