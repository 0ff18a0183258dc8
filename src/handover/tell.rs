//! What the log says of plans. Never what people wrote: reason and note are read from the plan.

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::events::{self, Kind, NewEvent, Via};
use crate::handover::{BackState, By, Direction, Handover, Line, store};
use crate::ids::AccountSid;

/// Writes the log entry of a plan's change.
pub(super) async fn tell(
    conn: &mut PgConnection,
    plan: &Handover,
    kind: Kind,
    by: By<'_>,
    facts: Value,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut data = json!({
        "handover_id": plan.handover_id,
        "leaver": plan.leaver,
        "state": plan.state,
        "direction": plan.direction,
        "back_because": plan.back_because,
        "return_at": plan.return_at,
        "leaver_becomes": plan.leaver_becomes,
    });
    if let (Some(data), Value::Object(facts)) = (data.as_object_mut(), facts) {
        data.extend(facts);
    }
    let event = NewEvent {
        kind,
        account_sid: None,
        conversation_sid: None,
        subject: plan.handover_id.to_string(),
        actor: Some(by.name.to_owned()),
        via: by.via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data,
    };
    events::append(conn, &[event]).await
}

/// As [`tell`], with how far the plan has come.
pub(super) async fn tell_counts(
    conn: &mut PgConnection,
    plan: &Handover,
    kind: Kind,
    by: By<'_>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let facts = json!({ "counts": store::counts(conn, plan.handover_id).await? });
    tell(conn, plan, kind, by, facts, now).await
}

/// Counts a line that has come to its end, and says so to the log: on its way out or back.
pub(super) fn line_ended(plan: &Handover, line: &Line, now: Timestamp) -> NewEvent {
    let end = line.back_state.map_or(line.state.as_str(), BackState::as_str);
    metrics::counter!("hookswitch_handover_lines_total", "end" => end).increment(1);
    NewEvent {
        kind: Kind::HandoverLineEnded,
        account_sid: AccountSid::try_from(line.account_sid.as_str()).ok(),
        conversation_sid: Some(line.conversation_sid.clone()),
        subject: plan.handover_id.to_string(),
        actor: Some(plan.in_the_name_of().to_owned()),
        via: Via::Worker,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({
            "handover_id": plan.handover_id,
            "line": line.line,
            "leaver": plan.leaver,
            "to": line.to,
            // Not the plan's: it may have been turned round while the line was on its way out.
            "direction": line.back_state.map_or(Direction::Out, |_| Direction::Back),
            "state": line.state,
            "outcome": line.outcome,
            "transfer_id": line.transfer_id,
            "back_state": line.back_state,
            "back_outcome": line.back_outcome,
            "back_transfer_id": line.back_transfer_id,
        }),
    }
}

/// Writes down that somebody asked for something that the state of things did not allow. `subject` is the plan's id, or the
/// leaver where there was to be a new one.
pub async fn tell_refused(
    conn: &mut PgConnection,
    verb: &str,
    subject: &str,
    by: By<'_>,
    code: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let event = NewEvent {
        kind: Kind::HandoverRefused,
        account_sid: None,
        conversation_sid: None,
        subject: subject.to_owned(),
        actor: Some(by.name.to_owned()),
        via: by.via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({ "verb": verb, "by": by.name, "code": code }),
    };
    events::append(conn, &[event]).await
}
