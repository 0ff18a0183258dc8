//! What a policy would have done over the mirror's history: the same evaluator, begun with nothing recorded.
//!
//! It knows who held which line when, what was written when, and when people were away, as far as the log tells it. Teams,
//! supervisors, backups, hours and on-call orders are those of now. Nobody answers an offer that was not made: it runs out,
//! unless the line changed hands at that time for whatever reason.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;

use crate::escalation::evaluate::{Counts, Inputs, Run, evaluate};
use crate::escalation::history::{self, Wants, Window};
use crate::escalation::look;
use crate::escalation::policy::{Policy, When};
use crate::escalation::world::World;
use crate::people::import;

/// A stretch of time may be so long.
pub const SPAN_MAX: SignedDuration = SignedDuration::from_hours(400 * 24);
/// Conversations that are read at once.
const CHUNK: i64 = 200;
/// So many messages of one conversation are read, the newest.
const MESSAGES_MAX: i64 = 20_000;
/// What a customer wrote before the stretch begins may still wait for an answer.
const BEFORE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What to look back at.
#[derive(Debug)]
pub struct Backtest {
    pub policy: Policy,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// An escalation that would have been.
#[derive(Debug, Clone)]
pub struct Would {
    pub conversation_sid: String,
    pub line: String,
    pub run: Run,
}

/// How many of what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    pub conversations: usize,
    pub escalations: usize,
    /// By rule.
    pub by_rule: BTreeMap<String, usize>,
    /// By why they ended; those that did not are `open`.
    pub by_end: BTreeMap<&'static str, usize>,
    /// By how the steps are taken, and `skipped`.
    pub steps: BTreeMap<&'static str, usize>,
}

impl Totals {
    pub fn add(&mut self, run: &Run) {
        self.escalations += 1;
        *self.by_rule.entry(run.rule.clone()).or_default() += 1;
        let end = run.end.map_or("open", |end| end.why.as_str());
        *self.by_end.entry(end).or_default() += 1;
        for taken in &run.steps {
            let how = if taken.to.is_ok() {
                taken.how.as_str()
            } else {
                "skipped"
            };
            *self.steps.entry(how).or_default() += 1;
        }
    }
}

/// Which of what it goes by was so at the time, by mirror, ledger and log.
pub const AS_THEN: [&str; 3] = ["holders", "messages", "absences"];
/// And what is as it is now: of what it was like, nothing is kept.
pub const AS_NOW: [&str; 6] = [
    "teams",
    "supervisors",
    "backups",
    "hours",
    "on_call",
    "departures",
];

/// A part of a back-test.
#[derive(Debug)]
pub struct Part {
    pub would: Vec<Would>,
    pub conversations: usize,
    /// Where the next part begins; none: this was the last one.
    pub next: Option<String>,
}

impl Backtest {
    /// Our people as they were.
    pub async fn world(&self, conn: &mut PgConnection) -> Result<World, sqlx::Error> {
        let (agents, teams) = import::everybody(conn).await?;
        let absences = history::absences(conn, self.from - BEFORE, self.to).await?;
        Ok(World::new(agents, teams).with_absences(absences))
    }

    /// Looks back at up to `limit` conversations after one, in the order of their SIDs.
    pub async fn part(
        &self,
        conn: &mut PgConnection,
        world: &World,
        after: &str,
        limit: i64,
    ) -> Result<Part, sqlx::Error> {
        let mut part = Part {
            would: Vec::new(),
            conversations: 0,
            next: None,
        };
        let wants = Wants::of(std::iter::once(&self.policy));
        let window = Window {
            from: self.from - BEFORE,
            to: self.to,
            messages_max: MESSAGES_MAX,
            is_past: true,
        };
        let mut after = after.to_owned();
        let mut left = limit;
        while left > 0 {
            let wanted = left.min(CHUNK);
            let sids = history::conversations_between(
                conn,
                self.from - BEFORE,
                self.to,
                self.policy.has(|when| matches!(when, When::Unavailable(_))),
                &after,
                wanted,
            )
            .await?;
            let is_last = i64::try_from(sids.len()).is_ok_and(|found| found < wanted);
            let borrowed: Vec<&str> = sids.iter().map(String::as_str).collect();
            let found = history::load(conn, &borrowed, window, wants).await?;
            for sid in &sids {
                if let Some(conversation) = found.get(sid) {
                    for line in conversation.lines() {
                        let facts = conversation.facts(line, world, &[]);
                        part.would.extend(self.of_line(world, sid, line, &facts));
                    }
                }
            }
            part.conversations += sids.len();
            left -= wanted;
            match sids.into_iter().next_back().filter(|_| !is_last) {
                Some(last) => after = last,
                None => return Ok(part),
            }
        }
        part.next = Some(after);
        Ok(part)
    }

    fn of_line(
        &self,
        world: &World,
        sid: &str,
        line: &str,
        facts: &[crate::escalation::evaluate::Fact],
    ) -> Vec<Would> {
        let outlook = evaluate(&Inputs {
            policy: &self.policy,
            version: 0,
            facts,
            world,
            in_force: &|holder| {
                let team = holder.and_then(|holder| world.team_of(holder));
                look::in_force(std::iter::once(&self.policy), line, team).map(|_| Counts::ALWAYS)
            },
            known: &[],
            others: &[],
            since_of_rules: &BTreeMap::new(),
            since: self.from - BEFORE,
            complete_since: self.from - BEFORE,
            now: self.from - BEFORE,
            horizon: self.to,
        });
        let runs = outlook.runs.into_iter();
        // What began before is only how it came to be so.
        runs.filter(|run| run.started_at >= self.from)
            .map(|run| Would {
                conversation_sid: sid.to_owned(),
                line: line.to_owned(),
                run,
            })
            .collect()
    }
}
