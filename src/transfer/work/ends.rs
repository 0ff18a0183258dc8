//! How a swap ends: what Twilio shows, the transfer, the ledger, the log, the lease and the task in one transaction.

use sqlx::PgConnection;
use tracing::info;

use super::{Run, Seen, Stop};
use crate::events::{Kind as EventKind, Via, transfer_cause};
use crate::ledger;
use crate::mirror::Observed;
use crate::outbox::{NewOutboundMessage, Outbox, SendError};
use crate::projection;
use crate::projection::read::Failure;
use crate::queue::{self, Outcome};
use crate::transfer::machine::Next;
use crate::transfer::tell::{tell, tell_with};
use crate::transfer::{State, step as steps, store};

impl Run<'_> {
    pub(super) fn is_overdue(&self) -> bool {
        self.transfer
            .swap_deadline_at
            .is_some_and(|at| at <= self.swap.clock.now())
    }

    /// The last look showed what is still to do; whether anything was done says how it ends.
    pub(super) async fn time_is_up(&mut self, step: &Next, seen: &Seen) -> Result<Outcome, Stop> {
        match step {
            Next::Remove { participant_sid } => {
                let detail = format!(
                    "the new holder is on the line, and the old one could not be removed in time: participant {participant_sid}"
                );
                self.end(State::NeedsAttention, "old_holder_remains", &detail, Some(seen))
                    .await
            }
            _ => {
                self.end(
                    State::Failed,
                    "timed_out",
                    "Twilio did not do it in time; nothing was changed",
                    Some(seen),
                )
                .await
            }
        }
    }

    pub(super) async fn give_up(&mut self, failure: &Failure) -> Result<Outcome, Stop> {
        if self.transfer.contested_from.is_none() {
            let detail = format!(
                "Twilio was never asked for a change, since it could not be read: {}",
                root(failure)
            );
            return self.end(State::Failed, "timed_out", &detail, None).await;
        }
        let detail = format!(
            "a change was asked for, and Twilio cannot be read to see whether it was done: {}",
            root(failure)
        );
        self.end(State::NeedsAttention, "outcome_unknown", &detail, None)
            .await
    }

    pub(super) async fn complete(
        &mut self,
        seen: &Seen,
        method: Option<&'static str>,
    ) -> Result<Outcome, Stop> {
        let mut tried = Vec::new();
        if method.is_none() {
            let mut conn = self.swap.pool.acquire().await?;
            let sid = self.transfer.conversation_sid.as_str();
            tried = steps::steps(&mut conn, sid, self.transfer.transfer_id).await?;
        }
        let earlier = tried.last().map(|step| {
            if step.action == "update" {
                "update"
            } else {
                "add_remove"
            }
        });
        self.transfer.method = Some(method.or(earlier).unwrap_or("none").to_owned());
        self.conclude(State::Completed, Some(seen)).await
    }

    pub(super) async fn end(
        &mut self,
        state: State,
        code: &str,
        detail: &str,
        seen: Option<&Seen>,
    ) -> Result<Outcome, Stop> {
        self.transfer.outcome_code = Some(code.to_owned());
        self.transfer.outcome_detail = Some(detail.to_owned());
        self.conclude(state, seen).await
    }

    /// The end: what Twilio shows, the transfer, the ledger, the log, the lease and the task in one transaction.
    async fn conclude(&mut self, state: State, seen: Option<&Seen>) -> Result<Outcome, Stop> {
        let now = self.swap.clock.now();
        let mut transaction = self.swap.pool.begin().await?;
        // The conversation's row first, as everywhere: mirror, then what hangs on it.
        if let Some(seen) = seen {
            let observed = self.observed(seen);
            projection::commit(&mut transaction, &observed, Via::Rest, Some(&seen.revisions), now).await?;
        }
        self.check_fences(&mut transaction).await?;
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
        if !queue::finish(&mut transaction, self.task.lease).await? {
            return Err(Stop::Fenced);
        }
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

    fn observed(&self, seen: &Seen) -> Vec<Observed> {
        seen.changes
            .iter()
            .map(|change| Observed {
                account_sid: self.account.account_sid.clone(),
                change: change.clone(),
                cause: transfer_cause(self.transfer.transfer_id),
                source: None,
            })
            .collect()
    }

    pub(super) async fn check_fences(&self, conn: &mut PgConnection) -> Result<(), Stop> {
        let (sid, line) = (
            self.transfer.conversation_sid.as_str(),
            self.transfer.line.as_str(),
        );
        let held = queue::is_held(conn, self.task.lease).await?
            && ledger::line_fence_holds(conn, sid, line, self.lease).await?;
        if held { Ok(()) } else { Err(Stop::Fenced) }
    }
}

/// The innermost cause, which says most to a person.
fn root(failure: &Failure) -> String {
    let mut cause: &dyn std::error::Error = failure;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
