//! What webhooks and REST answers say, as [`Change`]s. Pure, and exhaustive: every event of Twilio's catalogue has its
//! arm, so that a new one asks here what it means.

use serde_json::json;

use crate::ids::AccountSid;
use crate::mirror::change::{
    Change, ConversationChange, ConversationFields, MessageChange, MessageFields, Observed,
    ParticipantChange, ParticipantFields, ReceiptChange, StateChange, UserChange, UserFields,
};
use crate::mirror::version::Version;
use crate::twilio::model::values::Source;
use crate::twilio::model::{
    self, AddressKind, ConversationState, Hidden, Media, MessagingBinding, Precision, SourceTime,
};
use crate::twilio::text::safe_text;
use crate::twilio::webhook::{
    Common, ConversationEvent, DeliveryEvent, Event, MessageEvent, ParticipantEvent, StateEvent, UserEvent,
    Webhook,
};

/// Why a webhook that could be read says nothing that can be placed in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event has no time: one of DateCreated, DateUpdated or DateRemoved is needed")]
pub struct NoTime;

/// What a webhook says; nothing for events before a change, which only ask, and for unknown ones, which are kept as
/// they came.
pub fn webhook(account_sid: &AccountSid, webhook: &Webhook, cause: &str) -> Result<Vec<Observed>, NoTime> {
    let common = &webhook.common;
    let (changes, tells_source) = match &webhook.event {
        Event::ConversationAdd(_)
        | Event::ConversationUpdate(_)
        | Event::ConversationRemove(_)
        | Event::MessageAdd(_)
        | Event::MessageUpdate(_)
        | Event::MessageRemove(_)
        | Event::ParticipantAdd(_)
        | Event::ParticipantUpdate(_)
        | Event::ParticipantRemove(_)
        | Event::UserUpdate(_)
        | Event::Unknown { .. } => (Vec::new(), false),
        Event::ConversationAdded(event) | Event::ConversationUpdated(event) => {
            (vec![conversation_event(common, event)?], false)
        }
        Event::ConversationRemoved(event) => (conversation_removed(common, event)?, false),
        Event::ConversationStateUpdated(event) => (vec![state_event(event)], false),
        Event::MessageAdded(event) => (vec![message_event(event, false)?], true),
        Event::MessageUpdated(event) => (vec![message_event(event, false)?], false),
        Event::MessageRemoved(event) => (vec![message_event(event, true)?], false),
        Event::ParticipantAdded(event) | Event::ParticipantUpdated(event) => {
            (vec![participant_event(event, false)?], false)
        }
        Event::ParticipantRemoved(event) => (vec![participant_event(event, true)?], false),
        Event::UserAdded(event) | Event::UserUpdated(event) => (vec![user_event(common, event)?], false),
        Event::DeliveryUpdated(event) => (vec![delivery_event(event)?], false),
    };
    let unread = unread(webhook);
    // A guessed time is later than the true one, and would beat what was changed in between: the read tells all of it.
    let changes = if webhook.time_is_guessed && unread.is_some() {
        Vec::new()
    } else {
        changes
    };
    // Who caused a message is what the first event of it says; later ones name who edited it.
    let source = common
        .source
        .as_ref()
        .filter(|_| tells_source)
        .map(|source| safe(source.as_str()));
    Ok(changes
        .into_iter()
        .chain(unread)
        .map(|change| Observed {
            account_sid: account_sid.clone(),
            change,
            cause: cause.to_owned(),
            source: source.clone(),
        })
        .collect())
}

/// Fields that the mirror does not hold; whether they can be read is of no consequence.
const NOT_MIRRORED: &[&str] = &["RetryCount", "ClientIdentity", "Source", "MessagingBinding.Level"];

/// What has to be read at Twilio, since a value of the webhook is not one. Receipts and users have no such read.
fn unread(webhook: &Webhook) -> Option<Change> {
    let message_sid = match &webhook.event {
        Event::ConversationAdded(_)
        | Event::ConversationUpdated(_)
        | Event::ConversationStateUpdated(_)
        | Event::ParticipantAdded(_)
        | Event::ParticipantUpdated(_) => None,
        Event::MessageAdded(event) | Event::MessageUpdated(event) => Some(event.message_sid.clone()),
        _ => return None,
    };
    if webhook.unread.iter().all(|field| NOT_MIRRORED.contains(field)) {
        return None;
    }
    Some(Change::Unread {
        conversation_sid: webhook.conversation_sid()?.clone(),
        message_sid,
    })
}

