//! Erasing a person from findings: only who asked for a repair is a name.

use sqlx::PgConnection;

use crate::person::Person;

/// The conversations with findings whose repair the person asked for.
pub async fn conversations_of(conn: &mut PgConnection, person: &Person) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- health.conversations_of_person
        select distinct conversation_sid as "sid!" from line_finding where repair_requested_by = $1"#,
        person.exact(),
    )
    .fetch_all(conn)
    .await
}

/// Puts the pseudonym in the person's place, but in the conversations of `held`. Answers of how many findings.
pub async fn erase(conn: &mut PgConnection, person: &Person, held: &[String]) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- health.erase_person
        update line_finding
        set repair_requested_by = $2,
            repair_outcome = case when position($1 in repair_outcome) > 0 then 'erased' else repair_outcome end
        where repair_requested_by = $1 and not conversation_sid = any($3)",
        person.exact(),
        person.pseudonym(),
        held,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}
