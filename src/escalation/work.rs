//! Works off what is due: lines are taken in sets, looked at, and what follows is written in one transaction.
//!
//! A look may die anywhere: its lease runs out, and another one begins anew. What happens to a line meanwhile takes the
//! lease away, and then nothing of the look is written for it: who has just answered is left alone.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use crate::clock::Clock;
use crate::db::is_passing;
use crate::escalation::act::{self, Act};
use crate::escalation::evaluate::{Run, Taken};
use crate::escalation::look::{self, Judged, Seen, Standing};
use crate::escalation::policy::How;
use crate::escalation::store::watch::{self, Key};
use crate::escalation::store::{self, Begun, Changed, StepRow};
use crate::escalation::tell::{About, POLICY};
use crate::events::{self, Kind, NewEvent};
use crate::ids::{ConversationSid, Identity, new_id};
use crate::queue::NewTask;
use crate::{config, queue};

/// How long a look may take before another one begins.
const LEASE: SignedDuration = SignedDuration::from_secs(20);
/// After a look that failed.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks that news brought about.
const GAP: Duration = Duration::from_millis(50);
/// A line that cannot be looked at is left alone so long.
const TROUBLED_PAUSE: SignedDuration = SignedDuration::from_mins(1);

/// Works off what is due. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Escalator {
    pub pool: PgPool,
    pub clock: Clock,
    pub settings: config::Escalation,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    pub lines: usize,
    /// Lines to which something happened meanwhile.
    pub overtaken: usize,
    pub steps: usize,
}

impl Escalator {
    /// Works until cancelled. Whatever marks a line is in the log too, so that news of that wake it; without them, or where
    /// one is lost, it looks by the clock.
    pub async fn run(self, mut news: tokio::sync::watch::Receiver<u64>, cancel: CancellationToken) {
        let mut limit = self.settings.batch;
        while !cancel.is_cancelled() {
            let began = Instant::now();
            news.mark_unchanged();
            let (pause, listens) = match self.look(&mut limit).await {
                // As long as the look took: of many deadlines at once, webhooks are to notice little.
                Ok(looked) if looked.lines > 0 => (began.elapsed(), false),
                Ok(_) => self.pause().await,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot look at lines, trying again"
                    );
                    (PAUSE, false)
                }
            };
            let woken = async {
                tokio::time::sleep(GAP).await;
                if !listens || news.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = woken => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Works off what is due until nothing is. Answers how many lines that took.
    pub async fn run_until_idle(&self) -> Result<usize, sqlx::Error> {
        let mut limit = self.settings.batch;
        let mut lines = 0;
        loop {
            let looked = self.look(&mut limit).await?;
            if looked.lines == 0 {
                return Ok(lines);
            }
            lines += looked.lines;
        }
    }

    /// How long nothing is due, and whether something may be before.
    async fn pause(&self) -> (Duration, bool) {
        let next = async {
            let mut conn = self.pool.acquire().await?;
            watch::next_due(&mut conn).await
        };
        let (until, is_in_use) = next.await.unwrap_or((None, false));
        let until = until.and_then(|at| Duration::try_from(at.duration_since(self.clock.now())).ok());
        let pause = until.unwrap_or(self.settings.poll).clamp(
            Duration::from_millis(20),
            self.settings.poll.max(Duration::from_millis(20)),
        );
        (pause, is_in_use)
    }

    /// Looks at those lines that are due longest. Where that fails, at fewer, so that one line does not keep the others.
    pub async fn look(&self, limit: &mut u16) -> Result<Looked, sqlx::Error> {
        let now = self.clock.now();
        let token = Uuid::new_v4();
        let mut conn = self.pool.acquire().await?;
        let keys = watch::claim(&mut conn, token, now, now + LEASE, i64::from(*limit)).await?;
        if keys.is_empty() {
            return Ok(Looked::default());
        }
        match self.look_at(&mut conn, token, &keys, now).await {
            Ok(looked) => {
                *limit = limit.saturating_mul(2).clamp(1, self.settings.batch);
                Ok(looked)
            }
            Err(error) if is_passing(&error) => {
                // Too much at once may be why: what is asked for again is less, until it is done.
                *limit = (*limit / 2).max(1);
                Err(error)
            }
            Err(error) => {
                drop(conn);
                self.leave_alone(token, &keys, now, error).await?;
                *limit = 1;
                Ok(Looked {
                    lines: keys.len(),
                    ..Looked::default()
                })
            }
        }
    }

    async fn leave_alone(
        &self,
        token: Uuid,
        keys: &[Key],
        now: Timestamp,
        error: sqlx::Error,
    ) -> Result<(), sqlx::Error> {
        let again_at = match keys {
            [only] => {
                error!(
                    error = &error as &dyn std::error::Error,
                    conversation.sid = only.conversation_sid,
                    "cannot look at a line, a person has to look"
                );
                now + TROUBLED_PAUSE
            }
            _ => now,
        };
        let mut transaction = self.pool.begin().await?;
        let ours = watch::still_ours(&mut transaction, token, keys).await?;
        let look_at = vec![Some(again_at); ours.len()];
        watch::put_back(&mut transaction, &ours, &look_at).await?;
        transaction.commit().await
    }

    async fn look_at(
        &self,
        conn: &mut PgConnection,
        token: Uuid,
        keys: &[Key],
        now: Timestamp,
    ) -> Result<Looked, sqlx::Error> {
        let standing = Standing::load(conn).await?;
        let seen = look::lines(conn, &standing, keys, now, now).await?;
        let mut transaction = sqlx::Connection::begin(conn).await?;
        let ours: HashSet<Key> = watch::still_ours(&mut transaction, token, keys)
            .await?
            .into_iter()
            .collect();
        let seen: Vec<Seen> = seen.into_iter().filter(|one| ours.contains(&one.key)).collect();
        let mut plan = Plan::default();
        for one in &seen {
            plan.add(one, now);
        }
        let steps = plan.steps.len();
        plan.write(&mut transaction, now).await?;
        let (done, look_at): (Vec<Key>, Vec<_>) = seen
            .into_iter()
            .map(|one| {
                let look_at = one.look_at();
                (one.key, look_at)
            })
            .unzip();
        watch::put_back(&mut transaction, &done, &look_at).await?;
        transaction.commit().await?;
        metrics::counter!("hookswitch_escalation_looks_total").increment(done.len() as u64);
        Ok(Looked {
            lines: keys.len(),
            overtaken: keys.len() - done.len(),
            steps,
        })
    }
}

/// All that is to be written.
#[derive(Default)]
struct Plan {
    begun: Vec<Begun>,
    changed: Vec<Changed>,
    steps: Vec<StepRow>,
    /// Each with the escalation that it is of.
    events: Vec<(Uuid, NewEvent)>,
    acts: Vec<(Uuid, Act)>,
}

impl Plan {
    fn add(&mut self, seen: &Seen, now: Timestamp) {
        for judged in &seen.judged {
            for run in &judged.outlook.runs {
                self.add_run(seen, judged, run, now);
            }
        }
    }

