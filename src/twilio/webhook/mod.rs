//! A webhook's form as a typed event, pure.
//!
//! Every event of Twilio's catalogue, before a change (`onMessageAdd`) and after it (`onMessageAdded`), is a variant;
//! an event that we do not know is kept by its name. Keys that we do not know are kept, and an optional value that
//! cannot be read is left out and named in [`Webhook::unread`]. Only what an event is about must be there.
//! (Twilio: Conversations Webhooks.)
//!
//! [`dedupe`] says which webhooks are the same one. What an event does to the mirror is not known here.

use super::form::Form;
use super::model::{
    AddressKind, ConversationState, DeliveryStatus, Hidden, Media, MessagingBinding, Shape, Source,
    SourceTime, StateReason,
};
use crate::ids::{
    AccountSid, ConversationSid, MessageSid, MessagingServiceSid, ParticipantSid, ReceiptSid, RoleSid,
    ServiceSid, UserSid,
};

pub mod dedupe;
mod fields;

pub use dedupe::{DedupeKey, dedupe_key};
use fields::Fields;

/// One webhook, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    pub common: Common,
    pub event: Event,
    /// Keys of values that are there and could not be read, so that the resource had better be fetched.
    pub unread: Vec<&'static str>,
    /// Fields that no part of this event knows.
    pub extra: Form,
}

/// What every webhook has.
#[derive(Debug, Clone, PartialEq)]
pub struct Common {
    pub account_sid: AccountSid,
    pub event_type: String,
    /// Missing on receipts.
    pub source: Option<Source>,
    /// Who acted; only of changes by a client library.
    pub client_identity: Option<Hidden>,
    /// 0 for the first try.
    pub retry_count: u32,
    pub chat_service_sid: Option<ServiceSid>,
}

/// What happened (`…Added`, `…Updated`, `…Removed`), or what is about to (`…Add`, `…Update`, `…Remove`).
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    ConversationAdd(Box<ConversationAdd>),
    ConversationUpdate(Box<ConversationEvent>),
    ConversationRemove(Box<ConversationEvent>),
    MessageAdd(Box<MessageAdd>),
    MessageUpdate(Box<MessageEvent>),
    MessageRemove(Box<MessageEvent>),
    ParticipantAdd(Box<ParticipantAdd>),
    ParticipantUpdate(Box<ParticipantEvent>),
    ParticipantRemove(Box<ParticipantEvent>),
    UserUpdate(Box<UserEvent>),

    ConversationAdded(Box<ConversationEvent>),
    ConversationUpdated(Box<ConversationEvent>),
    ConversationRemoved(Box<ConversationEvent>),
    ConversationStateUpdated(Box<StateEvent>),
    MessageAdded(Box<MessageEvent>),
    MessageUpdated(Box<MessageEvent>),
    MessageRemoved(Box<MessageEvent>),
    ParticipantAdded(Box<ParticipantEvent>),
    ParticipantUpdated(Box<ParticipantEvent>),
    ParticipantRemoved(Box<ParticipantEvent>),
    UserAdded(Box<UserEvent>),
    UserUpdated(Box<UserEvent>),
    DeliveryUpdated(Box<DeliveryEvent>),

    /// A name that is not in the catalogue; its conversation, where it names one.
    Unknown {
        event_type: String,
        conversation_sid: Option<ConversationSid>,
    },
}

/// The three times of a resource, as far as an event has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dates {
    pub created: Option<SourceTime>,
    pub updated: Option<SourceTime>,
    pub removed: Option<SourceTime>,
}

impl Dates {
    /// When the resource became what the event says.
    pub fn latest(&self) -> Option<SourceTime> {
        self.removed.or(self.updated).or(self.created)
    }
}

