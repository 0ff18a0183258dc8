//! What goes into an evaluation, and what comes out of it.

use jiff::Timestamp;
use uuid::Uuid;

use crate::escalation::policy::How;
use crate::ids::Identity;

/// Since when a policy counts for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// What was amiss before is none of its business.
    pub since: Timestamp,
    /// Nor is what was due before: until then the line was another policy's.
    pub due_since: Timestamp,
}

impl Counts {
    pub const ALWAYS: Self = Self {
        since: Timestamp::MIN,
        due_since: Timestamp::MIN,
    };
}

/// Something that happened to a line.
#[derive(Clone, PartialEq, Eq)]
pub struct Fact {
    pub at: Timestamp,
    pub what: What,
}

#[derive(Clone, PartialEq, Eq)]
pub enum What {
    /// From then on this one holds it; none: nobody.
    Held(Option<Identity>),
    /// It is no line of the conversation any more.
    Gone,
    /// The conversation is over.
    Closed,
    /// A customer wrote. The text only where somebody asks for words.
    Inbound {
        message: String,
        text: Option<String>,
        /// It is a word by which they opt out: nobody can answer it.
        opts_out: bool,
    },
    /// One of ours wrote.
    Answer,
    /// A message of ours did not arrive at a member.
    Failed {
        message: String,
    },
    /// Somebody of ours went away, or left.
    Absent(Identity),
    Back(Identity),
    /// Somebody asked for it.
    Asked(Uuid),
}

/// Why something began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// As `When::as_str`.
    pub kind: &'static str,
    /// The same each time that it is derived.
    pub key: String,
    pub at: Timestamp,
}

/// An escalation, real or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Of one that was recorded.
    pub id: Option<Uuid>,
    pub version: i64,
    pub rule: String,
    pub cause: Cause,
    pub holder: Option<Identity>,
    pub started_at: Timestamp,
    pub steps: Vec<Taken>,
    /// When the next step is due; none: it is over, or waits for somebody.
    pub next_at: Option<Timestamp>,
    pub end: Option<End>,
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its place in the rule, from 0.
    pub step: usize,
    pub how: How,
    pub whom: String,
    pub at: Timestamp,
    /// To whom, or why to nobody.
    pub to: Result<Identity, &'static str>,
    pub state: Standing,
}

/// What is known of a step's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its time runs.
    Runs,
    /// They accepted, and the line is being given to them.
    Accepted,
    /// Nothing came, or comes, of it.
    Over(Timestamp),
}

/// How an escalation came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub at: Timestamp,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    Answered,
    HandedOver,
    /// Nobody holds the line any more.
    Unstaffed,
    Closed,
    LineGone,
    /// The holder is back.
    Back,
    /// The policy was disabled or removed.
    PolicyOff,
    /// Somebody stopped it.
    StoppedByHand,
    /// What it began with is no longer so.
    NoLongerSo,
    /// All steps were taken.
    StepsTaken,
    NeedsPerson,
}

impl Why {
    pub const ALL: [Self; 11] = [
        Self::Answered,
        Self::HandedOver,
        Self::Unstaffed,
        Self::Closed,
        Self::LineGone,
        Self::Back,
        Self::PolicyOff,
        Self::StoppedByHand,
        Self::NoLongerSo,
        Self::StepsTaken,
        Self::NeedsPerson,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::HandedOver => "handed_over",
            Self::Unstaffed => "unstaffed",
            Self::Closed => "closed",
            Self::LineGone => "line_gone",
            Self::Back => "back",
            Self::PolicyOff => "policy_off",
            Self::StoppedByHand => "stopped_by_hand",
            Self::NoLongerSo => "no_longer_so",
            Self::StepsTaken => "steps_taken",
            Self::NeedsPerson => "needs_person",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.as_str() == text)
    }

    /// `stopped`, `ended` or `needs_person`.
    pub fn state(self) -> &'static str {
        match self {
            Self::StepsTaken => "ended",
            Self::NeedsPerson => "needs_person",
            _ => "stopped",
        }
    }
}
