//! Erasing a person from the people: a pseudonym stands in their place, and they have left.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::store;
use crate::person::Person;

/// Puts the pseudonym in the person's place: as an agent, as a supervisor or a backup, on call, and as who said when somebody is away.
/// The name is the pseudonym too, since an agent has one; words about when they are away go. Answers of how many agents
/// and places of on-call orders.
pub async fn erase(conn: &mut PgConnection, person: &Person, now: Timestamp) -> Result<i64, sqlx::Error> {
    store::lock(conn).await?;
    sqlx::query_scalar!(
        r#"-- people.erase_person
        with agents as (
            update agent
            set identity = case when identity = $1 then $3 else identity end,
                name = case when identity = $1 or name like any($2) then $3 else name end,
                supervisor = case when supervisor = $1 then $3 else supervisor end,
                backup = case when backup = $1 then $3 else backup end,
                left_at = case when identity = $1 then least(left_at, $4) else left_at end,
                availability_reason = case when identity = $1 or availability_set_by = $1
                                             or availability_reason like any($2)
                                           then null else availability_reason end,
                availability_set_by = case when availability_set_by = $1 then $3 else availability_set_by end,
                version = version + case when $1 in (identity, supervisor, backup) or name like any($2) then 1 else 0 end,
                updated_at = $4
            where $1 in (identity, supervisor, backup, availability_set_by)
               or concat_ws(' ', name, availability_reason) like any($2)
            returning 1
        ), on_call as (
            update team_on_call set identity = $3 where identity = $1 returning team_id
        ), teams as (
            update team set version = version + 1, updated_at = $4 where team_id in (select team_id from on_call)
        )
        select (select count(*) from agents) + (select count(*) from on_call) as "rows!""#,
        person.exact(),
        &person.patterns() as _,
        person.pseudonym(),
        now.to_sqlx() as _,
    )
    .fetch_one(conn)
    .await
}
