//! Rows of transfers and of their steps.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::transfer::{Step, Transfer};

struct Row {
    transfer_id: Uuid,
    account_sid: String,
    conversation_sid: ConversationSid,
    line: PhoneNumber,
    kind: String,
    from_holder: Option<String>,
    to_holder: Identity,
    state: String,
    requested_by: String,
    decided_by: Option<String>,
    reason: Option<String>,
    note: Option<String>,
    outcome_code: Option<String>,
    outcome_detail: Option<String>,
    method: Option<String>,
    offer_expires_at: Option<jiff_sqlx::Timestamp>,
    swap_deadline_at: Option<jiff_sqlx::Timestamp>,
    contested_from: Option<jiff_sqlx::Timestamp>,
    contested_to: Option<jiff_sqlx::Timestamp>,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
    finished_at: Option<jiff_sqlx::Timestamp>,
}

impl From<Row> for Transfer {
    fn from(row: Row) -> Self {
        let at = |at: Option<jiff_sqlx::Timestamp>| at.map(jiff_sqlx::Timestamp::to_jiff);
        Self {
            transfer_id: row.transfer_id,
            account_sid: row.account_sid,
            conversation_sid: row.conversation_sid,
            line: row.line,
            kind: word(&row.kind),
            from_holder: row.from_holder,
            to_holder: row.to_holder,
            state: word(&row.state),
            requested_by: row.requested_by,
            decided_by: row.decided_by,
            reason: row.reason,
            note: row.note,
            outcome_code: row.outcome_code,
            outcome_detail: row.outcome_detail,
            method: row.method,
            offer_expires_at: at(row.offer_expires_at),
            swap_deadline_at: at(row.swap_deadline_at),
            contested_from: at(row.contested_from),
            contested_to: at(row.contested_to),
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            finished_at: at(row.finished_at),
        }
    }
}

/// A word that the column's check allows.
fn word<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_value(serde_json::Value::from(text)).expect("the column's check allows only these words")
}

pub(super) async fn insert(conn: &mut PgConnection, transfer: &Transfer) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.insert
        insert into transfer (transfer_id, conversation_sid, account_sid, line, kind, from_holder, to_holder, state,
            requested_by, reason, note, offer_expires_at, swap_deadline_at, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)",
        transfer.transfer_id,
        transfer.conversation_sid.as_str(),
        transfer.account_sid,
        transfer.line.as_str(),
        transfer.kind.as_str(),
        transfer.from_holder,
        transfer.to_holder.as_str(),
        transfer.state.as_str(),
        transfer.requested_by,
        transfer.reason,
        transfer.note,
        transfer.offer_expires_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        transfer.swap_deadline_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        transfer.created_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what may change of a transfer that the caller has locked.
pub(super) async fn update(conn: &mut PgConnection, transfer: &Transfer) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.update
        update transfer
        set state = $3, decided_by = $4, outcome_code = $5, outcome_detail = $6, method = $7, swap_deadline_at = $8,
            contested_from = $9, contested_to = $10, updated_at = $11, finished_at = $12
        where conversation_sid = $1 and transfer_id = $2",
        transfer.conversation_sid.as_str(),
        transfer.transfer_id,
        transfer.state.as_str(),
        transfer.decided_by,
        transfer.outcome_code,
        transfer.outcome_detail,
        transfer.method,
        transfer.swap_deadline_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        transfer.contested_from.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        transfer.contested_to.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        transfer.updated_at.to_sqlx() as _,
        transfer.finished_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// One transfer, locked until the transaction ends.
pub(super) async fn lock(
    conn: &mut PgConnection,
    transfer_id: Uuid,
) -> Result<Option<Transfer>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"-- transfer.lock
        select transfer_id, account_sid, conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber",
               kind, from_holder, to_holder as "to_holder: Identity", state, requested_by, decided_by, reason, note,
               outcome_code, outcome_detail, method, offer_expires_at, swap_deadline_at, contested_from, contested_to,
               created_at, updated_at, finished_at
        from transfer where transfer_id = $1 for update"#,
        transfer_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Transfer::from))
}

/// One transfer.
pub async fn find(conn: &mut PgConnection, transfer_id: Uuid) -> Result<Option<Transfer>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"-- transfer.find
        select transfer_id, account_sid, conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber",
               kind, from_holder, to_holder as "to_holder: Identity", state, requested_by, decided_by, reason, note,
               outcome_code, outcome_detail, method, offer_expires_at, swap_deadline_at, contested_from, contested_to,
               created_at, updated_at, finished_at
        from transfer where transfer_id = $1"#,
        transfer_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Transfer::from))
}

