//! Rows of what became of opt-outs in conversations.

use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::opt_out::{Concern, ConcernState, read_policy};

/// What became of opt-outs in a conversation.
pub async fn concerns_of(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Vec<Concern>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- opt_out.concerns_of
        select conversation_sid, opt_out_id, policy, state, decided_by, decided_at, updated_at
        from opt_out_concern where conversation_sid = $1",
        conversation_sid,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Concern {
            conversation_sid: row.conversation_sid,
            opt_out_id: row.opt_out_id,
            policy: read_policy(&row.policy),
            state: ConcernState::read(&row.state),
            decided_by: row.decided_by,
            decided_at: row.decided_at.map(jiff_sqlx::Timestamp::to_jiff),
            updated_at: row.updated_at.to_jiff(),
        })
        .collect())
}

/// The conversations in which something became of an opt-out.
pub(super) async fn conversations_concerned(
    conn: &mut PgConnection,
    opt_out_id: Uuid,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- opt_out.conversations_concerned
        select conversation_sid from opt_out_concern where opt_out_id = $1 order by conversation_sid",
        opt_out_id,
    )
    .fetch_all(conn)
    .await
}

/// Writes what became of an opt-out in a conversation.
pub(super) async fn save_concern(conn: &mut PgConnection, concern: &Concern) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- opt_out.save_concern
        insert into opt_out_concern (conversation_sid, opt_out_id, policy, state, decided_by, decided_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (conversation_sid, opt_out_id) do update
        set policy = excluded.policy, state = excluded.state, decided_by = excluded.decided_by,
            decided_at = excluded.decided_at, updated_at = excluded.updated_at",
        concern.conversation_sid,
        concern.opt_out_id,
        concern.policy.as_str(),
        concern.state.as_str(),
        concern.decided_by,
        concern.decided_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        concern.updated_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Those of some conversations in which something waits for a supervisor.
pub(super) async fn held_in(
    conn: &mut PgConnection,
    conversation_sids: &[&str],
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- opt_out.held_in
        select distinct conversation_sid from opt_out_concern
        where conversation_sid = any($1) and state = 'held' order by conversation_sid",
        conversation_sids as _,
    )
    .fetch_all(conn)
    .await
}

/// Nothing is to come of an opt-out in a conversation for now.
pub(super) async fn forget(
    conn: &mut PgConnection,
    conversation_sid: &str,
    opt_out_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- opt_out.forget_concern
        delete from opt_out_concern where conversation_sid = $1 and opt_out_id = $2 and state = 'closing'",
        conversation_sid,
        opt_out_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}
