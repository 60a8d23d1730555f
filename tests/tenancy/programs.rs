//! Unmodified programs in a tenant: static ones, ones with a pool of threads, ones that leave the work to the kernel.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::SocketAddr;

use fief_testkit::{Child, Command, Dial, Street, eventually, missing};
use fief_tests::peers::{dnsmasq, peer, query};

use crate::house;
use crate::room::{Room, SOON};

/// `fief exec TENANT -- ARGV` on the host, with the resolver that every tenant has: its own 10.0.0.1.
fn inside(room: &Room, tenant: &str, argv: &[&str]) -> Command {
    let resolv = room.lab.dir().join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {}\n", Street::CLIENT_V4))
        .expect("the lab's directory is writable");
    let fief = fief_testkit::bin("fief").display().to_string();
    let mut line =
        format!("mount --bind {} /etc/resolv.conf; exec {fief} exec {tenant} -- \"$@\"", resolv.display());
    line.insert_str(0, "set -e; ");
    let shell = ["unshare", "-m", "sh", "-c", &line, "sh"];
    let argv: Vec<&str> = shell.iter().chain(argv).copied().collect();
    room.host().command(&argv).cgroup(room.lab.cgroup())
}

/// Both tenants' name servers, at one address: id.example is 192.0.2.80 for one and 192.0.2.81 for the other.
#[track_caller]
fn name_servers(room: &Room) -> Option<[Child; 2]> {
    let start = |i: usize| {
        let record = format!("--host-record=id.example,192.0.2.8{i}");
        let server = room.street.client(i).spawn(&dnsmasq(&[&record, "--host-record=web.example,10.0.0.1"])?);
        eventually(SOON, || {
            let to = SocketAddr::new(Street::CLIENT_V4.into(), 53);
            let up = room.street.client(i).enter(|| Dial::to(to).connect());
            up.map(drop).map_err(|e| format!("{e}: {}", server.output()))
        });
        Some(server)
    };
    Some([start(0)?, start(1)?])
}

#[test]
fn resolvers_reach_their_own_tenants_name_server() {
    let (Some(musl), Some(node)) = (peer("musl-cc"), peer("node")) else { return };
    let Some(room) = house("resolve") else { return };
    let Some(_servers) = name_servers(&room) else { return };
    let source = room.lab.dir().join("resolve.c");
    let program = room.lab.dir().join("resolve").display().to_string();
    let text = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_family = AF_INET }, *found;
	char text[64];

	if (getaddrinfo(argv[1], 0, &hints, &found))
		return 1;
	puts(inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof(text)));
}
"#;
    std::fs::write(&source, text).expect("the lab's directory is writable");
    room.host().run(&[musl.as_os_str(), source.as_os_str(), program.as_ref()]).ok();
    let node = node.display().to_string();
    let python = "import socket; print(socket.gethostbyname('id.example'))";
    // dns.lookup asks in a pool of threads (uv_getaddrinfo).
    let script = "require('dns').lookup('id.example', (e, a) => { if (e) throw e; console.log(a) })";
    let programs: [&[&str]; 4] = [
        &[crate::PYTHON, "-c", python],
        &[&program, "id.example"],
        &[&node, "-e", script],
        &["getent", "ahostsv4", "id.example"],
    ];
    for argv in programs {
        for i in 0..2 {
            let said = inside(&room, &room.street.name(i), argv).run().ok().stdout;
            assert!(said.starts_with(&format!("192.0.2.8{i}")), "{argv:?} in tenant {i}: {said}");
        }
    }
}

#[test]
fn curl_reaches_its_own_tenants_server() {
    let Some(curl) = peer("curl") else { return };
    let Some(room) = house("curl") else { return };
    let Some(_servers) = name_servers(&room) else { return };
    let _web: Vec<Child> = (0..2)
        .map(|i| {
            let dir = room.lab.dir().join(format!("www{i}"));
            std::fs::create_dir_all(&dir).expect("the lab's directory is writable");
            std::fs::write(dir.join("who"), format!("server of t{i}"))
                .expect("the lab's directory is writable");
            let argv = [crate::PYTHON, "-u", "-m", "http.server", "--bind", "10.0.0.1", "8000"];
            let mut server = room.street.client(i).command(&argv).directory(dir).spawn();
            server.wait_for_output("Serving", SOON);
            server
        })
        .collect();
    let curl = curl.display().to_string();
    for i in 0..2 {
        let argv = [&curl, "-sS", "--max-time", "5", "http://web.example:8000/who"];
        let said = inside(&room, &room.street.name(i), &argv).run().ok().stdout;
        assert_eq!(said, format!("server of t{i}"));
    }
}