/// Before a conversation is created: it has no SID yet. The only event with the text of the first message.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationAdd {
    pub friendly_name: Option<Hidden>,
    pub unique_name: Option<String>,
    pub attributes: Hidden,
    pub messaging_service_sid: Option<MessagingServiceSid>,
    pub state: Option<ConversationState>,
    pub binding: ConversationBinding,
    pub message_body: Option<Hidden>,
    pub media: Vec<Media>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ConversationEvent {
    pub conversation_sid: ConversationSid,
    pub friendly_name: Option<Hidden>,
    pub unique_name: Option<String>,
    pub attributes: Hidden,
    pub messaging_service_sid: Option<MessagingServiceSid>,
    pub state: Option<ConversationState>,
    pub binding: ConversationBinding,
    pub dates: Dates,
}

/// The numbers that a conversation was created with. Of a group text all members are `addresses` and `author_address`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConversationBinding {
    /// Receivers, ours among them, in the order of arrival.
    pub addresses: Vec<Hidden>,
    pub proxy_address: Option<Hidden>,
    pub projected_addresses: Vec<Hidden>,
    /// Who sent the first message of a group.
    pub author_address: Option<Hidden>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StateEvent {
    pub conversation_sid: ConversationSid,
    pub messaging_service_sid: Option<MessagingServiceSid>,
    pub state_updated: SourceTime,
    pub state_from: Option<ConversationState>,
    pub state_to: ConversationState,
    pub reason: Option<StateReason>,
}

/// Before a message is added: it has no SID and no index yet.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageAdd {
    pub conversation_sid: ConversationSid,
    pub author: Option<Hidden>,
    /// `Some("")` is a real text: that of a message of media alone.
    pub body: Option<Hidden>,
    pub participant_sid: Option<ParticipantSid>,
    pub attributes: Hidden,
    pub media: Vec<Media>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MessageEvent {
    pub conversation_sid: ConversationSid,
    pub message_sid: MessageSid,
    /// The position in the conversation; grows, and may skip.
    pub index: i64,
    pub messaging_service_sid: Option<MessagingServiceSid>,
    pub author: Option<Hidden>,
    /// `Some("")` is a real text: that of a message of media alone.
    pub body: Option<Hidden>,
    /// The author's; none for authors that are not participants.
    pub participant_sid: Option<ParticipantSid>,
    pub attributes: Hidden,
    pub media: Vec<Media>,
    pub dates: Dates,
}

/// Before a participant is added: it has no SID yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ParticipantAdd {
    pub conversation_sid: ConversationSid,
    pub identity: Option<Hidden>,
    pub role_sid: Option<RoleSid>,
    pub attributes: Hidden,
    pub binding: MessagingBinding,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ParticipantEvent {
    pub conversation_sid: ConversationSid,
    pub participant_sid: ParticipantSid,
    pub identity: Option<Hidden>,
    pub role_sid: Option<RoleSid>,
    pub attributes: Hidden,
    pub binding: MessagingBinding,
    pub last_read_message_index: Option<i64>,
    pub dates: Dates,
}

impl ParticipantEvent {
    pub fn shape(&self) -> Shape {
        Shape::of(self.identity.as_ref(), &self.binding)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct UserEvent {
    pub user_sid: UserSid,
    pub identity: Option<Hidden>,
    pub role_sid: Option<RoleSid>,
    pub attributes: Hidden,
    pub friendly_name: Option<Hidden>,
    pub is_online: Option<bool>,
    pub is_notifiable: Option<bool>,
    pub dates: Dates,
}

/// One step of one recipient of one message. May come before the answer to the call that sent the message.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryEvent {
    pub conversation_sid: ConversationSid,
    pub message_sid: MessageSid,
    pub receipt_sid: ReceiptSid,
    /// The carrier's message, `SM…`, `MM…` or another channel's.
    pub channel_message_sid: Option<String>,
    /// The recipient's.
    pub participant_sid: Option<ParticipantSid>,
    pub status: DeliveryStatus,
    /// Twilio's Messaging error number.
    pub error_code: Option<u32>,
    pub dates: Dates,
}

/// Why a form is not the event that it says it is: by field, never by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is missing or not {expected}")]
pub struct ParseError {
    pub field: &'static str,
    pub expected: &'static str,
}

impl Webhook {
    /// Reads the decoded fields of a webhook: its body, or its query where Twilio was told to use GET.
    pub fn parse(form: &Form) -> Result<Self, ParseError> {
        let mut fields = Fields::new(form);
        let common = common(&mut fields)?;
        let event = event(&mut fields, &common.event_type)?;
        let (unread, extra) = fields.rest();
        Ok(Self {
            common,
            event,
            unread,
            extra,
        })
    }