/// The transfer of a line that is not finished.
pub(super) async fn open_on_line(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    line: &str,
) -> Result<Option<Transfer>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"-- transfer.open_on_line
        select transfer_id, account_sid, conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber",
               kind, from_holder, to_holder as "to_holder: Identity", state, requested_by, decided_by, reason, note,
               outcome_code, outcome_detail, method, offer_expires_at, swap_deadline_at, contested_from, contested_to,
               created_at, updated_at, finished_at
        from transfer where conversation_sid = $1 and line = $2 and finished_at is null"#,
        conversation_sid.as_str(),
        line,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Transfer::from))
}

/// Which transfers to list; `None` takes any.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub conversation_sid: Option<String>,
    pub line: Option<String>,
    /// Offered to, or held by, this identity: the target.
    pub to: Option<String>,
    /// Only those that are not finished.
    pub open: bool,
}

/// Transfers, newest first, those before `before` (a time of creation and an id, for paging).
pub async fn page(
    conn: &mut PgConnection,
    filter: &Filter,
    before: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Transfer>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- transfer.page
        select transfer_id, account_sid, conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber",
               kind, from_holder, to_holder as "to_holder: Identity", state, requested_by, decided_by, reason, note,
               outcome_code, outcome_detail, method, offer_expires_at, swap_deadline_at, contested_from, contested_to,
               created_at, updated_at, finished_at
        from transfer
        where ($1::text is null or conversation_sid = $1)
          and ($2::text is null or line = $2)
          and ($3::text is null or to_holder = $3)
          and (not $4 or finished_at is null)
          and ($5::timestamptz is null or (created_at, transfer_id) < ($5, $6::uuid))
        order by created_at desc, transfer_id desc
        limit $7"#,
        filter.conversation_sid,
        filter.line,
        filter.to,
        filter.open,
        before.map(|(at, _)| at.to_sqlx()) as _,
        before.map(|(_, id)| id) as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Transfer::from).collect())
}

/// The stretches of a conversation's lines in which it is not certain who had them: line, from, to.
pub async fn contested_windows(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Vec<(String, Timestamp, Option<Timestamp>)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- transfer.contested_windows
        select line, contested_from as "contested_from!", contested_to from transfer
        where conversation_sid = $1 and contested_from is not null
        order by contested_from"#,
        conversation_sid,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            (
                row.line,
                row.contested_from.to_jiff(),
                row.contested_to.map(jiff_sqlx::Timestamp::to_jiff),
            )
        })
        .collect())
}

/// Writes down that something is about to be tried; answers its number.
pub(super) async fn begin_step(
    conn: &mut PgConnection,
    transfer: &Transfer,
    action: &str,
    now: Timestamp,
) -> Result<i32, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- transfer.begin_step
        insert into transfer_step (conversation_sid, transfer_id, step_number, action, started_at)
        select $1, $2, coalesce(max(step_number), 0) + 1, $3, $4 from transfer_step
        where conversation_sid = $1 and transfer_id = $2
        returning step_number"#,
        transfer.conversation_sid.as_str(),
        transfer.transfer_id,
        action,
        now.to_sqlx() as _,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.step_number)
}

/// Writes down what became of it.
pub(super) async fn end_step(
    conn: &mut PgConnection,
    transfer: &Transfer,
    step_number: i32,
    outcome: &str,
    detail: Option<&str>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.end_step
        update transfer_step set outcome = $4, detail = $5, finished_at = $6
        where conversation_sid = $1 and transfer_id = $2 and step_number = $3",
        transfer.conversation_sid.as_str(),
        transfer.transfer_id,
        step_number,
        outcome,
        detail,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Everything that was tried, in order.
pub async fn steps(
    conn: &mut PgConnection,
    conversation_sid: &str,
    transfer_id: Uuid,
) -> Result<Vec<Step>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- transfer.steps
        select step_number, action, started_at, finished_at, outcome, detail from transfer_step
        where conversation_sid = $1 and transfer_id = $2 order by step_number",
        conversation_sid,
        transfer_id,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Step {
            step_number: row.step_number,
            action: row.action,
            started_at: row.started_at.to_jiff(),
            finished_at: row.finished_at.map(jiff_sqlx::Timestamp::to_jiff),
            outcome: row.outcome,
            detail: row.detail,
        })
        .collect())
}

/// Whether this account is known to refuse replacing an identity.
pub(super) async fn update_refused(conn: &mut PgConnection, account_sid: &str) -> Result<bool, sqlx::Error> {
    let row = sqlx::query!(
        "-- transfer.update_refused
        select update_refused from transfer_method where account_sid = $1",
        account_sid,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some_and(|row| row.update_refused))
}

/// Remembers what this account does about replacing an identity.
pub(super) async fn learn_method(
    conn: &mut PgConnection,
    account_sid: &str,
    update_refused: bool,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.learn_method
        insert into transfer_method (account_sid, update_refused, learnt_at) values ($1, $2, $3)
        on conflict (account_sid) do update set update_refused = excluded.update_refused, learnt_at = excluded.learnt_at
        where transfer_method.update_refused <> excluded.update_refused",
        account_sid,
        update_refused,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}
