//! Giving a line to another holder, as durable work. Owns `transfer`, `transfer_candidate`, `transfer_step` and
//! `transfer_method`.
//!
//! A transfer is offered (warm, escalation), to one person or to one after the other of a list, or begins at once. What
//! people do is [`start`], [`take`] (force, release, handback) and [`answer`] (accept, decline, cancel); who
//! may do it is [`people`]. The swap itself is [`work`]: read what is at Twilio, decide by the pure [`machine`], make one
//! call, look again, until the reading says that the new holder has the line. Every line of it may be the last one that
//! runs: the next run reads and goes on from what is.
//!
//! Locks are taken in one order: the conversation, the swap's task, the line's lease, the transfer, its candidates.

mod answer;
mod assign;
mod candidate;
pub mod erase;
mod expiry;
pub mod machine;
mod operations;
pub mod people;
mod start;
mod step;
mod store;
mod take;
mod tell;
mod work;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::queue::{Lane, TaskKind};

pub use answer::DecideError;
pub use assign::{Assigned, assign_in, coming_to};
pub use candidate::{Candidate, candidates};
pub use expiry::Expiry;
pub use operations::{IfOpen, NewTransfer, Passed, StartTransferError, Transfers, Turn};
pub use people::Actor;
pub use step::steps;
pub use store::{Filter, contested_windows, find, page};
pub use take::{GiveUp, NewForce};
pub use tell::tell_refused;
pub use work::Swap;

/// The kind of task that does the swap.
pub const SWAP_TASK: TaskKind = TaskKind::new("transfer.swap", Lane::Foreground);
/// The kind of task that ends an offer which nobody answered.
pub const EXPIRE_TASK: TaskKind = TaskKind::new("transfer.expire", Lane::Local);

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
    /// A supervisor gives it to somebody who is not asked, also while another transfer of it is under way.
    Force,
    /// Its holder lets it go: nobody has it then.
    Release,
    /// It goes back to whoever held it before.
    Handback,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assign => "assign",
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Escalation => "escalation",
            Self::Force => "force",
            Self::Release => "release",
            Self::Handback => "handback",
        }
    }

    /// Whether the target is asked first.
    pub fn is_offered(self) -> bool {
        match self {
            Self::Assign | Self::Cold | Self::Force | Self::Release | Self::Handback => false,
            Self::Warm | Self::Escalation => true,
        }
    }
}

/// Where a transfer stands. All but the first two are final.
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
    /// Nobody on its list took it.
    Exhausted,
    /// A newer transfer of the line took its place.
    Superseded,
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
            Self::Exhausted => "exhausted",
            Self::Superseded => "superseded",
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
            | Self::Exhausted
            | Self::Superseded
            | Self::Failed
            | Self::NeedsAttention => true,
        }
    }
}

/// A transfer as stored.
#[derive(Clone, PartialEq)]
pub struct Transfer {
    pub transfer_id: Uuid,
    pub account_sid: String,
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    pub kind: Kind,
    /// None: nobody held the line.
    pub from_holder: Option<String>,
    /// Who gets it; of a list, whose turn it is or was. None: it is left to nobody.
    pub to_holder: Option<Identity>,
    pub state: State,
    pub requested_by: String,
    /// Who accepted, declined or cancelled.
    pub decided_by: Option<String>,
    /// For whom a supervisor stood in.
    pub decided_as: Option<String>,
    /// The open transfer that this one ended.
    pub supersedes: Option<Uuid>,
    pub superseded_by: Option<Uuid>,
    pub reason: Option<String>,
    pub note: Option<String>,
    /// What the new holder says to the group once the line is theirs.
    pub introduction: Option<String>,
    /// The message in the outbox that says it.
    pub introduction_send_id: Option<Uuid>,
    /// Who else may be found on the line, besides `from_holder`: a swap that was under way was taken over.
    pub displaced: Vec<Option<String>>,
    /// What keeps the swap from going on.
    pub waiting: Option<Waiting>,
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

impl Transfer {
    /// Who gets the line, as text.
    pub fn to(&self) -> Option<&str> {
        self.to_holder.as_ref().map(Identity::as_str)
    }

    /// The time that its swap has is over.
    pub(crate) fn is_overdue(&self, now: Timestamp) -> bool {
        self.swap_deadline_at.is_some_and(|at| at <= now)
    }

    /// Whether the offer stands no longer, though its timer has not run yet.
    fn is_past_its_time(&self, now: Timestamp) -> bool {
        self.state == State::Offered && self.offer_expires_at.is_some_and(|at| at <= now)
    }
}

/// Without what people wrote, and without the number.
impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer")
            .field("transfer_id", &self.transfer_id)
            .field("conversation_sid", &self.conversation_sid)
            .field("kind", &self.kind)
            .field("from_holder", &self.from_holder)
            .field("to_holder", &self.to_holder)
            .field("state", &self.state)
            .field("outcome_code", &self.outcome_code)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

/// What keeps a swap from going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `twilio`, `activation`, `line`, or `account`: the account is not configured here.
    pub what: String,
    /// The class of the last error, with Twilio's code where it gave one: `unavailable`, `throttled_20429`.
    pub error: Option<String>,
    pub since: Timestamp,
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
