//! What the log says of lines that nobody holds.

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::store::Settled;
use super::{Line, Passed, Row};
use crate::events::{self, Kind, NewEvent, Via, transfer_cause};
use crate::ids::{AccountSid, ConversationSid, Identity};

/// Who decides where no person does.
const US: &str = "hookswitch";

/// It was given to somebody.
pub(super) async fn assigned(
    conn: &mut PgConnection,
    line: &Line,
    by: &str,
    passed: &[Passed],
    (transfer_id, to): (Uuid, &Identity),
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let data = json!({
        "line": line.line,
        "to": to,
        "by": by,
        "team": line.team_id,
        "last_holder": line.last_holder,
        "passed": passed,
        "waited_since": line.stored.as_ref().map(|stored| stored.since),
        "transfer_id": transfer_id,
    });
    let about = (&line.account_sid, &line.conversation_sid);
    let cause = Some(transfer_cause(transfer_id));
    append(conn, Kind::LineAssigned, about, (US, via, cause), data, now).await
}

/// It waits.
pub(super) async fn queued(
    conn: &mut PgConnection,
    line: &Line,
    why: &str,
    passed: &[Passed],
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let data = json!({
        "line": line.line,
        "team": line.team_id,
        "reason": why,
        "last_holder": line.last_holder,
        "passed": passed,
    });
    let about = (&line.account_sid, &line.conversation_sid);
    append(conn, Kind::LineQueued, about, (US, via, None), data, now).await
}

/// It was given in vain, and waits again.
pub(super) async fn queued_again(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    row: &(Row, Value),
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let (row, passed) = row;
    let data = json!({
        "line": row.line,
        "team": row.team_id,
        "reason": super::store::IN_VAIN,
        "passed": passed,
        "transfer_id": row.transfer_id,
    });
    let cause = row.transfer_id.map(transfer_cause);
    let about = (&row.account_sid, sid);
    append(conn, Kind::LineQueued, about, (US, Via::Timer, cause), data, now).await
}

/// Somebody took it.
pub(super) async fn taken(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    row: &Row,
    (transfer_id, by): (Uuid, &Identity),
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let data = json!({
        "line": row.line,
        "to": by,
        "team": row.team_id,
        "waited_since": row.since.to_jiff(),
        "transfer_id": transfer_id,
    });
    let cause = Some(transfer_cause(transfer_id));
    let about = (&row.account_sid, sid);
    append(
        conn,
        Kind::LineTaken,
        about,
        (by.as_str(), Via::Api, cause),
        data,
        now,
    )
    .await
}

/// It waits no longer, though nobody was given it from the queue.
pub(super) async fn dequeued(
    conn: &mut PgConnection,
    gone: &Settled,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if !gone.was_waiting {
        return Ok(());
    }
    let data = json!({
        "line": gone.line,
        "team": gone.team_id,
        "reason": if gone.holder.is_some() { "staffed" } else { "over" },
        "holder": gone.holder,
        "waited_since": gone.since,
    });
    let about = (&gone.account_sid, &gone.conversation_sid);
    append(conn, Kind::LineDequeued, about, (US, via, None), data, now).await
}

async fn append(
    conn: &mut PgConnection,
    kind: Kind,
    (account_sid, sid): (&AccountSid, &ConversationSid),
    (actor, via, cause): (&str, Via, Option<String>),
    data: Value,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let event = NewEvent {
        kind,
        account_sid: Some(account_sid.clone()),
        conversation_sid: Some(sid.clone()),
        subject: sid.to_string(),
        actor: Some(actor.to_owned()),
        via,
        cause,
        occurred_at: now,
        recorded_at: now,
        data,
    };
    events::append(conn, &[event]).await
}