    /// The conversation that this is about, if it is about one that exists.
    pub fn conversation_sid(&self) -> Option<&ConversationSid> {
        self.event.conversation_sid()
    }
}

impl Event {
    pub fn conversation_sid(&self) -> Option<&ConversationSid> {
        match self {
            Self::ConversationUpdate(event)
            | Self::ConversationRemove(event)
            | Self::ConversationAdded(event)
            | Self::ConversationUpdated(event)
            | Self::ConversationRemoved(event) => Some(&event.conversation_sid),
            Self::ConversationStateUpdated(event) => Some(&event.conversation_sid),
            Self::MessageAdd(event) => Some(&event.conversation_sid),
            Self::MessageUpdate(event)
            | Self::MessageRemove(event)
            | Self::MessageAdded(event)
            | Self::MessageUpdated(event)
            | Self::MessageRemoved(event) => Some(&event.conversation_sid),
            Self::ParticipantAdd(event) => Some(&event.conversation_sid),
            Self::ParticipantUpdate(event)
            | Self::ParticipantRemove(event)
            | Self::ParticipantAdded(event)
            | Self::ParticipantUpdated(event)
            | Self::ParticipantRemoved(event) => Some(&event.conversation_sid),
            Self::DeliveryUpdated(event) => Some(&event.conversation_sid),
            Self::Unknown { conversation_sid, .. } => conversation_sid.as_ref(),
            Self::ConversationAdd(_) | Self::UserUpdate(_) | Self::UserAdded(_) | Self::UserUpdated(_) => {
                None
            }
        }
    }

