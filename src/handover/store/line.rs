//! Rows of a plan's lines.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::plan::word;
use crate::handover::enumerate::Found;
use crate::handover::{Action, BackState, Line, Passed};
use crate::ids::{ConversationSid, Identity, PhoneNumber};

struct Row {
    handover_id: Uuid,
    conversation_sid: ConversationSid,
    line: PhoneNumber,
    account_sid: String,
    finding: String,
    asked_at: Option<jiff_sqlx::Timestamp>,
    settled_at: Option<jiff_sqlx::Timestamp>,
    found_later: bool,
    state: String,
    action: Option<String>,
    to_holder: Option<Identity>,
    why: Option<String>,
    passed: Json<Vec<Passed>>,
    by_hand: bool,
    outcome: Option<String>,
    transfer_id: Option<Uuid>,
    due_at: Option<jiff_sqlx::Timestamp>,
    not_before: Option<jiff_sqlx::Timestamp>,
    finished_at: Option<jiff_sqlx::Timestamp>,
    back_state: Option<String>,
    back_outcome: Option<String>,
    back_transfer_id: Option<Uuid>,
    back_due_at: Option<jiff_sqlx::Timestamp>,
}

impl From<Row> for Line {
    fn from(row: Row) -> Self {
        let at = |at: Option<jiff_sqlx::Timestamp>| at.map(jiff_sqlx::Timestamp::to_jiff);
        Self {
            handover_id: row.handover_id,
            conversation_sid: row.conversation_sid,
            line: row.line,
            account_sid: row.account_sid,
            finding: word(&row.finding),
            asked_at: at(row.asked_at),
            settled_at: at(row.settled_at),
            found_later: row.found_later,
            state: word(&row.state),
            action: row.action.as_deref().map(word),
            to: row.to_holder,
            why: row.why,
            passed: row.passed.0,
            by_hand: row.by_hand,
            outcome: row.outcome,
            transfer_id: row.transfer_id,
            due_at: at(row.due_at),
            not_before: at(row.not_before),
            finished_at: at(row.finished_at),
            back_state: row.back_state.as_deref().map(word),
            back_outcome: row.back_outcome,
            back_transfer_id: row.back_transfer_id,
            back_due_at: at(row.back_due_at),
        }
    }
}

/// Adds lines that the plan does not have yet, and answers which those were.
pub(in crate::handover) async fn insert_found(
    conn: &mut PgConnection,
    handover_id: Uuid,
    found: &[Found],
    found_later: bool,
    now: Timestamp,
) -> Result<Vec<Found>, sqlx::Error> {
    let sids: Vec<&str> = found.iter().map(|one| one.conversation_sid.as_str()).collect();
    let lines: Vec<&str> = found.iter().map(|one| one.line.as_str()).collect();
    let accounts: Vec<&str> = found.iter().map(|one| one.account_sid.as_str()).collect();
    let findings: Vec<&str> = found.iter().map(|one| one.finding.as_str()).collect();
    let doubts: Vec<bool> = found.iter().map(|one| one.is_in_doubt).collect();
    let inserted = sqlx::query!(
        "-- handover.insert_found
        insert into handover_line (handover_id, conversation_sid, line, account_sid, finding, asked_at, found_later, state)
        select $1, conversation_sid, line, account_sid, finding, case when is_in_doubt then $7::timestamptz end, $8, 'waiting'
        from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bool[])
            as found (conversation_sid, line, account_sid, finding, is_in_doubt)
        on conflict do nothing
        returning conversation_sid, line",
        handover_id,
        &sids as _,
        &lines as _,
        &accounts as _,
        &findings as _,
        &doubts,
        now.to_sqlx() as _,
        found_later,
    )
    .fetch_all(conn)
    .await?;
    let inserted: BTreeSet<(String, String)> = inserted
        .into_iter()
        .map(|row| (row.conversation_sid, row.line))
        .collect();
    let key = |one: &Found| {
        (
            one.conversation_sid.as_str().to_owned(),
            one.line.as_str().to_owned(),
        )
    };
    Ok(found
        .iter()
        .filter(|one| inserted.contains(&key(one)))
        .cloned()
        .collect())
}

