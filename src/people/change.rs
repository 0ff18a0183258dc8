//! What the log says of a change.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::events::{Kind, NewEvent};
use crate::people::{Actor, Agent, Team};

/// An agent was added or changed.
pub(super) fn of_agent(before: Option<&Agent>, after: &Agent, by: &Actor, now: Timestamp) -> NewEvent {
    let data = json!({
        "identity": after.identity,
        "change": if before.is_some() { "changed" } else { "added" },
        "version": after.version,
        "changes": differences(before.map(|agent| &agent.profile), &after.profile),
    });
    entry(Kind::AgentChanged, after.identity.as_str(), data, by, now)
}

/// A team was added or changed.
pub(super) fn of_team(before: Option<&Team>, after: &Team, by: &Actor, now: Timestamp) -> NewEvent {
    let data = json!({
        "team_id": after.team_id,
        "change": if before.is_some() { "changed" } else { "added" },
        "version": after.version,
        "changes": differences(before.map(|team| &team.plan), &after.plan),
    });
    entry(Kind::TeamChanged, after.team_id.as_str(), data, by, now)
}

pub(super) fn entry(kind: Kind, subject: &str, data: Value, by: &Actor, now: Timestamp) -> NewEvent {
    NewEvent {
        kind,
        account_sid: None,
        conversation_sid: None,
        subject: subject.to_owned(),
        actor: Some(by.name.clone()),
        via: by.via,
        cause: by.cause.clone(),
        occurred_at: now,
        recorded_at: now,
        data,
    }
}

/// The members that differ, each with what it was and what it is; of something new, those that say something.
pub fn differences<T: Serialize>(before: Option<&T>, after: &T) -> Value {
    let members = |value: Option<&T>| match value.map(serde_json::to_value) {
        Some(Ok(Value::Object(members))) => members,
        _ => Map::new(),
    };
    let (before, after) = (members(before), members(Some(after)));
    let mut found = Map::new();
    for (name, to) in after {
        let from = before.get(&name).cloned().unwrap_or(Value::Null);
        let says_nothing = match &to {
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            _ => false,
        };
        if from != to && !(from.is_null() && says_nothing) {
            found.insert(name, json!({ "from": from, "to": to }));
        }
    }
    Value::Object(found)
}
