//! Switches under /proc/sys: what they were is in the store before they are set, and they are put back when nobody
//! needs them any more, unless somebody changed them since.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use fief_host::{HostError, sysctl};

use super::Engine;
use crate::plan::Setting;
use crate::plan::desire::LIBERAL;
use crate::store::Switch;

/// A renamed device's event comes before its switches do under the new name (devinet_sysctl_register).
const RENAMED: Duration = Duration::from_millis(20);

/// Which switches: those of the network namespace, or those of its devices. What a device's switch permits is only
/// right while our programs sit there, so they come after the programs and go before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Namespace,
    Devices,
}

impl Engine {
    /// Sets what is wanted and not so already.
    pub(super) fn set_switches(&mut self, wanted: &[Setting], scope: Scope) -> anyhow::Result<()> {
        let known = self.store.switches()?;
        let of_devices: HashSet<(u32, &str)> =
            known.iter().filter_map(|(name, switch)| Some((switch.device?, leaf(name)))).collect();
        for setting in wanted.iter().filter(|s| scope.has(s.device)) {
            let now = match sysctl::read(&setting.name) {
                // A device that is gone has no switches; its event is on the way. One that was renamed has none
                // for an instant.
                Err(error) if is_gone(&error, setting) => {
                    self.clocks.wake_by(Instant::now() + RENAMED);
                    continue;
                }
                read => read?,
            };
            if now == setting.value {
                continue;
            }
            // A renamed device keeps its switches, under another name.
            let is_known = known.contains_key(&setting.name)
                || setting.device.is_some_and(|d| of_devices.contains(&(d, leaf(&setting.name))));
            if !is_known {
                let switch = Switch { before: now, set: setting.value.clone(), device: setting.device };
                self.store.remember_switches(&[(&setting.name, &switch)])?;
            }
            sysctl::write(&setting.name, &setting.value)?;
            tracing::info!(name = setting.name, value = setting.value, "sysctl set");
        }
        Ok(())
    }

    /// Puts back what is no longer wanted.
    pub(super) fn restore_switches(&mut self, wanted: &[Setting], scope: Scope) {
        let known = self.store.switches().unwrap_or_default();
        let names: HashSet<&str> = wanted.iter().map(|s| s.name.as_str()).collect();
        let of_devices: HashSet<(u32, &str)> =
            wanted.iter().filter_map(|s| Some((s.device?, leaf(&s.name)))).collect();
        let (mut done, mut due) = (Vec::new(), None);
        for (name, switch) in known.iter().filter(|(_, switch)| scope.has(switch.device)) {
            let is_wanted = match switch.device {
                Some(device) => of_devices.contains(&(device, leaf(name))),
                None => names.contains(name.as_str()),
            };
            if is_wanted {
                continue;
            }
            let name_now = match switch.device {
                Some(device) => Setting::name_on(name, self.observed.link_name(device)),
                None => name.clone(),
            };
            match sysctl::read(&name_now) {
                // What somebody changed since is theirs.
                Ok(now) if now != switch.set => {}
                Ok(_) => {
                    if let Err(error) = sysctl::write(&name_now, &switch.before) {
                        tracing::warn!(%error, "sysctl not put back");
                        continue;
                    }
                }
                Err(_) if switch.device.is_some_and(|device| self.observed.has_link(device)) => {
                    due = Some(Instant::now() + RENAMED);
                    continue;
                }
                Err(_) => {}
            }
            done.push(name.as_str());
        }
        if !done.is_empty()
            && let Err(error) = self.store.forget_switches(&done)
        {
            tracing::warn!(%error, "switches not forgotten");
        }
        if let Some(due) = due {
            self.clocks.wake_by(due);
        }
    }
}

impl Scope {
    fn has(self, device: Option<u32>) -> bool {
        device.is_some() == (self == Scope::Devices)
    }
}

/// Which of a device's switches a name is of: its last part.
fn leaf(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, leaf)| leaf)
}

/// Is this a switch that is not there yet, or no longer? That of connection tracking comes with it.
fn is_gone(error: &HostError, setting: &Setting) -> bool {
    (setting.device.is_some() || setting.name == LIBERAL) && error.errno() == Some(libc::ENOENT)
}
