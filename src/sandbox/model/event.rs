//! The form fields of every event, as "Conversations Webhooks" and captured payloads have them.

use crate::ids::{AccountSid, ParticipantSid, PhoneNumber, RoleSid};
use jiff::Timestamp;

use super::Cause;
use super::address::Binding;
use super::conversation::{Head, Media, Message, Participant, Receipt, State};
use super::service::User;
use super::time::with_millis;
use super::webhook::{Event, EventName};

/// Why a state changed, as `Reason` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Api,
    Timer,
    Event,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Api => "API",
            Self::Timer => "TIMER",
            Self::Event => "EVENT",
        }
    }
}

/// What made a conversation, as far as its creation events tell.
pub(crate) enum Origin<'a> {
    Rest,
    /// A handset texted one of our numbers.
    Single {
        address: &'a PhoneNumber,
        proxy: &'a PhoneNumber,
    },
    /// A handset texted a group; `receivers` are all others, our numbers included, in the order they came.
    Group {
        author: &'a PhoneNumber,
        receivers: &'a [PhoneNumber],
    },
}

struct Fields(Vec<(String, String)>);

impl Fields {
    fn new(account: &AccountSid, name: EventName, source: Option<&str>) -> Self {
        let mut fields = Self(Vec::with_capacity(20));
        fields.add("AccountSid", account.as_str());
        fields.add("EventType", name.as_str());
        fields.maybe("Source", source);
        fields
    }

    fn add(&mut self, key: &str, value: impl Into<String>) {
        self.0.push((key.to_owned(), value.into()));
    }

