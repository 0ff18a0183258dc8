//! What a webhook says and where it goes: events, their names, and the configurations that want them.
//!
//! The texts of the events are built in [`super::event`]; sending them is not done here.

use crate::ids::{ConversationSid, MessageSid, ServiceSid, WebhookSid};
use jiff::Timestamp;

use super::refusal::{Refusal, Rule, WEBHOOK_METHOD};

macro_rules! event_names {
    ($($variant:ident = $name:literal,)*) => {
        /// The events of "Conversations Webhooks".
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum EventName { $($variant,)* }

        impl EventName {
            pub(crate) const ALL: &'static [EventName] = &[$(EventName::$variant,)*];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

event_names! {
    ConversationAdd = "onConversationAdd",
    ConversationAdded = "onConversationAdded",
    ConversationUpdate = "onConversationUpdate",
    ConversationUpdated = "onConversationUpdated",
    ConversationRemove = "onConversationRemove",
    ConversationRemoved = "onConversationRemoved",
    ConversationStateUpdated = "onConversationStateUpdated",
    MessageAdd = "onMessageAdd",
    MessageAdded = "onMessageAdded",
    MessageUpdate = "onMessageUpdate",
    MessageUpdated = "onMessageUpdated",
    MessageRemove = "onMessageRemove",
    MessageRemoved = "onMessageRemoved",
    ParticipantAdd = "onParticipantAdd",
    ParticipantAdded = "onParticipantAdded",
    ParticipantUpdate = "onParticipantUpdate",
    ParticipantUpdated = "onParticipantUpdated",
    ParticipantRemove = "onParticipantRemove",
    ParticipantRemoved = "onParticipantRemoved",
    UserAdded = "onUserAdded",
    UserUpdate = "onUserUpdate",
    UserUpdated = "onUserUpdated",
    DeliveryUpdated = "onDeliveryUpdated",
}

impl EventName {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|name| name.as_str() == text)
    }

    /// Whether the event asks for permission before the change, and goes to `PreWebhookUrl`.
    pub(crate) fn is_pre(self) -> bool {
        matches!(
            self,
            Self::ConversationAdd
                | Self::ConversationUpdate
                | Self::ConversationRemove
                | Self::MessageAdd
                | Self::MessageUpdate
                | Self::MessageRemove
                | Self::ParticipantAdd
                | Self::ParticipantUpdate
                | Self::ParticipantRemove
                | Self::UserUpdate
        )
    }

    /// Whether a webhook of one conversation can ask for it (Twilio: address configuration, `WebhookFilters`).
    pub(crate) fn fits_one_conversation(self) -> bool {
        !self.is_pre()
            && !matches!(
                self,
                Self::ConversationAdded | Self::UserAdded | Self::UserUpdated
            )
    }
}

/// One event, ready to be signed and sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: EventName,
    pub(crate) service: ServiceSid,
    /// None for events of users.
    pub(crate) conversation: Option<ConversationSid>,
    /// The message that the event is about: it decides whether a `trigger` webhook fires.
    pub(crate) message: Option<MessageSid>,
    /// The form's fields in their order, without `RetryCount`.
    pub(crate) params: Vec<(String, String)>,
}

/// How a webhook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Method {
    Get,
    #[default]
    Post,
}

impl Method {
    pub(crate) fn parse(text: &str, rule: Rule) -> Result<Self, Refusal> {
        match text.to_ascii_uppercase().as_str() {
            "GET" => Ok(Self::Get),
            "POST" => Ok(Self::Post),
            _ => Err(rule.refuse()),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// Where one event is sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hook {
    /// As configured, fragment included.
    pub(crate) url: String,
    pub(crate) method: Method,
}

/// The webhook configuration of the account or of one service.
#[derive(Clone, Default)]
pub(crate) struct ScopeWebhook {
    pub(crate) pre_url: Option<String>,
    pub(crate) post_url: Option<String>,
    pub(crate) method: Method,
    pub(crate) filters: Vec<String>,
    /// Account scope only: `flex` takes the events away from the URL.
    pub(crate) to_flex: bool,
}

/// Fields of a configuration request; absent ones leave the value as it is, empty URLs remove it.
#[derive(Default)]
pub(crate) struct ScopeWebhookChange {
    pub(crate) pre_url: Option<String>,
    pub(crate) post_url: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) filters: Option<Vec<String>>,
    pub(crate) target: Option<String>,
}

impl ScopeWebhook {
    pub(crate) fn is_set(&self) -> bool {
        self.pre_url.is_some() || self.post_url.is_some()
    }

