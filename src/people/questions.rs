//! What others ask about people. Each reads what is stored, and leaves the answer to what is pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::PgConnection;

use crate::ids::Identity;
use crate::ledger;
use crate::people::calendar::Calendar;
use crate::people::judge::{self, Candidate, Needs, Person};
use crate::people::rotation::in_turn;
use crate::people::{Agent, Slug, Team, store};

/// Judges each of a list, in its order: those that may be given a line, and why the others may not. Who comes twice is judged
/// once.
///
/// How many lines somebody holds is that of now, whatever `at` is.
pub async fn candidates(
    conn: &mut PgConnection,
    identities: &[&str],
    at: Timestamp,
    needs: &Needs,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let agents = store::agents_of(conn, identities).await?;
    let mut people: HashMap<String, Person> = people(conn, agents)
        .await?
        .into_iter()
        .map(|person| (person.agent.identity.as_str().to_owned(), person))
        .collect();
    let mut once = HashSet::new();
    Ok(identities
        .iter()
        .filter(|identity| once.insert(**identity))
        .map(|identity| Candidate::new(identity, people.remove(*identity), at, needs))
        .collect())
}

/// Judges one.
pub async fn candidate(
    conn: &mut PgConnection,
    identity: &str,
    at: Timestamp,
    needs: &Needs,
) -> Result<Candidate, sqlx::Error> {
    let found = candidates(conn, &[identity], at, needs).await?.pop();
    Ok(found.unwrap_or_else(|| Candidate::new(identity, None, at, needs)))
}

/// Those of these who have left by then.
pub async fn left(
    conn: &mut PgConnection,
    identities: &[&str],
    at: Timestamp,
) -> Result<HashSet<Identity>, sqlx::Error> {
    let agents = store::agents_of(conn, identities).await?;
    let left = agents.into_iter().filter(|agent| agent.has_left(at));
    Ok(left.map(|agent| agent.identity).collect())
}

/// Judges the members of a team, in the order of their identities.
pub async fn candidates_of_team(
    conn: &mut PgConnection,
    team_id: &Slug,
    at: Timestamp,
    needs: &Needs,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let mut members = store::members(conn, team_id.as_str()).await?;
    // The database's order may be that of a language. Turns go on from one who is gone by this one.
    members.sort_unstable();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    candidates(conn, &members, at, needs).await
}

/// Agents with what else is needed to judge them, in their order.
pub async fn people(conn: &mut PgConnection, agents: Vec<Agent>) -> Result<Vec<Person>, sqlx::Error> {
    let identities: Vec<&str> = agents.iter().map(|agent| agent.identity.as_str()).collect();
    let loads = ledger::loads(conn, &identities).await?;
    let mut teams: Vec<&str> = agents
        .iter()
        .filter_map(|agent| agent.profile.team.as_ref().map(Slug::as_str))
        .collect();
    teams.sort_unstable();
    teams.dedup();
    let calendars: BTreeMap<Slug, Arc<Calendar>> = store::teams_of(conn, &teams)
        .await?
        .into_iter()
        .map(|team| (team.team_id, Arc::new(team.plan.calendar())))
        .collect();
    Ok(agents
        .into_iter()
        .map(|agent| Person {
            load: loads.get(agent.identity.as_str()).copied().unwrap_or(0),
            calendar: agent
                .profile
                .team
                .as_ref()
                .and_then(|team| calendars.get(team).cloned()),
            agent,
        })
        .collect())
}

/// Who is on call in a team.
#[derive(Debug, Clone)]
pub struct OnCall {
    pub team: Team,
    /// All of the order as it is at the time, each judged: the first that nothing stands against is on call.
    pub order: Vec<Candidate>,
    /// When the order moves on. None: it stands.
    pub turn_ends_at: Option<Timestamp>,
}

impl OnCall {
    /// Whoever is on call; none where all are away, have left, or none is named.
    pub fn person(&self) -> Option<&Candidate> {
        judge::first(&self.order)
    }
}

/// Who is on call in a team. That it is outside its hours, or that somebody has their hands full, does not count: being on
/// call is for that. None: there is no such team.
pub async fn on_call(
    conn: &mut PgConnection,
    team_id: &Slug,
    at: Timestamp,
) -> Result<Option<OnCall>, sqlx::Error> {
    let Some(team) = store::find_team(conn, team_id.as_str()).await? else {
        return Ok(None);
    };
    let turn = team
        .plan
        .rotation
        .map(|rotation| rotation.turn(team.plan.time_zone.time_zone(), at));
    let order = in_turn(&team.plan.on_call, turn.map_or(0, |turn| turn.number));
    let order: Vec<&str> = order.iter().map(Identity::as_str).collect();
    let order = candidates(conn, &order, at, &Needs::default()).await?;
    Ok(Some(OnCall {
        team,
        order,
        turn_ends_at: turn.map(|turn| turn.ends_at),
    }))
}

/// The people above somebody, the nearest first, without those who have left by then.
pub async fn supervisors_of(
    conn: &mut PgConnection,
    identity: &Identity,
    at: Timestamp,
) -> Result<Vec<Agent>, sqlx::Error> {
    let supervisors = store::supervisors(conn).await?;
    let chain: Vec<&str> = judge::chain(&supervisors, identity)
        .into_iter()
        .map(Identity::as_str)
        .collect();
    let mut agents = store::agents_of(conn, &chain).await?;
    agents.retain(|agent| !agent.has_left(at));
    agents.sort_by_key(|agent| {
        chain
            .iter()
            .position(|identity| *identity == agent.identity.as_str())
    });
    Ok(agents)
}

/// The supervisor of somebody, or the next one up who has not left by then.
pub async fn supervisor_of(
    conn: &mut PgConnection,
    identity: &Identity,
    at: Timestamp,
) -> Result<Option<Agent>, sqlx::Error> {
    let chain = supervisors_of(conn, identity, at).await?;
    Ok(chain.into_iter().next())
}
