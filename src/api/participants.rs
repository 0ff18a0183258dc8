//! `/v1/conversations/{conversation_sid}/participants`: who is, and was, in a conversation.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

use crate::api::as_of::moment_of_one;
use crate::api::auth::{Caller, scope};
use crate::api::{Api, conversations, raw};
use crate::ids::ConversationSid;
use crate::mirror::as_of::{self, Moment};
use crate::mirror::read::{self, ParticipantRow};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Instant};
use crate::web::page::Page;
use crate::web::problem::Problem;

/// What a participant is, which Twilio tells by what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    /// A handset of the group: `address` alone.
    Native,
    /// One of ours behind a line: `identity` and `projected_address`.
    Projected,
    /// A line without anybody behind it: `projected_address` alone.
    Gateway,
    /// A handset that sees the group through a number of its own: `address` and `proxy_address`.
    Proxied,
    /// One of ours without a number: `identity` alone.
    Chat,
    /// Only its removal is known.
    Unknown,
}

impl Shape {
    fn of(row: &ParticipantRow) -> Self {
        match (
            &row.address,
            &row.proxy_address,
            &row.identity,
            &row.projected_address,
        ) {
            (Some(_), Some(_), _, _) => Self::Proxied,
            (Some(_), None, _, _) => Self::Native,
            (None, _, Some(_), Some(_)) => Self::Projected,
            (None, _, None, Some(_)) => Self::Gateway,
            (None, _, Some(_), None) => Self::Chat,
            (None, _, None, None) => Self::Unknown,
        }
    }
}

/// A member of a conversation, now or before.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Participant)]
pub(super) struct ParticipantBody {
    pub(super) participant_sid: String,
    shape: Shape,
    address: Option<String>,
    proxy_address: Option<String>,
    identity: Option<String>,
    projected_address: Option<String>,
    #[schema(value_type = Option<Object>)]
    attributes: Option<Box<RawValue>>,
    last_read_message_index: Option<i64>,
    pub(super) created_at: Option<Timestamp>,
    updated_at: Timestamp,
    /// When it left; null while it is in the conversation.
    pub(super) removed_at: Option<Timestamp>,
    /// When something of it was erased here: what is missing then is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<Timestamp>,
}

impl From<ParticipantRow> for ParticipantBody {
    fn from(row: ParticipantRow) -> Self {
        Self {
            shape: Shape::of(&row),
            participant_sid: row.participant_sid,
            address: row.address,
            proxy_address: row.proxy_address,
            identity: row.identity,
            projected_address: row.projected_address,
            attributes: raw(row.attributes),
            last_read_message_index: row.last_read_message_index,
            created_at: row.created_at,
            updated_at: row.updated_at,
            removed_at: row.removed_at,
            erased_at: row.erased_at,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParticipants {
    /// As it was at this time at Twilio, which has passed.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    as_of: Field<Instant>,
    /// As far as we had been told by this time, which has passed. Alone, or with `as_of`.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    known_at: Field<Instant>,
}

/// List the participants of a conversation
///
/// Those who left too, in the order of their coming; with `as_of` or `known_at` as it was then. A group has at most ten at a time, so there is one page.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/participants",
    operation_id = "list_participants",
    tag = "Conversations",
    params(("conversation_sid" = ConversationSid, Path), ListParticipants),
    responses((status = 200, description = "All of them.", body = Page<ParticipantBody>)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Path(sid): Path<ConversationSid>,
    Query(query): Query<ListParticipants>,
) -> Result<Json<Page<ParticipantBody>>, Problem> {
    let mut errors = Errors::of_query();
    let moment = moment_of_one(&mut errors, query.as_of, query.known_at, api.clock.now());
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    conversations::expect_then(&mut conn, &sid, moment).await?;
    let rows = members(&mut conn, &sid, moment).await?;
    Ok(Json(Page {
        items: rows.into_iter().map(ParticipantBody::from).collect(),
        next: None,
    }))
}

/// The members now, or then.
pub(super) async fn members(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    moment: Option<Moment>,
) -> Result<Vec<ParticipantRow>, sqlx::Error> {
    match moment {
        None => read::participants(conn, sid.as_str()).await,
        Some(moment) => as_of::participants(conn, sid, moment).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(has: &[&str]) -> ParticipantRow {
        let text = |name: &str, value: &str| has.contains(&name).then(|| value.to_owned());
        ParticipantRow {
            conversation_sid: String::new(),
            participant_sid: String::new(),
            identity: text("identity", "maya"),
            address: text("address", "+15555550101"),
            proxy_address: text("proxy_address", "+15017122661"),
            projected_address: text("projected_address", "+15017122661"),
            attributes: None,
            role_sid: None,
            last_read_message_index: None,
            created_at: None,
            updated_at: Timestamp::UNIX_EPOCH,
            removed_at: None,
            erased_at: None,
        }
    }

    #[test]
    fn a_shape_is_told_by_what_a_participant_has() {
        for (has, shape) in [
            (&["address"][..], Shape::Native),
            (&["address", "proxy_address"], Shape::Proxied),
            (&["identity", "projected_address"], Shape::Projected),
            (&["projected_address"], Shape::Gateway),
            (&["identity"], Shape::Chat),
            (&[], Shape::Unknown),
        ] {
            assert_eq!(Shape::of(&row(has)), shape);
        }
    }
}
