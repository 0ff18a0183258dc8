//! Loading the rows that a batch touches, and writing back those that differ: one statement per table, whatever the
//! size of the batch.
//!
//! Rows are loaded by `cross join lateral (… offset 0)`: a look-up in the primary key for each wanted row. A plain join
//! leaves it to the planner, which reads the whole table where it believes it to be small.

mod conversation;
mod inventory;
mod message;
mod participant;
mod receipt;
mod user;
mod versions;

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::ids::{AccountSid, ConversationSid, MessageSid, ParticipantSid, ReceiptSid, UserSid};
use crate::mirror::change::{Change, Observed};
use crate::mirror::fold::{State, Told};
use crate::mirror::version::Version;
use conversation::{ensure_conversations, load_conversations, save_conversations};
use message::{load_messages, save_messages};
use participant::{load_participants, save_participants};
use receipt::{load_receipts, save_receipts};
use user::{load_users, save_users};

pub(super) use versions::keep_versions;

pub use inventory::{
    Inventory, Standing, inventory, inventory_from, mark_verified_as_of, revision_of_message, standing,
};

/// Loads and locks what the changes touch.
pub(super) async fn load(
    conn: &mut PgConnection,
    observed: &[Observed],
    now: Timestamp,
) -> Result<State, sqlx::Error> {
    let touched = Touched::by(observed);
    let mut state = State::default();
    load_conversations(conn, &touched.conversations, &mut state).await?;
    if state.conversations.len() < touched.conversations.len() {
        let mut missing = touched.conversations.clone();
        missing.retain(|sid| !state.conversations.contains_key(sid));
        ensure_conversations(conn, observed, &missing, now).await?;
        // Rows are locked already, and now more: only who holds a lane works on several conversations at once, and a
        // conversation has one lane, so that two never wait for each other.
        load_conversations(conn, &touched.conversations, &mut state).await?;
    }
    load_participants(conn, &touched.participants, &mut state).await?;
    load_messages(conn, &touched.messages, &mut state).await?;
    load_receipts(conn, &touched.receipts, &mut state).await?;
    load_users(conn, &touched.users, &mut state).await?;
    Ok(state)
}

/// Makes the rows of conversations that are not there, each first seen when the first of `named` names it.
pub(super) async fn ensure_each<'a>(
    conn: &mut PgConnection,
    observed: &[Observed],
    named: impl Iterator<Item = (&'a Observed, Timestamp)>,
) -> Result<(), sqlx::Error> {
    let mut known = State::default();
    let mut missing = Touched::by(observed).conversations;
    load_conversations(conn, &missing, &mut known).await?;
    missing.retain(|sid| !known.conversations.contains_key(sid));
    for (one, at) in named {
        let Some(sid) = one.change.conversation_sid() else {
            continue;
        };
        if let Some(sid) = missing.take(sid) {
            let alone = std::slice::from_ref(one);
            ensure_conversations(conn, alone, &BTreeSet::from([sid]), at).await?;
        }
    }
    Ok(())
}

/// Writes the rows that changed.
pub(super) async fn save(conn: &mut PgConnection, state: &State, now: Timestamp) -> Result<(), sqlx::Error> {
    save_conversations(conn, state, now).await?;
    save_participants(conn, state).await?;
    save_messages(conn, state).await?;
    save_receipts(conn, state).await?;
    save_users(conn, state).await
}

#[derive(Debug, Default)]
struct Touched {
    conversations: BTreeSet<ConversationSid>,
    participants: BTreeSet<(ConversationSid, ParticipantSid)>,
    messages: BTreeSet<(ConversationSid, MessageSid)>,
    receipts: BTreeSet<(ConversationSid, MessageSid, ReceiptSid)>,
    users: BTreeSet<(AccountSid, UserSid)>,
}

impl Touched {
    fn by(observed: &[Observed]) -> Self {
        let mut touched = Self::default();
        for one in observed {
            touched
                .conversations
                .extend(one.change.conversation_sid().cloned());
            match &one.change {
                Change::Conversation(_)
                | Change::ConversationState(_)
                | Change::ConversationRemoved { .. }
                | Change::Unread { .. } => {}
                Change::Participant(change) => {
                    touched
                        .participants
                        .insert((change.conversation_sid.clone(), change.participant_sid.clone()));
                }
                Change::Message(change) => {
                    touched
                        .messages
                        .insert((change.conversation_sid.clone(), change.message_sid.clone()));
                }
                Change::Receipt(change) => {
                    let sid = &change.conversation_sid;
                    touched.messages.insert((sid.clone(), change.message_sid.clone()));
                    touched.receipts.insert((
                        sid.clone(),
                        change.message_sid.clone(),
                        change.receipt_sid.clone(),
                    ));
                }
                Change::User(change) => {
                    touched
                        .users
                        .insert((one.account_sid.clone(), change.user_sid.clone()));
                }
            }
        }
        touched
    }
}

fn version(at: jiff_sqlx::Timestamp, exact: bool) -> Version {
    Version {
        at: at.to_jiff(),
        exact,
    }
}

/// The two times of what a row says; none where it says nothing yet.
fn told(
    version_at: Option<jiff_sqlx::Timestamp>,
    stated_at: Option<jiff_sqlx::Timestamp>,
    learnt_at: Option<jiff_sqlx::Timestamp>,
) -> Option<Told> {
    Some(Told {
        stated_at: stated_at.or(version_at)?.to_jiff(),
        learnt_at: learnt_at?.to_jiff(),
    })
}

fn learnt_at(told: Option<Told>) -> Option<jiff_sqlx::Timestamp> {
    told.map(|told| told.learnt_at.to_sqlx())
}

/// Written only where it is not that of the version, which is seldom.
fn stated_at(told: Option<Told>, version: Option<Version>) -> Option<jiff_sqlx::Timestamp> {
    told.filter(|told| version.is_none_or(|version| version.at != told.stated_at))
        .map(|told| told.stated_at.to_sqlx())
}

/// One column of a batch.
macro_rules! column {
    ($rows:expr, |$row:pat_param| $value:expr) => {
        &$rows.iter().map(|$row| $value).collect::<Vec<_>>()
    };
}
use column;
