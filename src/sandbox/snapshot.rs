//! What the emulated account holds, as plain values: for a test that compares a mirror with it.
//!
//! The types are apart from the model's own, so that a test does not depend on how the model is built.

use jiff::Timestamp;

use crate::ids::{
    ConversationSid, MessageSid, MessagingServiceSid, ParticipantSid, PhoneNumber, ReceiptSid, RoleSid,
    ServiceSid,
};

use super::model::Account;
use super::model::address::Binding;
use super::model::conversation as model;

#[derive(Clone, PartialEq, Eq)]
pub struct Conversation {
    pub sid: ConversationSid,
    pub service_sid: ServiceSid,
    pub messaging_service_sid: MessagingServiceSid,
    pub friendly_name: Option<String>,
    pub unique_name: Option<String>,
    /// JSON text.
    pub attributes: String,
    /// `initializing`, `active`, `inactive` or `closed`.
    pub state: &'static str,
    pub date_created: Timestamp,
    pub date_updated: Timestamp,
    /// In the order of joining.
    pub participants: Vec<Participant>,
    /// By index.
    pub messages: Vec<Message>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Participant {
    pub sid: ParticipantSid,
    pub identity: Option<String>,
    pub address: Option<PhoneNumber>,
    pub proxy_address: Option<PhoneNumber>,
    pub projected_address: Option<PhoneNumber>,
    /// JSON text.
    pub attributes: String,
    pub role_sid: Option<RoleSid>,
    pub last_read_message_index: Option<u64>,
    pub date_created: Timestamp,
    pub date_updated: Timestamp,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub sid: MessageSid,
    pub index: u64,
    pub author: String,
    pub body: Option<String>,
    /// JSON text.
    pub attributes: String,
    pub participant_sid: Option<ParticipantSid>,
    pub media: Vec<Media>,
    pub date_created: Timestamp,
    pub date_updated: Timestamp,
    pub receipts: Vec<Receipt>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Media {
    pub sid: crate::ids::MediaSid,
    pub content_type: String,
    /// In bytes.
    pub size: u64,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Receipt {
    pub sid: ReceiptSid,
    pub participant_sid: ParticipantSid,
    /// `SM…` or `MM…`.
    pub channel_message_sid: String,
    /// `sent`, `delivered` or `undelivered`.
    pub status: &'static str,
    /// 0 where nothing is wrong.
    pub error_code: u32,
    pub date_updated: Timestamp,
}

/// A text as a phone shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    pub from: PhoneNumber,
    /// Everyone in the group thread; empty for 1:1.
    pub members: Vec<PhoneNumber>,
    pub body: Option<String>,
    pub media: Vec<Media>,
    pub at: Timestamp,
}

pub(super) fn conversations(account: &Account) -> Vec<Conversation> {
    account.register.iter().map(conversation).collect()
}

pub(super) fn texts(account: &Account, handset: &PhoneNumber) -> Vec<Text> {
    let received = account.handsets.get(handset).into_iter().flatten();
    received
        .map(|text| Text {
            from: text.from.clone(),
            members: text.members.clone(),
            body: text.body.clone(),
            media: text.media.iter().map(media).collect(),
            at: text.at,
        })
        .collect()
}

fn media(of: &model::Media) -> Media {
    Media {
        sid: of.sid.clone(),
        content_type: of.content_type.clone(),
        size: of.size,
    }
}

fn conversation(of: &model::Conversation) -> Conversation {
    let head = &of.head;
    Conversation {
        sid: head.sid.clone(),
        service_sid: head.service.clone(),
        messaging_service_sid: head.messaging_service.clone(),
        friendly_name: head.friendly_name.clone(),
        unique_name: head.unique_name.clone(),
        attributes: head.attributes.clone(),
        state: head.state.as_str(),
        date_created: head.created,
        date_updated: head.updated,
        participants: of.participants.iter().map(participant).collect(),
        messages: of.messages.iter().map(message).collect(),
    }
}

fn participant(of: &model::Participant) -> Participant {
    let proxy = match &of.binding {
        Binding::Proxied { proxy, .. } => Some(proxy.clone()),
        _ => None,
    };
    Participant {
        sid: of.sid.clone(),
        identity: of.identity.clone(),
        address: of.binding.handset().cloned(),
        proxy_address: proxy,
        projected_address: of.binding.projected().cloned(),
        attributes: of.attributes.clone(),
        role_sid: of.role.clone(),
        last_read_message_index: of.last_read_index,
        date_created: of.created,
        date_updated: of.updated,
    }
}

fn message(of: &model::Message) -> Message {
    Message {
        sid: of.sid.clone(),
        index: of.index,
        author: of.author.clone(),
        body: of.body.clone(),
        attributes: of.attributes.clone(),
        participant_sid: of.participant.clone(),
        media: of.media.iter().map(media).collect(),
        date_created: of.created,
        date_updated: of.updated,
        receipts: of.receipts.iter().map(receipt).collect(),
    }
}

fn receipt(of: &model::Receipt) -> Receipt {
    Receipt {
        sid: of.sid.clone(),
        participant_sid: of.participant.clone(),
        channel_message_sid: of.channel_message_sid.clone(),
        status: of.status.as_str(),
        error_code: of.error_code,
        date_updated: of.updated,
    }
}
