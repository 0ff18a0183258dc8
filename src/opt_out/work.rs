//! What is done about an opt-out, as durable work: what the policy says in every conversation concerned, and closing one.

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tracing::warn;
use uuid::Uuid;

use crate::accounts::{Account, Accounts};
use crate::clock::Clock;
use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid, Identity};
use crate::mirror::{Observed, project, read};
use crate::opt_out::find::Seen;
use crate::opt_out::follow::{take_in, told};
use crate::opt_out::keywords::Keyword;
use crate::opt_out::{CLOSE_TASK, Concern, ConcernState, OptOut, Policy, RESUME_TASK, Source, store};
use crate::projection::read::Failure;
use crate::queue::{self, Handler, NewTask, Outcome, Task};
use crate::twilio::model::ConversationState;
use crate::twilio::requests::ConversationUpdate;
use crate::twilio::{Class, Error as TwilioError};
use crate::{ledger, people, projection};

/// Runs [`super::APPLY_TASK`].
#[derive(Debug, Clone)]
pub struct Apply {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
}

#[derive(Debug, Deserialize)]
struct OfOptOut {
    opt_out_id: Uuid,
}

impl Handler for Apply {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: OfOptOut = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            self.apply(task, payload.opt_out_id)
                .await
                .unwrap_or_else(Failure::outcome)
        })
    }
}

impl Apply {
    async fn apply(&self, task: &Task, opt_out_id: Uuid) -> Result<Outcome, Failure> {
        let mut conn = self.pool.acquire().await?;
        let Some(found) = store::find(&mut conn, opt_out_id).await? else {
            return Ok(Outcome::Done);
        };
        let mut sids = store::conversations(&mut conn, &found).await?;
        sids.extend(store::conversations_concerned(&mut conn, opt_out_id).await?);
        drop(conn);
        sids.sort();
        sids.dedup();
        let of_account = self
            .accounts
            .get(&found.account_sid)
            .map(|account| account.opt_out)
            .unwrap_or_default();
        for sid in sids
            .iter()
            .filter_map(|sid| ConversationSid::try_from(sid.as_str()).ok())
        {
            let mut transaction = self.pool.begin().await?;
            if !queue::is_held(&mut transaction, task.lease).await? {
                return Ok(Outcome::Finished);
            }
            // In the order of all locks: the conversation first. What is read after it does not change meanwhile.
            read::lock_conversation(&mut transaction, &sid).await?;
            let Some(now_is) = store::find(&mut transaction, opt_out_id).await? else {
                return Ok(Outcome::Done);
            };
            let policy = store::policy_of(&mut transaction, &now_is.account_sid, &now_is.line).await?;
            let policy = policy.unwrap_or(of_account);
            reconcile(&mut transaction, &now_is, &sid, policy, self.clock.now()).await?;
            transaction.commit().await?;
        }
        Ok(Outcome::Done)
    }
}

/// Brings what is done about an opt-out in a conversation to what the policy says now. May run again: then it changes nothing.
async fn reconcile(
    conn: &mut PgConnection,
    of: &OptOut,
    sid: &ConversationSid,
    policy: Policy,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let concerns = store::concerns_of(conn, sid.as_str()).await?;
    let known = concerns.into_iter().find(|one| one.opt_out_id == of.opt_out_id);
    let wanted = match (of.cleared.is_some(), policy) {
        (true, _) => ConcernState::Over,
        (false, Policy::CarryOn) => ConcernState::Warned,
        (false, Policy::AskSupervisor) => ConcernState::Held,
        (false, Policy::Close) => ConcernState::Closing,
    };
    let is_settled = match &known {
        None => wanted == ConcernState::Over,
        // What was closed, stays so; what was decided stands while the policy asks for a decision.
        Some(known) => {
            matches!(known.state, ConcernState::Closed | ConcernState::Over)
                || (known.policy == policy && wanted != ConcernState::Over)
        }
    };
    if is_settled {
        return Ok(());
    }
    let was_held = known.is_some_and(|known| known.state == ConcernState::Held);
    let concern = Concern {
        conversation_sid: sid.to_string(),
        opt_out_id: of.opt_out_id,
        policy,
        state: wanted,
        decided_by: None,
        decided_at: None,
        updated_at: now,
    };
    store::save_concern(conn, &concern).await?;
    let kind = match wanted {
        ConcernState::Warned => Some(Kind::OptOutWarned),
        ConcernState::Held => Some(Kind::OptOutHeld),
        ConcernState::Closing => Some(Kind::OptOutClosing),
        _ => None,
    };
    if let Some(kind) = kind {
        let entry = tell_people(conn, of, kind, sid, now).await?;
        events::append(conn, &[entry]).await?;
    }
    if wanted == ConcernState::Closing {
        put_close(conn, of, sid, now).await?;
    }
    if was_held || wanted == ConcernState::Closing {
        put_resume(conn, sid, now).await?;
    }
    Ok(())
}

