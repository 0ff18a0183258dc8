//! Resources as Twilio sends them, read tolerantly: what is missing is `None`, an unknown word is `Other`.
//!
//! Only a resource's own SID and its parents' are required; without them nothing can be said of it. [`values`] has the
//! words and times that webhooks share with REST. What the mirror makes of them is not known here.

use serde::{Deserialize, Deserializer};

use crate::ids::{
    AccountSid, AddressSid, ConversationSid, MediaSid, MessageSid, MessagingServiceSid, ParticipantSid,
    PhoneNumber, ReceiptSid, RoleSid, ServiceSid, UserSid,
};

pub mod values;

pub use values::{
    AddressKind, AutoCreationKind, ConversationState, DeliveryAmount, DeliveryStatus, Hidden, Precision,
    Source, SourceTime, StateReason, WebhookMethod,
};

/// `/Conversations/{CH}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Conversation {
    pub sid: ConversationSid,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub account_sid: Option<AccountSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub chat_service_sid: Option<ServiceSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub messaging_service_sid: Option<MessagingServiceSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub friendly_name: Option<Hidden>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub unique_name: Option<String>,
    #[serde(default = "no_attributes", deserialize_with = "attributes")]
    pub attributes: Hidden,
    /// `Other("")` where Twilio names none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub state: ConversationState,
    #[serde(default)]
    pub date_created: Option<SourceTime>,
    #[serde(default)]
    pub date_updated: Option<SourceTime>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub timers: Timers,
}

/// When a conversation will change its state by itself.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Timers {
    #[serde(default)]
    pub date_inactive: Option<SourceTime>,
    #[serde(default)]
    pub date_closed: Option<SourceTime>,
}

/// `/Conversations/{CH}/Participants/{MB}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Participant {
    pub sid: ParticipantSid,
    pub conversation_sid: ConversationSid,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub account_sid: Option<AccountSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub identity: Option<Hidden>,
    #[serde(default = "no_attributes", deserialize_with = "attributes")]
    pub attributes: Hidden,
    #[serde(default, deserialize_with = "null_is_default")]
    pub messaging_binding: MessagingBinding,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub role_sid: Option<RoleSid>,
    #[serde(default)]
    pub date_created: Option<SourceTime>,
    #[serde(default)]
    pub date_updated: Option<SourceTime>,
    #[serde(default)]
    pub last_read_message_index: Option<i64>,
    #[serde(default)]
    pub last_read_timestamp: Option<SourceTime>,
}

impl Participant {
    pub fn shape(&self) -> Shape {
        Shape::of(self.identity.as_ref(), &self.messaging_binding)
    }
}

/// How a participant is reached; all `None` for a pure chat participant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct MessagingBinding {
    #[serde(default, rename = "type")]
    pub kind: Option<AddressKind>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub address: Option<Hidden>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub proxy_address: Option<Hidden>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub projected_address: Option<Hidden>,
    /// E-mail only: `to`, `from` or `cc`.
    #[serde(default, deserialize_with = "blank_is_none")]
    pub level: Option<String>,
    /// E-mail only: the display name.
    #[serde(default, deserialize_with = "blank_is_none")]
    pub name: Option<Hidden>,
}

/// What kind of participant this is, told by which of its addresses are there (Twilio: Group Texting).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A handset that sees the group natively.
    Native { address: PhoneNumber },
    /// One of our people behind one of our numbers.
    Projected {
        identity: Hidden,
        projected_address: PhoneNumber,
    },
    /// One of our numbers with nobody behind it.
    Gateway { projected_address: PhoneNumber },
    /// A handset in a 1:1 that sees one of our numbers.
    Proxied {
        address: PhoneNumber,
        proxy_address: PhoneNumber,
    },
    /// A person in a chat client, with no number.
    Chat { identity: Hidden },
    /// Anything else: other channels, addresses that are no phone numbers, combinations that Twilio does not document.
    Other,
}

