//! `/Conversations` and `/ConversationWithParticipants`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::{Call, Fields, Urls};
use super::page::{Order, Sizes, page};
use super::{Reply, Shared, created, no_content, ok};
use crate::sandbox::model::Account;
use crate::sandbox::model::address::Shape;
use crate::sandbox::model::conversation::{Conversation, Head};
use crate::sandbox::model::conversations::ConversationFields;
use crate::sandbox::model::participants::NewParticipant;
use crate::sandbox::model::refusal::{INVALID_PARAMETER, Refusal};
use crate::sandbox::model::time::with_seconds;
use crate::sandbox::model::webhook::EventName;
use crate::sandbox::sender::Revision;

pub(super) async fn list(State(world): Shared, call: Call) -> Reply {
    let since = call
        .query
        .get("StartDate")
        .map(|text| date(&text, Edge::Start))
        .transpose()?;
    let until = call
        .query
        .get("EndDate")
        .map(|text| date(&text, Edge::End))
        .transpose()?;
    let state = call.query.get("State");
    if state
        .as_deref()
        .is_some_and(|state| !matches!(state, "active" | "inactive" | "closed" | "initializing"))
    {
        return Err(INVALID_PARAMETER.saying("State is not valid"));
    }
    call.act(&world, |account| {
        let matching: Vec<(u64, &Conversation)> = account
            .register
            .iter()
            .filter(|found| found.head.service == call.service)
            .filter(|found| {
                state
                    .as_deref()
                    .is_none_or(|state| found.head.state.as_str() == state)
            })
            .filter(|found| since.is_none_or(|since| found.head.created >= since))
            .filter(|found| until.is_none_or(|until| found.head.created < until))
            .map(|found| (found.head.serial, found))
            .collect();
        let render = |found: &&Conversation| render(&call.urls, account.sid.as_str(), &found.head);
        page(
            &call,
            "conversations",
            Sizes::HUNDRED,
            Order::Ascending,
            &matching,
            render,
        )
        .map(ok)
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Start,
    /// The day that is named is the last one.
    End,
}

fn date(text: &str, edge: Edge) -> Result<Timestamp, Refusal> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let wrong = || INVALID_PARAMETER.saying("StartDate and EndDate are dates like 2026-01-31");
    let day: Date = text.parse().map_err(|_| wrong())?;
    let day = if edge == Edge::End {
        day.saturating_add(1.day())
    } else {
        day
    };
    day.to_zoned(TimeZone::UTC)
        .map(|zoned| zoned.timestamp())
        .map_err(|_| wrong())
}

fn fields(form: &Fields) -> ConversationFields {
    ConversationFields {
        friendly_name: form.get("FriendlyName"),
        unique_name: form.get("UniqueName"),
        messaging_service: form.get("MessagingServiceSid"),
        attributes: form.get("Attributes"),
        state: form.get("State"),
        inactive_timer: form.get("Timers.Inactive"),
        closed_timer: form.get("Timers.Closed"),
        dates: form.dates(),
    }
}

/// What a pre-action webhook may put in place of the request's values.
fn revise(fields: &mut ConversationFields, revision: Revision) {
    fields.friendly_name = revision.friendly_name.or(fields.friendly_name.take());
    fields.attributes = revision.attributes.or(fields.attributes.take());
}

pub(super) async fn create(State(world): Shared, call: Call) -> Reply {
    let mut fields = fields(&call.form);
    if call.is_told() {
        let ask = |account: &Account, fields: &ConversationFields| {
            account.ask_create(&call.service, fields, call.cause())
        };
        world
            .permit(
                &call.service,
                EventName::ConversationAdd,
                &mut fields,
                ask,
                revise,
            )
            .await?;
    }
    call.act(&world, |account| {
        let sid = account.create_conversation(&call.service, &fields, call.cause())?;
        let found = account.conversation(&call.service, sid.as_str())?;
        Ok(created(render(&call.urls, account.sid.as_str(), &found.head)))
    })
}

/// One item of `Participant`: JSON in `snake_case`, unlike every other parameter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Founder {
    identity: Option<String>,
    attributes: Option<String>,
    role_sid: Option<String>,
    messaging_binding: Option<FounderBinding>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FounderBinding {
    address: Option<String>,
    proxy_address: Option<String>,
    projected_address: Option<String>,
    #[serde(rename = "type")]
    _kind: Option<String>,
}

fn founder(text: &str) -> Result<NewParticipant, Refusal> {
    // The parser's own words could repeat a number.
    let wrong =
        |_| INVALID_PARAMETER.saying("Participant is no JSON object of identity and messaging_binding");
    let founder: Founder = serde_json::from_str(text).map_err(wrong)?;
    let binding = founder.messaging_binding.unwrap_or_default();
    Ok(NewParticipant {
        shape: Shape {
            identity: founder.identity,
            address: binding.address,
            proxy_address: binding.proxy_address,
            projected_address: binding.projected_address,
        },
        attributes: founder.attributes,
        role: founder.role_sid,
        ..NewParticipant::default()
    })
}

/// 202: the participants come after the answer, one by one.
pub(super) async fn create_with_participants(State(world): Shared, call: Call) -> Reply {
    let mut fields = fields(&call.form);
    let participants = call.form.all("Participant").unwrap_or_default();
    let founders: Vec<NewParticipant> = participants
        .iter()
        .map(|text| founder(text))
        .collect::<Result<_, _>>()?;
    if call.is_told() {
        let ask = |account: &Account, fields: &ConversationFields| {
            account.ask_create_with_participants(&call.service, fields, &founders, call.cause())
        };
        world
            .permit(
                &call.service,
                EventName::ConversationAdd,
                &mut fields,
                ask,
                revise,
            )
            .await?;
    }
    call.act(&world, |account| {
        let sid = account.create_with_participants(&call.service, &fields, &founders, call.cause())?;
        let found = account.conversation(&call.service, sid.as_str())?;
        let body = render(&call.urls, account.sid.as_str(), &found.head);
        Ok((StatusCode::ACCEPTED, Json(body)).into_response())
    })
}

pub(super) async fn fetch(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let found = account.conversation(&call.service, call.conversation())?;
        Ok(ok(render(&call.urls, account.sid.as_str(), &found.head)))
    })
}

