//! What is made of an escalation that is recorded: of which cause it is, when it goes on, and why it is no longer so. Pure.

use jiff::Timestamp;

use super::{Fact, Run, Standing, What, Why};
use crate::escalation::policy::{Rule, Then};
use crate::escalation::world::World;

/// Whether keys are of the same cause. A time that was cut to the second may be known better by now.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let split = |key| -> Option<(i64, &str)> {
        let (since, what) = str::split_once(key, ':')?;
        Some((since.parse::<i64>().ok()?.div_euclid(1_000_000), what))
    };
    one == other || split(one).is_some_and(|one| split(other) == Some(one))
}

/// A hand-over begins the waiting anew.
pub(super) fn waiting_key(message: &str, since: Timestamp) -> String {
    format!("{}:{message}", since.as_microsecond())
}

/// When a run goes on.
pub(super) fn next_at(rule: &Rule, run: &Run, world: &World) -> Option<Timestamp> {
    let Some(taken) = run.steps.last() else {
        return Some(run.started_at);
    };
    let lasts = rule.steps.get(taken.step).map(|step| step.lasts)?;
    let in_full = || world.after(&rule.hours, run.holder.as_ref(), taken.at, lasts);
    let is_repeated = taken.step + 1 == rule.steps.len() && rule.then == Then::RepeatLast;
    match taken.state {
        Standing::Runs => in_full(),
        Standing::Accepted => None,
        // Nobody is asked again at once who has just declined.
        Standing::Over(_) if is_repeated => in_full(),
        Standing::Over(at) => Some(at.max(taken.at)),
    }
}

/// Why a run that stands is not derived any more: something came late that had happened before it began.
pub(super) fn why_gone(facts: &[Fact], run: &Run, now: Timestamp) -> (Timestamp, Why) {
    let after = facts
        .iter()
        .filter(|fact| fact.at >= run.cause.at && fact.at <= now);
    let mut found = after.filter_map(|fact| {
        let why = match &fact.what {
            What::Answer => Why::Answered,
            What::Closed => Why::Closed,
            What::Gone => Why::LineGone,
            What::Held(Some(holder)) if Some(holder) != run.holder.as_ref() => Why::HandedOver,
            What::Held(None) if run.holder.is_some() => Why::Unstaffed,
            What::Back(who) if Some(who) == run.holder.as_ref() && run.cause.kind == "unavailable" => {
                Why::Back
            }
            _ => return None,
        };
        Some((fact.at, why))
    });
    found.next().unwrap_or((now, Why::NoLongerSo))
}