/// Marks the doubts whose conversation has been read since it was asked for, or is of an account that nobody can ask, and
/// answers how many are left.
pub(in crate::handover) async fn settle_doubts(
    conn: &mut PgConnection,
    handover_id: Uuid,
    accounts: &[&str],
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    sqlx::query!(
        "-- handover.settle_doubts
        update handover_line as doubted set settled_at = $2
        where handover_id = $1 and asked_at is not null and settled_at is null
          and (not (account_sid = any($3))
               or exists (select from conversation
                          where conversation.conversation_sid = doubted.conversation_sid
                            and verified_at >= asked_at and unverified_since is null))",
        handover_id,
        now.to_sqlx() as _,
        accounts as _,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_scalar!(
        r#"-- handover.count_doubts
        select count(*) as "doubts!" from handover_line
        where handover_id = $1 and asked_at is not null and settled_at is null"#,
        handover_id,
    )
    .fetch_one(conn)
    .await
}

/// The conversations that were asked for before a time and have not been read, to be asked for again: account and SID.
pub(in crate::handover) async fn ask_again(
    conn: &mut PgConnection,
    handover_id: Uuid,
) -> Result<Vec<(String, ConversationSid)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- handover.doubts
        select distinct account_sid, conversation_sid as "conversation_sid: ConversationSid" from handover_line
        where handover_id = $1 and asked_at is not null and settled_at is null"#,
        handover_id,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.account_sid, row.conversation_sid))
        .collect())
}

/// The lines about which it is still open to whom they go, in order.
pub(in crate::handover) async fn lines_to_assign(
    conn: &mut PgConnection,
    handover_id: Uuid,
) -> Result<Vec<Line>, sqlx::Error> {
    let filter = Filter {
        states: Some(vec!["waiting".to_owned(), "stays".to_owned()]),
        ..Filter::default()
    };
    page_of_lines(conn, handover_id, &filter, None, i64::MAX).await
}

/// Which lines of a plan to list; `None` takes any.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub states: Option<Vec<String>>,
    pub to: Option<String>,
    /// Only those on which the ledger and Twilio do not agree.
    pub differing: bool,
}

/// The lines of a plan in the order of their conversations, after one.
pub async fn page_of_lines(
    conn: &mut PgConnection,
    handover_id: Uuid,
    filter: &Filter,
    after: Option<(&str, &str)>,
    limit: i64,
) -> Result<Vec<Line>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- handover.page_of_lines
        select handover_id, conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber", account_sid,
               finding, asked_at, settled_at, found_later, state, action, to_holder as "to_holder: Identity", why,
               passed as "passed: Json<Vec<Passed>>", by_hand, outcome, transfer_id, due_at, not_before, finished_at,
               back_state, back_outcome, back_transfer_id, back_due_at
        from handover_line
        where handover_id = $1 and ($2::text[] is null or state = any($2)) and ($3::text is null or to_holder = $3)
          and (not $4 or finding <> 'agrees')
          and ($5::text is null or (conversation_sid, line) > ($5, $6))
        order by conversation_sid, line
        limit $7"#,
        handover_id,
        filter.states.as_deref() as _,
        filter.to,
        filter.differing,
        after.map(|(sid, _)| sid),
        after.map(|(_, line)| line),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Line::from).collect())
}

/// One line of a plan, locked until the transaction ends.
pub(in crate::handover) async fn lock_line(
    conn: &mut PgConnection,
    handover_id: Uuid,
    conversation_sid: &ConversationSid,
    line: &PhoneNumber,
) -> Result<Option<Line>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"-- handover.lock_line
        select handover_id, conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber", account_sid,
               finding, asked_at, settled_at, found_later, state, action, to_holder as "to_holder: Identity", why,
               passed as "passed: Json<Vec<Passed>>", by_hand, outcome, transfer_id, due_at, not_before, finished_at,
               back_state, back_outcome, back_transfer_id, back_due_at
        from handover_line where handover_id = $1 and conversation_sid = $2 and line = $3 for update"#,
        handover_id,
        conversation_sid.as_str(),
        line.as_str(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Line::from))
}

