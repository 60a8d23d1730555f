//! The probes of one uplink, one round after the other: all its targets are asked at once, and one who answers is
//! enough.

use std::time::{Duration, Instant};

use fief_host::probe::Question;

use super::Probe;
use super::verdict::{Patience, Verdict};

/// An uplink that is probed.
pub struct Watch {
    /// How.
    pub probe: Probe,
    verdict: Verdict,
    /// When the next round begins.
    due: Instant,
    /// The round under way.
    round: Option<Round>,
    /// Tells one round's questions from another's.
    number: u32,
}

struct Round {
    questions: Vec<Question>,
    until: Instant,
    answered: bool,
}

impl Watch {
    /// The first round begins at once.
    pub fn new(probe: Probe, answers: bool, now: Instant) -> Watch {
        // Two daemons in two network namespaces of one wire may ask at the same time.
        let number = std::process::id() << 16;
        Watch { probe, verdict: Verdict::new(answers), due: now, round: None, number }
    }

    /// Goes on with other targets or another address, if anything is other.
    pub fn change(&mut self, probe: Probe, now: Instant) {
        if self.probe != probe {
            self.probe = probe;
            (self.due, self.round) = (now, None);
            self.verdict.begin_again();
        }
    }

    /// Asks, if it is time.
    pub fn begin(&mut self, now: Instant) {
        if self.due > now {
            return;
        }
        self.number = self.number.wrapping_add(1);
        let probe = &self.probe;
        let ask = |target: &_| {
            let asked = Question::ask(probe.device, probe.source, *target, self.number);
            asked.inspect_err(|error| tracing::debug!(uplink = probe.uplink, %error, "not asked")).ok()
        };
        let questions = probe.targets.iter().filter_map(ask).collect();
        self.round = Some(Round { questions, until: now + probe.timeout, answered: false });
        // Not from `due`: what was slept through is not made up for.
        self.due = now + probe.interval;
    }

    /// What is waited for.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        self.round.iter().flat_map(|round| &round.questions)
    }

    /// When there is something to do, if nothing comes.
    pub fn next(&self) -> Instant {
        self.round.as_ref().map_or(self.due, |round| round.until.min(self.due))
    }

    /// Reads what came, and ends the round if it is decided. Says whether the uplink is believed to answer, if that is
    /// news. The time is looked at behind the sockets, so an answer that waited for this thread counts.
    pub fn settle(&mut self, now: impl Fn() -> Instant) -> Option<bool> {
        let round = self.round.as_mut()?;
        round.questions.retain(|question| match question.is_answered() {
            Ok(answered) => {
                round.answered |= answered;
                true
            }
            Err(error) => {
                tracing::debug!(uplink = self.probe.uplink, %error, "not reached");
                false
            }
        });
        if !round.answered && now() < round.until {
            return None;
        }
        let answered = round.answered;
        self.round = None;
        let Probe { fall, rise, .. } = self.probe;
        self.verdict.hear(answered, Patience { fall, rise }).then(|| self.verdict.answers())
    }
}

/// How long a poll may take.
pub fn pause(watches: &[Watch], now: Instant) -> Option<Duration> {
    let next = watches.iter().map(Watch::next).min()?;
    // A poll that ends early would only be made again.
    Some(next.saturating_duration_since(now) + Duration::from_millis(1))
}
