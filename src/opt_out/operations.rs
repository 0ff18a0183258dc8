//! What people do about opt-outs: set and clear them by hand, decide what is held, say what the policy of a number is.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::accounts::{Account, Accounts};
use crate::clock::Clock;
use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::{ConversationSid, PhoneNumber};
use crate::mirror::read;
use crate::opt_out::check::{self, Standing};
use crate::opt_out::follow::told;
use crate::opt_out::store::{self, New, Pair};
use crate::opt_out::tasks::{put_apply, put_resume, put_review};
use crate::opt_out::{Cleared, Concern, ConcernState, OptOut, Policy, Source, concerns, policies};

/// The operations, with what they need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OptOuts {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
    /// Through what people act.
    pub via: Via,
}

/// Why an opt-out cannot be set, or a policy.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    #[error("the number is none of ours")]
    LineUnknown,
    #[error("the member's number is one of ours")]
    OurNumber,
    #[error("cannot record it")]
    Database(#[from] sqlx::Error),
}

/// Why an opt-out cannot be cleared.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    #[error("no such opt-out")]
    NotFound,
    #[error("it was cleared before")]
    Cleared { at: Timestamp },
    #[error("cannot record it")]
    Database(#[from] sqlx::Error),
}

/// What a supervisor says to a group of which a member has opted out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The others are written to.
    Allow,
    /// Nothing is posted; what is held fails.
    Stop,
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    #[error("no such conversation")]
    ConversationNotFound,
    #[error("no member of the conversation has opted out of its numbers")]
    NothingOpen,
    #[error("the policy of the number asks for no decision")]
    NotAsked { policy: Policy },
    #[error("cannot record it")]
    Database(#[from] sqlx::Error),
}

impl OptOuts {
    /// How things stand for whoever posts through a line of a conversation.
    pub async fn standing(
        &self,
        conn: &mut PgConnection,
        account_sid: &str,
        conversation_sid: &str,
        line: &str,
    ) -> Result<Standing, sqlx::Error> {
        let of_account = self.of_account(account_sid);
        check::standing(conn, account_sid, conversation_sid, line, of_account).await
    }

    fn of_account(&self, account_sid: &str) -> Policy {
        self.accounts
            .get(account_sid)
            .map(|account| account.opt_out)
            .unwrap_or_default()
    }

    fn account_of(&self, line: &PhoneNumber) -> Result<&Account, SetError> {
        self.accounts
            .iter()
            .find(|account| account.numbers.contains(line))
            .ok_or(SetError::LineUnknown)
    }

    /// Records that a member wants no more from a number. Answers with the one that lasts, and whether it is new.
    pub async fn set_in(
        &self,
        conn: &mut PgConnection,
        line: &PhoneNumber,
        address: &PhoneNumber,
        by: &str,
    ) -> Result<(OptOut, bool), SetError> {
        let account = self.account_of(line)?;
        if self.accounts.iter().any(|one| one.numbers.contains(address)) {
            return Err(SetError::OurNumber);
        }
        let now = self.clock.now();
        let pair = Pair {
            account_sid: account.account_sid.to_string(),
            line: line.to_string(),
            address: address.to_string(),
        };
        store::lock(conn, &[&pair]).await?;
        // Twilio's clock, by which the member last opted in, may be ahead.
        let last_end = store::last_end(conn, &pair).await?;
        let new = New {
            pair: &pair,
            since: last_end.map_or(now, |end| end.max(now)),
            source: Source::Api,
            evidence: None,
            conversation_sid: None,
            set_by: Some(by),
        };
        let is_new = store::insert(conn, &new, now).await?.is_some();
        let lasts = store::find_open(conn, &pair)
            .await?
            .ok_or(sqlx::Error::RowNotFound)?;
        if is_new {
            put_apply(conn, lasts.opt_out_id, now).await?;
            let mut entry = told(&lasts, Kind::OptOutRecorded, None, Some(by), self.via, now);
            entry.data["source"] = json!(Source::Api);
            events::append(conn, &[entry]).await?;
        }
        Ok((lasts, is_new))
    }

