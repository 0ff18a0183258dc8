//! Putting, claiming and settling tasks.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::queue::{Lease, NewTask, Task};

/// Puts a task within the caller's transaction and wakes the workers of its lane when that commits, unless it is due so much
/// later that they look before ([`SLEEP_MAX`]).
pub async fn put(conn: &mut PgConnection, task: &NewTask, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- queue.put
        with put as (
            insert into task (kind, order_key, unique_key, payload, run_at, attempts_max, created_at)
            values ($1, $2, $3, $4, $5, $6, $7)
            on conflict (kind, unique_key) where state = 'ready' and unique_key is not null do update
            set payload = excluded.payload, run_at = least(task.run_at, excluded.run_at))
        select pg_notify('hookswitch_task', $8) where $5 <= $7 + interval '1 minute'",
        task.kind.name,
        task.order_key,
        task.unique_key,
        task.payload,
        task.run_at.to_sqlx() as _,
        task.attempts_max,
        now.to_sqlx() as _,
        task.kind.lane.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Claims up to `limit` tasks that are due, or whose holder let its lease run out.
///
/// Each of the two is a part of its own, which follows its index and stops at the limit: a claim among 10,000 due tasks
/// looks at those that it takes (0.6 ms; in one part 29 ms).
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
              and not exists (select from task as other
                  where other.order_key = candidate.order_key and other.state <> 'dead'
                    and other.task_id < candidate.task_id)
            order by lease_expires_at, task_id
            limit $3
            for update skip locked),
        ready as (
            select task_id from task as candidate
            where kind = any($1) and state = 'ready' and run_at <= $2
              and not exists (select from task as other
                  where other.order_key = candidate.order_key and other.state <> 'dead'
                    and other.task_id < candidate.task_id)
              and not exists (select from task as other
                  where other.order_key = candidate.order_key and other.state = 'running')
            order by run_at, task_id
            limit $3
            for update skip locked),
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
            (select run_at from task as candidate
             where state = 'ready' and kind = any($1)
               and not exists (select from task as other
                   where other.order_key = candidate.order_key and other.state <> 'dead'
                     and (other.task_id < candidate.task_id or other.state = 'running'))
             order by run_at, task_id
             limit 1),
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
