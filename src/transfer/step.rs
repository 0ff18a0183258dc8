//! Rows of the steps that were tried, and of what each account does about replacing an identity.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::transfer::{Step, Transfer};

/// Writes down that something is about to be tried, and since when the transfer's line is contested; answers the step's
/// number.
pub(super) async fn begin(
    conn: &mut PgConnection,
    transfer: &Transfer,
    action: &str,
    now: Timestamp,
) -> Result<i32, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- transfer.begin_step
        with contested as (
            update transfer set contested_from = $5, updated_at = $4 where conversation_sid = $1 and transfer_id = $2)
        insert into transfer_step (conversation_sid, transfer_id, step_number, action, started_at)
        select $1, $2, coalesce(max(step_number), 0) + 1, $3, $4 from transfer_step
        where conversation_sid = $1 and transfer_id = $2
        returning step_number"#,
        transfer.conversation_sid.as_str(),
        transfer.transfer_id,
        action,
        now.to_sqlx() as _,
        transfer.contested_from.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.step_number)
}

/// Writes down what became of it. That does not wait for the disk: where a crash of the server forgets it, the step stands as
/// one of which nobody knows what became, and is looked at again.
pub(super) async fn end(
    conn: &mut PgConnection,
    transfer: &Transfer,
    step_number: i32,
    outcome: &str,
    detail: Option<&str>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.end_step
        with relaxed as (select set_config('synchronous_commit', 'off', true))
        update transfer_step set outcome = $4, detail = $5, finished_at = $6 from relaxed
        where conversation_sid = $1 and transfer_id = $2 and step_number = $3",
        transfer.conversation_sid.as_str(),
        transfer.transfer_id,
        step_number,
        outcome,
        detail,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Everything that was tried, in order.
pub async fn steps(
    conn: &mut PgConnection,
    conversation_sid: &str,
    transfer_id: Uuid,
) -> Result<Vec<Step>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- transfer.steps
        select step_number, action, started_at, finished_at, outcome, detail from transfer_step
        where conversation_sid = $1 and transfer_id = $2 order by step_number",
        conversation_sid,
        transfer_id,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Step {
            step_number: row.step_number,
            action: row.action,
            started_at: row.started_at.to_jiff(),
            finished_at: row.finished_at.map(jiff_sqlx::Timestamp::to_jiff),
            outcome: row.outcome,
            detail: row.detail,
        })
        .collect())
}

/// Whether this account is known to refuse replacing an identity.
pub(super) async fn update_refused(conn: &mut PgConnection, account_sid: &str) -> Result<bool, sqlx::Error> {
    let row = sqlx::query!(
        "-- transfer.update_refused
        select update_refused from transfer_method where account_sid = $1",
        account_sid,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some_and(|row| row.update_refused))
}

/// Remembers what this account does about replacing an identity.
pub(super) async fn learn_method(
    conn: &mut PgConnection,
    account_sid: &str,
    update_refused: bool,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.learn_method
        insert into transfer_method (account_sid, update_refused, learnt_at) values ($1, $2, $3)
        on conflict (account_sid) do update set update_refused = excluded.update_refused, learnt_at = excluded.learnt_at
        where transfer_method.update_refused <> excluded.update_refused",
        account_sid,
        update_refused,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}
