//! What our calls send: the parameters of creates and updates, in Twilio's spelling.
//!
//! What is `None` is not sent, and Twilio leaves it as it is.

use jiff::SignedDuration;
use serde_json::json;

use super::model::{AddressKind, AutoCreationKind, ConversationState, Hidden, WebhookMethod};
use crate::ids::{Identity, MediaSid, MessagingServiceSid, PhoneNumber, RoleSid, ServiceSid};

pub(super) type Form = Vec<(&'static str, String)>;

/// A form under construction.
#[derive(Default)]
struct Fields(Form);

impl Fields {
    fn set(&mut self, key: &'static str, value: impl Into<String>) {
        self.0.push((key, value.into()));
    }

    fn set_some(&mut self, key: &'static str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// Arrays repeat their key.
    fn set_each(&mut self, key: &'static str, values: impl IntoIterator<Item = String>) {
        for value in values {
            self.set(key, value);
        }
    }
}

/// A conversation to be created.
#[derive(Debug, Clone, Default)]
pub struct NewConversation {
    pub friendly_name: Option<Hidden>,
    /// Unique in the service; a closed conversation keeps it.
    pub unique_name: Option<String>,
    /// Should always be given: the account's default service often has no campaign.
    pub messaging_service_sid: Option<MessagingServiceSid>,
    /// JSON text of at most 16 KB.
    pub attributes: Option<Hidden>,
}

impl NewConversation {
    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.set_some("FriendlyName", self.friendly_name.as_ref().map(Hidden::as_str));
        fields.set_some("UniqueName", self.unique_name.as_deref());
        fields.set_some(
            "MessagingServiceSid",
            self.messaging_service_sid
                .as_ref()
                .map(MessagingServiceSid::as_str),
        );
        fields.set_some("Attributes", self.attributes.as_ref().map(Hidden::as_str));
        fields
    }

    pub(super) fn form(&self) -> Form {
        self.fields().0
    }

    /// With its participants, each as JSON in snake case, unlike the rest of the form.
    pub(super) fn form_with(&self, participants: &[NewParticipant]) -> Form {
        let mut fields = self.fields();
        fields.set_each("Participant", participants.iter().map(NewParticipant::json));
        fields.0
    }
}

/// What of a conversation is to change.
#[derive(Debug, Clone, Default)]
pub struct ConversationUpdate {
    pub friendly_name: Option<Hidden>,
    pub unique_name: Option<String>,
    pub messaging_service_sid: Option<MessagingServiceSid>,
    pub attributes: Option<Hidden>,
    /// `closed` is final.
    pub state: Option<ConversationState>,
    /// At least a minute.
    pub inactive_after: Option<SignedDuration>,
    /// At least ten minutes.
    pub closed_after: Option<SignedDuration>,
}

impl ConversationUpdate {
    pub(super) fn form(&self) -> Form {
        let common = NewConversation {
            friendly_name: self.friendly_name.clone(),
            unique_name: self.unique_name.clone(),
            messaging_service_sid: self.messaging_service_sid.clone(),
            attributes: self.attributes.clone(),
        };
        let mut fields = common.fields();
        fields.set_some("State", self.state.as_ref().map(ConversationState::as_str));
        fields.set_some(
            "Timers.Inactive",
            self.inactive_after.map(|after| after.to_string()),
        );
        fields.set_some("Timers.Closed", self.closed_after.map(|after| after.to_string()));
        fields.0
    }
}

/// The five combinations that Twilio takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    Native {
        address: PhoneNumber,
    },
    Projected {
        identity: Identity,
        projected_address: PhoneNumber,
    },
    Gateway {
        projected_address: PhoneNumber,
    },
    Proxied {
        address: PhoneNumber,
        proxy_address: PhoneNumber,
    },
    Chat {
        identity: Identity,
    },
}

/// A participant to be added.
#[derive(Debug, Clone)]
pub struct NewParticipant {
    pub member: Member,
    /// JSON text of at most 4 KB.
    pub attributes: Option<Hidden>,
    pub role_sid: Option<RoleSid>,
}

impl From<Member> for NewParticipant {
    fn from(member: Member) -> Self {
        Self {
            member,
            attributes: None,
            role_sid: None,
        }
    }
}

/// What a [`Member`] is made of.
struct MemberParts<'a> {
    identity: Option<&'a Identity>,
    address: Option<&'a PhoneNumber>,
    proxy_address: Option<&'a PhoneNumber>,
    projected_address: Option<&'a PhoneNumber>,
}

