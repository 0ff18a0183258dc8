//! Teams' rows.

use jiff_sqlx::ToSqlx as _;
use serde_json::json;
use sqlx::PgConnection;

use super::unreadable;
use crate::ids::Identity;
use crate::people::rotation::Rotation;
use crate::people::{Team, TeamPlan};

macro_rules! team {
    ($row:ident) => {
        Team {
            team_id: $row
                .team_id
                .parse()
                .map_err(|error| unreadable("team.team_id", error))?,
            plan: TeamPlan {
                name: $row.name,
                time_zone: $row
                    .time_zone
                    .parse()
                    .map_err(|error| unreadable("team.time_zone", error))?,
                hours: serde_json::from_value($row.hours).map_err(|error| unreadable("team.hours", error))?,
                holidays: serde_json::from_value($row.holidays)
                    .map_err(|error| unreadable("team.holidays", error))?,
                on_call: $row
                    .on_call
                    .iter()
                    .map(|identity| {
                        Identity::try_from(identity.as_str())
                            .map_err(|error| unreadable("team_on_call", error))
                    })
                    .collect::<Result<_, _>>()?,
                rotation: rotation($row.rotation_every, $row.rotation_start)?,
            },
            version: $row.version,
            created_at: $row.created_at.to_jiff(),
            updated_at: $row.updated_at.to_jiff(),
        }
    };
}

fn rotation(every: Option<String>, start: Option<String>) -> Result<Option<Rotation>, sqlx::Error> {
    every
        .zip(start)
        .map(|(every, start)| serde_json::from_value(json!({ "every": every, "start": start })))
        .transpose()
        .map_err(|error| unreadable("team.rotation", error))
}

pub async fn find_team(conn: &mut PgConnection, team_id: &str) -> Result<Option<Team>, sqlx::Error> {
    Ok(teams_of(conn, &[team_id]).await?.pop())
}

pub(in crate::people) async fn teams_of(
    conn: &mut PgConnection,
    team_ids: &[&str],
) -> Result<Vec<Team>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- people.teams_of
        select team_id, name, time_zone, hours, holidays, rotation_every, rotation_start, version, created_at, updated_at,
               array(select identity from team_on_call where team_on_call.team_id = team.team_id order by place) as "on_call!"
        from team where team_id = any($1)"#,
        team_ids as _,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok(team!(row))).collect()
}

pub(in crate::people) async fn all_teams(conn: &mut PgConnection) -> Result<Vec<Team>, sqlx::Error> {
    page_of_teams(conn, None, i64::MAX).await
}

/// Up to `limit` teams after one, in order.
pub async fn page_of_teams(
    conn: &mut PgConnection,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Team>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- people.page_of_teams
        select team_id, name, time_zone, hours, holidays, rotation_every, rotation_start, version, created_at, updated_at,
               array(select identity from team_on_call where team_on_call.team_id = team.team_id order by place) as "on_call!"
        from team where $1::text is null or team_id > $1
        order by team_id limit $2"#,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok(team!(row))).collect()
}

/// The identities of a team's members, in order.
pub async fn members(conn: &mut PgConnection, team_id: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- people.members
        select identity from agent where team_id = $1 order by identity",
        team_id,
    )
    .fetch_all(conn)
    .await
}

pub(in crate::people) async fn count_members(
    conn: &mut PgConnection,
    team_id: &str,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- people.count_members
        select count(*) as "count!" from agent where team_id = $1"#,
        team_id,
    )
    .fetch_one(conn)
    .await
}

/// Numbers of the pool that are the team's.
pub(in crate::people) async fn count_numbers(
    conn: &mut PgConnection,
    team_id: &str,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- people.count_numbers
        select count(*) as "count!" from number where team_id = $1"#,
        team_id,
    )
    .fetch_one(conn)
    .await
}

/// Writes a team as it is, with its on-call order.
pub(in crate::people) async fn upsert_team(conn: &mut PgConnection, team: &Team) -> Result<(), sqlx::Error> {
    let plan = &team.plan;
    let rotation = plan.rotation.map(|rotation| json!(rotation));
    let of_rotation = |name: &str| {
        let rotation = rotation.as_ref()?;
        rotation[name].as_str().map(str::to_owned)
    };
    sqlx::query!(
        "-- people.upsert_team
        insert into team (team_id, name, time_zone, hours, holidays, rotation_every, rotation_start, version, created_at,
            updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        on conflict (team_id) do update set name = excluded.name, time_zone = excluded.time_zone, hours = excluded.hours,
            holidays = excluded.holidays, rotation_every = excluded.rotation_every,
            rotation_start = excluded.rotation_start, version = excluded.version, updated_at = excluded.updated_at",
        team.team_id.as_str(),
        plan.name,
        plan.time_zone.name(),
        json!(plan.hours),
        json!(plan.holidays),
        of_rotation("every"),
        of_rotation("start"),
        team.version,
        team.created_at.to_sqlx() as _,
        team.updated_at.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "-- people.clear_on_call
        delete from team_on_call where team_id = $1",
        team.team_id.as_str()
    )
    .execute(&mut *conn)
    .await?;
    let order: Vec<&str> = plan.on_call.iter().map(Identity::as_str).collect();
    sqlx::query!(
        "-- people.insert_on_call
        insert into team_on_call (team_id, place, identity)
        select $1, (place - 1)::int4, identity from unnest($2::text[]) with ordinality as one (identity, place)",
        team.team_id.as_str(),
        &order as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Answers whether it was there.
pub(in crate::people) async fn delete_team(
    conn: &mut PgConnection,
    team_id: &str,
) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query!(
        "-- people.delete_team
        delete from team where team_id = $1",
        team_id
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected() > 0)
}
