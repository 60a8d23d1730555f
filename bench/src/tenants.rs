//! The benchmarks whose ids begin with `tenants.`.

use std::time::Duration;

use crate::accept::Acceptor;
use crate::compare::{Compared, compare, yardstick_once};
use crate::daemon::{Memory, load};
use crate::make;
use crate::receive::{Less, Receiver};
use crate::report::Row;
use crate::send::{self, Sender};
use crate::world::{Family, World};

const SIZES: [usize; 4] = [64, 1024, 4096, 16_384];
/// Here everything is measured that is said of one number of tenants.
const FULL: usize = 4096;
/// Making sockets.
const MAKING: [&str; 3] = ["tenants.socket", "tenants.setsockopt", "tenants.switch"];
/// Aliases, each family.
const ALIASES: [(&str, Family); 2] = [("tenants.alias", Family::V4), ("tenants.alias.v6", Family::V6)];
/// 100 ns, measured like [`SWITCH`].
const ALIAS: f64 = 0.855;
/// 0.5 us where the system call that does nothing takes 117 ns, as here on a quiet day.
const SWITCH: f64 = 4.2;
/// The id of what is compared with a host that has no fief.
const BARE: &str = "bare";
/// The daemon lists the host once more when it has been quiet for ten seconds; idle is what comes after.
const QUIET: Duration = Duration::from_secs(12);
const IDLE: Duration = Duration::from_secs(10);

/// Something that a packet or a connection costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Send,
    Receive,
    Stack,
    Told,
    Accept,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Send, Kind::Receive, Kind::Stack, Kind::Told, Kind::Accept];

    fn name(self) -> &'static str {
        match self {
            Kind::Send => "send",
            Kind::Receive => "receive",
            Kind::Stack => "stack",
            Kind::Told => "told",
            Kind::Accept => "accept",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Kind::Send => "a datagram sent by the last tenant",
            Kind::Receive => "a datagram received for the last tenant by a server that asks who was called",
            Kind::Stack => "the same, without what its device does",
            Kind::Told => "a datagram received by a server that asks nothing and is told an alias",
            Kind::Accept => "a TCP connection to the last tenant",
        }
    }

    fn compare(self, subject: &World, baseline: &World, family: Family) -> Compared {
        match self {
            Kind::Send => {
                send::proven(subject, family);
                send::proven(baseline, family);
                let (a, b) = (Sender::new(subject, family), Sender::new(baseline, family));
                compare(|| a.run(), || b.run())
            }
            Kind::Receive | Kind::Stack | Kind::Told => {
                let less = if self == Kind::Stack { Less::Device } else { Less::Sender };
                let new = |world| Receiver::new(world, family, self != Kind::Told);
                let (a, b) = (new(subject), new(baseline));
                compare(|| a.run(less), || b.run(less))
            }
            Kind::Accept => {
                let (a, b) = (Acceptor::new(subject, family), Acceptor::new(baseline, family));
                a.proven();
                b.proven();
                compare(|| a.run(), || b.run())
            }
        }
    }
}

/// Runs the benchmarks whose ids begin with `only`; `tell` gets each result as soon as it is known.
pub fn run(only: &str, tell: &mut dyn FnMut(Row)) {
    let mut suite = Suite { only, tell };
    let sizes: Vec<usize> = SIZES.into_iter().filter(|n| suite.wants_any_of(*n)).collect();
    let bare = suite.wants_costs(BARE);
    let making = MAKING.iter().any(|id| suite.wants(id));
    let aliases = ALIASES.iter().any(|(id, _)| suite.wants(id));
    if !bare && !making && !aliases && sizes.is_empty() {
        return;
    }
    let one = World::open(1);
    if making {
        suite.making(&one, &World::open(0));
    }
    if aliases {
        suite.aliases(&one);
    }
    if bare {
        suite.costs(&one, &World::open(0), BARE, "no fief at all", 1.3);
    }
    for n in sizes {
        let world = World::open(n);
        suite.costs(&world, &one, &n.to_string(), "one tenant", if n > FULL { 1.5 } else { 1.2 });
        suite.whole(&world, n == FULL);
    }
}

struct Suite<'a> {
    only: &'a str,
    tell: &'a mut dyn FnMut(Row),
}

