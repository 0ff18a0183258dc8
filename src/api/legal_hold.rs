//! `/v1/conversations/{conversation_sid}/legal-hold`: keeping the rules of retention away from a conversation.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::auth::{Caller, scope};
use crate::api::{Api, conversations};
use crate::events::Via;
use crate::ids::ConversationSid;
use crate::retention;
use crate::web::extract::{Json as Body, Path};
use crate::web::field::{Errors, Field, Text};
use crate::web::problem::Problem;

/// A hold to be set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "case 2026-17" }))]
pub(super) struct SetLegalHold {
    /// For those who read it later; it stays out of the log.
    #[serde(default)]
    #[schema(value_type = String, required = true, min_length = 1, max_length = 500)]
    reason: Field<Text<1, 500>>,
}

/// A conversation of which nothing is erased.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LegalHold)]
pub(super) struct LegalHoldBody {
    conversation_sid: String,
    reason: String,
    /// The API key, or `cli`.
    held_by: String,
    held_since: Timestamp,
}

impl From<retention::LegalHold> for LegalHoldBody {
    fn from(hold: retention::LegalHold) -> Self {
        Self {
            conversation_sid: hold.conversation_sid,
            reason: hold.reason,
            held_by: hold.held_by,
            held_since: hold.held_since,
        }
    }
}

/// Put a conversation under legal hold
///
/// Nothing of it is erased until the hold is ended. One that is under hold stays as it is. May be repeated.
#[utoipa::path(
    put,
    path = "/v1/conversations/{conversation_sid}/legal-hold",
    operation_id = "set_legal_hold",
    tag = "Conversations",
    params(("conversation_sid" = ConversationSid, Path)),
    request_body = SetLegalHold,
    responses((status = 200, description = "The hold that stands.", body = LegalHoldBody)),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn set(
    State(api): State<Api>,
    caller: Caller<scope::Admin>,
    Path(sid): Path<ConversationSid>,
    body: Body<SetLegalHold>,
) -> Result<Json<LegalHoldBody>, Problem> {
    let mut errors = Errors::of_body();
    let reason = errors.required("reason", body.value.reason);
    let reason = errors.finish(reason)?.into_string();
    let mut conn = api.pool.acquire().await?;
    conversations::expect(&mut conn, &sid).await?;
    let hold = retention::hold(
        &mut conn,
        &sid,
        &reason,
        &caller.name(),
        Via::Api,
        api.clock.now(),
    )
    .await?;
    Ok(Json(hold.into()))
}

/// Show whether a conversation is under legal hold
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/legal-hold",
    operation_id = "show_legal_hold",
    tag = "Conversations",
    params(("conversation_sid" = ConversationSid, Path)),
    responses((status = 200, description = "The hold that stands; 404 where none does.", body = LegalHoldBody)),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::Admin>,
    Path(sid): Path<ConversationSid>,
) -> Result<Json<LegalHoldBody>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let hold = retention::find_hold(&mut conn, &sid).await?;
    hold.map(|hold| Json(hold.into()))
        .ok_or(Problem::NotFound { what: "legal hold" })
}

/// End the legal hold of a conversation
///
/// What is due by the rules then, is erased by their next run.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{conversation_sid}/legal-hold",
    operation_id = "end_legal_hold",
    tag = "Conversations",
    params(("conversation_sid" = ConversationSid, Path)),
    responses((status = 204, description = "It is ended; 404 where there was none.")),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn end(
    State(api): State<Api>,
    caller: Caller<scope::Admin>,
    Path(sid): Path<ConversationSid>,
) -> Result<StatusCode, Problem> {
    let mut conn = api.pool.acquire().await?;
    if retention::release(&mut conn, &sid, &caller.name(), Via::Api, api.clock.now()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::NotFound { what: "legal hold" })
    }
}
