//! The ownership ledger: who held which line when. Owns `holding`, `tenure` and `line_lease`.
//!
//! Every statement of a source about a participant's seat is kept as a [`Fact`]; tenures are derived from all facts of
//! a conversation ([`mod@derive`]), so that a webhook that comes late corrects the past. What was believed before stays in
//! the table with the time at which it was superseded.

pub mod derive;
pub mod erase;
mod held;
mod lease;
mod load;
mod store;

use jiff::Timestamp;
use uuid::Uuid;

use crate::events::Via;
use crate::ids::{ConversationSid, ParticipantSid, PhoneNumber};
use crate::mirror::Version;

pub use held::{Held, held_by, last_holders_besides};
pub use lease::{Lease, LeaseHeld, acquire_line, line_fence_holds, release_line, take_line_away};
pub use load::loads;
pub use store::{
    Affected, Leases, Recorded, holder_of, lines_of, lines_of_many, record, tenures_of_conversation,
    tenures_of_conversation_as_of, tenures_of_line, tenures_of_line_as_of,
};

/// What a source says about the seat of one participant, as of a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub conversation_sid: ConversationSid,
    pub participant_sid: ParticipantSid,
    pub version: Version,
    /// The projected address; none for a chat participant without one.
    pub line: Option<PhoneNumber>,
    pub identity: Option<String>,
    pub removed: bool,
    pub via: Via,
}

/// A stretch of time in which one line had one holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    pub tenure_id: Uuid,
    pub conversation_sid: String,
    pub line: String,
    /// None: nobody staffed the line.
    pub holder: Option<String>,
    pub from: Timestamp,
    /// None: it lasts.
    pub to: Option<Timestamp>,
    pub cause: Cause,
    pub transfer_id: Option<Uuid>,
    pub via: String,
    pub recorded_at: Timestamp,
}

/// Why a tenure began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The line came to be with this holder.
    Created,
    /// A transfer of ours.
    Transfer,
    /// Somebody else changed it at Twilio: its console, or another program.
    Upstream,
    /// The last participant on the line was removed.
    Removed,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Transfer => "transfer",
            Self::Upstream => "upstream",
            Self::Removed => "removed",
        }
    }

    fn from_column(text: &str) -> Self {
        match text {
            "created" => Self::Created,
            "transfer" => Self::Transfer,
            "removed" => Self::Removed,
            _ => Self::Upstream,
        }
    }
}
