//! A daemon in a few lines: it keeps identities, a compiler and tables as a scene wants them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fief_model::Slot;
use fief_policy::identity::Settings;
use fief_policy::reference::Answer;
use fief_policy::tables::{GroupId, PeerClass, SetId};
use fief_policy::verdict::Hits;
use fief_policy::{
    Change, Compiler, Delta, Direction, Identities, Identity, Packet, Policy, PolicyKey, Refused, Sizes,
    Tables, Verdict, Workload,
};

use crate::scene::{End, Scene, Trip, slot};

pub struct Host {
    pub tenant: Slot,
    pub compiler: Compiler,
    pub tables: Tables,
    pub identities: Identities,
    /// Seconds.
    now: u64,
    /// Who has which address.
    pub at: BTreeMap<IpAddr, Identity>,
    policies: BTreeMap<PolicyKey, Policy>,
}

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl Host {
    pub fn new() -> Host {
        Host::with(slot(), Sizes::ENDLESS)
    }

    pub fn with(tenant: Slot, most: Sizes) -> Host {
        Host {
            tenant,
            compiler: Compiler::new(most),
            tables: Tables::default(),
            identities: Identities::new(Settings { grace: 0, ..Settings::default() }),
            now: 0,
            at: BTreeMap::new(),
            policies: BTreeMap::new(),
        }
    }

    pub fn of(scene: &Scene) -> Host {
        let mut host = Host::new();
        host.reach(scene);
        host
    }

    /// Makes everything as the scene has it.
    pub fn reach(&mut self, scene: &Scene) {
        let delta = self.plan(scene).unwrap();
        self.tables.apply(&delta);
        assert_eq!(self.tables.sizes(), self.compiler.sizes());
    }

    /// What changes. The compiler is then as if it had been carried out.
    pub fn plan(&mut self, scene: &Scene) -> Result<Delta, Refused> {
        let tenant = self.tenant;
        let mut changes = Vec::new();
        let mut at = BTreeMap::new();
        for pod in &scene.pods {
            let acquired = self.identities.acquire(pod.workload()).unwrap();
            changes.push(Change::Identity(tenant, acquired.identity, acquired.workload));
            changes.push(Change::Subject(tenant, acquired.identity));
            assert!(at.insert(pod.address, acquired.identity).is_none(), "{} twice", pod.address);
        }
        self.now += 1;
        self.at.values().for_each(|identity| self.identities.release(*identity, self.now));
        self.now += 1;
        let over = self.identities.collect(self.now);
        changes.extend(over.into_iter().map(|identity| Change::NoIdentity(tenant, identity)));
        let policies: BTreeMap<PolicyKey, Policy> =
            scene.policies(tenant).into_iter().map(|policy| (policy.key.clone(), policy)).collect();
        let gone = self.policies.keys().filter(|key| !policies.contains_key(key)).cloned();
        changes.extend(gone.map(Change::NoPolicy));
        let new = policies.iter().filter(|(key, policy)| self.policies.get(key) != Some(policy));
        changes.extend(new.map(|(_, policy)| Change::Policy(policy.clone())));
        let delta = self.compiler.update(changes)?;
        (self.at, self.policies) = (at, policies);
        Ok(delta)
    }

    /// What the tables say of one end of a trip.
    pub fn verdict(&self, scene: &Scene, trip: &Trip, direction: Direction) -> Verdict {
        self.verdict_in(&self.tables, scene, trip, direction)
    }

    /// The same, in other tables.
    pub fn verdict_in(&self, tables: &Tables, scene: &Scene, trip: &Trip, direction: Direction) -> Verdict {
        let (subject, peer) = trip.seen(direction);
        let address = |end| match end {
            End::Pod(pod) => scene.pods[pod].address,
            End::World(address) => address,
        };
        let identity = |end| self.at.get(&address(end)).copied();
        tables.lookup(&Packet {
            tenant: self.tenant,
            subject: identity(subject).unwrap_or(Identity::ANY),
            direction,
            peer: identity(peer).unwrap_or(Identity::WORLD),
            address: address(peer),
            protocol: trip.protocol,
            port: trip.port,
        })
    }

    /// The verdict as the reference says it.
    pub fn answer(&self, verdict: Verdict) -> Option<Answer> {
        match verdict {
            Verdict::Open => None,
            Verdict::Unknown => panic!("an unknown subject"),
            Verdict::Decided(action, rule) => {
                let written = &self.tables.written[&rule];
                let (policy, path) = ((*written.policy).clone(), written.origin.path.to_string());
                Some(Answer { action, policy, path })
            }
        }
    }

    /// Asks tables and reference of one end of a trip, and insists that they agree on the rule that decides.
    pub fn agree(&self, scene: &Scene, trip: &Trip, direction: Direction) -> Option<Answer> {
        let verdict = self.verdict(scene, trip, direction);
        let (tables, reference) = (self.answer(verdict), scene.reference(trip, direction));
        assert_eq!(tables, reference, "{direction:?} {trip:?}\n{scene:#?}");
        reference
    }

    /// Everything in the tables, without numbers that depend on the way that led here.
    pub fn content(&self) -> BTreeMap<(Workload, Direction), Content> {
        let tables = &self.tables;
        let named = |identity: Identity| match self.identities.workload(identity) {
            Some(workload) => format!("{workload:?}"),
            None => identity.to_string(),
        };
        let mut sets: BTreeMap<SetId, Content> = BTreeMap::new();
        for (key, class) in &tables.ports {
            let ports = &mut sets.entry(key.set).or_default().ports;
            ports.insert((key.protocol, key.length, key.port), *class);
        }
        let rule = |set, rank| {
            let written = &tables.written[&tables.ranks[&(set, rank)]];
            format!("{} {}", written.policy, written.origin)
        };
        // Classes of peers have other numbers on another way: what counts is what each identity gets.
        let mut hits: BTreeMap<SetId, BTreeMap<PeerClass, Vec<String>>> = BTreeMap::new();
        for (key, Hits(found)) in &tables.verdicts {
            let found = found
                .map(|hit| hit.rule().map(|(rank, action)| format!("{action:?} {}", rule(key.set, rank))));
            let of_set = hits.entry(key.set).or_default().entry(key.peer).or_default();
            of_set.push(format!("{} {found:?}", key.class));
            of_set.sort();
        }
        let fixed = |class: &PeerClass| class.0 < 2 || class.0 >= Identity::FIRST_BLOCK.0;
        for (set, header) in &tables.sets {
            let content = sets.entry(*set).or_default();
            content.lengths = header.lengths;
            let mut hits = hits.remove(set).unwrap_or_default();
            let mut verdicts: BTreeMap<String, Vec<String>> = hits
                .iter()
                .filter(|(class, _)| fixed(class))
                .map(|(class, hits)| (class.0.to_string(), hits.clone()))
                .collect();
            for ((_, identity), class) in tables.peers.iter().filter(|((group, _), _)| *group == header.peers)
            {
                verdicts.insert(named(*identity), hits.get(class).cloned().unwrap_or_default());
            }
            hits.retain(|class, _| !fixed(class));
            let in_use = |class: &PeerClass| {
                tables.peers.iter().any(|((group, _), of)| *group == header.peers && of == class)
            };
            assert!(hits.keys().all(in_use), "verdicts for peers who are gone");
            content.verdicts = verdicts;
            let of_group = tables.blocks.iter().filter(|((group, _), _)| *group == header.group);
            content.blocks = of_group.map(|((_, net), identity)| (net.to_string(), *identity)).collect();
            assert_eq!(content.blocks.is_empty(), header.group == GroupId::default());
        }
        let used: BTreeSet<SetId> =
            tables.subjects.values().flat_map(|s| [s.after.ingress, s.after.egress]).collect();
        let kept: BTreeSet<SetId> = tables.sets.keys().copied().chain([SetId::default()]).collect();
        assert!(used.is_subset(&kept), "a subject with a set that is not there");
        assert_eq!(
            tables.sets.len(),
            used.iter().filter(|set| **set != SetId::default()).count(),
            "old sets"
        );
        assert_eq!(tables.written.len(), tables.written.keys().collect::<BTreeSet<_>>().len());
        let mut content = BTreeMap::new();
        for ((_, identity), subject) in &tables.subjects {
            let workload = (**self.identities.workload(*identity).unwrap()).clone();
            for direction in Direction::BOTH {
                let set = sets.get(&subject.at(tables.generation).of(direction)).cloned().unwrap_or_default();
                content.insert((workload.clone(), direction), set);
            }
        }
        content
    }
}

/// What a set holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    lengths: [u32; 4],
    ports: BTreeMap<(u8, u8, u16), u16>,
    blocks: BTreeMap<String, Identity>,
    verdicts: BTreeMap<String, Vec<String>>,
}
