//! Rows of erasures.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Erasure, State, Step, Upstream};
use crate::events::Via;
use crate::person::Subject;

struct Row {
    erasure_id: Uuid,
    subject_kind: String,
    subject: Option<String>,
    pseudonym: String,
    upstream: String,
    state: String,
    asked_by: String,
    reason: String,
    requested_by: String,
    via: String,
    step: String,
    place: String,
    conversations: Vec<String>,
    held: Vec<String>,
    counts: serde_json::Value,
    failures: serde_json::Value,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
    finished_at: Option<jiff_sqlx::Timestamp>,
    stalled_at: Option<jiff_sqlx::Timestamp>,
}

impl From<Row> for Erasure {
    fn from(row: Row) -> Self {
        const WORDS: &str = "the column's check allows only these words";
        let counts: BTreeMap<String, i64> = serde_json::from_value(row.counts).unwrap_or_default();
        Self {
            erasure_id: row.erasure_id,
            subject: row
                .subject
                .and_then(|subject| Subject::read(&row.subject_kind, &subject)),
            subject_kind: row.subject_kind,
            pseudonym: row.pseudonym,
            upstream: Upstream::ALL
                .into_iter()
                .find(|one| one.as_str() == row.upstream)
                .expect(WORDS),
            state: State::ALL
                .into_iter()
                .find(|one| one.as_str() == row.state)
                .expect(WORDS),
            asked_by: row.asked_by,
            reason: row.reason,
            requested_by: row.requested_by,
            via: Via::parse(&row.via).expect(WORDS),
            step: Step::ALL
                .into_iter()
                .find(|one| one.as_str() == row.step)
                .expect(WORDS),
            place: row.place,
            conversations: row.conversations,
            held: row.held,
            counts,
            failures: serde_json::from_value(row.failures).unwrap_or_default(),
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            finished_at: row.finished_at.map(jiff_sqlx::Timestamp::to_jiff),
            stalled_at: row.stalled_at.map(jiff_sqlx::Timestamp::to_jiff),
        }
    }
}

/// Inserts an erasure. Answers with the one of the same person that is running, if one is: then nothing was inserted.
pub(super) async fn insert(conn: &mut PgConnection, erasure: &Erasure) -> Result<Option<Uuid>, sqlx::Error> {
    let subject = erasure.subject.as_ref().map(Subject::as_str);
    let inserted = sqlx::query!(
        "-- erasure.insert
        insert into erasure (erasure_id, subject_kind, subject, pseudonym, upstream, state, asked_by, reason, requested_by,
            via, step, created_at, updated_at)
        values ($1, $2, $3, $4, $5, 'running', $6, $7, $8, $9, $10, $11, $11)
        on conflict (subject_kind, subject) where subject is not null do nothing",
        erasure.erasure_id,
        erasure.subject_kind,
        subject,
        erasure.pseudonym,
        erasure.upstream.as_str(),
        erasure.asked_by,
        erasure.reason,
        erasure.requested_by,
        erasure.via.as_str(),
        erasure.step.as_str(),
        erasure.created_at.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(None);
    }
    sqlx::query_scalar!(
        "-- erasure.running
        select erasure_id from erasure where subject_kind = $1 and subject = $2",
        erasure.subject_kind,
        subject,
    )
    .fetch_optional(conn)
    .await
}

/// Writes how far it has come.
pub(super) async fn save(conn: &mut PgConnection, erasure: &Erasure) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- erasure.save
        update erasure
        set state = $2, step = $3, place = $4, conversations = $5, held = $6, counts = $7, failures = $8, updated_at = $9,
            finished_at = $10, stalled_at = $11, subject = case when $2 = 'running' then subject end
        where erasure_id = $1 and state = 'running'",
        erasure.erasure_id,
        erasure.state.as_str(),
        erasure.step.as_str(),
        erasure.place,
        &erasure.conversations,
        &erasure.held,
        serde_json::to_value(&erasure.counts).unwrap_or_default(),
        serde_json::to_value(&erasure.failures).unwrap_or_default(),
        erasure.updated_at.to_sqlx() as _,
        erasure.finished_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        erasure.stalled_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find(conn: &mut PgConnection, erasure_id: Uuid) -> Result<Option<Erasure>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- erasure.find
        select erasure_id, subject_kind, subject, pseudonym, upstream, state, asked_by, reason, requested_by, via, step,
               place, conversations, held, counts, failures, created_at, updated_at, finished_at, stalled_at
        from erasure where erasure_id = $1",
        erasure_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Erasure::from))
}

/// Erasures, newest first, those before `before` (a time and an id, for paging).
pub async fn page(
    conn: &mut PgConnection,
    before: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Erasure>, sqlx::Error> {
    let (at, id) = before.unzip();
    let rows = sqlx::query_as!(
        Row,
        "-- erasure.page
        select erasure_id, subject_kind, subject, pseudonym, upstream, state, asked_by, reason, requested_by, via, step,
               place, conversations, held, counts, failures, created_at, updated_at, finished_at, stalled_at
        from erasure
        where $1::timestamptz is null or (created_at, erasure_id) < ($1, $2::uuid)
        order by created_at desc, erasure_id desc
        limit $3",
        at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        id,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Erasure::from).collect())
}
