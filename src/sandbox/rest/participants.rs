//! `/Conversations/{CH}/Participants`, by SID or by identity.

use axum::extract::State;
use serde_json::{Value, json};

use super::call::{Call, Urls};
use super::page::{Order, Sizes, page};
use super::{Reply, Shared, created, no_content, ok};
use crate::ids::ConversationSid;
use crate::sandbox::model::Account;
use crate::sandbox::model::address::{Binding, Shape};
use crate::sandbox::model::conversation::Participant;
use crate::sandbox::model::participants::{NewParticipant, ParticipantChange};
use crate::sandbox::model::refusal::NOT_FOUND;
use crate::sandbox::model::time::with_seconds;
use crate::sandbox::model::webhook::EventName;

pub(super) async fn list(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let found = account.conversation(&call.service, call.conversation())?;
        let all: Vec<(u64, &Participant)> = found.participants.iter().map(|one| (one.serial, one)).collect();
        let render = |one: &&Participant| render(&call.urls, account.sid.as_str(), &found.head.sid, one);
        page(
            &call,
            "participants",
            Sizes::HUNDRED,
            Order::Ascending,
            &all,
            render,
        )
        .map(ok)
    })
}

pub(super) async fn create(State(world): Shared, call: Call) -> Reply {
    let form = &call.form;
    let mut new = NewParticipant {
        shape: Shape {
            identity: form.get("Identity"),
            address: form.get("MessagingBinding.Address"),
            proxy_address: form.get("MessagingBinding.ProxyAddress"),
            projected_address: form.get("MessagingBinding.ProjectedAddress"),
        },
        attributes: form.get("Attributes"),
        role: form.get("RoleSid"),
        dates: form.dates(),
    };
    if call.is_told() {
        let ask = |account: &Account, new: &NewParticipant| {
            account.ask_add_participant(&call.service, call.conversation(), new, call.cause())
        };
        world
            .permit(&call.service, EventName::ParticipantAdd, &mut new, ask, |_, _| ())
            .await?;
    }
    call.act(&world, |account| {
        let sid = account.add_participant(&call.service, call.conversation(), &new, call.cause())?;
        show(account, &call, sid.as_str()).map(created)
    })
}

pub(super) async fn fetch(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        show(account, &call, call.segment("participant")).map(ok)
    })
}

pub(super) async fn update(State(world): Shared, call: Call) -> Reply {
    let form = &call.form;
    let mut change = ParticipantChange {
        identity: form.get("Identity"),
        proxy_address: form.get("MessagingBinding.ProxyAddress"),
        projected_address: form.get("MessagingBinding.ProjectedAddress"),
        attributes: form.get("Attributes"),
        role: form.get("RoleSid"),
        last_read_index: form.get("LastReadMessageIndex"),
        last_read_at: form.get("LastReadTimestamp"),
        dates: form.dates(),
    };
    let (conversation, key) = (call.conversation(), call.segment("participant"));
    if call.is_told() {
        let ask = |account: &Account, change: &ParticipantChange| {
            account.ask_update_participant(&call.service, conversation, key, change, call.cause())
        };
        world
            .permit(
                &call.service,
                EventName::ParticipantUpdate,
                &mut change,
                ask,
                |_, _| (),
            )
            .await?;
    }
    call.act(&world, |account| {
        let sid = account.update_participant(&call.service, conversation, key, &change, call.cause())?;
        show(account, &call, sid.as_str()).map(ok)
    })
}

pub(super) async fn remove(State(world): Shared, call: Call) -> Reply {
    let (conversation, key) = (call.conversation(), call.segment("participant"));
    if call.is_told() {
        let ask = |account: &Account, (): &()| {
            account.ask_remove_participant(&call.service, conversation, key, call.cause())
        };
        world
            .permit(
                &call.service,
                EventName::ParticipantRemove,
                &mut (),
                ask,
                |(), _| (),
            )
            .await?;
    }
    call.act(&world, |account| {
        account.remove_participant(&call.service, conversation, key, call.cause())?;
        Ok(no_content())
    })
}

fn show(account: &Account, call: &Call, key: &str) -> Result<Value, crate::sandbox::model::refusal::Refusal> {
    let found = account.conversation(&call.service, call.conversation())?;
    let participant = found.participant(key).ok_or_else(|| NOT_FOUND.refuse())?;
    Ok(render(
        &call.urls,
        account.sid.as_str(),
        &found.head.sid,
        participant,
    ))
}

fn render(urls: &Urls, account_sid: &str, conversation: &ConversationSid, one: &Participant) -> Value {
    urls.stamp(json!({
        "sid": one.sid,
        "account_sid": account_sid,
        "conversation_sid": conversation,
        "identity": one.identity,
        "attributes": one.attributes,
        "messaging_binding": binding(&one.binding),
        "role_sid": one.role,
        "date_created": with_seconds(one.created),
        "date_updated": with_seconds(one.updated),
        "last_read_message_index": one.last_read_index,
        "last_read_timestamp": one.last_read_at.map(with_seconds),
        "url": format!("{}/Conversations/{conversation}/Participants/{}", urls.base, one.sid),
    }))
}

/// Null for a chat participant; the keys that do not apply are missing.
pub(super) fn binding(binding: &Binding) -> Value {
    match binding {
        Binding::Chat => Value::Null,
        Binding::Native(address) => json!({"type": "sms", "address": address}),
        Binding::Proxied { address, proxy } => {
            json!({"type": "sms", "address": address, "proxy_address": proxy})
        }
        Binding::Projected(address) => json!({"type": "sms", "projected_address": address}),
    }
}
