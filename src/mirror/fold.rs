//! Applies statements to what is stored, one after the other. Pure: [`super::store`] loads the state that the changes
//! touch and writes back what differs.
//!
//! The result does not depend on the order or the number of times in which the same webhooks come: a statement is
//! taken when it is newer, and two statements of one instant are ordered by their content until a read settles them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::json;

use crate::events::{Kind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid, MessageSid, ParticipantSid, PhoneNumber, ReceiptSid, UserSid};
use crate::ledger::Fact;
use crate::mirror::change::{
    Change, ConversationChange, ConversationFields, MessageChange, MessageFields, Observed,
    ParticipantChange, ParticipantFields, ReceiptChange, StateChange, UserChange, UserFields,
};
use crate::mirror::spelling;
use crate::mirror::version::{Stamp, Verdict, Version, Weighed};

/// The rows that a batch of changes touches.
#[derive(Debug, Default)]
pub struct State {
    pub conversations: BTreeMap<ConversationSid, Conversation>,
    pub participants: BTreeMap<(ConversationSid, ParticipantSid), Participant>,
    pub messages: BTreeMap<(ConversationSid, MessageSid), Message>,
    pub receipts: BTreeMap<(ConversationSid, ReceiptSid), Receipt>,
    pub users: BTreeMap<(AccountSid, UserSid), User>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    pub account_sid: AccountSid,
    pub fields: ConversationFields,
    pub state: Option<String>,
    pub state_version: Option<Version>,
    pub created_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub autocreated: bool,
    /// None while only children of the conversation are known.
    pub version: Option<Version>,
    pub removed_at: Option<Timestamp>,
    pub revision: i64,
    pub unverified_since: Option<Timestamp>,
    pub last_message_at: Option<Timestamp>,
    pub dirty: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Participant {
    pub account_sid: AccountSid,
    pub fields: ParticipantFields,
    pub created_at: Option<Timestamp>,
    pub version: Version,
    pub removed_at: Option<Timestamp>,
    pub revision: i64,
    pub dirty: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub account_sid: AccountSid,
    pub fields: MessageFields,
    pub source: Option<String>,
    pub created_at: Option<Timestamp>,
    pub version: Version,
    pub removed_at: Option<Timestamp>,
    pub revision: i64,
    pub dirty: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    pub account_sid: AccountSid,
    pub message_sid: MessageSid,
    pub participant_sid: Option<String>,
    pub channel_message_sid: Option<String>,
    pub status: String,
    pub error_code: Option<String>,
    pub created_at: Option<Timestamp>,
    pub version: Version,
    pub dirty: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct User {
    pub fields: UserFields,
    pub created_at: Option<Timestamp>,
    pub version: Version,
    pub dirty: bool,
}

/// The revisions that a reader had seen before it read at Twilio, by SID. Where a row still has that revision, the
/// answer is later than the row, and settles a tie; a SID that is not named was not stored then.
pub type Revisions = BTreeMap<String, i64>;

/// What a batch brought about besides the changed rows.
#[derive(Debug, Default)]
pub struct Outcome {
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

impl Conversation {
    pub fn known_by_its_children(account_sid: AccountSid, now: Timestamp) -> Self {
        Self {
            account_sid,
            fields: ConversationFields::default(),
            state: None,
            state_version: None,
            created_at: None,
            closed_at: None,
            autocreated: false,
            version: None,
            removed_at: None,
            revision: 0,
            unverified_since: Some(now),
            last_message_at: None,
            dirty: true,
        }
    }

    /// When its lines ended, if they did: closed is final at Twilio.
    pub fn ended_at(&self) -> Option<Timestamp> {
        [self.closed_at, self.removed_at].into_iter().flatten().min()
    }
}

impl Conversation {
    /// Two statements of one instant differ: a read has to settle it, and one that began before now cannot.
    fn doubt(&mut self, stated: Version, now: Timestamp) {
        self.unverified_since.get_or_insert(now);
        self.dirty = true;
        if stated.exact {
            self.revision += 1;
        }
    }
}

macro_rules! revised {
    ($($name:ident),*) => {
        $(impl $name {
            /// Every change of content is a new revision, so that a reader can tell whether it read before it.
            fn changed(&mut self) {
                self.revision += 1;
                self.dirty = true;
            }
        })*
    };
}
revised!(Conversation, Participant, Message);

/// The change, its attributes spelled as in the row or the row's as in the change, where that is the only difference.
macro_rules! agree_on_spelling {
    ($row:ident, $change:ident) => {{
        let stated = $change
            .fields
            .as_ref()
            .and_then(|fields| fields.attributes.as_deref());
        let text = spelling::agreed(
            ($row.fields.attributes.as_deref(), Some($row.version)),
            (stated, $change.version),
        );
        if text.is_some() && $row.fields.attributes != text {
            $row.fields.attributes.clone_from(&text);
            $row.dirty = true;
        }
        spelling::respelled($change, text, |change, text| {
            if let Some(fields) = &mut change.fields {
                fields.attributes = Some(text);
            }
        })
    }};
}

/// Writes a verdict into the row of a participant or a message.
macro_rules! apply_judged {
    ($row:ident, $change:ident, $judged:ident) => {
        let version_moves = $row.version != $judged.version;
        let removal_moves = $row.removed_at != $judged.removed_at;
        $row.version = $judged.version;
        $row.removed_at = $judged.removed_at;
        if let (true, Some(fields)) = ($judged.taken, &$change.fields) {
            $row.fields.clone_from(fields);
        }
        // A read that began before a doubt arose cannot settle it, so that the doubt is a new revision too.
        if $judged.taken || removal_moves || ($judged.doubt && $change.version.exact) {
            $row.changed();
        } else if version_moves {
            $row.dirty = true;
        }
    };
}

/// Applies one change.
pub fn apply(state: &mut State, outcome: &mut Outcome, context: Context<'_>, observed: &Observed) {
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

    fn conversation(&mut self, change: &ConversationChange) {
        let sid = &change.conversation_sid;
        let settles = self.settles(sid.as_str(), |state| {
            state.conversations.get(sid).map(|row| row.revision)
        });
        let row = self.state.conversations.get_mut(sid).expect("ensured before");
        // The service never changes; not every webhook names it.
        let mut fields = change.fields.clone();
        fields.service_sid = fields.service_sid.or_else(|| row.fields.service_sid.clone());
        if row.fields.service_sid.is_none() && fields.service_sid.is_some() {
            row.fields.service_sid.clone_from(&fields.service_sid);
            row.dirty = true;
        }
        if let Some(text) = spelling::agreed(
            (row.fields.attributes.as_deref(), row.version),
            (fields.attributes.as_deref(), change.version),
        ) {
            row.dirty |= row.fields.attributes.as_deref() != Some(text.as_str());
            row.fields.attributes = Some(text.clone());
            fields.attributes = Some(text);
        }
        let first_seen = row.version.is_none();
        let differs = row.fields != fields;
        let weighed = match row.version {
            None => first(change.version),
            Some(stored) => stamp(change.version).weigh(stamp(stored), !differs, settles),
        };
        let moves = row.version.is_some_and(|stored| stored != weighed.row);
        if refines_time(row.created_at, change.created_at) {
            row.created_at = change.created_at;
            row.dirty = true;
        }
        if change.autocreated && !row.autocreated {
            row.autocreated = true;
            row.dirty = true;
            self.outcome.state_changed.insert(sid.clone());
        }
        let taken = match weighed.verdict {
            Verdict::Newer => true,
            Verdict::Tie => {
                let both_exact = change.version.exact && row.version.is_some_and(|stored| stored.exact);
                if row.removed_at.is_none() {
                    row.doubt(change.version, self.context.now);
                    self.outcome.to_fetch.insert(sid.clone());
                }
                both_exact && fields > row.fields
            }
            Verdict::Refines | Verdict::Same | Verdict::Older => false,
        };
        row.version = Some(weighed.row);
        row.dirty |= moves;
        if taken {
            row.fields = fields;
            row.changed();
            if first_seen {
                row.unverified_since = None;
            }
        }
        if taken && (first_seen || differs) {
            let kind = if first_seen {
                Kind::ConversationAdded
            } else {
                Kind::ConversationUpdated
            };
            let data = json!({
                "friendly_name": change.fields.friendly_name,
                "unique_name": change.fields.unique_name,
                "messaging_service_sid": change.fields.messaging_service_sid,
                "state": change.state,
                "autocreated": change.autocreated,
            });
            self.tell(kind, Some(sid), sid.as_str(), change.version.at, data);
        }
        if let Some(state) = &change.state {
            self.state_statement(sid, state, change.version, None, settles);
        }
    }

    fn conversation_state(&mut self, change: &StateChange) {
        let sid = &change.conversation_sid;
        self.note_orphan(sid);
        self.state_statement(
            sid,
            &change.state,
            change.version,
            change.reason.as_deref(),
            false,
        );
    }

    /// The state has a gate of its own, since a state webhook states nothing else.
    fn state_statement(
        &mut self,
        sid: &ConversationSid,
        state: &str,
        version: Version,
        reason: Option<&str>,
        settles: bool,
    ) {
        let row = self.state.conversations.get_mut(sid).expect("ensured before");
        let was = row.state.clone();
        let same = was.as_deref() == Some(state);
        let weighed = match row.state_version {
            None => first(version),
            Some(stored) => stamp(version).weigh(stamp(stored), same, settles),
        };
        // Closed is final at Twilio, so it is taken however late we hear of it, and the earliest time of it counts.
        if was.as_deref() == Some("closed") || state == "closed" {
            self.closing_statement(sid, state, version, reason);
            return;
        }
        let taken = match weighed.verdict {
            Verdict::Newer | Verdict::Refines => true,
            Verdict::Tie => {
                let both_exact = version.exact && row.state_version.is_some_and(|stored| stored.exact);
                if row.removed_at.is_none() {
                    row.doubt(version, self.context.now);
                    self.outcome.to_fetch.insert(sid.clone());
                }
                let rank = |state| (state_rank(state), state);
                both_exact && Some(rank(state)) > was.as_deref().map(rank)
            }
            Verdict::Same | Verdict::Older => false,
        };
        if row.state_version != Some(weighed.row) {
            row.state_version = Some(weighed.row);
            row.dirty = true;
        }
        if !taken {
            return;
        }
        row.state = Some(state.to_owned());
        if same {
            row.dirty = true;
            return;
        }
        row.changed();
        self.state_changed(sid, was.as_deref(), state, version.at, reason);
    }

    /// A statement of which the conversation is closed before or after it: nothing reopens it.
    fn closing_statement(
        &mut self,
        sid: &ConversationSid,
        state: &str,
        version: Version,
        reason: Option<&str>,
    ) {
        if state != "closed" {
            return;
        }
        let row = self.state.conversations.get_mut(sid).expect("ensured before");
        let closed_at = row
            .closed_at
            .map_or(version.at, |known| earlier_of(known, version.at));
        if row.closed_at != Some(closed_at) {
            row.closed_at = Some(closed_at);
            row.state_version = Some(version);
            row.dirty = true;
            self.outcome.ended.insert(sid.clone());
        }
        let was = row.state.replace(state.to_owned());
        if was.as_deref() != Some(state) {
            row.changed();
            self.state_changed(sid, was.as_deref(), state, version.at, reason);
        }
    }

    fn state_changed(
        &mut self,
        sid: &ConversationSid,
        was: Option<&str>,
        state: &str,
        at: Timestamp,
        reason: Option<&str>,
    ) {
        self.outcome.state_changed.insert(sid.clone());
        let data = json!({ "from": was, "to": state, "reason": reason });
        self.tell(Kind::ConversationStateChanged, Some(sid), sid.as_str(), at, data);
    }

    fn conversation_removed(&mut self, sid: &ConversationSid, version: Version) {
        let row = self.state.conversations.get_mut(sid).expect("ensured before");
        let known = row.removed_at;
        let removed_at = known.map_or(version.at, |known| earlier_of(known, version.at));
        if known == Some(removed_at) {
            return;
        }
        row.removed_at = Some(removed_at);
        row.unverified_since = None;
        row.changed();
        self.outcome.ended.insert(sid.clone());
        self.outcome.state_changed.insert(sid.clone());
        if known.is_none() {
            self.tell(
                Kind::ConversationRemoved,
                Some(sid),
                sid.as_str(),
                version.at,
                json!({}),
            );
        }
    }

    fn participant(&mut self, change: &ParticipantChange) {
        let (sid, conversation_sid) = (&change.participant_sid, &change.conversation_sid);
        let key = (conversation_sid.clone(), sid.clone());
        self.note_orphan(conversation_sid);
        let settles = self.settles(sid.as_str(), |state| {
            state.participants.get(&key).map(|row| row.revision)
        });
        let Some(row) = self.state.participants.get_mut(&key) else {
            self.note_seat(change, change.version, None);
            self.new_participant(key, change);
            return;
        };
        let change = &*agree_on_spelling!(row, change);
        let (before, was_removed) = (row.fields.clone(), row.removed_at.is_some());
        let judged = judge(
            &Known {
                fields: &row.fields,
                version: row.version,
                removed_at: row.removed_at,
            },
            &Stated {
                fields: change.fields.as_ref(),
                version: change.version,
                removed: change.removed,
                settles,
            },
        );
        if refines_time(row.created_at, change.created_at) {
            row.created_at = change.created_at;
            row.dirty = true;
        }
        apply_judged!(row, change, judged);
        let (after, is_removed) = (row.fields.clone(), row.removed_at.is_some());
        if judged.doubt {
            self.outcome.to_fetch.insert(conversation_sid.clone());
        }
        // What a read says of a moment that it cannot place is not kept: the next read, which is asked for, can.
        if judged.verdict != Verdict::Tie || change.version.exact {
            self.note_seat(change, judged.fact_version, Some(&before));
        }
        let kind = match (was_removed, is_removed) {
            (false, true) => Kind::ParticipantRemoved,
            (false, false) if before != after => Kind::ParticipantUpdated,
            (true, _) | (false, false) => return,
        };
        self.tell(
            kind,
            Some(conversation_sid),
            sid.as_str(),
            change.version.at,
            seat_data(&after),
        );
    }

    fn new_participant(&mut self, key: (ConversationSid, ParticipantSid), change: &ParticipantChange) {
        let fields = change.fields.clone().unwrap_or_default();
        let data = seat_data(&fields);
        let row = Participant {
            account_sid: self.observed.account_sid.clone(),
            fields,
            created_at: change.created_at,
            version: change.version,
            removed_at: change.removed.then_some(change.version.at),
            revision: 1,
            dirty: true,
        };
        self.state.participants.insert(key, row);
        let kind = if change.removed {
            Kind::ParticipantRemoved
        } else {
            Kind::ParticipantAdded
        };
        self.tell(
            kind,
            Some(&change.conversation_sid),
            change.participant_sid.as_str(),
            change.version.at,
            data,
        );
    }

    /// Keeps what the statement says about a seat on a line, however late it comes: the ledger wants them all.
    fn note_seat(
        &mut self,
        change: &ParticipantChange,
        version: Version,
        stored: Option<&ParticipantFields>,
    ) {
        let fields = change.fields.as_ref().or(stored);
        let never_on_a_line = fields.is_some_and(|fields| fields.address.is_some());
        if never_on_a_line {
            return;
        }
        let line = fields.and_then(|fields| fields.projected_address.as_deref());
        self.outcome.facts.push(Fact {
            conversation_sid: change.conversation_sid.clone(),
            participant_sid: change.participant_sid.clone(),
            version,
            line: line.and_then(|line| PhoneNumber::try_from(line).ok()),
            identity: fields.and_then(|fields| fields.identity.clone()),
            removed: change.removed,
            via: self.context.via,
        });
    }

    fn message(&mut self, change: &MessageChange) {
        let (sid, conversation_sid) = (&change.message_sid, &change.conversation_sid);
        let key = (conversation_sid.clone(), sid.clone());
        self.note_orphan(conversation_sid);
        self.note_activity(change);
        let settles = self.settles(sid.as_str(), |state| {
            state.messages.get(&key).map(|row| row.revision)
        });
        let Some(row) = self.state.messages.get_mut(&key) else {
            self.new_message(key, change);
            return;
        };
        let change = &*agree_on_spelling!(row, change);
        let (before, was_removed) = (row.fields.clone(), row.removed_at.is_some());
        let judged = judge(
            &Known {
                fields: &row.fields,
                version: row.version,
                removed_at: row.removed_at,
            },
            &Stated {
                fields: change.fields.as_ref(),
                version: change.version,
                removed: change.removed,
                settles,
            },
        );
        if row.source.is_none() && self.observed.source.is_some() {
            row.source.clone_from(&self.observed.source);
            row.dirty = true;
        }
        if refines_time(row.created_at, change.created_at) {
            row.created_at = change.created_at;
            row.dirty = true;
        }
        apply_judged!(row, change, judged);
        let (after, is_removed) = (row.fields.clone(), row.removed_at.is_some());
        if judged.doubt {
            self.outcome.messages_in_doubt.insert(key);
        }
        let kind = match (was_removed, is_removed) {
            (false, true) => Kind::MessageRemoved,
            (false, false) if before != after => Kind::MessageUpdated,
            (true, _) | (false, false) => return,
        };
        self.tell(
            kind,
            Some(conversation_sid),
            sid.as_str(),
            change.version.at,
            message_data(&after),
        );
    }

    fn new_message(&mut self, key: (ConversationSid, MessageSid), change: &MessageChange) {
        let fields = change.fields.clone().unwrap_or_default();
        let data = message_data(&fields);
        let row = Message {
            account_sid: self.observed.account_sid.clone(),
            fields,
            source: self.observed.source.clone(),
            created_at: change.created_at,
            version: change.version,
            removed_at: change.removed.then_some(change.version.at),
            revision: 1,
            dirty: true,
        };
        self.state.messages.insert(key, row);
        let (kind, at) = if change.removed {
            (Kind::MessageRemoved, change.version.at)
        } else {
            (Kind::MessageAdded, change.created_at.unwrap_or(change.version.at))
        };
        self.tell(
            kind,
            Some(&change.conversation_sid),
            change.message_sid.as_str(),
            at,
            data,
        );
    }

    fn receipt(&mut self, change: &ReceiptChange) {
        let conversation_sid = &change.conversation_sid;
        self.note_orphan(conversation_sid);
        if !self
            .state
            .messages
            .contains_key(&(conversation_sid.clone(), change.message_sid.clone()))
        {
            self.outcome
                .messages_to_fetch
                .insert((conversation_sid.clone(), change.message_sid.clone()));
        }
        let key = (conversation_sid.clone(), change.receipt_sid.clone());
        let incoming = Receipt {
            account_sid: self.observed.account_sid.clone(),
            message_sid: change.message_sid.clone(),
            participant_sid: change.participant_sid.clone(),
            channel_message_sid: change.channel_message_sid.clone(),
            status: change.status.clone(),
            error_code: change.error_code.clone(),
            created_at: change.created_at,
            version: change.version,
            dirty: true,
        };
        let told = match self.state.receipts.get_mut(&key) {
            None => {
                self.state.receipts.insert(key, incoming);
                true
            }
            Some(row) => {
                let told = receipt_order(&incoming) > receipt_order(row) && row.status != incoming.status;
                let merged = merged_receipt(row, incoming);
                if merged != *row {
                    *row = merged;
                    row.dirty = true;
                }
                told
            }
        };
        if told {
            let data = json!({
                "message_sid": change.message_sid,
                "participant_sid": change.participant_sid,
                "status": change.status,
                "error_code": change.error_code,
            });
            let subject = change.receipt_sid.as_str();
            self.tell(
                Kind::DeliveryUpdated,
                Some(conversation_sid),
                subject,
                change.version.at,
                data,
            );
        }
    }

    fn user(&mut self, change: &UserChange) {
        let key = (self.observed.account_sid.clone(), change.user_sid.clone());
        let newer = self
            .state
            .users
            .get(&key)
            .is_none_or(|row| (change.version.at, &change.fields) > (row.version.at, &row.fields));
        if !newer {
            return;
        }
        let created_at = self
            .state
            .users
            .get(&key)
            .and_then(|row| row.created_at)
            .or(change.created_at);
        self.state.users.insert(
            key,
            User {
                fields: change.fields.clone(),
                created_at,
                version: change.version,
                dirty: true,
            },
        );
        let data = json!({ "identity": change.fields.identity, "is_online": change.fields.is_online });
        self.tell(
            Kind::UserUpdated,
            None,
            change.user_sid.as_str(),
            change.version.at,
            data,
        );
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

    fn note_activity(&mut self, change: &MessageChange) {
        let row = self
            .state
            .conversations
            .get_mut(&change.conversation_sid)
            .expect("ensured before");
        if change.created_at > row.last_message_at {
            row.last_message_at = change.created_at;
            row.dirty = true;
        }
    }

    /// Whether this answer was read after the row had become what it is.
    fn settles(&self, sid: &str, revision: impl Fn(&State) -> Option<i64>) -> bool {
        self.context
            .settles
            .is_some_and(|seen| seen.get(sid).copied() == revision(self.state))
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

fn stamp(version: Version) -> Stamp {
    Stamp {
        version,
        removed: false,
    }
}

/// What is stored of a resource that can be removed.
struct Known<'a, F> {
    fields: &'a F,
    version: Version,
    removed_at: Option<Timestamp>,
}

/// What a source says of it. A removal may come without the fields, where a read did not find it.
struct Stated<'a, F> {
    fields: Option<&'a F>,
    version: Version,
    removed: bool,
    settles: bool,
}

/// What becomes of the row.
struct Judged {
    verdict: Verdict,
    /// The stated fields replace the stored ones.
    taken: bool,
    version: Version,
    removed_at: Option<Timestamp>,
    /// Which is newer cannot be told, and a read has to.
    doubt: bool,
    /// Where the statement stands among all others.
    fact_version: Version,
}

/// The fields follow the newest statement of them; the removal is apart from that, and final: a SID never comes back, so
/// the earliest time of it counts, in whatever order both come.
fn judge<F: Ord + Default>(known: &Known<'_, F>, stated: &Stated<'_, F>) -> Judged {
    let removed_at = match (known.removed_at, stated.removed) {
        (Some(at), true) => Some(earlier_of(at, stated.version.at)),
        (None, true) => Some(stated.version.at),
        (at, false) => at,
    };
    let judged = |weighed: Weighed| Judged {
        verdict: weighed.verdict,
        taken: weighed.verdict == Verdict::Newer,
        version: weighed.row,
        removed_at,
        doubt: false,
        fact_version: weighed.statement,
    };
    let Some(fields) = stated.fields else {
        return judged(Weighed {
            verdict: Verdict::Same,
            row: known.version,
            statement: stated.version,
        });
    };
    if *known.fields == F::default() {
        // Known by its removal alone.
        return judged(first(stated.version));
    }
    let weighed = Stamp {
        version: stated.version,
        removed: stated.removed,
    }
    .weigh(
        Stamp {
            version: known.version,
            removed: known.removed_at == Some(known.version.at),
        },
        known.fields == fields,
        stated.settles,
    );
    if weighed.verdict != Verdict::Tie {
        return judged(weighed);
    }
    Judged {
        taken: stated.version.exact && known.version.exact && fields > known.fields,
        doubt: removed_at.is_none(),
        ..judged(weighed)
    }
}

/// The first statement about a resource.
fn first(version: Version) -> Weighed {
    Weighed {
        verdict: Verdict::Newer,
        row: version,
        statement: version,
    }
}

/// The earlier of two times of one thing, of which one may be cut to the second.
fn earlier_of(one: Timestamp, other: Timestamp) -> Timestamp {
    if refines_time(Some(one), Some(other)) {
        other
    } else if refines_time(Some(other), Some(one)) {
        one
    } else {
        one.min(other)
    }
}

/// Webhooks give a time to the millisecond, REST to the second: whether `stated` says more than `stored`.
fn refines_time(stored: Option<Timestamp>, stated: Option<Timestamp>) -> bool {
    match (stored, stated) {
        (None, Some(_)) => true,
        (Some(stored), Some(stated)) => {
            stored.as_second() == stated.as_second() && stored.subsec_nanosecond() == 0 && stated != stored
        }
        (_, None) => false,
    }
}

/// The later of two statements about a receipt, with what only the other one told.
fn merged_receipt(stored: &Receipt, stated: Receipt) -> Receipt {
    let (mut later, other) = if receipt_order(&stated) > receipt_order(stored) {
        (stated, stored.clone())
    } else {
        (stored.clone(), stated)
    };
    later.participant_sid = later.participant_sid.or(other.participant_sid);
    later.channel_message_sid = later.channel_message_sid.or(other.channel_message_sid);
    if refines_time(later.created_at, other.created_at) {
        later.created_at = other.created_at;
    }
    later.dirty = stored.dirty;
    later
}

fn state_rank(state: &str) -> u8 {
    match state {
        "initializing" => 1,
        "active" => 2,
        "inactive" => 3,
        "closed" => 4,
        _ => 0,
    }
}

/// A receipt only moves forward: sent, delivered, read; undelivered and failed are final (Twilio: "Delivery Receipts").
fn receipt_order(receipt: &Receipt) -> (u8, Timestamp, bool, &str, &Option<String>) {
    let rank = match receipt.status.as_str() {
        "sent" => 1,
        "delivered" => 2,
        "read" => 3,
        "undelivered" | "failed" => 4,
        _ => 0,
    };
    (
        rank,
        receipt.version.at,
        receipt.version.exact,
        &receipt.status,
        &receipt.error_code,
    )
}

fn seat_data(fields: &ParticipantFields) -> serde_json::Value {
    json!({
        "identity": fields.identity,
        "address": fields.address,
        "proxy_address": fields.proxy_address,
        "projected_address": fields.projected_address,
        "last_read_message_index": fields.last_read_message_index,
    })
}

/// Never the body: the feed adds it from the mirror, where retention and erasure reach it.
fn message_data(fields: &MessageFields) -> serde_json::Value {
    json!({
        "index": fields.index,
        "author": fields.author,
        "participant_sid": fields.participant_sid,
        "has_media": fields.media.is_some(),
    })
}
