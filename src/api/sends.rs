//! Sending: `POST /v1/conversations/{conversation_sid}/messages` takes a message, and `/v1/sends` says what became of it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Post};
use crate::api::media::MediaBody;
use crate::api::{Api, conflict, conversations, raw};
use crate::events::Via;
use crate::ids::{ConversationSid, Identity, MessageSid, PhoneNumber};
use crate::opt_out::{Policy, Standing};
use crate::outbox::media::kinds::MEDIA_MAX;
use crate::outbox::{
    self, ATTRIBUTES_MAX, BODY_MAX, Extras, NewOutboundMessage, OutboundMessage, PostError, ResolveError,
    SendError, State as Stage, Verdict, media,
};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Object, Text};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// A message to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "body": "The offer was accepted.", "as": "maya" }))]
pub(super) struct StartSend {
    /// What it says: 1 to 1600 characters, not blank. May be left out where there is `media`.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 1600)]
    body: Field<Text<1, BODY_MAX>>,
    /// What it shows: the `media_id` of what was uploaded to this conversation. One at most, which is what Twilio takes;
    /// send the others as messages of their own.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Uuid>>, max_items = 1)]
    media: Field<Vec<Uuid>>,
    /// The line to send it through; needed only where the conversation has several.
    #[serde(default)]
    #[schema(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// Send it only if this person holds the line, now and when it is sent. Without it, whoever holds the line then is
    /// the author.
    #[serde(default, rename = "as")]
    #[schema(value_type = Option<Identity>)]
    as_holder: Field<Identity>,
    /// Where a member has opted out of the number: you know, and mean the others. Without it such a message is refused with
    /// `member_opted_out`.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    acknowledge_opt_out: Field<bool>,
    /// Anything of yours, at most 4,000 bytes; it becomes the message's `attributes` at Twilio, beside ours, which takes 4 KiB.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    attributes: Field<Object<ATTRIBUTES_MAX>>,
}

impl StartSend {
    fn read(
        self,
        conversation_sid: ConversationSid,
        requested_by: String,
    ) -> Result<(NewOutboundMessage, Extras), Problem> {
        let mut errors = Errors::of_body();
        let media = errors.optional("media", self.media).unwrap_or_default();
        check_media(&mut errors, &media);
        let body = if media.is_empty() {
            errors.required("body", self.body).map(Text::into_string)
        } else {
            // Of media alone, as Twilio has it.
            let body = errors.optional("body", self.body).map(Text::into_string);
            Some(body.unwrap_or_default())
        };
        let line = errors.optional("line", self.line);
        let as_holder = errors.optional("as", self.as_holder);
        let attributes = errors.optional("attributes", self.attributes);
        let acknowledged = errors.optional("acknowledge_opt_out", self.acknowledge_opt_out);
        let extras = Extras {
            media,
            acknowledge_opt_out: acknowledged.unwrap_or_default(),
        };
        let new = body.map(|body| NewOutboundMessage {
            conversation_sid,
            line,
            as_holder,
            body,
            attributes: attributes.map(Object::into_value),
            requested_by,
        });
        errors.finish(new).map(|new| (new, extras))
    }
}

fn check_media(errors: &mut Errors, media: &[Uuid]) {
    for (place, one) in media.iter().enumerate() {
        if media[..place].contains(one) {
            errors.add(&format!("media/{place}"), "duplicate", "expected each once");
        }
    }
    if media.len() > MEDIA_MAX {
        let message = format!(
            "expected at most {MEDIA_MAX}: Twilio takes so many with a message, so send the others as messages of their own"
        );
        errors.add("media", "too_many", message);
    }
}

