//! What a source says about Twilio's state, in the mirror's words. Made by [`super::project`], used by [`super::fold`].

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AccountSid, ConversationSid, MessageSid, ParticipantSid, ReceiptSid, UserSid};
use crate::mirror::version::Version;

/// One statement about one resource. Each states the resource whole, as of its version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Conversation(ConversationChange),
    ConversationState(StateChange),
    ConversationRemoved {
        conversation_sid: ConversationSid,
        version: Version,
    },
    Participant(ParticipantChange),
    Message(MessageChange),
    Receipt(ReceiptChange),
    User(UserChange),
    /// The source said more of the conversation, its participants or this message, in words that could not be read.
    Unread {
        conversation_sid: ConversationSid,
        message_sid: Option<MessageSid>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConversationChange {
    pub conversation_sid: ConversationSid,
    pub version: Version,
    pub fields: ConversationFields,
    pub state: Option<String>,
    pub created_at: Option<Timestamp>,
    /// An inbound group message made it.
    pub autocreated: bool,
}

#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ConversationFields {
    pub service_sid: Option<String>,
    pub messaging_service_sid: Option<String>,
    pub friendly_name: Option<String>,
    pub unique_name: Option<String>,
    pub attributes: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateChange {
    pub conversation_sid: ConversationSid,
    pub version: Version,
    pub state: String,
    /// Twilio's `API`, `TIMER` or `EVENT`.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParticipantChange {
    pub conversation_sid: ConversationSid,
    pub participant_sid: ParticipantSid,
    pub version: Version,
    pub removed: bool,
    /// Absent when only the removal is known.
    pub fields: Option<ParticipantFields>,
    pub created_at: Option<Timestamp>,
}

/// A member. The five shapes are told apart by which of the first four are present.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ParticipantFields {
    pub identity: Option<String>,
    pub address: Option<String>,
    pub proxy_address: Option<String>,
    pub projected_address: Option<String>,
    pub binding_type: Option<String>,
    pub role_sid: Option<String>,
    pub attributes: Option<String>,
    pub last_read_message_index: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageChange {
    pub conversation_sid: ConversationSid,
    pub message_sid: MessageSid,
    pub version: Version,
    pub removed: bool,
    pub fields: Option<MessageFields>,
    pub created_at: Option<Timestamp>,
}

#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageFields {
    pub index: Option<i64>,
    pub author: Option<String>,
    pub participant_sid: Option<String>,
    pub body: Option<String>,
    /// JSON: a list of `{"sid", "filename", "content_type", "size"}`, whatever the source's spelling was.
    pub media: Option<String>,
    pub attributes: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiptChange {
    pub conversation_sid: ConversationSid,
    pub message_sid: MessageSid,
    pub receipt_sid: ReceiptSid,
    pub participant_sid: Option<String>,
    pub channel_message_sid: Option<String>,
    pub status: String,
    pub error_code: Option<String>,
    pub created_at: Option<Timestamp>,
    pub version: Version,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserChange {
    pub user_sid: UserSid,
    pub version: Version,
    pub fields: UserFields,
    pub created_at: Option<Timestamp>,
}

#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct UserFields {
    pub service_sid: Option<String>,
    pub identity: Option<String>,
    pub friendly_name: Option<String>,
    pub role_sid: Option<String>,
    pub attributes: Option<String>,
    pub is_online: Option<bool>,
    pub is_notifiable: Option<bool>,
}

impl Change {
    /// The conversation it belongs to; a user belongs to none.
    pub fn conversation_sid(&self) -> Option<&ConversationSid> {
        match self {
            Self::Conversation(change) => Some(&change.conversation_sid),
            Self::ConversationState(change) => Some(&change.conversation_sid),
            Self::ConversationRemoved { conversation_sid, .. } | Self::Unread { conversation_sid, .. } => {
                Some(conversation_sid)
            }
            Self::Participant(change) => Some(&change.conversation_sid),
            Self::Message(change) => Some(&change.conversation_sid),
            Self::Receipt(change) => Some(&change.conversation_sid),
            Self::User(_) => None,
        }
    }
}

/// A change with what it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    pub account_sid: AccountSid,
    pub change: Change,
    /// What the log names as the cause, like `webhook:17` or `transfer:…`.
    pub cause: String,
    /// Twilio's `Source` (`SMS`, `API`, `SDK`), where the source of the change said so.
    pub source: Option<String>,
}

// The fields hold people's names, numbers and words: none of them prints.
macro_rules! hidden {
    ($($name:ident),*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        })*
    };
}
hidden!(ConversationFields, ParticipantFields, MessageFields, UserFields);
