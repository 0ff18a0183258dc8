//! Agents' rows, and identities that have none.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::unreadable;
use crate::ids::Identity;
use crate::people::{Agent, Availability, Profile, Slug, Status};

macro_rules! agent {
    ($row:ident) => {
        Agent {
            identity: $row.identity,
            profile: Profile {
                name: $row.name,
                team: slug($row.team_id)?,
                supervisor: $row.supervisor,
                backup: $row.backup,
                skills: $row
                    .skills
                    .iter()
                    .map(|skill| skill.parse().map_err(|error| unreadable("agent.skills", error)))
                    .collect::<Result<_, _>>()?,
                capacity: $row.capacity.and_then(|capacity| u32::try_from(capacity).ok()),
                left_at: $row.left_at.map(|at| at.to_jiff()),
            },
            availability: Availability {
                status: if $row.availability == "away" {
                    Status::Away
                } else {
                    Status::Available
                },
                reason: $row.availability_reason,
                until: $row.availability_until.map(|at| at.to_jiff()),
                since: $row.availability_since.to_jiff(),
                set_by: $row.availability_set_by,
            },
            version: $row.version,
            created_at: $row.created_at.to_jiff(),
            updated_at: $row.updated_at.to_jiff(),
        }
    };
}

fn slug(text: Option<String>) -> Result<Option<Slug>, sqlx::Error> {
    text.map(|text| text.parse().map_err(|error| unreadable("agent.team_id", error)))
        .transpose()
}

pub async fn find_agent(conn: &mut PgConnection, identity: &str) -> Result<Option<Agent>, sqlx::Error> {
    Ok(agents_of(conn, &[identity]).await?.pop())
}

/// Those of these identities that we know, in no order.
pub(in crate::people) async fn agents_of(
    conn: &mut PgConnection,
    identities: &[&str],
) -> Result<Vec<Agent>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- people.agents_of
        select identity as "identity: Identity", name, team_id, supervisor as "supervisor: Identity", backup as "backup: Identity",
               skills, capacity, left_at,
               availability, availability_reason, availability_until, availability_since, availability_set_by,
               version, created_at, updated_at
        from agent where identity = any($1)"#,
        identities as _,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok(agent!(row))).collect()
}

pub(in crate::people) async fn all_agents(conn: &mut PgConnection) -> Result<Vec<Agent>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- people.all_agents
        select identity as "identity: Identity", name, team_id, supervisor as "supervisor: Identity", backup as "backup: Identity",
               skills, capacity, left_at,
               availability, availability_reason, availability_until, availability_since, availability_set_by,
               version, created_at, updated_at
        from agent order by identity"#,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok(agent!(row))).collect()
}

/// Who is whose supervisor.
pub(in crate::people) async fn supervisors(
    conn: &mut PgConnection,
) -> Result<BTreeMap<Identity, Identity>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- people.supervisors
        select identity as "identity: Identity", supervisor as "supervisor!: Identity" from agent where supervisor is not null"#
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.identity, row.supervisor))
        .collect())
}

