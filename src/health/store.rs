//! Rows of sends and findings.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::health::judge::Judged;
use crate::health::{Code, Finding, Repair, RepairState, SeenBy, Severity};
use crate::ids::{ConversationSid, new_id};

/// How Twilio took our messages through one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineSend {
    pub line: String,
    /// Absent where the last message was taken.
    pub refusal: Option<Refusal>,
    pub accepted_at: Option<Timestamp>,
}

/// Refusals since the last message that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of the last one.
    pub code: String,
    pub in_a_row: i64,
    pub since: Timestamp,
    pub at: Timestamp,
    pub outbound_message_id: Uuid,
}

struct Row {
    line_finding_id: Uuid,
    conversation_sid: String,
    account_sid: String,
    line: Option<String>,
    code: String,
    since: jiff_sqlx::Timestamp,
    seen_by: String,
    seen_at: jiff_sqlx::Timestamp,
    evidence: serde_json::Value,
    resolved_at: Option<jiff_sqlx::Timestamp>,
    repair: Option<String>,
    repair_state: Option<String>,
    repair_requested_by: Option<String>,
    repair_requested_at: Option<jiff_sqlx::Timestamp>,
    repair_finished_at: Option<jiff_sqlx::Timestamp>,
    repair_outcome: Option<String>,
}

/// A code that is not known was written by a newer version, whose finding this one cannot tell.
fn known(row: Row) -> Option<Finding> {
    let code = Code::parse(&row.code)?;
    let at = jiff_sqlx::Timestamp::to_jiff;
    Some(Finding {
        line_finding_id: row.line_finding_id,
        conversation_sid: row.conversation_sid,
        account_sid: row.account_sid,
        line: row.line,
        code,
        severity: code.severity(),
        since: row.since.to_jiff(),
        seen_by: SeenBy::parse(&row.seen_by).unwrap_or(SeenBy::Sweep),
        seen_at: row.seen_at.to_jiff(),
        evidence: row.evidence,
        resolved_at: row.resolved_at.map(at),
        repair: row.repair.as_deref().and_then(Repair::parse),
        repair_state: row.repair_state.as_deref().and_then(RepairState::parse),
        repair_requested_by: row.repair_requested_by,
        repair_requested_at: row.repair_requested_at.map(at),
        repair_finished_at: row.repair_finished_at.map(at),
        repair_outcome: row.repair_outcome,
    })
}

/// Counts a refusal. Answers how many there are in a row.
pub(super) async fn count_refusal(
    conn: &mut PgConnection,
    account_sid: &str,
    conversation_sid: &str,
    line: &str,
    code: &str,
    outbound_message_id: Uuid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- health.count_refusal
        insert into line_send as known (conversation_sid, line, account_sid, refused_in_a_row, refused_code, refused_at,
            refused_since, outbound_message_id)
        values ($1, $2, $3, 1, $4, $5, $5, $6)
        on conflict (conversation_sid, line) do update
        set refused_in_a_row = known.refused_in_a_row + 1, refused_code = $4, refused_at = $5,
            refused_since = coalesce(known.refused_since, $5), outbound_message_id = $6",
        conversation_sid,
        line,
        account_sid,
        code,
        now.to_sqlx() as _,
        outbound_message_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes down that a message was taken. Answers whether the one before was refused.
pub(super) async fn note_acceptance(
    conn: &mut PgConnection,
    account_sid: &str,
    conversation_sid: &str,
    line: &str,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- health.note_acceptance
        with before as (
            select refused_in_a_row from line_send where conversation_sid = $1 and line = $2)
        insert into line_send as known (conversation_sid, line, account_sid, accepted_at)
        values ($1, $2, $3, $4)
        on conflict (conversation_sid, line) do update
        set accepted_at = $4, refused_in_a_row = 0, refused_code = null, refused_at = null, refused_since = null,
            outbound_message_id = null
        returning coalesce((select refused_in_a_row from before), 0) as "refused!""#,
        conversation_sid,
        line,
        account_sid,
        now.to_sqlx() as _,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.refused > 0)
}

/// How Twilio took our messages, by line.
pub async fn sends_of(conn: &mut PgConnection, conversation_sid: &str) -> Result<Vec<LineSend>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- health.sends_of
        select line, refused_in_a_row, refused_code, refused_at, refused_since, outbound_message_id, accepted_at
        from line_send where conversation_sid = $1 order by line",
        conversation_sid,
    )
    .fetch_all(conn)
    .await?;
    let at = jiff_sqlx::Timestamp::to_jiff;
    let sends = rows.into_iter().map(|row| {
        let last = row.refused_code.zip(row.outbound_message_id);
        let times = row.refused_since.map(at).zip(row.refused_at.map(at));
        LineSend {
            line: row.line,
            refusal: last.zip(times).map(|((code, id), (since, at))| Refusal {
                code,
                in_a_row: row.refused_in_a_row,
                since,
                at,
                outbound_message_id: id,
            }),
            accepted_at: row.accepted_at.map(at),
        }
    });
    Ok(sends.collect())
}

/// Findings of a conversation that are not resolved.
pub(super) async fn open(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Vec<Finding>, sqlx::Error> {
    let mut all = findings_of_conversation(conn, conversation_sid, i64::MAX, true).await?;
    all.sort_by_key(|finding| (finding.code, finding.line.clone()));
    Ok(all)
}

/// Findings of a conversation, those that are open first, then the newest; `open_only` leaves resolved ones out.
pub async fn findings_of_conversation(
    conn: &mut PgConnection,
    conversation_sid: &str,
    limit: i64,
    open_only: bool,
) -> Result<Vec<Finding>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- health.findings_of_conversation
        select line_finding_id, conversation_sid, account_sid, line, code, since, seen_by, seen_at, evidence, resolved_at,
               repair, repair_state, repair_requested_by, repair_requested_at, repair_finished_at, repair_outcome
        from line_finding
        where conversation_sid = $1 and (resolved_at is null or not $3)
        order by resolved_at is not null, since desc, line_finding_id desc
        limit $2",
        conversation_sid,
        limit,
        open_only,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().filter_map(known).collect())
}

