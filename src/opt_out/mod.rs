//! Members who have opted out of a number of ours. Owns `opt_out`, `opt_out_concern` and `opt_out_policy`.
//!
//! It is seen in what members write ([`keywords`]) and in receipts with Twilio's 21610, where statements enter the mirror
//! ([`mod@follow`], [`said`]), or set by hand ([`operations`]). It holds for a member and a number, in every group that has both.
//! Nobody is removed from a group, since that would make a new thread on everybody's handset; what is done instead, a policy
//! says ([`apply`], [`close`]; [`review`] looks whether it was), and whoever posts is told ([`check`]).
//!
//! Twilio itself does not deliver to whoever has opted out; what stands here is for people to see, and to act by.

mod apply;
pub mod check;
mod close;
mod concerns;
pub mod erase;
mod find;
mod follow;
pub mod keywords;
mod operations;
mod policies;
mod resolve;
mod review;
mod said;
mod store;
mod tasks;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::queue::{Lane, TaskKind};

pub use crate::config::OptOutPolicy as Policy;
pub use apply::Apply;
pub use check::{Standing, standing};
pub use close::Close;
pub use concerns::concerns_of;
pub use follow::follow;
pub use operations::{ClearError, DecideError, Decision, OptOuts, SetError};
pub use resolve::Resolve;
pub use review::Review;
pub use store::{Filter, of_conversation, page};
pub use tasks::{put_resume, put_review};

/// The kind of task that does what the policy says about an opt-out, in every conversation concerned.
pub const APPLY_TASK: TaskKind = TaskKind::new("opt_out.apply", Lane::Local);
/// The kind of task that finds out whom something was about whose member was not known.
pub const RESOLVE_TASK: TaskKind = TaskKind::new("opt_out.resolve", Lane::Local);
/// The kind of task that closes a conversation.
pub const CLOSE_TASK: TaskKind = TaskKind::new("opt_out.close", Lane::Foreground);
/// The kind of task that compares what was done about opt-outs with what the policies say.
pub const REVIEW_TASK: TaskKind = TaskKind::new("opt_out.review", Lane::Local);
/// The kind of task that looks again at messages that are held. The outbox runs it.
pub const RESUME_TASK: TaskKind = TaskKind::new("outbox.resume", Lane::Foreground);

/// By what we learnt of an opt-out, or of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The member wrote it.
    Keyword,
    /// Twilio refused to deliver to them (21610).
    Receipt,
    /// Somebody said so.
    Api,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keyword => "keyword",
            Self::Receipt => "receipt",
            Self::Api => "api",
        }
    }

    fn read(text: &str) -> Self {
        match text {
            "keyword" => Self::Keyword,
            "receipt" => Self::Receipt,
            _ => Self::Api,
        }
    }
}

/// What became of an opt-out in one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConcernState {
    /// The others are written to.
    Warned,
    /// Nothing is posted until a supervisor decides.
    Held,
    /// A supervisor decided that the others are written to.
    Allowed,
    /// A supervisor decided that nothing is posted.
    Stopped,
    Closing,
    Closed,
    /// Twilio did not close it; nothing is posted.
    CloseFailed,
    /// The member opted in again.
    Over,
}

impl ConcernState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warned => "warned",
            Self::Held => "held",
            Self::Allowed => "allowed",
            Self::Stopped => "stopped",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::CloseFailed => "close_failed",
            Self::Over => "over",
        }
    }

    fn read(text: &str) -> Self {
        serde_json::from_value(text.into()).expect("the column's check allows only these words")
    }
}

fn read_policy(text: &str) -> Policy {
    serde_json::from_value(text.into()).expect("the column's check allows only these words")
}

/// A stretch of time in which a member had opted out of a number.
#[derive(Clone, PartialEq, Eq)]
pub struct OptOut {
    pub opt_out_id: Uuid,
    pub account_sid: String,
    /// The number of ours.
    pub line: String,
    /// The member's number.
    pub address: String,
    pub since: Timestamp,
    pub source: Source,
    /// The message or receipt that told it.
    pub evidence: Option<String>,
    /// Where it was seen.
    pub conversation_sid: Option<String>,
    pub set_by: Option<String>,
    /// None: it lasts.
    pub cleared: Option<Cleared>,
    pub recorded_at: Timestamp,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleared {
    pub at: Timestamp,
    pub source: Source,
    pub evidence: Option<String>,
    pub by: Option<String>,
}

/// What became of an opt-out in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    pub conversation_sid: String,
    pub opt_out_id: Uuid,
    pub policy: Policy,
    pub state: ConcernState,
    pub decided_by: Option<String>,
    pub decided_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}
