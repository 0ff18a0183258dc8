//! `…/versions`: all that was ever said of a message, a participant or a conversation, for the audit scope.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::api::auth::{Caller, scope};
use crate::api::{Api, conversations, raw};
use crate::ids::{ConversationSid, MessageSid, ParticipantSid};
use crate::mirror::change::{MessageFields, ParticipantFields};
use crate::mirror::fold::{ConversationSays, Says};
use crate::mirror::versions::{self, VersionRow};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// What a version is about.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Aspect {
    Content,
    /// Of a conversation: its state, of which Twilio tells apart.
    State,
    /// It was removed at Twilio; a removal has no content.
    Removal,
}

/// What Twilio said of a message.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageVersion {
    aspect: Aspect,
    /// Since when it was so at Twilio; whole seconds where Twilio told it to the second.
    at: Timestamp,
    /// Since when we know. Null: before versions were kept.
    learnt_at: Option<Timestamp>,
    /// The mirror says so now.
    current: bool,
    /// When something of it was erased here: what is missing then is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<Timestamp>,
    index: Option<i64>,
    author: Option<String>,
    participant_sid: Option<String>,
    body: Option<String>,
    #[schema(value_type = Option<Vec<Object>>)]
    media: Option<Box<RawValue>>,
    #[schema(value_type = Option<Object>)]
    attributes: Option<Box<RawValue>>,
}

/// What Twilio said of a participant.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ParticipantVersion {
    aspect: Aspect,
    /// Since when it was so at Twilio; whole seconds where Twilio told it to the second.
    at: Timestamp,
    /// Since when we know. Null: before versions were kept.
    learnt_at: Option<Timestamp>,
    /// The mirror says so now.
    current: bool,
    /// When something of it was erased here: what is missing then is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<Timestamp>,
    address: Option<String>,
    proxy_address: Option<String>,
    identity: Option<String>,
    projected_address: Option<String>,
    #[schema(value_type = Option<Object>)]
    attributes: Option<Box<RawValue>>,
    last_read_message_index: Option<i64>,
}

/// What Twilio said of a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConversationVersion {
    aspect: Aspect,
    /// Since when it was so at Twilio; whole seconds where Twilio told it to the second.
    at: Timestamp,
    /// Since when we know. Null: before versions were kept.
    learnt_at: Option<Timestamp>,
    /// The mirror says so now.
    current: bool,
    /// When something of it was erased here: what is missing then is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<Timestamp>,
    /// Only where `aspect` is `state`.
    state: Option<String>,
    friendly_name: Option<String>,
    unique_name: Option<String>,
    #[schema(value_type = Option<Object>)]
    attributes: Option<Box<RawValue>>,
}

fn learnt_at(at: Timestamp) -> Option<Timestamp> {
    Some(at).filter(|at| *at != Timestamp::UNIX_EPOCH)
}

impl From<VersionRow<Says<MessageFields>>> for MessageVersion {
    fn from(row: VersionRow<Says<MessageFields>>) -> Self {
        let (aspect, fields) = match row.says {
            Says::Content(fields) => (Aspect::Content, fields),
            Says::Removed => (Aspect::Removal, MessageFields::default()),
        };
        Self {
            aspect,
            at: row.at,
            learnt_at: learnt_at(row.learnt_at),
            current: row.is_current,
            erased_at: row.erased_at,
            index: fields.index,
            author: fields.author,
            participant_sid: fields.participant_sid,
            body: fields.body,
            media: raw(fields.media),
            attributes: raw(fields.attributes),
        }
    }
}

impl From<VersionRow<Says<ParticipantFields>>> for ParticipantVersion {
    fn from(row: VersionRow<Says<ParticipantFields>>) -> Self {
        let (aspect, fields) = match row.says {
            Says::Content(fields) => (Aspect::Content, fields),
            Says::Removed => (Aspect::Removal, ParticipantFields::default()),
        };
        Self {
            aspect,
            at: row.at,
            learnt_at: learnt_at(row.learnt_at),
            current: row.is_current,
            erased_at: row.erased_at,
            address: fields.address,
            proxy_address: fields.proxy_address,
            identity: fields.identity,
            projected_address: fields.projected_address,
            attributes: raw(fields.attributes),
            last_read_message_index: fields.last_read_message_index,
        }
    }
}

