//! What the log says of transfers. Never what people wrote: reason, note and introduction are read from the transfer.

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::events::{self, Kind as EventKind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid};
use crate::transfer::Transfer;

/// Writes the log entry of a transfer's change.
pub(super) async fn tell(
    conn: &mut PgConnection,
    transfer: &Transfer,
    kind: EventKind,
    actor: &str,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    tell_with(conn, transfer, kind, actor, via, json!({}), now).await
}

/// As [`tell`], with facts that only this kind of entry has.
pub(super) async fn tell_with(
    conn: &mut PgConnection,
    transfer: &Transfer,
    kind: EventKind,
    actor: &str,
    via: Via,
    facts: Value,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    events::append(conn, &[entry(transfer, kind, actor, via, facts, now)]).await
}

/// The entry itself.
pub(super) fn entry(
    transfer: &Transfer,
    kind: EventKind,
    actor: &str,
    via: Via,
    facts: Value,
    now: Timestamp,
) -> NewEvent {
    let waiting = transfer.waiting.as_ref();
    let mut data = json!({
        "transfer_id": transfer.transfer_id,
        "kind": transfer.kind,
        "line": transfer.line,
        "from": transfer.from_holder,
        "to": transfer.to_holder,
        "state": transfer.state,
        "decided_as": transfer.decided_as,
        "offer_expires_at": transfer.offer_expires_at,
        "supersedes": transfer.supersedes,
        "superseded_by": transfer.superseded_by,
        "has_note": transfer.note.is_some(),
        "has_introduction": transfer.introduction.is_some(),
        "method": transfer.method,
        "waiting_for": waiting.map(|waiting| &waiting.what),
        "waiting_error": waiting.and_then(|waiting| waiting.error.as_ref()),
        "outcome_code": transfer.outcome_code,
    });
    if let (Some(data), Value::Object(facts)) = (data.as_object_mut(), facts) {
        data.extend(facts);
    }
    NewEvent {
        kind,
        account_sid: AccountSid::try_from(transfer.account_sid.as_str()).ok(),
        conversation_sid: Some(transfer.conversation_sid.clone()),
        subject: transfer.transfer_id.to_string(),
        actor: Some(actor.to_owned()),
        via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data,
    }
}

/// Writes down that somebody asked for something and was refused. `subject` is the transfer's id, or the conversation's
/// SID where there was to be a new one.
pub async fn tell_refused(
    conn: &mut PgConnection,
    verb: &str,
    subject: &str,
    conversation_sid: Option<ConversationSid>,
    by: &str,
    code: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let event = NewEvent {
        kind: EventKind::TransferRefused,
        account_sid: None,
        conversation_sid,
        subject: subject.to_owned(),
        actor: Some(by.to_owned()),
        via: Via::Api,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({ "verb": verb, "by": by, "code": code }),
    };
    events::append(conn, &[event]).await
}
