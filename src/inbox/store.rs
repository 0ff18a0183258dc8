//! Storing webhooks, and claiming them for projection.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::AccountSid;
use crate::inbox::{Format, NewWebhook};

/// A webhook that had not been stored before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inserted {
    pub(super) webhook_id: i64,
    pub(super) dedupe_key: Uuid,
}

/// Stores a batch in one statement. Answers which of them were new. Those of the lanes `projected` are stored as projected
/// already: the caller does that in the same transaction.
pub(super) async fn insert(
    conn: &mut PgConnection,
    webhooks: &[&NewWebhook],
    projected: &[i16],
    now: Timestamp,
) -> Result<Vec<Inserted>, sqlx::Error> {
    let received: Vec<_> = webhooks
        .iter()
        .map(|webhook| webhook.received_at.to_sqlx())
        .collect();
    let accounts: Vec<&str> = webhooks
        .iter()
        .map(|webhook| webhook.account_sid.as_str())
        .collect();
    let conversations: Vec<Option<&str>> = webhooks
        .iter()
        .map(|webhook| webhook.conversation_sid.as_deref())
        .collect();
    let types: Vec<&str> = webhooks
        .iter()
        .map(|webhook| webhook.event_type.as_str())
        .collect();
    let keys: Vec<Uuid> = webhooks.iter().map(|webhook| webhook.dedupe_key).collect();
    let methods: Vec<&str> = webhooks.iter().map(|webhook| webhook.method).collect();
    let forms: Vec<&[u8]> = webhooks.iter().map(|webhook| webhook.form.as_slice()).collect();
    let tokens: Vec<Option<&str>> = webhooks
        .iter()
        .map(|webhook| webhook.idempotency_token.as_deref())
        .collect();
    let token_indexes: Vec<i16> = webhooks.iter().map(|webhook| webhook.token_index).collect();
    let candidates: Vec<&str> = webhooks
        .iter()
        .map(|webhook| webhook.url_candidate.as_str())
        .collect();
    let lanes: Vec<i16> = webhooks.iter().map(|webhook| webhook.lane()).collect();
    let formats: Vec<&str> = webhooks.iter().map(|webhook| webhook.format.as_str()).collect();
    let rows = sqlx::query!(
        "-- inbox.insert
        insert into webhook (received_at, account_sid, conversation_sid, event_type, dedupe_key, method, form,
            idempotency_token, token_index, url_candidate, lane, format, state, settled_at)
        select received_at, account_sid, conversation_sid, event_type, dedupe_key, method, form, idempotency_token,
            token_index, url_candidate, lane, format,
            case when lane = any($13) then 'projected' else 'pending' end, case when lane = any($13) then $14::timestamptz end
        from unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::bytea[], $8::text[],
            $9::smallint[], $10::text[], $11::smallint[], $12::text[]) with ordinality
            as new (received_at, account_sid, conversation_sid, event_type, dedupe_key, method, form, idempotency_token,
                token_index, url_candidate, lane, format, place)
        order by place
        on conflict on constraint webhook_dedupe_key do nothing
        returning webhook_id, dedupe_key",
        &received as _,
        &accounts as _,
        &conversations as _,
        &types as _,
        &keys,
        &methods as _,
        &forms as _,
        &tokens as _,
        &token_indexes,
        &candidates as _,
        &lanes,
        &formats as _,
        projected,
        now.to_sqlx() as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Inserted {
            webhook_id: row.webhook_id,
            dedupe_key: row.dedupe_key,
        })
        .collect())
}

/// Keeps what did not verify while the account is only observed, up to `limit` rows in all.
pub(super) async fn quarantine(
    conn: &mut PgConnection,
    account_sid: &AccountSid,
    method: &str,
    form: &[u8],
    refusal: &str,
    now: Timestamp,
    limit: i64,
) -> Result<bool, sqlx::Error> {
    let kept = sqlx::query!(
        "-- inbox.quarantine
        insert into quarantined_webhook (received_at, account_sid, method, form, refusal)
        select $1, $2, $3, $4, $5
        where (select count(*) from (select from quarantined_webhook limit $6) as kept) < $6",
        now.to_sqlx() as _,
        account_sid.as_str(),
        method,
        form,
        refusal,
        limit,
    )
    .execute(conn)
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// A stored webhook that waits to be projected.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) webhook_id: i64,
    pub(super) account_sid: AccountSid,
    pub(super) event_type: String,
    pub(super) conversation_sid: Option<String>,
    pub(super) format: Format,
    pub(super) form: Vec<u8>,
}

