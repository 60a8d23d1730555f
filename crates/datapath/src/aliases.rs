//! Aliases of UDP senders: bpf/lib/alias.h makes them, here they are looked up and taken out again.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::maps::{Array, HashMap, MapData, RingBuf};
use aya::{Ebpf, Pod};
use aya_obj::generated::bpf_prog_type;
use ipnet::{Ipv4Net, Ipv6Net};

use crate::maps::{map_error, take};
use crate::raw::{Kind, Raw};
use crate::{DatapathError, chain};

/// The programs of the routes for aliases.
pub(crate) const PROGRAMS: [&str; 2] = ["by_alias4", "by_alias6"];

/// Whom an alias stands for: `struct correspondent`; IPv4 addresses are IPv4-mapped.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Correspondent {
    slot: u32,
    /// In network byte order.
    port: u16,
    pad: u16,
    remote: [u8; 16],
    local: [u8; 16],
}

/// `struct alias`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Alias {
    number: u64,
    used: u64,
    ticks: u64,
}

/// `struct answered`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Answered {
    to: Correspondent,
    pad: u32,
    used: u64,
    ticks: u64,
}

/// No socket has it: the place where it is noted that bound sockets were looked for.
const NO_PORT: u32 = 0;

/// `struct users`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Users {
    plain: u32,
    other: u32,
}

// SAFETY: as below.
unsafe impl Pod for Users {}
// SAFETY: repr(C), integers and bytes only, no padding: every bit pattern is a value and every byte is initialised.
unsafe impl Pod for Correspondent {}
// SAFETY: as above.
unsafe impl Pod for Alias {}
// SAFETY: as above; what would be padding is a field of its own.
unsafe impl Pod for Answered {}

/// Where aliases are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ranges {
    /// For IPv4; /4 to /16.
    pub v4: Ipv4Net,
    /// For IPv6; a /64.
    pub v6: Ipv6Net,
}

/// Whom an alias stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stands {
    /// The tenant's slot.
    pub slot: u32,
    /// The sender.
    pub remote: IpAddr,
    /// The address it called.
    pub local: IpAddr,
    /// The port it called.
    pub port: u16,
    /// How long ago the last datagram came or went; a second more or less.
    pub idle: Duration,
}

/// The tables of aliases.
pub struct Aliases {
    aliases: HashMap<MapData, Correspondent, Alias>,
    answers: HashMap<MapData, u64, Answered>,
    numbers: HashMap<MapData, u32, u64>,
    news: RingBuf<MapData>,
    ports: Array<MapData, Users>,
    ranges: Ranges,
}

impl Ranges {
    /// The number that an alias carries.
    fn number(&self, alias: IpAddr) -> Option<u64> {
        match alias {
            IpAddr::V4(a) if self.v4.contains(&a) => {
                Some(u64::from(u32::from(a) & u32::from(self.v4.hostmask())))
            }
            IpAddr::V6(a) if self.v6.contains(&a) => Some(u128::from(a) as u64),
            _ => None,
        }
    }
}

impl Aliases {
    pub(crate) fn open(programs: &mut Ebpf, ranges: Ranges) -> Result<Aliases, DatapathError> {
        let aliases = table(programs, "fief_aliases")?;
        let answers = table(programs, "fief_answers")?;
        let mut numbers: HashMap<MapData, u32, u64> = table(programs, "fief_numbers")?;
        // Slot 0 holds the number that was given last; programs cannot begin it.
        if numbers.get(&0, 0).is_err() {
            numbers.insert(0, 0, 0).map_err(|e| map_error("fief_numbers", &e))?;
        }
        let news = RingBuf::try_from(take(programs, "fief_news")?).map_err(|e| map_error("fief_news", &e))?;
        let ports =
            Array::try_from(take(programs, "fief_ports")?).map_err(|e| map_error("fief_ports", &e))?;
        Ok(Aliases { aliases, answers, numbers, news, ports, ranges })
    }

    /// Does nobody know yet which sockets were bound before our programs could see it? A new map knows nothing, whatever
    /// was there before it.
    pub fn is_fresh(&self) -> bool {
        self.ports.get(&NO_PORT, 0).map_or(true, |users| users.plain == 0)
    }

