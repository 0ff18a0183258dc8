//! Handing over all lines of a person by a plan: for a leaver, or for a holiday and back. Owns `handover_plan`,
//! `handover_rule` and `handover_line`.
//!
//! A plan is made ([`operations`]), run, paused and turned round ([`verbs`]), and single lines are decided about by hand
//! ([`by_hand`]). It is prepared by durable work ([`work`]): which lines the person holds is asked of the
//! ledger and of Twilio ([`enumerate`]), what the two do not agree on is read again, and the pure [`plan`] decides to whom
//! each line goes and why. That is the draft. Run, it starts one ordinary transfer after the other, at the [`pace`] that the
//! plan sets; the way back is the same work with the ends changed. There is no second way for a line to change hands.
//!
//! Locks are taken in one order: the conversation, the plan, its lines, and then what a transfer locks.

mod assign;
mod begin;
mod by_hand;
pub mod enumerate;
pub mod erase;
mod follow;
mod give;
mod leaver;
mod operations;
pub mod pace;
pub mod plan;
mod prepare;
mod store;
mod tell;
mod verbs;
mod work;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::events::Via;
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::people::Slug;
use crate::queue::{Lane, TaskKind};

use self::pace::Pace;

pub use by_hand::{Override, OverrideError, Wish};
pub use operations::{Handovers, NewHandover, StartHandoverError};
pub use store::{Counts, Filter, Given, counts, find, given, page, page_of_lines, rules};
pub use tell::tell_refused;
pub use verbs::{By, HandoverError, Verb};
pub use work::{Return, Work};

/// The kind of task that prepares a plan, runs it and follows it to its end.
pub const WORK_TASK: TaskKind = TaskKind::new("handover.work", Lane::Foreground);
/// The kind of task that begins the way back on the day.
pub const RETURN_TASK: TaskKind = TaskKind::new("handover.return", Lane::Local);

/// Who does what no person does.
const US: &str = "hookswitch";

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum $name {
            $($(#[$item])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(UnknownWord),
                }
            }
        }
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected one of the words of this list")]
pub struct UnknownWord;

words! {
    /// Where a plan stands. The last three are ends; a roll back begins again from the first two of them.
    State {
        /// The lines are looked for.
        Planning = "planning",
        /// It is decided to whom each goes; nothing has been done.
        Draft = "draft",
        Running = "running",
        Paused = "paused",
        /// Every line has its end.
        Completed = "completed",
        Cancelled = "cancelled",
        /// What had been handed over went back.
        Returned = "returned",
    }
}

impl State {
    pub fn is_final(self) -> bool {
        match self {
            Self::Planning | Self::Draft | Self::Running | Self::Paused => false,
            Self::Completed | Self::Cancelled | Self::Returned => true,
        }
    }
}

words! {
    Direction {
        /// From the leaver to others.
        Out = "out",
        /// From them to the leaver.
        Back = "back",
    }
}

words! {
    /// What the work on a plan is at.
    Phase {
        /// Twilio is asked which lines there are.
        Listing = "listing",
        /// What is in doubt is read.
        Reading = "reading",
        /// Transfers are started, and followed to their ends.
        Giving = "giving",
    }
}

words! {
    /// Why lines go back.
    Because {
        RollBack = "roll_back",
        Return = "return",
    }
}

words! {
    /// What the leaver is from the beginning of the run on, so that nothing new comes to them.
    Becomes {
        /// `left_at` is set.
        Left = "left",
        /// Away, until the return where there is one.
        Away = "away",
    }
}

words! {
    /// Who of a team is next.
    Spread {
        /// Who holds fewest lines, with those that the plan gives.
        LeastLoaded = "least_loaded",
        /// One after the other, in the order of their identities.
        RoundRobin = "round_robin",
    }
}

words! {
    /// What the ledger and Twilio said of a line when it was found.
    Finding {
        Agrees = "agrees",
        /// The ledger has it, and Twilio did not list it.
        OnlyHere = "only_here",
        /// Twilio listed it, and the ledger did not have it.
        OnlyAtTwilio = "only_at_twilio",
        /// The ledger has it, and Twilio says that the conversation is closed.
        Closed = "closed",
    }
}

words! {
    /// Where a line of a plan stands.
    LineState {
        /// Its transfer has not begun.
        Waiting = "waiting",
        Transferring = "transferring",
        HandedOver = "handed_over",
        /// It stays with the leaver: nobody can take it, or somebody decided so.
        Stays = "stays",
        /// It was no longer the plan's to give: `outcome` says why.
        Skipped = "skipped",
        /// Its transfer did not succeed: `outcome` says why.
        Failed = "failed",
        /// The plan was cancelled or turned round before its turn.
        Cancelled = "cancelled",
    }
}

