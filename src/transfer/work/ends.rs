//! How a swap ends: what Twilio shows, the transfer, the ledger, the log, the lease and the task in one transaction.

use sqlx::PgConnection;
use tracing::info;

use super::{Hold, Run, Seen, Stop};
use crate::events::{Kind as EventKind, Via, transfer_cause};
use crate::ledger;
use crate::mirror::{Observed, Revisions};
use crate::outbox::{NewOutboundMessage, Outbox, SendError};
use crate::projection;
use crate::projection::read::Failure;
use crate::queue::{self, Outcome};
use crate::transfer::machine::Next;
use crate::transfer::tell::{tell, tell_with};
use crate::transfer::{State, step as steps, store};

impl Run<'_> {
    /// The last look showed what is still to do; whether anything was done says how it ends.
    pub(super) async fn time_is_up(&mut self, step: &Next, seen: &Seen) -> Result<Outcome, Stop> {
        if let Next::Remove { participant_sid } = step {
            let has_arrived = seen.has_on_line(&self.hold.transfer);
            let detail = format!(
                "{}, and somebody who has to go could not be removed in time: participant {participant_sid}",
                if has_arrived {
                    "the new holder is on the line"
                } else {
                    "the new holder is not on the line yet"
                }
            );
            return self
                .end(State::NeedsAttention, "old_holder_remains", &detail, seen)
                .await;
        }
        let detail = if self.hold.transfer.contested_from.is_none() {
            "Twilio did not do it in time; nothing was changed"
        } else {
            "Twilio did not do it in time; the line is as the last reading shows it"
        };
        self.end(State::Failed, "timed_out", detail, seen).await
    }

    pub(super) async fn complete(
        &mut self,
        seen: &Seen,
        method: Option<&'static str>,
    ) -> Result<Outcome, Stop> {
        let mut tried = Vec::new();
        if method.is_none() {
            let mut conn = self.hold.swap.pool.acquire().await?;
            let sid = self.hold.transfer.conversation_sid.as_str();
            tried = steps::steps(&mut conn, sid, self.hold.transfer.transfer_id).await?;
        }
        let earlier = tried.last().map(|step| {
            if step.action == "update" {
                "update"
            } else {
                "add_remove"
            }
        });
        self.hold.transfer.method = Some(method.or(earlier).unwrap_or("none").to_owned());
        self.conclude(State::Completed, seen).await
    }

    pub(super) async fn end(
        &mut self,
        state: State,
        code: &str,
        detail: &str,
        seen: &Seen,
    ) -> Result<Outcome, Stop> {
        self.hold.transfer.outcome_code = Some(code.to_owned());
        self.hold.transfer.outcome_detail = Some(detail.to_owned());
        self.conclude(state, seen).await
    }

    async fn conclude(&mut self, state: State, seen: &Seen) -> Result<Outcome, Stop> {
        let observed = self.observed(seen);
        self.hold
            .conclude(state, Some((&observed, &seen.revisions)))
            .await
    }

    fn observed(&self, seen: &Seen) -> Vec<Observed> {
        seen.changes
            .iter()
            .map(|change| Observed {
                account_sid: self.account.account_sid.clone(),
                change: change.clone(),
                cause: transfer_cause(self.hold.transfer.transfer_id),
                source: None,
            })
            .collect()
    }
}

