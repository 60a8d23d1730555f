//! A user of a host, root in a user namespace of his own with a network namespace of its own, who joins.

use fief_testkit::{Child, Command, Ns, Output, bin, eventually};

use crate::lan::Lan;
use crate::room::SOON;

/// One of them. His namespace ends with this.
pub struct Guest {
    holder: Child,
    host: Ns,
    fief: Vec<String>,
    /// Who he is to the host.
    pub user: (u32, u32),
}

impl Guest {
    /// A user of a host, with an empty namespace.
    #[track_caller]
    pub fn new(lan: &Lan, host: usize, user: (u32, u32)) -> Guest {
        let ns = lan.hosts[host].clone();
        let holder =
            ns.command(&["unshare", "--map-root-user", "--net", "sleep", "600"]).user(user.0, user.1).spawn();
        let cli = lan.lab.expose(&bin("fief")).display().to_string();
        let fief = vec![cli, "--root".into(), lan.daemons[host].root().display().to_string()];
        let guest = Guest { holder, host: ns, fief, user };
        eventually(SOON, || {
            let own = guest.run(&["readlink", "/proc/self/ns/net"]).stdout;
            let is_apart = own.starts_with("net:") && own.trim() != format!("net:[{}]", guest.host.inode());
            if is_apart { Ok(()) } else { Err(format!("still in {own}")) }
        });
        guest
    }

    /// One who has joined, with an address.
    #[track_caller]
    pub fn joined(lan: &Lan, host: usize, user: (u32, u32), address: &str) -> Guest {
        let guest = Guest::new(lan, host, user);
        guest.join(&[]).ok();
        guest.run(&["ip", "addr", "add", address, "dev", "eth0", "nodad"]).ok();
        guest
    }

    /// Runs something as he would.
    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> Output {
        self.command(argv).run()
    }

    pub fn command(&self, argv: &[&str]) -> Command {
        let pid = self.holder.pid().to_string();
        let head = ["nsenter", "--target", &pid, "--user", "--net", "--preserve-credentials"];
        let argv: Vec<&str> = head.into_iter().chain(argv.iter().copied()).collect();
        self.host.command(&argv).user(self.user.0, self.user.1)
    }

    /// `fief join`, with these arguments.
    #[track_caller]
    pub fn join(&self, more: &[&str]) -> Output {
        self.fief(&[&["join"], more].concat())
    }

    /// `fief`, as he types it.
    #[track_caller]
    pub fn fief(&self, words: &[&str]) -> Output {
        let argv: Vec<&str> = self.fief.iter().map(String::as_str).chain(words.iter().copied()).collect();
        self.run(&argv)
    }

    /// The words before a subcommand of fief's.
    pub fn cli(&self) -> Vec<&str> {
        self.fief.iter().map(String::as_str).collect()
    }

    /// His process, by which his namespaces can be entered.
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// Does an address answer a ping of this size?
    pub fn pings(&self, to: &str, size: usize) -> bool {
        self.run(&["ping", "-c", "1", "-W", "2", "-s", &size.to_string(), to]).success()
    }

    /// As [`Guest::pings`], but that it must, soon.
    #[track_caller]
    pub fn reaches(&self, to: &str, size: usize) {
        eventually(SOON, || {
            if self.pings(to, size) { Ok(()) } else { Err(format!("{to} does not answer {size} bytes")) }
        });
    }

    /// Prints the text of every frame of type 0x88b5 that comes in.
    #[track_caller]
    pub fn listens(&self) -> Child {
        let code = "import socket\ns = socket.socket(17, 3, socket.htons(0x88b5)); s.bind(('eth0', 0x88b5))\n\
            print('listens', flush=True)\n\
            while True:\n    frame, at = s.recvfrom(65536)\n    if at[2] != 4: print(frame[14:].decode(), flush=True)\n";
        let mut child = self.command(&["/usr/bin/python3", "-c", code]).spawn();
        child.wait_for_output("listens\n", SOON);
        child
    }

    /// Sends one such frame, to an Ethernet address written in hexadecimal digits.
    #[track_caller]
    pub fn says(&self, to: &str, text: &str) {
        let code = "import socket, sys\ns = socket.socket(17, 3); s.bind(('eth0', 0))\n\
            own = s.getsockname()[4]\n\
            s.send(bytes.fromhex(sys.argv[1]) + own + b'\\x88\\xb5' + sys.argv[2].encode())\n";
        self.run(&["/usr/bin/python3", "-c", code, to, text]).ok();
    }
}

/// To everybody.
pub const ALL: &str = "ffffffffffff";
