//! Marks the lines to which something happened, in the transaction in which it did.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::PgConnection;

use crate::escalation::store;
use crate::ids::ConversationSid;
use crate::mirror::{Change, Observed, StateNow};

/// Puts the lines of the conversations that these statements are about where they are looked at next. One statement for all
/// of them, and none where nothing of it can matter to a policy.
pub async fn follow<'a>(
    conn: &mut PgConnection,
    observed: &[Observed],
    state_changed: impl Iterator<Item = (&'a ConversationSid, &'a StateNow)>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut sids: BTreeSet<&str> = observed
        .iter()
        .filter(|one| matters(&one.change))
        .filter_map(|one| one.change.conversation_sid())
        .map(ConversationSid::as_str)
        .collect();
    sids.extend(state_changed.map(|(sid, _)| sid.as_str()));
    if sids.is_empty() {
        return Ok(());
    }
    let sids: Vec<&str> = sids.into_iter().collect();
    store::watch::mark_conversations(conn, &sids, now).await
}

fn matters(change: &Change) -> bool {
    match change {
        Change::Message(_)
        | Change::Participant(_)
        | Change::ConversationState(_)
        | Change::ConversationRemoved { .. } => true,
        Change::Receipt(receipt) => matches!(receipt.status.as_str(), "failed" | "undelivered"),
        Change::Conversation(_) | Change::User(_) | Change::Unread { .. } => false,
    }
}