    /// Records that a member wants messages again.
    pub async fn clear_in(
        &self,
        conn: &mut PgConnection,
        opt_out_id: Uuid,
        by: &str,
    ) -> Result<OptOut, ClearError> {
        let now = self.clock.now();
        let cleared = Cleared {
            at: now,
            source: Source::Api,
            evidence: None,
            by: Some(by.to_owned()),
        };
        let found = store::find(conn, opt_out_id).await?.ok_or(ClearError::NotFound)?;
        store::lock(conn, &[&found.pair()]).await?;
        let done = store::clear(conn, opt_out_id, &cleared).await?;
        let found = store::find(conn, opt_out_id).await?.ok_or(ClearError::NotFound)?;
        if !done {
            let at = found.cleared.map_or(now, |cleared| cleared.at);
            return Err(ClearError::Cleared { at });
        }
        put_apply(conn, opt_out_id, now).await?;
        let mut entry = told(&found, Kind::OptOutCleared, None, Some(by), self.via, now);
        entry.data["source"] = json!(Source::Api);
        events::append(conn, &[entry]).await?;
        Ok(found)
    }

    /// Decides for all members of a conversation who have opted out by now. What is held goes on, or fails.
    pub async fn decide_in(
        &self,
        conn: &mut PgConnection,
        sid: &ConversationSid,
        decision: Decision,
        by: &str,
    ) -> Result<Vec<Concern>, DecideError> {
        let now = self.clock.now();
        if read::lock_conversation(conn, sid).await?.is_none() {
            return Err(DecideError::ConversationNotFound);
        }
        let open = check::open(conn, sid.as_str(), None).await?;
        if open.is_empty() {
            return Err(DecideError::NothingOpen);
        }
        let (mut decided, mut entries, mut other) = (Vec::new(), Vec::new(), Policy::CarryOn);
        for one in open {
            let Some(found) = store::find(conn, one.opt_out_id).await? else {
                continue;
            };
            let policy = policies::find(conn, &found.account_sid, &found.line).await?;
            let policy = policy.unwrap_or_else(|| self.of_account(&found.account_sid));
            if policy != Policy::AskSupervisor {
                other = policy;
                continue;
            }
            let (state, kind) = match decision {
                Decision::Allow => (ConcernState::Allowed, Kind::OptOutAllowed),
                Decision::Stop => (ConcernState::Stopped, Kind::OptOutStopped),
            };
            let concern = Concern {
                conversation_sid: sid.to_string(),
                opt_out_id: found.opt_out_id,
                policy,
                state,
                decided_by: Some(by.to_owned()),
                decided_at: Some(now),
                updated_at: now,
            };
            concerns::save_concern(conn, &concern).await?;
            entries.push(told(&found, kind, Some(sid.as_str()), Some(by), self.via, now));
            decided.push(concern);
        }
        if decided.is_empty() {
            return Err(DecideError::NotAsked { policy: other });
        }
        events::append(conn, &entries).await?;
        put_resume(conn, sid.as_str(), now).await?;
        Ok(decided)
    }

    /// The policy of a number, and whether it has one of its own.
    pub async fn policy(
        &self,
        conn: &mut PgConnection,
        line: &PhoneNumber,
    ) -> Result<(Policy, bool), SetError> {
        let account = self.account_of(line)?;
        let own = policies::find(conn, account.account_sid.as_str(), line.as_str()).await?;
        Ok((own.unwrap_or(account.opt_out), own.is_some()))
    }

    /// Gives a number a policy of its own, or takes it away; with it goes what is done about the opt-outs that last.
    pub async fn set_policy_in(
        &self,
        conn: &mut PgConnection,
        line: &PhoneNumber,
        policy: Option<Policy>,
        by: &str,
    ) -> Result<(Policy, bool), SetError> {
        let now = self.clock.now();
        let (before, had_own) = self.policy(conn, line).await?;
        let account = self.account_of(line)?;
        let account_sid = account.account_sid.as_str();
        if before == policy.unwrap_or(account.opt_out) && had_own == policy.is_some() {
            return Ok((before, had_own));
        }
        match policy {
            Some(policy) => policies::set(conn, account_sid, line.as_str(), policy, by, now).await?,
            None => {
                policies::drop_own(conn, account_sid, line.as_str()).await?;
            }
        }
        put_review(conn, Some((account_sid, line.as_str())), now).await?;
        let entry = NewEvent {
            kind: Kind::OptOutPolicyChanged,
            account_sid: Some(account.account_sid.clone()),
            conversation_sid: None,
            subject: line.to_string(),
            actor: Some(by.to_owned()),
            via: self.via,
            cause: None,
            occurred_at: now,
            recorded_at: now,
            data: json!({ "line": line, "from": before, "to": policy.unwrap_or(account.opt_out) }),
        };
        events::append(conn, &[entry]).await?;
        Ok((policy.unwrap_or(account.opt_out), policy.is_some()))
    }
}
