//! What was read at Twilio beside what is stored. Pure; knows no webhooks, no requests and no database.

use std::cmp::Ordering;

use crate::mirror::change::{ConversationChange, MessageChange, ParticipantChange, ReceiptChange};
use crate::mirror::fold::{Revisions, State, without_erased};
use crate::mirror::{Change, Stamp, Version};
use crate::twilio::model::{DeliveryAmount, DeliverySummary};

/// How one resource is stored, beside what was read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// As it was read.
    Same,
    /// As it was read, but of an earlier time: a late webhook from between the two would be taken for news.
    SameOfEarlier,
    /// As it was read, and in doubt: a read that comes after the doubt settles it.
    SameInDoubt,
    Missing,
    /// Otherwise than it was read, and not newer.
    Stale,
    /// Otherwise than it was read, and newer: mostly by a webhook that came meanwhile.
    Ahead,
    /// A tombstone, where the read found it alive.
    Removed,
}

impl Standing {
    /// Whether the read has to be taken into the mirror.
    pub(super) fn is_behind(self) -> bool {
        match self {
            Self::SameOfEarlier | Self::SameInDoubt | Self::Missing | Self::Stale => true,
            Self::Same | Self::Ahead | Self::Removed => false,
        }
    }
}

/// Compares one statement of a read with what is stored of its subject.
pub(super) fn standing(stored: &State, read: &Change) -> Standing {
    // No read makes statements about users, which alone need an account to be found.
    let masked = without_erased(stored, None, read);
    match masked.as_ref().unwrap_or(read) {
        Change::Conversation(read) => conversation(stored, read),
        Change::Participant(read) => participant(stored, read),
        Change::Message(read) => message(stored, read),
        Change::Receipt(read) => receipt(stored, read),
        // No read makes these.
        Change::ConversationState(_)
        | Change::ConversationRemoved { .. }
        | Change::User(_)
        | Change::Unread { .. } => Standing::Same,
    }
}

/// Whether what is stored has stood as it is since before the read began, so that no webhook explains a difference.
pub(super) fn stood_still(stored: &State, read: &Change, seen: &Revisions) -> bool {
    let (sid, revision) = match read {
        Change::Conversation(read) => {
            let row = stored.conversations.get(&read.conversation_sid);
            (read.conversation_sid.as_str(), row.map(|row| row.revision))
        }
        Change::Participant(read) => {
            let key = (read.conversation_sid.clone(), read.participant_sid.clone());
            let row = stored.participants.get(&key);
            (read.participant_sid.as_str(), row.map(|row| row.revision))
        }
        Change::Message(read) => {
            let key = (read.conversation_sid.clone(), read.message_sid.clone());
            let row = stored.messages.get(&key);
            (read.message_sid.as_str(), row.map(|row| row.revision))
        }
        Change::ConversationRemoved { conversation_sid, .. } => {
            let row = stored.conversations.get(conversation_sid);
            (conversation_sid.as_str(), row.map(|row| row.revision))
        }
        // They have no revisions: a receipt only moves forward.
        Change::ConversationState(_) | Change::Receipt(_) | Change::User(_) | Change::Unread { .. } => {
            return false;
        }
    };
    seen.get(sid).copied() == revision
}

/// Whether the subject of a removal is a tombstone already.
pub(super) fn is_tombstone(stored: &State, removal: &Change) -> bool {
    let removed_at = match removal {
        Change::ConversationRemoved { conversation_sid, .. } => stored
            .conversations
            .get(conversation_sid)
            .map(|row| row.removed_at),
        Change::Participant(gone) => {
            let key = (gone.conversation_sid.clone(), gone.participant_sid.clone());
            stored.participants.get(&key).map(|row| row.removed_at)
        }
        Change::Message(gone) => {
            let key = (gone.conversation_sid.clone(), gone.message_sid.clone());
            stored.messages.get(&key).map(|row| row.removed_at)
        }
        // They are never removed by themselves.
        Change::Conversation(_)
        | Change::ConversationState(_)
        | Change::Receipt(_)
        | Change::User(_)
        | Change::Unread { .. } => None,
    };
    removed_at.flatten().is_some()
}