/// Writes agents as they are, but for the availability of those that are there.
pub(in crate::people) async fn upsert_agents(
    conn: &mut PgConnection,
    agents: &[Agent],
) -> Result<(), sqlx::Error> {
    let identities: Vec<&str> = agents.iter().map(|agent| agent.identity.as_str()).collect();
    let profiles = || agents.iter().map(|agent| &agent.profile);
    let names: Vec<&str> = profiles().map(|profile| profile.name.as_str()).collect();
    let teams: Vec<Option<&str>> = profiles()
        .map(|profile| profile.team.as_ref().map(Slug::as_str))
        .collect();
    let supervisors: Vec<Option<&str>> = profiles()
        .map(|profile| profile.supervisor.as_ref().map(Identity::as_str))
        .collect();
    let backups: Vec<Option<&str>> = profiles()
        .map(|profile| profile.backup.as_ref().map(Identity::as_str))
        .collect();
    // Arrays of arrays would all have to be of one length. No skill has a space.
    let skills: Vec<String> = profiles()
        .map(|profile| {
            profile
                .skills
                .iter()
                .map(Slug::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    let capacities: Vec<Option<i32>> = profiles()
        .map(|profile| profile.capacity.and_then(|capacity| i32::try_from(capacity).ok()))
        .collect();
    let left: Vec<_> = profiles()
        .map(|profile| profile.left_at.map(jiff_sqlx::ToSqlx::to_sqlx))
        .collect();
    let since: Vec<_> = agents
        .iter()
        .map(|agent| agent.availability.since.to_sqlx())
        .collect();
    let versions: Vec<i64> = agents.iter().map(|agent| agent.version).collect();
    let created: Vec<_> = agents.iter().map(|agent| agent.created_at.to_sqlx()).collect();
    let updated: Vec<_> = agents.iter().map(|agent| agent.updated_at.to_sqlx()).collect();
    sqlx::query!(
        "-- people.upsert_agents
        insert into agent (identity, name, team_id, supervisor, skills, capacity, left_at, availability, availability_since,
            version, created_at, updated_at, backup)
        select identity, name, team_id, supervisor, coalesce(string_to_array(nullif(skills, ''), ' '), '{}'), capacity, left_at,
            'available', availability_since, version, created_at, updated_at, backup
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int4[], $7::timestamptz[],
                    $8::timestamptz[], $9::int8[], $10::timestamptz[], $11::timestamptz[], $12::text[])
            as new (identity, name, team_id, supervisor, skills, capacity, left_at, availability_since, version, created_at,
                    updated_at, backup)
        on conflict (identity) do update set name = excluded.name, team_id = excluded.team_id,
            supervisor = excluded.supervisor, skills = excluded.skills, capacity = excluded.capacity,
            left_at = excluded.left_at, version = excluded.version, updated_at = excluded.updated_at,
            backup = excluded.backup",
        &identities as _,
        &names as _,
        &teams as _,
        &supervisors as _,
        &skills,
        &capacities as _,
        &left as _,
        &since as _,
        &versions,
        &created as _,
        &updated as _,
        &backups as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(in crate::people) async fn update_availability(
    conn: &mut PgConnection,
    agent: &Agent,
) -> Result<(), sqlx::Error> {
    let availability = &agent.availability;
    sqlx::query!(
        "-- people.update_availability
        update agent set availability = $2, availability_reason = $3, availability_until = $4, availability_since = $5,
            availability_set_by = $6
        where identity = $1",
        agent.identity.as_str(),
        availability.status.as_str(),
        availability.reason,
        availability.until.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        availability.since.to_sqlx() as _,
        availability.set_by,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Who and what refers to an agent; a few of each.
#[derive(Debug)]
pub struct References {
    pub supervises: Vec<String>,
    pub on_call: Vec<String>,
    pub backs_up: Vec<String>,
    /// How many numbers give their lines to the agent.
    pub numbers: i64,
}

impl References {
    pub(in crate::people) fn is_empty(&self) -> bool {
        self.supervises.is_empty() && self.on_call.is_empty() && self.backs_up.is_empty() && self.numbers == 0
    }
}

pub(in crate::people) async fn references_to(
    conn: &mut PgConnection,
    identity: &str,
) -> Result<References, sqlx::Error> {
    sqlx::query_as!(
        References,
        r#"-- people.references_to
        select array(select identity from agent where supervisor = $1 order by identity limit 20) as "supervises!",
               array(select team_id from team_on_call where identity = $1 order by team_id limit 20) as "on_call!",
               array(select identity from agent where backup = $1 order by identity limit 20) as "backs_up!",
               (select count(*) from number where person = $1) as "numbers!""#,
        identity,
    )
    .fetch_one(conn)
    .await
}

/// Answers whether they were there.
pub(in crate::people) async fn delete_agent(
    conn: &mut PgConnection,
    identity: &str,
) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query!(
        "-- people.delete_agent
        delete from agent where identity = $1",
        identity
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected() > 0)
}

/// Which agents to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Some(false): only identities that appear at Twilio and are unknown here.
    pub known: Option<bool>,
    pub team: Option<Slug>,
    pub supervisor: Option<Identity>,
    pub skill: Option<Slug>,
    pub left: Option<bool>,
}

/// An identity of a list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub identity: String,
    /// None: it appears at Twilio and is unknown here.
    pub agent: Option<Agent>,
}

/// Up to `limit` identities after one, in order: agents, and who is in a conversation or holds a line without being one.
pub async fn page_of_agents(
    conn: &mut PgConnection,
    filter: &Filter,
    after: Option<&str>,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Listed>, sqlx::Error> {
    // Nobody can say of an unknown identity which team it is in.
    let asks_for_agents = filter.team.is_some()
        || filter.supervisor.is_some()
        || filter.skill.is_some()
        || filter.left.is_some();
    let identities = sqlx::query_scalar!(
        r#"-- people.page_of_agents
        -- From one identity to the next by its index, however many rows each has. A page that has agents too needs no more
        -- identities than it has places; one without them needs as many that are unknown.
        with recursive member as (
            (select identity, ($9 or not exists (select from agent where agent.identity = participant.identity))::int::bigint
                as number
             from participant
             where $8 and identity is not null and removed_at is null and ($1::text is null or identity > $1)
             order by identity limit 1)
            union all
            select next.identity,
                   number + ($9 or not exists (select from agent where agent.identity = next.identity))::int
            from member cross join lateral (
                select identity from participant
                where identity is not null and removed_at is null and identity > member.identity
                order by identity limit 1) as next
            where number < $2
        ), holder as (
            (select holder as identity, ($9 or not exists (select from agent where agent.identity = tenure.holder))::int::bigint
                as number
             from tenure
             where $8 and holder is not null and superseded_at is null and upper_inf(during)
               and ($1::text is null or holder > $1)
             order by holder limit 1)
            union all
            select next.holder,
                   number + ($9 or not exists (select from agent where agent.identity = next.holder))::int
            from holder cross join lateral (
                select tenure.holder from tenure
                where tenure.holder is not null and superseded_at is null and upper_inf(during)
                  and tenure.holder > holder.identity
                order by tenure.holder limit 1) as next
            where number < $2
        ), unknown as (
            select identity from (select identity from member union select identity from holder) as seen
            where not exists (select from agent where agent.identity = seen.identity)
        )
        select identity as "identity!" from (
            (select identity from agent
             where $9 and ($1::text is null or identity > $1) and ($3::text is null or team_id = $3)
               and ($4::text is null or supervisor = $4) and ($5::text is null or $5 = any(skills))
               and ($6::bool is null or coalesce(left_at <= $7, false) = $6)
             order by identity limit $2)
            union all select identity from unknown
        ) as listed
        order by identity limit $2"#,
        after,
        limit,
        filter.team.as_ref().map(Slug::as_str),
        filter.supervisor.as_ref().map(Identity::as_str),
        filter.skill.as_ref().map(Slug::as_str),
        filter.left,
        now.to_sqlx() as _,
        filter.known != Some(true) && !asks_for_agents,
        filter.known != Some(false),
    )
    .fetch_all(&mut *conn)
    .await?;
    let asked: Vec<&str> = identities.iter().map(String::as_str).collect();
    let mut agents = agents_of(conn, &asked).await?;
    Ok(identities
        .into_iter()
        .map(|identity| {
            let place = agents
                .iter()
                .position(|agent| agent.identity.as_str() == identity);
            Listed {
                agent: place.map(|place| agents.swap_remove(place)),
                identity,
            }
        })
        .collect())
}

/// Whether an identity is in a conversation, or holds a line.
pub async fn is_seen(conn: &mut PgConnection, identity: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- people.is_seen
        select exists (select from participant where identity = $1 and removed_at is null)
            or exists (select from tenure where holder = $1 and superseded_at is null and upper_inf(during)) as "is_seen!""#,
        identity,
    )
    .fetch_one(conn)
    .await
}