impl Shape {
    pub fn of(identity: Option<&Hidden>, binding: &MessagingBinding) -> Self {
        let number = |address: &Option<Hidden>| {
            address
                .as_ref()
                .map(|text| PhoneNumber::try_from(text.as_str()))
                .transpose()
        };
        let (Ok(address), Ok(proxy), Ok(projected)) = (
            number(&binding.address),
            number(&binding.proxy_address),
            number(&binding.projected_address),
        ) else {
            return Self::Other;
        };
        match (identity.cloned(), address, proxy, projected) {
            (None, Some(address), None, None) => Self::Native { address },
            (None, Some(address), Some(proxy_address), None) => Self::Proxied {
                address,
                proxy_address,
            },
            (None, None, None, Some(projected_address)) => Self::Gateway { projected_address },
            (Some(identity), None, None, Some(projected_address)) => Self::Projected {
                identity,
                projected_address,
            },
            (Some(identity), None, None, None) => Self::Chat { identity },
            _ => Self::Other,
        }
    }
}

/// `/Conversations/{CH}/Messages/{IM}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Message {
    pub sid: MessageSid,
    pub conversation_sid: ConversationSid,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub account_sid: Option<AccountSid>,
    /// The position in the conversation; grows, and may skip.
    #[serde(default)]
    pub index: Option<i64>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub author: Option<Hidden>,
    /// Blank for a message of media alone.
    #[serde(default)]
    pub body: Option<Hidden>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub media: Vec<Media>,
    #[serde(default = "no_attributes", deserialize_with = "attributes")]
    pub attributes: Hidden,
    /// `None` for authors that are not participants, such as `system`.
    #[serde(default, deserialize_with = "blank_is_none")]
    pub participant_sid: Option<ParticipantSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub content_sid: Option<String>,
    #[serde(default)]
    pub date_created: Option<SourceTime>,
    #[serde(default)]
    pub date_updated: Option<SourceTime>,
    /// `None` until there are receipts.
    #[serde(default)]
    pub delivery: Option<DeliverySummary>,
}

/// One file of a message. REST, webhooks and Event Streams each spell the keys in their own way; all three are read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Media {
    #[serde(alias = "Sid", alias = "MediaSid")]
    pub sid: MediaSid,
    #[serde(default, alias = "Filename", deserialize_with = "blank_is_none")]
    pub filename: Option<Hidden>,
    #[serde(default, alias = "ContentType", deserialize_with = "blank_is_none")]
    pub content_type: Option<String>,
    /// In bytes.
    #[serde(default, alias = "Size")]
    pub size: Option<u64>,
}

/// How many of a message's recipients have come how far.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeliverySummary {
    #[serde(default)]
    pub total: Option<u32>,
    #[serde(default)]
    pub sent: Option<DeliveryAmount>,
    #[serde(default)]
    pub delivered: Option<DeliveryAmount>,
    #[serde(default)]
    pub read: Option<DeliveryAmount>,
    #[serde(default)]
    pub failed: Option<DeliveryAmount>,
    #[serde(default)]
    pub undelivered: Option<DeliveryAmount>,
}

/// `/Conversations/{CH}/Messages/{IM}/Receipts/{DY}`: one recipient of one message.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Receipt {
    pub sid: ReceiptSid,
    pub conversation_sid: ConversationSid,
    pub message_sid: MessageSid,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub account_sid: Option<AccountSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub participant_sid: Option<ParticipantSid>,
    /// The carrier's message, `SM…`, `MM…` or another channel's.
    #[serde(default, deserialize_with = "blank_is_none")]
    pub channel_message_sid: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub status: DeliveryStatus,
    /// Twilio's Messaging error number; Twilio writes 0 for none.
    #[serde(default, deserialize_with = "zero_is_none")]
    pub error_code: Option<u32>,
    #[serde(default)]
    pub date_created: Option<SourceTime>,
    #[serde(default)]
    pub date_updated: Option<SourceTime>,
}

