//! Media that the CRM uploads, to go with a message. Owns `outbound_media`.
//!
//! The bytes are kept here until nothing comes of them any more: the message was sent, or failed, or no message took them.
//! [`kinds`] says what can be sent at all.

pub mod kinds;
mod store;

use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::{ConversationSid, MediaSid, new_id};
use crate::mirror;

use kinds::MediaType;
pub(super) use store::{content, drop_content, forget_upload, note_uploaded};
pub use store::{due, erase, erase_person, of_messages, purge_unused};

/// How long an upload at Twilio is counted on: it removes what no message has taken after some five minutes.
pub(super) const UPLOAD_LASTS: SignedDuration = SignedDuration::from_mins(3);

/// Media to be kept until it is sent. Its type and size are checked before. Does not print.
#[derive(Clone)]
pub struct NewMedia {
    pub conversation_sid: ConversationSid,
    pub media_type: MediaType,
    pub filename: Option<String>,
    pub content: Vec<u8>,
    pub requested_by: String,
}

/// Media as stored, without its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Media {
    pub media_id: Uuid,
    pub conversation_sid: String,
    pub content_type: String,
    pub filename: Option<String>,
    pub size_bytes: i64,
    /// The bytes are still here.
    pub is_kept: bool,
    /// The message that took it.
    pub outbound_message_id: Option<Uuid>,
    /// What Twilio calls it, and since when.
    pub uploaded: Option<(MediaSid, Timestamp)>,
    pub created_at: Timestamp,
    pub erased_at: Option<Timestamp>,
}

/// Why media cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("no such conversation")]
    ConversationNotFound,
    #[error("the conversation is closed")]
    ConversationClosed,
    #[error("too much media waits to be sent")]
    Full { kept_bytes: i64 },
    #[error("cannot keep the media")]
    Database(#[from] sqlx::Error),
}

/// Why a message cannot have the media that it asks for.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("the conversation has no such media, or no longer")]
    Unknown { media_id: Uuid },
    #[error("the media went with another message")]
    Used { media_id: Uuid, send_id: Uuid },
    #[error("cannot take the media")]
    Database(#[from] sqlx::Error),
}

/// Keeps media within the caller's transaction, while all that is kept has room in `kept_max`.
pub async fn keep_in(
    conn: &mut PgConnection,
    new: NewMedia,
    kept_max: u64,
    now: Timestamp,
) -> Result<Media, UploadError> {
    let conversation = mirror::read::conversation(conn, new.conversation_sid.as_str())
        .await?
        .ok_or(UploadError::ConversationNotFound)?;
    if conversation.is_over() {
        return Err(UploadError::ConversationClosed);
    }
    let size_bytes = i64::try_from(new.content.len()).unwrap_or(i64::MAX);
    let kept_bytes = store::kept_bytes(conn).await?;
    if kept_bytes.saturating_add(size_bytes) > i64::try_from(kept_max).unwrap_or(i64::MAX) {
        return Err(UploadError::Full { kept_bytes });
    }
    let media = Media {
        media_id: new_id(),
        conversation_sid: new.conversation_sid.into_string(),
        content_type: new.media_type.as_str().to_owned(),
        filename: new.filename,
        size_bytes,
        is_kept: true,
        outbound_message_id: None,
        uploaded: None,
        created_at: now,
        erased_at: None,
    };
    store::insert(conn, &media, &new.content, &new.requested_by).await?;
    Ok(media)
}

/// Gives media to a message, all of it or none.
pub(super) async fn take(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    wanted: &[Uuid],
    outbound_message_id: Uuid,
) -> Result<(), TakeError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let found = store::lock(conn, sid, wanted).await?;
    for media_id in wanted {
        let media = found.iter().find(|one| one.media_id == *media_id);
        match media {
            None => return Err(TakeError::Unknown { media_id: *media_id }),
            Some(media) => {
                if let Some(send_id) = media.outbound_message_id {
                    return Err(TakeError::Used {
                        media_id: *media_id,
                        send_id,
                    });
                }
                if !media.is_kept {
                    return Err(TakeError::Unknown { media_id: *media_id });
                }
            }
        }
    }
    store::give(conn, sid, wanted, outbound_message_id).await?;
    Ok(())
}
