//! Operations on the webhooks of single conversations, which requests and address configuration attach.

use crate::ids::{ConversationSid, ServiceSid, WebhookSid};

use super::refusal::{
    INVALID_PARAMETER, NOT_FOUND, Refusal, Rule, WEBHOOK_FILTER, WEBHOOK_FLOW, WEBHOOK_LIMIT, WEBHOOK_METHOD,
    WEBHOOK_SCOPED_URL, WEBHOOK_TARGET, WEBHOOK_TRIGGERS,
};
use super::webhook::{ConversationWebhook, EventName, Method, Target, checked_url};
use super::{Account, Cause, Effect, event, new_sid};

/// Twilio: at most five webhooks per conversation.
const WEBHOOKS_PER_CONVERSATION: usize = 5;

/// The parameters of a conversation's webhook, as they came.
#[derive(Default)]
pub(crate) struct TargetFields {
    pub(crate) target: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) filters: Option<Vec<String>>,
    pub(crate) triggers: Option<Vec<String>>,
    pub(crate) flow_sid: Option<String>,
    pub(crate) replay_after: Option<String>,
}

impl Account {
    pub(super) fn new_webhook(&mut self, target: Target) -> ConversationWebhook {
        let now = self.now();
        let serial = self.next_serial();
        ConversationWebhook {
            serial,
            sid: new_sid(WebhookSid::PREFIX),
            target,
            created: now,
            updated: now,
        }
    }

    pub(crate) fn add_webhook(
        &mut self,
        service: &ServiceSid,
        key: &str,
        fields: &TargetFields,
    ) -> Result<WebhookSid, Refusal> {
        let conversation = self.conversation(service, key)?;
        let sid = conversation.head.sid.clone();
        if conversation.webhooks.len() >= WEBHOOKS_PER_CONVERSATION {
            return Err(WEBHOOK_LIMIT.refuse());
        }
        let target = new_target(fields)?;
        let replay_after = fields
            .replay_after
            .as_deref()
            .map(|text| {
                text.parse()
                    .map_err(|_| INVALID_PARAMETER.saying("Configuration.ReplayAfter is no index"))
            })
            .transpose()?;
        let webhook = self.new_webhook(target);
        let created = webhook.sid.clone();
        if let Some(after) = replay_after {
            self.replay(&sid, &webhook.target, after);
        }
        self.change_conversation(&sid, |conversation| conversation.webhooks.push(webhook));
        Ok(created)
    }

    /// Sends the messages after an index to a webhook that is new.
    fn replay(&mut self, sid: &ConversationSid, target: &Target, after: u64) {
        let Some(conversation) = self.register.get(sid) else {
            return;
        };
        let name = EventName::MessageAdded;
        for message in conversation
            .messages
            .iter()
            .filter(|message| message.index > after)
        {
            if let Some(hook) = target.hook_for(name, message.body.as_deref()) {
                let cause = Cause::rest(true);
                let event = event::message(&self.sid, name, &conversation.head, message, None, cause);
                self.effects.push(Effect::Send { hook, event });
            }
        }
    }

    pub(crate) fn update_webhook(
        &mut self,
        service: &ServiceSid,
        key: &str,
        webhook: &str,
        fields: &TargetFields,
    ) -> Result<WebhookSid, Refusal> {
        let conversation = self.conversation(service, key)?;
        let sid = conversation.head.sid.clone();
        let found = conversation
            .webhooks
            .iter()
            .find(|one| one.sid.as_str() == webhook);
        let found = found.ok_or_else(|| NOT_FOUND.refuse())?;
        let (found_sid, target) = (found.sid.clone(), changed_target(&found.target, fields)?);
        let now = self.now();
        self.change_conversation(&sid, |conversation| {
            if let Some(place) = conversation.webhooks.iter_mut().find(|one| one.sid == found_sid) {
                place.target = target;
                place.updated = now;
            }
        });
        Ok(found_sid)
    }

    pub(crate) fn remove_webhook(
        &mut self,
        service: &ServiceSid,
        key: &str,
        webhook: &str,
    ) -> Result<(), Refusal> {
        let conversation = self.conversation(service, key)?;
        if !conversation
            .webhooks
            .iter()
            .any(|one| one.sid.as_str() == webhook)
        {
            return Err(NOT_FOUND.refuse());
        }
        let sid = conversation.head.sid.clone();
        self.change_conversation(&sid, |conversation| {
            conversation.webhooks.retain(|one| one.sid.as_str() != webhook);
        });
        Ok(())
    }
}

fn new_target(fields: &TargetFields) -> Result<Target, Refusal> {
    match fields.target.as_deref() {
        Some("webhook") => changed_target(
            &Target::Webhook {
                url: String::new(),
                method: Method::Post,
                filters: Vec::new(),
            },
            fields,
        ),
        Some("trigger") => changed_target(
            &Target::Trigger {
                url: String::new(),
                method: Method::Post,
                triggers: Vec::new(),
            },
            fields,
        ),
        Some("studio") => changed_target(
            &Target::Studio {
                flow_sid: String::new(),
            },
            fields,
        ),
        Some(_) | None => Err(WEBHOOK_TARGET.refuse()),
    }
}

fn changed_target(target: &Target, fields: &TargetFields) -> Result<Target, Refusal> {
    let url = |present: &String| {
        let text = fields.url.clone().unwrap_or_else(|| present.clone());
        checked_url(text, WEBHOOK_SCOPED_URL)?.ok_or_else(|| WEBHOOK_SCOPED_URL.refuse())
    };
    let method = |present: Method| {
        fields
            .method
            .as_deref()
            .map_or(Ok(present), |text| Method::parse(text, WEBHOOK_METHOD))
    };
    match target {
        Target::Webhook {
            url: present,
            method: how,
            filters,
        } => {
            let names = fields.filters.as_deref();
            let filters = names.map_or(Ok(filters.clone()), |names| {
                conversation_filters(names, WEBHOOK_FILTER)
            })?;
            Ok(Target::Webhook {
                url: url(present)?,
                method: method(*how)?,
                filters,
            })
        }
        Target::Trigger {
            url: present,
            method: how,
            triggers,
        } => {
            let triggers = fields.triggers.clone().unwrap_or_else(|| triggers.clone());
            if triggers.iter().all(String::is_empty) {
                return Err(WEBHOOK_TRIGGERS.refuse());
            }
            Ok(Target::Trigger {
                url: url(present)?,
                method: method(*how)?,
                triggers,
            })
        }
        Target::Studio { flow_sid } => {
            let flow_sid = fields.flow_sid.clone().unwrap_or_else(|| flow_sid.clone());
            if is_flow_sid(&flow_sid) {
                Ok(Target::Studio { flow_sid })
            } else {
                Err(WEBHOOK_FLOW.refuse())
            }
        }
    }
}

pub(super) fn conversation_filters(names: &[String], rule: Rule) -> Result<Vec<EventName>, Refusal> {
    let names = names.iter().filter(|name| !name.is_empty());
    names
        .map(|name| {
            EventName::parse(name)
                .filter(|name| name.fits_one_conversation())
                .ok_or_else(|| rule.refuse())
        })
        .collect()
}

pub(super) fn is_flow_sid(text: &str) -> bool {
    text.strip_prefix("FW")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
