//! Rows of lines that wait or were given, and whose turn it was last.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Line, Passed, Row, Why};
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber};

/// A line is given so often without success; then it is left to people.
pub(super) const ATTEMPTS_MAX: i32 = 3;
/// Why a line waits that was given without success.
pub(super) const IN_VAIN: &str = "given_in_vain";

/// Locks the turns of these teams, in their order, until the transaction ends: decisions about one team are made one after
/// the other. Answers of whose turn it was last in each.
pub(super) async fn lock_turns(
    conn: &mut PgConnection,
    teams: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Option<String>>, sqlx::Error> {
    let teams: Vec<&str> = teams.iter().copied().collect();
    if teams.is_empty() {
        return Ok(BTreeMap::new());
    }
    sqlx::query!(
        "-- assignment.ensure_turns
        insert into assignment_turn (team_id) select team from unnest($1::text[]) as team order by team
        on conflict do nothing",
        &teams as _,
    )
    .execute(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        "-- assignment.lock_turns
        select team_id, last_identity from assignment_turn where team_id = any($1) order by team_id for update",
        &teams as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.team_id, row.last_identity))
        .collect())
}

pub(super) async fn save_turn(conn: &mut PgConnection, team: &str, last: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- assignment.save_turn
        update assignment_turn set last_identity = $2 where team_id = $1",
        team,
        last,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn given(
    conn: &mut PgConnection,
    line: &Line,
    by: &str,
    passed: &[Passed],
    (transfer_id, to): (Uuid, &Identity),
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- assignment.given
        insert into line_assignment (conversation_sid, line, account_sid, team_id, state, reason, since, last_holder, passed,
            transfer_id, to_holder, updated_at)
        values ($1, $2, $3, $4, 'given', $5, $10, $6, $7, $8, $9, $10)
        on conflict (conversation_sid, line) do update set team_id = excluded.team_id, state = 'given',
            reason = excluded.reason, last_holder = excluded.last_holder, passed = excluded.passed,
            transfer_id = excluded.transfer_id, to_holder = excluded.to_holder, updated_at = excluded.updated_at",
        line.conversation_sid.as_str(),
        line.line.as_str(),
        line.account_sid.as_str(),
        line.team_id,
        by,
        line.last_holder,
        Json(passed) as _,
        transfer_id,
        to.as_str(),
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn waits(
    conn: &mut PgConnection,
    line: &Line,
    why: &str,
    passed: &[Passed],
    since: Timestamp,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- assignment.waits
        insert into line_assignment (conversation_sid, line, account_sid, team_id, state, reason, since, last_holder, passed,
            updated_at)
        values ($1, $2, $3, $4, 'waiting', $5, $8, $6, $7, $9)
        on conflict (conversation_sid, line) do update set team_id = excluded.team_id, state = 'waiting',
            reason = excluded.reason, last_holder = excluded.last_holder, passed = excluded.passed, transfer_id = null,
            to_holder = null, updated_at = excluded.updated_at",
        line.conversation_sid.as_str(),
        line.line.as_str(),
        line.account_sid.as_str(),
        line.team_id,
        why,
        line.last_holder,
        Json(passed) as _,
        since.to_sqlx() as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn taken(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    line: &PhoneNumber,
    (transfer_id, by): (Uuid, &Identity),
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- assignment.taken
        update line_assignment set state = 'given', reason = 'taken', transfer_id = $3, to_holder = $4, updated_at = $5
        where conversation_sid = $1 and line = $2",
        sid.as_str(),
        line.as_str(),
        transfer_id,
        by.as_str(),
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The rows of one conversation, which the caller has locked.
pub(super) async fn rows_of(conn: &mut PgConnection, sid: &ConversationSid) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"-- assignment.rows_of
        select line as "line: PhoneNumber", account_sid as "account_sid: AccountSid", team_id,
               state = 'waiting' as "is_waiting!", since as "since: jiff_sqlx::Timestamp", to_holder, transfer_id,
               updated_at as "updated_at: jiff_sqlx::Timestamp"
        from line_assignment where conversation_sid = $1 order by line"#,
        sid.as_str(),
    )
    .fetch_all(conn)
    .await
}

/// A row that is no more.
pub(super) struct Settled {
    pub(super) conversation_sid: ConversationSid,
    pub(super) line: String,
    pub(super) account_sid: AccountSid,
    pub(super) team_id: Option<String>,
    /// And was told to.
    pub(super) was_waiting: bool,
    pub(super) since: Timestamp,
    /// None: the line is no more.
    pub(super) holder: Option<String>,
}

/// Deletes the rows of these conversations of lines that somebody holds, or that are no more.
pub(super) async fn forget_settled(
    conn: &mut PgConnection,
    sids: &[&str],
) -> Result<Vec<Settled>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- assignment.forget_settled
        delete from line_assignment as gone
        where conversation_sid = any($1)
          and not exists (select from tenure
              where tenure.conversation_sid = gone.conversation_sid and tenure.line = gone.line
                and superseded_at is null and upper_inf(during) and holder is null and cause <> 'removed')
        returning conversation_sid as "sid: ConversationSid", line, account_sid as "account_sid: AccountSid", team_id,
            state = 'waiting' and reason <> $2 as "was_waiting!", since,
            (select holder from tenure
             where tenure.conversation_sid = gone.conversation_sid and tenure.line = gone.line
               and superseded_at is null and upper_inf(during) and cause <> 'removed') as holder"#,
        sids as _,
        Why::TransferOpen.as_str(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Settled {
            conversation_sid: row.sid,
            line: row.line,
            account_sid: row.account_sid,
            team_id: row.team_id,
            was_waiting: row.was_waiting,
            since: row.since.to_jiff(),
            holder: row.holder,
        })
        .collect())
}

