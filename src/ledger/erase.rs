//! Erasing a person from the ledger: a pseudonym stands in their place, and every stretch stays as it was.

use sqlx::PgConnection;

use crate::ids::ConversationSid;
use crate::person::Person;

/// The conversations of which the person held a line, as far as was ever said or believed.
pub async fn conversations_of(conn: &mut PgConnection, person: &Person) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- ledger.conversations_of_person
        select conversation_sid as "sid!" from holding where identity = $1
        union select conversation_sid from tenure where holder = $1
        union select conversation_sid from line_lease where to_holder = $1"#,
        person.exact(),
    )
    .fetch_all(conn)
    .await
}

/// Puts the pseudonym in the person's place. Answers of how many rows.
pub async fn erase(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- ledger.erase_person
        with holdings as (
            update holding set identity = $3 where conversation_sid = $1 and identity = $2 returning 1
        ), tenures as (
            update tenure set holder = $3 where conversation_sid = $1 and holder = $2 returning 1
        ), leases as (
            update line_lease set to_holder = $3 where conversation_sid = $1 and to_holder = $2 returning 1
        )
        select (select count(*) from holdings) + (select count(*) from tenures) + (select count(*) from leases) as "rows!""#,
        sid.as_str(),
        person.exact(),
        person.pseudonym(),
    )
    .fetch_one(conn)
    .await
}
