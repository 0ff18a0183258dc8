//! What `hookswitch handover` shows: plans, their lines, and how far they have come.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use uuid::Uuid;

use super::Desk;
use crate::cli::output;
use crate::cli::progress::bar;
use crate::handover::{self, Counts, Direction, Filter, Handover, Line, LineState, State};
use crate::ledger;
use crate::people::judge::Needs;
use crate::people::questions;

impl Desk {
    pub(super) async fn list(&self) -> anyhow::Result<()> {
        let mut conn = self.pool().acquire().await?;
        for plan in handover::page(&mut conn, None, None, None, 100).await? {
            let counts = handover::counts(&mut conn, plan.handover_id).await?;
            output::line(format!(
                "{}  {}  {}  {} of {} lines handed over  made {:.0} by {}",
                plan.handover_id,
                plan.leaver,
                plan.state.as_str(),
                counts.handed_over,
                counts.lines,
                plan.created_at,
                plan.requested_by
            ));
        }
        Ok(())
    }

    pub(super) async fn show(&self, id: Uuid, with_lines: bool) -> anyhow::Result<()> {
        let mut conn = self.pool().acquire().await?;
        let plan = handover::find(&mut conn, id).await?.context("no such plan")?;
        let counts = handover::counts(&mut conn, id).await?;
        let given = handover::given(&mut conn, id).await?;
        say(&plan);
        output::line(format!("lines        {}", counted(&counts)));
        let findings: Vec<String> = given
            .findings
            .iter()
            .map(|(finding, lines)| format!("{lines} {}", finding.as_str()))
            .collect();
        if !findings.is_empty() {
            output::line(format!("found        {}", findings.join(", ")));
        }
        let people: Vec<&str> = given.to.keys().map(String::as_str).collect();
        let loads = ledger::loads(&mut conn, &people).await?;
        let now = self.handovers.clock.now();
        for one in questions::candidates(&mut conn, &people, now, &Needs::default()).await? {
            let capacity = one
                .person
                .as_ref()
                .and_then(|person| person.agent.profile.capacity);
            output::line(format!(
                "to           {}  {} lines; holds {}{}{}",
                one.identity,
                given.to.get(&one.identity).copied().unwrap_or(0),
                loads.get(&one.identity).copied().unwrap_or(0),
                capacity
                    .map(|capacity| format!(" of {capacity}"))
                    .unwrap_or_default(),
                one.skipped
                    .map(|why| format!("; {}", why.detail()))
                    .unwrap_or_default(),
            ));
        }
        if !with_lines {
            return Ok(());
        }
        let mut after: Option<(String, String)> = None;
        loop {
            let place = after.as_ref().map(|(sid, line)| (sid.as_str(), line.as_str()));
            let page = handover::page_of_lines(&mut conn, id, &Filter::default(), place, 500).await?;
            for line in &page {
                output::line(told(line));
            }
            match page.last() {
                Some(last) if page.len() == 500 => {
                    after = Some((last.conversation_sid.to_string(), last.line.as_str().to_owned()));
                }
                _ => return Ok(()),
            }
        }
    }
}

pub(super) fn say(plan: &Handover) {
    let way = match plan.direction {
        Direction::Out => "",
        Direction::Back => ", going back",
    };
    let waits = waits(plan);
    let returns = plan
        .return_at
        .map(|at| format!("; returns {at:.0}"))
        .unwrap_or_default();
    output::line(format!(
        "{}  {}  {}{way}{returns}{waits}",
        plan.handover_id,
        plan.leaver,
        plan.state.as_str()
    ));
}

/// Why it does not get on, where it does not.
fn waits(plan: &Handover) -> String {
    plan.waiting_error
        .as_ref()
        .map(|error| format!("; waits for Twilio: {error}"))
        .unwrap_or_default()
}

/// What there is of each, without what there is none of.
fn counted(counts: &Counts) -> String {
    let named = [
        (counts.lines, "in all"),
        (counts.in_doubt, "in doubt"),
        (counts.waiting, "waiting"),
        (counts.transferring, "under way"),
        (counts.handed_over, "handed over"),
        (counts.stays, "stay"),
        (counts.skipped, "skipped"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
        (counts.going_back, "going back"),
        (counts.returned, "returned"),
        (counts.kept, "kept"),
        (counts.back_failed, "failed to go back"),
    ];
    let some: Vec<String> = named
        .iter()
        .filter(|(number, what)| *number > 0 || *what == "in all")
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    some.join(", ")
}

/// One line of a plan on one line.
fn told(line: &Line) -> String {
    let to = match (&line.to, line.action) {
        (Some(to), _) => format!("to {to}"),
        (None, Some(handover::Action::Release)) => "to nobody".to_owned(),
        (None, _) => "stays".to_owned(),
    };
    let why = line.why.as_deref().unwrap_or("-");
    let passed: Vec<String> = line
        .passed
        .iter()
        .map(|one| format!("{} {}", one.to, one.why))
        .collect();
    let passed = if passed.is_empty() {
        String::new()
    } else {
        format!("; not {}", passed.join(", "))
    };
    let outcome = line
        .outcome
        .as_ref()
        .filter(|_| line.state != LineState::Stays)
        .map(|outcome| format!(" ({outcome})"))
        .unwrap_or_default();
    let back = line.back_state.map_or(String::new(), |back| {
        let why = line
            .back_outcome
            .as_ref()
            .map(|why| format!(" ({why})"))
            .unwrap_or_default();
        format!("; {}{why}", back.as_str())
    });
    format!(
        "{}  {}  {}{outcome}  {to}  by {why}{passed}{back}",
        line.conversation_sid,
        line.finding.as_str(),
        line.state.as_str()
    )
}

/// How far a plan has come, on standard error: a bar on a terminal, and a line now and then where there is none.
pub(super) struct Progress {
    on_terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            on_terminal: std::io::stderr().is_terminal(),
            shown: None,
        }
    }

    pub(super) fn show(&mut self, plan: &Handover, counts: &Counts) {
        let pause = if self.on_terminal {
            Duration::from_millis(100)
        } else {
            Duration::from_secs(10)
        };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let (done, expected) = far(plan, counts);
        let text = counted(counts) + &waits(plan);
        if self.on_terminal {
            write!(
                std::io::stderr().lock(),
                "\r\u{1b}[K{} {text}",
                bar(done, expected)
            )
            .ok();
        } else {
            writeln!(std::io::stderr().lock(), "{text}").ok();
        }
    }

    /// Leaves the line of the bar.
    pub(super) fn end(&mut self) {
        if self.on_terminal && self.shown.take().is_some() {
            writeln!(std::io::stderr().lock()).ok();
        }
    }
}

/// How many lines are done with, of how many.
fn far(plan: &Handover, counts: &Counts) -> (i64, i64) {
    match (plan.state, plan.direction) {
        (State::Planning, _) => (counts.lines - counts.in_doubt, counts.lines),
        (_, Direction::Out) => (counts.lines - counts.waiting - counts.transferring, counts.lines),
        (_, Direction::Back) => (
            counts.returned + counts.kept + counts.back_failed,
            counts.handed_over + counts.transferring,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_none_of_is_not_counted_out() {
        let counts = Counts {
            lines: 12,
            handed_over: 9,
            skipped: 3,
            ..Counts::default()
        };
        assert_eq!(counted(&counts), "12 in all, 9 handed over, 3 skipped");
        assert_eq!(counted(&Counts::default()), "0 in all");
    }
}
