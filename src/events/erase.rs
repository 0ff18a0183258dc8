//! Erasing what entries of the log say. Their salted hashes stay, so that the seals can still be checked.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::events::Position;
use crate::person::Person;

/// Entries after a place that were recorded before a time: places, conversations, and whether they are erased by now.
/// Ends before the first that is not due. What tells of erasing and holding is kept: it counts as erased.
pub async fn due(
    conn: &mut PgConnection,
    after: Position,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<(Position, Option<String>, bool)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- events.due_for_erasure
        select commit_xid, event_id, coalesce(conversation_sid, conversation_of_group_text(type, subject)) as conversation_sid,
               recorded_at < $3 as "is_due!",
               (coalesce(erased -> 'data' ? 'digest', false)
                or type in ('retention.erased', 'legal_hold.set', 'legal_hold.released', 'erasure.requested',
                            'erasure.finished')) as "is_erased!"
        from event
        where (commit_xid, event_id) > ($1, $2) and commit_xid < log_horizon()
        order by commit_xid, event_id limit $4"#,
        after.commit_xid,
        after.event_id,
        before.to_sqlx() as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .take_while(|row| row.is_due)
        .map(|row| {
            let position = Position {
                commit_xid: row.commit_xid,
                event_id: row.event_id,
            };
            (position, row.conversation_sid, row.is_erased)
        })
        .collect())
}

/// Entries about a conversation after a place, up to another: their places, and whether they are erased by now. As in
/// [`due`], what tells of erasing and holding counts as erased.
pub async fn of_conversation(
    conn: &mut PgConnection,
    sid: &str,
    after: Position,
    until: Position,
    limit: i64,
) -> Result<Vec<(Position, bool)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- events.of_conversation_for_erasure
        select commit_xid as "commit_xid!", event_id as "event_id!",
               (coalesce(erased -> 'data' ? 'digest', false)
                or type in ('retention.erased', 'legal_hold.set', 'legal_hold.released', 'erasure.requested',
                            'erasure.finished')) as "is_erased!"
        from (
            select * from event where conversation_sid = $1
            union all
            select event.* from group_text join event
              on event.subject = group_text.group_text_id::text
             and event.type like 'group_text.%' and event.conversation_sid is null
            where group_text.conversation_sid = $1) as entry
        where (commit_xid, event_id) > ($2, $3) and (commit_xid, event_id) <= ($4, $5)
        order by commit_xid, event_id limit $6"#,
        sid,
        after.commit_xid,
        after.event_id,
        until.commit_xid,
        until.event_id,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let position = Position {
                commit_xid: row.commit_xid,
                event_id: row.event_id,
            };
            (position, row.is_erased)
        })
        .collect())
}

/// Erases what these entries say and who did it; what happened to what, and when, stays. The subject goes where it is a
/// number, or one of ours.
pub async fn erase(
    conn: &mut PgConnection,
    commit_xids: &[i64],
    event_ids: &[i64],
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- events.erase
        select count(*) filter (where erase_from_log(commit_xid, event_id,
            case when subject like '+%' or type like 'agent.%' then array['subject', 'actor', 'cause', 'data']
                 else array['actor', 'cause', 'data'] end)) as "erased!"
        from unnest($1::bigint[], $2::bigint[]) as due (commit_xid, event_id)
        join event using (commit_xid, event_id)"#,
        commit_xids,
        event_ids,
    )
    .fetch_one(conn)
    .await
}

/// What a page of the log came to.
#[derive(Debug)]
pub struct ErasedEntries {
    /// Where the page ends; none at the end of the log.
    pub end: Option<Position>,
    pub erased: i64,
    /// The conversations, of those to be left alone, of which some name the person.
    pub left: BTreeSet<String>,
}

/// Erases entries after a place that name the person, in a page of the log. Those of the conversations of `held` are left
/// alone.
pub async fn erase_person(
    conn: &mut PgConnection,
    after: Position,
    person: &Person,
    held: &[String],
    limit: i64,
) -> Result<ErasedEntries, sqlx::Error> {
    let page = sqlx::query!(
        r#"-- events.erase_person
        with page as (
            select commit_xid, event_id, coalesce(conversation_sid, conversation_of_group_text(type, subject)) as conversation_sid,
                subject, actor, data
            from event
            where (commit_xid, event_id) > ($1, $2)
            order by commit_xid, event_id limit $6
        ), named as (
            select commit_xid, event_id, conversation_sid, coalesce(conversation_sid = any($5), false) as is_held,
                array_remove(array[
                case when subject = $3 then 'subject' end,
                case when actor = $3 then 'actor' end,
                case when actor = $3 or subject = $3 or data like any($4) then 'data' end], null) as fields
            from page
            where subject = $3 or actor = $3 or data like any($4)
        )
        select (select commit_xid from page order by commit_xid desc, event_id desc limit 1) as commit_xid,
               (select event_id from page order by commit_xid desc, event_id desc limit 1) as event_id,
               (select count(*) filter (where erase_from_log(commit_xid, event_id, fields)) from named where not is_held)
                   as "erased!",
               (select coalesce(array_agg(distinct conversation_sid), '{}') from named where is_held) as "left!""#,
        after.commit_xid,
        after.event_id,
        person.exact(),
        &person.patterns() as _,
        held,
        limit,
    )
    .fetch_one(conn)
    .await?;
    let end = page.commit_xid.zip(page.event_id);
    Ok(ErasedEntries {
        end: end.map(|(commit_xid, event_id)| Position { commit_xid, event_id }),
        erased: page.erased,
        left: page.left.into_iter().collect(),
    })
}
