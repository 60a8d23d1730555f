//! What this host has and lacks, in lines that a person can act on.

use fief_api::{Check, Verdict};
use fief_host::kernel::Classifiers;
use fief_host::{cgroup, kernel};

use crate::engine::Engine;
use crate::plan::backend::{Backend, Fib, Netns, Vrf};

/// Looks at everything fief depends on.
pub fn examine(engine: &Engine) -> Vec<Check> {
    let mut checks = vec![
        kernel_version(),
        bpf_file_system(engine),
        cgroup_hierarchy(engine),
        tasks(engine),
        capabilities(),
    ];
    checks.extend(backends(engine));
    checks.push(classifiers());
    checks.push(host_way(engine));
    checks.push(marks(engine));
    checks.extend(engine.daemon_status().conditions.into_iter().map(|c| Check {
        name: c.reason,
        verdict: Verdict::Fail,
        seen: c.message,
        remedy: None,
    }));
    checks.push(tenants(engine));
    checks
}

fn kernel_version() -> Check {
    let (major, minor) = kernel::version();
    match kernel::require_floor() {
        Ok(()) => ok("kernel", format!("Linux {major}.{minor}")),
        Err(error) => fail("kernel", error.to_string(), "boot a newer kernel"),
    }
}

fn bpf_file_system(engine: &Engine) -> Check {
    let path = engine.bpffs();
    if kernel::is_bpffs(&path) {
        ok("bpf file system", format!("mounted at {}", path.display()))
    } else {
        warn(
            "bpf file system",
            format!("none at {} yet", path.display()),
            "fiefd mounts one for the first tenant",
        )
    }
}

fn tasks(engine: &Engine) -> Check {
    const NAME: &str = "threads and processes";
    if engine.is_markless() {
        return ok(NAME, "have no tenants by themselves: `markMask: none` in fiefd.yaml".into());
    }
    match engine.follows_tasks() {
        Some(true) => ok(NAME, "have tenants: fief exec, and the option of a thread".into()),
        Some(false) => warn(
            NAME,
            "this kernel gives task storage to tracing programs only".into(),
            "give sockets their tenant one by one (FIEF_SOCKET), or run Linux 6.18",
        ),
        None => warn(NAME, "not known before there is a tenant".into(), "apply one"),
    }
}

fn cgroup_hierarchy(engine: &Engine) -> Check {
    match cgroup::mount_point() {
        Ok(mount) => ok(
            "cgroup",
            format!("version 2 at {}; programs at {}", mount.display(), engine.cgroup().display()),
        ),
        Err(error) => fail("cgroup", error.to_string(), "mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

fn capabilities() -> Check {
    let missing = kernel::missing_capabilities();
    if missing.is_empty() {
        ok("capabilities", "all there".into())
    } else {
        fail("capabilities", format!("fiefd lacks {}", missing.join(", ")), "run fiefd as root")
    }
}

fn backends(engine: &Engine) -> Vec<Check> {
    vec![fib(engine), vrf(engine), netns()]
}

fn fib(engine: &Engine) -> Check {
    let seen = match engine.is_markless() {
        true => "not used: it needs marks, and `markMask: none` in fiefd.yaml says that fief writes none",
        false => "possible: policy routing is there",
    };
    ok(&format!("isolation {}", Fib.name()), seen.into())
}

fn vrf(engine: &Engine) -> Check {
    let name = format!("isolation {}", Vrf.name());
    match engine.no_vrf() {
        None if engine.is_markless() => {
            ok(&name, "possible for networks; above interfaces it needs marks".into())
        }
        None => ok(&name, "possible: this kernel makes VRFs".into()),
        Some(why) => {
            let (seen, remedy) = why.split_once("; ").unwrap_or((&why, "see what the kernel says: dmesg"));
            warn(&name, format!("not possible: {seen}"), remedy)
        }
    }
}

fn netns() -> Check {
    let name = format!("isolation {}", Netns.name());
    if std::path::Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        ok(&name, "possible: namespaces, and bridged packets pass connection tracking".into())
    } else {
        let seen =
            "possible, but packets between endpoints of one network have no records in connection tracking";
        warn(&name, seen.into(), "modprobe br_netfilter, before the tenant's first network")
    }
}

fn classifiers() -> Check {
    const NAME: &str = "policies";
    match kernel::classifiers() {
        Classifiers::Ready => ok(NAME, "possible: programs at ports (cls_bpf)".into()),
        Classifiers::Loadable => ok(NAME, "possible: the kernel loads cls_bpf when a port wants it".into()),
        Classifiers::Missing => warn(
            NAME,
            "not possible: this kernel has no cls_bpf; ports that policies are about stay down".into(),
            "install the kernel's modules, or run one with CONFIG_NET_CLS_BPF",
        ),
    }
}

fn host_way(engine: &Engine) -> Check {
    const NAME: &str = "short way on the host";
    match engine.short_ways() {
        None => ok(NAME, "switched off: `hostWay: whole` in fiefd.yaml".into()),
        Some([_, whole]) if !whole.is_empty() => warn(
            NAME,
            format!("not at {}", whole.join(", ")),
            "an uplink must be an Ethernet device, and net.netfilter.nf_conntrack_tcp_be_liberal 1; or see fiefd's log",
        ),
        Some([short, _]) if short.is_empty() => ok(NAME, "at no uplink: no namespace has a way out".into()),
        Some([short, _]) => ok(NAME, format!("programs (tcx) at {}", short.join(", "))),
    }
}

fn marks(engine: &Engine) -> Check {
    let status = engine.daemon_status();
    let field = match engine.is_markless() {
        true => "none: fief writes no marks",
        false => &status.mark_mask,
    };
    ok("mark field", format!("{field} (markMask in fiefd.yaml); local rule: {}", status.local_rule))
}

fn tenants(engine: &Engine) -> Check {
    let status = engine.daemon_status();
    let seen = format!("{} ready, {} pending", status.ready, status.pending);
    if status.pending == 0 {
        ok("tenants", seen)
    } else {
        warn("tenants", seen, "see the conditions: fief get tenants -o json")
    }
}

fn ok(name: &str, seen: String) -> Check {
    Check { name: name.into(), verdict: Verdict::Ok, seen, remedy: None }
}

fn warn(name: &str, seen: String, remedy: &str) -> Check {
    Check { name: name.into(), verdict: Verdict::Warn, seen, remedy: Some(remedy.into()) }
}

fn fail(name: &str, seen: String, remedy: &str) -> Check {
    Check { name: name.into(), verdict: Verdict::Fail, seen, remedy: Some(remedy.into()) }
}
