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

/// Stores a batch in one statement. Answers which of them were new. Those of the lanes `projected` do not wait: the caller
/// projects them in the same transaction.
pub(super) async fn insert(
    conn: &mut PgConnection,
    webhooks: &[&NewWebhook],
    projected: &[i16],
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
        r#"-- inbox.insert
        with stored as (
            insert into webhook (received_at, account_sid, conversation_sid, event_type, dedupe_key, method, form,
                idempotency_token, token_index, url_candidate, lane, format)
            select received_at, account_sid, conversation_sid, event_type, dedupe_key, method, form, idempotency_token,
                token_index, url_candidate, lane, format
            from unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::bytea[],
                $8::text[], $9::smallint[], $10::text[], $11::smallint[], $12::text[]) with ordinality
                as new (received_at, account_sid, conversation_sid, event_type, dedupe_key, method, form,
                    idempotency_token, token_index, url_candidate, lane, format, place)
            order by place
            on conflict on constraint webhook_dedupe_key do nothing
            returning webhook_id, dedupe_key, lane),
        waiting as (
            insert into webhook_pending (lane, webhook_id)
            select lane, webhook_id from stored where lane <> all($13))
        select webhook_id as "webhook_id!", dedupe_key as "dedupe_key!" from stored"#,
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
    pub(super) lane: i16,
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
            lane: webhook.lane(),
            account_sid: webhook.account_sid.clone(),
            event_type: webhook.event_type.clone(),
            conversation_sid: webhook.conversation_sid.clone(),
            format: webhook.format,
            form: webhook.form.clone(),
        }
    }
}

/// Locks lanes that have work and that nobody else works on, but for those to be left alone, or only the one named; those
/// first whose webhooks wait longest. For the rest of the transaction.
pub(super) async fn lock_waiting_lanes(
    conn: &mut PgConnection,
    limit: i64,
    but: &[i16],
    only: Option<i16>,
) -> Result<Vec<i16>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- inbox.lock_waiting_lanes
        select lane from projection_lane
        cross join lateral (select webhook_id from webhook_pending as pending
            where pending.lane = projection_lane.lane order by webhook_id limit 1) as oldest
        where lane <> all($2) and ($3::smallint is null or lane = $3)
        order by oldest.webhook_id
        limit $1
        for update of projection_lane skip locked",
        limit,
        but,
        only,
    )
    .fetch_all(conn)
    .await
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
        select lane, exists (select from webhook_pending where webhook_pending.lane = projection_lane.lane) as "has_pending!"
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
        select webhook_id, waiting.lane as "lane!", account_sid as "account_sid: AccountSid", event_type, conversation_sid,
               format, form
        from (select waiting.* from unnest($1::smallint[]) as of_lane (lane)
              cross join lateral (select pending.lane, pending.webhook_id from webhook_pending as pending
                  where pending.lane = of_lane.lane order by pending.webhook_id limit $2) as waiting
              order by waiting.webhook_id limit $2) as waiting
        cross join lateral (select account_sid, event_type, conversation_sid, format, form from webhook
            where webhook.webhook_id = waiting.webhook_id offset 0) as webhook
        order by webhook_id"#,
        lanes,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Pending {
            webhook_id: row.webhook_id,
            lane: row.lane,
            account_sid: row.account_sid,
            event_type: row.event_type,
            conversation_sid: row.conversation_sid,
            format: Format::from_column(&row.format),
            form: row.form,
        })
        .collect())
}

/// Notes that these webhooks were projected by the caller's transaction, and ends their waiting. The last thing that the
/// transaction does, while it holds the locks of the conversations: so the notes are numbered in the order of the effects.
pub(super) async fn mark_projected(
    conn: &mut PgConnection,
    webhooks: impl Iterator<Item = &Pending>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let (lanes, ids): (Vec<i16>, Vec<i64>) =
        webhooks.map(|webhook| (webhook.lane, webhook.webhook_id)).unzip();
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- inbox.mark_projected
        with waited as (
            delete from webhook_pending as pending using unnest($1::smallint[], $2::bigint[]) as done (lane, webhook_id)
            where pending.lane = done.lane and pending.webhook_id = done.webhook_id)
        insert into projected_batch (projected_at, webhook_ids) values ($3, $2)",
        &lanes,
        &ids,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn set_aside(
    conn: &mut PgConnection,
    webhook: &Pending,
    reason: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- inbox.set_aside
        with waited as (delete from webhook_pending where lane = $1 and webhook_id = $2)
        insert into webhook_set_aside (webhook_id, reason, set_aside_at) values ($2, $3, $4)",
        webhook.lane,
        webhook.webhook_id,
        reason,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes webhooks that were set aside wait again: all of them, or those named, as far as their forms are not erased.
/// Answers how many.
pub(super) async fn replay(conn: &mut PgConnection, webhook_ids: Option<&[i64]>) -> Result<u64, sqlx::Error> {
    let replayed = sqlx::query!(
        "-- inbox.replay
        with whole as (
            -- Locked, so that nobody erases one that waits.
            select webhook.webhook_id, webhook.lane from webhook join webhook_set_aside using (webhook_id)
            where erased_at is null and ($1::bigint[] is null or webhook_id = any($1))
            for update of webhook),
        again as (
            delete from webhook_set_aside using whole where webhook_set_aside.webhook_id = whole.webhook_id
            returning whole.lane, whole.webhook_id)
        insert into webhook_pending (lane, webhook_id) select lane, webhook_id from again",
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
        select (select count(*) from webhook_pending) as "pending!",
               (select count(*) from webhook_set_aside) as "set_aside!""#
    )
    .fetch_one(conn)
    .await?;
    Ok(Backlog {
        pending: row.pending,
        set_aside: row.set_aside,
    })
}