fn judge(same: bool, read: Version, stored: Version) -> Standing {
    let stamp = |version| Stamp {
        version,
        removed: false,
    };
    let would_be_settled = || stamp(read).weigh(stamp(stored), true, true).row != stored;
    match (same, read.cmp_known(stored)) {
        (true, Ordering::Greater) => Standing::SameOfEarlier,
        (true, Ordering::Equal) if would_be_settled() => Standing::SameInDoubt,
        (true, _) => Standing::Same,
        (false, Ordering::Less) => Standing::Ahead,
        (false, _) => Standing::Stale,
    }
}

fn conversation(stored: &State, read: &ConversationChange) -> Standing {
    let Some(row) = stored.conversations.get(&read.conversation_sid) else {
        return Standing::Missing;
    };
    if row.removed_at.is_some() {
        return Standing::Removed;
    }
    let Some(version) = row.version else {
        return Standing::Missing;
    };
    let mut fields = read.fields.clone();
    fields.service_sid = fields.service_sid.or_else(|| row.fields.service_sid.clone());
    let of_fields = judge(row.fields == fields, read.version, version);
    let of_state = match (&read.state, row.state_version) {
        (None, _) => Standing::Same,
        (Some(_), None) => Standing::Stale,
        (Some(state), Some(version)) => judge(row.state.as_ref() == Some(state), read.version, version),
    };
    // A state's time is that of its last change, so the same state of earlier says nothing.
    match (of_fields, of_state) {
        (Standing::Stale, _) | (_, Standing::Stale) => Standing::Stale,
        (_, Standing::Ahead) => Standing::Ahead,
        (_, Standing::SameInDoubt) => Standing::SameInDoubt,
        (of_fields, _) => of_fields,
    }
}

fn participant(stored: &State, read: &ParticipantChange) -> Standing {
    let key = (read.conversation_sid.clone(), read.participant_sid.clone());
    let Some(row) = stored.participants.get(&key) else {
        return Standing::Missing;
    };
    if row.removed_at.is_some() {
        return Standing::Removed;
    }
    judge(
        Some(&row.fields) == read.fields.as_ref(),
        read.version,
        row.version,
    )
}

fn message(stored: &State, read: &MessageChange) -> Standing {
    let key = (read.conversation_sid.clone(), read.message_sid.clone());
    let Some(row) = stored.messages.get(&key) else {
        return Standing::Missing;
    };
    if row.removed_at.is_some() {
        return Standing::Removed;
    }
    judge(
        Some(&row.fields) == read.fields.as_ref(),
        read.version,
        row.version,
    )
}

fn receipt(stored: &State, read: &ReceiptChange) -> Standing {
    let key = (read.conversation_sid.clone(), read.receipt_sid.clone());
    let Some(row) = stored.receipts.get(&key) else {
        return Standing::Missing;
    };
    let same = row.status == read.status
        && row.error_code == read.error_code
        && (read.participant_sid.is_none() || row.participant_sid == read.participant_sid)
        && (read.channel_message_sid.is_none() || row.channel_message_sid == read.channel_message_sid);
    if same { Standing::Same } else { Standing::Stale }
}

