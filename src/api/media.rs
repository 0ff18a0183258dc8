//! `/v1/conversations/{conversation_sid}/media`: what a message is to show, uploaded before it; and fetching what messages
//! show.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Call};
use crate::api::{Api, conflict, conversations};
use crate::ids::{ConversationSid, MediaSid, MessageSid};
use crate::mirror::read;
use crate::outbox::media::kinds::{self, MEDIA_BYTES_MAX, MediaType, TYPES};
use crate::outbox::media::{self, Media, NewMedia, TakeError, UploadError};
use crate::twilio;
use crate::web::extract::{Path, read_body};
use crate::web::problem::{FieldError, Problem};

/// How long an upload may take: a file of 5 MB comes slowly from a telephone.
pub(super) const UPLOAD_TIMEOUT: Duration = Duration::from_secs(35);

/// Uploads that are read at once; each holds its bytes in memory. The others wait.
static AT_ONCE: Semaphore = Semaphore::const_new(8);

/// Media that waits for a message, or went with one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Media)]
pub(super) struct MediaBody {
    media_id: Uuid,
    content_type: String,
    /// In bytes.
    size: i64,
    filename: Option<String>,
    /// Twilio's, once it was uploaded there.
    media_sid: Option<String>,
    created_at: Timestamp,
    /// When the name of the file was erased here, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<Timestamp>,
}

impl From<Media> for MediaBody {
    fn from(media: Media) -> Self {
        Self {
            media_id: media.media_id,
            content_type: media.content_type,
            size: media.size_bytes,
            filename: media.filename,
            media_sid: media.uploaded.map(|(sid, _)| sid.to_string()),
            created_at: media.created_at,
            erased_at: media.erased_at,
        }
    }
}

/// The bytes of a file, with what its headers say of them. All of it is checked.
pub(super) struct Upload {
    call: Call,
    media_type: MediaType,
    filename: Option<String>,
    content: Bytes,
}

impl FromRequest<Api> for Upload {
    type Rejection = Problem;

    async fn from_request(request: Request, _api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        Call::check_key(&parts.headers)?;
        let media_type = media_type(&parts.headers)?;
        let filename = filename(&parts.headers)?;
        // Never closed, so it is always given, in time.
        let turn = AT_ONCE.acquire().await;
        let content = read_body(body, MEDIA_BYTES_MAX).await?;
        drop(turn);
        let name = filename.as_deref().unwrap_or_default();
        let call = Call::read(
            &parts,
            &[media_type.as_str().as_bytes(), name.as_bytes(), &content],
        )?;
        if content.is_empty() {
            return Err(refused("body", "empty", "expected the bytes of a file"));
        }
        if !media_type.begins(&content) {
            let message = format!(
                "expected what {} begins with: the bytes are something else",
                media_type.as_str()
            );
            return Err(refused("Content-Type", "content_differs", message));
        }
        Ok(Self {
            call,
            media_type,
            filename,
            content,
        })
    }
}

fn media_type(headers: &HeaderMap) -> Result<MediaType, Problem> {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(MediaType::of)
        .ok_or(Problem::UnsupportedMediaType { expected: TYPES })
}

fn filename(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::CONTENT_DISPOSITION) else {
        return Ok(None);
    };
    let read = std::str::from_utf8(value.as_bytes()).map_err(|_| "expected UTF-8");
    read.and_then(kinds::filename)
        .map_err(|message| refused("Content-Disposition", "malformed", message))
}

fn refused(field: &str, code: &str, message: impl Into<String>) -> Problem {
    Problem::Invalid {
        errors: vec![FieldError::new(field, code, message)],
    }
}

