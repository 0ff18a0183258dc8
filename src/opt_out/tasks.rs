//! The tasks that follow from opt-outs.

use jiff::Timestamp;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::ConversationSid;
use crate::opt_out::{APPLY_TASK, CLOSE_TASK, OptOut, RESUME_TASK, REVIEW_TASK};
use crate::queue::{self, NewTask};

/// Queues what the policy says about an opt-out, or the end of that.
pub(super) async fn put_apply(
    conn: &mut PgConnection,
    opt_out_id: Uuid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: APPLY_TASK,
        order_key: format!("opt_out:{opt_out_id}"),
        unique_key: Some(opt_out_id.to_string()),
        payload: json!({ "opt_out_id": opt_out_id }),
        run_at: now,
        attempts_max: 30,
    };
    queue::put(conn, &task, now).await
}

/// Has the outbox look again at what it holds of a conversation.
pub async fn put_resume(
    conn: &mut PgConnection,
    conversation_sid: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: RESUME_TASK,
        order_key: format!("conversation:{conversation_sid}"),
        unique_key: Some(conversation_sid.to_owned()),
        payload: json!({ "conversation_sid": conversation_sid }),
        run_at: now,
        attempts_max: 30,
    };
    queue::put(conn, &task, now).await
}

pub(super) async fn put_close(
    conn: &mut PgConnection,
    of: &OptOut,
    sid: &ConversationSid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: CLOSE_TASK,
        // After what was on its way already.
        order_key: format!("conversation:{sid}"),
        unique_key: Some(format!("{sid}:{}", of.opt_out_id)),
        payload: json!({ "conversation_sid": sid, "opt_out_id": of.opt_out_id }),
        run_at: now,
        attempts_max: 30,
    };
    queue::put(conn, &task, now).await
}

/// Queues a comparison of what was done about the opt-outs that last with what the policies say: of one number (its account,
/// and the number), or of all.
pub async fn put_review(
    conn: &mut PgConnection,
    of: Option<(&str, &str)>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: REVIEW_TASK,
        order_key: "opt_out.review".to_owned(),
        unique_key: Some(of.map_or_else(
            || "all".to_owned(),
            |(account_sid, line)| format!("{account_sid}:{line}"),
        )),
        payload: json!({ "of": of }),
        run_at: now,
        attempts_max: 30,
    };
    queue::put(conn, &task, now).await
}
