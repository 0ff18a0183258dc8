//! What the log says of escalations and policies. Never what somebody wrote.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::escalation::store::watch::Key;
use crate::events::{Kind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid};

/// Which escalation an entry is about.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) escalation_id: Uuid,
    pub(super) account_sid: String,
    pub(super) key: Key,
    pub(super) policy_id: String,
    pub(super) policy_version: i64,
    pub(super) rule: String,
    pub(super) cause: String,
}

impl About {
    pub(super) fn of(one: &crate::escalation::Escalation) -> Self {
        Self {
            escalation_id: one.escalation_id,
            account_sid: one.account_sid.clone(),
            key: Key {
                conversation_sid: one.conversation_sid.as_str().to_owned(),
                line: one.line.as_str().to_owned(),
            },
            policy_id: one.policy_id.to_string(),
            policy_version: one.policy_version,
            rule: one.rule.clone(),
            cause: one.cause.clone(),
        }
    }

    /// An entry with facts of its kind.
    pub(super) fn entry(
        &self,
        kind: Kind,
        (actor, via): (&str, Via),
        facts: Value,
        now: Timestamp,
    ) -> NewEvent {
        let mut data = json!({
            "escalation_id": self.escalation_id,
            "line": self.key.line,
            "policy_id": self.policy_id,
            "policy_version": self.policy_version,
            "rule": self.rule,
            "because": self.cause,
        });
        if let (Some(data), Value::Object(facts)) = (data.as_object_mut(), facts) {
            data.extend(facts);
        }
        NewEvent {
            kind,
            account_sid: AccountSid::try_from(self.account_sid.as_str()).ok(),
            conversation_sid: ConversationSid::try_from(self.key.conversation_sid.as_str()).ok(),
            subject: self.escalation_id.to_string(),
            actor: Some(actor.to_owned()),
            via,
            cause: None,
            occurred_at: now,
            recorded_at: now,
            data,
        }
    }
}

/// Who does what a policy says.
pub(super) const POLICY: (&str, Via) = ("hookswitch", Via::Timer);