    fn add_run(&mut self, seen: &Seen, judged: &Judged, run: &Run, now: Timestamp) {
        let known = run
            .id
            .and_then(|id| seen.known.iter().find(|(one, _)| one.escalation_id == id));
        if known.is_some_and(|(one, _)| one.finished_at.is_some()) {
            return;
        }
        let about = About {
            escalation_id: run.id.unwrap_or_else(new_id),
            account_sid: seen.account_sid.clone(),
            key: seen.key.clone(),
            policy_id: judged.policy_id.clone(),
            policy_version: judged.version,
            rule: run.rule.clone(),
            cause: run.cause.kind.to_owned(),
        };
        let id = about.escalation_id;
        if known.is_none() {
            self.begun.push(Begun {
                escalation_id: id,
                account_sid: about.account_sid.clone(),
                key: about.key.clone(),
                policy_id: about.policy_id.clone(),
                policy_version: about.policy_version,
                rule: about.rule.clone(),
                cause: run.cause.kind,
                cause_key: run.cause.key.clone(),
                cause_at: run.cause.at,
                holder: run.holder.clone(),
            });
            let facts = json!({ "holder": run.holder, "since": run.cause.at });
            self.tell(&about, Kind::EscalationStarted, facts, now);
        }
        let before = known.map_or(0, |(_, steps)| steps.len());
        for (place, taken) in run.steps.iter().enumerate().skip(before) {
            self.add_step(&about, place, taken, run, now);
        }
        let is_same = known.is_some_and(|(one, steps)| {
            run.end.is_none() && one.next_at == run.next_at && steps.len() == run.steps.len()
        });
        if !is_same {
            self.changed.push(Changed {
                conversation_sid: about.key.conversation_sid.clone(),
                escalation_id: id,
                state: run.end.map_or("open", |end| end.why.state()),
                why: run.end.map(|end| end.why.as_str()),
                stopped_by: None,
                next_at: run.next_at,
                finished_at: run.end.map(|end| end.at),
            });
        }
        if let Some(end) = run.end {
            let kind = match end.why.state() {
                "ended" => Kind::EscalationEnded,
                "needs_person" => Kind::EscalationNeedsPerson,
                _ => Kind::EscalationStopped,
            };
            metrics::counter!("hookswitch_escalations_total", "state" => end.why.state()).increment(1);
            let facts = json!({ "why": end.why.as_str(), "steps": run.steps.len() });
            self.tell(&about, kind, facts, now);
            let standing = known.and_then(|(_, steps)| act::standing_offer(steps));
            let sid = ConversationSid::try_from(about.key.conversation_sid.as_str()).ok();
            if let (Some(transfer_id), Some(conversation_sid)) = (standing, sid) {
                let act = Act::Withdraw {
                    conversation_sid,
                    transfer_id,
                };
                self.acts.push((id, act));
            }
        }
    }

