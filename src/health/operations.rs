//! Starting a repair.

use jiff::Timestamp;
use serde_json::json;
use sqlx::PgConnection;

use crate::events::{self, Kind, Via};
use crate::health::{Code, Finding, Health, REPAIR_TASK, RepairState, findings, store};
use crate::ids::{ConversationSid, PhoneNumber};
use crate::mirror::read;
use crate::queue::{self, NewTask};

/// A repair that somebody asks for.
#[derive(Debug, Clone)]
pub struct NewRepair {
    pub conversation_sid: ConversationSid,
    pub code: Code,
    /// Needed only where several lines have the finding.
    pub line: Option<PhoneNumber>,
    pub requested_by: String,
}

/// Why a repair cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartRepairError {
    #[error("no such conversation")]
    ConversationNotFound,
    #[error("the conversation has no such finding that is open")]
    NotOpen,
    #[error("several lines have the finding")]
    LineAmbiguous { lines: usize },
    #[error("no repair of it is safe")]
    NoSafeRepair { advice: &'static str },
    #[error("cannot record the repair")]
    Database(#[from] sqlx::Error),
}

impl Health {
    /// Starts the repair that is offered, within the caller's transaction. One that waits already is answered as it is.
    pub async fn start_repair_in(
        &self,
        conn: &mut PgConnection,
        new: NewRepair,
    ) -> Result<Finding, StartRepairError> {
        let now = self.clock.now();
        let sid = &new.conversation_sid;
        // Nobody judges it meanwhile.
        if read::lock_conversation(conn, sid).await?.is_none() {
            return Err(StartRepairError::ConversationNotFound);
        }
        let mut open = store::open(conn, sid.as_str()).await?;
        open.retain(|finding| {
            let line = new.line.as_ref().map(PhoneNumber::as_str);
            finding.code == new.code && (line.is_none() || finding.line.as_deref() == line)
        });
        let finding = match (open.pop(), open.len()) {
            (None, _) => return Err(StartRepairError::NotOpen),
            (Some(finding), 0) => finding,
            (Some(_), others) => return Err(StartRepairError::LineAmbiguous { lines: others + 1 }),
        };
        if finding.repair_state == Some(RepairState::Queued) {
            return Ok(finding);
        }
        if finding.repair.is_none() {
            let advice = finding.code.advice();
            return Err(StartRepairError::NoSafeRepair { advice });
        }
        self.queue_repair(conn, &finding, &new.requested_by, Via::Api, now)
            .await?;
        let queued = store::find(conn, sid, finding.line_finding_id).await?;
        queued.ok_or(StartRepairError::NotOpen)
    }

    /// Queues the repair of a finding, and writes so in the log.
    pub(super) async fn queue_repair(
        &self,
        conn: &mut PgConnection,
        finding: &Finding,
        requested_by: &str,
        via: Via,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        store::queue_repair(conn, finding, requested_by, now).await?;
        let task = NewTask {
            kind: REPAIR_TASK,
            // Never in the middle of a swap or a send.
            order_key: format!("conversation:{}", finding.conversation_sid),
            unique_key: Some(finding.line_finding_id.to_string()),
            payload: json!({
                "conversation_sid": finding.conversation_sid,
                "line_finding_id": finding.line_finding_id,
            }),
            run_at: now,
            attempts_max: 12,
        };
        queue::put(conn, &task, now).await?;
        let entry = findings::entry(finding, Kind::LineRepairQueued, via, Some(requested_by), now);
        events::append(conn, &[entry]).await
    }
}
