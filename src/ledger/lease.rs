//! The lease of a line: who may change its holder right now.
//!
//! Twilio has no compare-and-set. A transfer takes the line before it asks Twilio for anything and names its fence in
//! every record it makes; a worker that overslept finds a higher fence and stops.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

/// A line that a transfer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub transfer_id: Uuid,
    pub fence: i64,
}

/// Somebody else holds the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseHeld {
    pub by: Uuid,
    pub until: Timestamp,
}

/// Takes a line for a transfer, or takes it again; each time with a higher fence. `to_holder` is who gets the line by it,
/// `None` where it is left to nobody.
pub async fn acquire_line(
    conn: &mut PgConnection,
    conversation_sid: &str,
    line: &str,
    transfer_id: Uuid,
    to_holder: Option<&str>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Result<Lease, LeaseHeld>, sqlx::Error> {
    let taken = sqlx::query!(
        "-- ledger.acquire_line
        insert into line_lease as held (conversation_sid, line, fence, transfer_id, to_holder, expires_at)
        values ($1, $2, 1, $3, $4, $6)
        on conflict (conversation_sid, line) do update
        set fence = held.fence + 1, transfer_id = $3, to_holder = $4, expires_at = $6
        where held.transfer_id is null or held.transfer_id = $3 or held.expires_at <= $5
        returning fence",
        conversation_sid,
        line,
        transfer_id,
        to_holder,
        now.to_sqlx() as _,
        expires_at.to_sqlx() as _,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(row) = taken {
        return Ok(Ok(Lease {
            transfer_id,
            fence: row.fence,
        }));
    }
    let held = sqlx::query!(
        r#"-- ledger.line_holder
        select transfer_id as "transfer_id!", expires_at as "expires_at!" from line_lease
        where conversation_sid = $1 and line = $2 and transfer_id is not null"#,
        conversation_sid,
        line,
    )
    .fetch_optional(conn)
    .await?;
    let held = held.map_or(
        LeaseHeld {
            by: Uuid::nil(),
            until: now,
        },
        |row| LeaseHeld {
            by: row.transfer_id,
            until: row.expires_at.to_jiff(),
        },
    );
    Ok(Err(held))
}

/// Whether the lease is still the latest one; locks it until the transaction ends.
pub async fn line_fence_holds(
    conn: &mut PgConnection,
    conversation_sid: &str,
    line: &str,
    lease: Lease,
) -> Result<bool, sqlx::Error> {
    let row = sqlx::query!(
        "-- ledger.line_fence_holds
        select fence from line_lease
        where conversation_sid = $1 and line = $2 and transfer_id = $3 and fence = $4
        for update",
        conversation_sid,
        line,
        lease.transfer_id,
        lease.fence,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// Takes the line away from whoever holds it, and keeps it locked until the transaction ends: what they would record is
/// refused from now on.
pub async fn take_line_away(
    conn: &mut PgConnection,
    conversation_sid: &str,
    line: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- ledger.take_line_away
        insert into line_lease as held (conversation_sid, line, fence) values ($1, $2, 1)
        on conflict (conversation_sid, line) do update
        set fence = held.fence + 1, transfer_id = null, to_holder = null, expires_at = null",
        conversation_sid,
        line,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets the line go; the fence stays, so that it never repeats.
pub async fn release_line(
    conn: &mut PgConnection,
    conversation_sid: &str,
    line: &str,
    transfer_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- ledger.release_line
        update line_lease set transfer_id = null, to_holder = null, expires_at = null
        where conversation_sid = $1 and line = $2 and transfer_id = $3",
        conversation_sid,
        line,
        transfer_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}
