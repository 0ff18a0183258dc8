//! Messages to a group of which a member has opted out: sent, held until a supervisor has decided, or given up, as the policy
//! of the number says.
//!
//! A held message is out of the queue, so that neither transfers nor what is written in other lines wait behind it.

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};

use crate::accounts::{Account, Accounts};
use crate::clock::Clock;
use crate::events::{Kind, Via};
use crate::ledger;
use crate::opt_out::{self, Standing};
use crate::outbox::work::{LINE_GONE, Send};
use crate::outbox::{OutboundMessage, State, operations, store};
use crate::projection::read::Failure;
use crate::queue::{self, Handler, Outcome, Task};

impl Send {
    /// What becomes of a message in place of being sent; none where it is to be sent.
    pub(super) async fn hold_back(
        &self,
        task: &Task,
        account: &Account,
        message: &OutboundMessage,
    ) -> Result<Option<Outcome>, Failure> {
        let mut transaction = self.pool.begin().await?;
        let standing = opt_out::standing(
            &mut transaction,
            &message.account_sid,
            &message.conversation_sid,
            &message.line,
            account.opt_out,
        )
        .await?;
        let (code, detail) = match standing {
            // Those who have opted out are not sent it by Twilio; who asked before that was known, asked for the others.
            Standing::Clear | Standing::Warned { .. } => return Ok(None),
            // What nobody can decide any more does not wait for it.
            Standing::Held { .. } if !has_line(&mut transaction, message).await? => ("line_gone", LINE_GONE),
            Standing::Held { .. } => {
                if !queue::is_held(&mut transaction, task.lease).await? {
                    return Ok(Some(Outcome::Finished));
                }
                let now = self.clock.now();
                let mut message = message.clone();
                message.state = State::Queued;
                message.held_since = Some(now);
                message.waiting = None;
                message.updated_at = now;
                store::update(&mut transaction, &message).await?;
                operations::tell(&mut transaction, &message, Kind::SendHeld, Via::Worker, now).await?;
                if queue::finish(&mut transaction, task.lease).await? {
                    transaction.commit().await?;
                }
                return Ok(Some(Outcome::Finished));
            }
            Standing::Stopped { .. } => (
                "opt_out_stopped",
                "a member has opted out of the number, and a supervisor decided that nothing is posted",
            ),
            Standing::Closing { .. } => (
                "opt_out_closing",
                "a member has opted out of the number, and the conversation is being closed for it",
            ),
        };
        drop(transaction);
        self.fail(task, message.clone(), code, detail).await.map(Some)
    }
}

/// Whether the message's number is in the conversation still, and that has not ended.
async fn has_line(conn: &mut PgConnection, message: &OutboundMessage) -> Result<bool, sqlx::Error> {
    let holder = ledger::holder_of(conn, &message.conversation_sid, &message.line).await?;
    Ok(holder.is_some())
}

/// Has all that is held looked at again, whatever it waits for.
pub async fn look_at_held(conn: &mut PgConnection, now: Timestamp) -> Result<(), sqlx::Error> {
    for conversation_sid in store::conversations_held(conn).await? {
        opt_out::put_resume(conn, &conversation_sid, now).await?;
    }
    Ok(())
}

/// Runs [`opt_out::RESUME_TASK`]: puts what is held of a conversation into the queue again, if nothing holds it any more.
#[derive(Debug, Clone)]
pub struct Resume {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
}

#[derive(Debug, Deserialize)]
struct Payload {
    conversation_sid: String,
}

impl Handler for Resume {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            match self.resume(task, &payload.conversation_sid).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Retry(error.into()),
            }
        })
    }
}

impl Resume {
    async fn resume(&self, task: &Task, conversation_sid: &str) -> Result<Outcome, sqlx::Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        for mut message in store::held(&mut transaction, conversation_sid).await? {
            let of_account = self
                .accounts
                .get(&message.account_sid)
                .map(|account| account.opt_out)
                .unwrap_or_default();
            let (account, line) = (&message.account_sid, &message.line);
            let standing =
                opt_out::standing(&mut transaction, account, conversation_sid, line, of_account).await?;
            if matches!(standing, Standing::Held { .. }) && has_line(&mut transaction, &message).await? {
                continue;
            }
            message.held_since = None;
            message.updated_at = now;
            store::update(&mut transaction, &message).await?;
            operations::put_send(&mut transaction, &message, now).await?;
        }
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        }
        Ok(Outcome::Finished)
    }
}
