//! Erasing from escalations: of a person, for whom a pseudonym stands, and by age, why people asked for them.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::escalation::store::watch;
use crate::ids::ConversationSid;
use crate::mirror::erase::{Keys, Looked, Window};
use crate::person::Person;

/// Escalations in the order of their keys, with those marked as due that ended before a time and say why they were asked for.
pub async fn words_due(conn: &mut PgConnection, window: Window<'_>) -> Result<Vec<Looked>, sqlx::Error> {
    let after: Uuid = window.after.1.parse().unwrap_or_default();
    let rows = sqlx::query!(
        r#"-- escalation.words_due
        select conversation_sid, escalation_id,
               (coalesce(finished_at < $3, false) and reason is not null) as "is_due!"
        from escalation where (conversation_sid, escalation_id) > ($1, $2)
        order by conversation_sid, escalation_id limit $4"#,
        window.after.0,
        after,
        window.before.to_sqlx() as _,
        window.limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Looked {
            parent: row.conversation_sid.clone(),
            key: row.escalation_id.to_string(),
            conversation_sid: Some(row.conversation_sid),
            is_due: row.is_due,
        })
        .collect())
}

/// Erases why these escalations were asked for.
pub async fn erase_words(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    before: Timestamp,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- escalation.erase_words
        update escalation set reason = null
        from unnest($1::text[], $2::text[]) as due (parent, key)
        where conversation_sid = due.parent and escalation_id::text = due.key and finished_at < $3",
        keys.parents as _,
        keys.keys as _,
        before.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}

/// The conversations with escalations that name the person.
pub async fn conversations_of(conn: &mut PgConnection, person: &Person) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- escalation.conversations_of_person
        select conversation_sid as "sid!" from escalation
        where $1 in (holder, asked_by, stopped_by) or reason like any($2)
        union select conversation_sid from escalation_step where to_identity = $1 or whom = 'person:' || $1"#,
        person.exact(),
        &person.patterns() as _,
    )
    .fetch_all(conn)
    .await
}

/// Puts the pseudonym in the person's place. A step that was to offer or give them the line comes to nothing, and the next one
/// is taken. Answers of how many escalations.
pub async fn erase(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    // Whoever looks at the lines at this moment writes nothing of whom they saw.
    watch::mark_conversations(conn, &[sid.as_str()], now).await?;
    let erased = sqlx::query!(
        "-- escalation.erase_person
        update escalation
        set holder = case when holder = $2 then $4 else holder end,
            asked_by = case when asked_by = $2 then $4 else asked_by end,
            stopped_by = case when stopped_by = $2 then $4 else stopped_by end,
            reason = case when asked_by = $2 or reason like any($3) then null else reason end,
            cause_key = case when cause = 'unavailable' and holder = $2 then split_part(cause_key, ':', 1) || ':' || $4
                             else cause_key end
        where conversation_sid = $1
          and ($2 in (holder, asked_by, stopped_by) or reason like any($3))",
        sid.as_str(),
        person.exact(),
        &person.patterns() as _,
        person.pseudonym(),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "-- escalation.erase_person_from_steps
        update escalation_step
        set outcome = case when outcome = 'asked' and to_identity = $2 then 'dropped' else outcome end,
            settled_at = case when outcome = 'asked' and to_identity = $2 then $4 else settled_at end,
            to_identity = case when to_identity = $2 then $3 else to_identity end,
            whom = case when whom = 'person:' || $2 then 'person:' || $3 else whom end
        where conversation_sid = $1 and (to_identity = $2 or whom = 'person:' || $2)",
        sid.as_str(),
        person.exact(),
        person.pseudonym(),
        now.to_sqlx() as _,
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
