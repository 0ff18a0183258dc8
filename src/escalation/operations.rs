//! What people do: policies, asking for an escalation by hand, and stopping one. Each is one transaction with its entries of
//! the log.

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::escalation::act::{self, Act};
use crate::escalation::evaluate::Why;
use crate::escalation::look::Standing;
use crate::escalation::policy::{Known, Policy, When};
use crate::escalation::since::Since;
use crate::escalation::store::watch;
use crate::escalation::store::{self, Changed};
use crate::escalation::tell::About;
use crate::escalation::{Escalation, StoredPolicy};
use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::{ConversationSid, Identity, PhoneNumber, new_id};
use crate::people::{Actor, Slug, import};
use crate::web::problem::FieldError;
use crate::{ledger, mirror, queue};

/// Why a policy cannot be so.
#[derive(Debug, thiserror::Error)]
pub enum PutPolicyError {
    #[error("{} places are wrong; nothing was changed", .0.len())]
    Invalid(Vec<FieldError>),
    #[error("another version stands")]
    VersionConflict {
        version: i64,
        updated_at: Option<Timestamp>,
    },
    #[error("cannot record the policy")]
    Database(#[from] sqlx::Error),
}

/// Why a policy cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovePolicyError {
    #[error("no such policy")]
    NotFound,
    #[error("cannot remove the policy")]
    Database(#[from] sqlx::Error),
}

/// Why nothing begins.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no such conversation")]
    ConversationNotFound,
    #[error("the conversation is closed")]
    ConversationClosed,
    #[error("the conversation has no such line")]
    LineNotFound,
    #[error("no policy says what to do")]
    NoPolicy { policy_id: Option<String> },
    #[error("one is open already")]
    AlreadyOpen {
        escalation_id: Uuid,
        by: Option<String>,
        since: Timestamp,
    },
    #[error("cannot record the escalation")]
    Database(#[from] sqlx::Error),
}

/// Why one cannot be stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("no such escalation")]
    NotFound,
    #[error("the escalation is over")]
    NotOpen {
        state: String,
        why: Option<String>,
        at: Timestamp,
    },
    #[error("cannot record the end")]
    Database(#[from] sqlx::Error),
}

/// Whom a policy may name.
pub async fn known(conn: &mut PgConnection) -> Result<Known, sqlx::Error> {
    let (agents, teams) = import::everybody(conn).await?;
    Ok(Known {
        teams: teams.into_iter().map(|team| team.team_id).collect(),
        agents: agents.into_iter().map(|agent| agent.identity).collect(),
    })
}

/// Adds a policy, or a version of it, or with `dry_run` only says what is wrong with it. What is so already is left alone,
/// whatever version it was to replace.
pub async fn put_policy(
    conn: &mut PgConnection,
    policy_id: &Slug,
    document: &Value,
    replaces: Option<i64>,
    dry_run: bool,
    by: &Actor,
    now: Timestamp,
) -> Result<StoredPolicy, PutPolicyError> {
    let mut transaction = conn.begin().await?;
    store::lock_policies(&mut transaction).await?;
    let known = known(&mut transaction).await?;
    let policy = Policy::read(document, Some(&known)).map_err(PutPolicyError::Invalid)?;
    let before = store::find_policy(&mut transaction, policy_id.as_str()).await?;
    if let Some(before) = before.as_ref().filter(|before| before.document == *document) {
        return Ok(before.clone());
    }
    let stands = before.as_ref().map_or(0, |before| before.version);
    if replaces.is_some_and(|version| version != stands) {
        return Err(PutPolicyError::VersionConflict {
            version: stands,
            updated_at: before.map(|before| before.updated_at),
        });
    }
    let since = before.as_ref().and_then(|before| before.enabled_since);
    let id = policy_id.as_str();
    let version = store::insert_version(&mut transaction, id, document, &by.name, now).await?;
    let after = StoredPolicy {
        policy_id: policy_id.clone(),
        version,
        document: document.clone(),
        enabled_since: policy.enabled.then(|| since.unwrap_or(now)),
        since: before.as_ref().map_or_else(Since::default, |before| {
            before.since.after(&before.policy, &policy, now)
        }),
        created_at: before.as_ref().map_or(now, |before| before.created_at),
        updated_at: now,
        policy,
    };
    if dry_run {
        transaction.rollback().await?;
        return Ok(after);
    }
    store::upsert_policy(&mut transaction, &after).await?;
    watch::mark_for_policy(&mut transaction, id, now).await?;
    let data = json!({
        "policy_id": policy_id,
        "change": if before.is_some() { "changed" } else { "added" },
        "version": version,
        "enabled": after.policy.enabled,
        "rules": after.policy.rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(),
    });
    let event = entry(Kind::EscalationPolicyChanged, policy_id, data, by, now);
    events::append(&mut transaction, &[event]).await?;
    transaction.commit().await?;
    Ok(after)
}

/// Removes a policy. What is open under it stops; its versions stay, for what came of them.
pub async fn remove_policy(
    conn: &mut PgConnection,
    policy_id: &Slug,
    by: &Actor,
    now: Timestamp,
) -> Result<(), RemovePolicyError> {
    let mut transaction = conn.begin().await?;
    store::lock_policies(&mut transaction).await?;
    if !store::delete_policy(&mut transaction, policy_id.as_str()).await? {
        return Err(RemovePolicyError::NotFound);
    }
    watch::mark_for_policy(&mut transaction, policy_id.as_str(), now).await?;
    let data = json!({ "policy_id": policy_id });
    let event = entry(Kind::EscalationPolicyRemoved, policy_id, data, by, now);
    events::append(&mut transaction, &[event]).await?;
    transaction.commit().await?;
    Ok(())
}

fn entry(kind: Kind, policy_id: &Slug, data: Value, by: &Actor, now: Timestamp) -> NewEvent {
    NewEvent {
        kind,
        account_sid: None,
        conversation_sid: None,
        subject: policy_id.to_string(),
        actor: Some(by.name.clone()),
        via: by.via,
        cause: by.cause.clone(),
        occurred_at: now,
        recorded_at: now,
        data,
    }
}

/// An escalation that somebody asks for. Does not print.
#[derive(Clone)]
pub struct Ask {
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    pub by: Identity,
    pub reason: Option<String>,
    /// None: the first rule that is for it.
    pub rule: Option<Slug>,
}

/// Begins an escalation by hand, within the caller's transaction: by the policy that counts for the line, and its rule that
/// says `asked`. Its first step is taken by the next look.
pub async fn ask(
    conn: &mut PgConnection,
    ask: Ask,
    via: Via,
    now: Timestamp,
) -> Result<Escalation, AskError> {
    let conversation = mirror::read::lock_conversation(conn, &ask.conversation_sid)
        .await?
        .ok_or(AskError::ConversationNotFound)?;
    if conversation.is_over() {
        return Err(AskError::ConversationClosed);
    }
    let lines = ledger::lines_of(conn, ask.conversation_sid.as_str()).await?;
    let (_, holder) = lines
        .into_iter()
        .find(|(line, _)| line == ask.line.as_str())
        .ok_or(AskError::LineNotFound)?;
    let holder = holder.and_then(|holder| Identity::try_from(holder.as_str()).ok());
    let standing = Standing::load(conn).await?;
    let live = standing
        .in_force(ask.line.as_str(), holder.as_ref())
        .ok_or(AskError::NoPolicy { policy_id: None })?;
    let rule = live
        .policy
        .rules
        .iter()
        .find(|rule| rule.when == When::Asked && ask.rule.as_ref().is_none_or(|wanted| *wanted == rule.name))
        .ok_or_else(|| AskError::NoPolicy {
            policy_id: Some(live.policy_id.clone()),
        })?;
    let id = new_id();
    let escalation = Escalation {
        escalation_id: id,
        account_sid: conversation.account_sid.as_str().to_owned(),
        conversation_sid: ask.conversation_sid.clone(),
        line: ask.line,
        policy_id: live
            .policy_id
            .parse()
            .map_err(|error: crate::people::InvalidSlug| sqlx::Error::Decode(error.into()))?,
        policy_version: live.version,
        rule: rule.name.to_string(),
        cause: When::Asked.as_str().to_owned(),
        cause_key: id.to_string(),
        cause_at: now,
        holder,
        asked_by: Some(ask.by.as_str().to_owned()),
        reason: ask.reason,
        state: "open".to_owned(),
        why: None,
        stopped_by: None,
        next_at: Some(now),
        started_at: now,
        updated_at: now,
        finished_at: None,
    };
    watch::mark(conn, &[About::of(&escalation).key], now).await?;
    if !store::insert_one(conn, &escalation).await? {
        return Err(already_open(conn, &escalation).await?);
    }
    let facts = json!({ "holder": escalation.holder, "since": now, "asked_by": escalation.asked_by });
    let about = About::of(&escalation);
    let entry = about.entry(Kind::EscalationStarted, (ask.by.as_str(), via), facts, now);
    events::append(conn, &[entry]).await?;
    Ok(escalation)
}

async fn already_open(conn: &mut PgConnection, wanted: &Escalation) -> Result<AskError, sqlx::Error> {
    let filter = store::Filter {
        conversation_sid: Some(wanted.conversation_sid.as_str().to_owned()),
        line: Some(wanted.line.as_str().to_owned()),
        policy_id: Some(wanted.policy_id.to_string()),
        state: Some("open".to_owned()),
    };
    let open = store::page(conn, &filter, None, 50).await?;
    let open = open
        .into_iter()
        .find(|one| one.rule == wanted.rule)
        .ok_or(sqlx::Error::RowNotFound)?;
    Ok(AskError::AlreadyOpen {
        escalation_id: open.escalation_id,
        by: open.asked_by,
        since: open.started_at,
    })
}

/// Who stops an escalation.
#[derive(Debug, Clone)]
pub struct Stop {
    pub escalation_id: Uuid,
    pub by: Identity,
}

/// Stops an escalation by hand, within the caller's transaction. An offer of it that stands is withdrawn.
pub async fn stop(
    conn: &mut PgConnection,
    stop: Stop,
    via: Via,
    now: Timestamp,
) -> Result<Escalation, StopError> {
    let found = store::find(conn, stop.escalation_id)
        .await?
        .ok_or(StopError::NotFound)?;
    // Who looks at the line at this moment writes nothing of what it saw.
    watch::mark(conn, &[About::of(&found).key], now).await?;
    let mut escalation = store::lock(conn, &found.conversation_sid, stop.escalation_id)
        .await?
        .ok_or(StopError::NotFound)?;
    if let Some(at) = escalation.finished_at {
        return Err(StopError::NotOpen {
            state: escalation.state,
            why: escalation.why,
            at,
        });
    }
    let why = Why::StoppedByHand;
    let changed = Changed {
        conversation_sid: escalation.conversation_sid.as_str().to_owned(),
        escalation_id: escalation.escalation_id,
        state: why.state(),
        why: Some(why.as_str()),
        stopped_by: Some(stop.by.as_str().to_owned()),
        next_at: None,
        finished_at: Some(now),
    };
    store::update(conn, &[changed], now).await?;
    let steps = store::steps(conn, &escalation.conversation_sid, escalation.escalation_id).await?;
    if let Some(transfer_id) = act::standing_offer(&steps) {
        let act = Act::Withdraw {
            conversation_sid: escalation.conversation_sid.clone(),
            transfer_id,
        };
        queue::put(conn, &act.task(now), now).await?;
    }
    let facts = json!({ "why": why.as_str(), "steps": steps.len(), "stopped_by": stop.by });
    let about = About::of(&escalation);
    let entry = about.entry(Kind::EscalationStopped, (stop.by.as_str(), via), facts, now);
    events::append(conn, &[entry]).await?;
    why.state().clone_into(&mut escalation.state);
    escalation.why = Some(why.as_str().to_owned());
    escalation.stopped_by = Some(stop.by.into_string());
    escalation.next_at = None;
    escalation.finished_at = Some(now);
    escalation.updated_at = now;
    Ok(escalation)
}