impl Member {
    fn parts(&self) -> MemberParts<'_> {
        let none = MemberParts {
            identity: None,
            address: None,
            proxy_address: None,
            projected_address: None,
        };
        match self {
            Self::Native { address } => MemberParts {
                address: Some(address),
                ..none
            },
            Self::Projected {
                identity,
                projected_address,
            } => MemberParts {
                identity: Some(identity),
                projected_address: Some(projected_address),
                ..none
            },
            Self::Gateway { projected_address } => MemberParts {
                projected_address: Some(projected_address),
                ..none
            },
            Self::Proxied {
                address,
                proxy_address,
            } => MemberParts {
                address: Some(address),
                proxy_address: Some(proxy_address),
                ..none
            },
            Self::Chat { identity } => MemberParts {
                identity: Some(identity),
                ..none
            },
        }
    }
}

impl NewParticipant {
    pub(super) fn form(&self) -> Form {
        let parts = self.member.parts();
        let mut fields = Fields::default();
        fields.set_some("Identity", parts.identity.map(Identity::as_str));
        fields.set_some("MessagingBinding.Address", parts.address.map(PhoneNumber::as_str));
        fields.set_some(
            "MessagingBinding.ProxyAddress",
            parts.proxy_address.map(PhoneNumber::as_str),
        );
        fields.set_some(
            "MessagingBinding.ProjectedAddress",
            parts.projected_address.map(PhoneNumber::as_str),
        );
        fields.set_some("Attributes", self.attributes.as_ref().map(Hidden::as_str));
        fields.set_some("RoleSid", self.role_sid.as_ref().map(RoleSid::as_str));
        fields.0
    }

    fn json(&self) -> String {
        let parts = self.member.parts();
        let mut binding = serde_json::Map::new();
        for (key, number) in [
            ("address", parts.address),
            ("proxy_address", parts.proxy_address),
            ("projected_address", parts.projected_address),
        ] {
            if let Some(number) = number {
                binding.insert(key.to_owned(), json!(number));
            }
        }
        let mut participant = serde_json::Map::new();
        if let Some(identity) = parts.identity {
            participant.insert("identity".to_owned(), json!(identity));
        }
        if !binding.is_empty() {
            participant.insert("messaging_binding".to_owned(), binding.into());
        }
        if let Some(attributes) = &self.attributes {
            participant.insert("attributes".to_owned(), json!(attributes));
        }
        if let Some(role_sid) = &self.role_sid {
            participant.insert("role_sid".to_owned(), json!(role_sid));
        }
        serde_json::Value::Object(participant).to_string()
    }
}

/// What of a participant is to change. A native address cannot.
#[derive(Debug, Clone, Default)]
pub struct ParticipantUpdate {
    pub identity: Option<Identity>,
    pub attributes: Option<Hidden>,
    pub role_sid: Option<RoleSid>,
    pub last_read_message_index: Option<i64>,
}

impl ParticipantUpdate {
    pub(super) fn form(&self) -> Form {
        let mut fields = Fields::default();
        fields.set_some("Identity", self.identity.as_ref().map(Identity::as_str));
        fields.set_some("Attributes", self.attributes.as_ref().map(Hidden::as_str));
        fields.set_some("RoleSid", self.role_sid.as_ref().map(RoleSid::as_str));
        fields.set_some(
            "LastReadMessageIndex",
            self.last_read_message_index.map(|index| index.to_string()),
        );
        fields.0
    }
}

/// A message to be sent. Twilio has no idempotency key: put ours into `attributes`, and look for it there.
#[derive(Debug, Clone, Default)]
pub struct NewMessage {
    /// In a group a participant's identity, or the number of a projected address with nobody behind it (50513).
    pub author: Option<Hidden>,
    /// At most 1600 characters for a handset.
    pub body: Option<Hidden>,
    pub media_sid: Option<MediaSid>,
    /// JSON text of at most 4 KB.
    pub attributes: Option<Hidden>,
}

impl NewMessage {
    pub(super) fn form(&self) -> Form {
        let mut fields = Fields::default();
        fields.set_some("Author", self.author.as_ref().map(Hidden::as_str));
        fields.set_some("Body", self.body.as_ref().map(Hidden::as_str));
        fields.set_some("MediaSid", self.media_sid.as_ref().map(MediaSid::as_str));
        fields.set_some("Attributes", self.attributes.as_ref().map(Hidden::as_str));
        fields.0
    }
}

/// What of a message's record is to change; nothing is unsent on a handset.
#[derive(Debug, Clone, Default)]
pub struct MessageUpdate {
    pub author: Option<Hidden>,
    pub body: Option<Hidden>,
    pub attributes: Option<Hidden>,
}

impl MessageUpdate {
    pub(super) fn form(&self) -> Form {
        let mut fields = Fields::default();
        fields.set_some("Author", self.author.as_ref().map(Hidden::as_str));
        fields.set_some("Body", self.body.as_ref().map(Hidden::as_str));
        fields.set_some("Attributes", self.attributes.as_ref().map(Hidden::as_str));
        fields.0
    }
}

/// Where Twilio's webhooks go and which there are.
#[derive(Debug, Clone, Default)]
pub struct WebhookConfigurationUpdate {
    pub method: Option<WebhookMethod>,
    /// The events by name; the list replaces the one before.
    pub filters: Vec<String>,
    pub pre_webhook_url: Option<Hidden>,
    pub post_webhook_url: Option<Hidden>,
}

