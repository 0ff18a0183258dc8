//! Group texts: those that we are asked to start, and those that a customer started. Owns `group_text` and
//! `group_text_choice`.
//!
//! Starting one is a request that is validated whole before anything is asked of Twilio ([`validate`]), a row, and a
//! task that creates the conversation with its members in one call ([`work`]). Twilio answers before the group is
//! ready; what becomes of it is seen by webhook or by asking ([`mod@follow`]).

pub mod choice;
pub mod erase;
mod follow;
mod operations;
mod other_number;
mod store;
pub mod validate;
mod work;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::queue::{Lane, TaskKind};

pub use choice::{Choice, IfExists};
pub use follow::follow;
pub use operations::{GroupTexts, NewGroupText, StartGroupTextError, Started};
pub use store::{find, find_by_conversation, page};
pub use validate::{NewMember, Violation};
pub use work::{Check, Create};

/// The kind of task that creates the conversation at Twilio.
pub const CREATE_TASK: TaskKind = TaskKind::new("group_text.create", Lane::Foreground);
/// The kind of task that asks Twilio whether the group is ready.
pub const CHECK_TASK: TaskKind = TaskKind::new("group_text.check", Lane::Foreground);

/// Where a group text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Twilio has not been asked yet, or has not answered.
    Requested,
    /// Twilio is adding the members.
    Initializing,
    Active,
    /// It could not be made; `failure_code` and `failure_detail` say why.
    Failed,
    /// The conversation was closed or removed at Twilio.
    Closed,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Initializing => "initializing",
            Self::Active => "active",
            Self::Failed => "failed",
            Self::Closed => "closed",
        }
    }
}

/// Who started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// We were asked to.
    Requested,
    /// A handset wrote to a group with one of our numbers in it.
    Autocreated,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Autocreated => "autocreated",
        }
    }
}

/// A member that was asked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Member {
    /// One of our numbers, and who is behind it.
    Line { line: String, holder: Option<String> },
    /// A handset.
    Outsider { address: String },
}

/// A group text as stored.
#[derive(Clone, PartialEq)]
pub struct GroupText {
    pub group_text_id: Uuid,
    pub account_sid: String,
    pub origin: Origin,
    pub conversation_sid: Option<String>,
    /// Twilio had an open conversation of these numbers already, and we took it.
    pub adopted: bool,
    pub state: State,
    pub failure_code: Option<String>,
    pub failure_detail: Option<String>,
    pub friendly_name: Option<String>,
    /// JSON object as text.
    pub attributes: Option<String>,
    pub roster: Option<String>,
    /// Empty where a customer started it.
    pub members: Vec<Member>,
    pub create_attempt: i16,
    pub requested_by: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl GroupText {
    /// The name under which the conversation is found again where the answer of its creation was lost. Each attempt has
    /// its own, since a closed conversation keeps its name.
    pub fn unique_name(&self) -> String {
        match self.create_attempt {
            1 => format!("hookswitch-{}", self.group_text_id),
            attempt => format!("hookswitch-{}-{attempt}", self.group_text_id),
        }
    }
}
