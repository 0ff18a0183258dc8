//! The way of a message out of Twilio: whom it is sent to, what their phones show, and what the carriers report.

use uuid::Uuid;

use crate::ids::{ConversationSid, MessageSid, PhoneNumber, ReceiptSid};

use super::address::Binding;
use super::conversation::{Conversation, Message, Participant, Receipt, ReceiptStatus, Recipient};
use super::event;
use super::group::{self, Claim};
use super::handset::Text;
use super::{Account, Cause, new_sid};

/// Twilio's error for a message to somebody who has opted out.
const OPTED_OUT: u32 = 21610;

/// How far the carrier has come with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CarryStep {
    More,
    Done,
}

impl Account {
    /// The handsets that Twilio has to send a message to. What a member of the group writes on a handset reaches the
    /// other handsets through the carriers alone, so that only proxied participants are left.
    pub(super) fn recipients(
        &self,
        conversation: &Conversation,
        writer: Option<&Participant>,
        author: &str,
    ) -> Vec<Recipient> {
        let members = conversation.members();
        let roster: Vec<PhoneNumber> = group::claims(&members)
            .into_iter()
            .find_map(|claim| match claim {
                Claim::Roster(numbers) => Some(numbers.into_iter().collect()),
                Claim::Pair { .. } => None,
            })
            .unwrap_or_default();
        let line = writer
            .and_then(|writer| writer.binding.projected())
            .or_else(|| members.iter().find_map(|member| member.binding.projected()));
        let everyone = if group::is_group(&members) {
            roster
        } else {
            Vec::new()
        };
        conversation
            .participants
            .iter()
            .filter(|participant| !participant.writes_as(author))
            .filter_map(|participant| {
                let (handset, from, members) = match &participant.binding {
                    Binding::Native(address) => (address, line?, everyone.clone()),
                    Binding::Proxied { address, proxy } => (address, proxy, Vec::new()),
                    Binding::Chat | Binding::Projected(_) => return None,
                };
                Some(Recipient {
                    participant: participant.sid.clone(),
                    handset: handset.clone(),
                    from: from.clone(),
                    members,
                    opted_out: self.opted_out.contains(handset),
                })
            })
            .collect()
    }

    /// Shows a message on the phones that it is sent to.
    pub(super) fn hand_to_phones(&mut self, message: &Message) {
        let now = self.now();
        for recipient in message.recipients.iter().filter(|recipient| !recipient.opted_out) {
            let text = Text {
                from: recipient.from.clone(),
                members: recipient.members.clone(),
                body: message.body.clone(),
                media: message.media.clone(),
                at: now,
            };
            self.handsets
                .entry(recipient.handset.clone())
                .or_default()
                .push(text);
        }
    }

    /// The carrier's next report on a message: first that it was sent, or to whom it cannot be, then that it arrived.
    /// `onDeliveryUpdated` follows every step, whoever wrote the message and however.
    pub(crate) fn carry_next(&mut self, sid: &ConversationSid, message: &MessageSid) -> CarryStep {
        let Some(message) = self
            .register
            .get(sid)
            .and_then(|conversation| conversation.message(message.as_str()))
        else {
            return CarryStep::Done;
        };
        let (mut message, first) = (message.clone(), message.receipts.is_empty());
        let now = self.now();
        if first {
            let receipts: Vec<Receipt> = message
                .recipients
                .iter()
                .map(|recipient| self.first_receipt(recipient))
                .collect();
            message.receipts = receipts;
        } else {
            for receipt in message
                .receipts
                .iter_mut()
                .filter(|receipt| receipt.status == ReceiptStatus::Sent)
            {
                receipt.status = ReceiptStatus::Delivered;
                receipt.updated = now;
            }
        }
        let head = self.change_conversation(sid, |conversation| {
            if let Some(place) = conversation
                .messages
                .iter_mut()
                .rev()
                .find(|other| other.sid == message.sid)
            {
                place.receipts.clone_from(&message.receipts);
            }
            conversation.head.clone()
        });
        let reported = if first {
            None
        } else {
            Some(ReceiptStatus::Delivered)
        };
        for receipt in &message.receipts {
            if reported.is_none_or(|status| status == receipt.status) {
                let event = event::delivery_updated(&self.sid, &head, &message, receipt);
                self.tell(&event, Cause::TIMER);
            }
        }
        if first { CarryStep::More } else { CarryStep::Done }
    }

    fn first_receipt(&mut self, recipient: &Recipient) -> Receipt {
        let now = self.now();
        let (status, error_code) = if recipient.opted_out {
            (ReceiptStatus::Undelivered, OPTED_OUT)
        } else {
            (ReceiptStatus::Sent, 0)
        };
        let kind = if recipient.members.is_empty() { "SM" } else { "MM" };
        Receipt {
            serial: self.next_serial(),
            sid: new_sid(ReceiptSid::PREFIX),
            channel_message_sid: format!("{kind}{}", Uuid::new_v4().simple()),
            participant: recipient.participant.clone(),
            status,
            error_code,
            created: now,
            updated: now,
        }
    }
}
