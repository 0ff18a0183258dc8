//! What becomes of a line that nobody holds when a customer writes in it. Owns `line_assignment` and `assignment_turn`.
//!
//! It goes to whoever held this number with these people last, else to whom the number's rule says, else it waits in the
//! queue of the number's team until somebody takes it or can be given it. [`mod@choose`] is pure. It is decided in the
//! transaction that saw it ([`mod@follow`]), which begins the transfer, too; those that wait are looked at again
//! ([`Look`]). A number without a rule is left alone. What cannot be decided yet ([`Why`]) is noted, and decided later.
//!
//! Locks are taken in one order: the conversation, then the turns of the teams, in the order of their ids.

pub mod choose;
mod decide;
pub mod erase;
mod find;
mod follow;
mod look;
mod store;
mod take;
mod tell;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber};
use crate::numbers::Rule;
use crate::queue::{Lane, TaskKind};

use self::choose::Why;

pub use follow::follow;
pub use look::{Look, look_soon};
pub use store::{Waiting, count_waiting, page};
pub use take::{Take, TakeError, take_in};

/// The kind of task that looks at lines that wait, and at what became of those that were given.
pub const LOOK_TASK: TaskKind = TaskKind::new("assignment.look", Lane::Local);

/// Somebody who was not given a line, and why, as a stable code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Passed {
    pub identity: String,
    /// `unknown`, `left`, `away`, `outside_hours`, `at_capacity`, `target_in_group`, or how a transfer to them ended.
    pub why: String,
}

/// A line that nobody holds and that somebody is to have.
#[derive(Debug, Clone)]
struct Line {
    conversation_sid: ConversationSid,
    line: PhoneNumber,
    account_sid: AccountSid,
    team_id: Option<String>,
    rule: Rule,
    /// Of [`Rule::Person`].
    person: Option<Identity>,
    /// Who is in the group, or about to be, but not on this line: Twilio takes a person once.
    elsewhere: Vec<String>,
    /// Who held this number with these people last.
    last_holder: Option<String>,
    /// Why it is not decided yet.
    not_yet: Option<Why>,
    /// What is stored of it.
    stored: Option<Stored>,
}

/// What is stored of a line that waits.
#[derive(Debug, Clone)]
struct Stored {
    reason: String,
    team_id: Option<String>,
    passed: Vec<Passed>,
    since: Timestamp,
}

/// A row of what was given or waits.
#[derive(Debug, Clone)]
struct Row {
    line: PhoneNumber,
    account_sid: AccountSid,
    team_id: Option<String>,
    is_waiting: bool,
    since: jiff_sqlx::Timestamp,
    to_holder: Option<String>,
    transfer_id: Option<Uuid>,
    updated_at: jiff_sqlx::Timestamp,
}
