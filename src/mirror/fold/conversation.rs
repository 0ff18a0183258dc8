//! Statements about a conversation: what it is, its state, its end.

use jiff::Timestamp;
use serde_json::json;

use super::Fold;
use super::judge::{earlier_of, first, refines_time, stamp};
use super::versions::{ConversationPast, ConversationSays, Past, Told, note_removal};
use crate::events::Kind;
use crate::ids::{AccountSid, ConversationSid};
use crate::mirror::change::{ConversationChange, ConversationFields, StateChange};
use crate::mirror::erased::Erased;
use crate::mirror::spelling;
use crate::mirror::version::{Verdict, Version};

#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    pub account_sid: AccountSid,
    pub fields: ConversationFields,
    pub state: Option<String>,
    pub state_version: Option<Version>,
    /// Of the state; None while it is not known.
    pub state_told: Option<Told>,
    pub created_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub autocreated: bool,
    /// None while only children of the conversation are known.
    pub version: Option<Version>,
    pub told: Option<Told>,
    pub removed_at: Option<Timestamp>,
    pub removal_learnt_at: Option<Timestamp>,
    pub revision: i64,
    pub unverified_since: Option<Timestamp>,
    pub last_message_at: Option<Timestamp>,
    /// What stays erased.
    pub erased: Erased,
    pub dirty: bool,
}
impl Conversation {
    pub fn known_by_its_children(account_sid: AccountSid, now: Timestamp) -> Self {
        Self {
            account_sid,
            fields: ConversationFields::default(),
            state: None,
            state_version: None,
            state_told: None,
            created_at: None,
            closed_at: None,
            autocreated: false,
            version: None,
            told: None,
            removed_at: None,
            removal_learnt_at: None,
            revision: 0,
            unverified_since: Some(now),
            last_message_at: None,
            erased: Erased::default(),
            dirty: true,
        }
    }

    /// When its lines ended, if they did: closed is final at Twilio.
    pub fn ended_at(&self) -> Option<Timestamp> {
        [self.closed_at, self.removed_at].into_iter().flatten().min()
    }
}

impl Conversation {
    /// The state is about to be replaced: answers what the row said of it.
    fn replace_state_told(
        &mut self,
        sid: &ConversationSid,
        version: Version,
        now: Timestamp,
    ) -> Option<ConversationPast> {
        let told = self.state_told.replace(Told::new(version, now))?;
        Some(Past {
            key: sid.clone(),
            version_at: self.state_version?.at,
            told,
            says: ConversationSays::State(self.state.clone()?),
        })
    }

    /// Two statements of one instant differ: a read has to settle it, and one that began before now cannot.
    fn doubt(&mut self, stated: Version, now: Timestamp) {
        self.unverified_since.get_or_insert(now);
        self.dirty = true;
        if stated.exact {
            self.revision += 1;
        }
    }
}

impl Conversation {
    /// Every change of content is a new revision, so that a reader can tell whether it read before it.
    fn changed(&mut self) {
        self.revision += 1;
        self.dirty = true;
    }
}

impl Fold<'_> {
    pub(super) fn conversation(&mut self, change: &ConversationChange) {
        let sid = &change.conversation_sid;
        let settles = self.settles();
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
        let late = match weighed.verdict {
            Verdict::Older => true,
            Verdict::Tie => change.version.exact && !taken,
            Verdict::Newer | Verdict::Refines | Verdict::Same => false,
        };
        let (versions, now) = (&mut self.outcome.versions.conversations, self.context.now);
        if taken {
            if let (Some(version), Some(told)) = (row.version, row.told) {
                versions.push(Past {
                    key: sid.clone(),
                    version_at: version.at,
                    told,
                    says: ConversationSays::Content(row.fields.clone()),
                });
            }
            row.told = Some(Told::new(weighed.row, now));
        } else if weighed.verdict == Verdict::Refines {
            row.told = row.told.map(|told| told.refined(weighed.row));
        } else if late {
            let says = ConversationSays::Content(fields.clone());
            versions.push(Past::late(sid.clone(), change.version, now, says));
        }
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

    pub(super) fn conversation_state(&mut self, change: &StateChange) {
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
            if state == "closed" {
                self.closing_statement(sid, state, version, reason);
            } else if weighed.verdict != Verdict::Tie || version.exact {
                self.note_late_state(sid, state, version);
            }
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
        let late = match weighed.verdict {
            Verdict::Older => true,
            Verdict::Tie => version.exact && !taken,
            Verdict::Newer | Verdict::Refines | Verdict::Same => false,
        };
        if weighed.verdict == Verdict::Refines {
            row.state_told = row.state_told.map(|told| told.refined(weighed.row));
        } else if taken {
            let past = row.replace_state_told(sid, weighed.row, self.context.now);
            self.outcome.versions.conversations.extend(past);
        }
        if row.state_version != Some(weighed.row) {
            row.state_version = Some(weighed.row);
            row.dirty = true;
        }
        if late {
            self.note_late_state(sid, state, version);
        }
        if !taken {
            return;
        }
        let row = self.state.conversations.get_mut(sid).expect("ensured before");
        row.state = Some(state.to_owned());
        if same {
            row.dirty = true;
            return;
        }
        row.changed();
        self.state_changed(sid, was.as_deref(), state, version.at, reason);
    }

    fn note_late_state(&mut self, sid: &ConversationSid, state: &str, version: Version) {
        let says = ConversationSays::State(state.to_owned());
        let past = Past::late(sid.clone(), version, self.context.now, says);
        self.outcome.versions.conversations.push(past);
    }

    /// Nothing reopens what is closed, and the earliest time of it counts.
    fn closing_statement(
        &mut self,
        sid: &ConversationSid,
        state: &str,
        version: Version,
        reason: Option<&str>,
    ) {
        let row = self.state.conversations.get_mut(sid).expect("ensured before");
        let closed_at = row
            .closed_at
            .map_or(version.at, |known| earlier_of(known, version.at));
        if row.closed_at != Some(closed_at) {
            match row.state_told {
                Some(told) if refines_time(row.closed_at, Some(closed_at)) && row.closed_at.is_some() => {
                    row.state_told = Some(told.refined(version));
                }
                _ => {
                    let past = row.replace_state_told(sid, version, self.context.now);
                    self.outcome.versions.conversations.extend(past);
                }
            }
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

    pub(super) fn conversation_removed(&mut self, sid: &ConversationSid, version: Version) {
        let row = self.state.conversations.get_mut(sid).expect("ensured before");
        let known = row.removed_at;
        let removed_at = known.map_or(version.at, |known| earlier_of(known, version.at));
        if known == Some(removed_at) {
            return;
        }
        let now = self.context.now;
        let past = note_removal(
            &mut row.removed_at,
            &mut row.removal_learnt_at,
            Some(removed_at),
            now,
        );
        self.outcome.versions.conversations.extend(past.map(|told| Past {
            key: sid.clone(),
            version_at: told.stated_at,
            told,
            says: ConversationSays::Removed,
        }));
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
