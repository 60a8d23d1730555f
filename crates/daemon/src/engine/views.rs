//! What the engine shows of itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use fief_api::{Condition, Counters, DaemonStatus, Phase, SocketView, SysctlView, TenantStatus, TenantView};
use fief_host::sysctl;

use super::Engine;
use super::field::NONE;
use crate::config::LocalRule;
use crate::plan::{Plan, Setting};
use crate::store::Stored;

impl Engine {
    /// A tenant with where it stands.
    pub(crate) fn view(&self, stored: &Stored) -> TenantView {
        TenantView { tenant: stored.tenant.clone(), set: stored.set.clone(), status: self.status_of(stored) }
    }

    /// Every tenant as stored, by name.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &Stored> {
        self.tenants.values()
    }

    /// One tenant as stored.
    pub(crate) fn tenant(&self, name: &str) -> Option<&Stored> {
        self.tenants.get(name)
    }

    pub(super) fn status_of(&self, stored: &Stored) -> TenantStatus {
        let layout = self.positions().map(|positions| positions.read);
        let number = stored.slot.number();
        let mut conditions = self.trouble.clone();
        conditions.extend(self.segments.trouble_of(&stored.tenant.metadata.name).cloned());
        if let Some(desired) = self.desired.get(&stored.slot) {
            conditions.extend(desired.conditions.iter().cloned());
        }
        if self.underway.contains(&stored.slot) {
            conditions.push(Condition {
                reason: "Underway".into(),
                message: "its addresses and routes are being put in place".into(),
            });
        }
        let refused = self.refused.values().filter(|(slot, _)| *slot == stored.slot);
        conditions.extend(refused.map(|(_, condition)| Condition {
            reason: condition.reason.clone(),
            message: self.with_names(&condition.message),
        }));
        TenantStatus {
            slot: number,
            table: self.tree.table_base + u32::from(number),
            mark: layout
                .map_or(NONE.into(), |layout| format!("{:#x}/{layout}", layout.mark(number).unwrap_or(0))),
            isolation: self.isolation_of(&stored.tenant).into(),
            phase: if conditions.is_empty() { Phase::Ready } else { Phase::Pending },
            conditions,
            counters: self.counters(u32::from(number)),
        }
    }

    /// Where documents are read at boot.
    pub(crate) fn config_directory(&self) -> std::path::PathBuf {
        self.paths.config()
    }

    /// Where the bpf file system is or will be.
    pub(crate) fn bpffs(&self) -> std::path::PathBuf {
        self.paths.bpffs()
    }

    /// The control group whose sockets are served.
    pub(crate) fn cgroup(&self) -> &std::path::Path {
        &self.cgroup
    }

    /// The daemon as a whole.
    pub(crate) fn daemon_status(&self) -> DaemonStatus {
        let ready = self.tenants.values().filter(|s| self.is_ready(s)).count();
        let switches = self.store.switches().unwrap_or_default();
        let mut conditions = self.trouble.clone();
        let contended = self.repairs.contended(std::time::Instant::now());
        if contended > 0 {
            conditions.push(Condition {
                reason: "Contended".into(),
                message: format!(
                    "{contended} objects are removed by somebody again and again; fief puts them back with growing \
                     pauses; the log names them"
                ),
            });
        }
        conditions.extend(
            self.intruders
                .iter()
                .map(|intruder| Condition { reason: "MarkConflict".into(), message: intruder.clone() }),
        );
        conditions.extend(self.policy_standing().conditions);
        conditions.extend(self.identity_alarms());
        DaemonStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            root: self.paths.root().display().to_string(),
            cgroup: self.cgroup.display().to_string(),
            mark_mask: self.positions().map_or(NONE.into(), |positions| positions.read.to_string()),
            local_rule: match self.config.local_rule {
                LocalRule::Keep => "keep",
                LocalRule::Move => "move",
            }
            .into(),
            ready,
            pending: self.tenants.len() - ready,
            repairs: self.repaired,
            last_reconcile_ms: self.last_reconcile.as_secs_f64() * 1e3,
            sysctls: switches
                .into_iter()
                .map(|(name, switch)| SysctlView {
                    now: sysctl::read(&name).unwrap_or_else(|_| "?".into()),
                    before: switch.before,
                    name,
                })
                .collect(),
            conditions,
        }
    }

    /// Every TCP and UDP socket with its tenant, or those of one tenant.
    pub(crate) fn sockets(&self, of: Option<&str>) -> Result<Vec<SocketView>, fief_host::HostError> {
        let layout = self.positions().map(|positions| positions.read);
        let names: std::collections::HashMap<u16, &str> =
            self.tenants.values().map(|s| (s.slot.number(), s.tenant.metadata.name.as_str())).collect();
        let sockets = fief_host::sockets::list()?.into_iter().map(|socket| {
            let number = layout.map_or(0, |layout| layout.number(socket.mark));
            let nobody = if number == 0 { "-".to_owned() } else { format!("(slot {number})") };
            let tcp = socket.protocol == "tcp";
            SocketView {
                tenant: names.get(&number).map_or(nobody, |name| (*name).to_owned()),
                protocol: socket.protocol.into(),
                state: if tcp || socket.state == 1 {
                    fief_host::sockets::state_name(socket.state)
                } else {
                    "UNCONN"
                }
                .into(),
                local: plain(socket.local),
                remote: plain(socket.remote),
            }
        });
        Ok(sockets.filter(|s| of.is_none_or(|of| s.tenant == of)).collect())
    }

    /// A plan in words.
    pub(super) fn describe(&self, plan: &Plan) -> Vec<String> {
        let mut steps = Vec::new();
        for Setting { name, value, .. } in &plan.sysctls {
            match sysctl::read(name) {
                Ok(now) if now == *value => {}
                Ok(now) => steps
                    .push(format!("set sysctl {name} to {value} (it is {now}; put back at the last delete)")),
                Err(error) => steps.push(format!("set sysctl {name} to {value} ({error})")),
            }
        }
        let before: BTreeSet<u32> = self.attached.iter().map(|d| d.index).collect();
        match (plan.is_vacant || plan.is_markless, self.datapath.is_some()) {
            (false, false) => steps.push(format!(
                "load the bpf programs; attach them to lo, to control group {}, to socket lookups and to netfilter's input \
                 and postrouting",
                self.cgroup.display()
            )),
            (true, true) => steps.push("detach the bpf programs, restore the sysctls".into()),
            _ => {}
        }
        for device in plan.devices.difference(&before) {
            steps.push(format!("attach the programs to device {} (tcx)", self.observed.link_name(*device)));
        }
        for device in before.difference(&plan.devices) {
            steps.push(format!("detach the programs from device {}", self.observed.link_name(*device)));
        }
        steps.extend(plan.add.iter().chain(&plan.remove).map(|change| self.with_names(&change.to_string())));
        steps
    }

    /// Device numbers become names, for people.
    fn with_names(&self, text: &str) -> String {
        let words = text.split(' ').map(|word| {
            let index = word.strip_prefix('#').and_then(|number| number.parse().ok());
            index.map_or(word.to_owned(), |index| self.observed.link_name(index).to_owned())
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn is_ready(&self, stored: &Stored) -> bool {
        self.trouble.is_empty()
            && !self.underway.contains(&stored.slot)
            && self.segments.trouble_of(&stored.tenant.metadata.name).is_none()
            && self.desired.get(&stored.slot).is_none_or(|d| d.conditions.is_empty())
            && !self.refused.values().any(|(slot, _)| *slot == stored.slot)
    }

    fn counters(&self, slot: u32) -> Counters {
        let Some(datapath) = &self.datapath else { return Counters::default() };
        let c = datapath.counters(slot);
        Counters {
            rx_packets: c.rx_packets,
            rx_bytes: c.rx_bytes,
            tx_packets: c.tx_packets,
            tx_bytes: c.tx_bytes,
            drop_device_in: c.drop_device_in,
            drop_neighbour: c.drop_neighbour,
            drop_crossing: c.drop_crossing,
            drop_device_out: c.drop_device_out,
            drop_spoof: c.drop_spoof,
            drop_listener: c.drop_listener,
            drop_redirect: c.drop_redirect,
            drop_unmarked: c.drop_unmarked,
            drop_alias: c.drop_alias,
            refused: c.refused,
        }
    }
}

/// An IPv4 peer of an IPv6 socket is shown as what it is.
fn plain(end: SocketAddr) -> String {
    SocketAddr::new(end.ip().to_canonical(), end.port()).to_string()
}
