//! Erasing a person from the pool: a pseudonym stands in their place.

use sqlx::PgConnection;

use crate::person::Person;

/// Puts the pseudonym in the person's place, and drops a label that names them. Answers of how many numbers.
pub async fn erase(conn: &mut PgConnection, person: &Person) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- numbers.erase_person
        update number
        set person = case when person = $1 then $3 else person end,
            label = case when position($2 in label) > 0 then null else label end
        where person = $1 or position($2 in coalesce(label, '')) > 0",
        person.exact(),
        person.needle(),
        person.pseudonym(),
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}
