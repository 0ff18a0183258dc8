//! Statements about a member.

use jiff::Timestamp;
use serde_json::json;

use super::Fold;
use super::judge::{Known, Stated, agree_on_spelling, apply_judged, judge, refines_time};
use super::versions::{Past, Says, Told, note_removal};
use crate::events::Kind;
use crate::ids::{AccountSid, ConversationSid, ParticipantSid, PhoneNumber};
use crate::ledger::Fact;
use crate::mirror::change::{ParticipantChange, ParticipantFields};
use crate::mirror::erased::Erased;
use crate::mirror::spelling;
use crate::mirror::version::{Verdict, Version};

#[derive(Debug, Clone, PartialEq)]
pub struct Participant {
    pub account_sid: AccountSid,
    pub fields: ParticipantFields,
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
    pub(super) fn participant(&mut self, change: &ParticipantChange) {
        let (sid, conversation_sid) = (&change.participant_sid, &change.conversation_sid);
        let key = (conversation_sid.clone(), sid.clone());
        self.note_orphan(conversation_sid);
        let settles = self.settles();
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
        apply_judged!(
            row,
            change,
            judged,
            key,
            self.outcome.versions.participants,
            self.context.now
        );
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
        let now = self.context.now;
        let told = change.fields.as_ref().map(|_| Told::new(change.version, now));
        let fields = change.fields.clone().unwrap_or_default();
        let data = seat_data(&fields);
        let row = Participant {
            account_sid: self.observed.account_sid.clone(),
            fields,
            created_at: change.created_at,
            version: change.version,
            told,
            removed_at: change.removed.then_some(change.version.at),
            removal_learnt_at: change.removed.then_some(now),
            revision: 1,
            erased: Erased::default(),
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
