//! Brings the media of a message to Twilio, before the message that names it.
//!
//! An upload may be repeated: one that no message takes is removed at Twilio by itself. So a crash after it costs an
//! upload, and never a second message; that is the message's own affair ([`super::work`]).

use crate::accounts::Account;
use crate::ids::MediaSid;
use crate::outbox::media::{self, UPLOAD_LASTS};
use crate::outbox::work::Send;
use crate::outbox::{OutboundMessage, media::Media};
use crate::projection::read::Failure;
use crate::queue::{self, Task};
use crate::twilio::media::NewMedia;
use crate::twilio::{self, Class};

/// Where the media of a message stands.
pub(super) enum Uploaded {
    /// There is none to upload.
    None,
    As(MediaSid),
    /// The bytes are not here any more.
    Gone,
    /// Twilio did not take it.
    Refused(twilio::Error),
    /// Somebody else works on the message.
    LeaseLost,
}

impl Send {
    /// Uploads what the message is to show, unless Twilio has it still.
    pub(super) async fn ensure_uploaded(
        &self,
        task: &Task,
        account: &Account,
        message: &OutboundMessage,
    ) -> Result<Uploaded, Failure> {
        if message.media_count == 0 {
            return Ok(Uploaded::None);
        }
        let mut conn = self.pool.acquire().await?;
        let id = message.outbound_message_id;
        let mut all = media::of_messages(&mut conn, &[(&message.conversation_sid, id)]).await?;
        let Some(media) = all.pop() else {
            return Ok(Uploaded::Gone);
        };
        if let Some((sid, at)) = &media.uploaded
            && self.clock.now().duration_since(*at) < UPLOAD_LASTS
        {
            return Ok(Uploaded::As(sid.clone()));
        }
        let Some(content) = media::content(&mut conn, &media).await? else {
            return Ok(Uploaded::Gone);
        };
        drop(conn);
        let new = NewMedia {
            content_type: media.content_type.clone(),
            filename: media.filename.clone(),
            content,
        };
        match account.client.upload_media(new).await {
            Ok(stored) => self.note_uploaded(task, &media, stored.sid).await,
            Err(error) => Ok(Uploaded::Refused(error)),
        }
    }

    async fn note_uploaded(&self, task: &Task, media: &Media, sid: MediaSid) -> Result<Uploaded, Failure> {
        let mut transaction = self.pool.begin().await?;
        if !queue::is_held(&mut transaction, task.lease).await? {
            return Ok(Uploaded::LeaseLost);
        }
        media::note_uploaded(&mut transaction, media, &sid, self.clock.now()).await?;
        transaction.commit().await?;
        Ok(Uploaded::As(sid))
    }
}

/// Whether an upload that failed may succeed as it is, later. One with an unknown outcome is made again.
pub(super) fn may_pass(error: &twilio::Error) -> bool {
    match error {
        twilio::Error::Throttled { .. }
        | twilio::Error::Unavailable { .. }
        | twilio::Error::OutcomeUnknown { .. }
        | twilio::Error::Malformed { .. } => true,
        twilio::Error::Rejected(rejection) => matches!(
            rejection.class,
            Class::Conflict | Class::Throttled | Class::Failed
        ),
        twilio::Error::NotFound { .. } | twilio::Error::Configuration { .. } => false,
    }
}
