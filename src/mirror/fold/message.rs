//! Statements about a message.

use jiff::Timestamp;
use serde_json::json;

use super::Fold;
use super::judge::{Known, Stated, agree_on_spelling, apply_judged, judge, refines_time};
use super::versions::{Past, Says, Told, note_removal};
use crate::events::Kind;
use crate::ids::{AccountSid, ConversationSid, MessageSid};
use crate::mirror::change::{MessageChange, MessageFields};
use crate::mirror::erased::Erased;
use crate::mirror::spelling;
use crate::mirror::version::{Verdict, Version};

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub account_sid: AccountSid,
    pub fields: MessageFields,
    pub source: Option<String>,
    pub created_at: Option<Timestamp>,
    pub version: Version,
    /// None while only its removal is known.
    pub told: Option<Told>,
    pub removed_at: Option<Timestamp>,
    pub removal_learnt_at: Option<Timestamp>,
    pub revision: i64,
    /// What stays erased.
    pub erased: Erased,
    pub dirty: bool,
}

impl Fold<'_> {
    pub(super) fn message(&mut self, change: &MessageChange) {
        let (sid, conversation_sid) = (&change.message_sid, &change.conversation_sid);
        let key = (conversation_sid.clone(), sid.clone());
        self.note_orphan(conversation_sid);
        self.note_activity(change);
        let settles = self.settles();
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
        apply_judged!(
            row,
            change,
            judged,
            key,
            self.outcome.versions.messages,
            self.context.now
        );
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
        let now = self.context.now;
        let told = change.fields.as_ref().map(|_| Told::new(change.version, now));
        let fields = change.fields.clone().unwrap_or_default();
        let data = message_data(&fields);
        let row = Message {
            account_sid: self.observed.account_sid.clone(),
            fields,
            source: self.observed.source.clone(),
            created_at: change.created_at,
            version: change.version,
            told,
            removed_at: change.removed.then_some(change.version.at),
            removal_learnt_at: change.removed.then_some(now),
            revision: 1,
            erased: Erased::default(),
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
