//! Bringing people in from files, whole or not at all, and writing them out in the same form.
//!
//! [`table`] reads and writes agents as CSV, [`document`] teams as JSON, [`mod@plan`] compares both with what stands; all of it is pure.
//! [`import`] does what the plan says in one transaction.

pub mod document;
pub mod plan;
pub mod table;

use std::fmt;

use jiff::Timestamp;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::events::{self, Kind, NewEvent};
use crate::ids::new_id;
use crate::people::{Actor, Agent, Team, change, store};

use self::document::TeamEntry;
use self::plan::{Plan, plan};
use self::table::Row;

/// What files say. A kind that no file is about stays as it is.
#[derive(Debug, Default)]
pub struct Wanted {
    pub agents: Option<Vec<Row>>,
    pub teams: Option<Vec<TeamEntry>>,
    pub absent: Absent,
}

/// What becomes of agents that the file does not name.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// They stay as they are
    #[default]
    Leave,
    /// They have left, as of now
    Deactivate,
}

/// Something that is wrong with a file: where, what, and what to do. It never repeats what the file says there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub file: File,
    /// The first is 1.
    pub line: Option<u64>,
    /// A column, or a JSON pointer.
    pub place: String,
    pub problem: String,
}

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    Agents,
    Teams,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.file {
            File::Agents => "agents",
            File::Teams => "teams",
        })?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        match (self.file, self.place.as_str()) {
            (_, "") => {}
            (File::Agents, column) => write!(f, ", column {column}")?,
            (File::Teams, pointer) => write!(f, ", {pointer}")?,
        }
        write!(f, ": {}", self.problem)
    }
}

/// Why files are not brought in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{} places are wrong; nothing was changed", .0.len())]
    Refused(Vec<Wrong>),
    #[error("cannot record what the files say")]
    Database(#[from] sqlx::Error),
}

/// Does what files say, all of it in one transaction, or only works out what that would be.
pub async fn import(
    conn: &mut PgConnection,
    wanted: &Wanted,
    dry_run: bool,
    by: &Actor,
    now: Timestamp,
) -> Result<Plan, ImportError> {
    let mut transaction = conn.begin().await?;
    store::lock(&mut transaction).await?;
    let agents = store::all_agents(&mut transaction).await?;
    let teams = store::all_teams(&mut transaction).await?;
    let plan = plan(&agents, &teams, wanted, now).map_err(ImportError::Refused)?;
    if dry_run || plan.is_empty() {
        transaction.rollback().await?;
        return Ok(plan);
    }
    // Who refers to whom is checked when the transaction ends.
    for step in &plan.teams {
        store::upsert_team(&mut transaction, &step.after).await?;
    }
    let after: Vec<Agent> = plan.agents.iter().map(|step| step.after.clone()).collect();
    store::upsert_agents(&mut transaction, &after).await?;
    events::append(&mut transaction, &told(&plan, by, now)).await?;
    transaction.commit().await?;
    Ok(plan)
}

fn told(plan: &Plan, by: &Actor, now: Timestamp) -> Vec<NewEvent> {
    let import_id = format!("import:{}", new_id());
    let because = Actor {
        cause: Some(import_id.clone()),
        ..by.clone()
    };
    let totals = plan.totals();
    let data = json!({
        "added": totals.added,
        "changed": totals.changed,
        "deactivated": totals.deactivated,
        "unchanged": totals.unchanged,
        "teams_added": totals.teams_added,
        "teams_changed": totals.teams_changed,
    });
    let mut told = vec![change::entry(Kind::PeopleImported, &import_id, data, by, now)];
    let teams = plan.teams.iter();
    told.extend(teams.map(|step| change::of_team(step.before.as_ref(), &step.after, &because, now)));
    let agents = plan.agents.iter();
    told.extend(agents.map(|step| change::of_agent(step.before.as_ref(), &step.after, &because, now)));
    told
}

/// All agents, by identity, and all teams.
pub async fn everybody(conn: &mut PgConnection) -> Result<(Vec<Agent>, Vec<Team>), sqlx::Error> {
    let agents = store::all_agents(conn).await?;
    let teams = store::all_teams(conn).await?;
    Ok((agents, teams))
}
