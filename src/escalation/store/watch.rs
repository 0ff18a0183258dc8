//! Lines that are to be looked at, and when. Owns `escalation_watch`.
//!
//! A mark takes away the lease of whoever is looking: what they saw is older than what happened.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

/// A line of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::escalation) struct Key {
    pub(in crate::escalation) conversation_sid: String,
    pub(in crate::escalation) line: String,
}

/// Marks all lines of these conversations, if any policy is enabled. The conversations are locked.
pub(in crate::escalation) async fn mark_conversations(
    conn: &mut PgConnection,
    sids: &[&str],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- escalation.mark_conversations
        insert into escalation_watch as watch (conversation_sid, line, look_at)
        select conversation_sid, line, $2 from (
            select conversation_sid, line from tenure
            where conversation_sid = any($1) and superseded_at is null and upper_inf(during)
            union
            select conversation_sid, line from escalation_watch where conversation_sid = any($1)) as touched
        where exists (select from escalation_policy where enabled)
        order by conversation_sid, line
        on conflict (conversation_sid, line) do update
        set look_at = least(watch.look_at, excluded.look_at), lease_token = null, lease_expires_at = null",
        sids as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks those of these lines that are watched, in the order in which everybody does. Whoever writes of one is waited for.
pub(in crate::escalation) async fn lock(conn: &mut PgConnection, keys: &[Key]) -> Result<(), sqlx::Error> {
    let (sids, lines) = columns(keys);
    sqlx::query!(
        "-- escalation.lock_lines
        select from escalation_watch
        where (conversation_sid, line) in (select * from unnest($1::text[], $2::text[]))
        order by conversation_sid, line
        for update",
        &sids as _,
        &lines as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks lines.
pub(in crate::escalation) async fn mark(
    conn: &mut PgConnection,
    keys: &[Key],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let (sids, lines) = columns(keys);
    sqlx::query!(
        "-- escalation.mark_lines
        insert into escalation_watch as watch (conversation_sid, line, look_at)
        select distinct conversation_sid, line, $3::timestamptz from unnest($1::text[], $2::text[]) as one (conversation_sid, line)
        order by conversation_sid, line
        on conflict (conversation_sid, line) do update
        set look_at = least(watch.look_at, excluded.look_at), lease_token = null, lease_expires_at = null",
        &sids as _,
        &lines as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the lease of lines away, which are locked, and leaves them as they are otherwise.
pub(in crate::escalation) async fn take_away(
    conn: &mut PgConnection,
    keys: &[Key],
) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let (sids, lines) = columns(keys);
    sqlx::query!(
        "-- escalation.take_lines_away
        update escalation_watch set lease_token = null, lease_expires_at = null
        where (conversation_sid, line) in (select * from unnest($1::text[], $2::text[])) and lease_token is not null",
        &sids as _,
        &lines as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A policy changed: marks what is watched, where it has something open, and the lines of those who are away or leave.
pub(in crate::escalation) async fn mark_for_policy(
    conn: &mut PgConnection,
    policy_id: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- escalation.mark_for_policy
        insert into escalation_watch as watch (conversation_sid, line, look_at)
        select conversation_sid, line, $2 from (
            select conversation_sid, line from escalation_watch
            union select conversation_sid, line from escalation where policy_id = $1 and finished_at is null
            union select conversation_sid, line from tenure join agent on agent.identity = tenure.holder
            where superseded_at is null and upper_inf(during)
              and (left_at is not null
                   or (availability = 'away' and (availability_until is null or availability_until > $2)))) as touched
        order by conversation_sid, line
        on conflict (conversation_sid, line) do update
        set look_at = least(watch.look_at, excluded.look_at), lease_token = null, lease_expires_at = null",
        policy_id,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes lines that are due, and that nobody looks at, those that are due longest first.
pub(in crate::escalation) async fn claim(
    conn: &mut PgConnection,
    token: Uuid,
    now: Timestamp,
    lease_expires_at: Timestamp,
    limit: i64,
) -> Result<Vec<Key>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- escalation.claim_lines
        with due as (
            select conversation_sid, line from escalation_watch
            where look_at <= $2 and (lease_expires_at is null or lease_expires_at <= $2)
            order by look_at limit $4
            for update skip locked)
        update escalation_watch as watch set lease_token = $1, lease_expires_at = $3
        from due where watch.conversation_sid = due.conversation_sid and watch.line = due.line
        returning watch.conversation_sid, watch.line",
        token,
        now.to_sqlx() as _,
        lease_expires_at.to_sqlx() as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    let mut keys: Vec<Key> = rows
        .into_iter()
        .map(|row| Key {
            conversation_sid: row.conversation_sid,
            line: row.line,
        })
        .collect();
    keys.sort_unstable();
    Ok(keys)
}

/// Those lines whose lease is still ours, locked until the transaction ends. Waits for nobody: whoever has one locked is
/// about to mark it.
pub(in crate::escalation) async fn still_ours(
    conn: &mut PgConnection,
    token: Uuid,
    keys: &[Key],
) -> Result<Vec<Key>, sqlx::Error> {
    let (sids, lines) = columns(keys);
    let rows = sqlx::query!(
        r#"-- escalation.lines_still_ours
        select watch.conversation_sid, watch.line
        from unnest($2::text[], $3::text[]) as wanted (conversation_sid, line)
        join escalation_watch as watch
          on watch.conversation_sid = wanted.conversation_sid and watch.line = wanted.line
        where watch.lease_token = $1
        for update of watch skip locked"#,
        token,
        &sids as _,
        &lines as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Key {
            conversation_sid: row.conversation_sid,
            line: row.line,
        })
        .collect())
}

/// Lets lines go that were looked at: until then, or for good. They are locked.
pub(in crate::escalation) async fn put_back(
    conn: &mut PgConnection,
    keys: &[Key],
    look_at: &[Option<Timestamp>],
) -> Result<(), sqlx::Error> {
    let (sids, lines) = columns(keys);
    let look_at: Vec<_> = look_at
        .iter()
        .map(|at| at.map(jiff_sqlx::ToSqlx::to_sqlx))
        .collect();
    sqlx::query!(
        "-- escalation.put_back_lines
        with looked as (
            select * from unnest($1::text[], $2::text[], $3::timestamptz[]) as one (conversation_sid, line, look_at)),
        gone as (
            delete from escalation_watch as watch using looked
            where watch.conversation_sid = looked.conversation_sid and watch.line = looked.line
              and looked.look_at is null)
        update escalation_watch as watch
        set look_at = looked.look_at, lease_token = null, lease_expires_at = null
        from looked
        where watch.conversation_sid = looked.conversation_sid and watch.line = looked.line and looked.look_at is not null",
        &sids as _,
        &lines as _,
        &look_at as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// When there is next something to look at, and whether any policy is enabled, so that something may come before.
pub(in crate::escalation) async fn next_due(
    conn: &mut PgConnection,
) -> Result<(Option<Timestamp>, bool), sqlx::Error> {
    let row = sqlx::query!(
        r#"-- escalation.next_due
        select (select greatest(look_at, lease_expires_at) from escalation_watch order by look_at limit 1) as next_at,
               exists (select from escalation_policy where enabled) as "is_in_use!""#
    )
    .fetch_one(conn)
    .await?;
    Ok((row.next_at.map(jiff_sqlx::Timestamp::to_jiff), row.is_in_use))
}

/// How many lines are due by now, and how many are watched.
pub async fn count_lines(conn: &mut PgConnection, now: Timestamp) -> Result<(i64, i64), sqlx::Error> {
    let row = sqlx::query!(
        r#"-- escalation.count_lines
        select count(*) filter (where look_at <= $1) as "due!", count(*) as "watched!" from escalation_watch"#,
        now.to_sqlx() as _,
    )
    .fetch_one(conn)
    .await?;
    Ok((row.due, row.watched))
}

fn columns(keys: &[Key]) -> (Vec<&str>, Vec<&str>) {
    keys.iter()
        .map(|key| (key.conversation_sid.as_str(), key.line.as_str()))
        .unzip()
}
