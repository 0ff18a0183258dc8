//! Event Streams: the second way in which Twilio tells what happened. Pure.
//!
//! A request brings a JSON array of CloudEvents, or one alone. An event says what the webhook of the same name says, in
//! other spellings: objects in place of dotted keys, `MessageBody`, `MediaSid`, attributes as an object, and less of what
//! is not the resource itself. [`CloudEvent::webhook`] reads it as that webhook, so that what follows knows one
//! language. (Twilio: Event Streams, Conversations event types.)

mod translate;

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::text::safe_json;
use super::webhook::{ParseError, Webhook};
use crate::ids::{AccountSid, ConversationSid};

/// The most events that one request may bring.
pub const MAX_EVENTS: usize = 1000;

/// Why a body holds no events at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is not UTF-8")]
    NotUtf8,
    #[error("the body is not JSON: expected an array of events, or one event")]
    NotJson,
    #[error("the body has more than {MAX_EVENTS} events")]
    TooMany,
}

/// Why one event says nothing that can be placed: by field, never by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("the event is not a JSON object")]
    NotAnObject,
    #[error(transparent)]
    Field(#[from] ParseError),
}

/// The events of a body, each as it was spelled there.
///
/// Only the array is read: an event that says nothing sensible, or is no event, leaves the others as they are.
pub fn split(body: &[u8]) -> Result<Vec<&str>, BodyError> {
    let text = std::str::from_utf8(body).map_err(|_| BodyError::NotUtf8)?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|_| BodyError::NotJson)?;
    match whole.get().as_bytes().first() {
        Some(b'{') => Ok(vec![whole.get()]),
        Some(b'[') => {
            let events: Vec<&RawValue> = serde_json::from_str(whole.get()).map_err(|_| BodyError::NotJson)?;
            if events.len() > MAX_EVENTS {
                return Err(BodyError::TooMany);
            }
            Ok(events.into_iter().map(RawValue::get).collect())
        }
        _ => Err(BodyError::NotJson),
    }
}

/// One event, as far as it can be read. `Debug` prints no values: they are people's numbers and words.
pub struct CloudEvent {
    id: Option<String>,
    event_type: String,
    time: Option<String>,
    data: Map<String, Value>,
}

impl std::fmt::Debug for CloudEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloudEvent")
            .field("event_type", &self.event_type)
            .finish_non_exhaustive()
    }
}

impl CloudEvent {
    /// Reads the envelope. What is missing in it is left open.
    pub fn read(text: &str) -> Result<Self, EventError> {
        let Some(Value::Object(mut envelope)) = value(text) else {
            return Err(EventError::NotAnObject);
        };
        let mut text_of = |key| match envelope.remove(key) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        let (id, event_type, time) = (text_of("id"), text_of("type"), text_of("time"));
        let data = match envelope.remove("data") {
            Some(Value::Object(data)) => data,
            _ => Map::new(),
        };
        Ok(Self {
            id,
            event_type: event_type.unwrap_or_default(),
            time,
            data: translate::flattened(data),
        })
    }

    /// Like `com.twilio.conversations.message.added`; empty where there is none.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The account that it says it is of.
    pub fn account_sid(&self) -> Option<AccountSid> {
        AccountSid::try_from(self.text("accountsid")?).ok()
    }

    /// The conversation that it is about, if it is about one.
    pub fn conversation_sid(&self) -> Option<ConversationSid> {
        ConversationSid::try_from(self.text("conversationsid")?).ok()
    }

    /// The event as the webhook that says the same. A type that no webhook has is read as an unknown one.
    pub fn webhook(&self) -> Result<Webhook, EventError> {
        translate::webhook(self)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key)?.as_str()
    }
}

/// Which events are one and the same: those of one `id`, which is what Twilio repeats.
///
/// An event without one, and one that says nothing that can be placed, are their own whole content: they must not stand
/// in the way of a better one. `text` is the event as it came.
pub fn dedupe_key(account_sid: &AccountSid, text: &str, event: Option<&CloudEvent>) -> Uuid {
    let id = event
        .filter(|event| event.webhook().is_ok())
        .and_then(|event| event.id.as_deref());
    let mut hash = Sha256::new();
    for part in [account_sid.as_str(), "cloud_event", id.unwrap_or_default()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    if id.is_none() {
        hash.update(text);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let bytes = digest.first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    uuid::Builder::from_custom_bytes(*bytes).into_uuid()
}

/// Half characters are no text for us; what holds them is read with U+FFFD in their place.
fn value(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    serde_json::from_str(&safe_json(text)?.text).ok()
}

#[cfg(test)]
mod tests;