fn conversation_event(common: &Common, event: &ConversationEvent) -> Result<Change, NoTime> {
    let fields = ConversationFields {
        service_sid: common.chat_service_sid.as_ref().map(ToString::to_string),
        messaging_service_sid: event.messaging_service_sid.as_ref().map(ToString::to_string),
        friendly_name: hidden(event.friendly_name.as_ref()),
        unique_name: event.unique_name.as_deref().map(safe),
        attributes: Some(safe(event.attributes.as_str())),
    };
    let autocreated = event.binding.author_address.is_some() && common.source != Some(Source::Api);
    Ok(Change::Conversation(ConversationChange {
        conversation_sid: event.conversation_sid.clone(),
        version: version(
            event
                .dates
                .updated
                .or(event.dates.created)
                .or(event.dates.removed),
        )?,
        fields,
        state: event.state.as_ref().map(state),
        created_at: event.dates.created.map(|time| time.at),
        autocreated,
    }))
}

fn conversation_removed(common: &Common, event: &ConversationEvent) -> Result<Vec<Change>, NoTime> {
    let removed = Change::ConversationRemoved {
        conversation_sid: event.conversation_sid.clone(),
        version: version(event.dates.latest())?,
    };
    Ok(vec![conversation_event(common, event)?, removed])
}

fn state_event(event: &StateEvent) -> Change {
    Change::ConversationState(StateChange {
        conversation_sid: event.conversation_sid.clone(),
        version: Version::from(event.state_updated),
        state: state(&event.state_to),
        reason: event.reason.as_ref().map(|reason| safe(reason.as_str())),
    })
}

fn message_event(event: &MessageEvent, removed: bool) -> Result<Change, NoTime> {
    let fields = MessageFields {
        index: Some(event.index),
        author: hidden(event.author.as_ref()),
        participant_sid: event.participant_sid.as_ref().map(ToString::to_string),
        body: hidden(event.body.as_ref()),
        media: media(&event.media),
        attributes: Some(safe(event.attributes.as_str())),
    };
    Ok(Change::Message(MessageChange {
        conversation_sid: event.conversation_sid.clone(),
        message_sid: event.message_sid.clone(),
        version: version(event.dates.latest())?,
        removed,
        fields: Some(fields),
        created_at: event.dates.created.map(|time| time.at),
    }))
}

fn participant_event(event: &ParticipantEvent, removed: bool) -> Result<Change, NoTime> {
    let binding = &event.binding;
    let fields = ParticipantFields {
        identity: hidden(event.identity.as_ref()),
        role_sid: event.role_sid.as_ref().map(ToString::to_string),
        attributes: Some(safe(event.attributes.as_str())),
        last_read_message_index: event.last_read_message_index,
        ..binding_fields(binding)
    };
    Ok(Change::Participant(ParticipantChange {
        conversation_sid: event.conversation_sid.clone(),
        participant_sid: event.participant_sid.clone(),
        version: version(event.dates.latest())?,
        removed,
        fields: Some(fields),
        created_at: event.dates.created.map(|time| time.at),
    }))
}

fn user_event(common: &Common, event: &UserEvent) -> Result<Change, NoTime> {
    let fields = UserFields {
        service_sid: common.chat_service_sid.as_ref().map(ToString::to_string),
        identity: hidden(event.identity.as_ref()),
        friendly_name: hidden(event.friendly_name.as_ref()),
        role_sid: event.role_sid.as_ref().map(ToString::to_string),
        attributes: Some(safe(event.attributes.as_str())),
        is_online: event.is_online,
        is_notifiable: event.is_notifiable,
    };
    Ok(Change::User(UserChange {
        user_sid: event.user_sid.clone(),
        version: version(event.dates.latest())?,
        fields,
        created_at: event.dates.created.map(|time| time.at),
    }))
}

fn delivery_event(event: &DeliveryEvent) -> Result<Change, NoTime> {
    Ok(Change::Receipt(ReceiptChange {
        conversation_sid: event.conversation_sid.clone(),
        message_sid: event.message_sid.clone(),
        receipt_sid: event.receipt_sid.clone(),
        participant_sid: event.participant_sid.as_ref().map(ToString::to_string),
        channel_message_sid: event.channel_message_sid.as_deref().map(safe),
        status: safe(event.status.as_str()),
        error_code: event.error_code.map(|code| code.to_string()),
        created_at: event.dates.created.map(|time| time.at),
        version: version(event.dates.latest())?,
    }))
}

