//! Rows of transfers and of their steps.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::transfer::{Transfer, Waiting};

struct Row {
    transfer_id: Uuid,
    account_sid: String,
    conversation_sid: ConversationSid,
    line: PhoneNumber,
    kind: String,
    from_holder: Option<String>,
    to_holder: Option<Identity>,
    state: String,
    requested_by: String,
    decided_by: Option<String>,
    decided_as: Option<String>,
    supersedes: Option<Uuid>,
    superseded_by: Option<Uuid>,
    reason: Option<String>,
    note: Option<String>,
    introduction: Option<String>,
    introduction_send_id: Option<Uuid>,
    displaced: Vec<Option<String>>,
    waiting_for: Option<String>,
    waiting_error: Option<String>,
    waiting_since: Option<jiff_sqlx::Timestamp>,
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
            decided_as: row.decided_as,
            supersedes: row.supersedes,
            superseded_by: row.superseded_by,
            reason: row.reason,
            note: row.note,
            introduction: row.introduction,
            introduction_send_id: row.introduction_send_id,
            displaced: row.displaced,
            waiting: waiting(row.waiting_for, row.waiting_error, row.waiting_since),
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

fn waiting(
    what: Option<String>,
    error: Option<String>,
    since: Option<jiff_sqlx::Timestamp>,
) -> Option<Waiting> {
    Some(Waiting {
        what: what?,
        error,
        since: since?.to_jiff(),
    })
}

/// A word that the column's check allows.
fn word<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_value(serde_json::Value::from(text)).expect("the column's check allows only these words")
}

pub(super) async fn insert(conn: &mut PgConnection, transfer: &Transfer) -> Result<(), sqlx::Error> {
    insert_all(conn, &[transfer]).await
}