impl Pending {
    /// One that was just stored.
    pub(super) fn of(webhook: &NewWebhook, webhook_id: i64) -> Self {
        Self {
            webhook_id,
            account_sid: webhook.account_sid.clone(),
            event_type: webhook.event_type.clone(),
            conversation_sid: webhook.conversation_sid.clone(),
            format: webhook.format,
            form: webhook.form.clone(),
        }
    }
}

/// Locks a lane that has work and that nobody else works on, for the rest of the transaction.
pub(super) async fn lock_lane(conn: &mut PgConnection) -> Result<Option<i16>, sqlx::Error> {
    let row = sqlx::query!(
        "-- inbox.lock_lane
        select lane from projection_lane
        where exists (select from webhook where webhook.lane = projection_lane.lane and state = 'pending')
        order by (select min(webhook_id) from webhook where webhook.lane = projection_lane.lane and state = 'pending')
        limit 1
        for update skip locked"
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| row.lane))
}

/// A lane that the transaction has locked.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockedLane {
    pub(super) lane: i16,
    /// Webhooks of it wait to be projected.
    pub(super) has_pending: bool,
}

/// Locks those of the lanes that nobody else works on, for the rest of the transaction.
pub(super) async fn lock_lanes(
    conn: &mut PgConnection,
    lanes: &[i16],
) -> Result<Vec<LockedLane>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- inbox.lock_lanes
        select lane, exists (select from webhook where webhook.lane = projection_lane.lane and state = 'pending') as "has_pending!"
        from projection_lane where lane = any($1)
        for update skip locked"#,
        lanes,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| LockedLane {
            lane: row.lane,
            has_pending: row.has_pending,
        })
        .collect())
}

/// The oldest webhooks of some lanes that wait.
pub(super) async fn pending(
    conn: &mut PgConnection,
    lanes: &[i16],
    limit: i64,
) -> Result<Vec<Pending>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- inbox.pending
        select webhook_id, account_sid as "account_sid: AccountSid", event_type, conversation_sid, format, form
        from webhook where lane = any($1) and state = 'pending'
        order by webhook_id limit $2"#,
        lanes,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Pending {
            webhook_id: row.webhook_id,
            account_sid: row.account_sid,
            event_type: row.event_type,
            conversation_sid: row.conversation_sid,
            format: Format::from_column(&row.format),
            form: row.form,
        })
        .collect())
}

pub(super) async fn mark_projected(
    conn: &mut PgConnection,
    webhook_ids: &[i64],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- inbox.mark_projected
        update webhook set state = 'projected', settled_at = $2 where webhook_id = any($1)",
        webhook_ids,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn set_aside(
    conn: &mut PgConnection,
    webhook_id: i64,
    reason: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- inbox.set_aside
        update webhook set state = 'set_aside', reason = $2, settled_at = $3 where webhook_id = $1",
        webhook_id,
        reason,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes webhooks that were set aside wait again: all of them, or those named. Answers how many.
pub(super) async fn replay(conn: &mut PgConnection, webhook_ids: Option<&[i64]>) -> Result<u64, sqlx::Error> {
    let replayed = sqlx::query!(
        "-- inbox.replay
        update webhook set state = 'pending', reason = null, settled_at = null
        where state = 'set_aside' and ($1::bigint[] is null or webhook_id = any($1))",
        webhook_ids,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("select pg_notify('hookswitch_webhook', '')")
        .execute(conn)
        .await?;
    Ok(replayed.rows_affected())
}

/// How many webhooks wait, and how many were set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    pub pending: i64,
    pub set_aside: i64,
}

pub async fn backlog(conn: &mut PgConnection) -> Result<Backlog, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- inbox.backlog
        select (select count(*) from webhook where state = 'pending') as "pending!",
               (select count(*) from webhook where state = 'set_aside') as "set_aside!""#
    )
    .fetch_one(conn)
    .await?;
    Ok(Backlog {
        pending: row.pending,
        set_aside: row.set_aside,
    })
}
