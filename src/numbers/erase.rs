//! Erasing a person from the pool: a pseudonym stands in their place.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::store;
use crate::person::Person;

/// Puts the pseudonym in the person's place, and drops a label that names them. Answers of how many numbers.
pub async fn erase(conn: &mut PgConnection, person: &Person, now: Timestamp) -> Result<i64, sqlx::Error> {
    store::lock(conn).await?;
    let erased = sqlx::query!(
        "-- numbers.erase_person
        update number
        set person = case when person = $1 then $3 else person end,
            label = case when label like any($2) then null else label end,
            version = version + 1, updated_at = $4
        where person = $1 or label like any($2)",
        person.exact(),
        &person.patterns() as _,
        person.pseudonym(),
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}