/// A row of `/ParticipantConversations`: one conversation that a number or an identity takes part in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ParticipantConversation {
    pub conversation_sid: ConversationSid,
    pub participant_sid: ParticipantSid,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub account_sid: Option<AccountSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub chat_service_sid: Option<ServiceSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub conversation_unique_name: Option<String>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub conversation_friendly_name: Option<Hidden>,
    #[serde(default = "no_attributes", deserialize_with = "attributes")]
    pub conversation_attributes: Hidden,
    /// Twilio knows no `initializing` here.
    #[serde(default, deserialize_with = "null_is_default")]
    pub conversation_state: ConversationState,
    #[serde(default, deserialize_with = "null_is_default")]
    pub conversation_timers: Timers,
    #[serde(default)]
    pub conversation_date_created: Option<SourceTime>,
    #[serde(default)]
    pub conversation_date_updated: Option<SourceTime>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub conversation_created_by: Option<Hidden>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub participant_user_sid: Option<UserSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub participant_identity: Option<Hidden>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub participant_messaging_binding: MessagingBinding,
}

/// `/Configuration/Webhooks`, of the account or of a service; everything is missing where nothing was configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct WebhookConfiguration {
    #[serde(default, deserialize_with = "blank_is_none")]
    pub method: Option<WebhookMethod>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub filters: Vec<String>,
    /// Hidden since it may carry credentials.
    #[serde(default, deserialize_with = "blank_is_none")]
    pub pre_webhook_url: Option<Hidden>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub post_webhook_url: Option<Hidden>,
    /// `webhook` or `flex`; of the account only.
    #[serde(default, deserialize_with = "blank_is_none")]
    pub target: Option<String>,
}

/// `/Services/{IS}/Configuration`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServiceConfiguration {
    pub chat_service_sid: ServiceSid,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub default_conversation_creator_role_sid: Option<RoleSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub default_conversation_role_sid: Option<RoleSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub default_chat_service_role_sid: Option<RoleSid>,
    #[serde(default)]
    pub reachability_enabled: Option<bool>,
}

/// `/Configuration/Addresses/{IG}`: what happens to a first message to one of our numbers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AddressConfiguration {
    pub sid: AddressSid,
    #[serde(default, rename = "type")]
    pub kind: Option<AddressKind>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub address: Option<Hidden>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub friendly_name: Option<Hidden>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub auto_creation: AutoCreation,
    #[serde(default)]
    pub date_created: Option<SourceTime>,
    #[serde(default)]
    pub date_updated: Option<SourceTime>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct AutoCreation {
    #[serde(default, deserialize_with = "null_is_default")]
    pub enabled: bool,
    #[serde(default, rename = "type", deserialize_with = "blank_is_none")]
    pub kind: Option<AutoCreationKind>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub conversation_service_sid: Option<ServiceSid>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub webhook_url: Option<Hidden>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub webhook_method: Option<WebhookMethod>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub webhook_filters: Vec<String>,
}

/// `/Users/{US}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct User {
    pub sid: UserSid,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub identity: Option<Hidden>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub friendly_name: Option<Hidden>,
    #[serde(default, deserialize_with = "blank_is_none")]
    pub role_sid: Option<RoleSid>,
    #[serde(default = "no_attributes", deserialize_with = "attributes")]
    pub attributes: Hidden,
    /// Only when one user is fetched, not in lists.
    #[serde(default)]
    pub is_online: Option<bool>,
    #[serde(default)]
    pub is_notifiable: Option<bool>,
    #[serde(default)]
    pub date_created: Option<SourceTime>,
    #[serde(default)]
    pub date_updated: Option<SourceTime>,
}

fn no_attributes() -> Hidden {
    Hidden::from("{}")
}

/// Attributes are JSON text in a string. `null` means none; an object, as Event Streams sends it, is written out.
fn attributes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hidden, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => no_attributes(),
        serde_json::Value::String(text) => Hidden::from(text),
        other => Hidden::from(other.to_string()),
    })
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Twilio writes "none" as null or as a blank text.
fn blank_is_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    match Option::<String>::deserialize(deserializer)? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => T::deserialize(serde::de::value::StringDeserializer::new(text)).map(Some),
    }
}

fn zero_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NumberOrText {
        Number(u32),
        Text(String),
    }
    let code = match Option::<NumberOrText>::deserialize(deserializer)? {
        None => 0,
        Some(NumberOrText::Number(code)) => code,
        Some(NumberOrText::Text(text)) if text.is_empty() => 0,
        Some(NumberOrText::Text(text)) => text.parse().map_err(serde::de::Error::custom)?,
    };
    Ok((code != 0).then_some(code))
}

#[cfg(test)]
mod tests;
