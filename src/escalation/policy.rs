//! What a policy says; [`Policy::read`] reads it from JSON with everything that is wrong told at once. Pure.

mod read;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::Value;

use crate::escalation::words::Phrase;
use crate::ids::{Identity, PhoneNumber};
use crate::people::Slug;
use crate::web::problem::FieldError;

/// A policy as JSON may have so many bytes.
pub const DOCUMENT_MAX: usize = 32 * 1024;
/// A policy may have so many rules, and each so many steps.
pub const RULES_MAX: usize = 20;
pub const STEPS_MAX: usize = 20;
/// A list of words may have so many, each of so many characters.
const WORDS_MAX: usize = 200;
const WORD_MAX: usize = 100;
/// A policy may name so many teams, and so many lines.
const SCOPE_MAX: usize = 200;
/// No time in a policy is longer: 90 days, of business hours where those are counted.
const SECONDS_MAX: i64 = 90 * 24 * 3600;
/// The last step is repeated so often; then a person is needed.
pub const REPEATS_MAX: usize = 24;

/// What happens to a line on which something is amiss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    pub enabled: bool,
    pub applies_to: Scope,
    pub rules: Vec<Rule>,
}

/// Which lines a policy is for. Without a team or a number: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Those whose holder is in one of these teams.
    pub teams: BTreeSet<Slug>,
    pub lines: BTreeSet<PhoneNumber>,
}

/// One thing that may be amiss, and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// It is the same rule in every version that has this name.
    pub name: Slug,
    pub when: When,
    /// Whose hours count, for the time in `when` and that of each step.
    pub hours: Hours,
    /// Whether an answer ends it.
    pub answer_stops: bool,
    pub steps: Vec<Step>,
    pub then: Then,
}

/// What is amiss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Nobody of ours has answered what a customer wrote, for so long.
    NoAnswer(SignedDuration),
    /// The holder has been away, or has left, for so long.
    Unavailable(SignedDuration),
    /// A customer wrote one of these.
    Words(Vec<Phrase>),
    /// A message of ours did not arrive at a member.
    DeliveryFailure,
    /// Somebody asked for it.
    Asked,
}

impl When {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoAnswer(_) => "no_answer",
            Self::Unavailable(_) => "unavailable",
            Self::Words(_) => "words",
            Self::DeliveryFailure => "delivery_failure",
            Self::Asked => "asked",
        }
    }

    /// How long it has to be so before anything is done.
    pub fn after(&self) -> SignedDuration {
        match self {
            Self::NoAnswer(after) | Self::Unavailable(after) => *after,
            Self::Words(_) | Self::DeliveryFailure | Self::Asked => SignedDuration::ZERO,
        }
    }
}

/// Whose business hours are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hours {
    /// Those of the holder's team. Who is in no team has none: all time counts.
    Holder,
    Team(Slug),
    /// All time counts.
    Always,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub how: How,
    pub to: Whom,
    /// How long it is waited before the next one.
    pub lasts: SignedDuration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// An entry of the log that names them, and nothing at Twilio.
    Nudge,
    /// They are offered the line.
    Offer,
    /// They get the line.
    Force,
}

impl How {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nudge => "nudge",
            Self::Offer => "offer",
            Self::Force => "force",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Nudge, Self::Offer, Self::Force]
            .into_iter()
            .find(|how| how.as_str() == text)
    }
}

/// Who is concerned: found when the step is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    Holder,
    /// The holder's.
    Backup,
    /// The next one above the holder who has not left and is not away.
    Supervisor,
    OnCall(Slug),
    Person(Identity),
}

impl Whom {
    /// In one word, with the team or person where one is named.
    pub fn label(&self) -> String {
        match self {
            Self::Holder => "holder".to_owned(),
            Self::Backup => "backup".to_owned(),
            Self::Supervisor => "supervisor".to_owned(),
            Self::OnCall(team) => format!("on_call:{team}"),
            Self::Person(person) => format!("person:{person}"),
        }
    }
}

/// What comes after the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Stop,
    /// It is taken again, up to [`REPEATS_MAX`] times.
    RepeatLast,
    /// An entry of the log says so.
    NeedsPerson,
}

/// Whom a policy may name.
#[derive(Debug, Default)]
pub struct Known {
    pub teams: BTreeSet<Slug>,
    pub agents: BTreeSet<Identity>,
}

impl Policy {
    /// Reads a document. `known` are those whom it may name; without it that is not looked at, as of a version that stands.
    pub fn read(document: &Value, known: Option<&Known>) -> Result<Self, Vec<FieldError>> {
        read::read(document, known)
    }

    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.name.as_str() == name)
    }

    pub fn has(&self, is: impl Fn(&When) -> bool) -> bool {
        self.rules.iter().any(|rule| is(&rule.when))
    }
}

#[cfg(test)]
mod tests;