/// What a conversation read by REST says; nothing where Twilio gave no time for it.
pub fn conversation(conversation: &model::Conversation) -> Vec<Change> {
    let Ok(version) = version(conversation.date_updated.or(conversation.date_created)) else {
        return Vec::new();
    };
    let known = Some(&conversation.state).filter(|state| !state.as_str().is_empty());
    vec![Change::Conversation(ConversationChange {
        conversation_sid: conversation.sid.clone(),
        version,
        fields: ConversationFields {
            service_sid: conversation.chat_service_sid.as_ref().map(ToString::to_string),
            messaging_service_sid: conversation
                .messaging_service_sid
                .as_ref()
                .map(ToString::to_string),
            friendly_name: hidden(conversation.friendly_name.as_ref()),
            unique_name: conversation.unique_name.as_deref().map(safe),
            attributes: Some(safe(conversation.attributes.as_str())),
        },
        state: known.map(state),
        created_at: conversation.date_created.map(|time| time.at),
        autocreated: false,
    })]
}

/// What a participant read by REST says.
pub fn participant(participant: &model::Participant) -> Option<Change> {
    let fields = ParticipantFields {
        identity: hidden(participant.identity.as_ref()),
        role_sid: participant.role_sid.as_ref().map(ToString::to_string),
        attributes: Some(safe(participant.attributes.as_str())),
        last_read_message_index: participant.last_read_message_index,
        ..binding_fields(&participant.messaging_binding)
    };
    Some(Change::Participant(ParticipantChange {
        conversation_sid: participant.conversation_sid.clone(),
        participant_sid: participant.sid.clone(),
        version: version(participant.date_updated.or(participant.date_created)).ok()?,
        removed: false,
        fields: Some(fields),
        created_at: participant.date_created.map(|time| time.at),
    }))
}

/// What a message read by REST says.
pub fn message(message: &model::Message) -> Option<Change> {
    let fields = MessageFields {
        index: message.index,
        author: hidden(message.author.as_ref()),
        participant_sid: message.participant_sid.as_ref().map(ToString::to_string),
        body: hidden(message.body.as_ref()),
        media: media(&message.media),
        attributes: Some(safe(message.attributes.as_str())),
    };
    Some(Change::Message(MessageChange {
        conversation_sid: message.conversation_sid.clone(),
        message_sid: message.sid.clone(),
        version: version(message.date_updated.or(message.date_created)).ok()?,
        removed: false,
        fields: Some(fields),
        created_at: message.date_created.map(|time| time.at),
    }))
}

/// What a receipt read by REST says.
pub fn receipt(receipt: &model::Receipt) -> Option<Change> {
    Some(Change::Receipt(ReceiptChange {
        conversation_sid: receipt.conversation_sid.clone(),
        message_sid: receipt.message_sid.clone(),
        receipt_sid: receipt.sid.clone(),
        participant_sid: receipt.participant_sid.as_ref().map(ToString::to_string),
        channel_message_sid: receipt.channel_message_sid.as_deref().map(safe),
        status: safe(receipt.status.as_str()),
        error_code: receipt.error_code.map(|code| code.to_string()),
        created_at: receipt.date_created.map(|time| time.at),
        version: version(receipt.date_updated.or(receipt.date_created)).ok()?,
    }))
}

impl From<SourceTime> for Version {
    fn from(time: SourceTime) -> Self {
        Self {
            at: time.at,
            exact: time.precision == Precision::Millisecond,
        }
    }
}

fn version(time: Option<SourceTime>) -> Result<Version, NoTime> {
    time.map(Version::from).ok_or(NoTime)
}

fn state(state: &ConversationState) -> String {
    safe(state.as_str())
}

/// An empty text means none, as a missing one does: webhooks and REST differ in which they send.
fn hidden(text: Option<&Hidden>) -> Option<String> {
    text.map(Hidden::as_str).filter(|text| !text.is_empty()).map(safe)
}

fn safe(text: &str) -> String {
    safe_text(text).text.into_owned()
}

fn binding_fields(binding: &MessagingBinding) -> ParticipantFields {
    ParticipantFields {
        address: hidden(binding.address.as_ref()),
        proxy_address: hidden(binding.proxy_address.as_ref()),
        projected_address: hidden(binding.projected_address.as_ref()),
        // A webhook names the channel of a pure chat participant, REST does not.
        binding_type: binding
            .kind
            .as_ref()
            .filter(|kind| **kind != AddressKind::Chat)
            .map(|kind| safe(kind.as_str()).to_lowercase()),
        ..ParticipantFields::default()
    }
}

/// In REST's spelling, whatever the source's was.
fn media(media: &[Media]) -> Option<String> {
    if media.is_empty() {
        return None;
    }
    let list: Vec<_> = media
        .iter()
        .map(|item| {
            json!({
                "sid": item.sid,
                "filename": item.filename,
                "content_type": item.content_type,
                "size": item.size,
            })
        })
        .collect();
    Some(safe(&serde_json::Value::from(list).to_string()))
}