    /// Whether Twilio waits for our answer before it makes the change. `false` for what we do not know.
    pub fn is_before_the_change(&self) -> bool {
        match self {
            Self::ConversationAdd(_)
            | Self::ConversationUpdate(_)
            | Self::ConversationRemove(_)
            | Self::MessageAdd(_)
            | Self::MessageUpdate(_)
            | Self::MessageRemove(_)
            | Self::ParticipantAdd(_)
            | Self::ParticipantUpdate(_)
            | Self::ParticipantRemove(_)
            | Self::UserUpdate(_) => true,
            Self::ConversationAdded(_)
            | Self::ConversationUpdated(_)
            | Self::ConversationRemoved(_)
            | Self::ConversationStateUpdated(_)
            | Self::MessageAdded(_)
            | Self::MessageUpdated(_)
            | Self::MessageRemoved(_)
            | Self::ParticipantAdded(_)
            | Self::ParticipantUpdated(_)
            | Self::ParticipantRemoved(_)
            | Self::UserAdded(_)
            | Self::UserUpdated(_)
            | Self::DeliveryUpdated(_)
            | Self::Unknown { .. } => false,
        }
    }
}

fn common(fields: &mut Fields<'_>) -> Result<Common, ParseError> {
    Ok(Common {
        account_sid: fields.required("AccountSid", "an account's SID")?,
        event_type: fields.required("EventType", "the name of an event")?,
        source: fields.optional("Source"),
        client_identity: fields.optional("ClientIdentity"),
        retry_count: fields.optional("RetryCount").unwrap_or(0),
        chat_service_sid: fields.optional("ChatServiceSid"),
    })
}

fn event(fields: &mut Fields<'_>, event_type: &str) -> Result<Event, ParseError> {
    Ok(match event_type {
        "onConversationAdd" => Event::ConversationAdd(Box::new(conversation_add(fields))),
        "onConversationUpdate" => Event::ConversationUpdate(Box::new(conversation(fields)?)),
        "onConversationRemove" => Event::ConversationRemove(Box::new(conversation(fields)?)),
        "onMessageAdd" => Event::MessageAdd(Box::new(message_add(fields)?)),
        "onMessageUpdate" => Event::MessageUpdate(Box::new(message(fields)?)),
        "onMessageRemove" => Event::MessageRemove(Box::new(message(fields)?)),
        "onParticipantAdd" => Event::ParticipantAdd(Box::new(participant_add(fields)?)),
        "onParticipantUpdate" => Event::ParticipantUpdate(Box::new(participant(fields)?)),
        "onParticipantRemove" => Event::ParticipantRemove(Box::new(participant(fields)?)),
        "onUserUpdate" => Event::UserUpdate(Box::new(user(fields)?)),
        "onConversationAdded" => Event::ConversationAdded(Box::new(conversation(fields)?)),
        "onConversationUpdated" => Event::ConversationUpdated(Box::new(conversation(fields)?)),
        "onConversationRemoved" => Event::ConversationRemoved(Box::new(conversation(fields)?)),
        "onConversationStateUpdated" => Event::ConversationStateUpdated(Box::new(state(fields)?)),
        "onMessageAdded" => Event::MessageAdded(Box::new(message(fields)?)),
        "onMessageUpdated" => Event::MessageUpdated(Box::new(message(fields)?)),
        "onMessageRemoved" => Event::MessageRemoved(Box::new(message(fields)?)),
        "onParticipantAdded" => Event::ParticipantAdded(Box::new(participant(fields)?)),
        "onParticipantUpdated" => Event::ParticipantUpdated(Box::new(participant(fields)?)),
        "onParticipantRemoved" => Event::ParticipantRemoved(Box::new(participant(fields)?)),
        "onUserAdded" => Event::UserAdded(Box::new(user(fields)?)),
        "onUserUpdated" => Event::UserUpdated(Box::new(user(fields)?)),
        "onDeliveryUpdated" => Event::DeliveryUpdated(Box::new(delivery(fields)?)),
        unknown => Event::Unknown {
            event_type: unknown.to_owned(),
            conversation_sid: fields.optional("ConversationSid"),
        },
    })
}

const A_CONVERSATION: &str = "a conversation's SID";

fn conversation_sid(fields: &mut Fields<'_>) -> Result<ConversationSid, ParseError> {
    fields.required("ConversationSid", A_CONVERSATION)
}

fn conversation_add(fields: &mut Fields<'_>) -> ConversationAdd {
    ConversationAdd {
        friendly_name: fields.optional("FriendlyName"),
        unique_name: fields.optional("UniqueName"),
        attributes: attributes(fields),
        messaging_service_sid: fields.optional("MessagingServiceSid"),
        state: fields.optional("State"),
        binding: conversation_binding(fields),
        message_body: fields.as_it_is("MessageBody"),
        media: fields.media("Media"),
    }
}

fn conversation(fields: &mut Fields<'_>) -> Result<ConversationEvent, ParseError> {
    Ok(ConversationEvent {
        conversation_sid: conversation_sid(fields)?,
        friendly_name: fields.optional("FriendlyName"),
        unique_name: fields.optional("UniqueName"),
        attributes: attributes(fields),
        messaging_service_sid: fields.optional("MessagingServiceSid"),
        state: fields.optional("State"),
        binding: conversation_binding(fields),
        dates: dates(fields),
    })
}

fn conversation_binding(fields: &mut Fields<'_>) -> ConversationBinding {
    ConversationBinding {
        addresses: fields.addresses("MessagingBinding.Address"),
        proxy_address: fields.optional("MessagingBinding.ProxyAddress"),
        projected_addresses: fields.addresses("MessagingBinding.ProjectedAddress"),
        author_address: fields.optional("MessagingBinding.AuthorAddress"),
    }
}

fn state(fields: &mut Fields<'_>) -> Result<StateEvent, ParseError> {
    Ok(StateEvent {
        conversation_sid: conversation_sid(fields)?,
        messaging_service_sid: fields.optional("MessagingServiceSid"),
        state_updated: fields.required("StateUpdated", "an ISO 8601 time")?,
        state_from: fields.optional("StateFrom"),
        state_to: fields.required("StateTo", "a state")?,
        reason: fields.optional("Reason"),
    })
}

fn message_add(fields: &mut Fields<'_>) -> Result<MessageAdd, ParseError> {
    Ok(MessageAdd {
        conversation_sid: conversation_sid(fields)?,
        author: fields.optional("Author"),
        body: fields.as_it_is("Body"),
        participant_sid: fields.optional("ParticipantSid"),
        attributes: attributes(fields),
        media: fields.media("Media"),
    })
}

fn message(fields: &mut Fields<'_>) -> Result<MessageEvent, ParseError> {
    Ok(MessageEvent {
        conversation_sid: conversation_sid(fields)?,
        message_sid: fields.required("MessageSid", "a message's SID")?,
        index: fields.required("Index", "a whole number")?,
        messaging_service_sid: fields.optional("MessagingServiceSid"),
        author: fields.optional("Author"),
        body: fields.as_it_is("Body"),
        participant_sid: fields.optional("ParticipantSid"),
        attributes: attributes(fields),
        media: fields.media("Media"),
        dates: dates(fields),
    })
}

fn participant_add(fields: &mut Fields<'_>) -> Result<ParticipantAdd, ParseError> {
    Ok(ParticipantAdd {
        conversation_sid: conversation_sid(fields)?,
        identity: fields.optional("Identity"),
        role_sid: fields.optional("RoleSid"),
        attributes: attributes(fields),
        binding: participant_binding(fields),
    })
}

fn participant(fields: &mut Fields<'_>) -> Result<ParticipantEvent, ParseError> {
    Ok(ParticipantEvent {
        conversation_sid: conversation_sid(fields)?,
        participant_sid: fields.required("ParticipantSid", "a participant's SID")?,
        identity: fields.optional("Identity"),
        role_sid: fields.optional("RoleSid"),
        attributes: attributes(fields),
        binding: participant_binding(fields),
        last_read_message_index: fields.optional("LastReadMessageIndex"),
        dates: dates(fields),
    })
}

fn participant_binding(fields: &mut Fields<'_>) -> MessagingBinding {
    MessagingBinding {
        kind: fields.optional::<AddressKind>("MessagingBinding.Type"),
        address: fields.only_address("MessagingBinding.Address"),
        proxy_address: fields.only_address("MessagingBinding.ProxyAddress"),
        projected_address: fields.only_address("MessagingBinding.ProjectedAddress"),
        level: fields.optional("MessagingBinding.Level"),
        name: fields.optional("MessagingBinding.Name"),
    }
}

fn user(fields: &mut Fields<'_>) -> Result<UserEvent, ParseError> {
    Ok(UserEvent {
        user_sid: fields.required("UserSid", "a user's SID")?,
        identity: fields.optional("Identity"),
        role_sid: fields.optional("RoleSid"),
        attributes: attributes(fields),
        friendly_name: fields.optional("FriendlyName"),
        // These two are spelled unlike all others.
        is_online: fields.optional("isOnline"),
        is_notifiable: fields.optional("isNotifiable"),
        dates: dates(fields),
    })
}

fn delivery(fields: &mut Fields<'_>) -> Result<DeliveryEvent, ParseError> {
    Ok(DeliveryEvent {
        conversation_sid: conversation_sid(fields)?,
        message_sid: fields.required("MessageSid", "a message's SID")?,
        receipt_sid: fields.required("DeliveryReceiptSid", "a receipt's SID")?,
        channel_message_sid: fields.optional("ChannelMessageSid"),
        participant_sid: fields.optional("ParticipantSid"),
        status: fields.required("Status", "a delivery status")?,
        error_code: fields.optional("ErrorCode").filter(|code| *code != 0),
        dates: dates(fields),
    })
}

fn attributes(fields: &mut Fields<'_>) -> Hidden {
    fields
        .optional("Attributes")
        .unwrap_or_else(|| Hidden::from("{}"))
}

fn dates(fields: &mut Fields<'_>) -> Dates {
    Dates {
        created: fields.optional("DateCreated"),
        updated: fields.optional("DateUpdated"),
        removed: fields.optional("DateRemoved"),
    }
}

#[cfg(test)]
mod tests;
