//! Comparing the mirror with Twilio, and repairing it. Owns `sweep_run` and `conversation_check`.
//!
//! Twilio has no "changed since", so a sweep lists all conversations and looks at each ([`check`]): a *walk* reads it
//! whole, a *probe* reads its members and its newest messages, and a conversation that is over and was walked after its
//! end is left alone. What differs enters the mirror by the one door ([`crate::projection::commit`]), under the same
//! rule as a webhook, so that a sweep never undoes one that came while it read; and only with the revisions from before
//! the read does it settle what times alone cannot.
//!
//! A run is kept as data ([`run`], [`store`]): where the list has come to, who works on it until when, and what was
//! found. It may be killed anywhere and goes on where it was. How complete the mirror is, is told by [`completeness`].

mod budget;
mod check;
mod compare;
pub mod completeness;
mod periodic;
mod run;
mod store;
mod totals;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::health::Health;
use crate::{config, twilio};

pub use budget::Budget;
pub use run::Watch;
pub use store::{last_completed, newest};
pub use totals::{Reading, Totals};

/// What sweeps need. Cheap to clone; clones share the budget.
#[derive(Debug, Clone)]
pub struct Sweeper {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
    pub budget: Budget,
    /// From the start of one periodic sweep to that of the next; zero for none.
    pub interval: SignedDuration,
    /// A conversation is walked again when its last walk is older.
    pub full_after: SignedDuration,
    /// Judges every conversation that was looked at.
    pub health: Health,
}

impl Sweeper {
    pub fn new(
        pool: PgPool,
        clock: Clock,
        accounts: Accounts,
        settings: &config::Sweep,
        health: Health,
    ) -> Self {
        let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Self {
            pool,
            clock,
            accounts,
            budget: Budget::per_minute(settings.requests_per_minute),
            interval: signed(settings.interval),
            full_after: signed(settings.full_after),
            health,
        }
    }
}

/// Why a sweep stopped before its end. It goes on from there when it is started again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
    #[error("Twilio did not answer as hoped")]
    Twilio(#[from] twilio::Error),
    /// Another process is at it, and was last seen alive this long before it counts as dead.
    #[error("another process is sweeping the account")]
    Busy(SignedDuration),
    #[error("another process has taken the sweep over")]
    LeaseLost,
}

impl Error {
    /// Whether trying again may help: Twilio or the database is away or busy.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Database(error) => crate::db::is_passing(error),
            Self::Twilio(error) => error.may_repeat(),
            Self::Busy(_) | Self::LeaseLost => true,
        }
    }
}

/// By which reading a conversation was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The conversation, its members and its newest messages, of a sweep.
    Probe,
    /// All of it, by a sweep.
    Walk,
    /// The conversation and its members, since what was stored was in doubt. Messages were not compared.
    Read,
}

impl By {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Walk => "walk",
            Self::Read => "read",
        }
    }

    fn from_column(text: &str) -> Self {
        match text {
            "walk" => Self::Walk,
            "read" => Self::Read,
            _ => Self::Probe,
        }
    }
}

/// How many resources of one conversation were compared, the conversation itself aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Compared {
    pub participants: i64,
    pub messages: i64,
    pub receipts: i64,
}

impl Compared {
    pub fn total(self) -> i64 {
        self.participants + self.messages + self.receipts
    }
}

/// How many differences were found, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Found {
    /// Twilio had it and the mirror did not. Repaired.
    pub missing: i64,
    /// The mirror had an older state of it. Repaired.
    pub stale: i64,
    /// The mirror had it and Twilio no longer does. Repaired: it is a tombstone.
    pub gone: i64,
    /// Receipts that the mirror has and Twilio does not list. Kept, since a receipt cannot be taken back.
    pub extra: i64,
}

impl Found {
    pub fn repaired(self) -> i64 {
        self.missing + self.stale + self.gone
    }
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, other: Self) {
        self.missing += other.missing;
        self.stale += other.stale;
        self.gone += other.gone;
        self.extra += other.extra;
    }
}

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All conversations of the account's service.
    Account,
    /// Some, named by whoever asked for it.
    Conversations,
}

impl Scope {
    fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Conversations => "conversations",
        }
    }

    fn from_column(text: &str) -> Self {
        match text {
            "conversations" => Self::Conversations,
            _ => Self::Account,
        }
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Not at its end: under way, or stopped and to be taken up again.
    Running,
    /// Every conversation was looked at.
    Completed,
    /// It came to its end, and `failed` conversations could not be read.
    Incomplete,
    /// It gave way to a run that looks at more.
    Abandoned,
}

impl RunState {
    fn from_column(text: &str) -> Self {
        match text {
            "completed" => Self::Completed,
            "incomplete" => Self::Incomplete,
            "abandoned" => Self::Abandoned,
            _ => Self::Running,
        }
    }
}

/// One pass over an account, or over some of its conversations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Run {
    pub sweep_run_id: Uuid,
    pub account_sid: String,
    pub scope: Scope,
    /// Everything is walked, and all receipts are read.
    pub everything: bool,
    pub state: RunState,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// To Twilio.
    pub requests: i64,
    /// Conversations whose members and newest messages were compared.
    pub probed: i64,
    /// Conversations that were compared whole.
    pub walked: i64,
    /// Conversations that are over, were walked after their end, and are as Twilio lists them.
    pub left_alone: i64,
    /// Conversations of which something is still different. The next sweep walks them.
    pub unsettled: i64,
    /// Conversations that could not be read.
    pub failed: i64,
    /// Conversations, participants, messages and receipts.
    pub compared: i64,
    pub found: Found,
    /// Why the last attempt stopped, if one did.
    pub last_error: Option<String>,
}

impl Run {
    /// Conversations that were looked at so far.
    pub fn conversations(&self) -> i64 {
        self.probed + self.walked + self.left_alone + self.unsettled + self.failed
    }
}
