//! What is done about agents and teams. Each is one transaction, with its entries of the log.
//!
//! All of them take one lock: people change rarely, and whether somebody is their own supervisor is a question about all.

use jiff::Timestamp;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::events::{self, Kind};
use crate::ids::Identity;
use crate::people::{
    Actor, Agent, Availability, Profile, References, Replace, Slug, Status, Team, TeamPlan, VersionConflict,
    change, judge, replace, store,
};

/// Why an agent cannot be so.
#[derive(Debug, thiserror::Error)]
pub enum PutAgentError {
    #[error(transparent)]
    VersionConflict(#[from] VersionConflict),
    #[error("no such team")]
    TeamUnknown,
    #[error("the supervisor is unknown")]
    SupervisorUnknown,
    #[error("the backup is unknown")]
    BackupUnknown,
    #[error("somebody would be their own backup")]
    OwnBackup,
    #[error("somebody would be their own supervisor")]
    SupervisorCycle { chain: Vec<Identity> },
    #[error("cannot record the agent")]
    Database(#[from] sqlx::Error),
}

/// Why a team cannot be so.
#[derive(Debug, thiserror::Error)]
pub enum PutTeamError {
    #[error(transparent)]
    VersionConflict(#[from] VersionConflict),
    #[error("somebody in the on-call order is unknown")]
    OnCallUnknown { identities: Vec<Identity> },
    #[error("cannot record the team")]
    Database(#[from] sqlx::Error),
}

/// Why an agent cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveAgentError {
    #[error("no such agent")]
    NotFound,
    #[error("others refer to the agent")]
    InUse(References),
    #[error("cannot remove the agent")]
    Database(#[from] sqlx::Error),
}

/// Why a team cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveTeamError {
    #[error("no such team")]
    NotFound,
    #[error("the team has members, or numbers")]
    InUse { members: i64, numbers: i64 },
    #[error("cannot remove the team")]
    Database(#[from] sqlx::Error),
}

/// Why an availability cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum SetAvailabilityError {
    #[error("no such agent")]
    NotFound,
    #[error("the end has passed")]
    EndPassed,
    #[error("cannot record the availability")]
    Database(#[from] sqlx::Error),
}

/// Adds an agent, or replaces their profile. One that is so already is left alone, whatever version it was to replace: a
/// repeat gets the answer of the first time.
pub async fn put_agent(
    conn: &mut PgConnection,
    identity: &Identity,
    profile: Profile,
    replaces: Option<i64>,
    by: &Actor,
    now: Timestamp,
) -> Result<Agent, PutAgentError> {
    let mut transaction = conn.begin().await?;
    store::lock(&mut transaction).await?;
    let before = store::find_agent(&mut transaction, identity.as_str()).await?;
    let is_so = |before: &Agent| before.profile == profile;
    let stands = |before: &Agent| (before.version, before.updated_at);
    let before = match replace(before, is_so, replaces, stands)? {
        Replace::AlreadySo(agent) => return Ok(agent),
        Replace::Before(before) => before,
    };
    check_profile(&mut transaction, identity, &profile).await?;
    let after = replaced(identity, profile, before.as_ref(), now);
    store::upsert_agents(&mut transaction, std::slice::from_ref(&after)).await?;
    let event = change::of_agent(before.as_ref(), &after, by, now);
    events::append(&mut transaction, &[event]).await?;
    transaction.commit().await?;
    Ok(after)
}

async fn check_profile(
    conn: &mut PgConnection,
    identity: &Identity,
    profile: &Profile,
) -> Result<(), PutAgentError> {
    if let Some(team) = &profile.team
        && store::find_team(conn, team.as_str()).await?.is_none()
    {
        return Err(PutAgentError::TeamUnknown);
    }
    if let Some(backup) = &profile.backup {
        if backup == identity {
            return Err(PutAgentError::OwnBackup);
        }
        if store::find_agent(conn, backup.as_str()).await?.is_none() {
            return Err(PutAgentError::BackupUnknown);
        }
    }
    let Some(supervisor) = &profile.supervisor else {
        return Ok(());
    };
    if supervisor != identity && store::find_agent(conn, supervisor.as_str()).await?.is_none() {
        return Err(PutAgentError::SupervisorUnknown);
    }
    let mut supervisors = store::supervisors(conn).await?;
    supervisors.insert(identity.clone(), supervisor.clone());
    match judge::cycle(&supervisors, identity) {
        Some(chain) => Err(PutAgentError::SupervisorCycle { chain }),
        None => Ok(()),
    }
}

/// The agent with another profile. Who is new is available.
pub(super) fn replaced(
    identity: &Identity,
    profile: Profile,
    before: Option<&Agent>,
    now: Timestamp,
) -> Agent {
    let availability = before.map_or_else(
        || Availability {
            status: Status::Available,
            reason: None,
            until: None,
            since: now,
            set_by: None,
        },
        |before| before.availability.clone(),
    );
    Agent {
        identity: identity.clone(),
        profile,
        availability,
        version: before.map_or(1, |before| before.version + 1),
        created_at: before.map_or(now, |before| before.created_at),
        updated_at: now,
    }
}

/// Forgets an agent that nobody refers to. The lines they hold, and their past, stay: those of an unknown identity.
pub async fn remove_agent(
    conn: &mut PgConnection,
    identity: &Identity,
    by: &Actor,
    now: Timestamp,
) -> Result<(), RemoveAgentError> {
    let mut transaction = conn.begin().await?;
    store::lock(&mut transaction).await?;
    let references = store::references_to(&mut transaction, identity.as_str()).await?;
    if !references.is_empty() {
        return Err(RemoveAgentError::InUse(references));
    }
    if !store::delete_agent(&mut transaction, identity.as_str()).await? {
        return Err(RemoveAgentError::NotFound);
    }
    let data = json!({ "identity": identity });
    let event = change::entry(Kind::AgentRemoved, identity.as_str(), data, by, now);
    events::append(&mut transaction, &[event]).await?;
    transaction.commit().await?;
    Ok(())
}

/// What somebody says of their availability.
#[derive(Debug, Clone)]
pub struct NewAvailability {
    pub status: Status,
    /// Only of who is away.
    pub reason: Option<String>,
    /// Only of who is away. None: until somebody says otherwise.
    pub until: Option<Timestamp>,
    /// The person who says so, where that is known.
    pub by: Option<Identity>,
}

/// Sets who takes lines. What is so already is left alone. The reason is somebody's words, and stays out of the log.
pub async fn set_availability(
    conn: &mut PgConnection,
    identity: &Identity,
    new: NewAvailability,
    by: &Actor,
    now: Timestamp,
) -> Result<Agent, SetAvailabilityError> {
    if new.until.is_some_and(|until| until <= now) {
        return Err(SetAvailabilityError::EndPassed);
    }
    let mut transaction = conn.begin().await?;
    store::lock(&mut transaction).await?;
    let mut agent = store::find_agent(&mut transaction, identity.as_str())
        .await?
        .ok_or(SetAvailabilityError::NotFound)?;
    let before = agent.availability.at(now);
    if (before.status, &before.reason, before.until) == (new.status, &new.reason, new.until) {
        return Ok(agent);
    }
    let since = if before.status == new.status {
        before.since
    } else {
        now
    };
    agent.availability = Availability {
        status: new.status,
        reason: new.reason,
        until: new.until,
        since,
        set_by: Some(new.by.map_or_else(|| by.name.clone(), Identity::into_string)),
    };
    store::update_availability(&mut transaction, &agent).await?;
    let data = json!({
        "identity": identity,
        "from": before.status,
        "to": agent.availability.status,
        "until": agent.availability.until,
        "set_by": agent.availability.set_by,
    });
    let event = change::entry(Kind::AgentAvailabilityChanged, identity.as_str(), data, by, now);
    events::append(&mut transaction, &[event]).await?;
    transaction.commit().await?;
    Ok(agent)
}

/// Adds a team, or replaces its plan. One that is so already is left alone, whatever version it was to replace: a repeat gets
/// the answer of the first time.
pub async fn put_team(
    conn: &mut PgConnection,
    team_id: &Slug,
    plan: TeamPlan,
    replaces: Option<i64>,
    by: &Actor,
    now: Timestamp,
) -> Result<Team, PutTeamError> {
    let mut transaction = conn.begin().await?;
    store::lock(&mut transaction).await?;
    let before = store::find_team(&mut transaction, team_id.as_str()).await?;
    let is_so = |before: &Team| before.plan == plan;
    let stands = |before: &Team| (before.version, before.updated_at);
    let before = match replace(before, is_so, replaces, stands)? {
        Replace::AlreadySo(team) => return Ok(team),
        Replace::Before(before) => before,
    };
    let mut identities = plan.on_call.clone();
    let asked: Vec<&str> = plan.on_call.iter().map(Identity::as_str).collect();
    let known = store::agents_of(&mut transaction, &asked).await?;
    identities.retain(|identity| known.iter().all(|agent| agent.identity != *identity));
    if !identities.is_empty() {
        return Err(PutTeamError::OnCallUnknown { identities });
    }
    let after = planned(team_id, plan, before.as_ref(), now);
    store::upsert_team(&mut transaction, &after).await?;
    let event = change::of_team(before.as_ref(), &after, by, now);
    events::append(&mut transaction, &[event]).await?;
    transaction.commit().await?;
    Ok(after)
}

/// The team with another plan.
pub(super) fn planned(team_id: &Slug, plan: TeamPlan, before: Option<&Team>, now: Timestamp) -> Team {
    Team {
        team_id: team_id.clone(),
        plan,
        version: before.map_or(1, |before| before.version + 1),
        created_at: before.map_or(now, |before| before.created_at),
        updated_at: now,
    }
}

/// Removes a team that has no members and no numbers.
pub async fn remove_team(
    conn: &mut PgConnection,
    team_id: &Slug,
    by: &Actor,
    now: Timestamp,
) -> Result<(), RemoveTeamError> {
    let mut transaction = conn.begin().await?;
    store::lock(&mut transaction).await?;
    let members = store::count_members(&mut transaction, team_id.as_str()).await?;
    let numbers = store::count_numbers(&mut transaction, team_id.as_str()).await?;
    if members + numbers > 0 {
        return Err(RemoveTeamError::InUse { members, numbers });
    }
    if !store::delete_team(&mut transaction, team_id.as_str()).await? {
        return Err(RemoveTeamError::NotFound);
    }
    let data = json!({ "team_id": team_id });
    let event = change::entry(Kind::TeamRemoved, team_id.as_str(), data, by, now);
    events::append(&mut transaction, &[event]).await?;
    transaction.commit().await?;
    Ok(())
}