impl Suite<'_> {
    /// Every cost of the first host, relative to the second.
    fn costs(&mut self, subject: &World, baseline: &World, at: &str, than: &str, goal: f64) {
        for (kind, family, id) in ids(at) {
            if self.wants(&id) {
                let found = kind.compare(subject, baseline, family);
                let row = Row::value(id, format!("{}, to {than}", kind.what()), found.subject, "ns");
                let row = row.against(found.baseline, found.ratio);
                // What the stack alone costs is told, for whoever looks for where the time goes.
                (self.tell)(if matches!(kind, Kind::Stack | Kind::Told) { row } else { row.goal(goal) });
            }
        }
    }

    /// What a program pays that makes sockets, relative to a host without fief.
    fn making(&mut self, subject: &World, baseline: &World) {
        let [socket, option, switch] = MAKING;
        if self.wants(socket) {
            let found = compare(|| make::socket_and_close(subject), || make::socket_and_close(baseline));
            let row = Row::value(
                socket,
                "socket() and close() in a tenant's thread, to no fief",
                found.subject,
                "ns",
            );
            (self.tell)(row.against(found.baseline, found.ratio).goal(1.05));
        }
        if self.wants(option) {
            let found = compare(|| make::other_option(subject), || make::other_option(baseline));
            let row = Row::value(option, "setsockopt() of another's option, to no fief", found.subject, "ns");
            (self.tell)(row.against(found.baseline, found.ratio));
        }
        if self.wants(switch) {
            let found = compare(|| make::switch(subject), yardstick_once);
            let row = Row::value(switch, "a thread changes its tenant, to a getppid()", found.subject, "ns");
            (self.tell)(row.against(found.baseline, found.ratio).goal(SWITCH));
        }
    }

    /// What an alias costs beside a datagram without one, by the kernel's own test runs.
    fn aliases(&mut self, world: &World) {
        for (id, family) in ALIASES {
            if !self.wants(id) {
                continue;
            }
            let [told, asked] = crate::alias::run(world, family);
            let (value, once) = (told - asked, yardstick_once());
            let what =
                format!("an alias ({told:.0} against {asked:.0} ns in the ingress program), to a getppid()");
            (self.tell)(Row::value(id, what, value, "ns").against(once, value / once).goal(ALIAS));
        }
    }

    /// What the host and its daemon need for this many tenants; with goals, everything, and it deletes them in the end.
    fn whole(&mut self, world: &World, goals: bool) {
        let n = world.tenants;
        let [create, memory, idle, delete] = extras(n);
        if self.wants(&create) {
            let (value, one) = (world.created.as_secs_f64(), world.namespace().as_secs_f64());
            let what =
                format!("fief apply of {n} tenants; `ip netns add` makes {:.0} in that time", value / one);
            let row = Row::value(create, what, value, "s");
            let others = one * n as f64;
            (self.tell)(row.against(others, value / others));
        }
        if self.wants(&memory) {
            let found = Memory::of(world.pid());
            let what = format!("fiefd: {:.1} its own, {:.1} its bpf maps", found.process, found.maps);
            let row = Row::value(memory, what, found.total(), "MiB");
            (self.tell)(if goals { row.goal(64.0) } else { row });
        }
        if !goals {
            // Half a minute each that nobody asked for.
            return;
        }
        if self.wants(&idle) {
            fief_testkit::attempt(QUIET, || Err::<(), String>(String::new())).ok();
            let row = Row::value(idle, "fiefd, nothing happening, of one core", load(world.pid(), IDLE), "%");
            (self.tell)(row.goal(0.2));
        }
        if self.wants(&delete) {
            let value = world.delete().as_secs_f64();
            (self.tell)(Row::value(delete, format!("fief delete of {n} tenants"), value, "s"));
        }
    }

    fn wants(&self, id: &str) -> bool {
        id.starts_with(self.only)
    }

    fn wants_costs(&self, at: &str) -> bool {
        ids(at).iter().any(|(_, _, id)| self.wants(id))
    }

    fn wants_any_of(&self, tenants: usize) -> bool {
        self.wants_costs(&tenants.to_string()) || extras(tenants).iter().any(|id| self.wants(id))
    }
}

/// `tenants.send.4096`, and `tenants.send.4096.v6` for IPv6.
fn ids(at: &str) -> Vec<(Kind, Family, String)> {
    let families = [(Family::V4, ""), (Family::V6, ".v6")].into_iter();
    let of_family = |(family, suffix)| {
        Kind::ALL.map(|kind| (kind, family, format!("tenants.{}.{at}{suffix}", kind.name())))
    };
    families.flat_map(of_family).collect()
}

/// What is said of a number of tenants as a whole.
fn extras(tenants: usize) -> [String; 4] {
    ["create", "memory", "idle", "delete"].map(|what| format!("tenants.{what}.{tenants}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(only: &str) -> Vec<String> {
        let suite = Suite { only, tell: &mut |_| () };
        let all = ids(BARE).into_iter().chain(ids("64")).map(|(_, _, id)| id).chain(extras(64));
        all.filter(|id| suite.wants(id)).collect()
    }

    #[test]
    fn a_prefix_chooses() {
        assert_eq!(wanted("tenants.send.bare"), ["tenants.send.bare", "tenants.send.bare.v6"]);
        assert_eq!(wanted("tenants.memory"), ["tenants.memory.64"]);
        assert_eq!(wanted("").len(), 24);
        assert!(wanted("follow.").is_empty());
    }
}