/// Whether receipts with these statuses give the summary that Twilio shows with their message. Where they do not, the
/// receipts have to be read.
///
/// Twilio documents the words and not how it counts; a delivered message counts as sent here. Were that wrong, sweeps
/// would read more than they need, and miss nothing.
pub(super) fn summary_agrees(summary: Option<&DeliverySummary>, statuses: &[&str]) -> bool {
    let Some(summary) = summary else {
        return statuses.is_empty();
    };
    let amount = |counted: &[&str]| match statuses.iter().filter(|status| counted.contains(status)).count() {
        0 => DeliveryAmount::None,
        count if count == statuses.len() => DeliveryAmount::All,
        _ => DeliveryAmount::Some,
    };
    let agrees = |stated: &Option<DeliveryAmount>, counted: &[&str]| {
        stated.as_ref().unwrap_or(&DeliveryAmount::None) == &amount(counted)
    };
    let total = summary.total.unwrap_or(0);
    usize::try_from(total).is_ok_and(|total| total == statuses.len())
        && agrees(&summary.sent, &["sent", "delivered", "read"])
        && agrees(&summary.delivered, &["delivered", "read"])
        && agrees(&summary.read, &["read"])
        && agrees(&summary.failed, &["failed"])
        && agrees(&summary.undelivered, &["undelivered"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::change::{MessageFields, ReceiptChange};
    use crate::mirror::erased::Erased;
    use crate::mirror::fold::{Message, Receipt};

    const CONVERSATION: &str = "CH00000000000000000000000000000001";
    const MESSAGE: &str = "IM00000000000000000000000000000001";

    fn version(at: &str) -> Version {
        let at: jiff::Timestamp = at.parse().unwrap();
        Version {
            at,
            exact: at.subsec_nanosecond() != 0,
        }
    }

    fn fields(body: &str) -> MessageFields {
        MessageFields {
            body: Some(body.to_owned()),
            ..MessageFields::default()
        }
    }

    fn read(body: &str, at: &str) -> Change {
        Change::Message(MessageChange {
            conversation_sid: CONVERSATION.parse().unwrap(),
            message_sid: MESSAGE.parse().unwrap(),
            version: version(at),
            removed: false,
            fields: Some(fields(body)),
            created_at: None,
        })
    }

    fn stored(body: &str, at: &str, removed: bool) -> State {
        let row = Message {
            account_sid: "AC00000000000000000000000000000001".parse().unwrap(),
            fields: fields(body),
            source: None,
            created_at: None,
            version: version(at),
            told: None,
            removal_learnt_at: None,
            removed_at: removed.then(|| at.parse().unwrap()),
            revision: 3,
            erased: Erased::default(),
            dirty: false,
        };
        let mut state = State::default();
        let key = (CONVERSATION.parse().unwrap(), MESSAGE.parse().unwrap());
        state.messages.insert(key, row);
        state
    }

    #[test]
    fn a_message_is_the_same_missing_stale_ahead_or_removed() {
        const BEFORE: &str = "2026-01-02T03:04:05.678Z";
        const CUT: &str = "2026-01-02T03:04:05Z";
        const AFTER: &str = "2026-01-02T03:04:07Z";
        let of = |state: &State, change: &Change| standing(state, change);
        assert_eq!(of(&State::default(), &read("a", CUT)), Standing::Missing);
        assert_eq!(of(&stored("a", BEFORE, false), &read("a", CUT)), Standing::Same);
        assert_eq!(
            of(&stored("a", BEFORE, false), &read("a", AFTER)),
            Standing::SameOfEarlier
        );
        // A webhook of the same second was in doubt beside an earlier read.
        let doubted = "2026-01-02T03:04:05.678Z";
        let mut in_doubt = stored("a", doubted, false);
        for row in in_doubt.messages.values_mut() {
            row.version = Version::to_the_second(doubted.parse().unwrap());
        }
        assert_eq!(of(&in_doubt, &read("a", CUT)), Standing::SameInDoubt);
        assert_eq!(
            of(&stored("a", BEFORE, false), &read("b", AFTER)),
            Standing::Stale
        );
        assert_eq!(
            of(&stored("a", BEFORE, false), &read("b", CUT)),
            Standing::Stale,
            "a tie"
        );
        assert_eq!(of(&stored("a", AFTER, false), &read("b", CUT)), Standing::Ahead);
        assert_eq!(of(&stored("a", BEFORE, true), &read("a", CUT)), Standing::Removed);
    }

    #[test]
    fn what_was_erased_is_no_difference() {
        let mut state = stored("a", "2026-01-02T03:04:05.678Z", false);
        for row in state.messages.values_mut() {
            row.fields.body = None;
            row.erased = Erased::read(Some(serde_json::json!({ "body": {} })));
        }
        let same = standing(&state, &read("a", "2026-01-02T03:04:05Z"));
        assert_eq!(same, Standing::Same);
        let edited = standing(&state, &read("b", "2026-01-02T03:04:07Z"));
        assert_eq!(edited, Standing::SameOfEarlier, "only its time is news");
    }

    #[test]
    fn a_row_stood_still_if_it_has_the_revision_of_before_the_read() {
        let change = read("b", "2026-01-02T03:04:05Z");
        let state = stored("a", "2026-01-02T03:04:05Z", false);
        let seen = |revision| Revisions::from([(MESSAGE.to_owned(), revision)]);
        assert!(stood_still(&state, &change, &seen(3)));
        assert!(!stood_still(&state, &change, &seen(2)));
        assert!(
            !stood_still(&state, &change, &Revisions::new()),
            "it came during the read"
        );
        assert!(stood_still(&State::default(), &change, &Revisions::new()));
    }

    #[test]
    fn a_receipt_differs_by_its_status_and_by_what_both_know() {
        let receipt = |status: &str, participant: Option<&str>| ReceiptChange {
            conversation_sid: CONVERSATION.parse().unwrap(),
            message_sid: MESSAGE.parse().unwrap(),
            receipt_sid: "DY00000000000000000000000000000001".parse().unwrap(),
            participant_sid: participant.map(str::to_owned),
            channel_message_sid: None,
            status: status.to_owned(),
            error_code: None,
            created_at: None,
            version: version("2026-01-02T03:04:05Z"),
        };
        let known = receipt("sent", Some("MB1"));
        let mut state = State::default();
        state.receipts.insert(
            (known.conversation_sid.clone(), known.receipt_sid.clone()),
            Receipt {
                account_sid: "AC00000000000000000000000000000001".parse().unwrap(),
                message_sid: known.message_sid.clone(),
                participant_sid: known.participant_sid.clone(),
                channel_message_sid: Some("SM1".to_owned()),
                status: known.status.clone(),
                error_code: None,
                created_at: None,
                version: known.version,
                learnt_at: jiff::Timestamp::UNIX_EPOCH,
                dirty: false,
            },
        );
        let of = |change| standing(&state, &Change::Receipt(change));
        assert_eq!(of(receipt("sent", Some("MB1"))), Standing::Same);
        assert_eq!(of(receipt("sent", None)), Standing::Same);
        assert_eq!(of(receipt("delivered", Some("MB1"))), Standing::Stale);
        assert_eq!(of(receipt("sent", Some("MB2"))), Standing::Stale);
    }

    #[test]
    fn a_summary_agrees_with_the_receipts_that_give_it() {
        let summary = |sent, delivered, undelivered| DeliverySummary {
            total: Some(2),
            sent: Some(sent),
            delivered: Some(delivered),
            read: Some(DeliveryAmount::None),
            failed: None,
            undelivered: Some(undelivered),
        };
        let (all, some, none) = (DeliveryAmount::All, DeliveryAmount::Some, DeliveryAmount::None);
        let half_way = summary(all.clone(), some.clone(), none.clone());
        assert!(summary_agrees(Some(&half_way), &["sent", "delivered"]));
        assert!(!summary_agrees(Some(&half_way), &["sent", "sent"]));
        assert!(!summary_agrees(Some(&half_way), &["sent", "delivered", "sent"]));
        assert!(!summary_agrees(Some(&half_way), &[]));
        assert!(summary_agrees(
            Some(&summary(some, none.clone(), DeliveryAmount::Some)),
            &["undelivered", "sent"]
        ));
        assert!(!summary_agrees(
            Some(&summary(all, none.clone(), none)),
            &["undelivered", "sent"]
        ));
        assert!(summary_agrees(None, &[]));
        assert!(!summary_agrees(None, &["sent"]));
    }
}