/// Conversations with rows of lines that somebody holds, or that are no more.
pub(super) async fn settled(conn: &mut PgConnection) -> Result<Vec<ConversationSid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- assignment.settled
        select distinct conversation_sid as "sid: ConversationSid" from line_assignment as kept
        where not exists (select from tenure
              where tenure.conversation_sid = kept.conversation_sid and tenure.line = kept.line
                and superseded_at is null and upper_inf(during) and holder is null and cause <> 'removed')"#,
    )
    .fetch_all(conn)
    .await
}

/// Conversations with lines that were given and that nobody holds, though no transfer of them is open.
pub(super) async fn given_in_vain(conn: &mut PgConnection) -> Result<Vec<ConversationSid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- assignment.given_in_vain
        select distinct conversation_sid as "sid: ConversationSid" from line_assignment as given
        where state = 'given'
          and not exists (select from transfer
              where transfer.conversation_sid = given.conversation_sid and transfer.line = given.line
                and finished_at is null)"#,
    )
    .fetch_all(conn)
    .await
}

/// Lets lines of a conversation wait that were given in vain, with how that ended among who was passed over. One of which a
/// person has to look is left to people.
pub(super) async fn let_wait(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    now: Timestamp,
) -> Result<Vec<(Row, Value)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- assignment.let_wait
        with vain as (
            select given.line, given.transfer_id,
                   jsonb_build_array(jsonb_build_object('identity', given.to_holder,
                       'why', coalesce(transfer.outcome_code, transfer.state, 'gone'))) as ended,
                   case when transfer.state = 'needs_attention' then $3 else given.attempts + 1 end as attempts
            from line_assignment as given
            left join transfer on transfer.conversation_sid = given.conversation_sid
                and transfer.transfer_id = given.transfer_id
            where given.conversation_sid = $1 and given.state = 'given'
              and not exists (select from transfer as open
                  where open.conversation_sid = given.conversation_sid and open.line = given.line
                    and open.finished_at is null)
        )
        update line_assignment as waits
        set state = 'waiting', reason = $4, passed = vain.ended, transfer_id = null, to_holder = null,
            attempts = vain.attempts, updated_at = $2
        from vain
        where waits.conversation_sid = $1 and waits.line = vain.line
        returning waits.line as "line: PhoneNumber", account_sid as "account_sid: AccountSid", team_id, since,
            vain.transfer_id, passed"#,
        sid.as_str(),
        now.to_sqlx() as _,
        ATTEMPTS_MAX,
        IN_VAIN,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let line = Row {
                line: row.line,
                account_sid: row.account_sid,
                team_id: row.team_id,
                is_waiting: true,
                since: row.since,
                to_holder: None,
                transfer_id: row.transfer_id,
                updated_at: now.to_sqlx(),
            };
            (line, row.passed)
        })
        .collect())
}

pub(super) async fn is_any(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- assignment.is_any
        select exists (select from line_assignment) as "is_any!""#,
    )
    .fetch_one(conn)
    .await
}

/// A line that waits, as it is listed.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    pub team_id: Option<String>,
    /// `queue`, `nobody_in_team`, `nobody_free`, `members_coming` or `given_in_vain`; `transfer_open` for a moment, where one
    /// has just ended.
    pub reason: String,
    pub since: Timestamp,
    pub last_holder: Option<String>,
    pub passed: Vec<Passed>,
    pub last_message_at: Option<Timestamp>,
}

/// Lines that wait, the oldest first, those after `after` (a time, a conversation and a line, for paging).
pub async fn page(
    conn: &mut PgConnection,
    team: Option<&str>,
    after: Option<(Timestamp, &str, &str)>,
    limit: i64,
) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- assignment.page
        -- In the queue of the team that has the number now, or had it last.
        select waits.conversation_sid as "sid: ConversationSid", line as "line: PhoneNumber", whose.team_id, reason, since,
               last_holder, passed as "passed: Json<Vec<Passed>>", last_message_at
        from line_assignment as waits
        join conversation on conversation.conversation_sid = waits.conversation_sid
        left join number on number.number = waits.line
        cross join lateral (
            select case when number.number is null then waits.team_id else number.team_id end as team_id) as whose
        where waits.state = 'waiting' and ($1::text is null or whose.team_id = $1)
          and ($2::timestamptz is null or (since, waits.conversation_sid, line) > ($2, $3::text, $4::text))
          and not exists (select from transfer
              where transfer.conversation_sid = waits.conversation_sid and transfer.line = waits.line
                and finished_at is null)
        order by since, waits.conversation_sid, line
        limit $5"#,
        team,
        after.map(|(at, _, _)| at.to_sqlx()) as _,
        after.map(|(_, sid, _)| sid),
        after.map(|(_, _, line)| line),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Waiting {
            conversation_sid: row.sid,
            line: row.line,
            team_id: row.team_id,
            reason: row.reason,
            since: row.since.to_jiff(),
            last_holder: row.last_holder,
            passed: row.passed.0,
            last_message_at: row.last_message_at.map(jiff_sqlx::Timestamp::to_jiff),
        })
        .collect())
}

/// How many lines wait, and since when the oldest does.
pub async fn count_waiting(conn: &mut PgConnection) -> Result<(i64, Option<Timestamp>), sqlx::Error> {
    let row = sqlx::query!(
        r#"-- assignment.count_waiting
        select count(*) as "lines!", min(since) as since from line_assignment where state = 'waiting' and reason <> $1"#,
        Why::TransferOpen.as_str(),
    )
    .fetch_one(conn)
    .await?;
    Ok((row.lines, row.since.map(jiff_sqlx::Timestamp::to_jiff)))
}