/// Names whom it concerns: who holds the line, and who is asked.
async fn tell_people(
    conn: &mut PgConnection,
    of: &OptOut,
    kind: Kind,
    sid: &ConversationSid,
    now: Timestamp,
) -> Result<NewEvent, sqlx::Error> {
    let holder = ledger::holder_of(conn, sid.as_str(), &of.line).await?.flatten();
    let supervisor = match holder.as_deref().map(Identity::try_from) {
        Some(Ok(identity)) => people::supervisor_of(conn, &identity, now).await?,
        _ => None,
    };
    let member = read::participants(conn, sid.as_str())
        .await?
        .into_iter()
        .find(|one| one.address.as_deref() == Some(of.address.as_str()) && one.removed_at.is_none());
    let mut entry = told(of, kind, Some(sid.as_str()), None, Via::Worker, now);
    entry.data["holder"] = json!(holder);
    entry.data["supervisor"] = json!(supervisor.map(|agent| agent.identity));
    entry.data["participant_sid"] = json!(member.map(|one| one.participant_sid));
    Ok(entry)
}

/// Has the outbox look again at what it holds of a conversation.
pub(super) async fn put_resume(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: RESUME_TASK,
        order_key: format!("conversation:{sid}"),
        unique_key: Some(sid.to_string()),
        payload: json!({ "conversation_sid": sid }),
        run_at: now,
        attempts_max: 30,
    };
    queue::put(conn, &task, now).await
}

async fn put_close(
    conn: &mut PgConnection,
    of: &OptOut,
    sid: &ConversationSid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: CLOSE_TASK,
        // After what was on its way already.
        order_key: format!("conversation:{sid}"),
        unique_key: Some(format!("{sid}:{}", of.opt_out_id)),
        payload: json!({ "conversation_sid": sid, "opt_out_id": of.opt_out_id }),
        run_at: now,
        attempts_max: 30,
    };
    queue::put(conn, &task, now).await
}

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
        let concerns = store::concerns_of(&mut conn, sid.as_str()).await?;
        drop(conn);
        // Who opted in again meanwhile, or whose number has another policy by now, need not lose the thread.
        let is_wanted = concerns
            .iter()
            .any(|one| one.opt_out_id == payload.opt_out_id && one.state == ConcernState::Closing);
        let (Some(found), Some(row), true) = (found.filter(|one| one.cleared.is_none()), row, is_wanted)
        else {
            return Ok(Outcome::Done);
        };
        if row.is_over() {
            return self.finish(task, payload, ConcernState::Closed, None).await;
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
        let concerns = store::concerns_of(conn, sid).await?;
        let known = concerns
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
        store::save_concern(conn, &concern).await?;
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

/// Runs [`super::RESOLVE_TASK`].
#[derive(Debug, Clone)]
pub struct Resolve {
    pub pool: PgPool,
    pub clock: Clock,
}

#[derive(Debug, Deserialize)]
struct Unresolved {
    account_sid: AccountSid,
    conversation_sid: ConversationSid,
    message_sid: String,
    receipt_sid: Option<String>,
}

/// After so long the members are not waited for any more.
const RESOLVE_WITHIN: SignedDuration = SignedDuration::from_hours(1);
const RESOLVE_AGAIN: SignedDuration = SignedDuration::from_secs(30);

impl Handler for Resolve {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Unresolved = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            match self.resolve(task, &payload).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Retry(error.into()),
            }
        })
    }
}

impl Resolve {
    async fn resolve(&self, task: &Task, payload: &Unresolved) -> Result<Outcome, sqlx::Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        read::lock_conversation(&mut transaction, &payload.conversation_sid).await?;
        let Some(seen) = seen_in_mirror(&mut transaction, payload).await? else {
            return Ok(Outcome::Done);
        };
        let waiting = take_in(&mut transaction, vec![seen], Via::Worker, now).await?;
        if waiting.is_empty() {
            if queue::finish(&mut transaction, task.lease).await? {
                transaction.commit().await?;
            }
            return Ok(Outcome::Finished);
        }
        if now.duration_since(task.created_at) > RESOLVE_WITHIN {
            warn!(
                conversation.sid = %payload.conversation_sid,
                "cannot tell who opted out, since the member is not known"
            );
            return Ok(Outcome::Done);
        }
        Ok(Outcome::Wait(RESOLVE_AGAIN))
    }
}

/// What was seen, as the mirror has it by now.
async fn seen_in_mirror(conn: &mut PgConnection, payload: &Unresolved) -> Result<Option<Seen>, sqlx::Error> {
    let sid = payload.conversation_sid.as_str();
    let common = |keyword, source, at, evidence: &str| Seen {
        account_sid: payload.account_sid.clone(),
        conversation_sid: payload.conversation_sid.clone(),
        keyword,
        source,
        at,
        evidence: evidence.to_owned(),
        message_sid: None,
        author: None,
        participant_sid: None,
        cause: format!("message:{}", payload.message_sid),
    };
    if let Some(receipt_sid) = &payload.receipt_sid {
        let receipts = read::receipts(conn, sid, &[&payload.message_sid]).await?;
        let receipt = receipts
            .into_iter()
            .find(|one| one.delivery_receipt_sid == *receipt_sid);
        return Ok(receipt.map(|receipt| Seen {
            message_sid: Some(payload.message_sid.clone()),
            participant_sid: receipt.participant_sid,
            ..common(Keyword::Stop, Source::Receipt, receipt.updated_at, receipt_sid)
        }));
    }
    let message = read::message(conn, sid, &payload.message_sid).await?;
    Ok(message
        .filter(|message| message.removed_at.is_none())
        .and_then(|message| {
            let keyword = Keyword::of(message.body.as_deref()?)?;
            let at = message.created_at.unwrap_or(message.updated_at);
            Some(Seen {
                author: message.author,
                participant_sid: message.participant_sid,
                ..common(keyword, Source::Keyword, at, &message.message_sid)
            })
        }))
}