impl Hold<'_> {
    pub(super) fn is_overdue(&self) -> bool {
        self.transfer.is_overdue(self.swap.clock.now())
    }

    /// The time is up, and Twilio cannot be read.
    pub(super) async fn end_unread(&mut self, why: &str) -> Result<Outcome, Stop> {
        let (state, code, what) = if self.transfer.contested_from.is_none() {
            let what = "Twilio was never asked for a change, since it could not be read";
            (State::Failed, "timed_out", what)
        } else {
            let what = "a change was asked for, and Twilio cannot be read to see whether it was done";
            (State::NeedsAttention, "outcome_unknown", what)
        };
        self.transfer.outcome_code = Some(code.to_owned());
        self.transfer.outcome_detail = Some(format!("{what}: {why}"));
        self.conclude(state, None).await
    }

    /// The end: what Twilio shows, the transfer, the ledger, the log, the lease and the task in one transaction.
    async fn conclude(
        &mut self,
        state: State,
        seen: Option<(&[Observed], &Revisions)>,
    ) -> Result<Outcome, Stop> {
        let now = self.swap.clock.now();
        let mut transaction = self.swap.pool.begin().await?;
        // The conversation's row first, as everywhere: mirror, then what hangs on it.
        if let Some((observed, revisions)) = seen {
            projection::commit(&mut transaction, observed, Via::Rest, Some(revisions), now).await?;
        }
        if !queue::finish(&mut transaction, self.task.lease).await? {
            return Err(Stop::Fenced);
        }
        self.check_line(&mut transaction).await?;
        self.transfer.state = state;
        self.transfer.updated_at = now;
        self.transfer.finished_at = Some(now);
        self.transfer.waiting = None;
        if state == State::Completed {
            self.introduce(&mut transaction).await?;
        }
        if self.transfer.contested_from.is_some() && state != State::NeedsAttention {
            self.transfer.contested_to = Some(now);
        }
        store::update(&mut transaction, &self.transfer).await?;
        let (sid, line) = (
            self.transfer.conversation_sid.as_str(),
            self.transfer.line.as_str(),
        );
        ledger::release_line(&mut transaction, sid, line, self.transfer.transfer_id).await?;
        let kind = match state {
            State::Completed => EventKind::TransferCompleted,
            State::NeedsAttention => EventKind::TransferNeedsAttention,
            _ => EventKind::TransferFailed,
        };
        tell(
            &mut transaction,
            &self.transfer,
            kind,
            "hookswitch",
            Via::Worker,
            now,
        )
        .await?;
        transaction.commit().await?;
        info!(
            state = state.as_str(),
            code = self.transfer.outcome_code,
            "transfer {} {}",
            self.transfer.transfer_id,
            state.as_str()
        );
        metrics::counter!("hookswitch_transfers_total", "state" => state.as_str()).increment(1);
        Ok(Outcome::Finished)
    }

    /// Puts the new holder's introduction into the outbox, in the transaction that completes the transfer: once. The line
    /// is theirs whether it can be posted or not.
    async fn introduce(&mut self, conn: &mut PgConnection) -> Result<(), Stop> {
        let (Some(body), Some(to)) = (
            self.transfer.introduction.clone(),
            self.transfer.to_holder.clone(),
        ) else {
            return Ok(());
        };
        let outbox = Outbox {
            pool: self.swap.pool.clone(),
            clock: self.swap.clock.clone(),
        };
        let message = NewOutboundMessage {
            conversation_sid: self.transfer.conversation_sid.clone(),
            line: Some(self.transfer.line.clone()),
            as_holder: Some(to),
            body,
            attributes: None,
            requested_by: transfer_cause(self.transfer.transfer_id),
        };
        let code = match outbox.send_in(conn, message).await {
            Ok(message) => {
                self.transfer.introduction_send_id = Some(message.outbound_message_id);
                return Ok(());
            }
            Err(SendError::Database(error)) => return Err(error.into()),
            Err(SendError::ConversationNotFound | SendError::ConversationClosed) => "conversation_closed",
            Err(SendError::LineNotFound | SendError::LineAmbiguous { .. }) => "line_not_found",
            Err(SendError::NotTheHolder { .. }) => "not_the_holder",
        };
        let (kind, now) = (EventKind::TransferIntroductionFailed, self.swap.clock.now());
        let facts = serde_json::json!({ "code": code });
        tell_with(conn, &self.transfer, kind, "hookswitch", Via::Worker, facts, now).await?;
        Ok(())
    }

    /// Both fences hold, and do so until the transaction ends.
    pub(super) async fn check_fences(&self, conn: &mut PgConnection) -> Result<(), Stop> {
        if !queue::is_held(conn, self.task.lease).await? {
            return Err(Stop::Fenced);
        }
        self.check_line(conn).await
    }

    async fn check_line(&self, conn: &mut PgConnection) -> Result<(), Stop> {
        let (sid, line) = (
            self.transfer.conversation_sid.as_str(),
            self.transfer.line.as_str(),
        );
        if ledger::line_fence_holds(conn, sid, line, self.lease).await? {
            Ok(())
        } else {
            Err(Stop::Fenced)
        }
    }
}

/// The innermost cause, which says most to a person.
pub(super) fn root(failure: &Failure) -> String {
    let mut cause: &dyn std::error::Error = failure;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
