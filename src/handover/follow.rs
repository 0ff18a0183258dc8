//! Following the transfers of a plan to their ends.

use jiff::SignedDuration;

use crate::events;
use crate::handover::store::{Ended, UnderWay};
use crate::handover::tell::line_ended;
use crate::handover::{BackState, Handover, Handovers, Line, LineState, store};

/// A transfer that Twilio keeps waiting for so long is said to be why a plan does not get on.
const STUCK_AFTER: SignedDuration = SignedDuration::from_secs(10);

impl Handovers {
    /// Writes down what became of lines whose transfers have ended, and why the others do not get on. Answers how many are
    /// under way.
    pub(super) async fn follow(&self, seen: &Handover) -> Result<i64, sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        let ended = store::ended(&mut conn, seen.handover_id).await?;
        drop(conn);
        if !ended.is_empty() {
            self.end(seen, ended).await?;
        }
        let stuck_since = self.clock.now() - STUCK_AFTER;
        let mut conn = self.pool.acquire().await?;
        let under_way = store::under_way(&mut conn, seen.handover_id, stuck_since).await?;
        drop(conn);
        if seen.waiting_error != under_way.waiting_error {
            self.note_why(seen, &under_way).await?;
        }
        Ok(under_way.lines)
    }

    /// Writes down why the transfers of a plan wait, or that they do not any more.
    async fn note_why(&self, seen: &Handover, under_way: &UnderWay) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let Some(mut plan) = store::lock(&mut transaction, seen.handover_id).await? else {
            return Ok(());
        };
        if (plan.state, plan.phase) != (seen.state, seen.phase) {
            return Ok(());
        }
        plan.waiting_error.clone_from(&under_way.waiting_error);
        plan.waiting_since = under_way.waiting_since;
        store::update(&mut transaction, &plan).await?;
        transaction.commit().await
    }

    async fn end(&self, seen: &Handover, ended: Vec<Ended>) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let Some(plan) = store::lock(&mut transaction, seen.handover_id).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        let mut told = Vec::new();
        for one in ended {
            let id = plan.handover_id;
            let line = store::lock_line(&mut transaction, id, &one.conversation_sid, &one.line).await?;
            let Some(mut line) = line.filter(|line| is_under_way(line, one.is_back)) else {
                continue;
            };
            let state = one.transfer_state.as_str();
            let outcome =
                (state != "completed").then(|| one.outcome_code.unwrap_or_else(|| state.to_owned()));
            if one.is_back {
                line.back_state = Some(match state {
                    "completed" => BackState::Returned,
                    "superseded" | "cancelled" => BackState::Kept,
                    _ => BackState::Failed,
                });
                line.back_outcome = outcome;
            } else {
                line.state = match state {
                    "completed" => LineState::HandedOver,
                    // Somebody else decided about the line.
                    "superseded" | "cancelled" => LineState::Skipped,
                    _ => LineState::Failed,
                };
                line.outcome = outcome;
            }
            line.finished_at = Some(now);
            store::update_line(&mut transaction, &line).await?;
            told.push(line_ended(&plan, &line, now));
        }
        events::append(&mut transaction, &told).await?;
        transaction.commit().await
    }
}

fn is_under_way(line: &Line, is_back: bool) -> bool {
    if is_back {
        line.back_state == Some(BackState::Transferring)
    } else {
        line.state == LineState::Transferring
    }
}
