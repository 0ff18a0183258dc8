//! Erasing a person from escalations: a pseudonym stands in their place, and what they wrote or is written of them goes.

use sqlx::PgConnection;

use crate::ids::ConversationSid;
use crate::person::Person;

/// The conversations with escalations that name the person.
pub async fn conversations_of(conn: &mut PgConnection, person: &Person) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- escalation.conversations_of_person
        select conversation_sid as "sid!" from escalation
        where $1 in (holder, asked_by, stopped_by) or position($2 in reason) > 0
        union select conversation_sid from escalation_step where to_identity = $1 or whom = 'person:' || $1"#,
        person.exact(),
        person.needle(),
    )
    .fetch_all(conn)
    .await
}

/// Puts the pseudonym in the person's place. Answers of how many escalations.
pub async fn erase(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- escalation.erase_person
        update escalation
        set holder = case when holder = $2 then $4 else holder end,
            asked_by = case when asked_by = $2 then $4 else asked_by end,
            stopped_by = case when stopped_by = $2 then $4 else stopped_by end,
            reason = case when asked_by = $2 or position($3 in reason) > 0 then null else reason end,
            cause_key = case when cause = 'unavailable' and holder = $2 then split_part(cause_key, ':', 1) || ':' || $4
                             else cause_key end
        where conversation_sid = $1
          and ($2 in (holder, asked_by, stopped_by) or position($3 in reason) > 0)",
        sid.as_str(),
        person.exact(),
        person.needle(),
        person.pseudonym(),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "-- escalation.erase_person_from_steps
        update escalation_step
        set to_identity = case when to_identity = $2 then $3 else to_identity end,
            whom = case when whom = 'person:' || $2 then 'person:' || $3 else whom end
        where conversation_sid = $1 and (to_identity = $2 or whom = 'person:' || $2)",
        sid.as_str(),
        person.exact(),
        person.pseudonym(),
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}

/// Puts the pseudonym in the person's place in every version of the policies, by which nobody is reached through them any more.
/// Answers of how many versions.
pub async fn erase_from_policies(conn: &mut PgConnection, person: &Person) -> Result<i64, sqlx::Error> {
    let quoted = serde_json::Value::from(person.exact()).to_string();
    let erased = sqlx::query!(
        r#"-- escalation.erase_person_from_policies
        update escalation_policy_version
        set created_by = case when created_by = $1 then $3 else created_by end,
            document = replace(document::text, '"person": ' || $2, '"person": ' || to_json($3::text)::text)::jsonb
        where created_by = $1 or position('"person": ' || $2 in document::text) > 0"#,
        person.exact(),
        quoted,
        person.pseudonym(),
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}
