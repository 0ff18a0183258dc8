//! Messages that a CRM asks us to send. Owns `outbound_message`, and `outbound_media`, what goes with them.
//!
//! Twilio has no idempotency key for messages, and an answer may be lost after the effect. So each carries its own id in
//! its `Attributes`, and where it is not known whether one was sent, the newest messages are listed and looked through
//! before anything is sent again ([`work`]). What a message shows is uploaded before it ([`media`]). Where that does not tell, the
//! mirror does in time, or a person ([`resolve`]).

pub mod erase;
mod held;
pub mod media;
mod operations;
mod resolve;
mod store;
mod upload;
mod work;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::queue::{Lane, TaskKind};

pub use held::{Resume, look_at_held};
pub use operations::{Extras, NewOutboundMessage, Outbox, PostError, SendError};
pub use resolve::{ResolveError, Verdict, follow};
pub use store::{count_unknown, find, page, page_of_open};
pub use work::Send;

/// The kind of task that sends one message.
pub const SEND_TASK: TaskKind = TaskKind::new("outbox.send", Lane::Foreground);

/// The key in a message's `Attributes` under which its id stands.
pub const ATTRIBUTE: &str = "hookswitch_send_id";

/// Twilio takes at most 1600 characters to a handset (50504).
pub const BODY_MAX: usize = 1600;

/// Twilio takes at most 4 KiB of attributes with a message, and our id is among them.
pub const ATTRIBUTES_MAX: usize = 4_000;

/// Where a message stands on its way to Twilio; what became of it on handsets is in its receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Queued,
    /// Twilio was asked; whether it took the message may be unknown for a moment.
    Sending,
    /// Twilio has it, as `message_sid`.
    Sent,
    /// It was not sent; `outcome_code` and `outcome_detail` say why.
    Failed,
    /// It is not known whether it was sent, and a person has to look.
    NeedsAttention,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::NeedsAttention => "needs_attention",
        }
    }
}

/// Why a message is not sent yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The class of Twilio's last error, with its code where it gave one: `unavailable`, `throttled_20429`.
    pub error: String,
    /// When it began.
    pub since: Timestamp,
}

/// A message as stored.
#[derive(Clone, PartialEq)]
pub struct OutboundMessage {
    pub outbound_message_id: Uuid,
    pub conversation_sid: String,
    pub account_sid: String,
    pub line: String,
    /// Only this person may be the author, where the request said so.
    pub as_holder: Option<String>,
    /// Who was the author: the line's holder when it was sent, or the number where it was unstaffed.
    pub author: Option<String>,
    pub body: String,
    /// JSON object as text.
    pub attributes: Option<String>,
    /// How many media go with it.
    pub media_count: i16,
    /// Who asked for it knew that a member has opted out.
    pub acknowledged_opt_out: bool,
    /// It waits for a supervisor to decide, since then.
    pub held_since: Option<Timestamp>,
    /// Twilio did not take it yet.
    pub waiting: Option<Waiting>,
    pub state: State,
    pub outcome_code: Option<String>,
    pub outcome_detail: Option<String>,
    pub message_sid: Option<String>,
    pub requested_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// When something of it was erased, if it was.
    pub erased_at: Option<Timestamp>,
}

/// Writes how a message ended. Its media is of no use after that.
async fn update(conn: &mut PgConnection, message: &OutboundMessage) -> Result<(), sqlx::Error> {
    store::update(conn, message).await?;
    if message.media_count > 0 {
        media::drop_content(conn, &message.conversation_sid, message.outbound_message_id).await?;
    }
    Ok(())
}

/// Which message of ours one at Twilio says that it is.
fn sent_as(attributes: &str) -> Option<Uuid> {
    let attributes: Map<String, Value> = serde_json::from_str(attributes).ok()?;
    attributes.get(ATTRIBUTE)?.as_str()?.parse().ok()
}
