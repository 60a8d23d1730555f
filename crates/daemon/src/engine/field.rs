//! The field moves: from one place in the marks to another, while everything runs.
//!
//! # Theory of operation
//!
//! ```text
//!   phase    written      counts   rule trees   then
//!   (rest)   old          old      old
//!   both     old and new  old      old and new  every socket and connection gets its new place too
//!   read     old and new  new      new
//!   clean    new          new      new          the old bits are taken off sockets and connections
//!   (rest)   new          new      new
//! ```
//!
//! Nothing that is on its way between two neighbouring phases is misread, so programs are replaced one by one, and each
//! phase is in the store before it begins: a daemon that was killed goes on where it was. The step from `both` to `read`
//! waits until no socket says its tenant in the old place only. A half-open connection cannot be changed, and gets up to
//! [`PATIENCE`]; what is left then is closed, for it would be the host's afterwards. A socket in TIME-WAIT answers by the
//! mark of what it answers (`fwmark_reflect`) and needs nothing.
//!
//! An old bit that somebody else has set selects no tenant: a socket's bits are taken over only where its local address
//! is that tenant's, or says nothing; and once the new place counts, the old one is never looked at again.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use fief_api::{FieldView, MovingView, Paths};
use fief_host::sockets::SocketInfo;
use fief_host::teeth::is_off;
use fief_host::{Change, Detour};
use fief_marks::collide::beside;
use fief_marks::{MarkLayout, Positions};
use fief_scan::conflicts::Conflict;

use super::Engine;
use super::apply::Refusal;
use crate::arbiter::{self, Heard, Now};
use crate::config::{Config, MarkMask};
use crate::plan::plan;
use crate::store::{Field, Moving, Phase, Store};

/// How long half-open connections may take; the old place must be gone a minute after the move began.
const PATIENCE: Duration = Duration::from_secs(45);
/// Between the first two looks at sockets; each further pause is longer by as much, up to ten times it: a look goes through
/// the descriptors of all processes.
const LOOK: Duration = Duration::from_millis(200);
const LOOKS: u32 = 10;
/// So many intruders are told of.
const INTRUDERS: usize = 20;
/// The word for a field that is not there.
pub(super) const NONE: &str = "none";
/// TCP_TIME_WAIT (net/tcp_states.h).
const TIME_WAIT: u8 = 6;

/// Where the configuration wants the field, and why.
pub(super) type Goal = (MarkLayout, String);

/// The move as far as this process is concerned.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When the phase began.
    since: Option<Instant>,
    /// When to look again.
    pub look_at: Option<Instant>,
    /// How often that was put off.
    looks: u32,
    /// Sockets that have no new place yet.
    left: usize,
}

/// Whose addresses are, for telling a tenant's socket from one with foreign bits.
struct Owners {
    /// Tenants with VRFs may have the same.
    of: HashSet<(IpAddr, u16)>,
    known: HashSet<IpAddr>,
    slots: HashSet<u16>,
}

impl Owners {
    /// Is a socket with this local address, and this slot in its mark, the tenant's?
    fn agree(&self, slot: u16, local: Option<IpAddr>) -> bool {
        match local.filter(|local| self.known.contains(local)) {
            Some(local) => self.of.contains(&(local, slot)) || is_off("taken-over"),
            None => self.slots.contains(&slot),
        }
    }
}

impl Field {
    /// Where the slot stands in this phase.
    pub(super) fn positions(&self) -> Positions {
        let (read, also) = match &self.moving {
            None => (self.mask, None),
            Some(Moving { to, phase: Phase::Both, .. }) => (self.mask, Some(*to)),
            Some(Moving { to, phase: Phase::Read, .. }) => (*to, Some(self.mask)),
            Some(Moving { to, phase: Phase::Clean, .. }) => (*to, None),
        };
        Positions { read, also }
    }

