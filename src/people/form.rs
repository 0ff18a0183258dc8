//! What people write of an agent or a team, as JSON: read member by member, so that all that is wrong is told at once.
//! The API and files have the same.

use std::collections::BTreeSet;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use crate::ids::Identity;
use crate::people::hours::{Holidays, Week, Zone};
use crate::people::rotation::Rotation;
use crate::people::{Profile, Slug, TeamPlan};
use crate::web::field::{Errors, Field, Instant};

/// An agent may have so many skills.
pub const SKILLS_MAX: usize = 50;
/// A team may have so many people on call.
pub const ON_CALL_MAX: usize = 100;
/// Nobody holds more lines than this.
pub const CAPACITY_MAX: u32 = 10_000;

/// A name in one line: 1 to 100 characters, none of them a control character, no space around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 100 characters in one line, without space around them")]
pub struct InvalidName;

impl std::str::FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = !text.is_empty()
            && text.trim() == text
            && text.chars().count() <= 100
            && !text.chars().any(char::is_control);
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName)
        }
    }
}

impl Name {
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// A whole number from 0 to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<const MAX: u32>(pub u32);

impl<'de, const MAX: u32> Deserialize<'de> for Whole<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer)
            .ok()
            .filter(|number| *number <= MAX)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("expected a whole number from 0 to {MAX}")))
    }
}

/// What is to stand before it is replaced: 0 for nothing.
pub type Version = Whole<{ i32::MAX as u32 }>;

/// An agent, as somebody decides. What is left out is none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutAgent, example = json!({ "name": "Maya Lopez", "skills": ["spanish"], "capacity": 20 }))]
pub struct AgentForm {
    #[serde(default)]
    #[schema(value_type = String, required = true, min_length = 1, max_length = 100)]
    name: Field<Name>,
    /// The team they are in.
    #[serde(default)]
    #[schema(value_type = Option<Slug>)]
    team: Field<Slug>,
    /// The identity of another agent.
    #[serde(default)]
    #[schema(value_type = Option<Identity>)]
    supervisor: Field<Identity>,
    /// The identity of another agent, who looks after their lines when they do not answer: escalation policies ask for it.
    #[serde(default)]
    #[schema(value_type = Option<Identity>)]
    backup: Field<Identity>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<Slug>>, max_items = 50)]
    skills: Field<Vec<Slug>>,
    /// How many lines they may hold at once; null: as many as come. At capacity they are passed over.
    #[serde(default)]
    #[schema(value_type = Option<u32>, maximum = 10000)]
    capacity: Field<Whole<CAPACITY_MAX>>,
    /// From then on they are given nothing. It may lie ahead.
    #[serde(default)]
    #[schema(value_type = Option<jiff::Timestamp>)]
    left_at: Field<Instant>,
    /// The version that you have seen, 0 for none: if another one stands that differs, nothing is changed (409). Null: whatever stands is
    /// replaced.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    version: Field<Version>,
}

impl AgentForm {
    /// The profile, and the version that it is to replace.
    pub fn read(self, errors: &mut Errors) -> Option<(Profile, Option<i64>)> {
        let name = errors.required("name", self.name);
        let skills = errors.optional("skills", self.skills).unwrap_or_default();
        if skills.len() > SKILLS_MAX {
            errors.add(
                "skills",
                "too_many",
                format!("expected at most {SKILLS_MAX} skills"),
            );
        }
        let team = errors.optional("team", self.team);
        let supervisor = errors.optional("supervisor", self.supervisor);
        let backup = errors.optional("backup", self.backup);
        let capacity = errors
            .optional("capacity", self.capacity)
            .map(|capacity| capacity.0);
        let left_at = errors.optional("left_at", self.left_at).map(|at| at.0);
        let version = errors
            .optional("version", self.version)
            .map(|version| i64::from(version.0));
        let profile = Profile {
            name: name?.into_string(),
            team,
            supervisor,
            backup,
            skills: skills.into_iter().collect(),
            capacity,
            left_at: left_at.map(to_micros),
        };
        errors.is_empty().then_some((profile, version))
    }
}

/// As it comes back from the database.
fn to_micros(at: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// A team, as somebody decides. What is left out is none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutTeam, example = json!({
    "name": "Sales",
    "time_zone": "Europe/London",
    "hours": { "monday": ["09:00-12:30", "13:30-17:00"], "friday": ["22:00-06:00"] },
    "holidays": [{ "date": "2026-12-25", "name": "Christmas Day" }, { "date": "2026-12-24", "hours": ["09:00-12:00"] }],
}))]
pub struct TeamForm {
    #[serde(default)]
    #[schema(value_type = String, required = true, min_length = 1, max_length = 100)]
    name: Field<Name>,
    /// The IANA name of the time zone that hours, holidays and turns are in.
    #[serde(default)]
    #[schema(value_type = String, required = true, example = "Europe/London")]
    time_zone: Field<Zone>,
    /// For each day, `monday` to `sunday`, its hours: `["09:00-12:30", "13:30-17:00"]`, over midnight `["22:00-06:00"]`. A day
    /// that is left out is closed; without any hours the team is always open.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    hours: Field<Week>,
    /// Dates on which other hours count, or none: `{"date": "2026-12-24", "name": "Christmas Eve", "hours": ["09:00-12:00"]}`.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>, max_items = 500)]
    holidays: Field<Holidays>,
    /// The identities of those who are on call, in order; of any team.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Identity>>, max_items = 100)]
    on_call: Field<Vec<Identity>>,
    /// Moves the order on by one every `day` or `week`, from a time of the team's clocks: `{"every": "week", "start":
    /// "2026-11-30T09:00"}`. Null: the order stands.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    rotation: Field<Rotation>,
    /// The version that you have seen, 0 for none: if another one stands that differs, nothing is changed (409). Null: whatever stands is
    /// replaced.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    version: Field<Version>,
}

impl TeamForm {
    /// The plan, and the version that it is to replace.
    pub fn read(self, errors: &mut Errors) -> Option<(TeamPlan, Option<i64>)> {
        let name = errors.required("name", self.name);
        let time_zone = errors.required("time_zone", self.time_zone);
        let hours = errors.optional("hours", self.hours).unwrap_or_default();
        let holidays = errors.optional("holidays", self.holidays).unwrap_or_default();
        let on_call = errors.optional("on_call", self.on_call).unwrap_or_default();
        if on_call.len() > ON_CALL_MAX {
            errors.add(
                "on_call",
                "too_many",
                format!("expected at most {ON_CALL_MAX} people"),
            );
        }
        let mut once = BTreeSet::new();
        if let Some(place) = on_call.iter().position(|identity| !once.insert(identity)) {
            let message = "expected each person once in the order";
            errors.add(&format!("on_call/{place}"), "duplicate", message);
        }
        let rotation = errors.optional("rotation", self.rotation);
        let version = errors
            .optional("version", self.version)
            .map(|version| i64::from(version.0));
        let plan = TeamPlan {
            name: name?.into_string(),
            time_zone: time_zone?,
            hours,
            holidays,
            on_call,
            rotation,
        };
        errors.is_empty().then_some((plan, version))
    }
}
