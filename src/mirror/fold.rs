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
use crate::mirror::version::{Stamp, Verdict, Version};

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
        let first_seen = row.version.is_none();
        let verdict = match row.version {
            None => Verdict::Newer,
            Some(version) => settled(
                stamp(change.version).against(stamp(version), row.fields == fields),
                settles,
            ),
        };
        if refines_time(row.created_at, change.created_at) {
            row.created_at = change.created_at;
            row.dirty = true;
        }
        if change.autocreated && !row.autocreated {
            row.autocreated = true;
            row.dirty = true;
            self.outcome.state_changed.insert(sid.clone());
        }
        let taken = match verdict {
            Verdict::Newer => true,
            Verdict::Tie => {
                self.outcome.to_fetch.insert(sid.clone());
                row.unverified_since.get_or_insert(self.context.now);
                row.dirty = true;
                change.version.exact && row.version.is_some_and(|v| v.exact) && fields > row.fields
            }
            Verdict::Refines => {
                row.version = Some(change.version);
                row.dirty = true;
                false
            }
            Verdict::Same | Verdict::Older => false,
        };
        if taken {
            row.fields = fields;
            row.version = Some(later_of(row.version, change.version));
            row.changed();
            if first_seen {
                row.unverified_since = None;
            }
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
        if self
            .state
            .conversations
            .get(sid)
            .is_some_and(|row| row.version.is_none())
        {
            self.outcome.to_fetch.insert(sid.clone());
        }
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
        let verdict = row.state_version.map_or(Verdict::Newer, |stored| {
            settled(stamp(version).against(stamp(stored), same), settles)
        });
        if verdict == Verdict::Tie {
            self.outcome.to_fetch.insert(sid.clone());
        }
        // Closed is final at Twilio, so it is taken however late we hear of it, and the earliest time of it counts.
        let closes = state == "closed";
        let taken = match verdict {
            _ if was.as_deref() == Some("closed") => false,
            _ if closes => true,
            Verdict::Newer | Verdict::Refines => true,
            Verdict::Tie => version.exact && state_rank(state) > was.as_deref().map_or(0, state_rank),
            Verdict::Same | Verdict::Older => false,
        };
        if closes {
            let closed_at = row
                .closed_at
                .map_or(version.at, |known| earlier_of(known, version.at));
            if row.closed_at != Some(closed_at) {
                row.closed_at = Some(closed_at);
                row.dirty = true;
                self.outcome.ended.insert(sid.clone());
            }
        }
        if !taken {
            return;
        }
        row.state = Some(state.to_owned());
        row.state_version = Some(version);
        if same {
            row.dirty = true;
            return;
        }
        row.changed();
        self.outcome.state_changed.insert(sid.clone());
        let data = json!({ "from": was, "to": state, "reason": reason });
        self.tell(
            Kind::ConversationStateChanged,
            Some(sid),
            sid.as_str(),
            version.at,
            data,
        );
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
        self.note_seat(
            change,
            self.state
                .participants
                .get(&key)
                .map(|row| row.fields.clone())
                .as_ref(),
        );
        let settles = self.settles(sid.as_str(), |state| {
            state.participants.get(&key).map(|row| row.revision)
        });
        let Some(row) = self.state.participants.get_mut(&key) else {
            let fields = change.fields.clone().unwrap_or_default();
            self.state.participants.insert(
                key,
                Participant {
                    account_sid: self.observed.account_sid.clone(),
                    fields: fields.clone(),
                    created_at: change.created_at,
                    version: change.version,
                    removed_at: change.removed.then_some(change.version.at),
                    revision: 1,
                    dirty: true,
                },
            );
            let kind = if change.removed {
                Kind::ParticipantRemoved
            } else {
                Kind::ParticipantAdded
            };
            self.tell(
                kind,
                Some(conversation_sid),
                sid.as_str(),
                change.version.at,
                seat_data(&fields),
            );
            return;
        };
        let fields = change.fields.clone().unwrap_or_else(|| row.fields.clone());
        let verdict = settled(
            Stamp {
                version: change.version,
                removed: change.removed,
            }
            .against(
                Stamp {
                    version: row.version,
                    removed: row.removed_at.is_some(),
                },
                row.fields == fields && change.removed == row.removed_at.is_some(),
            ),
            settles,
        );
        if refines_time(row.created_at, change.created_at) {
            row.created_at = change.created_at;
            row.dirty = true;
        }
        let taken = match verdict {
            Verdict::Newer => true,
            Verdict::Tie => {
                self.outcome.to_fetch.insert(conversation_sid.clone());
                change.version.exact && row.version.exact && fields > row.fields
            }
            Verdict::Refines => {
                row.version = change.version;
                row.removed_at = change.removed.then_some(change.version.at);
                row.dirty = true;
                false
            }
            Verdict::Same | Verdict::Older => false,
        };
        if !taken {
            return;
        }
        let differs = row.fields != fields || change.removed != row.removed_at.is_some();
        row.fields = fields.clone();
        row.version = later_of(Some(row.version), change.version);
        row.removed_at = change.removed.then_some(change.version.at);
        row.changed();
        if differs {
            let kind = if change.removed {
                Kind::ParticipantRemoved
            } else {
                Kind::ParticipantUpdated
            };
            self.tell(
                kind,
                Some(conversation_sid),
                sid.as_str(),
                change.version.at,
                seat_data(&fields),
            );
        }
    }

    /// Keeps what the statement says about a seat on a line, however late it comes: the ledger wants them all.
    fn note_seat(&mut self, change: &ParticipantChange, stored: Option<&ParticipantFields>) {
        let fields = change.fields.as_ref().or(stored);
        let never_on_a_line = fields.is_some_and(|fields| fields.address.is_some());
        if never_on_a_line {
            return;
        }
        let line = fields.and_then(|fields| fields.projected_address.as_deref());
        self.outcome.facts.push(Fact {
            conversation_sid: change.conversation_sid.clone(),
            participant_sid: change.participant_sid.clone(),
            version: change.version,
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
            let fields = change.fields.clone().unwrap_or_default();
            self.state.messages.insert(
                key,
                Message {
                    account_sid: self.observed.account_sid.clone(),
                    fields: fields.clone(),
                    source: self.observed.source.clone(),
                    created_at: change.created_at,
                    version: change.version,
                    removed_at: change.removed.then_some(change.version.at),
                    revision: 1,
                    dirty: true,
                },
            );
            let kind = if change.removed {
                Kind::MessageRemoved
            } else {
                Kind::MessageAdded
            };
            let at = change.created_at.unwrap_or(change.version.at);
            self.tell(
                kind,
                Some(conversation_sid),
                sid.as_str(),
                at,
                message_data(&fields),
            );
            return;
        };
        let fields = change.fields.clone().unwrap_or_else(|| row.fields.clone());
        let verdict = settled(
            Stamp {
                version: change.version,
                removed: change.removed,
            }
            .against(
                Stamp {
                    version: row.version,
                    removed: row.removed_at.is_some(),
                },
                row.fields == fields && change.removed == row.removed_at.is_some(),
            ),
            settles,
        );
        if row.source.is_none() && self.observed.source.is_some() {
            row.source.clone_from(&self.observed.source);
            row.dirty = true;
        }
        if refines_time(row.created_at, change.created_at) {
            row.created_at = change.created_at;
            row.dirty = true;
        }
        let taken = match verdict {
            Verdict::Newer => true,
            Verdict::Tie => {
                self.outcome.to_fetch.insert(conversation_sid.clone());
                self.outcome
                    .messages_to_fetch
                    .insert((conversation_sid.clone(), sid.clone()));
                change.version.exact && row.version.exact && fields > row.fields
            }
            Verdict::Refines => {
                row.version = change.version;
                row.dirty = true;
                false
            }
            Verdict::Same | Verdict::Older => false,
        };
        if !taken {
            return;
        }
        let differs = row.fields != fields || change.removed != row.removed_at.is_some();
        row.fields = fields.clone();
        row.version = later_of(Some(row.version), change.version);
        row.removed_at = change.removed.then_some(change.version.at);
        row.changed();
        if differs {
            let kind = if change.removed {
                Kind::MessageRemoved
            } else {
                Kind::MessageUpdated
            };
            self.tell(
                kind,
                Some(conversation_sid),
                sid.as_str(),
                change.version.at,
                message_data(&fields),
            );
        }
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
            Some(row) if receipt_order(&incoming) > receipt_order(row) => {
                let told = row.status != incoming.status;
                let (participant_sid, channel) = (row.participant_sid.take(), row.channel_message_sid.take());
                let created_at = row.created_at;
                *row = incoming;
                row.participant_sid = row.participant_sid.take().or(participant_sid);
                row.channel_message_sid = row.channel_message_sid.take().or(channel);
                row.created_at = row.created_at.or(created_at);
                told
            }
            Some(_) => false,
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

    fn note_orphan(&mut self, sid: &ConversationSid) {
        if self
            .state
            .conversations
            .get(sid)
            .is_some_and(|row| row.version.is_none())
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

fn settled(verdict: Verdict, settles: bool) -> Verdict {
    match verdict {
        Verdict::Tie if settles => Verdict::Newer,
        other => other,
    }
}

/// The version of a row that takes a statement: a tie settled by a read must not move its time back.
fn later_of(stored: Option<Version>, taken: Version) -> Version {
    match stored {
        Some(stored) if stored.at > taken.at => Version {
            at: stored.at,
            exact: taken.exact,
        },
        _ => taken,
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
