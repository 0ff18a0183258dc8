//! A webhook's form as a typed event, pure.
//!
//! Every event of Twilio's catalogue, before a change (`onMessageAdd`) and after it (`onMessageAdded`), is a variant;
//! an event that we do not know is kept by its name. Keys that we do not know are kept, and an optional value that
//! cannot be read is left out and named in [`Webhook::unread`]. Only what an event is about must be there.
//! (Twilio: Conversations Webhooks.)
//!
//! [`mod@event`] has the types, [`dedupe`] says which webhooks are the same one. What an event does to the mirror is not known here.

use super::form::Form;
use super::model::{AddressKind, Hidden, MessagingBinding, Source};
use crate::ids::{AccountSid, ConversationSid, ServiceSid};

pub mod dedupe;
pub mod event;
mod fields;

pub use dedupe::{DedupeKey, dedupe_key};
pub use event::{
    ConversationAdd, ConversationBinding, ConversationEvent, Dates, DeliveryEvent, Event, MessageAdd,
    MessageEvent, ParticipantAdd, ParticipantEvent, StateEvent, UserEvent,
};
use fields::Fields;

/// One webhook, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    pub common: Common,
    pub event: Event,
    /// Keys of values that are there and could not be read, so that the resource had better be fetched.
    pub unread: Vec<&'static str>,
    /// The time of the change was not told: the one that is given is when it was told, and nothing can be ordered by it.
    pub time_is_guessed: bool,
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
            time_is_guessed: false,
            extra,
        })
    }

    /// The conversation that this is about, if it is about one that exists.
    pub fn conversation_sid(&self) -> Option<&ConversationSid> {
        self.event.conversation_sid()
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
