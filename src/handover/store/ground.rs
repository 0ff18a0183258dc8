//! What is asked of other tables about a plan's lines, all at once.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

/// Who is in these conversations now, and on which number: conversation, identity, number.
pub(in crate::handover) async fn members(
    conn: &mut PgConnection,
    conversation_sids: &[&str],
) -> Result<Vec<(String, String, Option<String>)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- handover.members
        select conversation_sid, identity as "identity!", projected_address from participant
        where conversation_sid = any($1) and identity is not null and removed_at is null"#,
        conversation_sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.conversation_sid, row.identity, row.projected_address))
        .collect())
}

/// Which of these conversations are over: closed or removed.
pub(in crate::handover) async fn conversation_states(
    conn: &mut PgConnection,
    conversation_sids: &[&str],
) -> Result<HashMap<String, bool>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- handover.conversation_states
        select conversation_sid, (removed_at is not null or coalesce(state = 'closed', false)) as "is_over!"
        from conversation where conversation_sid = any($1)"#,
        conversation_sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.conversation_sid, row.is_over))
        .collect())
}

/// Who of these had the last turn among the lines of a plan that have begun.
pub(in crate::handover) async fn last_turn(
    conn: &mut PgConnection,
    handover_id: Uuid,
    members: &[String],
) -> Result<Option<String>, sqlx::Error> {
    let last = sqlx::query_scalar!(
        "-- handover.last_turn
        select to_holder from handover_line
        where handover_id = $1 and why = 'round_robin' and transfer_id is not null and to_holder = any($2)
        order by conversation_sid desc, line desc limit 1",
        handover_id,
        members,
    )
    .fetch_optional(conn)
    .await?;
    Ok(last.flatten())
}

/// How many lines of a plan are on their way to whom, and not yet theirs.
pub(in crate::handover) async fn on_the_way(
    conn: &mut PgConnection,
    handover_id: Uuid,
) -> Result<HashMap<String, u32>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- handover.on_the_way
        select to_holder as "to_holder!", count(*) as "lines!" from handover_line as given
        where handover_id = $1 and state = 'transferring' and to_holder is not null
          and not exists (select from tenure
                          where tenure.conversation_sid = given.conversation_sid and tenure.line = given.line
                            and tenure.holder = given.to_holder and superseded_at is null and upper_inf(during))
        group by to_holder"#,
        handover_id,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.to_holder, u32::try_from(row.lines).unwrap_or(u32::MAX)))
        .collect())
}
