//! Erasing a person from transfers: a pseudonym stands in their place, and what they wrote or is written of them goes.

use sqlx::PgConnection;

use crate::ids::ConversationSid;
use crate::person::Person;

/// The conversations with transfers that name the person.
pub async fn conversations_of(conn: &mut PgConnection, person: &Person) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- transfer.conversations_of_person
        select conversation_sid as "sid!" from transfer
        where $1 in (from_holder, to_holder, requested_by, decided_by)
           or position($2 in concat_ws(' ', reason, note, outcome_detail)) > 0
        union select conversation_sid from transfer_step where position($2 in detail) > 0"#,
        person.exact(),
        person.needle(),
    )
    .fetch_all(conn)
    .await
}

/// Whether a transfer that is not finished has to do with the person.
pub async fn is_at_work(conn: &mut PgConnection, person: &Person) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- transfer.is_at_work_for_person
        select exists (select from transfer
                       where finished_at is null and $1 in (from_holder, to_holder, requested_by)) as "is_at_work!""#,
        person.exact(),
    )
    .fetch_one(conn)
    .await
}

/// Puts the pseudonym in the person's place. Answers of how many transfers.
pub async fn erase(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query_scalar!(
        "-- transfer.erase_person
        update transfer
        set from_holder = case when from_holder = $2 then $4 else from_holder end,
            to_holder = case when to_holder = $2 then $4 else to_holder end,
            requested_by = case when requested_by = $2 then $4 else requested_by end,
            decided_by = case when decided_by = $2 then $4 else decided_by end,
            reason = case when requested_by = $2 or position($3 in reason) > 0 then null else reason end,
            note = case when requested_by = $2 or position($3 in note) > 0 then null else note end,
            outcome_detail = case when position($2 in outcome_detail) > 0 then null else outcome_detail end
        where conversation_sid = $1
          and ($2 in (from_holder, to_holder, requested_by, decided_by)
               or position($3 in concat_ws(' ', reason, note, outcome_detail)) > 0)
        returning transfer_id",
        sid.as_str(),
        person.exact(),
        person.needle(),
        person.pseudonym(),
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        "-- transfer.erase_person_from_steps
        update transfer_step set detail = null
        where conversation_sid = $1
          and (position($3 in detail) > 0 or (transfer_id = any($4) and position($2 in detail) > 0))",
        sid.as_str(),
        person.exact(),
        person.needle(),
        &erased,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.len()).unwrap_or(i64::MAX))
}