    fn maybe(&mut self, key: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn date(&mut self, key: &str, at: Timestamp) {
        self.add(key, with_millis(at));
    }

    fn of_conversation(self, name: EventName, head: &Head) -> Event {
        Event {
            name,
            service: head.service.clone(),
            conversation: Some(head.sid.clone()),
            message: None,
            params: self.0,
        }
    }
}

/// `onConversationAdd` and `onConversationAdded`. The first message is told in the pre-action event alone.
pub(crate) fn conversation_added(
    account: &AccountSid,
    name: EventName,
    head: &Head,
    origin: &Origin<'_>,
    first: Option<(Option<&str>, &[Media])>,
    cause: Cause,
) -> Event {
    let mut fields = Fields::new(account, name, Some(cause.source.as_str()));
    if name == EventName::ConversationAdded {
        fields.add("ConversationSid", head.sid.as_str());
        fields.date("DateCreated", head.created);
        fields.date("DateUpdated", head.updated);
    }
    conversation_fields(&mut fields, head);
    match origin {
        Origin::Rest => {
            fields.add("MessagingBinding.ProxyAddress", "");
            fields.add("MessagingBinding.Address", "");
        }
        Origin::Single { address, proxy } => {
            fields.add("MessagingBinding.ProxyAddress", proxy.as_str());
            fields.add("MessagingBinding.Address", address.as_str());
        }
        Origin::Group { author, receivers } => {
            for receiver in *receivers {
                fields.add("MessagingBinding.Address", receiver.as_str());
            }
            fields.add("MessagingBinding.AuthorAddress", author.as_str());
        }
    }
    if let Some((body, media)) = first {
        fields.add("MessageBody", body.unwrap_or_default());
        if !media.is_empty() {
            fields.add("Media", media_text(media));
        }
    }
    fields.of_conversation(name, head)
}

/// `onConversationUpdate(d)` and `onConversationRemove(d)`.
pub(crate) fn conversation_changed(
    account: &AccountSid,
    name: EventName,
    head: &Head,
    removed: Option<Timestamp>,
    cause: Cause,
) -> Event {
    let mut fields = Fields::new(account, name, Some(cause.source.as_str()));
    fields.add("ConversationSid", head.sid.as_str());
    fields.date("DateCreated", head.created);
    fields.date("DateUpdated", head.updated);
    fields.maybe("DateRemoved", removed.map(with_millis));
    conversation_fields(&mut fields, head);
    fields.of_conversation(name, head)
}

fn conversation_fields(fields: &mut Fields, head: &Head) {
    fields.maybe("FriendlyName", head.friendly_name.as_deref());
    fields.maybe("UniqueName", head.unique_name.as_deref());
    fields.add("Attributes", &head.attributes);
    fields.add("ChatServiceSid", head.service.as_str());
    fields.add("MessagingServiceSid", head.messaging_service.as_str());
    fields.add("State", head.state.as_str());
}

pub(crate) fn state_updated(
    account: &AccountSid,
    head: &Head,
    from: State,
    at: Timestamp,
    reason: Reason,
    cause: Cause,
) -> Event {
    let name = EventName::ConversationStateUpdated;
    let mut fields = Fields::new(account, name, Some(cause.source.as_str()));
    fields.add("ConversationSid", head.sid.as_str());
    fields.add("ChatServiceSid", head.service.as_str());
    fields.add("MessagingServiceSid", head.messaging_service.as_str());
    fields.date("StateUpdated", at);
    fields.add("StateFrom", from.as_str());
    fields.add("StateTo", head.state.as_str());
    fields.add("Reason", reason.as_str());
    fields.of_conversation(name, head)
}

/// All events of participants. `onParticipantAdd` knows no SID and no dates yet.
pub(crate) fn participant(
    account: &AccountSid,
    name: EventName,
    head: &Head,
    participant: &Participant,
    removed: Option<Timestamp>,
    cause: Cause,
) -> Event {
    let mut fields = Fields::new(account, name, Some(cause.source.as_str()));
    fields.add("ConversationSid", head.sid.as_str());
    fields.add("ChatServiceSid", head.service.as_str());
    if name != EventName::ParticipantAdd {
        fields.add("ParticipantSid", participant.sid.as_str());
        fields.date("DateCreated", participant.created);
        if name != EventName::ParticipantAdded {
            fields.date("DateUpdated", participant.updated);
        }
    }
    fields.maybe("DateRemoved", removed.map(with_millis));
    fields.maybe("Identity", participant.identity.as_deref());
    fields.maybe("RoleSid", participant.role.as_ref().map(RoleSid::as_str));
    fields.add("Attributes", &participant.attributes);
    if name == EventName::ParticipantUpdated {
        fields.maybe(
            "LastReadMessageIndex",
            participant.last_read_index.map(|index| index.to_string()),
        );
    }
    binding_fields(&mut fields, &participant.binding);
    fields.of_conversation(name, head)
}

fn binding_fields(fields: &mut Fields, binding: &Binding) {
    match binding {
        Binding::Chat => {}
        Binding::Native(address) => fields.add("MessagingBinding.Address", address.as_str()),
        Binding::Proxied { address, proxy } => {
            fields.add("MessagingBinding.ProxyAddress", proxy.as_str());
            fields.add("MessagingBinding.Address", address.as_str());
        }
        Binding::Projected(address) => fields.add("MessagingBinding.ProjectedAddress", address.as_str()),
    }
    let kind = if *binding == Binding::Chat { "chat" } else { "sms" };
    fields.add("MessagingBinding.Type", kind);
}

/// All events of messages. `onMessageAdd` knows no SID, index or date yet.
pub(crate) fn message(
    account: &AccountSid,
    name: EventName,
    head: &Head,
    message: &Message,
    removed: Option<Timestamp>,
    cause: Cause,
) -> Event {
    let mut fields = Fields::new(account, name, Some(cause.source.as_str()));
    fields.add("ConversationSid", head.sid.as_str());
    if name != EventName::MessageAdd {
        fields.add("ChatServiceSid", head.service.as_str());
        fields.add("MessagingServiceSid", head.messaging_service.as_str());
        fields.add("MessageSid", message.sid.as_str());
        fields.add("Index", message.index.to_string());
        fields.date("DateCreated", message.created);
        if name != EventName::MessageAdded {
            fields.date("DateUpdated", message.updated);
        }
    }
    fields.maybe("DateRemoved", removed.map(with_millis));
    fields.add("Body", message.body.as_deref().unwrap_or_default());
    fields.add("Author", &message.author);
    fields.maybe(
        "ParticipantSid",
        message.participant.as_ref().map(ParticipantSid::as_str),
    );
    fields.add("Attributes", &message.attributes);
    if !message.media.is_empty() {
        fields.add("Media", media_text(&message.media));
    }
    let mut event = fields.of_conversation(name, head);
    event.message = Some(message.sid.clone());
    event
}

/// `onDeliveryUpdated`, the one event without a `Source`.
pub(crate) fn delivery_updated(
    account: &AccountSid,
    head: &Head,
    message: &Message,
    receipt: &Receipt,
) -> Event {
    let name = EventName::DeliveryUpdated;
    let mut fields = Fields::new(account, name, None);
    fields.add("ConversationSid", head.sid.as_str());
    fields.add("ChatServiceSid", head.service.as_str());
    fields.add("MessageSid", message.sid.as_str());
    fields.add("DeliveryReceiptSid", receipt.sid.as_str());
    fields.add("ChannelMessageSid", &receipt.channel_message_sid);
    fields.add("ParticipantSid", receipt.participant.as_str());
    fields.add("Status", receipt.status.as_str());
    fields.maybe(
        "ErrorCode",
        Some(receipt.error_code)
            .filter(|&code| code != 0)
            .map(|code| code.to_string()),
    );
    fields.date("DateCreated", receipt.created);
    fields.date("DateUpdated", receipt.updated);
    fields.of_conversation(name, head)
}

/// The events of users. `isOnline` and `isNotifiable` are in lower camel case, unlike everything else.
pub(crate) fn user(account: &AccountSid, name: EventName, user: &User, cause: Cause) -> Event {
    let mut fields = Fields::new(account, name, Some(cause.source.as_str()));
    fields.add("ChatServiceSid", user.service.as_str());
    fields.add("UserSid", user.sid.as_str());
    if name != EventName::UserUpdate {
        fields.date("DateCreated", user.created);
    }
    if name != EventName::UserAdded {
        fields.date("DateUpdated", user.updated);
    }
    fields.add("Identity", &user.identity);
    fields.add("RoleSid", user.role.as_str());
    fields.add("Attributes", &user.attributes);
    fields.add("FriendlyName", user.friendly_name.as_deref().unwrap_or_default());
    if name == EventName::UserUpdated {
        fields.add("isOnline", "false");
        fields.add("isNotifiable", "false");
    }
    Event {
        name,
        service: user.service.clone(),
        conversation: None,
        message: None,
        params: fields.0,
    }
}

/// The JSON text of `Media`, in the spelling of webhooks.
fn media_text(media: &[Media]) -> String {
    let items = media.iter().map(|item| {
        serde_json::json!({
            "Sid": item.sid, "Filename": item.filename, "ContentType": item.content_type, "Size": item.size,
        })
    });
    items.collect::<serde_json::Value>().to_string()
}
