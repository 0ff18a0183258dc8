//! What the policy says about an opt-out, done in every conversation concerned.

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::{ConversationSid, Identity};
use crate::mirror::read;
use crate::opt_out::follow::told;
use crate::opt_out::tasks::{put_close, put_resume};
use crate::opt_out::{Concern, ConcernState, OptOut, Policy, concerns, policies, store};
use crate::projection::read::Failure;
use crate::queue::{self, Handler, Outcome, Task};
use crate::{ledger, people};

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
        sids.extend(concerns::conversations_concerned(&mut conn, opt_out_id).await?);
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
            // In the order of all locks: the conversation first. What is read after it does not change meanwhile.
            let row = read::lock_conversation(&mut transaction, &sid).await?;
            if !queue::is_held(&mut transaction, task.lease).await? {
                return Ok(Outcome::Finished);
            }
            let Some(now_is) = store::find(&mut transaction, opt_out_id).await? else {
                return Ok(Outcome::Done);
            };
            // Nothing is asked or closed any more where all is over.
            if now_is.cleared.is_none() && row.is_none_or(|row| row.is_over()) {
                continue;
            }
            let policy = policies::find(&mut transaction, &now_is.account_sid, &now_is.line).await?;
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
    let all = concerns::concerns_of(conn, sid.as_str()).await?;
    let known = all.into_iter().find(|one| one.opt_out_id == of.opt_out_id);
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
    // A message may be held before anything has come of the opt-out here.
    let may_be_held = known
        .as_ref()
        .is_none_or(|known| known.state == ConcernState::Held);
    if may_be_held && wanted != ConcernState::Held {
        put_resume(conn, sid.as_str(), now).await?;
    }
    if is_settled {
        return Ok(());
    }
    let concern = Concern {
        conversation_sid: sid.to_string(),
        opt_out_id: of.opt_out_id,
        policy,
        state: wanted,
        decided_by: None,
        decided_at: None,
        updated_at: now,
    };
    concerns::save_concern(conn, &concern).await?;
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