/// Upload media for a message
///
/// The body is the file itself, with its `Content-Type`: a JPEG, PNG, MP3, AMR, MP4 or PDF of less than 5 MB. A name, if it has one,
/// comes as `Content-Disposition: attachment; filename="plan.pdf"`. Name the `media_id` in a message of the same conversation; what no
/// message takes within a day is removed.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_sid}/media",
    operation_id = "upload_media",
    tag = "Messages",
    params(("conversation_sid" = ConversationSid, Path)),
    request_body(
        description = "The bytes of the file.",
        content((Vec<u8> = "image/jpeg"), (Vec<u8> = "image/png"), (Vec<u8> = "audio/mpeg"), (Vec<u8> = "audio/amr"), (Vec<u8> = "video/mp4"), (String = "application/pdf", example = "%PDF-1.7\n")),
    ),
    responses(
        (status = 201, description = "It is kept until a message takes it.", body = MediaBody),
        (status = 413, description = "The file has 5 MB or more.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Handsets are not sent files of this type.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["messages:write"])),
)]
pub(super) async fn upload(
    State(api): State<Api>,
    caller: Caller<scope::MessagesWrite>,
    Path(sid): Path<ConversationSid>,
    upload: Upload,
) -> Result<Response, Problem> {
    let new = NewMedia {
        conversation_sid: sid,
        media_type: upload.media_type,
        filename: upload.filename,
        content: upload.content.into(),
        requested_by: caller.name(),
    };
    match upload.call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let now = api.clock.now();
            let kept = media::keep_in(first.conn(), new, api.media_kept_max, now).await?;
            first
                .answer(StatusCode::CREATED, None, &MediaBody::from(kept))
                .await
        }
    }
}

/// The parameters of the path.
#[derive(Debug, Deserialize)]
pub(super) struct OfMedia {
    conversation_sid: ConversationSid,
    message_sid: MessageSid,
    media_sid: MediaSid,
}

/// What of a message's media is looked at here.
#[derive(Deserialize)]
struct Listed {
    sid: String,
}

/// Fetch the media of a message
///
/// Leads to the file at Twilio: an address that works for a few minutes, without a key, so it should go no further. Ask again for
/// another.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/messages/{message_sid}/media/{media_sid}",
    operation_id = "fetch_media",
    tag = "Messages",
    params(("conversation_sid" = ConversationSid, Path), ("message_sid" = MessageSid, Path), ("media_sid" = String, Path)),
    responses((status = 307, description = "`Location` is where the file is for now.")),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn fetch(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Path(of): Path<OfMedia>,
) -> Result<Response, Problem> {
    const NONE: Problem = Problem::NotFound { what: "media" };
    let mut conn = api.pool.acquire().await?;
    let conversation = conversations::expect(&mut conn, &of.conversation_sid).await?;
    let (sid, message_sid, media_sid) = (&of.conversation_sid, &of.message_sid, &of.media_sid);
    let message = read::message(&mut conn, sid.as_str(), message_sid.as_str()).await?;
    drop(conn);
    let message = message
        .filter(|message| message.removed_at.is_none())
        .ok_or(NONE)?;
    let listed: Vec<Listed> = message
        .media
        .and_then(|media| serde_json::from_str(&media).ok())
        .unwrap_or_default();
    if !listed.iter().any(|one| one.sid == media_sid.as_str()) {
        return Err(NONE);
    }
    let account = api.opt_outs.accounts.get(conversation.account_sid.as_str());
    let account = account.ok_or(Problem::Unavailable)?;
    let stored = account
        .client
        .fetch_media(media_sid)
        .await
        .map_err(|error| match error {
            twilio::Error::NotFound { .. } => NONE,
            _ => Problem::Unavailable,
        })?;
    let link = stored.links.content_direct_temporary.ok_or(NONE)?;
    let link = HeaderValue::from_str(&link).map_err(|_| Problem::Unavailable)?;
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, link);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::ConversationNotFound => Self::NotFound { what: "conversation" },
            UploadError::ConversationClosed => Self::conflict(
                "conversation_closed",
                "the conversation is over, which is final at Twilio",
            ),
            UploadError::Full { kept_bytes } => conflict(
                "media_store_full",
                "too much media waits to be sent: send it, or try again when some was sent or has expired",
                json!({ "kept_bytes": kept_bytes }),
            ),
            UploadError::Database(error) => error.into(),
        }
    }
}

impl From<TakeError> for Problem {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Unknown { media_id } => conflict(
                "media_unknown",
                "the conversation has no such media, or no longer: upload it there first",
                json!({ "media_id": media_id }),
            ),
            TakeError::Used { media_id, send_id } => conflict(
                "media_used",
                "the media went with another message: upload it once more to send it again",
                json!({ "media_id": media_id, "send_id": send_id }),
            ),
            TakeError::Database(error) => error.into(),
        }
    }
}
