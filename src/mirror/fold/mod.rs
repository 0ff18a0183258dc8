//! Applies statements to what is stored, one after the other. Pure: [`super::store`] loads the state that the changes
//! touch and writes back what differs.
//!
//! The result does not depend on the order or the number of times in which the same webhooks come: a statement is
//! taken when it is newer, and two statements of one instant are ordered by their content until a read settles them.

mod conversation;
mod judge;
mod message;
mod participant;
mod receipt;
mod user;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::events::{Kind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid, MessageSid, ParticipantSid, ReceiptSid, UserSid};
use crate::ledger::Fact;
use crate::mirror::change::{Change, Observed};

pub use conversation::Conversation;
pub use message::Message;
pub use participant::Participant;
pub use receipt::Receipt;
pub use user::User;
pub use versions::{
    ConversationPast, ConversationSays, MessagePast, ParticipantPast, Past, ReceiptPast, ReceiptSays, Says,
    Told, Versions,
};

/// The rows that a batch of changes touches.
#[derive(Debug, Default)]
pub struct State {
    pub conversations: BTreeMap<ConversationSid, Conversation>,
    pub participants: BTreeMap<(ConversationSid, ParticipantSid), Participant>,
    pub messages: BTreeMap<(ConversationSid, MessageSid), Message>,
    pub receipts: BTreeMap<(ConversationSid, ReceiptSid), Receipt>,
    pub users: BTreeMap<(AccountSid, UserSid), User>,
    /// Somebody is to be found for lines that nobody holds: a number has a rule for them, or one waits. Read along with the
    /// conversations, so that nobody asks for it in vain.
    pub lines_are_given: bool,
}

impl State {
    /// What is known only until the rows are loaded again: whether a receipt's time was cut to the second.
    pub fn forget_what_is_not_stored(&mut self) {
        for row in self.receipts.values_mut() {
            row.version.exact = row.version.at.subsec_nanosecond() != 0;
        }
    }

    /// Whether any row differs from what was loaded.
    pub fn is_dirty(&self) -> bool {
        self.conversations.values().any(|row| row.dirty)
            || self.participants.values().any(|row| row.dirty)
            || self.messages.values().any(|row| row.dirty)
            || self.receipts.values().any(|row| row.dirty)
            || self.users.values().any(|row| row.dirty)
    }
}

/// The revisions that a reader had seen before it read at Twilio, by SID. Where a row still has that revision, the
/// answer is later than the row, and settles a tie; a SID that is not named was not stored then.
pub type Revisions = BTreeMap<String, i64>;

/// What a batch brought about besides the changed rows.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the rows do not say, or say no longer.
    pub versions: Versions,
    pub events: Vec<NewEvent>,
    pub facts: Vec<Fact>,
    /// Conversations whose life ended, or whose end got a better time: the ledger ends with them.
    pub ended: BTreeSet<ConversationSid>,
    /// Conversations that have to be read again: a tie, or a parent known only by its children.
    pub to_fetch: BTreeSet<ConversationSid>,
    /// Messages known only by their receipts.
    pub messages_to_fetch: BTreeSet<(ConversationSid, MessageSid)>,
    /// Messages of which two statements of one instant differ.
    pub messages_in_doubt: BTreeSet<(ConversationSid, MessageSid)>,
    /// Conversations whose state changed, for those who wait for it.
    pub state_changed: BTreeSet<ConversationSid>,
}

/// What all changes of a batch share.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub via: Via,
    pub now: Timestamp,
    pub settles: Option<&'a Revisions>,
}

/// Whether an answer is later than the row that it speaks of, and so settles what is in doubt about it. Only what can be
/// in doubt has a revision to tell by.
pub fn settles(state: &State, change: &Change, seen: &Revisions) -> bool {
    subject(change).is_some_and(|sid| seen.get(sid).copied() == revision(state, change))
}

/// The revisions that a reader must have seen for [`settles`] to be true: so that a statement that once settled a doubt
/// does so again, whatever revisions are by then.
pub fn revisions_that_settle(state: &State, change: &Change) -> Revisions {
    subject(change)
        .zip(revision(state, change))
        .map(|(sid, revision)| (sid.to_owned(), revision))
        .into_iter()
        .collect()
}

fn subject(change: &Change) -> Option<&str> {
    match change {
        Change::Conversation(change) => Some(change.conversation_sid.as_str()),
        Change::Participant(change) => Some(change.participant_sid.as_str()),
        Change::Message(change) => Some(change.message_sid.as_str()),
        Change::ConversationState(_)
        | Change::ConversationRemoved { .. }
        | Change::Receipt(_)
        | Change::User(_)
        | Change::Unread { .. } => None,
    }
}

fn revision(state: &State, change: &Change) -> Option<i64> {
    match change {
        Change::Conversation(change) => {
            let row = state.conversations.get(&change.conversation_sid);
            row.map(|row| row.revision)
        }
        Change::Participant(change) => {
            let key = (change.conversation_sid.clone(), change.participant_sid.clone());
            state.participants.get(&key).map(|row| row.revision)
        }
        Change::Message(change) => {
            let key = (change.conversation_sid.clone(), change.message_sid.clone());
            state.messages.get(&key).map(|row| row.revision)
        }
        Change::ConversationState(_)
        | Change::ConversationRemoved { .. }
        | Change::Receipt(_)
        | Change::User(_)
        | Change::Unread { .. } => None,
    }
}

