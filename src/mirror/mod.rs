//! Our copy of Twilio's state. Owns `conversation`, `participant`, `message`, `delivery_receipt` and `chat_user`, and
//! what was said before of the first four, in `conversation_version`, `participant_version`, `message_version` and
//! `receipt_version`: [`as_of`] reads both together.
//!
//! Whatever says something about Twilio's state (a webhook, an answer of a REST call) becomes [`Change`]s by a pure
//! function ([`project`]) and enters by one door, [`commit`]: load the rows that the changes touch, fold the changes
//! into them ([`fold`], pure), write what differs, and with it, in the same transaction, the ledger and the log.

pub mod as_of;
pub mod change;
pub mod erase;
pub mod erased;
pub mod fold;
pub mod project;
pub mod read;
pub mod replay;
mod spelling;
mod store;
mod version;
pub mod versions;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::PgConnection;

use crate::events::{Kind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid, MessageSid};
use crate::ledger::{Affected, Leases};
use crate::queue::{self, Lane, NewTask, TaskKind};
use crate::{events, ledger};

pub use change::{Change, Observed};
pub use fold::Revisions;
pub use store::{
    Inventory, Standing, inventory, inventory_from, mark_verified_as_of, revision_of_message, standing,
};
pub use version::{Stamp, Verdict, Version, Weighed};

/// The kind of task that reads a conversation or a message at Twilio, since what is stored is in doubt.
pub const READ_TASK: TaskKind = TaskKind::new("mirror.read", Lane::Background);

/// What those who wait for a change of the mirror have to know, and who keeps a record of what changed it.
#[derive(Debug, Default, PartialEq)]
pub struct Committed {
    /// Anything was written: a row, a version, a fact, a tenure or an entry of the log.
    pub changed: bool,
    /// Of each statement, whether it came after what it speaks of and so settled what was in doubt.
    pub settled: Vec<bool>,
    /// Conversations whose state changed, as they are now.
    pub state_changed: BTreeMap<ConversationSid, StateNow>,
    /// Where somebody may have to be found for a line.
    pub stirred: Stirred,
    /// The statements, by their place, that said again what had been erased, as they were taken: without that.
    pub masked: BTreeMap<usize, Change>,
}

/// Conversations of which a line may have come to be held by nobody, or may have been written in. Empty where lines that
/// nobody holds are left alone: no number has a rule for them, and none waits.
#[derive(Debug, Default, PartialEq)]
pub struct Stirred {
    /// Seats or the state changed.
    pub seats: BTreeSet<ConversationSid>,
    /// A message came, or a member did.
    pub messages: BTreeSet<ConversationSid>,
}

/// What a conversation has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateNow {
    pub account_sid: AccountSid,
    pub friendly_name: Option<String>,
    /// Twilio's word.
    pub state: Option<String>,
    pub removed: bool,
    pub autocreated: bool,
}

/// Applies changes within the caller's transaction: mirror, ledger, log and follow-up reads together.
///
/// Locks the rows of the conversations concerned, in the order of their SIDs. `settles` holds the revisions that a
/// reader had seen before it asked Twilio.
pub async fn commit(
    conn: &mut PgConnection,
    observed: &[Observed],
    via: Via,
    settles: Option<&Revisions>,
    now: Timestamp,
) -> Result<Committed, sqlx::Error> {
    if observed.is_empty() {
        return Ok(Committed::default());
    }
    let mut state = store::load(conn, observed, now).await?;
    let mut outcome = fold::Outcome::default();
    let context = fold::Context { via, now, settles };
    let mut settled = Vec::with_capacity(observed.len());
    let mut masked = BTreeMap::new();
    for (place, one) in observed.iter().enumerate() {
        settled.push(settles.is_some_and(|seen| fold::settles(&state, &one.change, seen)));
        if let Some(change) = fold::apply(&mut state, &mut outcome, context, one) {
            masked.insert(place, change);
        }
    }
    let stirred = stirred(&state, &outcome);
    let written = write(conn, &state, &mut outcome, via, now).await?;
    let log = written.log;
    match via {
        // Who projects webhooks announces what that brought, for many webhooks at once.
        Via::Webhook => events::append_unannounced(conn, &log).await?,
        Via::Rest | Via::Api | Via::Timer | Via::Sweep | Via::Cli | Via::Worker => {
            events::append(conn, &log).await?;
        }
    }
    ask_for_reads(conn, &state, &outcome, now).await?;
    Ok(Committed {
        changed: written.rows || !log.is_empty(),
        settled,
        state_changed: states_now(&state, &outcome),
        stirred,
        masked,
    })
}

