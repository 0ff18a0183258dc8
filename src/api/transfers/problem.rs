//! What refusals of transfers are answered with, and that each is on record.

use serde_json::json;
use uuid::Uuid;

use crate::api::{Api, conflict};
use crate::ids::ConversationSid;
use crate::transfer::{self, DecideError, StartTransferError};
use crate::web::problem::Problem;

/// What was asked for, and by whom.
pub(super) struct Asked<'a> {
    pub(super) verb: &'static str,
    pub(super) by: &'a str,
    pub(super) about: About<'a>,
}

pub(super) enum About<'a> {
    Transfer(Uuid),
    /// One that was to be started.
    Conversation(&'a ConversationSid),
}

/// Writes down that somebody was refused what they asked for, since the state of things does not allow it. That it cannot
/// be written down is no reason to answer otherwise.
pub(super) async fn on_record(api: &Api, asked: Asked<'_>, problem: Problem) -> Problem {
    let Problem::Conflict { code, .. } = &problem else {
        return problem;
    };
    if let Err(error) = record(api, asked, code).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the refusal of a transfer was not written down"
        );
    }
    problem
}

async fn record(api: &Api, asked: Asked<'_>, code: &str) -> Result<(), sqlx::Error> {
    let mut conn = api.pool.acquire().await?;
    let (subject, sid) = match asked.about {
        About::Conversation(sid) => (sid.to_string(), Some(sid.clone())),
        About::Transfer(id) => {
            let found = transfer::find(&mut conn, id).await?;
            (id.to_string(), found.map(|transfer| transfer.conversation_sid))
        }
    };
    let now = api.clock.now();
    transfer::tell_refused(&mut conn, asked.verb, &subject, sid, asked.by, code, now).await
}

impl From<StartTransferError> for Problem {
    fn from(error: StartTransferError) -> Self {
        match error {
            StartTransferError::ConversationNotFound => Self::NotFound { what: "conversation" },
            StartTransferError::ConversationClosed => Self::conflict(
                "conversation_closed",
                "the conversation is over, which is final at Twilio",
            ),
            StartTransferError::LineNotFound => {
                Self::conflict("line_not_found", "the conversation has no such line")
            }
            StartTransferError::LineAmbiguous { lines } => conflict(
                "line_ambiguous",
                "the conversation has several lines: say which in `line`",
                json!({ "lines": lines.len() }),
            ),
            StartTransferError::Unstaffed => {
                Self::conflict("line_unstaffed", "nobody holds the line: use `assign`")
            }
            StartTransferError::Staffed { holder } => conflict(
                "line_staffed",
                "somebody holds the line: use `cold`, `warm` or `escalation`",
                json!({ "holder": holder }),
            ),
            StartTransferError::AlreadyHolder => {
                Self::conflict("already_holder", "the target holds the line already")
            }
            StartTransferError::TargetInGroup => Self::conflict(
                "target_in_group",
                "the target is in the conversation already, and Twilio takes a person once",
            ),
            StartTransferError::NobodyFree { passed } => conflict(
                "nobody_free",
                "nobody of those named can be given the line now",
                json!({ "candidates": passed }),
            ),
            StartTransferError::AlreadyOpen {
                transfer_id,
                to,
                state,
                by,
                since,
            } => conflict(
                "transfer_already_open",
                "another transfer of this line is open",
                json!({ "transfer_id": transfer_id, "to": to, "state": state, "by": by, "since": since }),
            ),
            StartTransferError::TooManyHops { limit, next_at } => conflict(
                "too_many_hops",
                "the line has changed hands too often in the last hour: wait until `next_at`, or have a supervisor force it",
                json!({ "limit": limit, "next_at": next_at }),
            ),
            StartTransferError::NotTheHolder { holder } => conflict(
                "not_the_holder",
                "only the line's holder can give it up, or a supervisor who says so in `as`",
                json!({ "holder": holder }),
            ),
            StartTransferError::NoPreviousHolder => Self::conflict(
                "no_previous_holder",
                "nobody held the line before the present holder: use `release`",
            ),
            StartTransferError::PreviousHolderGone { holder } => conflict(
                "previous_holder_gone",
                "who held the line before is no longer here: give it to somebody else, or release it",
                json!({ "holder": holder }),
            ),
            StartTransferError::Database(error) => error.into(),
        }
    }
}

impl From<DecideError> for Problem {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::NotFound => Self::NotFound { what: "transfer" },
            DecideError::NotTheTarget { to } => conflict(
                "not_the_target",
                "the transfer is offered to somebody else",
                json!({ "to": to }),
            ),
            DecideError::NotOpen { state, by, at } => conflict(
                "transfer_not_open",
                "the transfer no longer waits for an answer",
                json!({ "state": state, "by": by, "at": at }),
            ),
            DecideError::Database(error) => error.into(),
        }
    }
}
