//! Webhooks as received. Owns `webhook`, `webhook_pending`, `webhook_set_aside`, `projected_batch`, `quarantined_webhook`
//! and `projection_lane`.
//!
//! [`receive`] verifies, has the webhook committed by [`writer`], and answers; [`process`] projects what was committed,
//! in order per conversation, in one transaction with everything that follows from it.

pub mod erase;
pub mod events;
pub mod pace;
pub mod process;
pub mod receive;
pub mod replay;
pub mod restate;
pub mod set_aside;
mod store;
pub mod writer;

use jiff::Timestamp;
use uuid::Uuid;

use crate::ids::AccountSid;

/// The channel on which PostgreSQL tells projectors that webhooks were stored.
pub const CHANNEL: &str = "hookswitch_webhook";

/// How many lanes conversations are spread over; as many as the migration made.
pub const LANES: i16 = 16;

/// How what Twilio sent is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A form, of a POST's body or a GET's query.
    Form,
    /// One event of Event Streams, as JSON.
    CloudEvent,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::CloudEvent => "cloud_event",
        }
    }

    fn from_column(text: &str) -> Self {
        match text {
            "cloud_event" => Self::CloudEvent,
            _ => Self::Form,
        }
    }
}

/// A verified webhook about to be stored.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    pub received_at: Timestamp,
    pub account_sid: AccountSid,
    pub conversation_sid: Option<String>,
    pub event_type: String,
    pub dedupe_key: Uuid,
    pub method: &'static str,
    pub format: Format,
    /// As it came.
    pub form: Vec<u8>,
    pub idempotency_token: Option<String>,
    pub token_index: i16,
    pub url_candidate: String,
}

impl NewWebhook {
    /// The lane: the same for all webhooks of a conversation, of an account where there is no conversation.
    pub fn lane(&self) -> i16 {
        let key = self
            .conversation_sid
            .as_deref()
            .unwrap_or(self.account_sid.as_str());
        // FNV-1a: stable over versions and machines, unlike the standard library's hashers.
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        i16::try_from(hash % u64::from(LANES.unsigned_abs())).expect("less than LANES")
    }
}

/// What became of a webhook that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    New,
    /// It had been stored before.
    Duplicate,
}