pub(super) async fn update(State(world): Shared, call: Call) -> Reply {
    let mut fields = fields(&call.form);
    if call.is_told() {
        let ask = |account: &Account, fields: &ConversationFields| {
            account.ask_update(&call.service, call.conversation(), fields, call.cause())
        };
        world
            .permit(
                &call.service,
                EventName::ConversationUpdate,
                &mut fields,
                ask,
                revise,
            )
            .await?;
    }
    call.act(&world, |account| {
        let sid = account.update_conversation(&call.service, call.conversation(), &fields, call.cause())?;
        let found = account.conversation(&call.service, sid.as_str())?;
        Ok(ok(render(&call.urls, account.sid.as_str(), &found.head)))
    })
}

pub(super) async fn remove(State(world): Shared, call: Call) -> Reply {
    if call.is_told() {
        let ask =
            |account: &Account, (): &()| account.ask_remove(&call.service, call.conversation(), call.cause());
        world
            .permit(
                &call.service,
                EventName::ConversationRemove,
                &mut (),
                ask,
                |(), _| (),
            )
            .await?;
    }
    call.act(&world, |account| {
        account.remove_conversation(&call.service, call.conversation(), call.cause())?;
        Ok(no_content())
    })
}

fn render(urls: &Urls, account_sid: &str, head: &Head) -> Value {
    let url = format!("{}/Conversations/{}", urls.base, head.sid);
    json!({
        "sid": head.sid,
        "account_sid": account_sid,
        "chat_service_sid": head.service,
        "messaging_service_sid": head.messaging_service,
        "friendly_name": head.friendly_name,
        "unique_name": head.unique_name,
        "attributes": head.attributes,
        "state": head.state.as_str(),
        "date_created": with_seconds(head.created),
        "date_updated": with_seconds(head.updated),
        "timers": timers(head),
        "bindings": {},
        "links": {
            "participants": format!("{url}/Participants"),
            "messages": format!("{url}/Messages"),
            "webhooks": format!("{url}/Webhooks"),
            "export": format!("{url}/Export"),
        },
        "url": url,
    })
}

/// `{}` where no timer runs.
pub(super) fn timers(head: &Head) -> Value {
    let dates = [
        ("date_inactive", head.date_inactive()),
        ("date_closed", head.date_closed()),
    ];
    let dates = dates
        .into_iter()
        .filter_map(|(key, at)| Some((key.to_owned(), Value::from(with_seconds(at?)))));
    Value::Object(dates.collect::<Map<_, _>>())
}
