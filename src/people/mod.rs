//! Our people: agents, teams with their calendars, who is on call. Owns `agent`, `team` and `team_on_call`.
//!
//! An agent's key is the Twilio identity. As in the ledger and in transfers, one identity is one person, in whichever
//! account it appears. An agent is in one team at most: whose hours count for somebody must have one answer. Who helps out
//! elsewhere is named in that team's on-call order, or found by a skill.
//!
//! [`mod@calendar`], [`rotation`] and [`judge`] are pure; [`questions`] gives them what is stored. Others ask there: who is on
//! call, may this one be given a line and if not, why, who is whose supervisor. [`mod@import`] brings people in from files.

pub mod calendar;
mod change;
pub mod erase;
pub mod form;
pub mod hours;
pub mod import;
pub mod judge;
mod operations;
pub mod questions;
pub mod rotation;
mod slug;
mod store;
mod version;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::events::Via;
use crate::ids::Identity;

use self::calendar::Calendar;
use self::hours::{Holidays, Week, Zone};
use self::rotation::Rotation;

pub use change::differences;
pub use operations::{
    NewAvailability, PutAgentError, PutTeamError, RemoveAgentError, RemoveTeamError, SetAvailabilityError,
    put_agent, put_team, remove_agent, remove_team, set_availability,
};
pub use questions::supervisor_of;
pub use slug::{InvalidSlug, Slug};
pub use store::{
    Filter, Listed, References, find_agent, find_team, is_seen, lock, members, page_of_agents, page_of_teams,
};
pub use version::{Replace, VersionConflict, replace};

/// What somebody decides about an agent. What the agent decides themselves is their [`Availability`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Profile {
    pub name: String,
    pub team: Option<Slug>,
    pub supervisor: Option<Identity>,
    /// Who looks after their lines when they do not answer.
    pub backup: Option<Identity>,
    pub skills: BTreeSet<Slug>,
    /// Lines held at once. None: as many as come.
    pub capacity: Option<u32>,
    /// From then on they are given nothing. It may lie ahead.
    pub left_at: Option<Timestamp>,
}

/// Somebody of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub identity: Identity,
    pub profile: Profile,
    pub availability: Availability,
    /// Grows by one with each change of the profile.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Agent {
    pub fn has_left(&self, at: Timestamp) -> bool {
        self.profile.left_at.is_some_and(|left_at| left_at <= at)
    }
}

/// Whether somebody takes lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Available,
    Away,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Away => "away",
        }
    }
}

/// What was last said of an agent's availability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    pub status: Status,
    pub reason: Option<String>,
    /// Away until then. None: until somebody says otherwise.
    pub until: Option<Timestamp>,
    pub since: Timestamp,
    pub set_by: Option<String>,
}

impl Availability {
    /// What it comes to at an instant: who was away until then is available since.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> Self {
        match self.until {
            Some(until) if self.status == Status::Away && until <= at => Self {
                status: Status::Available,
                reason: None,
                until: None,
                since: until,
                set_by: None,
            },
            _ => self.clone(),
        }
    }
}

/// What somebody decides about a team.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TeamPlan {
    pub name: String,
    pub time_zone: Zone,
    pub hours: Week,
    pub holidays: Holidays,
    pub on_call: Vec<Identity>,
    pub rotation: Option<Rotation>,
}

impl TeamPlan {
    pub fn calendar(&self) -> Calendar {
        Calendar::new(&self.time_zone, &self.hours, &self.holidays)
    }
}

/// A team.
#[derive(Debug, Clone, PartialEq)]
pub struct Team {
    pub team_id: Slug,
    pub plan: TeamPlan,
    /// Grows by one with each change.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Who changes something, for the log.
#[derive(Debug, Clone)]
pub struct Actor {
    /// An identity, an API key, or `cli`.
    pub name: String,
    pub via: Via,
    /// What brought it about, where something did.
    pub cause: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_away_until_then_is_available_since() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut availability = Availability {
            status: Status::Away,
            reason: Some("lunch".to_owned()),
            until: Some(at("2026-03-01T13:00:00Z")),
            since: at("2026-03-01T12:00:00Z"),
            set_by: Some("maya".to_owned()),
        };
        assert_eq!(availability.at(at("2026-03-01T12:59:59Z")), availability);
        let back = availability.at(at("2026-03-01T13:00:00Z"));
        assert_eq!(
            (back.status, back.since),
            (Status::Available, at("2026-03-01T13:00:00Z"))
        );
        assert_eq!(back.reason, None);
        availability.until = None;
        assert_eq!(availability.at(at("2030-01-01T00:00:00Z")).status, Status::Away);
    }
}
