//! What an apply or a delete did, or would do, to each object.

use fief_api::{Action, ApplyResponse, Outcome};

use crate::context::Context;
use crate::screen::{Colour, Screen};
use crate::text::{counted, visible};

/// More than these are counted, not listed.
const LISTED: usize = 20;

/// How to tell the outcomes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Telling {
    /// Nothing was done; say what would be.
    pub dry_run: bool,
    /// List every object, however many.
    pub verbose: bool,
    /// The caller may not know what is deleted: list that in any case.
    pub name_deleted: bool,
}

/// Prints `response` on the context's output.
pub fn print(response: &ApplyResponse, telling: Telling, context: &mut Context) -> anyhow::Result<()> {
    if context.print_data(response)? {
        return Ok(());
    }
    tell(response, telling, &mut context.out)
}

fn tell(response: &ApplyResponse, telling: Telling, out: &mut Screen) -> anyhow::Result<()> {
    let ApplyResponse { outcomes, steps } = response;
    let all = telling.verbose || outcomes.len() <= LISTED;
    for outcome in outcomes {
        if all || (telling.name_deleted && outcome.action == Action::Delete) {
            out.line(&line(outcome, telling.dry_run, out))?;
            for reason in reasons(outcome) {
                out.line(&format!("  {reason}"))?;
            }
        }
    }
    if outcomes.is_empty() {
        out.line("nothing to do")?;
    }
    if !all {
        out.line(&summary(outcomes, telling.dry_run))?;
    }
    if all || steps.is_empty() {
        steps.iter().try_for_each(|step| out.line(&format!("  {}", visible(step))))
    } else {
        out.line(&format!("{} (-v lists them)", counted(steps.len(), "step")))
    }
}

/// `tenant/blue created`
fn line(outcome: &Outcome, dry_run: bool, out: &Screen) -> String {
    let done = done(outcome.action, dry_run);
    let done = match outcome.action {
        Action::Create => out.paint(Colour::Good, &done),
        Action::Change => out.paint(Colour::Odd, &done),
        Action::Delete => out.paint(Colour::Bad, &done),
        Action::Unchanged => done,
    };
    format!("{} {done}", object(outcome))
}

/// `tenant/blue`
pub fn object(outcome: &Outcome) -> String {
    visible(&format!("{}/{}", outcome.kind.to_lowercase(), outcome.name))
}

/// `created`, or `would be created`.
pub fn done(action: Action, would: bool) -> String {
    let done = match action {
        Action::Create => "created",
        Action::Change => "changed",
        Action::Delete => "deleted",
        Action::Unchanged => return "unchanged".into(),
    };
    if would { format!("would be {done}") } else { done.into() }
}

/// Why a Pending object waits.
fn reasons(outcome: &Outcome) -> impl Iterator<Item = String> {
    outcome.waits_for().unwrap_or_default().iter().map(|condition| {
        let (reason, message) = (&condition.reason, &condition.message);
        visible(&format!("Pending: {message} ({reason})")).replace('\n', " ")
    })
}

/// `64 objects: 60 created, 4 unchanged; 2 Pending (fief get tenants lists them)`
fn summary(outcomes: &[Outcome], dry_run: bool) -> String {
    let count = |action| outcomes.iter().filter(|outcome| outcome.action == action).count();
    let counts = [Action::Create, Action::Change, Action::Delete, Action::Unchanged]
        .map(|action| (count(action), done(action, dry_run)))
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, done)| format!("{count} {done}"));
    let counts = Vec::from_iter(counts).join(", ");
    let waits = |outcome: &&Outcome| outcome.waits_for().is_some();
    let pending = match outcomes.iter().filter(waits).count() {
        0 => String::new(),
        pending => format!("; {pending} Pending (`fief get all` lists them)"),
    };
    format!("{}: {counts}{pending}", counted(outcomes.len(), "object"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fief_api::{Condition, Counters, Phase, TenantStatus};

    fn outcome(action: Action, phase: Phase) -> Outcome {
        let condition = Condition { reason: "DeviceMissing".into(), message: "eth0 is not there".into() };
        let status = TenantStatus {
            slot: 1,
            table: 1001,
            mark: "0x1/0xffff".into(),
            isolation: "fib".into(),
            phase,
            conditions: vec![condition],
            counters: Counters::default(),
        };
        Outcome {
            kind: "Tenant".into(),
            name: "blue".into(),
            action,
            diff: None,
            status: Some(status),
            standing: None,
        }
    }

    #[test]
    fn verbs() {
        let actions = [Action::Create, Action::Change, Action::Delete, Action::Unchanged];
        assert_eq!(actions.map(|action| done(action, false)), ["created", "changed", "deleted", "unchanged"]);
        let would = ["would be created", "would be changed", "would be deleted", "unchanged"];
        assert_eq!(actions.map(|action| done(action, true)), would);
    }

    #[test]
    fn only_the_pending_have_reasons() {
        let pending = outcome(Action::Create, Phase::Pending);
        assert_eq!(object(&pending), "tenant/blue");
        assert_eq!(Vec::from_iter(reasons(&pending)), ["Pending: eth0 is not there (DeviceMissing)"]);
        assert_eq!(reasons(&outcome(Action::Create, Phase::Ready)).count(), 0);
    }

    #[test]
    fn a_summary_counts_what_there_is() {
        let mut outcomes = vec![outcome(Action::Create, Phase::Ready); 60];
        outcomes.extend(vec![outcome(Action::Unchanged, Phase::Pending); 4]);
        let expected = "64 objects: 60 created, 4 unchanged; 4 Pending (`fief get all` lists them)";
        assert_eq!(summary(&outcomes, false), expected);
        assert!(summary(&outcomes[..60], true).ends_with(": 60 would be created"));
    }
}
