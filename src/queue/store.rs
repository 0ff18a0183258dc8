//! Putting, claiming and settling tasks.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::queue::{Along, Lease, NewTask, Task, TaskKind};

/// Puts a task within the caller's transaction and wakes the workers of its lane when that commits, unless it is due so much
/// later that they look before ([`SLEEP_MAX`](super::worker::SLEEP_MAX)).
pub async fn put(conn: &mut PgConnection, task: &NewTask, now: Timestamp) -> Result<(), sqlx::Error> {
    put_all(conn, std::slice::from_ref(task), now).await
}

/// As [`put`], of several, in their order. No two of them are of one kind and unique key.
pub async fn put_all(conn: &mut PgConnection, tasks: &[NewTask], now: Timestamp) -> Result<(), sqlx::Error> {
    if tasks.is_empty() {
        return Ok(());
    }
    let kinds: Vec<&str> = tasks.iter().map(|task| task.kind.name).collect();
    let lanes: Vec<&str> = tasks.iter().map(|task| task.kind.lane.as_str()).collect();
    let order_keys: Vec<&str> = tasks.iter().map(|task| task.order_key.as_str()).collect();
    let unique_keys: Vec<Option<&str>> = tasks.iter().map(|task| task.unique_key.as_deref()).collect();
    let payloads: Vec<&serde_json::Value> = tasks.iter().map(|task| &task.payload).collect();
    let run_at: Vec<_> = tasks.iter().map(|task| task.run_at.to_sqlx()).collect();
    let attempts: Vec<i32> = tasks.iter().map(|task| task.attempts_max).collect();
    sqlx::query!(
        "-- queue.put
        with wanted as (
            select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::timestamptz[], $7::int4[])
                with ordinality as one (kind, lane, order_key, unique_key, payload, run_at, attempts_max, place)),
        put as (
            insert into task (kind, order_key, unique_key, payload, run_at, attempts_max, created_at)
            select kind, order_key, unique_key, payload, run_at, attempts_max, $8 from wanted order by place
            on conflict (kind, unique_key) where state = 'ready' and unique_key is not null do update
            set payload = excluded.payload, run_at = least(task.run_at, excluded.run_at))
        select pg_notify('hookswitch_task', lane) from wanted where run_at <= $8 + interval '1 minute' group by lane",
        &kinds as _,
        &lanes as _,
        &order_keys as _,
        &unique_keys as _,
        &payloads as _,
        &run_at as _,
        &attempts,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Claims up to `limit` tasks that are due, or whose holder let its lease run out.
///
/// It looks at those that it takes, whatever else is due (0.6 ms among 10,000; otherwise 29 to 1,400 ms): each kind follows its
/// index and stops at the limit, and whether a task is the next of its order is asked of each by itself, which no plan turns
/// into a join.
///
/// It does not wait for the disk. A claim that a crash of the server forgets is a lease that ran out: somebody else claims
/// the task with another token, and what the first one records is refused.
pub(super) async fn claim(
    conn: &mut PgConnection,
    kinds: &[&str],
    limit: i64,
    now: Timestamp,
    lease_expires_at: Timestamp,
) -> Result<Vec<Task>, sqlx::Error> {
    let claimed = sqlx::query!(
        r#"-- queue.claim
        with expired as (
            select task_id from task as candidate
            where kind = any($1) and state = 'running' and lease_expires_at <= $2
              and task_id = (select other.task_id from task as other
                  where other.order_key = candidate.order_key and other.state <> 'dead'
                  order by other.task_id limit 1)
            order by lease_expires_at, task_id
            limit $3
            for update skip locked),
        ready as (
            select due.task_id from unnest($1::text[]) as wanted (kind)
            cross join lateral (
                select task_id, run_at from task as candidate
                where kind = wanted.kind and state = 'ready' and run_at <= $2
                  and task_id = (select other.task_id from task as other
                      where other.order_key = candidate.order_key and other.state <> 'dead'
                      order by other.task_id limit 1)
                  and (select other.task_id from task as other
                       where other.order_key = candidate.order_key and other.state = 'running' limit 1) is null
                order by run_at, task_id
                limit $3
                for update skip locked) as due
            order by due.run_at, due.task_id
            limit $3),
        due as (select task_id from expired union all select task_id from ready limit $3),
        relaxed as (select set_config('synchronous_commit', 'off', true))
        update task
        set state = 'running', attempts = attempts + 1, lease_token = gen_random_uuid(), lease_expires_at = $4
        from due, relaxed where task.task_id = due.task_id
        returning task.task_id, task.lease_token as "lease_token!", kind, payload, attempts, attempts_max, created_at"#,
        kinds as _,
        now.to_sqlx() as _,
        limit,
        lease_expires_at.to_sqlx() as _,
    )
    .fetch_all(conn)
    .await;
    let rows = match claimed {
        // Another worker claimed a task of the same order key at this moment; the next look sees it.
        Err(sqlx::Error::Database(error)) if error.constraint() == Some("task_one_running_per_order_key") => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    Ok(rows
        .into_iter()
        .map(|row| Task {
            lease: Lease {
                task_id: row.task_id,
                token: row.lease_token,
            },
            kind: row.kind,
            payload: row.payload,
            attempts: row.attempts,
            attempts_max: row.attempts_max,
            created_at: row.created_at.to_jiff(),
        })
        .collect())
}

/// Locks up to `limit` more tasks of a kind that are due, for as long as the caller's transaction lasts: whoever runs one may
/// do the others along with it, and takes them off by [`finish_along`]. Waits for nobody. No two are of one order key.
pub async fn take_along(
    conn: &mut PgConnection,
    kind: TaskKind,
    limit: i64,
    now: Timestamp,
) -> Result<Vec<Along>, sqlx::Error> {
    sqlx::query_as!(
        Along,
        r#"-- queue.take_along
        select task_id, payload from task as candidate
        where kind = $1 and state = 'ready' and run_at <= $2
          and task_id = (select other.task_id from task as other
              where other.order_key = candidate.order_key and other.state <> 'dead'
              order by other.task_id limit 1)
          and (select other.task_id from task as other
               where other.order_key = candidate.order_key and other.state = 'running' limit 1) is null
        order by run_at, task_id
        limit $3
        for update skip locked"#,
        kind.name,
        now.to_sqlx() as _,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Takes off the queue what was done along with another task.
pub async fn finish_along(conn: &mut PgConnection, task_ids: &[i64]) -> Result<(), sqlx::Error> {
    if !task_ids.is_empty() {
        sqlx::query!(
            "-- queue.finish_along
            delete from task where task_id = any($1)",
            task_ids,
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Takes a finished task off the queue. False: the lease was lost, and the caller rolls back what it did.
pub async fn finish(conn: &mut PgConnection, lease: Lease) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "-- queue.finish
        delete from task where task_id = $1 and lease_token = $2",
        lease.task_id,
        lease.token,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether the lease is still ours; locks the task until the transaction ends, so that nobody claims it meanwhile.
pub async fn is_held(conn: &mut PgConnection, lease: Lease) -> Result<bool, sqlx::Error> {
    let row = sqlx::query!(
        "-- queue.is_held
        select from task where task_id = $1 and lease_token = $2 for update",
        lease.task_id,
        lease.token,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// Makes a claim last longer. False: the lease was lost.
pub(super) async fn extend(
    conn: &mut PgConnection,
    lease: Lease,
    lease_expires_at: Timestamp,
) -> Result<bool, sqlx::Error> {
    let extended = sqlx::query!(
        "-- queue.extend
        update task set lease_expires_at = $3 where task_id = $1 and lease_token = $2",
        lease.task_id,
        lease.token,
        lease_expires_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(extended.rows_affected() == 1)
}

/// Gives a task back, to be run again at `run_at`. `counts` says whether the attempt is held against it.
pub(super) async fn give_back(
    conn: &mut PgConnection,
    lease: Lease,
    run_at: Timestamp,
    counts: bool,
    error: Option<&str>,
) -> Result<bool, sqlx::Error> {
    // Another task of its kind and key may have been put meanwhile; then that one does this one's work.
    let merged = sqlx::query!(
        "-- queue.merge
        delete from task
        where task_id = $1 and lease_token = $2 and unique_key is not null
          and exists (select from task as other
                      where other.kind = task.kind and other.unique_key = task.unique_key and other.state = 'ready')",
        lease.task_id,
        lease.token,
    )
    .execute(&mut *conn)
    .await?;
    if merged.rows_affected() == 1 {
        return Ok(true);
    }
    let given = sqlx::query!(
        "-- queue.give_back
        update task
        set state = 'ready', run_at = $3, lease_token = null, lease_expires_at = null,
            attempts = attempts - case when $4 then 0 else 1 end, last_error = coalesce($5, last_error)
        where task_id = $1 and lease_token = $2",
        lease.task_id,
        lease.token,
        run_at.to_sqlx() as _,
        counts,
        error,
    )
    .execute(conn)
    .await?;
    Ok(given.rows_affected() == 1)
}

/// Puts a task aside for a person.
pub(super) async fn bury(
    conn: &mut PgConnection,
    lease: Lease,
    error: &str,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let buried = sqlx::query!(
        "-- queue.bury
        update task
        set state = 'dead', buried_at = $3, lease_token = null, lease_expires_at = null, last_error = $4
        where task_id = $1 and lease_token = $2",
        lease.task_id,
        lease.token,
        now.to_sqlx() as _,
        error,
    )
    .execute(conn)
    .await?;
    Ok(buried.rows_affected() == 1)
}

/// When the next task becomes due that does not wait for another of its order key, or the next lease runs out.
pub(super) async fn next_due(
    conn: &mut PgConnection,
    kinds: &[&str],
) -> Result<Option<Timestamp>, sqlx::Error> {
    let row = sqlx::query!(
        "-- queue.next_due
        select least(
            (select min(next.run_at) from unnest($1::text[]) as wanted (kind)
             cross join lateral (
                 select run_at from task as candidate
                 where kind = wanted.kind and state = 'ready'
                   and task_id = (select other.task_id from task as other
                       where other.order_key = candidate.order_key and other.state <> 'dead'
                       order by other.task_id limit 1)
                   and (select other.task_id from task as other
                        where other.order_key = candidate.order_key and other.state = 'running' limit 1) is null
                 order by run_at, task_id
                 limit 1) as next),
            (select min(lease_expires_at) from task where state = 'running' and kind = any($1))) as at",
        kinds as _,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.at.map(jiff_sqlx::Timestamp::to_jiff))
}

/// How many tasks there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub ready: i64,
    pub running: i64,
    pub dead: i64,
}

pub async fn counts(conn: &mut PgConnection) -> Result<Counts, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- queue.counts
        select count(*) filter (where state = 'ready') as "ready!",
               count(*) filter (where state = 'running') as "running!",
               count(*) filter (where state = 'dead') as "dead!"
        from task"#
    )
    .fetch_one(conn)
    .await?;
    Ok(Counts {
        ready: row.ready,
        running: row.running,
        dead: row.dead,
    })
}

/// Gives every buried task another round of attempts; of several for the same thing, the newest, and the others go, as
/// do those for which one waits already. Answers how many there were.
pub async fn requeue_dead(conn: &mut PgConnection, now: Timestamp) -> Result<u64, sqlx::Error> {
    let moved = sqlx::query!(
        "-- queue.requeue_dead
        with doubled as (
            delete from task
            where state = 'dead' and exists (
                select from task as other
                where other.kind = task.kind and other.unique_key = task.unique_key
                  and (other.state = 'ready' or (other.state = 'dead' and other.task_id > task.task_id)))
            returning task_id)
        update task set state = 'ready', attempts = 0, buried_at = null, run_at = $1
        where state = 'dead' and task_id not in (select task_id from doubled)",
        now.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("select pg_notify('hookswitch_task', '')")
        .execute(conn)
        .await?;
    Ok(moved.rows_affected())
}