    /// The rule trees of this phase: the one that counts, and another.
    pub(super) fn trees(&self) -> ((MarkLayout, u8), Option<(MarkLayout, u8)>) {
        let (here, other) = ((self.mask, self.lane), 1 - self.lane);
        match &self.moving {
            None => (here, None),
            Some(Moving { to, phase: Phase::Both, .. }) => (here, Some((*to, other))),
            Some(Moving { to, .. }) => ((*to, other), None),
        }
    }

    /// The place whose bits are being taken off.
    pub(super) fn gone(&self) -> Option<MarkLayout> {
        let is_clean = self.moving.as_ref().is_some_and(|moving| moving.phase == Phase::Clean);
        is_clean.then_some(self.mask)
    }

    /// The narrowest of the places it has or will have: what slots must fit into.
    pub(super) fn narrowest(&self) -> MarkLayout {
        let places = self.moving.iter().flat_map(|moving| [moving.to, moving.goal]);
        places.chain([self.mask]).min_by_key(|layout| layout.width()).unwrap_or(self.mask)
    }
}

/// Where the field stands, as it was left or, the first time, as the configuration or the arbiter says; and where it
/// shall go, with the reason, if the configuration has changed.
pub(super) fn placed(
    config: &Config,
    paths: &Paths,
    store: &mut Store,
) -> anyhow::Result<(Option<Field>, Option<Goal>)> {
    const WRITTEN: &str = "markMask in fiefd.yaml says so";
    let known = store.field()?;
    if config.mark_mask == MarkMask::None {
        if let Some(field) = known {
            tracing::info!(mask = %field.mask, "fief writes no marks any more: markMask in fiefd.yaml says so");
            store.forget_field()?;
        }
        return Ok((None, None));
    }
    let choice = |now| arbiter::choose(&arbiter::registry(&paths.config()), now);
    let goal_of = |field: &Field| field.moving.as_ref().map_or(field.mask, |moving| moving.goal);
    match (known, config.mark_mask) {
        (Some(field), MarkMask::At(mask)) if goal_of(&field) != mask => {
            Ok((Some(field), Some((mask, WRITTEN.to_owned()))))
        }
        // What the configuration had said, and says no longer.
        (Some(field), MarkMask::Auto) if field.moving.is_none() && field.reason == WRITTEN => {
            let choice = choice(None);
            Ok((Some(field), Some((choice.mask, choice.reason))))
        }
        (Some(field), _) => Ok((Some(field), None)),
        (None, mark_mask) => {
            let (mask, reason) = match mark_mask {
                MarkMask::At(mask) => (mask, WRITTEN.to_owned()),
                MarkMask::Auto | MarkMask::None => {
                    let choice = choice(None);
                    (choice.mask, choice.reason)
                }
            };
            tracing::info!(%mask, reason, "the field in the marks");
            let field = Field { mask, lane: 0, reason, moving: None };
            store.keep_field(&field)?;
            Ok((Some(field), None))
        }
    }
}

impl Engine {
    /// Notes who else uses the field's bits, and says it of those that are new.
    pub(super) fn heard(&mut self, heard: Heard) {
        self.taken = heard.taken;
        let say = |c: &Conflict| {
            format!(
                "{} uses bits {} of fief's field: {}; {}; {}",
                c.intruder(),
                c.bits,
                c.place,
                c.breaks,
                c.remedy
            )
        };
        let now: Vec<String> = heard.against.iter().take(INTRUDERS).map(say).collect();
        for intruder in now.iter().filter(|intruder| !self.intruders.contains(intruder)) {
            tracing::warn!("{intruder}");
        }
        if self.intruders != now {
            self.intruders = now;
            self.touch();
        }
    }

