//! Servers from Debian's archive and one in C.

use std::net::{SocketAddr, UdpSocket};

use fief_testkit::{Child, eventually};
use fief_tests::peers::{self, peer, query};

use crate::room::{Room, SOON};
use crate::truth::client;

/// Says `words` as both tenants' clients from one port, then hears both; `Err` if one was not answered.
fn both(room: &Room, v6: bool, port: u16, words: &[Vec<u8>; 2]) -> Result<[Vec<u8>; 2], String> {
    let clients: Vec<UdpSocket> = (0..2).map(|i| client(room, i, v6, 5300)).collect();
    for (i, socket) in clients.iter().enumerate() {
        let to = SocketAddr::new(room.local(i, v6).ip(), port);
        socket.send_to(&words[i], to).map_err(|e| format!("tenant {i} v6 {v6}: {e}"))?;
    }
    let mut answers = [Vec::new(), Vec::new()];
    for (i, socket) in clients.iter().enumerate() {
        let mut answer = [0; 512];
        socket.set_read_timeout(Some(std::time::Duration::from_secs(1))).expect("a time-out");
        let (length, from) = socket.recv_from(&mut answer).map_err(|e| format!("tenant {i} v6 {v6}: {e}"))?;
        if from != SocketAddr::new(room.local(i, v6).ip(), port) {
            return Err(format!("tenant {i} is answered from {from}"));
        }
        answers[i] = answer[..length].to_vec();
    }
    Ok(answers)
}

#[track_caller]
fn echoed(room: &Room, families: &[bool], port: u16, server: &Child) {
    let words = [b"<blue>".to_vec(), b"<red>".to_vec()];
    for v6 in families {
        for _ in 0..20 {
            // A server that has just been started may not listen yet, and socat loses one of some hundreds by itself.
            eventually(SOON, || {
                let answers =
                    both(room, *v6, port, &words).map_err(|e| format!("{e}\n{}", server.output()))?;
                assert_eq!(answers, words, "mixed up");
                Ok(())
            });
        }
    }
}

#[test]
fn dnsmasq() {
    let Some(argv) = peers::dnsmasq(&["--host-record=www.example,192.0.2.80"]) else { return };
    let Some(room) = Room::open("udp-dnsmasq", 2, "") else { return };
    let server = room.host().spawn_in_cgroup(room.lab.cgroup(), &argv);
    for v6 in [false, true] {
        let queries = [query(0x1111, "www.example"), query(0x2222, "www.example")];
        eventually(SOON, || {
            let answers = both(&room, v6, 53, &queries).map_err(|e| format!("{e}\n{}", server.output()))?;
            let is_right =
                |i: usize| answers[i][..2] == queries[i][..2] && answers[i].ends_with(&[192, 0, 2, 80]);
            if is_right(0) && is_right(1) { Ok(()) } else { Err(format!("mixed up: {answers:?}")) }
        });
    }
}

#[test]
fn socat() {
    let Some(program) = peer("socat") else { return };
    let Some(room) = Room::open("udp-socat", 2, "") else { return };
    let program = program.display().to_string();
    for (port, address, families) in
        [(7100, "UDP4-RECVFROM:7100,fork", [false].as_slice()), (7101, "UDP6-RECVFROM:7101,fork", &[true])]
    {
        let server = room.host().spawn_in_cgroup(room.lab.cgroup(), &[&program, address, "EXEC:cat"]);
        echoed(&room, families, port, &server);
    }
}

const C: &str = r#"
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
int main(int argc, char **argv)
{
	struct sockaddr_in6 own = { .sin6_family = AF_INET6, .sin6_port = htons(atoi(argv[1])) }, peer;
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	char buffer[65536];

	if (bind(fd, (void *)&own, sizeof(own)))
		return 1;
	for (;;) {
		socklen_t length = sizeof(peer);
		ssize_t n = recvfrom(fd, buffer, sizeof(buffer), 0, (void *)&peer, &length);

		if (n >= 0)
			sendto(fd, buffer, n, 0, (void *)&peer, length);
	}
}
"#;

#[test]
fn an_echo_server_in_c() {
    let Some(room) = Room::open("udp-c", 2, "") else { return };
    let dir = room.lab.dir();
    std::fs::write(dir.join("echo.c"), C).expect("the lab's directory is writable");
    let line = format!("cc -O -o {0}/echo {0}/echo.c", dir.display());
    room.host().sh(&line).ok();
    let program = dir.join("echo").display().to_string();
    let server = room.host().spawn_in_cgroup(room.lab.cgroup(), &[&program, "7200"]);
    echoed(&room, &[false, true], 7200, &server);
}
