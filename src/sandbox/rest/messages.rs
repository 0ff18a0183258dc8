//! `/Conversations/{CH}/Messages` and their `/Receipts`.

use axum::extract::State;
use serde_json::{Value, json};

use super::call::{Call, Fields, Urls};
use super::page::{Order, Sizes, page};
use super::{Reply, Shared, created, no_content, ok};
use crate::ids::ConversationSid;
use crate::sandbox::model::Account;
use crate::sandbox::model::conversation::{Media, Message, Receipt, ReceiptStatus};
use crate::sandbox::model::messages::MessageFields;
use crate::sandbox::model::refusal::{INVALID_PARAMETER, NOT_FOUND, Refusal};
use crate::sandbox::model::time::with_seconds;
use crate::sandbox::model::webhook::EventName;
use crate::sandbox::sender::Revision;

pub(super) async fn list(State(world): Shared, call: Call) -> Reply {
    let order = match call.query.get("Order").as_deref() {
        None | Some("asc") => Order::Ascending,
        Some("desc") => Order::Descending,
        Some(_) => return Err(INVALID_PARAMETER.saying("Order must be asc or desc")),
    };
    call.act(&world, |account| {
        let found = account.conversation(&call.service, call.conversation())?;
        let mut all: Vec<(u64, &Message)> = found.messages.iter().map(|one| (one.index, one)).collect();
        if order == Order::Descending {
            all.reverse();
        }
        let render = |one: &&Message| render(&call.urls, account.sid.as_str(), &found.head.sid, one);
        page(&call, "messages", Sizes::HUNDRED, order, &all, render).map(ok)
    })
}

fn fields(form: &Fields) -> MessageFields {
    MessageFields {
        author: form.get("Author"),
        body: form.get("Body"),
        media_sid: form.get("MediaSid"),
        content_sid: form.get("ContentSid"),
        attributes: form.get("Attributes"),
        dates: form.dates(),
    }
}

/// What a pre-action webhook may put in place of the request's values.
fn revise(fields: &mut MessageFields, revision: Revision) {
    fields.body = revision.body.or(fields.body.take());
    fields.author = revision.author.or(fields.author.take());
    fields.attributes = revision.attributes.or(fields.attributes.take());
}

pub(super) async fn create(State(world): Shared, call: Call) -> Reply {
    let mut fields = fields(&call.form);
    if call.is_told() {
        let ask = |account: &Account, fields: &MessageFields| {
            account.ask_post(&call.service, call.conversation(), fields, call.cause())
        };
        world
            .permit(&call.service, EventName::MessageAdd, &mut fields, ask, revise)
            .await?;
    }
    call.act(&world, |account| {
        let sid = account.post_message(&call.service, call.conversation(), &fields, call.cause())?;
        show(account, &call, sid.as_str()).map(created)
    })
}

pub(super) async fn fetch(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        show(account, &call, call.segment("message")).map(ok)
    })
}

pub(super) async fn update(State(world): Shared, call: Call) -> Reply {
    let mut fields = fields(&call.form);
    let (conversation, key) = (call.conversation(), call.segment("message"));
    if call.is_told() {
        let ask = |account: &Account, fields: &MessageFields| {
            account.ask_update_message(&call.service, conversation, key, fields, call.cause())
        };
        world
            .permit(&call.service, EventName::MessageUpdate, &mut fields, ask, revise)
            .await?;
    }
    call.act(&world, |account| {
        let sid = account.update_message(&call.service, conversation, key, &fields, call.cause())?;
        show(account, &call, sid.as_str()).map(ok)
    })
}

pub(super) async fn remove(State(world): Shared, call: Call) -> Reply {
    let (conversation, key) = (call.conversation(), call.segment("message"));
    if call.is_told() {
        let ask = |account: &Account, (): &()| {
            account.ask_remove_message(&call.service, conversation, key, call.cause())
        };
        world
            .permit(&call.service, EventName::MessageRemove, &mut (), ask, |(), _| ())
            .await?;
    }
    call.act(&world, |account| {
        account.remove_message(&call.service, conversation, key, call.cause())?;
        Ok(no_content())
    })
}

