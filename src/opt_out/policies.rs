//! Rows of policies: what a number has of its own.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::opt_out::{Policy, read_policy};

/// What a number has of its own.
pub(super) async fn find(
    conn: &mut PgConnection,
    account_sid: &str,
    line: &str,
) -> Result<Option<Policy>, sqlx::Error> {
    let policy = sqlx::query_scalar!(
        "-- opt_out.policy_of
        select policy from opt_out_policy where account_sid = $1 and line = $2",
        account_sid,
        line,
    )
    .fetch_optional(conn)
    .await?;
    Ok(policy.as_deref().map(read_policy))
}

pub(super) async fn set(
    conn: &mut PgConnection,
    account_sid: &str,
    line: &str,
    policy: Policy,
    set_by: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- opt_out.set_policy
        insert into opt_out_policy (account_sid, line, policy, set_by, set_at) values ($1, $2, $3, $4, $5)
        on conflict (account_sid, line) do update
        set policy = excluded.policy, set_by = excluded.set_by, set_at = excluded.set_at",
        account_sid,
        line,
        policy.as_str(),
        set_by,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn drop_own(
    conn: &mut PgConnection,
    account_sid: &str,
    line: &str,
) -> Result<bool, sqlx::Error> {
    let dropped = sqlx::query!(
        "-- opt_out.drop_policy
        delete from opt_out_policy where account_sid = $1 and line = $2",
        account_sid,
        line,
    )
    .execute(conn)
    .await?;
    Ok(dropped.rows_affected() == 1)
}
