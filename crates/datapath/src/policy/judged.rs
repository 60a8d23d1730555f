//! Asking the programs, without a packet on any wire (BPF_PROG_TEST_RUN).

use aya::{TestRun as _, TestRunOptions};
use fief_policy::tables::RuleNumber;
use fief_policy::verdict::Action;
use fief_policy::{Direction, Identity, Verdict};

use super::Policy;
use super::entries::Last;
use crate::maps::map_error;
use crate::ports::program;
use crate::{DatapathError, chain};

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Did the program let it go on?
    pub passes: bool,
    /// What the tables said; `None` if they were not asked: it is no packet of IP, or cannot be read, or its device is
    /// nobody's.
    pub verdict: Option<Verdict>,
    /// The end that the verdict is about.
    pub subject: Identity,
    /// The other end.
    pub peer: Identity,
}

impl Policy {
    /// What would become of a frame that reaches an endpoint or leaves it: the program itself is asked, as if at the
    /// loopback device of this namespace, whose number is 1, and it remembers what it let pass. Nothing is sent.
    pub fn try_frame(&mut self, direction: Direction, frame: &[u8]) -> Result<Judged, DatapathError> {
        let before = self.lasts()?;
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let name = match direction {
            Direction::Ingress => "gate_out",
            Direction::Egress => "gate_in",
        };
        let ran = program(&mut self.programs, name)?.test_run(options);
        let ran = ran.map_err(|e| DatapathError::Load(format!("run {name}: {}", chain(&e))))?;
        let passes = ran.return_value == TC_ACT_UNSPEC;
        let after = self.lasts()?;
        let judged = before.iter().zip(after).find(|(before, after)| before.judged != after.judged);
        let Some((_, last)) = judged else {
            return Ok(Judged { passes, verdict: None, subject: Identity::ANY, peer: Identity::ANY });
        };
        let (subject, peer) = (Identity(last.subject), Identity(last.peer));
        Ok(Judged { passes, verdict: Some(verdict(&last)), subject, peer })
    }

    fn lasts(&self) -> Result<Vec<Last>, DatapathError> {
        let each = self.last.get(&0, 0).map_err(|e| map_error("policy_last", &e))?;
        Ok(each.iter().copied().collect())
    }
}

/// linux/pkt_cls.h: the next program, or the stack.
const TC_ACT_UNSPEC: u32 = u32::MAX;

/// `enum policy_outcome`, `enum policy_action`.
fn verdict(last: &Last) -> Verdict {
    let action = match last.action {
        0 => Action::Allow,
        1 => Action::Deny,
        2 => Action::Pass,
        _ => Action::Redirect,
    };
    match last.outcome {
        0 => Verdict::Decided(action, RuleNumber(last.rule)),
        1 => Verdict::Open,
        _ => Verdict::Unknown,
    }
}
