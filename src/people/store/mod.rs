//! Rows of agents and teams.

mod agent;
mod team;

use sqlx::PgConnection;

pub use agent::{Filter, Listed, References, find_agent, is_seen, page_of_agents};
pub(super) use agent::{
    agents_of, all_agents, delete_agent, references_to, supervisors, update_availability, upsert_agents,
};
pub(super) use team::{all_teams, count_members, count_numbers, delete_team, teams_of, upsert_team};
pub use team::{find_team, members, page_of_teams};

/// Keeps changes of people apart, and what refers to them. Held until the transaction ends.
pub async fn lock(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- people.lock
        select pg_advisory_xact_lock(hashtext('hookswitch.people'))"
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What is stored cannot be read: somebody else wrote it, or a time zone is gone from the machine.
fn unreadable(what: &str, error: impl std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what}: {error}").into())
}