/// A server with a pool of threads of its own, one in each tenant, on one port; each request makes its pool resolve.
#[test]
fn node_servers_with_their_own_pool_of_threads() {
    let Some(node) = peer("node") else { return };
    let Some(room) = house("node") else { return };
    let Some(_servers) = name_servers(&room) else { return };
    let script = "const dns = require('dns');\n\
        require('http').createServer((request, response) => {\n\
        \x20dns.lookup('id.example', (e, a) => response.end(e ? String(e) : a));\n\
        }).listen(8080, '0.0.0.0', () => console.log('ready'));\n";
    let node = node.display().to_string();
    let _nodes: Vec<Child> = (0..2)
        .map(|i| {
            let mut server = inside(&room, &room.street.name(i), &[&node, "-e", script]).spawn();
            server.wait_for_output("ready", SOON);
            server
        })
        .collect();
    for round in 0..10 {
        for i in 0..2 {
            let to = SocketAddr::new(room.local(i, false).ip(), 8080);
            // Without an end of our own: node hangs up on whoever says no more.
            let ask = || {
                let mut stream = Dial::to(to).timeout(SOON).connect()?;
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
                let mut text = String::new();
                stream.read_to_string(&mut text).map(|_| text)
            };
            let text = room.street.client(i).enter(ask).expect("it is served");
            assert!(text.ends_with(&format!("192.0.2.8{i}")), "round {round}, tenant {i}: {text}");
        }
    }
}

const C: &str = r#"
#define _GNU_SOURCE
#include <linux/io_uring.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int mark_of(int fd)
{
	int mark = -1;
	socklen_t length = sizeof(mark);

	getsockopt(fd, SOL_SOCKET, SO_MARK, &mark, &length);
	return mark;
}

static void say(const char *who, int fd)
{
	dprintf(1, "%s %d\n", who, fd < 0 ? fd : mark_of(fd));
}

static int in_clone(void *who)
{
	say(who, socket(AF_INET, SOCK_DGRAM, 0));
	_exit(0);
}

/* A socket that the kernel makes, at once or in a worker of its own. */
static int by_uring(unsigned flags)
{
	struct io_uring_params p = {};
	int ring = syscall(SYS_io_uring_setup, 4, &p);
	char *sq, *cq;
	struct io_uring_sqe *sqe;
	unsigned tail;

	if (ring < 0)
		return -2;
	sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
		  IORING_OFF_SQ_RING);
	cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
	sqe = mmap(0, p.sq_entries * sizeof(*sqe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
		   IORING_OFF_SQES);
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_SOCKET;
	sqe->flags = flags;
	sqe->fd = AF_INET;
	sqe->off = SOCK_DGRAM;
	tail = *(unsigned *)(sq + p.sq_off.tail);
	((unsigned *)(sq + p.sq_off.array))[tail & *(unsigned *)(sq + p.sq_off.ring_mask)] = 0;
	__atomic_store_n((unsigned *)(sq + p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) != 1)
		return -3;
	return ((struct io_uring_cqe *)(cq + p.cq_off.cqes))->res;
}

extern char **environ;

int main(int argc, char **argv)
{
	static char stack[65536] __attribute__((aligned(16)));
	char *again[] = { argv[0], "spawned", 0 };
	pid_t pid;

	if (argc > 1) {
		say(argv[1], socket(AF_INET, SOCK_DGRAM, 0));
		return 0;
	}
	say("itself", socket(AF_INET, SOCK_DGRAM, 0));
	pid = vfork();
	if (!pid) {
		say("vfork", socket(AF_INET, SOCK_DGRAM, 0));
		_exit(0);
	}
	waitpid(pid, 0, 0);
	waitpid(clone(in_clone, stack + sizeof(stack), SIGCHLD, "clone"), 0, 0);
	waitpid(clone(in_clone, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, "clone-vm"), 0, 0);
	posix_spawn(&pid, argv[0], 0, 0, again, environ);
	waitpid(pid, 0, 0);
	say("uring", by_uring(0));
	say("uring-worker", by_uring(IOSQE_ASYNC));
	return 0;
}
"#;

