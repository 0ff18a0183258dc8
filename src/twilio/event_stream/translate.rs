//! The fields of an event, spelled as the webhook of the same name spells them.

use serde_json::{Map, Value};

use super::{CloudEvent, EventError};
use crate::twilio::form::Form;
use crate::twilio::webhook::{ParseError, Webhook};

const PREFIX: &str = "com.twilio.conversations.";

/// Types, and the webhooks that say the same. Receipts are not among them: Twilio has discontinued their event.
const TYPES: &[(&str, &str)] = &[
    ("conversation.added", "onConversationAdded"),
    ("conversation.updated", "onConversationUpdated"),
    ("conversation.removed", "onConversationRemoved"),
    ("conversation-state.updated", "onConversationStateUpdated"),
    ("message.added", "onMessageAdded"),
    ("message.updated", "onMessageUpdated"),
    ("message.removed", "onMessageRemoved"),
    ("participant.added", "onParticipantAdded"),
    ("participant.updated", "onParticipantUpdated"),
    ("participant.removed", "onParticipantRemoved"),
    ("user.added", "onUserAdded"),
    ("user.updated", "onUserUpdated"),
];

/// The keys of webhooks that events have too. They are found whatever their case is and with or without underscores.
const KEYS: &[&str] = &[
    "AccountSid",
    "ConversationSid",
    "ChatServiceSid",
    "MessagingServiceSid",
    "FriendlyName",
    "UniqueName",
    "State",
    "StateUpdated",
    "StateFrom",
    "StateTo",
    "Reason",
    "MessageSid",
    "Index",
    "Author",
    "Body",
    "ParticipantSid",
    "Identity",
    "RoleSid",
    "LastReadMessageIndex",
    "UserSid",
    "isOnline",
    "isNotifiable",
    "Attributes",
    "Media",
    "DateCreated",
    "DateUpdated",
    "DateRemoved",
    "MessagingBinding.Address",
    "MessagingBinding.ProxyAddress",
    "MessagingBinding.ProjectedAddress",
    "MessagingBinding.AuthorAddress",
    "MessagingBinding.Type",
    "MessagingBinding.Level",
    "MessagingBinding.Name",
];

/// Keys in one spelling, with those of the binding beside the others: `messagingbinding.address`.
pub(super) fn flattened(data: Map<String, Value>) -> Map<String, Value> {
    let mut flat = Map::new();
    for (key, value) in data {
        match (bare(&key), value) {
            (key, Value::Object(binding)) if key == "messagingbinding" => {
                flat.extend(
                    binding
                        .into_iter()
                        .map(|(name, value)| (format!("{key}.{}", bare(&name)), value)),
                );
            }
            // The text of a message; in a conversation's event that of its first one, which nobody reads there.
            (key, value) if key == "messagebody" => {
                flat.insert("body".to_owned(), value);
            }
            (key, value) => {
                flat.insert(key, value);
            }
        }
    }
    flat
}

fn bare(key: &str) -> String {
    key.chars()
        .filter(|letter| *letter != '_')
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

pub(super) fn webhook(event: &CloudEvent) -> Result<Webhook, EventError> {
    let event_type = webhook_type(&event.event_type);
    let mut form: Vec<(String, String)> = vec![("EventType".to_owned(), event_type.to_owned())];
    for key in KEYS {
        if let Some(value) = event.data.get(&bare(key)) {
            form.extend(texts(key, value).map(|text| ((*key).to_owned(), text)));
        }
    }
    let guessed = complete_time(event, event_type, &mut form)?;
    let mut webhook = Webhook::parse(&Form::from(form))?;
    webhook.time_is_guessed = guessed.is_some();
    webhook.unread.extend(guessed);
    Ok(webhook)
}

/// The webhook's name of a type; the type itself where there is none, which no webhook is called.
fn webhook_type(event_type: &str) -> &str {
    if event_type.is_empty() {
        return "no type";
    }
    event_type
        .strip_prefix(PREFIX)
        .and_then(|name| TYPES.iter().find(|(known, _)| *known == name))
        .map_or(event_type, |(_, webhook)| webhook)
}

/// The values of a field of a form. A list of numbers is the key repeated; other lists, and objects, are JSON text.
fn texts(key: &str, value: &Value) -> impl Iterator<Item = String> {
    let texts = match value {
        Value::Array(items) if key.ends_with("Address") => items.iter().filter_map(text).collect(),
        one => text(one).into_iter().collect::<Vec<_>>(),
    };
    texts.into_iter()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(whole(number).unwrap_or_else(|| number.to_string())),
        other => Some(other.to_string()),
    }
}

/// `3.0` is the whole number 3.
#[expect(
    clippy::cast_possible_truncation,
    reason = "only whole numbers that fit are cast"
)]
fn whole(number: &serde_json::Number) -> Option<String> {
    let float = number.as_f64().filter(|_| number.is_f64())?;
    (float.fract() == 0.0 && float.abs() < 9e15).then(|| (float as i64).to_string())
}

/// An event without the time of its change is placed by the envelope's time, which is later by as much as it took to
/// tell: the resource had better be read. Answers the field that was filled in so.
fn complete_time(
    event: &CloudEvent,
    event_type: &str,
    form: &mut Vec<(String, String)>,
) -> Result<Option<&'static str>, ParseError> {
    let has = |form: &[(String, String)], key: &str| {
        form.iter().any(|(name, text)| name == key && !text.is_empty())
    };
    let field = match event_type {
        "onConversationStateUpdated" => "StateUpdated",
        name if name.ends_with("Added") => "DateCreated",
        name if name.ends_with("Updated") => "DateUpdated",
        name if name.ends_with("Removed") => "DateRemoved",
        _ => return Ok(None),
    };
    if !event_type.starts_with("on") || has(form, field) {
        return Ok(None);
    }
    if let Some(time) = &event.time {
        form.push((field.to_owned(), time.clone()));
        return Ok(Some(field));
    }
    // Of a removal the time of the last change would be too early, and lose against that change.
    if field == "DateRemoved" && !has(form, "DateUpdated") {
        return Err(ParseError {
            field,
            expected: "an ISO 8601 time, and the event has no time of its own",
        });
    }
    Ok(None)
}
