//! Connections that stay open, and what they show: whose server still answers whom.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use fief_testkit::{Dial, Ns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::room::Room;

/// Open connections of tenants' clients.
pub struct Crowd {
    streams: Vec<(usize, TcpStream)>,
}

impl Crowd {
    /// So many connections of each tenant, to `[::]:8000` of the host, half of them over IPv6.
    #[track_caller]
    pub fn gather(room: &Room, tenants: usize, each: usize) -> Crowd {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard one");
        let mut streams = Vec::with_capacity(tenants * each);
        for tenant in 0..tenants {
            room.street.client(tenant).enter(|| {
                for i in 0..each {
                    let dial = Dial::to(room.local(tenant, i % 2 == 1)).timeout(Duration::from_secs(10));
                    let stream =
                        dial.connect().unwrap_or_else(|e| panic!("tenant {tenant} connection {i}: {e}"));
                    stream.set_nodelay(true).expect("an option");
                    streams.push((tenant, stream));
                }
            });
        }
        Crowd { streams }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Each says something of its own and must hear just that; says which round it is in failures.
    #[track_caller]
    pub fn speak(&mut self, round: &str) {
        for (i, (tenant, stream)) in self.streams.iter_mut().enumerate() {
            let nonce = format!("{round}: connection {i} of tenant {tenant}");
            let mut answer = vec![0; nonce.len()];
            let spoken = stream.write_all(nonce.as_bytes()).and_then(|()| stream.read_exact(&mut answer));
            spoken.unwrap_or_else(|e| panic!("{nonce}: {e}"));
            assert_eq!(String::from_utf8_lossy(&answer), nonce);
        }
    }
}

/// The marks of all sockets of a namespace, with what ss(8) shows beside them; sockets without a mark are left out.
pub fn marks(ns: &Ns) -> Vec<(u32, String)> {
    let list = ns.sh("ss -H -tuane").ok().stdout;
    let marked = list.lines().filter_map(|line| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix("fwmark:0x"))?;
        Some((u32::from_str_radix(word, 16).ok()?, line.to_owned()))
    });
    marked.collect()
}