words! {
    /// Where the way back of a line that was handed over stands.
    BackState {
        Transferring = "transferring",
        Returned = "returned",
        /// It is not with whom it was given to any more, and stays where it is: `back_outcome` says why.
        Kept = "kept",
        Failed = "failed",
    }
}

words! {
    /// What is decided about a line.
    Action {
        Give = "give",
        Release = "release",
        Stay = "stay",
    }
}

words! {
    /// What becomes of a line that nobody of the rules can take.
    Otherwise {
        Stay = "stay",
        Release = "release",
    }
}

/// To whom lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The first of them who can.
    People(Vec<Identity>),
    /// Spread over its members.
    Team { team: Slug, spread: Spread },
    /// Whoever held the line last, besides the leaver.
    LastHolder,
    /// The leaver's supervisor, or the next one up who can.
    Supervisor,
}

/// Somebody who was passed over, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = HandoverPassed)]
pub struct Passed {
    pub to: String,
    /// `left`, `away`, `at_capacity` or `target_in_group`.
    pub why: String,
}

/// A plan as stored, without its rules and lines.
#[derive(Clone, PartialEq)]
pub struct Handover {
    pub handover_id: Uuid,
    pub leaver: Identity,
    pub state: State,
    pub direction: Direction,
    pub phase: Phase,
    pub otherwise: Otherwise,
    pub lines_per_minute: u32,
    pub next_due_at: Option<Timestamp>,
    pub return_at: Option<Timestamp>,
    pub back_because: Option<Because>,
    pub leaver_becomes: Option<Becomes>,
    /// When the run made them so, and while that is not undone.
    pub leaver_changed_at: Option<Timestamp>,
    pub reason: Option<String>,
    pub note: Option<String>,
    /// What each new holder says to the group once the line is theirs; nobody does on the way back.
    pub introduction: Option<String>,
    pub requested_by: String,
    pub started_by: Option<String>,
    /// None, where it was the day that turned it round.
    pub turned_by: Option<String>,
    /// Who did something about it last, and when.
    pub changed_by: String,
    pub changed_at: Timestamp,
    /// The class of Twilio's last error, while it keeps the work from going on.
    pub waiting_error: Option<String>,
    pub waiting_since: Option<Timestamp>,
    /// When Twilio was last asked which lines there are.
    pub listed_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

impl Handover {
    pub fn pace(&self) -> Pace {
        Pace {
            lines_per_minute: self.lines_per_minute,
            next_due_at: self.next_due_at,
        }
    }

    /// In whose name its lines are given: of whoever began the way that it is on.
    fn in_the_name_of(&self) -> &str {
        let turned_by = match self.direction {
            Direction::Out => None,
            Direction::Back => self.turned_by.as_deref(),
        };
        turned_by
            .or(self.started_by.as_deref())
            .unwrap_or(&self.requested_by)
    }

    /// Whom the log names where it comes to its next state by itself.
    fn by_worker(&self) -> By<'_> {
        By {
            name: self.in_the_name_of(),
            via: Via::Worker,
        }
    }

    /// Notes who did something about it.
    fn change(&mut self, by: &str, now: Timestamp) {
        by.clone_into(&mut self.changed_by);
        self.changed_at = now;
        self.updated_at = now;
    }

    fn is_on_the_way(&self, direction: Direction) -> bool {
        self.state == State::Running && self.direction == direction
    }
}

/// Without what people wrote.
impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handover")
            .field("handover_id", &self.handover_id)
            .field("leaver", &self.leaver)
            .field("state", &self.state)
            .field("direction", &self.direction)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// One line of a plan.
#[derive(Clone, PartialEq)]
pub struct Line {
    pub handover_id: Uuid,
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    pub account_sid: String,
    pub finding: Finding,
    pub asked_at: Option<Timestamp>,
    pub settled_at: Option<Timestamp>,
    pub found_later: bool,
    pub state: LineState,
    pub action: Option<Action>,
    pub to: Option<Identity>,
    pub why: Option<String>,
    pub passed: Vec<Passed>,
    pub by_hand: bool,
    pub outcome: Option<String>,
    pub transfer_id: Option<Uuid>,
    pub due_at: Option<Timestamp>,
    pub not_before: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub back_state: Option<BackState>,
    pub back_outcome: Option<String>,
    pub back_transfer_id: Option<Uuid>,
    pub back_due_at: Option<Timestamp>,
}

impl Line {
    /// Whether it waits for a read of its conversation.
    pub fn is_in_doubt(&self) -> bool {
        self.asked_at.is_some() && self.settled_at.is_none()
    }
}

/// Without the number.
impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("conversation_sid", &self.conversation_sid)
            .field("finding", &self.finding)
            .field("state", &self.state)
            .field("action", &self.action)
            .field("to", &self.to)
            .field("why", &self.why)
            .field("outcome", &self.outcome)
            .field("back_state", &self.back_state)
            .field("back_outcome", &self.back_outcome)
            .finish_non_exhaustive()
    }
}