    fn add_step(&mut self, about: &About, place: usize, taken: &Taken, run: &Run, now: Timestamp) {
        let number = i32::try_from(place + 1).unwrap_or(i32::MAX);
        let step = i32::try_from(taken.step + 1).unwrap_or(i32::MAX);
        let (to, code) = match &taken.to {
            Ok(to) => (Some(to.clone()), None),
            Err(why) => (None, Some(*why)),
        };
        let outcome = match (&to, taken.how) {
            (None, _) => "skipped",
            (Some(_), How::Nudge) => "told",
            (Some(_), How::Offer | How::Force) => "asked",
        };
        metrics::counter!("hookswitch_escalation_steps_total", "how" => taken.how.as_str(), "outcome" => outcome)
            .increment(1);
        let facts = step_facts(number, step, taken, to.as_ref(), code, run.next_at);
        match outcome {
            "told" => self.tell(about, Kind::EscalationStepTaken, facts, now),
            "skipped" => self.tell(about, Kind::EscalationStepSkipped, facts, now),
            _ => {
                if let Ok(conversation_sid) = ConversationSid::try_from(about.key.conversation_sid.as_str()) {
                    let act = Act::Start {
                        conversation_sid,
                        escalation_id: about.escalation_id,
                        number,
                    };
                    self.acts.push((about.escalation_id, act));
                }
            }
        }
        self.steps.push(StepRow {
            conversation_sid: about.key.conversation_sid.clone(),
            escalation_id: about.escalation_id,
            number,
            step,
            how: taken.how.as_str(),
            whom: taken.whom.clone(),
            to,
            outcome,
            code,
        });
    }

    fn tell(&mut self, about: &About, kind: Kind, facts: serde_json::Value, now: Timestamp) {
        let entry = about.entry(kind, POLICY, facts, now);
        self.events.push((about.escalation_id, entry));
    }

    async fn write(mut self, conn: &mut PgConnection, now: Timestamp) -> Result<(), sqlx::Error> {
        // What ends makes room for what begins.
        let begun: HashSet<Uuid> = self.begun.iter().map(|one| one.escalation_id).collect();
        let (new, old): (Vec<Changed>, Vec<Changed>) = self
            .changed
            .into_iter()
            .partition(|one| begun.contains(&one.escalation_id));
        store::update(conn, &old, now).await?;
        let inserted: HashSet<Uuid> = store::insert(conn, &self.begun, now).await?.into_iter().collect();
        // What was there already, nobody knows how, is left alone.
        let is_ours = |id: &Uuid| !begun.contains(id) || inserted.contains(id);
        self.steps.retain(|one| is_ours(&one.escalation_id));
        store::update(conn, &new, now).await?;
        store::insert_steps(conn, &self.steps, now).await?;
        let events: Vec<NewEvent> = self
            .events
            .into_iter()
            .filter(|(id, _)| is_ours(id))
            .map(|(_, event)| event)
            .collect();
        events::append(conn, &events).await?;
        let acts = self.acts.into_iter().filter(|(id, _)| is_ours(id));
        let tasks: Vec<NewTask> = acts.map(|(_, act)| act.task(now)).collect();
        queue::put_all(conn, &tasks, now).await
    }
}

/// What an entry says of a step.
pub(super) fn step_facts(
    number: i32,
    step: i32,
    taken: &Taken,
    to: Option<&Identity>,
    code: Option<&str>,
    next_at: Option<Timestamp>,
) -> serde_json::Value {
    json!({
        "number": number,
        "step": step,
        "how": taken.how.as_str(),
        "whom": taken.whom,
        "to": to,
        "code": code,
        "next_at": next_at,
    })
}
