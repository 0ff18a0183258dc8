//! Our pool of numbers: which there are, what each is fit for, whose it is, and who gets a line of it that nobody holds.
//! Owns `number`.
//!
//! Capabilities are what the operator states. [`mod@choose`] is pure: which number of a team a new group text gets.

pub mod choose;
pub mod erase;
pub mod form;
mod operations;
mod store;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AccountSid, Identity, MessagingServiceSid, PhoneNumber};
use crate::people::Slug;

pub use operations::{PutNumberError, RemoveNumberError, check, put_number, remove_number};
pub use store::{Filter, Listed, find, lock_choice, of_team, open_groups, page};

/// What sort of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NumberKind {
    /// An ordinary number of ten digits: the only sort that takes part in group texts.
    LongCode,
    TollFree,
    ShortCode,
}

impl NumberKind {
    pub const ALL: [Self; 3] = [Self::LongCode, Self::TollFree, Self::ShortCode];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::LongCode => "long_code",
            Self::TollFree => "toll_free",
            Self::ShortCode => "short_code",
        }
    }

    fn from_column(text: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .unwrap_or(Self::LongCode)
    }
}

/// Who gets a line of the number that nobody holds, where nobody held it with these people before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The members of the team in turn.
    RoundRobin,
    /// The member of the team that holds fewest lines.
    LeastLoaded,
    /// Who is on call in the team.
    OnCall,
    /// One person.
    Person,
    /// Nobody is chosen: it waits in the team's queue until somebody takes it.
    Queue,
}

impl Rule {
    pub const ALL: [Self; 5] = [
        Self::RoundRobin,
        Self::LeastLoaded,
        Self::OnCall,
        Self::Person,
        Self::Queue,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastLoaded => "least_loaded",
            Self::OnCall => "on_call",
            Self::Person => "person",
            Self::Queue => "queue",
        }
    }

    pub fn from_column(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == text)
    }
}

/// What somebody decides about a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub account_sid: AccountSid,
    pub label: Option<String>,
    pub kind: NumberKind,
    pub mms_capable: bool,
    /// The messaging service that it is in, where that is stated.
    pub messaging_service_sid: Option<MessagingServiceSid>,
    /// Whose it is: for this team it is chosen, and in this team's queue its lines wait.
    pub team: Option<Slug>,
    /// None: a line that nobody holds is left alone.
    pub rule: Option<Rule>,
    /// Of [`Rule::Person`].
    pub person: Option<Identity>,
    /// Chosen for new group texts.
    pub enabled: bool,
}

/// A number of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    pub number: PhoneNumber,
    pub plan: Plan,
    /// Grows by one with each change.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
