//! Making an engine of what is configured and stored.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fief_api::Paths;
use fief_datapath::Settings;
use fief_datapath::aliases::Ranges;
use fief_host::{Detour, LinuxHost, Monitor};
use ipnet::Ipv6Net;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::watch;

use super::clocks::Clocks;
use super::field::{self, Progress};
use super::handle::{self, Handle};
use super::policies::{self, Judges};
use super::{Engine, vrfs};
use crate::config::{Config, HostWay, LocalRule, MarkMask};
use crate::contention::Contention;
use crate::networks::links::Links;
use crate::networks::{Networks, Stale};
use crate::observed::Observed;
use crate::plan::Tree;
use crate::store::{Field, Store};

impl Engine {
    /// Opens everything in the current thread's network namespace. Changes nothing on the host. `marks` is rung when
    /// whoever watches the marks shall look again.
    pub fn open(
        config: Config,
        paths: Paths,
        cgroup: PathBuf,
        marks: Arc<OwnedFd>,
    ) -> anyhow::Result<(Engine, Handle)> {
        let mut store = Store::open(&paths.state())?;
        let tenants = store.tenants()?;
        let (networks, endpoints, uplinks) = (store.networks()?, store.endpoints()?, store.uplinks()?);
        if config.mark_mask == MarkMask::None {
            vrfs::need_no_marks(&tenants, &networks)?;
        }
        let (network_policies, begun) = (store.policies()?, Instant::now());
        let now = policies::now(begun);
        let policies = policies::compiled(&mut store, &tenants, &endpoints, &network_policies, now)?;
        let (field, goal) = field::placed(&config, &paths, &mut store)?;
        let layout = goal.as_ref().map(|(goal, _)| *goal).or(field.as_ref().map(Field::narrowest));
        let of_tenants = tenants.iter().map(|(name, stored)| ("tenant", name, stored.slot));
        let slots = of_tenants.chain(uplinks.iter().map(|(name, uplink)| ("uplink", name, uplink.slot)));
        if let Some(layout) = layout
            && let Some((kind, name, slot)) =
                slots.into_iter().find(|(.., slot)| slot.number() > layout.highest())
        {
            anyhow::bail!(
                "{kind} {name} has slot {slot}, which the mark field {layout} cannot hold; widen markMask in fiefd.yaml"
            );
        }
        let aliases = Ranges {
            v4: config.alias_range,
            v6: Ipv6Net::new_assert(Ipv6Addr::from(u128::from(store.alias_network()?) << 64), 64),
        };
        let local_moved = config.local_rule == LocalRule::Move;
        let netns_cookie = fief_host::kernel::network_namespace_cookie()?;
        let settings = field.as_ref().map(|field| Settings {
            positions: field.positions(),
            local_moved,
            // Known once the switch has been set, which is before programs are loaded.
            foreign_accepted: false,
            netns_cookie,
            aliases,
            cgroup: std::fs::metadata(&cgroup).map(|m| m.ino()).unwrap_or(0),
        });
        let trees = field.as_ref().map(Field::trees);
        let links = Links(config.link_range);
        let tree = Tree {
            field: trees.map(|(of_field, _)| of_field),
            also: trees.and_then(|(_, also)| also),
            links,
            entry: config.rule_preference,
            table_base: config.table_base,
            move_local: local_moved,
            vrf_rule_is_ours: store.vrf_rule_is_ours()?,
            aliases,
            detour: Detour(settings.as_ref().map_or(0, fief_datapath::detour)),
            short_way: config.host_way == HostWay::Short,
        };
        // Subscribed before the first listing: what happens in between is then an event.
        let monitor = Monitor::open()?;
        let host = LinuxHost::open()?;
        let ((job_sender, jobs), (view_sender, views)) = (channel(), channel());
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (revision, watcher) = watch::channel(1);
        // Those of an earlier daemon are there already.
        let leased = Arc::new(AtomicBool::new(!networks.is_empty()));
        let (told, ring) = (leased.clone(), bell.clone());
        let ring = move || handle::ring(&ring);
        let on_verdict = Arc::new(ring.clone());
        let on_lease = Box::new(move || {
            told.store(true, Ordering::Release);
            ring();
        });
        let segments = Networks::new(&paths, links, local_moved, tree.short_way, on_lease, on_verdict);
        let handle = Handle { jobs: job_sender, views: view_sender, bell: bell.clone(), revision: watcher };
        let engine = Engine {
            config,
            paths,
            cgroup,
            tree,
            settings,
            store,
            field,
            goal,
            progress: Progress::default(),
            intruders: Vec::new(),
            taken: 0,
            watcher: marks,
            tenants,
            networks,
            endpoints,
            network_policies,
            policies,
            judges: Judges::default(),
            begun,
            uplinks,
            segments,
            stale: Stale::all(),
            links: Arc::default(),
            overlapping: HashSet::new(),
            no_vrf: vrfs::ask_for_vrfs(),
            leases: HashMap::new(),
            leased,
            host,
            monitor,
            observed: Observed::default(),
            desired: HashMap::new(),
            datapath: None,
            attached: Vec::new(),
            installed: HashSet::new(),
            repairs: Contention::with_breath(Duration::from_millis(100)),
            refusals: Contention::default(),
            refused: HashMap::new(),
            trouble: Vec::new(),
            underway: HashSet::new(),
            setbacks: 0,
            repaired: 0,
            last_reconcile: Duration::ZERO,
            clocks: Clocks::default(),
            jobs,
            views,
            bell,
            revision,
            stop: false,
        };
        Ok((engine, handle))
    }
}
