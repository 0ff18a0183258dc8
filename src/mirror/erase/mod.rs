//! Erasing what the mirror holds: by rules of age here, and of one person in [`person`].
//!
//! Rows stay, with their SIDs, times and order; a field that was erased is empty, or says who stands for it, and is
//! marked ([`super::erased`]). The versions of a row are erased with it: their digests are made anew, since a digest of
//! a number would tell it.
//!
//! Whoever erases locks the conversations first, as everything does that enters the mirror.

mod attributes;
mod messages;
pub mod person;
mod seats;
mod versions;

use jiff::Timestamp;
use sqlx::PgConnection;

use crate::ids::ConversationSid;

pub use attributes::{
    conversations_due, erase_conversations, erase_participants, erase_users, participants_due, users_due,
};
pub use messages::{MessageField, erase_messages, messages_due};
pub use versions::{
    conversation_versions_due, erase_conversation_versions, erase_message_versions,
    erase_participant_versions, message_versions_due, participant_versions_due,
};

/// A row that a rule has looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Its key within its conversation, or its account.
    pub parent: String,
    pub key: String,
    /// None where it belongs to no conversation.
    pub conversation_sid: Option<String>,
    pub is_due: bool,
}

impl Looked {
    fn of_conversation(conversation_sid: String, key: String, is_due: bool) -> Self {
        Self {
            parent: conversation_sid.clone(),
            key,
            conversation_sid: Some(conversation_sid),
            is_due,
        }
    }
}

/// Where a rule goes on, and how far it goes at once.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// The keys of the last row that was looked at.
    pub after: (&'a str, &'a str),
    /// What is older is due.
    pub before: Timestamp,
    pub limit: i64,
}

/// The keys of rows, in two columns.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a> {
    pub parents: &'a [&'a str],
    pub keys: &'a [&'a str],
}

/// Locks these conversations until the transaction ends, so that nothing enters them meanwhile.
pub async fn lock(conn: &mut PgConnection, sids: &[&str]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- mirror.lock_for_erasure
        select from conversation where conversation_sid = any($1) order by conversation_sid for update",
        sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// As [`lock`], of one.
pub async fn lock_one(conn: &mut PgConnection, sid: &ConversationSid) -> Result<(), sqlx::Error> {
    lock(conn, &[sid.as_str()]).await
}

fn count(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