    /// Begins to move the field, or says why not. What happens then is told by [`Engine::field_view`].
    pub(crate) fn begin_move(&mut self, goal: MarkLayout, reason: String) -> Result<(), Refusal> {
        let conflict = |message: String, help: &str| Err(Refusal::Conflict(message, Some(help.into())));
        let Some(now) = self.field.clone() else {
            let message = "fief writes no marks on this host: `markMask: none` in fiefd.yaml".to_owned();
            return conflict(message, "write `markMask: auto` there, or a mask, and start fiefd again");
        };
        if let Some(moving) = &now.moving {
            let message = format!("the field is already on its way to {}", moving.goal);
            return conflict(message, "wait until it is there: fief marks move shows how far it is");
        }
        let fits = |layout: MarkLayout| self.slots().all(|slot| slot.number() <= layout.highest());
        if !fits(goal) {
            let message = format!(
                "{goal} holds {} tenants, and a tenant here has a higher slot; nothing was moved",
                goal.capacity()
            );
            return conflict(message, "choose a wider field; slots do not change while a tenant lives");
        }
        if goal == now.mask {
            let field = Field { reason, ..now };
            self.store.keep_field(&field).map_err(|e| Refusal::Store(e.to_string()))?;
            self.field = Some(field);
            return Ok(());
        }
        let to = match goal.mask() & now.mask.mask() {
            0 => goal,
            // Bits that both have cannot say two things at once: by way of a place beside both, and beside others if that
            // can be.
            _ => match self.stopover(&now, goal) {
                Some(stop) => stop,
                None => {
                    let message = format!("{goal} and {} share bits, and nothing lies beside both", now.mask);
                    return conflict(message, "choose a field that shares no bit with the one of now");
                }
            },
        };
        let field = Field { moving: Some(Moving { to, goal, reason, phase: Phase::Both }), ..now };
        tracing::info!(from = %field.mask, %to, %goal, "the field moves");
        self.enter(field)
    }

    fn stopover(&self, now: &Field, goal: MarkLayout) -> Option<MarkLayout> {
        let both = goal.mask() | now.mask.mask();
        let width = now.narrowest().width().min(goal.width());
        beside(both | self.taken, width).or_else(|| beside(both, width))
    }

    /// Goes on with a move when it is time.
    pub(super) fn mind_move(&mut self) {
        loop {
            // A move that was under way when the configuration changed ends first.
            if !self.is_moving()
                && let Some((mask, reason)) = self.goal.take()
                && let Err(refusal) = self.begin_move(mask, reason)
            {
                tracing::error!(?refusal, "the field stays where it is");
            }
            if !self.is_moving() || self.progress.look_at.is_some_and(|at| at > Instant::now()) {
                return;
            }
            self.progress.look_at = None;
            if let Err(error) = self.step() {
                tracing::warn!(?error, "the move of the field is held up");
                self.look_again();
            }
        }
    }

    fn is_moving(&self) -> bool {
        self.field.as_ref().is_some_and(|field| field.moving.is_some())
    }

    fn look_again(&mut self) {
        self.progress.looks = (self.progress.looks + 1).min(LOOKS);
        self.progress.look_at = Some(Instant::now() + LOOK * self.progress.looks);
    }

    /// One step, unless it must wait; then it says when to look again.
    fn step(&mut self) -> Result<(), Refusal> {
        let Some(field) = self.field.clone() else { return Ok(()) };
        let Some(moving) = field.moving.clone() else { return Ok(()) };
        let mask = field.mask;
        if !self.stands() {
            self.look_again();
            return Ok(());
        }
        match moving.phase {
            Phase::Both => {
                self.take_over(mask, moving.to);
                let unmoved = self.unmoved(mask, moving.to)?;
                if self.progress.left != unmoved.len() {
                    self.progress.left = unmoved.len();
                    self.touch();
                }
                let since = *self.progress.since.get_or_insert_with(Instant::now);
                if !unmoved.is_empty() && since.elapsed() < PATIENCE && !is_off("half-open") {
                    self.look_again();
                    return Ok(());
                }
                if !unmoved.is_empty() {
                    let is_left = |socket: &SocketInfo| {
                        unmoved.iter().any(|left| (left.local, left.remote) == (socket.local, socket.remote))
                    };
                    let closed = fief_host::sockets::destroy(is_left).map_err(failed)?;
                    tracing::warn!(
                        closed,
                        "closed what could not be moved: half-open connections, sockets nobody holds"
                    );
                }
                enter_phase(self, field, moving, Phase::Read)
            }
            Phase::Read => enter_phase(self, field, moving, Phase::Clean),
            Phase::Clean => {
                self.take_off(mask, moving.to);
                let Moving { to, goal, reason, .. } = moving;
                let field = Field { mask: to, lane: 1 - field.lane, reason: reason.clone(), moving: None };
                tracing::info!(at = %to, "the field has moved");
                self.enter(field)?;
                if goal == to { Ok(()) } else { self.begin_move(goal, reason) }
            }
        }
    }

