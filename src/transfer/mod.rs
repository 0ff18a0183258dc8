//! Giving a line to another holder, as durable work. Owns `transfer`, `transfer_step` and `transfer_method`.
//!
//! A transfer is offered (warm, escalation) or begins at once (assign, cold). The swap itself is [`work`]: read what is
//! at Twilio, decide by the pure [`machine`], make one call, look again, until the reading says that the new holder has
//! the line. Every line of it may be the last one that runs: the next run reads and goes on from what is.

pub mod erase;
mod expiry;
pub mod machine;
mod operations;
mod store;
mod work;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{ConversationSid, Identity, PhoneNumber};

pub use expiry::Expiry;
pub use operations::{DecideError, NewTransfer, StartTransferError, Transfers};
pub use store::{Filter, contested_windows, find, page, steps};
pub use work::Swap;

/// The kind of task that does the swap.
pub const SWAP_TASK: &str = "transfer.swap";
/// The kind of task that ends an offer which nobody answered.
pub const EXPIRE_TASK: &str = "transfer.expire";

/// Why a line changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nobody holds the line; somebody gets it at once.
    Assign,
    /// Somebody else gets it at once.
    Cold,
    /// Somebody else is offered it, and gets it on accepting.
    Warm,
    /// A supervisor is offered it, with less time to answer.
    Escalation,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assign => "assign",
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Escalation => "escalation",
        }
    }

    /// Whether the target is asked first.
    pub fn is_offered(self) -> bool {
        match self {
            Self::Assign | Self::Cold => false,
            Self::Warm | Self::Escalation => true,
        }
    }
}

/// Where a transfer stands. The last six are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for the target's answer.
    Offered,
    /// The identity behind the line is being replaced. The old holder has the line until that is confirmed.
    Swapping,
    /// The new holder has the line, read back from Twilio.
    Completed,
    Declined,
    Cancelled,
    /// Nobody answered in time.
    Expired,
    /// It could not be done; the line is as it was.
    Failed,
    /// It is not known, or not as it should be; `outcome_detail` has the facts, and a person has to look.
    NeedsAttention,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Swapping => "swapping",
            Self::Completed => "completed",
            Self::Declined => "declined",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::NeedsAttention => "needs_attention",
        }
    }

    pub fn is_final(self) -> bool {
        match self {
            Self::Offered | Self::Swapping => false,
            Self::Completed
            | Self::Declined
            | Self::Cancelled
            | Self::Expired
            | Self::Failed
            | Self::NeedsAttention => true,
        }
    }
}

/// A transfer as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Transfer {
    pub transfer_id: Uuid,
    pub account_sid: String,
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    pub kind: Kind,
    /// None: nobody held the line.
    pub from_holder: Option<String>,
    pub to_holder: Identity,
    pub state: State,
    pub requested_by: String,
    /// Who accepted, declined or cancelled.
    pub decided_by: Option<String>,
    pub reason: Option<String>,
    pub note: Option<String>,
    /// Why it ended without success: a stable code, and a sentence with the facts.
    pub outcome_code: Option<String>,
    pub outcome_detail: Option<String>,
    /// How the identity was replaced: `update`, `add_remove`, or `none` where it was so already.
    pub method: Option<String>,
    pub offer_expires_at: Option<Timestamp>,
    pub swap_deadline_at: Option<Timestamp>,
    /// Messages written between these two are contested: it is not certain who had the line.
    pub contested_from: Option<Timestamp>,
    pub contested_to: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub step_number: i32,
    pub action: String,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub outcome: Option<String>,
    pub detail: Option<String>,
}