/// A message on its way to Twilio.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Send)]
pub(super) struct SendBody {
    send_id: Uuid,
    conversation_sid: String,
    #[schema(inline)]
    state: Stage,
    line: String,
    /// Only this person could be the author, where the request said so.
    #[serde(rename = "as")]
    as_holder: Option<String>,
    /// The line's holder when it was sent, or the number itself where the line was unstaffed; null before.
    author: Option<String>,
    body: String,
    /// What goes with it.
    media: Vec<MediaBody>,
    /// Whoever asked for it knew that a member had opted out.
    acknowledged_opt_out: bool,
    /// Since when it waits for a supervisor to decide; null: it does not.
    held_since: Option<Timestamp>,
    /// Why Twilio has not taken it yet: the class of its last error, with the code where it gave one, like `unavailable_20503`; and
    /// since when.
    waiting_error: Option<String>,
    waiting_since: Option<Timestamp>,
    #[schema(value_type = Option<Object>)]
    attributes: Option<Box<RawValue>>,
    /// Twilio's, once it is sent.
    message_sid: Option<String>,
    /// Why it was not sent: a stable code.
    outcome_code: Option<String>,
    outcome_detail: Option<String>,
    requested_by: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// When something of it was erased here: what is missing then is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<Timestamp>,
}

impl SendBody {
    /// Messages with their media.
    async fn of_all(
        conn: &mut PgConnection,
        messages: Vec<OutboundMessage>,
    ) -> Result<Vec<Self>, sqlx::Error> {
        let with_media = messages.iter().filter(|message| message.media_count > 0);
        let with_media: Vec<(&str, Uuid)> = with_media
            .map(|message| (message.conversation_sid.as_str(), message.outbound_message_id))
            .collect();
        let mut media = media::of_messages(conn, &with_media).await?;
        Ok(messages
            .into_iter()
            .map(|message| {
                let id = Some(message.outbound_message_id);
                let own = media.extract_if(.., |one| one.outbound_message_id == id);
                let own = own.map(MediaBody::from).collect();
                Self::new(message, own)
            })
            .collect())
    }

    async fn of_one(conn: &mut PgConnection, message: OutboundMessage) -> Result<Self, Problem> {
        let mut bodies = Self::of_all(conn, vec![message]).await?;
        bodies.pop().ok_or(Problem::Internal)
    }

    fn new(message: OutboundMessage, media: Vec<MediaBody>) -> Self {
        Self {
            send_id: message.outbound_message_id,
            conversation_sid: message.conversation_sid,
            state: message.state,
            line: message.line,
            as_holder: message.as_holder,
            author: message.author,
            body: message.body,
            media,
            acknowledged_opt_out: message.acknowledged_opt_out,
            held_since: message.held_since,
            waiting_since: message.waiting.as_ref().map(|waiting| waiting.since),
            waiting_error: message.waiting.map(|waiting| waiting.error),
            attributes: raw(message.attributes),
            message_sid: message.message_sid,
            outcome_code: message.outcome_code,
            outcome_detail: message.outcome_detail,
            requested_by: message.requested_by,
            created_at: message.created_at,
            updated_at: message.updated_at,
            erased_at: message.erased_at,
        }
    }
}

/// Send a message
///
/// It is queued, and sent after what was asked for before it; the feed tells of it as `send.sent`, or `send.failed`.
/// However often it is repeated, by you or by us, it reaches the group once.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_sid}/messages",
    operation_id = "send_message",
    tag = "Messages",
    params(("conversation_sid" = ConversationSid, Path)),
    request_body = StartSend,
    responses((status = 202, description = "Taken; `Location` names it.", body = SendBody)),
    security(("api_key" = ["messages:write"])),
)]
pub(super) async fn start(
    State(api): State<Api>,
    caller: Caller<scope::MessagesWrite>,
    Path(sid): Path<ConversationSid>,
    Post { call, body }: Post<StartSend>,
) -> Result<Response, Problem> {
    let (new, extras) = body.read(sid, caller.name())?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let message = api
                .outbox
                .post_in(first.conn(), new, &extras, &api.opt_outs)
                .await?;
            let location = format!("/v1/sends/{}", message.outbound_message_id);
            let body = SendBody::of_one(first.conn(), message).await?;
            first.answer(StatusCode::ACCEPTED, Some(location), &body).await
        }
    }
}

/// Show what became of a message
#[utoipa::path(
    get,
    path = "/v1/sends/{send_id}",
    operation_id = "show_send",
    tag = "Messages",
    params(("send_id" = Uuid, Path)),
    responses((status = 200, description = "The message and where it stands.", body = SendBody)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Path(send_id): Path<Uuid>,
) -> Result<Json<SendBody>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let message = outbox::find(&mut conn, send_id).await?;
    let message = message.ok_or(Problem::NotFound { what: "send" })?;
    Ok(Json(SendBody::of_one(&mut conn, message).await?))
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, Uuid);