    /// Writes down where the field is, and then does as it says.
    fn enter(&mut self, field: Field) -> Result<(), Refusal> {
        self.store.keep_field(&field).map_err(|e| Refusal::Store(e.to_string()))?;
        self.progress = Progress::default();
        let (positions, trees) = (field.positions(), field.trees());
        self.field = Some(field);
        if let Some(settings) = self.settings.as_mut().filter(|settings| settings.positions != positions) {
            settings.positions = positions;
            self.tree.detour = Detour(fief_datapath::detour(settings));
            // The pinned programs stay where they are until their successors sit.
            self.datapath = None;
            // What is made again for other programs is no repair.
            self.installed.clear();
            // A full counter is the only failure, and then it has been rung.
            let _ = rustix::io::write(&*self.watcher, &1_u64.to_ne_bytes());
        }
        (self.tree.field, self.tree.also) = (Some(trees.0), trees.1);
        self.reconcile();
        self.touch();
        Ok(())
    }

    /// Is everything in place that this phase asks for?
    fn stands(&self) -> bool {
        let plan = plan(&self.tree, &self.desired, &self.links, &self.observed);
        let mut rules = plan.add.iter().chain(&plan.remove);
        let is_rule = |change: &Change| matches!(change, Change::AddRule(..) | Change::DeleteRule(..));
        self.trouble.is_empty() && !rules.any(is_rule) && (self.tenants.is_empty() || self.datapath.is_some())
    }

    fn owners(&self) -> Owners {
        let host = self.observed.addresses().filter(|a| !a.ours).map(|a| (a.net.addr(), 0));
        let tenants = self
            .desired
            .iter()
            .flat_map(|(slot, desired)| desired.owned.iter().map(|(address, _)| (*address, slot.number())));
        // A loopback address is everybody's.
        let of: HashSet<(IpAddr, u16)> =
            host.chain(tenants).filter(|(address, _)| !address.is_loopback()).collect();
        let known = of.iter().map(|(address, _)| *address).collect();
        Owners { of, known, slots: self.desired.keys().map(|slot| slot.number()).collect() }
    }

    /// Gives sockets and connections their new place beside the old one.
    fn take_over(&self, mask: MarkLayout, to: MarkLayout) {
        if is_off("take-over") {
            return;
        }
        let owners = self.owners();
        let both = Positions { read: mask, also: Some(to) };
        if let Some(Err(error)) = self.datapath.as_ref().map(fief_datapath::Datapath::remark) {
            tracing::warn!(%error, "TCP sockets keep their marks");
        }
        let wanted = |mark: u32, local: Option<IpAddr>| {
            let slot = mask.number(mark);
            (slot != 0 && owners.agree(slot, local)).then(|| both.with(mark, slot)).flatten()
        };
        note(fief_host::open::remark(|socket| wanted(socket.mark, socket.local)), "sockets");
        note(
            fief_host::conntrack::remark(|mark, ends| {
                let slot = mask.number(mark);
                let is_its = ends.iter().any(|end| owners.of.contains(&(*end, slot)));
                (slot != 0 && is_its).then(|| both.with(mark, slot)).flatten()
            }),
            "connections",
        );
    }