    /// Sockets that were bound to these ports before our programs were there, and that may not ask: they are looked at for
    /// ever.
    pub fn look_at(&mut self, ports: impl Iterator<Item = u16>) -> Result<(), DatapathError> {
        let both = Users { plain: 1, other: 1 };
        for port in ports.map(u32::from).chain([NO_PORT]) {
            self.ports.set(port, both, 0).map_err(|e| map_error("fief_ports", &e))?;
        }
        Ok(())
    }

    /// Is readable when an alias was given.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Takes the news; says whether there was any.
    pub fn take_news(&mut self) -> bool {
        let mut any = false;
        while self.news.next().is_some() {
            any = true;
        }
        any
    }

    /// Whom an alias stands for.
    pub fn stands_for(&self, alias: IpAddr) -> Option<Stands> {
        let answered = self.answers.get(&self.ranges.number(alias)?, 0).ok()?;
        let to = answered.to;
        let used = self.aliases.get(&to, 0).map_or(0, |a| a.used).max(answered.used);
        Some(Stands {
            slot: to.slot,
            remote: address(to.remote),
            local: address(to.local),
            port: u16::from_be(to.port),
            idle: now().saturating_sub(Duration::from_nanos(used)),
        })
    }

    /// Takes out what was idle for so long, or is of a slot that is `gone`; says how many are left. A number goes one
    /// round after its alias, when no datagram is under way that carries it.
    pub fn sweep(&mut self, idle: Duration, gone: impl Fn(u32) -> bool) -> usize {
        let now = now();
        let is_over = |used: u64| now.saturating_sub(Duration::from_nanos(used)) >= idle;
        let known: Vec<(u64, Answered)> = self.answers.iter().filter_map(Result::ok).collect();
        let mut counts = std::collections::HashMap::<u32, u64>::new();
        let mut left = 0;
        for (number, answered) in known {
            let alias = self.aliases.get(&answered.to, 0).ok().filter(|a| a.number == number);
            let is_gone = gone(answered.to.slot);
            match alias {
                Some(alias) if is_gone || (is_over(alias.used) && is_over(answered.used)) => {
                    let _ = self.aliases.remove(&answered.to);
                }
                Some(_) => *counts.entry(answered.to.slot).or_default() += 1,
                None => {}
            }
            match alias {
                Some(_) if !is_gone => left += 1,
                // Whoever is removed meanwhile is removed.
                _ => drop(self.answers.remove(&number)),
            }
        }
        let slots: Vec<u32> = self.numbers.keys().filter_map(Result::ok).filter(|slot| *slot != 0).collect();
        for slot in slots {
            let _ = match counts.get(&slot) {
                Some(count) => self.numbers.insert(slot, count, 0),
                None => self.numbers.remove(&slot),
            };
        }
        left
    }
}

/// Verifies the programs of the routes, IPv4's and IPv6's.
pub(crate) fn load(programs: &Raw) -> Result<[OwnedFd; 2], DatapathError> {
    let load = |name: &'static str| {
        let kind = Kind { program: bpf_prog_type::BPF_PROG_TYPE_LWT_XMIT, attach_type: 0, attach_to: 0 };
        programs.load(name, kind).map_err(|e| DatapathError::Load(format!("{name}: {e}")))
    };
    let [v4, v6] = PROGRAMS;
    Ok([load(v4)?, load(v6)?])
}

fn table<K: Pod, V: Pod>(
    programs: &mut Ebpf,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, DatapathError> {
    let error = |e| DatapathError::Map { map: name, error: chain(&e) };
    HashMap::try_from(take(programs, name)?).map_err(error)
}

fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// The clock of bpf_ktime_get_coarse_ns().
fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_in_an_alias_of_either_family() {
        let ranges = Ranges { v4: "240.0.0.0/5".parse().unwrap(), v6: "fd00:1:2:3::/64".parse().unwrap() };
        let number = |text: &str| ranges.number(text.parse().unwrap());
        assert_eq!(number("240.0.1.2"), Some(258));
        assert_eq!(number("247.255.255.255"), Some(0x07ff_ffff));
        assert_eq!(number("248.0.0.1"), None);
        assert_eq!(number("fd00:1:2:3::1:2"), Some(0x1_0002));
        assert_eq!(number("fd00:1:2:4::1"), None);
    }
}