/// Writes what may change of a line that the caller has locked.
pub(in crate::handover) async fn update_line(
    conn: &mut PgConnection,
    line: &Line,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- handover.update_line
        update handover_line
        set state = $4, action = $5, to_holder = $6, why = $7, passed = $8, by_hand = $9, outcome = $10, transfer_id = $11,
            due_at = $12, not_before = $13, finished_at = $14, back_state = $15, back_outcome = $16, back_transfer_id = $17,
            back_due_at = $18
        where handover_id = $1 and conversation_sid = $2 and line = $3",
        line.handover_id,
        line.conversation_sid.as_str(),
        line.line.as_str(),
        line.state.as_str(),
        line.action.map(Action::as_str),
        line.to.as_ref().map(Identity::as_str),
        line.why,
        Json(&line.passed) as _,
        line.by_hand,
        line.outcome,
        line.transfer_id,
        line.due_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        line.not_before.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        line.finished_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        line.back_state.map(BackState::as_str),
        line.back_outcome,
        line.back_transfer_id,
        line.back_due_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what was decided about lines that have not begun. One that has begun meanwhile is left alone.
pub(in crate::handover) async fn write_decided(
    conn: &mut PgConnection,
    handover_id: Uuid,
    lines: &[Line],
) -> Result<(), sqlx::Error> {
    let sids: Vec<&str> = lines.iter().map(|line| line.conversation_sid.as_str()).collect();
    let numbers: Vec<&str> = lines.iter().map(|line| line.line.as_str()).collect();
    let states: Vec<&str> = lines.iter().map(|line| line.state.as_str()).collect();
    let actions: Vec<Option<&str>> = lines.iter().map(|line| line.action.map(Action::as_str)).collect();
    let to: Vec<Option<&str>> = lines
        .iter()
        .map(|line| line.to.as_ref().map(Identity::as_str))
        .collect();
    let why: Vec<Option<&str>> = lines.iter().map(|line| line.why.as_deref()).collect();
    let passed: Vec<Json<&[Passed]>> = lines.iter().map(|line| Json(line.passed.as_slice())).collect();
    let outcomes: Vec<Option<&str>> = lines.iter().map(|line| line.outcome.as_deref()).collect();
    let finished: Vec<_> = lines
        .iter()
        .map(|line| line.finished_at.map(jiff_sqlx::ToSqlx::to_sqlx))
        .collect();
    sqlx::query!(
        "-- handover.write_decided
        update handover_line
        set state = decided.state, action = decided.action, to_holder = decided.to_holder, why = decided.why,
            passed = decided.passed, outcome = decided.outcome, finished_at = decided.finished_at
        from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::text[],
                    $10::timestamptz[])
            as decided (conversation_sid, line, state, action, to_holder, why, passed, outcome, finished_at)
        where handover_id = $1 and handover_line.conversation_sid = decided.conversation_sid
          and handover_line.line = decided.line and handover_line.state in ('waiting', 'stays')",
        handover_id,
        &sids as _,
        &numbers as _,
        &states as _,
        &actions as _,
        &to as _,
        &why as _,
        &passed as _,
        &outcomes as _,
        &finished as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The next line that may begin on its way out.
pub(in crate::handover) async fn next_waiting(
    conn: &mut PgConnection,
    handover_id: Uuid,
    now: Timestamp,
) -> Result<Option<(ConversationSid, PhoneNumber)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- handover.next_waiting
        select conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber" from handover_line
        where handover_id = $1 and state = 'waiting' and (not_before is null or not_before <= $2)
        order by conversation_sid, line limit 1"#,
        handover_id,
        now.to_sqlx() as _,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.conversation_sid, row.line)))
}

/// The next line that may begin on its way back.
pub(in crate::handover) async fn next_to_go_back(
    conn: &mut PgConnection,
    handover_id: Uuid,
    now: Timestamp,
) -> Result<Option<(ConversationSid, PhoneNumber)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- handover.next_to_go_back
        select conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber" from handover_line
        where handover_id = $1 and state = 'handed_over' and back_state is null and (not_before is null or not_before <= $2)
        order by conversation_sid, line limit 1"#,
        handover_id,
        now.to_sqlx() as _,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.conversation_sid, row.line)))
}

