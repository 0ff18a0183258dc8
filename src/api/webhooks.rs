//! `/v1/webhooks`: what could not be projected, to be looked at and replayed. All of it needs `admin`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Post};
use crate::api::{Api, conflict};
use crate::events::Via;
use crate::inbox::set_aside::{self, Reader, Replay, ShownField, Summary};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field};
use crate::web::page::{Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// A webhook, without what it says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(super) struct WebhookBody {
    webhook_id: i64,
    /// `pending`, `projected` or `set_aside`.
    state: String,
    account_sid: String,
    conversation_sid: Option<String>,
    event_type: String,
    /// `form`, or `cloud_event` for Event Streams.
    format: &'static str,
    /// Why it was set aside: by the name of the field, never by its value.
    reason: Option<String>,
    received_at: Timestamp,
    /// When it was projected or set aside.
    settled_at: Option<Timestamp>,
}

impl From<Summary> for WebhookBody {
    fn from(webhook: Summary) -> Self {
        Self {
            webhook_id: webhook.webhook_id,
            state: webhook.state,
            account_sid: webhook.account_sid,
            conversation_sid: webhook.conversation_sid,
            event_type: webhook.event_type,
            format: webhook.format.as_str(),
            reason: webhook.reason,
            received_at: webhook.received_at,
            settled_at: webhook.settled_at,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookField)]
pub(super) struct FieldBody {
    key: String,
    /// Null: not shown without `reveal=content`.
    value: Option<String>,
    bytes: usize,
}

impl From<ShownField> for FieldBody {
    fn from(field: ShownField) -> Self {
        Self {
            key: field.key,
            value: field.value,
            bytes: field.bytes,
        }
    }
}

/// A webhook with its fields.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookDetail {
    #[serde(flatten)]
    webhook: WebhookBody,
    fields: Vec<FieldBody>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(i64);

impl Key for Place {
    const LIST: &'static str = "set_aside";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListSetAside {
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List webhooks that could not be projected, oldest first
#[utoipa::path(
    get,
    path = "/v1/webhooks/set-aside",
    operation_id = "list_set_aside_webhooks",
    tag = "Webhooks",
    params(ListSetAside),
    responses((status = 200, description = "A page of them.", body = Page<WebhookBody>)),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::Admin>,
    Query(query): Query<ListSetAside>,
) -> Result<Json<Page<WebhookBody>>, Problem> {
    let mut errors = Errors::of_query();
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let after = wanted.after.as_ref().map_or(0, |Place(id)| *id);
    let rows = set_aside::page(&mut conn, after, wanted.rows()).await?;
    let page = wanted.page(rows, |row| Place(row.webhook_id));
    Ok(Json(page.map(WebhookBody::from)))
}

/// The only thing that can be revealed.
#[derive(Debug)]
pub(super) struct Content;

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "content" => Ok(Self),
            _ => Err(D::Error::custom("expected `content`, or the parameter left out")),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowWebhook {
    /// `content`: with what the webhook says. That you asked is written in the log.
    #[serde(default)]
    #[param(value_type = Option<String>, example = "content")]
    reveal: Field<Content>,
}

/// Show a webhook, without what it says unless asked
#[utoipa::path(
    get,
    path = "/v1/webhooks/{webhook_id}",
    operation_id = "show_webhook",
    tag = "Webhooks",
    params(("webhook_id" = i64, Path), ShowWebhook),
    responses((status = 200, description = "The webhook.", body = WebhookDetail)),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller<scope::Admin>,
    Path(webhook_id): Path<i64>,
    Query(query): Query<ShowWebhook>,
) -> Result<Json<WebhookDetail>, Problem> {
    let mut errors = Errors::of_query();
    let reveal = errors.optional("reveal", query.reveal);
    errors.finish(Some(()))?;
    let name = caller.name();
    let reader = reveal.map(|Content| by(&name));
    let found = set_aside::look(&api.pool, &api.clock, webhook_id, reader).await?;
    let (webhook, fields) = found.ok_or(Problem::NotFound { what: "webhook" })?;
    Ok(Json(WebhookDetail {
        webhook: webhook.into(),
        fields: fields.into_iter().map(FieldBody::from).collect(),
    }))
}

fn by(name: &str) -> Reader<'_> {
    Reader {
        actor: Some(name),
        via: Via::Api,
    }
}

/// Nothing has to be said about a replay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({}))]
pub(super) struct AskForReplay {}

/// How many webhooks wait to be projected again. What comes of each is its `state`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Replayed {
    replayed: u64,
}

/// Project a webhook again that was set aside
#[utoipa::path(
    post,
    path = "/v1/webhooks/{webhook_id}/replay",
    operation_id = "replay_webhook",
    tag = "Webhooks",
    params(("webhook_id" = i64, Path)),
    request_body = AskForReplay,
    responses((status = 202, description = "It waits; look at its `state`.", body = Replayed)),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn replay(
    State(api): State<Api>,
    caller: Caller<scope::Admin>,
    Path(webhook_id): Path<i64>,
    Post {
        call,
        body: AskForReplay {},
    }: Post<AskForReplay>,
) -> Result<Response, Problem> {
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let name = caller.name();
            let now = api.clock.now();
            match set_aside::replay_one(first.conn(), webhook_id, by(&name), now).await? {
                Replay::Waits => {
                    first
                        .answer(StatusCode::ACCEPTED, None, &Replayed { replayed: 1 })
                        .await
                }
                Replay::NotFound => Err(Problem::NotFound { what: "webhook" }),
                Replay::Erased => Err(conflict(
                    "erased",
                    "what the webhook said was erased, so that there is nothing to project",
                    json!({ "state": "set_aside" }),
                )),
                Replay::NotSetAside(state) => Err(conflict(
                    "not_set_aside",
                    "only a webhook that is set aside can be replayed",
                    json!({ "state": state }),
                )),
            }
        }
    }
}

/// Project all webhooks again that were set aside
#[utoipa::path(
    post,
    path = "/v1/webhooks/replay",
    operation_id = "replay_webhooks",
    tag = "Webhooks",
    request_body = AskForReplay,
    responses((status = 202, description = "They wait.", body = Replayed)),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn replay_all(
    State(api): State<Api>,
    caller: Caller<scope::Admin>,
    Post {
        call,
        body: AskForReplay {},
    }: Post<AskForReplay>,
) -> Result<Response, Problem> {
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let name = caller.name();
            let replayed = set_aside::replay_all(first.conn(), None, by(&name), api.clock.now()).await?;
            first
                .answer(StatusCode::ACCEPTED, None, &Replayed { replayed })
                .await
        }
    }
}