#[test]
fn every_way_to_make_a_process_or_a_worker_of_the_kernels() {
    let Some(room) = house("ways") else { return };
    let at = room.lab.dir();
    std::fs::write(at.join("ways.c"), C).expect("the lab's directory is writable");
    let program = at.join("ways").display().to_string();
    room.host().run(&["gcc", "-O1", "-o", &program, &at.join("ways.c").display().to_string()]).ok();
    for (tenant, mark) in [("t0", room.mark(0)), ("t1", room.mark(1))] {
        let said = inside(&room, tenant, &[&program]).run().ok().stdout;
        let mut wanted = String::new();
        let mut ways = vec!["itself", "vfork", "clone", "clone-vm", "spawned"];
        if said.contains("uring -2") {
            missing("io_uring is switched off on this machine (kernel.io_uring_disabled)");
        } else {
            ways.extend(["uring", "uring-worker"]);
        }
        for way in ways {
            writeln!(wanted, "{way} {mark}").expect("a string grows");
        }
        assert!(said.starts_with(&wanted), "{tenant}: {said}, not {wanted}");
    }
}

/// Name servers and a forwarder in two tenants, each at its own tenant's address.
#[test]
fn dnsmasq_socat_and_sshd_in_two_tenants() {
    let (Some(socat), Some(sshd)) = (peer("socat"), peer("sshd")) else { return };
    let Some(room) = house("servers") else { return };
    let socat = socat.display().to_string();
    let mut servers = Vec::new();
    for i in 0..2 {
        let (name, local) = (room.street.name(i), room.local(i, false).ip().to_string());
        let (listen, record) =
            (format!("--listen-address={local}"), format!("--host-record=id.example,192.0.2.8{i}"));
        let Some(argv) = dnsmasq(&["--bind-interfaces", &listen, &record]) else { return };
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        servers.push(inside(&room, &name, &argv).spawn());
        let say = format!("SYSTEM:echo socat of {name}");
        servers.push(inside(&room, &name, &[&socat, "TCP4-LISTEN:7777,fork,reuseaddr", &say]).spawn());
        let dir = room.lab.dir().join(&name).display().to_string();
        let line = format!(
            "set -e; mkdir {dir}; ssh-keygen -q -t ed25519 -N '' -f {dir}/key\n\
             echo 'Port 22\nListenAddress 0.0.0.0\nHostKey /mnt/key\nPidFile none\nUsePAM no\nVersionAddendum of-{name}' >{dir}/config\n\
             cat /etc/passwd >{dir}/passwd; grep -q ^sshd: {dir}/passwd || \
             echo 'sshd:x:65532:65534::/run/sshd:/usr/sbin/nologin' >>{dir}/passwd\n\
             mount --bind {dir}/passwd /etc/passwd; mount --bind {dir} /mnt; mount -t tmpfs tmpfs /run; mkdir /run/sshd\n\
             exec {} -D -e -f /mnt/config\n",
            sshd.display()
        );
        servers.push(inside(&room, &name, &["unshare", "-m", "sh", "-c", &line]).spawn());
    }
    let said = |i: usize, port: u16| {
        let to = SocketAddr::new(room.local(i, false).ip(), port);
        let mut text = [0; 256];
        room.street.client(i).enter(|| {
            let mut stream = Dial::to(to).connect()?;
            let length = stream.read(&mut text)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&text[..length]).into_owned())
        })
    };
    for i in 0..2 {
        for (port, wanted) in [(7777, format!("socat of t{i}")), (22, format!("of-t{i}"))] {
            eventually(SOON, || match said(i, port) {
                Ok(text) if text.contains(&wanted) => Ok(()),
                other => Err(format!(
                    "{port}: {other:?}\n{}",
                    servers.iter().map(Child::output).collect::<String>()
                )),
            });
        }
        let query = query(0x1234, "id.example");
        eventually(SOON, || {
            let to = SocketAddr::new(room.local(i, false).ip(), 53);
            let answer = room.street.client(i).enter(|| Dial::to(to).timeout(SOON / 10).udp(&query));
            match answer {
                Ok((bytes, _)) if bytes.ends_with(&[192, 0, 2, 80 + i as u8]) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}
