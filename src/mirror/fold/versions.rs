//! Statements that a row holds no longer, or never did: with the rows, all that is needed to answer for a past moment.

use jiff::Timestamp;

use crate::ids::{ConversationSid, MessageSid, ParticipantSid, ReceiptSid};
use crate::mirror::change::{ConversationFields, MessageFields, ParticipantFields};
use crate::mirror::version::Version;

/// The two times of a statement that a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Since when it is so at Twilio. The row's version may be later: a doubt moves it, and the read that settles it.
    pub stated_at: Timestamp,
    /// Since when we know.
    pub learnt_at: Timestamp,
}

impl Told {
    pub(super) fn new(version: Version, now: Timestamp) -> Self {
        Self {
            stated_at: version.at,
            learnt_at: now,
        }
    }

    /// The same, known to a better time.
    pub(super) fn refined(self, version: Version) -> Self {
        Self {
            stated_at: version.at,
            ..self
        }
    }
}

/// One statement about `K`.
#[derive(Debug, Clone, PartialEq)]
pub struct Past<K, S> {
    pub key: K,
    pub version_at: Timestamp,
    pub told: Told,
    pub says: S,
}

impl<K, S> Past<K, S> {
    /// A statement that comes too late to change the row.
    pub(super) fn late(key: K, version: Version, now: Timestamp, says: S) -> Self {
        Self {
            key,
            version_at: version.at,
            told: Told::new(version, now),
            says,
        }
    }
}

/// What is said of a member or a message. The removal is apart from the rest, since the earliest one known counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Says<F> {
    Content(F),
    Removed,
}

/// What is said of a conversation; its state has a gate of its own.
#[derive(Debug, Clone, PartialEq)]
pub enum ConversationSays {
    Content(ConversationFields),
    State(String),
    Removed,
}

/// What is said of a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptSays {
    pub status: String,
    pub error_code: Option<String>,
}

pub type ConversationPast = Past<ConversationSid, ConversationSays>;
pub type ParticipantPast = Past<(ConversationSid, ParticipantSid), Says<ParticipantFields>>;
pub type MessagePast = Past<(ConversationSid, MessageSid), Says<MessageFields>>;
pub type ReceiptPast = Past<(ConversationSid, MessageSid, ReceiptSid), ReceiptSays>;

/// All of a batch, in the order in which they came to be past.
#[derive(Debug, Default)]
pub struct Versions {
    pub conversations: Vec<ConversationPast>,
    pub participants: Vec<ParticipantPast>,
    pub messages: Vec<MessagePast>,
    pub receipts: Vec<ReceiptPast>,
}

impl Versions {
    /// Takes over those of a later batch.
    pub fn append(&mut self, later: &mut Self) {
        self.conversations.append(&mut later.conversations);
        self.participants.append(&mut later.participants);
        self.messages.append(&mut later.messages);
        self.receipts.append(&mut later.receipts);
    }
}

/// Notes a removal, of which the earliest time counts; answers what was known of it before, if that was another one.
pub(super) fn note_removal(
    removed_at: &mut Option<Timestamp>,
    learnt_at: &mut Option<Timestamp>,
    stated: Option<Timestamp>,
    now: Timestamp,
) -> Option<Told> {
    let known = *removed_at;
    if known == stated {
        return None;
    }
    *removed_at = stated;
    if super::judge::refines_time(known, stated) && known.is_some() {
        return None;
    }
    let known_since = learnt_at.replace(now);
    Some(Told {
        stated_at: known?,
        learnt_at: known_since.unwrap_or_default(),
    })
}