impl Key for Place {
    const LIST: &'static str = "sends";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListSends {
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List the messages that were asked for in a conversation, newest first
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/sends",
    operation_id = "list_sends",
    tag = "Messages",
    params(("conversation_sid" = ConversationSid, Path), ListSends),
    responses((status = 200, description = "A page of them.", body = Page<SendBody>)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Path(sid): Path<ConversationSid>,
    Query(query): Query<ListSends>,
) -> Result<Json<Page<SendBody>>, Problem> {
    let mut errors = Errors::of_query();
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    conversations::expect(&mut conn, &sid).await?;
    let before = wanted.after.as_ref().map(|Place(at, id)| (at.0, *id));
    let rows = outbox::page(&mut conn, sid.as_str(), before, wanted.rows()).await?;
    let page = wanted.page(rows, |message| {
        Place(At(message.created_at), message.outbound_message_id)
    });
    Ok(Json(Page {
        items: SendBody::of_all(&mut conn, page.items).await?,
        next: page.next,
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListOpenSends {
    /// Only these: `queued`, `sending` or `needs_attention`.
    #[serde(default)]
    #[param(value_type = Option<Unsettled>, inline)]
    state: Field<Unsettled>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<OpenPlace>>,
}

/// Where a message stands that is not settled.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unsettled {
    Queued,
    Sending,
    NeedsAttention,
}

impl From<Unsettled> for Stage {
    fn from(state: Unsettled) -> Self {
        match state {
            Unsettled::Queued => Self::Queued,
            Unsettled::Sending => Self::Sending,
            Unsettled::NeedsAttention => Self::NeedsAttention,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct OpenPlace(At, Uuid);

impl Key for OpenPlace {
    const LIST: &'static str = "sends.open";
}

/// List the messages that are not settled, in all conversations, oldest first
///
/// Those on their way, with what they wait for (`held_since`, `waiting_error`), and those that need attention: nobody knows
/// whether they were sent.
#[utoipa::path(
    get,
    path = "/v1/sends",
    operation_id = "list_open_sends",
    tag = "Messages",
    params(ListOpenSends),
    responses((status = 200, description = "A page of them.", body = Page<SendBody>)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn list_open(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Query(query): Query<ListOpenSends>,
) -> Result<Json<Page<SendBody>>, Problem> {
    let mut errors = Errors::of_query();
    let state = errors.optional("state", query.state);
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let after = wanted.after.as_ref().map(|OpenPlace(at, id)| (at.0, *id));
    let rows = outbox::page_of_open(&mut conn, state.map(Stage::from), after, wanted.rows()).await?;
    let page = wanted.page(rows, |message| {
        OpenPlace(At(message.created_at), message.outbound_message_id)
    });
    Ok(Json(Page {
        items: SendBody::of_all(&mut conn, page.items).await?,
        next: page.next,
    }))
}

/// What somebody found out about a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "outcome": "sent", "message_sid": "IM00000000000000000000000000000001", "by": "sam" }))]
pub(super) struct ResolveSend {
    /// `sent`: it is the message in `message_sid`. `not_sent`: it did not reach the group; it can be posted anew.
    #[serde(default)]
    #[schema(value_type = SendOutcome, inline, required = true)]
    outcome: Field<SendOutcome>,
    /// Which message of the conversation it is. With `sent`, and only then.
    #[serde(default)]
    #[schema(value_type = Option<MessageSid>)]
    message_sid: Field<MessageSid>,
    /// The person who found it out.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SendOutcome {
    Sent,
    NotSent,
}

impl ResolveSend {
    fn read(self) -> Result<(Verdict, Identity), Problem> {
        let mut errors = Errors::of_body();
        let outcome = errors.required("outcome", self.outcome);
        let message_sid = errors.optional("message_sid", self.message_sid);
        let by = errors.required("by", self.by);
        let verdict = match (outcome, message_sid) {
            (Some(SendOutcome::Sent), Some(message_sid)) => Some(Verdict::Sent(message_sid)),
            (Some(SendOutcome::Sent), None) => {
                errors.add(
                    "message_sid",
                    "missing",
                    "expected which message of the conversation it is",
                );
                None
            }
            (Some(SendOutcome::NotSent), Some(_)) => {
                errors.add("message_sid", "not_of_this_outcome", "expected only with `sent`");
                None
            }
            (Some(SendOutcome::NotSent), None) => Some(Verdict::NotSent),
            (None, _) => None,
        };
        errors.finish(verdict.zip(by))
    }
}

/// Say what became of a message that needs attention
///
/// Where nobody knows whether Twilio took it. Look into the thread first. As soon as the mirror shows the message itself, this is done
/// without you. The feed tells of it as `send.sent` or `send.failed`.
#[utoipa::path(
    post,
    path = "/v1/sends/{send_id}/resolve",
    operation_id = "resolve_send",
    tag = "Messages",
    params(("send_id" = Uuid, Path)),
    request_body = ResolveSend,
    responses((status = 200, description = "It is settled.", body = SendBody)),
    security(("api_key" = ["messages:write"])),
)]
pub(super) async fn resolve(
    State(api): State<Api>,
    caller: Caller<scope::MessagesWrite>,
    Path(send_id): Path<Uuid>,
    Post { call, body }: Post<ResolveSend>,
) -> Result<Response, Problem> {
    let (verdict, by) = body.read()?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let message = api
                .outbox
                .resolve_in(first.conn(), send_id, &verdict, &by, Via::Api)
                .await?;
            let body = SendBody::of_one(first.conn(), message).await?;
            first.answer(StatusCode::OK, None, &body).await
        }
    }
}

impl From<ResolveError> for Problem {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NotFound => Self::NotFound { what: "send" },
            ResolveError::Known { state } => conflict(
                "send_settled",
                "only a message that needs attention can be resolved",
                json!({ "state": state }),
            ),
            ResolveError::NoSuchMessage => Self::conflict(
                "message_not_found",
                "the mirror has no such message in the conversation",
            ),
            ResolveError::Another { send_id } => conflict(
                "message_is_another",
                "that message is another one that was sent from here",
                json!({ "send_id": send_id }),
            ),
            ResolveError::Database(error) => error.into(),
        }
    }
}

/// How many, and not who.
fn opted_out(standing: Standing) -> Problem {
    match standing {
        // It stands against nothing.
        Standing::Clear => Problem::Internal,
        Standing::Warned { members } => conflict(
            "member_opted_out",
            "members have opted out of the number and are not sent it: say that you know with `acknowledge_opt_out`, and the others are",
            json!({ "members": members, "policy": Policy::CarryOn }),
        ),
        Standing::Held { members } => conflict(
            "opt_out_held",
            "members have opted out of the number, and a supervisor has to decide before anything is posted",
            json!({ "members": members, "policy": Policy::AskSupervisor }),
        ),
        Standing::Stopped { members } => conflict(
            "opt_out_stopped",
            "members have opted out of the number, and a supervisor decided that nothing is posted",
            json!({ "members": members, "policy": Policy::AskSupervisor }),
        ),
        Standing::Closing { members } => conflict(
            "opt_out_closing",
            "members have opted out of the number, and the conversation is closed for it",
            json!({ "members": members, "policy": Policy::Close }),
        ),
    }
}

impl From<PostError> for Problem {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Send(error) => error.into(),
            PostError::Media(error) => error.into(),
            PostError::OptedOut(standing) => opted_out(standing),
        }
    }
}

impl From<SendError> for Problem {
    fn from(error: SendError) -> Self {
        match error {
            SendError::ConversationNotFound => Self::NotFound { what: "conversation" },
            SendError::ConversationClosed => Self::conflict(
                "conversation_closed",
                "the conversation is over, which is final at Twilio",
            ),
            SendError::LineNotFound => Self::conflict("line_not_found", "the conversation has no such line"),
            SendError::LineAmbiguous { lines } => conflict(
                "line_ambiguous",
                "the conversation has several lines: say which in `line`",
                json!({ "lines": lines.len() }),
            ),
            SendError::NotTheHolder { holder } => conflict(
                "not_the_holder",
                "the line is not held by the person in `as`",
                json!({ "holder": holder }),
            ),
            SendError::Database(error) => error.into(),
        }
    }
}