/// What [`write()`] did, and what the log has to tell of it.
struct Written {
    rows: bool,
    log: Vec<NewEvent>,
}

/// Rows, versions and ledger.
async fn write(
    conn: &mut PgConnection,
    state: &fold::State,
    outcome: &mut fold::Outcome,
    via: Via,
    now: Timestamp,
) -> Result<Written, sqlx::Error> {
    store::save(conn, state, now).await?;
    let kept = store::keep_versions(conn, &outcome.versions).await?;
    let affected = affected_by(state, outcome);
    let mut log = std::mem::take(&mut outcome.events);
    let recorded = ledger::record(conn, &outcome.facts, &affected, Leases::Now, via, now).await?;
    log.extend(recorded.log);
    Ok(Written {
        rows: state.is_dirty() || kept > 0 || recorded.changed,
        log,
    })
}

/// The stored rows that these statements are about, their conversations locked until the caller's transaction ends. A
/// conversation that is not known is made, as [`commit`] does.
pub async fn stored(
    conn: &mut PgConnection,
    observed: &[Observed],
    now: Timestamp,
) -> Result<fold::State, sqlx::Error> {
    store::load(conn, observed, now).await
}

fn stirred(state: &fold::State, outcome: &fold::Outcome) -> Stirred {
    if !state.lines_are_given {
        return Stirred::default();
    }
    // A handset has no seat on a line, and makes a group of those who start one.
    let messages = outcome
        .events
        .iter()
        .filter(|event| matches!(event.kind, Kind::MessageAdded | Kind::ParticipantAdded));
    Stirred {
        seats: outcome
            .facts
            .iter()
            .map(|fact| &fact.conversation_sid)
            .chain(&outcome.ended)
            .chain(&outcome.state_changed)
            .cloned()
            .collect(),
        messages: messages
            .filter_map(|event| event.conversation_sid.clone())
            .collect(),
    }
}

fn states_now(state: &fold::State, outcome: &fold::Outcome) -> BTreeMap<ConversationSid, StateNow> {
    outcome
        .state_changed
        .iter()
        .filter_map(|sid| {
            let row = state.conversations.get(sid)?;
            let now = StateNow {
                account_sid: row.account_sid.clone(),
                friendly_name: row.fields.friendly_name.clone(),
                state: row.state.clone(),
                removed: row.removed_at.is_some(),
                autocreated: row.autocreated,
            };
            Some((sid.clone(), now))
        })
        .collect()
}

fn affected_by(state: &fold::State, outcome: &fold::Outcome) -> BTreeMap<ConversationSid, Affected> {
    outcome
        .facts
        .iter()
        .map(|fact| &fact.conversation_sid)
        .chain(&outcome.ended)
        .filter_map(|sid| {
            let row = state.conversations.get(sid)?;
            let affected = Affected {
                account_sid: row.account_sid.clone(),
                ended_at: row.ended_at(),
                end_changed: outcome.ended.contains(sid),
            };
            Some((sid.clone(), affected))
        })
        .collect()
}

/// How long a read that a webhook asks for is put off: what is missing is mostly on its way.
const READ_AFTER: SignedDuration = SignedDuration::from_secs(2);

async fn ask_for_reads(
    conn: &mut PgConnection,
    state: &fold::State,
    outcome: &fold::Outcome,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let account_of = |sid: &ConversationSid| state.conversations.get(sid).map(|row| row.account_sid.clone());
    for sid in &outcome.to_fetch {
        if let Some(account_sid) = account_of(sid) {
            put_read(conn, &account_sid, sid, None, now + READ_AFTER, now).await?;
        }
    }
    let unknown = outcome
        .messages_to_fetch
        .iter()
        .filter(|key| !state.messages.contains_key(*key));
    for (sid, message_sid) in unknown.chain(&outcome.messages_in_doubt) {
        if let Some(account_sid) = account_of(sid) {
            put_read(conn, &account_sid, sid, Some(message_sid), now + READ_AFTER, now).await?;
        }
    }
    Ok(())
}

/// Queues a read of a conversation (with its participants), or of one of its messages.
pub async fn put_read(
    conn: &mut PgConnection,
    account_sid: &AccountSid,
    sid: &ConversationSid,
    message_sid: Option<&MessageSid>,
    run_at: Timestamp,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let unique_key = message_sid.map_or_else(|| sid.to_string(), ToString::to_string);
    let task = NewTask {
        kind: READ_TASK,
        order_key: format!("read:{sid}"),
        unique_key: Some(unique_key),
        payload: json!({ "account_sid": account_sid, "conversation_sid": sid, "message_sid": message_sid }),
        run_at,
        attempts_max: 12,
    };
    queue::put(conn, &task, now).await
}