    pub(crate) fn change(&mut self, change: ScopeWebhookChange) -> Result<(), Refusal> {
        use super::refusal::{INVALID_PARAMETER, WEBHOOK_URL};

        let mut next = self.clone();
        if let Some(method) = change.method {
            next.method = Method::parse(&method, WEBHOOK_METHOD)?;
        }
        if let Some(filters) = change.filters {
            let filters: Vec<String> = filters.into_iter().filter(|name| !name.is_empty()).collect();
            if filters.iter().any(|name| EventName::parse(name).is_none()) {
                return Err(INVALID_PARAMETER.saying("Filters holds a name that is no event"));
            }
            next.filters = filters;
        }
        if let Some(url) = change.pre_url {
            next.pre_url = checked_url(url, WEBHOOK_URL)?;
        }
        if let Some(url) = change.post_url {
            next.post_url = checked_url(url, WEBHOOK_URL)?;
        }
        if let Some(target) = change.target {
            next.to_flex = match target.as_str() {
                "webhook" => false,
                "flex" => true,
                _ => return Err(INVALID_PARAMETER.saying("Target must be webhook or flex")),
            };
        }
        *self = next;
        Ok(())
    }

    /// Where this configuration wants `event` sent. No filter that names it means nowhere.
    pub(crate) fn hook_for(&self, event: EventName) -> Option<Hook> {
        let url = if event.is_pre() {
            &self.pre_url
        } else {
            &self.post_url
        };
        let wanted = !self.to_flex && self.filters.iter().any(|filter| filter == event.as_str());
        url.clone().filter(|_| wanted).map(|url| Hook {
            url,
            method: self.method,
        })
    }
}

/// An http or https URL, or none where the text is empty.
pub(crate) fn checked_url(text: String, rule: Rule) -> Result<Option<String>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = url::Url::parse(&text).map_err(|_| rule.refuse())?;
    if matches!(url.scheme(), "http" | "https") && url.host().is_some() {
        Ok(Some(text))
    } else {
        Err(rule.refuse())
    }
}

/// A webhook that belongs to one conversation.
#[derive(Clone)]
pub(crate) struct ConversationWebhook {
    pub(crate) serial: u64,
    pub(crate) sid: WebhookSid,
    pub(crate) target: Target,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

/// What a conversation's webhook calls.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Webhook {
        url: String,
        method: Method,
        filters: Vec<EventName>,
    },
    /// Called for messages that hold one of the words, whatever their case.
    Trigger {
        url: String,
        method: Method,
        triggers: Vec<String>,
    },
    /// A flow of Twilio Studio, which is not emulated: configured, shown, never run.
    Studio { flow_sid: String },
}

impl Target {
    pub(crate) fn hook_for(&self, event: EventName, body: Option<&str>) -> Option<Hook> {
        match self {
            Self::Webhook { url, method, filters } => filters.contains(&event).then(|| Hook {
                url: url.clone(),
                method: *method,
            }),
            Self::Trigger {
                url,
                method,
                triggers,
            } => {
                let body = body.filter(|_| event == EventName::MessageAdded)?.to_lowercase();
                let called = triggers.iter().any(|word| body.contains(&word.to_lowercase()));
                called.then(|| Hook {
                    url: url.clone(),
                    method: *method,
                })
            }
            Self::Studio { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(filters: &[&str]) -> ScopeWebhook {
        let mut webhook = ScopeWebhook::default();
        webhook
            .change(ScopeWebhookChange {
                post_url: Some("http://127.0.0.1/post".to_owned()),
                filters: Some(filters.iter().map(|&name| name.to_owned()).collect()),
                ..ScopeWebhookChange::default()
            })
            .unwrap();
        webhook
    }

    #[test]
    fn an_event_that_no_filter_names_goes_nowhere() {
        let webhook = configured(&["onMessageAdded"]);
        assert!(webhook.hook_for(EventName::MessageAdded).is_some());
        assert!(webhook.hook_for(EventName::MessageUpdated).is_none());
        assert!(configured(&[]).hook_for(EventName::MessageAdded).is_none());
    }

    #[test]
    fn a_pre_action_event_goes_to_the_pre_webhook_url_only() {
        let webhook = configured(&["onMessageAdd"]);
        assert!(webhook.hook_for(EventName::MessageAdd).is_none());
    }

    #[test]
    fn a_change_with_one_wrong_field_changes_nothing() {
        let mut webhook = configured(&["onMessageAdded"]);
        let refused = webhook.change(ScopeWebhookChange {
            filters: Some(vec!["onMessageUpdated".to_owned()]),
            post_url: Some("ftp://127.0.0.1/".to_owned()),
            ..ScopeWebhookChange::default()
        });
        assert_eq!(refused.unwrap_err().code, 50054);
        assert_eq!(webhook.filters, ["onMessageAdded"]);
    }

    #[test]
    fn a_trigger_fires_for_a_message_with_its_word_in_any_case() {
        let target = Target::Trigger {
            url: "http://127.0.0.1/".to_owned(),
            method: Method::Get,
            triggers: vec!["Help".to_owned()],
        };
        assert!(
            target
                .hook_for(EventName::MessageAdded, Some("please HELP me"))
                .is_some()
        );
        assert!(
            target
                .hook_for(EventName::MessageAdded, Some("all is well"))
                .is_none()
        );
        assert!(target.hook_for(EventName::MessageUpdated, Some("help")).is_none());
    }
}
