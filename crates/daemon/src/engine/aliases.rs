//! Aliases of UDP senders: looked up for people, and taken out when they were idle.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use fief_api::AliasView;
use fief_host::sockets::SocketInfo;
use fief_marks::MarkLayout;

use super::Engine;

impl Engine {
    /// Whom an alias stands for; `None` if it is none, or no longer one.
    pub(crate) fn explain(&self, alias: IpAddr) -> Option<AliasView> {
        let stands = self.datapath.as_ref()?.aliases().stands_for(alias)?;
        let tenant = self.slot_names().get(&stands.slot).map(|name| (*name).to_owned()).unwrap_or_default();
        Some(AliasView {
            alias,
            tenant,
            sender: stands.remote,
            called: stands.local,
            port: stands.port,
            idle_seconds: stands.idle.as_secs(),
        })
    }

    /// The networks that aliases are taken from.
    pub(crate) fn alias_networks(&self) -> [ipnet::IpNet; 2] {
        [self.tree.aliases.v4.into(), self.tree.aliases.v6.into()]
    }

    /// Takes out what was idle when it is time for that; the timer runs only while there are aliases.
    pub(super) fn mind_aliases(&mut self) {
        let idle = Duration::from_secs(self.config.alias_idle);
        let Some(datapath) = self.datapath.as_mut() else {
            self.clocks.sweep = None;
            return;
        };
        let now = Instant::now();
        let pause = (idle / 4).max(Duration::from_secs(1));
        match self.clocks.sweep {
            None if datapath.aliases_mut().take_news() => self.clocks.sweep = Some(now + pause),
            Some(at) if at <= now => {
                datapath.aliases_mut().take_news();
                let left = datapath.aliases_mut().sweep(idle, |_| false);
                self.clocks.sweep = (left > 0).then_some(now + pause);
            }
            _ => {}
        }
    }

    /// Takes the aliases of tenants that are gone out.
    pub(super) fn clear_aliases(&mut self, gone: &BTreeSet<u16>) {
        let idle = Duration::from_secs(self.config.alias_idle);
        if let Some(datapath) = self.datapath.as_mut().filter(|_| !gone.is_empty()) {
            datapath.aliases_mut().sweep(idle, |slot| u16::try_from(slot).is_ok_and(|s| gone.contains(&s)));
        }
    }
}

/// The ports of UDP sockets of the host's that were bound before programs could see it.
pub(super) fn bound_ports(layout: MarkLayout) -> impl Iterator<Item = u16> {
    let sockets = fief_host::sockets::list().unwrap_or_default().into_iter();
    let is_one =
        move |s: &SocketInfo| s.protocol == "udp" && s.remote.port() == 0 && layout.number(s.mark) == 0;
    sockets.filter(is_one).map(|s| s.local.port())
}