pub(super) async fn find(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    line_finding_id: Uuid,
) -> Result<Option<Finding>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- health.find
        select line_finding_id, conversation_sid, account_sid, line, code, since, seen_by, seen_at, evidence, resolved_at,
               repair, repair_state, repair_requested_by, repair_requested_at, repair_finished_at, repair_outcome
        from line_finding where conversation_sid = $1 and line_finding_id = $2",
        conversation_sid.as_str(),
        line_finding_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.and_then(known))
}

/// Which findings to list; `None` takes any. Resolved ones are not listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub code: Option<Code>,
    pub severity: Option<Severity>,
    pub line: Option<String>,
    pub account_sid: Option<String>,
}

/// Open findings, the newest first, those before `before` (since when, and the id, for paging).
pub async fn page(
    conn: &mut PgConnection,
    filter: &Filter,
    before: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Finding>, sqlx::Error> {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let rows = sqlx::query_as!(
        Row,
        "-- health.page
        select line_finding_id, conversation_sid, account_sid, line, code, since, seen_by, seen_at, evidence, resolved_at,
               repair, repair_state, repair_requested_by, repair_requested_at, repair_finished_at, repair_outcome
        from line_finding
        where resolved_at is null and code = any($8)
          and ($1::text is null or code = $1)
          and ($2::text is null or severity = $2)
          and ($3::text is null or line = $3)
          and ($4::text is null or account_sid = $4)
          and ($5::timestamptz is null or (since, line_finding_id) < ($5, $6::uuid))
        order by since desc, line_finding_id desc
        limit $7",
        filter.code.map(Code::as_str) as _,
        filter.severity.map(Severity::as_str) as _,
        filter.line,
        filter.account_sid,
        before.map(|(at, _)| at.to_sqlx()) as _,
        before.map(|(_, id)| id) as _,
        limit,
        &codes as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().filter_map(known).collect())
}

/// How many findings are open, by code; those with none too.
pub async fn count_open(conn: &mut PgConnection) -> Result<Vec<(Code, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- health.count_open
        select code, count(*) as "open!" from line_finding where resolved_at is null group by code"#
    )
    .fetch_all(conn)
    .await?;
    let count = |code: Code| {
        rows.iter()
            .find(|row| row.code == code.as_str())
            .map_or(0, |row| row.open)
    };
    Ok(Code::ALL.iter().map(|code| (*code, count(*code))).collect())
}

/// What a finding is about.
pub(super) struct About<'a> {
    pub(super) conversation_sid: &'a ConversationSid,
    pub(super) account_sid: &'a str,
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    about: &About<'_>,
    judged: &Judged,
    seen_by: SeenBy,
    now: Timestamp,
) -> Result<Uuid, sqlx::Error> {
    let id = new_id();
    sqlx::query!(
        "-- health.insert
        insert into line_finding (conversation_sid, line_finding_id, account_sid, line, code, severity, since, seen_by,
            seen_at, evidence, repair)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $7, $9, $10)",
        about.conversation_sid.as_str(),
        id,
        about.account_sid,
        judged.line,
        judged.code.as_str(),
        judged.code.severity().as_str(),
        now.to_sqlx() as _,
        seen_by.as_str(),
        judged.evidence,
        judged.repair.map(Repair::as_str),
    )
    .execute(conn)
    .await?;
    Ok(id)
}

/// It is still so.
pub(super) async fn see_again(
    conn: &mut PgConnection,
    finding: &Finding,
    judged: &Judged,
    seen_by: SeenBy,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- health.see_again
        update line_finding set seen_by = $3, seen_at = $4, evidence = $5, repair = $6
        where conversation_sid = $1 and line_finding_id = $2",
        finding.conversation_sid,
        finding.line_finding_id,
        seen_by.as_str(),
        now.to_sqlx() as _,
        judged.evidence,
        judged.repair.map(Repair::as_str),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// It is gone.
pub(super) async fn resolve(
    conn: &mut PgConnection,
    finding: &Finding,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- health.resolve
        update line_finding set resolved_at = $3 where conversation_sid = $1 and line_finding_id = $2",
        finding.conversation_sid,
        finding.line_finding_id,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A repair is asked for, perhaps once more.
pub(super) async fn queue_repair(
    conn: &mut PgConnection,
    finding: &Finding,
    requested_by: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- health.queue_repair
        update line_finding
        set repair_state = 'queued', repair_requested_by = $3, repair_requested_at = $4, repair_finished_at = null,
            repair_outcome = null
        where conversation_sid = $1 and line_finding_id = $2",
        finding.conversation_sid,
        finding.line_finding_id,
        requested_by,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How a repair ended.
pub(super) async fn end_repair(
    conn: &mut PgConnection,
    finding: &Finding,
    state: RepairState,
    outcome: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- health.end_repair
        update line_finding set repair_state = $3, repair_outcome = $4, repair_finished_at = $5
        where conversation_sid = $1 and line_finding_id = $2 and repair_state = 'queued'",
        finding.conversation_sid,
        finding.line_finding_id,
        state.as_str(),
        outcome,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}
