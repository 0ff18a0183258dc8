//! The events of Twilio's catalogue as types. How they are read from a form is in the module above.

use crate::ids::{
    ConversationSid, MessageSid, MessagingServiceSid, ParticipantSid, ReceiptSid, RoleSid, UserSid,
};
use crate::twilio::model::{
    ConversationState, DeliveryStatus, Hidden, Media, MessagingBinding, Shape, SourceTime, StateReason,
};

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
