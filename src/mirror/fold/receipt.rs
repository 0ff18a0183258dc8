//! Statements about how far a message came to one member.

use std::cmp::Ordering;

use jiff::Timestamp;
use serde_json::json;

use super::Fold;
use super::judge::refines_time;
use super::versions::{Past, ReceiptSays, Told};
use crate::events::Kind;
use crate::ids::{AccountSid, MessageSid};
use crate::mirror::change::ReceiptChange;
use crate::mirror::version::Version;

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
    pub learnt_at: Timestamp,
    pub dirty: bool,
}

impl Fold<'_> {
    pub(super) fn receipt(&mut self, change: &ReceiptChange) {
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
            learnt_at: self.context.now,
            dirty: true,
        };
        let told = match self.state.receipts.get_mut(&key) {
            None => {
                self.state.receipts.insert(key, incoming);
                true
            }
            Some(row) => {
                let told = receipt_order(&incoming) > receipt_order(row) && row.status != incoming.status;
                let past = past_receipt(row, &incoming);
                self.outcome.versions.receipts.extend(past.map(|past| Past {
                    key: (
                        conversation_sid.clone(),
                        change.message_sid.clone(),
                        change.receipt_sid.clone(),
                    ),
                    version_at: past.version.at,
                    told: Told::new(past.version, past.learnt_at),
                    says: ReceiptSays {
                        status: past.status.clone(),
                        error_code: past.error_code.clone(),
                    },
                }));
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
}

/// The one of two statements that the row does not hold, where they are two.
fn past_receipt<'a>(stored: &'a Receipt, stated: &'a Receipt) -> Option<&'a Receipt> {
    if is_the_same_told_better(stored, stated) || is_the_same_told_better(stated, stored) {
        return None;
    }
    match receipt_order(stated).cmp(&receipt_order(stored)) {
        Ordering::Greater => Some(stored),
        Ordering::Less => Some(stated),
        Ordering::Equal => None,
    }
}

/// Whether the other says the same, with milliseconds.
fn is_the_same_told_better(one: &Receipt, other: &Receipt) -> bool {
    (&one.status, &one.error_code) == (&other.status, &other.error_code)
        && refines_time(Some(one.version.at), Some(other.version.at))
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
    if is_the_same_told_better(stored, &later) {
        later.learnt_at = stored.learnt_at;
    }
    later.dirty = stored.dirty;
    later
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
