//! The emulated account: what Twilio would keep, and the rules by which it lets that change.
//!
//! Pure: no network, no task, no waiting. An operation checks, changes and leaves [`Effect`]s behind, which say what
//! has to happen outside: a webhook to send, a conversation to go on setting up, a carrier to hand a message to.
//!
//! Reading order: [`address`] and [`group`] are the rules of group texting; [`conversation`] is the data;
//! [`conversations`], [`setup`], [`participants`], [`messages`], [`carrier`] and [`inbound`] are the operations.
//! [`refusal`] is the list of error codes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Clock;
use crate::ids::{AccountSid, ConversationSid, MessageSid, MessagingServiceSid, PhoneNumber, ServiceSid};

use self::autocreation::AddressConfiguration;
use self::conversation::Conversation;
use self::handset::Text;
use self::refusal::{ATTRIBUTES_NOT_JSON, ATTRIBUTES_TOO_LONG, INVALID_PARAMETER, NOT_FOUND, Refusal};
use self::register::Register;
use self::service::Service;
use self::uploads::Uploads;
use self::webhook::{Event, EventName, Hook, ScopeWebhook};

pub(crate) mod address;
pub(crate) mod autocreation;
pub(crate) mod carrier;
pub(crate) mod conversation;
pub(crate) mod conversation_webhooks;
pub(crate) mod conversations;
pub(crate) mod event;
pub(crate) mod group;
pub(crate) mod handset;
pub(crate) mod inbound;
pub(crate) mod messages;
pub(crate) mod participants;
pub(crate) mod refusal;
mod register;
pub(crate) mod service;
pub(crate) mod setup;
#[cfg(test)]
mod tests;
pub(crate) mod time;
pub(crate) mod uploads;
pub(crate) mod webhook;

/// What happens to `Identity=B` on a projected participant that has the identity A. Twilio's own pages contradict
/// each other, so both can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum IdentityReplacement {
    /// "Group Texting in Conversations": the identity behind a projected address is updated as needed.
    #[default]
    Update,
    /// Error 50444: an identity cannot be added where one is assigned already.
    Refuse,
}

/// What set a change off: it decides `Source`, and whether webhooks tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) source: Source,
    /// REST writes are silent unless they carry `X-Twilio-Webhook-Enabled: true`.
    pub(crate) told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Api,
    Sms,
}

impl Source {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Api => "API",
            Self::Sms => "SMS",
        }
    }
}

impl Cause {
    pub(crate) const INBOUND: Self = Self {
        source: Source::Sms,
        told: true,
    };
    /// Twilio names no source for its timers; the captured state changes all say `API`.
    pub(crate) const TIMER: Self = Self {
        source: Source::Api,
        told: true,
    };

    pub(crate) fn rest(told: bool) -> Self {
        Self {
            source: Source::Api,
            told,
        }
    }
}

/// What is to be done outside the model because of a change in it.
pub(crate) enum Effect {
    Send {
        hook: Hook,
        event: Event,
    },
    /// Go on with [`Account::set_up_next`] after a while.
    SetUp(ConversationSid),
    /// Go on with [`Account::carry_next`] after a while.
    Carry {
        conversation: ConversationSid,
        message: MessageSid,
    },
}

/// Account-wide defaults: `/v1/Configuration`.
pub(crate) struct Configuration {
    pub(crate) service: ServiceSid,
    pub(crate) messaging_service: MessagingServiceSid,
    pub(crate) inactive_timer: Option<String>,
    pub(crate) closed_timer: Option<String>,
}

pub(crate) struct Account {
    pub(crate) sid: AccountSid,
    pub(crate) clock: Clock,
    pub(crate) configuration: Configuration,
    pub(crate) replacement: IdentityReplacement,
    /// The numbers that the account owns; all of them belong to its messaging service.
    pub(crate) numbers: BTreeSet<PhoneNumber>,
    pub(crate) messaging_services: BTreeSet<MessagingServiceSid>,
    /// Account-global webhook configuration.
    pub(crate) webhook: ScopeWebhook,
    pub(crate) services: BTreeMap<u64, Service>,
    pub(crate) register: Register,
    pub(crate) addresses: Vec<AddressConfiguration>,
    /// Media that was uploaded, until a message takes it.
    pub(crate) uploads: Uploads,
    pub(crate) handsets: HashMap<PhoneNumber, Vec<Text>>,
    pub(crate) opted_out: HashSet<PhoneNumber>,
    /// How many of the next conversations with participants are to fail while they are set up.
    pub(crate) failing_setups: u32,
    serial: u64,
    effects: Vec<Effect>,
}

impl Account {
    pub(crate) fn new(
        clock: Clock,
        sid: AccountSid,
        service: ServiceSid,
        messaging_service: MessagingServiceSid,
        numbers: impl IntoIterator<Item = PhoneNumber>,
        replacement: IdentityReplacement,
    ) -> Self {
        let mut account = Self {
            sid,
            clock,
            configuration: Configuration {
                service: service.clone(),
                messaging_service: messaging_service.clone(),
                inactive_timer: None,
                closed_timer: None,
            },
            replacement,
            numbers: numbers.into_iter().collect(),
            messaging_services: BTreeSet::from([messaging_service]),
            webhook: ScopeWebhook::default(),
            services: BTreeMap::new(),
            register: Register::default(),
            addresses: Vec::new(),
            uploads: Uploads::default(),
            handsets: HashMap::new(),
            opted_out: HashSet::new(),
            failing_setups: 0,
            serial: 0,
            effects: Vec::new(),
        };
        account.open_service(service, "Default Conversations Service".to_owned());
        account
    }

