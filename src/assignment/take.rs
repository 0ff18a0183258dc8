//! Somebody takes a line that waits.

use jiff::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Row, store, tell};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::transfer::{IfOpen, Kind, NewTransfer, StartTransferError, Transfer, Transfers};
use crate::{ledger, mirror};

/// Somebody who takes a line.
#[derive(Debug, Clone)]
pub struct Take {
    pub conversation_sid: ConversationSid,
    /// None: the only one of the conversation that waits.
    pub line: Option<PhoneNumber>,
    pub by: Identity,
}

/// Why a line cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("somebody else has it, or is about to")]
    AlreadyTaken {
        by: Option<String>,
        at: Timestamp,
        transfer_id: Option<Uuid>,
    },
    #[error("it does not wait in a queue")]
    NotQueued,
    #[error(transparent)]
    Start(StartTransferError),
    #[error("cannot take the line")]
    Database(#[from] sqlx::Error),
}

impl From<StartTransferError> for TakeError {
    fn from(error: StartTransferError) -> Self {
        match error {
            StartTransferError::Database(error) => Self::Database(error),
            StartTransferError::AlreadyOpen {
                transfer_id,
                to,
                since,
                ..
            } => Self::AlreadyTaken {
                by: to,
                at: since,
                transfer_id: Some(transfer_id),
            },
            other => Self::Start(other),
        }
    }
}

/// Gives a line that waits to whoever takes it, within the caller's transaction. Of two at once, one gets it: the
/// conversation's lock keeps them apart.
pub async fn take_in(
    transfers: &Transfers,
    conn: &mut PgConnection,
    take: Take,
) -> Result<Transfer, TakeError> {
    let now = transfers.clock.now();
    let sid = &take.conversation_sid;
    if mirror::read::lock_conversation(conn, sid).await?.is_none() {
        return Err(StartTransferError::ConversationNotFound.into());
    }
    let mut rows = store::rows_of(conn, sid).await?;
    if let Some(line) = &take.line {
        rows.retain(|row| row.line == *line);
    }
    let mut waiting: Vec<Row> = rows.iter().filter(|row| row.is_waiting).cloned().collect();
    if waiting.len() > 1 {
        let lines = waiting.into_iter().map(|row| row.line.into_string()).collect();
        return Err(StartTransferError::LineAmbiguous { lines }.into());
    }
    let Some(row) = waiting.pop() else {
        return Err(why_not(conn, &take, rows).await?);
    };
    let new = NewTransfer {
        conversation_sid: sid.clone(),
        line: Some(row.line.clone()),
        kind: Kind::Assign,
        to: take.by.clone(),
        then: Vec::new(),
        requested_by: take.by.as_str().to_owned(),
        reason: None,
        note: None,
        introduction: None,
        offer_timeout: None,
        if_open: IfOpen::Refuse,
    };
    let transfer = match transfers.start_in(conn, new).await {
        Err(StartTransferError::Staffed { .. }) => {
            rows.retain(|other| other.line == row.line);
            let line = Some(row.line);
            return Err(why_not(conn, &Take { line, ..take }, rows).await?);
        }
        other => other?,
    };
    store::taken(conn, sid, &row.line, (transfer.transfer_id, &take.by), now).await?;
    tell::taken(conn, sid, &row, (transfer.transfer_id, &take.by), now).await?;
    Ok(transfer)
}

/// Who has it, and since when.
async fn why_not(conn: &mut PgConnection, take: &Take, rows: Vec<Row>) -> Result<TakeError, sqlx::Error> {
    if let Some(row) = rows.into_iter().find(|row| row.to_holder.is_some()) {
        return Ok(TakeError::AlreadyTaken {
            by: row.to_holder,
            at: row.updated_at.to_jiff(),
            transfer_id: row.transfer_id,
        });
    }
    let tenures = ledger::tenures_of_conversation(conn, take.conversation_sid.as_str()).await?;
    let held = tenures.into_iter().rev().find(|tenure| {
        let is_asked = take.line.as_ref().is_none_or(|line| tenure.line == line.as_str());
        is_asked && tenure.to.is_none() && tenure.holder.is_some()
    });
    Ok(match held {
        Some(tenure) => TakeError::AlreadyTaken {
            by: tenure.holder,
            at: tenure.from,
            transfer_id: tenure.transfer_id,
        },
        None => TakeError::NotQueued,
    })
}