    /// Takes the old place off where it still says what the new one says.
    fn take_off(&self, gone: MarkLayout, now: MarkLayout) {
        if let Some(Err(error)) = self.datapath.as_ref().map(fief_datapath::Datapath::remark) {
            tracing::warn!(%error, "TCP sockets keep their marks");
        }
        let wanted = |mark: u32| {
            let slot = now.number(mark);
            (slot != 0 && gone.number(mark) == slot).then_some(mark & !gone.mask())
        };
        note(fief_host::open::remark(|socket| wanted(socket.mark)), "sockets");
        note(fief_host::conntrack::remark(|mark, _| wanted(mark)), "connections");
    }

    /// Sockets that say their tenant in the old place only.
    fn unmoved(&self, mask: MarkLayout, to: MarkLayout) -> Result<Vec<SocketInfo>, Refusal> {
        let owners = self.owners();
        let is_unmoved = |socket: &SocketInfo| {
            let slot = mask.number(socket.mark);
            let ip = socket.local.ip().to_canonical();
            let local = (!ip.is_unspecified()).then_some(ip);
            slot != 0
                && to.number(socket.mark) != slot
                && socket.state != TIME_WAIT
                && owners.agree(slot, local)
        };
        let mut sockets = fief_host::sockets::list().map_err(failed)?;
        sockets.retain(is_unmoved);
        Ok(sockets)
    }

    /// Where the field is, and whose numbers stand in it.
    pub(crate) fn field_now(&self) -> Option<Now> {
        let read = self.positions()?.read;
        Some((read, self.slots().map(|slot| slot.number()).collect()))
    }

    /// Where the slot stands in marks; `None` where fief writes none.
    pub(super) fn positions(&self) -> Option<Positions> {
        self.field.as_ref().map(Field::positions)
    }

    /// Does fief write no marks on this host?
    pub(crate) fn is_markless(&self) -> bool {
        self.field.is_none()
    }

    /// Where the field is, for people.
    pub(crate) fn field_view(&self) -> FieldView {
        let configured = match self.config.mark_mask {
            MarkMask::Auto => None,
            MarkMask::None => Some(NONE.to_owned()),
            MarkMask::At(mask) => Some(mask.to_string()),
        };
        let Some(field) = &self.field else {
            return FieldView {
                mask: NONE.into(),
                also: None,
                tenants: 0,
                reason: "markMask in fiefd.yaml says that fief writes no marks".into(),
                configured,
                moving: None,
                intruders: Vec::new(),
            };
        };
        let Positions { read, also } = field.positions();
        FieldView {
            mask: read.to_string(),
            also: also.map(|also| also.to_string()),
            tenants: field.narrowest().capacity(),
            reason: field.reason.clone(),
            configured,
            moving: field.moving.as_ref().map(|moving| MovingView {
                from: field.mask.to_string(),
                to: moving.goal.to_string(),
                phase: match moving.phase {
                    Phase::Both => "both",
                    Phase::Read => "read",
                    Phase::Clean => "clean",
                }
                .into(),
                sockets_left: self.progress.left,
                seconds: self.progress.since.map_or(0, |since| since.elapsed().as_secs()),
            }),
            intruders: self.intruders.clone(),
        }
    }
}

fn enter_phase(engine: &mut Engine, field: Field, moving: Moving, phase: Phase) -> Result<(), Refusal> {
    engine.enter(Field { moving: Some(Moving { phase, ..moving }), ..field })
}

fn failed(error: fief_host::HostError) -> Refusal {
    Refusal::Conflict(error.to_string(), None)
}

fn note(done: Result<usize, fief_host::HostError>, what: &str) {
    match done {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, what, "marks changed"),
        Err(error) => tracing::warn!(%error, what, "marks stay as they are"),
    }
}
