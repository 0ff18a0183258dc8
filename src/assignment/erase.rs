//! Erasing a person from what waits or was given: a pseudonym stands in their place.

use sqlx::PgConnection;

use crate::person::Person;

/// Puts the pseudonym in the person's place, but in the conversations of `held`. Answers of how many rows.
pub async fn erase(conn: &mut PgConnection, person: &Person, held: &[String]) -> Result<i64, sqlx::Error> {
    let quoted = serde_json::Value::from(person.exact()).to_string();
    // Turns first, as whoever decides locks them.
    let turns = sqlx::query!(
        "-- assignment.erase_turns
        update assignment_turn set last_identity = null where last_identity = $1",
        person.exact(),
    )
    .execute(&mut *conn)
    .await?;
    let erased = sqlx::query!(
        "-- assignment.erase_person
        update line_assignment
        set last_holder = case when last_holder = $1 then $3 else last_holder end,
            to_holder = case when to_holder = $1 then $3 else to_holder end,
            passed = replace(passed::text, $2, to_json($3::text)::text)::jsonb
        where (last_holder = $1 or to_holder = $1 or position($2 in passed::text) > 0)
          and not (conversation_sid = any($4))",
        person.exact(),
        quoted,
        person.pseudonym(),
        held,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected() + turns.rows_affected()).unwrap_or(i64::MAX))
}
