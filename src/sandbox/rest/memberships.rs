//! `/ParticipantConversations` and `/Users/{US}/Conversations`: who is in which conversations.

use axum::extract::State;
use serde_json::{Value, json};

use super::call::{Call, Urls};
use super::conversations::timers;
use super::page::{Order, Sizes, page};
use super::participants::binding;
use super::{Reply, Shared, ok};
use crate::sandbox::model::Account;
use crate::sandbox::model::address::Binding;
use crate::sandbox::model::conversation::{Conversation, Participant, State as ConversationState};
use crate::sandbox::model::refusal::{IDENTITY_AND_ADDRESS, INVALID_PARAMETER, NOT_FOUND};
use crate::sandbox::model::service::User;
use crate::sandbox::model::time::with_seconds;

type Membership<'a> = (&'a Conversation, &'a Participant);

/// By `Identity` or by `Address`, not both. Conversations that are still being set up are not shown: the resource's
/// states do not know them.
pub(super) async fn list(State(world): Shared, call: Call) -> Reply {
    let (identity, address) = (call.query.get("Identity"), call.query.get("Address"));
    match (&identity, &address) {
        (Some(_), Some(_)) => return Err(IDENTITY_AND_ADDRESS.refuse()),
        (None, None) => return Err(INVALID_PARAMETER.saying("Identity or Address is required")),
        _ => {}
    }
    let is_asked_for = |participant: &Participant| {
        let handset = participant.binding.handset().map(crate::ids::PhoneNumber::as_str);
        identity
            .as_deref()
            .is_some_and(|identity| participant.identity.as_deref() == Some(identity))
            || address.as_deref().is_some_and(|address| handset == Some(address))
    };
    call.act(&world, |account| {
        let rows = memberships(account, &call, is_asked_for);
        let render = |row: &Membership<'_>| render(account, &call.urls, row);
        page(
            &call,
            "conversations",
            Sizes::FIFTY,
            Order::Ascending,
            &rows,
            render,
        )
        .map(ok)
    })
}

fn memberships<'a>(
    account: &'a Account,
    call: &Call,
    is_asked_for: impl Fn(&Participant) -> bool,
) -> Vec<(u64, Membership<'a>)> {
    let conversations = account.register.iter().filter(|found| {
        found.head.service == call.service && found.head.state != ConversationState::Initializing
    });
    conversations
        .filter_map(|found| {
            let participant = found
                .participants
                .iter()
                .find(|participant| is_asked_for(participant))?;
            Some((found.head.serial, (found, participant)))
        })
        .collect()
}

fn render(account: &Account, urls: &Urls, (conversation, participant): &Membership<'_>) -> Value {
    let head = &conversation.head;
    let user = participant
        .identity
        .as_deref()
        .and_then(|identity| account.service(&head.service).ok()?.user(identity));
    json!({
        "account_sid": account.sid,
        "chat_service_sid": head.service,
        "participant_sid": participant.sid,
        "participant_user_sid": user.map(|user| &user.sid),
        "participant_identity": participant.identity,
        "participant_messaging_binding": full_binding(&participant.binding),
        "conversation_sid": head.sid,
        "conversation_unique_name": head.unique_name,
        "conversation_friendly_name": head.friendly_name,
        "conversation_attributes": head.attributes,
        "conversation_date_created": with_seconds(head.created),
        "conversation_date_updated": with_seconds(head.updated),
        "conversation_created_by": head.created_by,
        "conversation_state": head.state.as_str(),
        "conversation_timers": timers(head),
        "links": {
            "participant": format!("{}/Conversations/{}/Participants/{}", urls.base, head.sid, participant.sid),
            "conversation": format!("{}/Conversations/{}", urls.base, head.sid),
        },
    })
}

/// Unlike in the participant resource, every key is there.
fn full_binding(of: &Binding) -> Value {
    let mut value = binding(of);
    if let Some(object) = value.as_object_mut() {
        for key in ["address", "proxy_address", "projected_address", "level", "name"] {
            object.entry(key).or_insert(Value::Null);
        }
    }
    value
}

pub(super) async fn list_of_user(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let user = account
            .service(&call.service)?
            .user(call.segment("user"))
            .ok_or_else(|| NOT_FOUND.refuse())?;
        let rows = memberships(account, &call, |one| {
            one.identity.as_deref() == Some(user.identity.as_str())
        });
        let render = |row: &Membership<'_>| render_of_user(account, &call.urls, user, row);
        page(
            &call,
            "conversations",
            Sizes::FIFTY,
            Order::Ascending,
            &rows,
            render,
        )
        .map(ok)
    })
}

pub(super) async fn fetch_of_user(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let user = account
            .service(&call.service)?
            .user(call.segment("user"))
            .ok_or_else(|| NOT_FOUND.refuse())?;
        let found = account.conversation(&call.service, call.conversation())?;
        let participant = found
            .participant(&user.identity)
            .ok_or_else(|| NOT_FOUND.refuse())?;
        Ok(ok(render_of_user(
            account,
            &call.urls,
            user,
            &(found, participant),
        )))
    })
}

fn render_of_user(
    account: &Account,
    urls: &Urls,
    user: &User,
    (conversation, participant): &Membership<'_>,
) -> Value {
    let head = &conversation.head;
    let read = participant.last_read_index;
    let unread = conversation
        .messages
        .iter()
        .filter(|message| read.is_none_or(|read| message.index > read))
        .count();
    json!({
        "account_sid": account.sid,
        "chat_service_sid": head.service,
        "conversation_sid": head.sid,
        "unread_messages_count": read.map(|_| unread),
        "last_read_message_index": read,
        "participant_sid": participant.sid,
        "user_sid": user.sid,
        "friendly_name": head.friendly_name,
        "unique_name": head.unique_name,
        "conversation_state": head.state.as_str(),
        "timers": timers(head),
        "attributes": head.attributes,
        "date_created": with_seconds(head.created),
        "date_updated": with_seconds(head.updated),
        "created_by": head.created_by,
        "notification_level": "default",
        "url": format!("{}/Users/{}/Conversations/{}", urls.base, user.sid, head.sid),
        "links": {
            "participant": format!("{}/Conversations/{}/Participants/{}", urls.base, head.sid, participant.sid),
            "conversation": format!("{}/Conversations/{}", urls.base, head.sid),
        },
    })
}