pub(super) async fn list_receipts(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let found = account.conversation(&call.service, call.conversation())?;
        let message = found
            .message(call.segment("message"))
            .ok_or_else(|| NOT_FOUND.refuse())?;
        let all: Vec<(u64, &Receipt)> = message.receipts.iter().map(|one| (one.serial, one)).collect();
        let render =
            |one: &&Receipt| receipt(&call.urls, account.sid.as_str(), &found.head.sid, message, one);
        page(
            &call,
            "delivery_receipts",
            Sizes::FIFTY,
            Order::Ascending,
            &all,
            render,
        )
        .map(ok)
    })
}

pub(super) async fn fetch_receipt(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let found = account.conversation(&call.service, call.conversation())?;
        let message = found
            .message(call.segment("message"))
            .ok_or_else(|| NOT_FOUND.refuse())?;
        let one = message
            .receipts
            .iter()
            .find(|one| one.sid.as_str() == call.segment("receipt"));
        let one = one.ok_or_else(|| NOT_FOUND.refuse())?;
        Ok(ok(receipt(
            &call.urls,
            account.sid.as_str(),
            &found.head.sid,
            message,
            one,
        )))
    })
}

fn show(account: &Account, call: &Call, key: &str) -> Result<Value, Refusal> {
    let found = account.conversation(&call.service, call.conversation())?;
    let message = found.message(key).ok_or_else(|| NOT_FOUND.refuse())?;
    Ok(render(&call.urls, account.sid.as_str(), &found.head.sid, message))
}

fn render(urls: &Urls, account_sid: &str, conversation: &ConversationSid, one: &Message) -> Value {
    let url = format!("{}/Conversations/{conversation}/Messages/{}", urls.base, one.sid);
    urls.stamp(json!({
        "sid": one.sid,
        "account_sid": account_sid,
        "conversation_sid": conversation,
        "index": one.index,
        "author": one.author,
        "body": one.body,
        "media": media(&one.media),
        "attributes": one.attributes,
        "participant_sid": one.participant,
        "content_sid": null,
        "date_created": with_seconds(one.created),
        "date_updated": with_seconds(one.updated),
        "delivery": delivery(&one.receipts),
        "links": {
            "delivery_receipts": format!("{url}/Receipts"),
            "channel_metadata": format!("{url}/ChannelMetadata"),
        },
        "url": url,
    }))
}

fn media(media: &[Media]) -> Value {
    if media.is_empty() {
        return Value::Null;
    }
    let items = media.iter().map(|item| {
        json!({
            "sid": item.sid, "filename": item.filename, "content_type": item.content_type, "size": item.size,
        })
    });
    items.collect()
}

/// A summary of the receipts: how many recipients there are, and which statuses all, some or none have reached.
fn delivery(receipts: &[Receipt]) -> Value {
    if receipts.is_empty() {
        return Value::Null;
    }
    let reached = |statuses: &[ReceiptStatus]| {
        let count = receipts
            .iter()
            .filter(|receipt| statuses.contains(&receipt.status))
            .count();
        match count {
            0 => "none",
            _ if count == receipts.len() => "all",
            _ => "some",
        }
    };
    json!({
        "total": receipts.len(),
        "sent": reached(&[ReceiptStatus::Sent, ReceiptStatus::Delivered]),
        "delivered": reached(&[ReceiptStatus::Delivered]),
        "read": "none",
        "failed": "none",
        "undelivered": reached(&[ReceiptStatus::Undelivered]),
    })
}

fn receipt(
    urls: &Urls,
    account_sid: &str,
    conversation: &ConversationSid,
    message: &Message,
    one: &Receipt,
) -> Value {
    let message_sid = &message.sid;
    let url = format!(
        "{}/Conversations/{conversation}/Messages/{message_sid}/Receipts/{}",
        urls.base, one.sid
    );
    urls.stamp(json!({
        "sid": one.sid,
        "account_sid": account_sid,
        "conversation_sid": conversation,
        "message_sid": message_sid,
        "participant_sid": one.participant,
        "channel_message_sid": one.channel_message_sid,
        "status": one.status.as_str(),
        "error_code": one.error_code,
        "date_created": with_seconds(one.created),
        "date_updated": with_seconds(one.updated),
        "url": url,
    }))
}
