//! Closing a conversation of which a member has opted out, where the policy says so.

use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::accounts::{Account, Accounts};
use crate::clock::Clock;
use crate::events::{self, Kind, Via};
use crate::ids::ConversationSid;
use crate::mirror::{Observed, project, read};
use crate::opt_out::follow::told;
use crate::opt_out::{Concern, ConcernState, check, concerns, store};
use crate::projection;
use crate::projection::read::Failure;
use crate::queue::{self, Handler, Outcome, Task};
use crate::twilio::model::ConversationState;
use crate::twilio::requests::ConversationUpdate;
use crate::twilio::{Class, Error as TwilioError};

/// Runs [`super::CLOSE_TASK`].
#[derive(Debug, Clone)]
pub struct Close {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
}

#[derive(Debug, Deserialize)]
struct OfConversation {
    conversation_sid: ConversationSid,
    opt_out_id: Uuid,
}

/// Twilio's code for a change of what is closed.
const CLOSED_ALREADY: u32 = 50_377;

impl Handler for Close {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: OfConversation = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            self.close(task, &payload).await.unwrap_or_else(Failure::outcome)
        })
    }

    fn buried<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        task: &'a Task,
        _error: &'a str,
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let Ok(payload) = serde_json::from_value::<OfConversation>(task.payload.clone()) else {
                return Ok(());
            };
            self.end(conn, &payload, ConcernState::CloseFailed, None).await
        })
    }
}

impl Close {
    async fn close(&self, task: &Task, payload: &OfConversation) -> Result<Outcome, Failure> {
        let sid = &payload.conversation_sid;
        let mut conn = self.pool.acquire().await?;
        let found = store::find(&mut conn, payload.opt_out_id).await?;
        let row = read::conversation(&mut conn, sid.as_str()).await?;
        let here = concerns::concerns_of(&mut conn, sid.as_str()).await?;
        let open = check::open(&mut conn, sid.as_str(), None).await?;
        drop(conn);
        // Who opted in again meanwhile, or whose number has another policy by now, need not lose the thread.
        let is_wanted = here
            .iter()
            .any(|one| one.opt_out_id == payload.opt_out_id && one.state == ConcernState::Closing);
        let (Some(found), Some(row), true) = (found.filter(|one| one.cleared.is_none()), row, is_wanted)
        else {
            return Ok(Outcome::Done);
        };
        if row.is_over() {
            return self.finish(task, payload, ConcernState::Closed, None).await;
        }
        if !open.iter().any(|one| one.opt_out_id == payload.opt_out_id) {
            return self.give_up(task, payload).await;
        }
        let Some(account) = self.accounts.get(&found.account_sid) else {
            return Ok(Outcome::Wait(SignedDuration::from_secs(30)));
        };
        let update = ConversationUpdate {
            state: Some(ConversationState::Closed),
            ..ConversationUpdate::default()
        };
        match account.client.update_conversation(sid, &update).await {
            Ok(closed) => {
                let observed = observed(account, &closed, payload.opt_out_id);
                let now = self.clock.now();
                let mut transaction = self.pool.begin().await?;
                projection::commit(&mut transaction, &observed, Via::Rest, None, now).await?;
                self.end(&mut transaction, payload, ConcernState::Closed, None)
                    .await?;
                if queue::finish(&mut transaction, task.lease).await? {
                    transaction.commit().await?;
                }
                Ok(Outcome::Finished)
            }
            Err(TwilioError::NotFound { .. }) => self.finish(task, payload, ConcernState::Closed, None).await,
            Err(error) if error.code() == Some(CLOSED_ALREADY) => {
                self.finish(task, payload, ConcernState::Closed, None).await
            }
            // It is still being set up, or somebody else changes it.
            Err(error @ TwilioError::Rejected(_)) if is_in_the_way(&error) => Err(error.into()),
            Err(TwilioError::Rejected(rejection)) => {
                self.finish(task, payload, ConcernState::CloseFailed, rejection.code)
                    .await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The member has left: the others need not lose the thread. Should they come back, it is closed then.
    async fn give_up(&self, task: &Task, payload: &OfConversation) -> Result<Outcome, Failure> {
        let mut transaction = self.pool.begin().await?;
        concerns::forget(
            &mut transaction,
            payload.conversation_sid.as_str(),
            payload.opt_out_id,
        )
        .await?;
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        }
        Ok(Outcome::Finished)
    }

    async fn finish(
        &self,
        task: &Task,
        payload: &OfConversation,
        state: ConcernState,
        code: Option<u32>,
    ) -> Result<Outcome, Failure> {
        let mut transaction = self.pool.begin().await?;
        self.end(&mut transaction, payload, state, code).await?;
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        }
        Ok(Outcome::Finished)
    }

    async fn end(
        &self,
        conn: &mut PgConnection,
        payload: &OfConversation,
        state: ConcernState,
        code: Option<u32>,
    ) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        let sid = payload.conversation_sid.as_str();
        let here = concerns::concerns_of(conn, sid).await?;
        let known = here
            .into_iter()
            .find(|one| one.opt_out_id == payload.opt_out_id && one.state == ConcernState::Closing);
        let (Some(concern), Some(found)) = (known, store::find(conn, payload.opt_out_id).await?) else {
            return Ok(());
        };
        let concern = Concern {
            state,
            updated_at: now,
            ..concern
        };
        concerns::save_concern(conn, &concern).await?;
        let kind = if state == ConcernState::Closed {
            Kind::OptOutClosed
        } else {
            Kind::OptOutCloseFailed
        };
        let mut entry = told(&found, kind, Some(sid), None, Via::Worker, now);
        entry.data["code"] = json!(code);
        events::append(conn, &[entry]).await
    }
}

fn observed(
    account: &Account,
    closed: &crate::twilio::model::Conversation,
    opt_out_id: Uuid,
) -> Vec<Observed> {
    project::conversation(closed)
        .into_iter()
        .map(|change| Observed {
            account_sid: account.account_sid.clone(),
            change,
            cause: format!("opt_out:{opt_out_id}"),
            source: None,
        })
        .collect()
}

fn is_in_the_way(error: &TwilioError) -> bool {
    error
        .rejection()
        .is_some_and(|rejection| rejection.class == Class::Conflict)
}