impl WebhookConfigurationUpdate {
    pub(super) fn form(&self) -> Form {
        let mut fields = Fields::default();
        fields.set_some("Method", self.method.as_ref().map(WebhookMethod::as_str));
        fields.set_each("Filters", self.filters.iter().cloned());
        fields.set_some("PreWebhookUrl", self.pre_webhook_url.as_ref().map(Hidden::as_str));
        fields.set_some(
            "PostWebhookUrl",
            self.post_webhook_url.as_ref().map(Hidden::as_str),
        );
        fields.0
    }
}

/// What is to happen to a first message to `address`.
#[derive(Debug, Clone)]
pub struct NewAddressConfiguration {
    pub kind: AddressKind,
    pub address: PhoneNumber,
    pub friendly_name: Option<Hidden>,
    pub autocreate: bool,
    pub auto_creation_kind: AutoCreationKind,
    pub conversation_service_sid: ServiceSid,
}

impl NewAddressConfiguration {
    pub(super) fn form(&self) -> Form {
        let mut fields = Fields::default();
        fields.set("Type", self.kind.as_str());
        fields.set("Address", self.address.as_str());
        fields.set_some("FriendlyName", self.friendly_name.as_ref().map(Hidden::as_str));
        fields.set("AutoCreation.Enabled", self.autocreate.to_string());
        fields.set("AutoCreation.Type", self.auto_creation_kind.as_str());
        fields.set(
            "AutoCreation.ConversationServiceSid",
            self.conversation_service_sid.as_str(),
        );
        fields.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> PhoneNumber {
        text.parse().unwrap()
    }

    #[test]
    fn participants_of_a_new_conversation_are_json_in_snake_case() {
        let form = NewConversation {
            friendly_name: Some("Home-buying journey".into()),
            ..NewConversation::default()
        }
        .form_with(&[
            Member::Native {
                address: number("+15555550101"),
            }
            .into(),
            Member::Projected {
                identity: "agent-7".parse().unwrap(),
                projected_address: number("+15555550100"),
            }
            .into(),
            Member::Gateway {
                projected_address: number("+15555550102"),
            }
            .into(),
            Member::Chat {
                identity: "agent-8".parse().unwrap(),
            }
            .into(),
        ]);
        assert_eq!(
            form,
            [
                ("FriendlyName", "Home-buying journey".to_owned()),
                (
                    "Participant",
                    r#"{"messaging_binding":{"address":"+15555550101"}}"#.to_owned()
                ),
                (
                    "Participant",
                    r#"{"identity":"agent-7","messaging_binding":{"projected_address":"+15555550100"}}"#
                        .to_owned()
                ),
                (
                    "Participant",
                    r#"{"messaging_binding":{"projected_address":"+15555550102"}}"#.to_owned()
                ),
                ("Participant", r#"{"identity":"agent-8"}"#.to_owned()),
            ]
        );
    }

    #[test]
    fn a_single_participant_is_a_form_in_pascal_case() {
        let form = NewParticipant {
            member: Member::Projected {
                identity: "agent-7".parse().unwrap(),
                projected_address: number("+15555550100"),
            },
            attributes: Some("{}".into()),
            role_sid: None,
        }
        .form();
        assert_eq!(
            form,
            [
                ("Identity", "agent-7".to_owned()),
                ("MessagingBinding.ProjectedAddress", "+15555550100".to_owned()),
                ("Attributes", "{}".to_owned()),
            ]
        );
    }

    #[test]
    fn an_update_of_nothing_sends_nothing() {
        assert_eq!(ConversationUpdate::default().form(), []);
        assert_eq!(ParticipantUpdate::default().form(), []);
        assert_eq!(MessageUpdate::default().form(), []);
    }

    #[test]
    fn timers_are_iso_8601_durations() {
        let form = ConversationUpdate {
            state: Some(ConversationState::Active),
            inactive_after: Some(SignedDuration::from_mins(1)),
            closed_after: Some(SignedDuration::from_hours(36)),
            ..ConversationUpdate::default()
        }
        .form();
        assert_eq!(
            form,
            [
                ("State", "active".to_owned()),
                ("Timers.Inactive", "PT1M".to_owned()),
                ("Timers.Closed", "PT36H".to_owned()),
            ]
        );
    }

    #[test]
    fn filters_repeat_their_key() {
        let form = WebhookConfigurationUpdate {
            filters: vec!["onMessageAdded".to_owned(), "onDeliveryUpdated".to_owned()],
            ..WebhookConfigurationUpdate::default()
        }
        .form();
        assert_eq!(
            form,
            [
                ("Filters", "onMessageAdded".to_owned()),
                ("Filters", "onDeliveryUpdated".to_owned())
            ]
        );
    }
}