impl From<VersionRow<ConversationSays>> for ConversationVersion {
    fn from(row: VersionRow<ConversationSays>) -> Self {
        let (aspect, state, fields) = match row.says {
            ConversationSays::Content(fields) => (Aspect::Content, None, Some(fields)),
            ConversationSays::State(state) => (Aspect::State, Some(state), None),
            ConversationSays::Removed => (Aspect::Removal, None, None),
        };
        let fields = fields.unwrap_or_default();
        Self {
            aspect,
            at: row.at,
            learnt_at: learnt_at(row.learnt_at),
            current: row.is_current,
            erased_at: row.erased_at,
            state,
            friendly_name: fields.friendly_name,
            unique_name: fields.unique_name,
            attributes: raw(fields.attributes),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, At, String);

impl Key for Place {
    const LIST: &'static str = "versions";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListVersions {
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// The path of a message's versions.
#[derive(Debug, Deserialize)]
pub(super) struct OfMessage {
    conversation_sid: ConversationSid,
    message_sid: MessageSid,
}

/// The path of a participant's versions.
#[derive(Debug, Deserialize)]
pub(super) struct OfParticipant {
    conversation_sid: ConversationSid,
    participant_sid: ParticipantSid,
}

impl ListVersions {
    fn wanted(self) -> Result<(Wanted<Place>, Option<versions::Place>), Problem> {
        let mut errors = Errors::of_query();
        let wanted = Wanted::read(&mut errors, self.limit, self.cursor);
        errors.finish(Some(()))?;
        let after = wanted
            .after
            .as_ref()
            .map(|Place(at, learnt_at, key)| (at.0, learnt_at.0, key.clone()));
        Ok((wanted, after))
    }
}

fn place<S>(row: &VersionRow<S>) -> Place {
    Place(At(row.at), At(row.learnt_at), row.key.clone())
}

/// List all that was said of a message, also what was edited and removed since
///
/// By Twilio's own time, then by ours. Each version that is not `current` was replaced, or came too late to count.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/messages/{message_sid}/versions",
    operation_id = "list_message_versions",
    tag = "Audit",
    params(("conversation_sid" = ConversationSid, Path), ("message_sid" = MessageSid, Path), ListVersions),
    responses((status = 200, description = "A page of them.", body = Page<MessageVersion>)),
    security(("api_key" = ["audit:read"])),
)]
pub(super) async fn of_message(
    State(api): State<Api>,
    _: Caller<scope::AuditRead>,
    Path(of): Path<OfMessage>,
    Query(query): Query<ListVersions>,
) -> Result<Json<Page<MessageVersion>>, Problem> {
    let (wanted, after) = query.wanted()?;
    let mut conn = api.pool.acquire().await?;
    conversations::expect(&mut conn, &of.conversation_sid).await?;
    let rows = versions::of_message(
        &mut conn,
        &of.conversation_sid,
        &of.message_sid,
        after.as_ref(),
        wanted.rows(),
    )
    .await?;
    if rows.is_empty() && after.is_none() {
        return Err(Problem::NotFound { what: "message" });
    }
    Ok(Json(wanted.page(rows, place).map(MessageVersion::from)))
}

/// List all that was said of a participant
///
/// By Twilio's own time, then by ours. Each version that is not `current` was replaced, or came too late to count.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/participants/{participant_sid}/versions",
    operation_id = "list_participant_versions",
    tag = "Audit",
    params(("conversation_sid" = ConversationSid, Path), ("participant_sid" = ParticipantSid, Path), ListVersions),
    responses((status = 200, description = "A page of them.", body = Page<ParticipantVersion>)),
    security(("api_key" = ["audit:read"])),
)]
pub(super) async fn of_participant(
    State(api): State<Api>,
    _: Caller<scope::AuditRead>,
    Path(of): Path<OfParticipant>,
    Query(query): Query<ListVersions>,
) -> Result<Json<Page<ParticipantVersion>>, Problem> {
    let (wanted, after) = query.wanted()?;
    let mut conn = api.pool.acquire().await?;
    conversations::expect(&mut conn, &of.conversation_sid).await?;
    let rows = versions::of_participant(
        &mut conn,
        &of.conversation_sid,
        &of.participant_sid,
        after.as_ref(),
        wanted.rows(),
    )
    .await?;
    if rows.is_empty() && after.is_none() {
        return Err(Problem::NotFound { what: "participant" });
    }
    Ok(Json(wanted.page(rows, place).map(ParticipantVersion::from)))
}

/// List all that was said of a conversation: what it is, its state, and its removal
///
/// By Twilio's own time, then by ours. Each version that is not `current` was replaced, or came too late to count.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/versions",
    operation_id = "list_conversation_versions",
    tag = "Audit",
    params(("conversation_sid" = ConversationSid, Path), ListVersions),
    responses((status = 200, description = "A page of them.", body = Page<ConversationVersion>)),
    security(("api_key" = ["audit:read"])),
)]
pub(super) async fn of_conversation(
    State(api): State<Api>,
    _: Caller<scope::AuditRead>,
    Path(sid): Path<ConversationSid>,
    Query(query): Query<ListVersions>,
) -> Result<Json<Page<ConversationVersion>>, Problem> {
    let (wanted, after) = query.wanted()?;
    let mut conn = api.pool.acquire().await?;
    conversations::expect(&mut conn, &sid).await?;
    let rows = versions::of_conversation(&mut conn, &sid, after.as_ref(), wanted.rows()).await?;
    Ok(Json(wanted.page(rows, place).map(ConversationVersion::from)))
}
