//! What Twilio does not have: handsets, faults, owned numbers, and a look at what was sent. All below `/sandbox/v1`,
//! with the same Basic authentication, in JSON.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::get;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::ids::PhoneNumber;

use super::faults::Faults;
use super::model::IdentityReplacement;
use super::model::conversation::Media;
use super::model::handset::Text;
use super::model::inbound::{Arrival, Outgoing};
use super::model::refusal::{ADDRESS_INVALID, INVALID_PARAMETER, NOT_FOUND, Refusal};
use super::rest::{Reply, Shared, faults_of, limited};
use super::sender::Verdict;
use super::world::World;

const BODY_BYTES_MAX: usize = 256 * 1024;

pub(crate) fn router() -> Router<Arc<World>> {
    Router::new()
        .route("/sandbox/v1/handsets/{number}/messages", get(received).post(send))
        .route(
            "/sandbox/v1/faults",
            get(show_faults).put(set_faults).delete(clear_faults),
        )
        .route("/sandbox/v1/webhooks", get(attempts))
        .route("/sandbox/v1/numbers", get(numbers))
        .route(
            "/sandbox/v1/numbers/{number}",
            axum::routing::put(own).delete(release),
        )
        .route(
            "/sandbox/v1/identity-replacement",
            get(show_replacement).put(set_replacement),
        )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewText {
    to: Vec<String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    media: Vec<NewMedia>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMedia {
    content_type: String,
    size: u64,
}

/// A phone sends a text. The answer, 202, says what Twilio made of it.
async fn send(State(world): Shared, Path(number): Path<String>, headers: HeaderMap, body: Body) -> Reply {
    let faults = faults_of(&headers)?;
    let text: NewText = json_body(body).await?;
    let text = Outgoing {
        from: handset(&number)?,
        to: text
            .to
            .iter()
            .map(|number| handset(number))
            .collect::<Result<_, _>>()?,
        body: text.body,
        media: text
            .media
            .into_iter()
            .map(|media| (media.content_type, media.size))
            .collect(),
    };
    let asked = world.act(|account| {
        account.check_outgoing(&text)?;
        account.carry_to_phones(&text);
        let route = account.route(&text);
        let event = account.ask_arrival(&text, &route);
        Ok(event.and_then(|event| Some((account.pre_hook(&event.service, event.name)?, event))))
    })?;
    let (mut text, mut friendly_name) = (text, None);
    if let Some((hook, event)) = asked {
        match world.sender.ask(&hook, &event).await {
            Verdict::Proceed => {}
            Verdict::Revise(revision) => {
                text.body = revision.body.or(text.body);
                friendly_name = revision.friendly_name;
            }
            // The customer's text is gone for good.
            Verdict::Reject => return Ok(arrived(&json!({"outcome": "rejected_by_webhook"}))),
        }
    }
    let arrival = world.act_with(faults.webhooks, |account| account.take_in(&text, friendly_name));
    Ok(arrived(&match arrival {
        Arrival::Delivered {
            conversation,
            created,
            message,
        } => json!({
            "outcome": if created { "conversation_created" } else { "delivered" },
            "conversation_sid": conversation,
            "message_sid": message,
        }),
        Arrival::Dropped => json!({"outcome": "dropped_no_autocreation"}),
        Arrival::Elsewhere => json!({"outcome": "no_number_of_the_account"}),
    }))
}

fn arrived(body: &Value) -> axum::response::Response {
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

/// What a phone has received, oldest first.
async fn received(State(world): Shared, Path(number): Path<String>) -> Reply {
    let number = handset(&number)?;
    let texts = world.act(|account| {
        account
            .handsets
            .get(&number)
            .map(|texts| texts.iter().map(render).collect::<Vec<_>>())
            .unwrap_or_default()
    });
    Ok(Json(json!({"messages": texts})).into_response())
}

fn render(text: &Text) -> Value {
    let media = text
        .media
        .iter()
        .map(|item: &Media| json!({"sid": item.sid, "content_type": item.content_type, "size": item.size}));
    json!({
        "from": text.from,
        "members": text.members,
        "body": text.body,
        "media": media.collect::<Vec<_>>(),
        "at": text.at.to_string(),
    })
}

async fn show_faults(State(world): Shared) -> Reply {
    Ok(Json(current_faults(&world)).into_response())
}

/// The faults in force, with what is left of their `times`.
pub(crate) fn current_faults(world: &Arc<World>) -> Faults {
    let failing_setups = world.act(|account| account.failing_setups);
    Faults {
        failing_setups,
        ..world.dice.get()
    }
}

async fn set_faults(State(world): Shared, body: Body) -> Reply {
    let faults: Faults = json_body(body).await?;
    replace_faults(&world, faults)?;
    show_faults(State(world)).await
}

pub(crate) fn replace_faults(world: &Arc<World>, faults: Faults) -> Result<(), Refusal> {
    faults.check()?;
    world.act(|account| account.failing_setups = faults.failing_setups);
    world.dice.set(faults);
    Ok(())
}

async fn clear_faults(State(world): Shared) -> Reply {
    replace_faults(&world, Faults::default())?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The log of attempts to deliver webhooks, oldest first.
async fn attempts(State(world): Shared) -> Reply {
    Ok(Json(json!({"attempts": world.sender.attempts()})).into_response())
}

async fn numbers(State(world): Shared) -> Reply {
    let numbers: BTreeSet<PhoneNumber> = world.act(|account| account.numbers.clone());
    Ok(Json(json!({"numbers": numbers})).into_response())
}

async fn own(State(world): Shared, Path(number): Path<String>) -> Reply {
    let number = handset(&number)?;
    world.act(|account| account.numbers.insert(number));
    numbers(State(world)).await
}

/// Gives a number back. Its address configuration goes with it; participants that it stands for stay as they are.
async fn release(State(world): Shared, Path(number): Path<String>) -> Reply {
    let number = handset(&number)?;
    world.act(|account| {
        if !account.numbers.remove(&number) {
            return Err(NOT_FOUND.refuse());
        }
        account.addresses.retain(|one| one.address != number.as_str());
        Ok(StatusCode::NO_CONTENT.into_response())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replacement {
    identity_replacement: IdentityReplacement,
}

async fn show_replacement(State(world): Shared) -> Reply {
    let replacement = world.act(|account| account.replacement);
    Ok(Json(json!({"identity_replacement": replacement})).into_response())
}

async fn set_replacement(State(world): Shared, body: Body) -> Reply {
    let wanted: Replacement = json_body(body).await?;
    world.act(|account| account.replacement = wanted.identity_replacement);
    show_replacement(State(world)).await
}

fn handset(text: &str) -> Result<PhoneNumber, Refusal> {
    PhoneNumber::try_from(text)
        .map_err(|_| ADDRESS_INVALID.saying("expected a phone number like +15555550101"))
}

async fn json_body<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let bytes = limited(body, BODY_BYTES_MAX).await?;
    // The place is told, the value is not: it may be a number.
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        INVALID_PARAMETER.saying(format!(
            "the JSON body is not what is expected at line {line}, column {column}"
        ))
    })
}