/// When the first line may begin that something stands against for now.
pub(in crate::handover) async fn next_not_before(
    conn: &mut PgConnection,
    handover_id: Uuid,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let at = sqlx::query_scalar!(
        r#"-- handover.next_not_before
        select min(not_before) as "at: jiff_sqlx::Timestamp" from handover_line
        where handover_id = $1 and not_before is not null
          and (state = 'waiting' or (state = 'handed_over' and back_state is null))"#,
        handover_id,
    )
    .fetch_one(conn)
    .await?;
    Ok(at.map(jiff_sqlx::Timestamp::to_jiff))
}

/// What has not begun is not to begin any more. Answers how many lines.
pub(in crate::handover) async fn cancel_waiting(
    conn: &mut PgConnection,
    handover_id: Uuid,
    outcome: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    let cancelled = sqlx::query!(
        "-- handover.cancel_waiting
        update handover_line set state = 'cancelled', outcome = $2, finished_at = $3
        where handover_id = $1 and state = 'waiting'",
        handover_id,
        outcome,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(cancelled.rows_affected())
}

/// A line whose transfer has come to its end.
#[derive(Debug, Clone)]
pub(in crate::handover) struct Ended {
    pub(in crate::handover) conversation_sid: ConversationSid,
    pub(in crate::handover) line: PhoneNumber,
    pub(in crate::handover) is_back: bool,
    pub(in crate::handover) transfer_state: String,
    pub(in crate::handover) outcome_code: Option<String>,
}

/// The lines under way whose transfers have ended.
pub(in crate::handover) async fn ended(
    conn: &mut PgConnection,
    handover_id: Uuid,
) -> Result<Vec<Ended>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- handover.ended
        select given.conversation_sid as "conversation_sid: ConversationSid", given.line as "line: PhoneNumber",
               (given.back_state is not null) as "is_back!", transfer.state, transfer.outcome_code
        from handover_line as given
        join transfer on transfer.conversation_sid = given.conversation_sid
                     and transfer.transfer_id = coalesce(given.back_transfer_id, given.transfer_id)
        where given.handover_id = $1 and (given.state = 'transferring' or given.back_state = 'transferring')
          and transfer.finished_at is not null
        order by given.conversation_sid, given.line"#,
        handover_id,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Ended {
            conversation_sid: row.conversation_sid,
            line: row.line,
            is_back: row.is_back,
            transfer_state: row.state,
            outcome_code: row.outcome_code,
        })
        .collect())
}

/// The lines of a plan whose transfers are under way, in either direction.
#[derive(Debug, Clone)]
pub(in crate::handover) struct UnderWay {
    pub(in crate::handover) lines: i64,
    /// What most of those that are stuck wait for at Twilio, and since when the first of them does.
    pub(in crate::handover) waiting_error: Option<String>,
    pub(in crate::handover) waiting_since: Option<Timestamp>,
}

/// How many lines of a plan are under way, and why those wait that have done so since before a time.
pub(in crate::handover) async fn under_way(
    conn: &mut PgConnection,
    handover_id: Uuid,
    stuck_since: Timestamp,
) -> Result<UnderWay, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- handover.under_way
        select count(*) as "lines!",
               mode() within group (order by waiting_error)
                   filter (where waiting_error is not null and waiting_since <= $2) as waiting_error,
               min(waiting_since) filter (where waiting_error is not null and waiting_since <= $2)
                   as "waiting_since: jiff_sqlx::Timestamp"
        from handover_line as given
        left join transfer on transfer.conversation_sid = given.conversation_sid
                          and transfer.transfer_id = coalesce(given.back_transfer_id, given.transfer_id)
        where given.handover_id = $1 and (given.state = 'transferring' or given.back_state = 'transferring')"#,
        handover_id,
        stuck_since.to_sqlx() as _,
    )
    .fetch_one(conn)
    .await?;
    Ok(UnderWay {
        lines: row.lines,
        waiting_error: row.waiting_error,
        waiting_since: row.waiting_since.map(jiff_sqlx::Timestamp::to_jiff),
    })
}
