//! Which threads and processes are whose.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::path::Path;

use fief_api::TaskView;
use fief_datapath::tasks::TaskTenant;
use fief_host::tasks;

use super::Engine;

/// Whose new sockets are whose, by slots.
#[derive(Debug, Default)]
struct Selection {
    watched: Vec<String>,
    cgroups: HashMap<Vec<String>, u32>,
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
    names: HashMap<String, u32>,
}

impl Selection {
    /// The slot that a process's new sockets get where nothing else was said; 0 for none.
    fn of(&self, pid: u32) -> u32 {
        let Some(place) = tasks::place(pid) else { return 0 };
        let cgroup = steps(&place.cgroup);
        let Some(below) = cgroup.strip_prefix(self.watched.as_slice()) else { return 0 };
        let by_cgroup = (1..=below.len()).rev().find_map(|length| self.cgroups.get(&below[..length]));
        let slice = |step: &String| self.names.get(step.strip_prefix("fief-")?.strip_suffix(".slice")?);
        let by_slice = match below.split_first() {
            Some((first, rest)) if first == "fief.slice" => rest.iter().rev().find_map(slice),
            _ => None,
        };
        let slot = by_cgroup
            .or(by_slice)
            .or_else(|| self.users.get(&place.user))
            .or_else(|| self.groups.get(&place.group));
        slot.copied().unwrap_or(0)
    }
}

fn steps(path: &str) -> Vec<String> {
    path.split('/').filter(|step| !step.is_empty()).map(str::to_owned).collect()
}

impl Engine {
    /// The processes that are a tenant's, and those of their threads that are another's; of one tenant, or of all.
    pub(crate) fn processes(&self, tenant: Option<&str>) -> Vec<TaskView> {
        let (names, selection) = (self.slot_names(), self.selection());
        let mut views = Vec::new();
        for pid in tasks::processes() {
            let process = match self.task(pid).process {
                0 => selection.of(pid),
                chosen => chosen,
            };
            for tid in tasks::threads(pid) {
                let thread = self.task(tid).thread;
                let slot = if thread == 0 && tid == pid { process } else { thread };
                let Some(name) = names.get(&slot) else { continue };
                if tenant.is_some_and(|wanted| wanted != *name) {
                    continue;
                }
                let Some((user, command)) = tasks::user_and_command(pid) else { continue };
                views.push(TaskView { tenant: (*name).to_owned(), pid, tid, user, command });
            }
        }
        views
    }

    /// One process; `None` if there is none.
    pub(crate) fn process(&self, pid: u32) -> Option<TaskView> {
        let (user, command) = tasks::user_and_command(pid)?;
        let TaskTenant { thread, process } = self.task(pid);
        let slot = match (thread, process) {
            (0, 0) => self.selection().of(pid),
            (0, process) => process,
            (thread, _) => thread,
        };
        let tenant = self.slot_names().get(&slot).map(|name| (*name).to_owned()).unwrap_or_default();
        Some(TaskView { tenant, pid, tid: pid, user, command })
    }

    /// Whom tenants select, as the programs see it (bpf/lib/select.h).
    fn selection(&self) -> Selection {
        let mount = fief_host::cgroup::mount_point().unwrap_or_default();
        let below = self.cgroup.strip_prefix(&mount).unwrap_or(Path::new(""));
        let mut selection =
            Selection { watched: steps(&below.display().to_string()), ..Selection::default() };
        for (slot, desired) in &self.desired {
            let slot = u32::from(slot.number());
            selection.names.insert(desired.name.clone(), slot);
            selection.cgroups.extend(desired.cgroups.iter().map(|path| (path.clone(), slot)));
            selection.users.extend(desired.selected.users.iter().map(|id| (*id, slot)));
            selection.groups.extend(desired.selected.groups.iter().map(|id| (*id, slot)));
        }
        selection
    }

    /// Have threads and processes tenants on this kernel? `None` before the programs are loaded.
    pub(crate) fn follows_tasks(&self) -> Option<bool> {
        self.datapath.as_ref().map(fief_datapath::Datapath::follows_tasks)
    }

    /// Slots that threads or processes carry.
    pub(super) fn carried_by_tasks(&self) -> BTreeSet<u32> {
        let each = self.every_task();
        each.into_iter().flat_map(|(_, task)| [task.thread, task.process]).filter(|slot| *slot != 0).collect()
    }

    /// Takes slots of tenants that are gone away from threads and processes. Whoever was one of theirs is the host's
    /// then, like a process whose working directory was removed: what it makes from now on belongs to nobody.
    pub(super) fn clear_tasks(&self, gone: &BTreeSet<u16>) {
        // Every thread of the host would be asked.
        if gone.is_empty() {
            return;
        }
        let is_gone = |slot: u32| u16::try_from(slot).is_ok_and(|slot| gone.contains(&slot));
        for (tid, task) in self.every_task() {
            if !is_gone(task.thread) && !is_gone(task.process) {
                continue;
            }
            let keep = |slot| if is_gone(slot) { 0 } else { slot };
            let left = TaskTenant { thread: keep(task.thread), process: keep(task.process) };
            let (Some(datapath), Some(pidfd)) = (&self.datapath, tasks::pidfd(tid)) else { continue };
            if let Err(error) = datapath.tasks().set(pidfd.as_fd(), left) {
                tracing::warn!(tid, %error, "the tenant of a thread stays");
            }
        }
    }

    fn every_task(&self) -> Vec<(u32, TaskTenant)> {
        if self.datapath.is_none() {
            return Vec::new();
        }
        let all = tasks::processes().into_iter().flat_map(tasks::threads);
        all.map(|tid| (tid, self.task(tid))).filter(|(_, task)| *task != TaskTenant::default()).collect()
    }

    fn task(&self, tid: u32) -> TaskTenant {
        let found = self.datapath.as_ref().zip(tasks::pidfd(tid));
        found.and_then(|(datapath, pidfd)| datapath.tasks().of(pidfd.as_fd())).unwrap_or_default()
    }

    pub(super) fn slot_names(&self) -> BTreeMap<u32, &str> {
        self.tenants.iter().map(|(name, s)| (u32::from(s.slot.number()), name.as_str())).collect()
    }
}