    /// What has to happen outside because of all changes since the last call, in order.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Numbers everything in the order of its creation; lists are sorted and paged by it.
    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn service(&self, sid: &ServiceSid) -> Result<&Service, Refusal> {
        self.services
            .values()
            .find(|service| service.sid == *sid)
            .ok_or_else(|| NOT_FOUND.refuse())
    }

    fn service_mut(&mut self, sid: &ServiceSid) -> Result<&mut Service, Refusal> {
        self.services
            .values_mut()
            .find(|service| service.sid == *sid)
            .ok_or_else(|| NOT_FOUND.refuse())
    }

    /// A conversation of `service`, by SID or unique name.
    pub(crate) fn conversation(&self, service: &ServiceSid, key: &str) -> Result<&Conversation, Refusal> {
        self.register.find(service, key).ok_or_else(|| NOT_FOUND.refuse())
    }

    fn change_conversation<T>(
        &mut self,
        sid: &ConversationSid,
        change: impl FnOnce(&mut Conversation) -> T,
    ) -> T {
        self.register
            .change(sid, change)
            .expect("found under the same lock")
    }

    /// Where a pre-action event of `service` would go.
    pub(crate) fn pre_hook(&self, service: &ServiceSid, event: EventName) -> Option<Hook> {
        self.scope_for(service).hook_for(event)
    }

    /// Sends a post-action event to all who want it, unless the change is a silent one.
    fn tell(&mut self, event: &Event, cause: Cause) {
        if !cause.told {
            return;
        }
        let scope = self.scope_for(&event.service).hook_for(event.name);
        let hooks: Vec<Hook> = scope.into_iter().chain(self.conversation_hooks(event)).collect();
        for hook in hooks {
            self.effects.push(Effect::Send {
                hook,
                event: event.clone(),
            });
        }
    }

    /// Once a service has a webhook of its own, the account's stays silent for it. Twilio does not say so; it was
    /// measured.
    fn scope_for(&self, service: &ServiceSid) -> &ScopeWebhook {
        match self.service(service) {
            Ok(service) if service.webhook.is_set() => &service.webhook,
            _ => &self.webhook,
        }
    }

    /// The webhooks of the conversation itself, which fire beside the wider scopes.
    fn conversation_hooks(&self, event: &Event) -> Vec<Hook> {
        let Some(conversation) = event.conversation.as_ref().and_then(|sid| self.register.get(sid)) else {
            return Vec::new();
        };
        if conversation.webhooks.is_empty() {
            return Vec::new();
        }
        let message = event
            .message
            .as_ref()
            .and_then(|sid| conversation.message(sid.as_str()));
        let body = message.and_then(|message| message.body.as_deref());
        conversation
            .webhooks
            .iter()
            .filter_map(|webhook| webhook.target.hook_for(event.name, body))
            .collect()
    }
}

/// A new SID of the kind `T`.
fn new_sid<T: for<'a> TryFrom<&'a str>>(prefix: &str) -> T {
    let text = format!("{prefix}{}", Uuid::new_v4().simple());
    T::try_from(&text).unwrap_or_else(|_| unreachable!("two letters and 32 hexadecimal digits are a SID"))
}

/// `Attributes`: JSON text of at most `limit` bytes; `{}` where there is none.
fn checked_attributes(text: Option<&str>, limit: usize) -> Result<Option<String>, Refusal> {
    let Some(text) = text else {
        return Ok(None);
    };
    if text.len() > limit {
        return Err(ATTRIBUTES_TOO_LONG.refuse());
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| ATTRIBUTES_NOT_JSON.refuse())?;
    Ok(Some(text.to_owned()))
}

/// A name of at most 256 characters; an empty text removes it.
fn checked_name(parameter: &str, text: &str) -> Result<Option<String>, Refusal> {
    if text.chars().count() > 256 {
        return Err(INVALID_PARAMETER.saying(format!("{parameter} is longer than 256 characters")));
    }
    Ok(Some(text.to_owned()).filter(|name| !name.is_empty()))
}

/// `DateCreated` and `DateUpdated`, which imports may set.
#[derive(Clone, Default)]
pub(crate) struct Dates {
    pub(crate) created: Option<String>,
    pub(crate) updated: Option<String>,
}

impl Dates {
    fn created(&self) -> Result<Option<Timestamp>, Refusal> {
        self.created
            .as_deref()
            .map(|text| time::parse("DateCreated", text))
            .transpose()
    }

    fn updated(&self) -> Result<Option<Timestamp>, Refusal> {
        self.updated
            .as_deref()
            .map(|text| time::parse("DateUpdated", text))
            .transpose()
    }
}

const INACTIVE_TIMER_MIN: SignedDuration = SignedDuration::from_mins(1);
const CLOSED_TIMER_MIN: SignedDuration = SignedDuration::from_mins(10);