pub(super) async fn insert_all(conn: &mut PgConnection, transfers: &[&Transfer]) -> Result<(), sqlx::Error> {
    let text = |of: fn(&Transfer) -> &str| transfers.iter().copied().map(of).collect::<Vec<&str>>();
    let maybe =
        |of: fn(&Transfer) -> Option<&str>| transfers.iter().copied().map(of).collect::<Vec<Option<&str>>>();
    let at = |of: fn(&Transfer) -> Option<Timestamp>| {
        let times = transfers
            .iter()
            .map(|one| of(one).map(jiff_sqlx::ToSqlx::to_sqlx));
        times.collect::<Vec<_>>()
    };
    let ids: Vec<Uuid> = transfers.iter().map(|one| one.transfer_id).collect();
    let supersedes: Vec<Option<Uuid>> = transfers.iter().map(|one| one.supersedes).collect();
    // A column of lists is one of JSON on its way, for SQL knows no list of lists of unequal length.
    let displaced: Vec<serde_json::Value> = transfers
        .iter()
        .map(|one| serde_json::json!(one.displaced))
        .collect();
    sqlx::query!(
        "-- transfer.insert
        insert into transfer (transfer_id, conversation_sid, account_sid, line, kind, from_holder, to_holder, state,
            requested_by, reason, note, offer_expires_at, swap_deadline_at, created_at, updated_at, decided_as, supersedes,
            introduction, contested_from, displaced)
        select transfer_id, conversation_sid, account_sid, line, kind, from_holder, to_holder, state, requested_by, reason, note,
            offer_expires_at, swap_deadline_at, created_at, created_at, decided_as, supersedes, introduction, contested_from,
            array(select who from jsonb_array_elements_text(displaced) with ordinality as one (who, place) order by place)
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                    $10::text[], $11::text[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::text[], $16::uuid[],
                    $17::text[], $18::timestamptz[], $19::jsonb[])
            as new (transfer_id, conversation_sid, account_sid, line, kind, from_holder, to_holder, state, requested_by, reason,
                    note, offer_expires_at, swap_deadline_at, created_at, decided_as, supersedes, introduction, contested_from,
                    displaced)",
        &ids,
        &text(|one| one.conversation_sid.as_str()) as _,
        &text(|one| &one.account_sid) as _,
        &text(|one| one.line.as_str()) as _,
        &text(|one| one.kind.as_str()) as _,
        &maybe(|one| one.from_holder.as_deref()) as _,
        &maybe(Transfer::to) as _,
        &text(|one| one.state.as_str()) as _,
        &text(|one| &one.requested_by) as _,
        &maybe(|one| one.reason.as_deref()) as _,
        &maybe(|one| one.note.as_deref()) as _,
        &at(|one| one.offer_expires_at) as _,
        &at(|one| one.swap_deadline_at) as _,
        &at(|one| Some(one.created_at)) as _,
        &maybe(|one| one.decided_as.as_deref()) as _,
        &supersedes as _,
        &maybe(|one| one.introduction.as_deref()) as _,
        &at(|one| one.contested_from) as _,
        &displaced,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what may change of a transfer that the caller has locked.
///
/// Where it is completed, one is on the line and nobody else: what earlier transfers left uncertain about it is so no more.
pub(super) async fn update(conn: &mut PgConnection, transfer: &Transfer) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- transfer.update
        with certain as (
            update transfer set contested_to = $11
            where $3 = 'completed' and conversation_sid = $1 and line = $21 and transfer_id <> $2
              and contested_from is not null and contested_to is null and finished_at is not null)
        update transfer
        set state = $3, decided_by = $4, outcome_code = $5, outcome_detail = $6, method = $7, swap_deadline_at = $8,
            contested_from = $9, contested_to = $10, updated_at = $11, finished_at = $12, to_holder = $13, decided_as = $14,
            superseded_by = $15, introduction_send_id = $16, offer_expires_at = $17, waiting_for = $18, waiting_error = $19,
            waiting_since = $20
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
        transfer.to(),
        transfer.decided_as,
        transfer.superseded_by,
        transfer.introduction_send_id,
        transfer.offer_expires_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        transfer.waiting.as_ref().map(|waiting| waiting.what.as_str()),
        transfer.waiting.as_ref().and_then(|waiting| waiting.error.as_deref()),
        transfer.waiting.as_ref().map(|waiting| waiting.since.to_sqlx()) as _,
        transfer.line.as_str(),
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
               kind, from_holder, to_holder as "to_holder: Identity", state, requested_by, decided_by, decided_as, supersedes,
               superseded_by, reason, note, introduction, introduction_send_id,
               displaced as "displaced: Vec<Option<String>>", waiting_for, waiting_error, waiting_since,
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
               kind, from_holder, to_holder as "to_holder: Identity", state, requested_by, decided_by, decided_as, supersedes,
               superseded_by, reason, note, introduction, introduction_send_id,
               displaced as "displaced: Vec<Option<String>>", waiting_for, waiting_error, waiting_since,
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
    Ok(open_on_lines(conn, &[(conversation_sid.as_str(), line)])
        .await?
        .pop())
}

/// As [`open_on_line`], of many lines; those that have none are left out.
pub(super) async fn open_on_lines(
    conn: &mut PgConnection,
    lines: &[(&str, &str)],
) -> Result<Vec<Transfer>, sqlx::Error> {
    let (sids, lines): (Vec<&str>, Vec<&str>) = lines.iter().copied().unzip();
    let rows = sqlx::query_as!(
        Row,
        r#"-- transfer.open_on_lines
        select open.transfer_id as "transfer_id!", open.account_sid as "account_sid!",
               open.conversation_sid as "conversation_sid!: ConversationSid", open.line as "line!: PhoneNumber",
               open.kind as "kind!", open.from_holder, open.to_holder as "to_holder: Identity", open.state as "state!",
               open.requested_by as "requested_by!", open.decided_by, open.decided_as, open.supersedes, open.superseded_by,
               open.reason, open.note, open.introduction, open.introduction_send_id,
               open.displaced as "displaced!: Vec<Option<String>>", open.waiting_for, open.waiting_error, open.waiting_since,
               open.outcome_code, open.outcome_detail, open.method, open.offer_expires_at, open.swap_deadline_at,
               open.contested_from, open.contested_to, open.created_at as "created_at!", open.updated_at as "updated_at!",
               open.finished_at
        from unnest($1::text[], $2::text[]) as wanted (conversation_sid, line)
        cross join lateral (
            select * from transfer
            where transfer.conversation_sid = wanted.conversation_sid and transfer.line = wanted.line
              and transfer.finished_at is null
            limit 1) as open"#,
        &sids as _,
        &lines as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Transfer::from).collect())
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
               kind, from_holder, to_holder as "to_holder: Identity", state, requested_by, decided_by, decided_as, supersedes,
               superseded_by, reason, note, introduction, introduction_send_id,
               displaced as "displaced: Vec<Option<String>>", waiting_for, waiting_error, waiting_since,
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

/// How many lines are being offered, or given, to somebody.
pub(super) async fn coming_to(conn: &mut PgConnection, identity: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- transfer.coming_to
        select count(*) as "count!" from transfer where to_holder = $1 and finished_at is null"#,
        identity,
    )
    .fetch_one(conn)
    .await
}

/// When lines changed hands after a moment: conversation, line, and time, oldest first.
pub(super) async fn hops_since(
    conn: &mut PgConnection,
    lines: &[(&str, &str)],
    since: Timestamp,
) -> Result<Vec<(String, String, Timestamp)>, sqlx::Error> {
    let (sids, lines): (Vec<&str>, Vec<&str>) = lines.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"-- transfer.hops_since
        select conversation_sid, line, finished_at as "finished_at!" from transfer
        where (conversation_sid, line) in (select * from unnest($1::text[], $2::text[]))
          and state = 'completed' and method <> 'none' and finished_at > $3
        order by finished_at"#,
        &sids as _,
        &lines as _,
        since.to_sqlx() as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.conversation_sid, row.line, row.finished_at.to_jiff()))
        .collect())
}