/// The change without what was erased of its subject; `None` where it says nothing of that. A user is found by the account
/// too.
pub fn without_erased(state: &State, account_sid: Option<&AccountSid>, change: &Change) -> Option<Change> {
    match change {
        Change::Conversation(change) => {
            let row = state.conversations.get(&change.conversation_sid)?;
            row.erased.conversation(change).map(Change::Conversation)
        }
        Change::Participant(change) => {
            let key = (change.conversation_sid.clone(), change.participant_sid.clone());
            let row = state.participants.get(&key)?;
            row.erased.participant(change).map(Change::Participant)
        }
        Change::Message(change) => {
            let key = (change.conversation_sid.clone(), change.message_sid.clone());
            let row = state.messages.get(&key)?;
            row.erased.message(change).map(Change::Message)
        }
        Change::User(change) => {
            let row = state
                .users
                .get(&(account_sid?.clone(), change.user_sid.clone()))?;
            row.erased.user(change).map(Change::User)
        }
        Change::ConversationState(_)
        | Change::ConversationRemoved { .. }
        | Change::Receipt(_)
        | Change::Unread { .. } => None,
    }
}

/// Applies one change. Answers with the change as it was taken where it said again what had been erased: without that.
pub fn apply(
    state: &mut State,
    outcome: &mut Outcome,
    context: Context<'_>,
    observed: &Observed,
) -> Option<Change> {
    let Some(change) = without_erased(state, Some(&observed.account_sid), &observed.change) else {
        apply_whole(state, outcome, context, observed);
        return None;
    };
    let masked = Observed {
        change,
        ..observed.clone()
    };
    apply_whole(state, outcome, context, &masked);
    Some(masked.change)
}

fn apply_whole(state: &mut State, outcome: &mut Outcome, context: Context<'_>, observed: &Observed) {
    let mut fold = Fold {
        state,
        outcome,
        context,
        observed,
    };
    if let Some(sid) = observed.change.conversation_sid() {
        fold.ensure_conversation(sid);
    }
    match &observed.change {
        Change::Conversation(change) => fold.conversation(change),
        Change::ConversationState(change) => fold.conversation_state(change),
        Change::ConversationRemoved {
            conversation_sid,
            version,
        } => {
            fold.conversation_removed(conversation_sid, *version);
        }
        Change::Participant(change) => fold.participant(change),
        Change::Message(change) => fold.message(change),
        Change::Receipt(change) => fold.receipt(change),
        Change::User(change) => fold.user(change),
        Change::Unread {
            conversation_sid,
            message_sid,
        } => fold.unread(conversation_sid, message_sid.as_ref()),
    }
}

struct Fold<'a> {
    state: &'a mut State,
    outcome: &'a mut Outcome,
    context: Context<'a>,
    observed: &'a Observed,
}

impl Fold<'_> {
    fn ensure_conversation(&mut self, sid: &ConversationSid) {
        if self.state.conversations.contains_key(sid) {
            return;
        }
        let row = Conversation::known_by_its_children(self.observed.account_sid.clone(), self.context.now);
        self.state.conversations.insert(sid.clone(), row);
    }

    /// A part of what was said could not be read: a read tells it.
    fn unread(&mut self, sid: &ConversationSid, message_sid: Option<&MessageSid>) {
        let row = self.state.conversations.get_mut(sid).expect("ensured before");
        if row.removed_at.is_some() {
            return;
        }
        if let Some(message_sid) = message_sid {
            let key = (sid.clone(), message_sid.clone());
            self.outcome.messages_in_doubt.insert(key);
        } else {
            row.unverified_since.get_or_insert(self.context.now);
            row.dirty = true;
            self.outcome.to_fetch.insert(sid.clone());
        }
    }

    fn note_orphan(&mut self, sid: &ConversationSid) {
        if self
            .state
            .conversations
            .get(sid)
            .is_some_and(|row| row.version.is_none() && row.removed_at.is_none())
        {
            self.outcome.to_fetch.insert(sid.clone());
        }
    }

    /// Whether this answer was read after the row had become what it is.
    fn settles(&self) -> bool {
        self.context
            .settles
            .is_some_and(|seen| settles(self.state, &self.observed.change, seen))
    }

    fn tell(
        &mut self,
        kind: Kind,
        conversation_sid: Option<&ConversationSid>,
        subject: &str,
        occurred_at: Timestamp,
        data: serde_json::Value,
    ) {
        self.outcome.events.push(NewEvent {
            kind,
            account_sid: Some(self.observed.account_sid.clone()),
            conversation_sid: conversation_sid.cloned(),
            subject: subject.to_owned(),
            actor: None,
            via: self.context.via,
            cause: Some(self.observed.cause.clone()),
            occurred_at,
            recorded_at: self.context.now,
            data,
        });
    }
}
