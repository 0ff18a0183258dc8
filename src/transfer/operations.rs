//! What people do with transfers: start, accept, decline, cancel. Each is one transaction.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::clock::Clock;
use crate::config;
use crate::events::{self, Kind as EventKind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber, new_id};
use crate::queue::{self, NewTask};
use crate::transfer::{EXPIRE_TASK, Kind, SWAP_TASK, State, Transfer, store};
use crate::{ledger, mirror};

/// The operations, with what they need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transfers {
    pub pool: PgPool,
    pub clock: Clock,
    pub settings: config::Transfer,
}

/// A transfer that somebody asks for.
#[derive(Debug, Clone)]
pub struct NewTransfer {
    pub conversation_sid: ConversationSid,
    /// None: the conversation's only line.
    pub line: Option<PhoneNumber>,
    pub kind: Kind,
    pub to: Identity,
    pub requested_by: String,
    pub reason: Option<String>,
    pub note: Option<String>,
    /// None: as the settings say. Only for a kind that is offered.
    pub offer_timeout: Option<SignedDuration>,
}

/// Why a transfer cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartTransferError {
    #[error("no such conversation")]
    ConversationNotFound,
    #[error("the conversation is closed")]
    ConversationClosed,
    #[error("the conversation has no such line")]
    LineNotFound,
    #[error("the conversation has several lines: say which")]
    LineAmbiguous { lines: Vec<String> },
    #[error("the line is unstaffed: use `assign`")]
    Unstaffed,
    #[error("the line is staffed: use `cold`, `warm` or `escalation`")]
    Staffed { holder: String },
    #[error("the target holds the line already")]
    AlreadyHolder,
    #[error("the target is in the conversation already, on another line")]
    TargetInGroup,
    #[error("another transfer of this line is open")]
    AlreadyOpen {
        transfer_id: Uuid,
        to: String,
        since: Timestamp,
    },
    #[error("cannot record the transfer")]
    Database(#[from] sqlx::Error),
}

/// Why an offer cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    #[error("no such transfer")]
    NotFound,
    #[error("the transfer is offered to somebody else")]
    NotTheTarget { to: String },
    #[error("the transfer is no longer open for this")]
    NotOpen {
        state: State,
        by: Option<String>,
        at: Timestamp,
    },
    #[error("cannot record the decision")]
    Database(#[from] sqlx::Error),
}

impl Transfers {
    /// Starts a transfer: an offer, or the swap at once.
    pub async fn start(&self, new: NewTransfer) -> Result<Transfer, StartTransferError> {
        let mut transaction = self.pool.begin().await?;
        let transfer = self.start_in(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// As [`Transfers::start`], within the caller's transaction.
    pub async fn start_in(
        &self,
        conn: &mut PgConnection,
        new: NewTransfer,
    ) -> Result<Transfer, StartTransferError> {
        let now = self.clock.now();
        let conversation = mirror::read::lock_conversation(conn, &new.conversation_sid)
            .await?
            .ok_or(StartTransferError::ConversationNotFound)?;
        if conversation.is_over() {
            return Err(StartTransferError::ConversationClosed);
        }
        let (line, holder) = pick_line(conn, &new).await?;
        check_holder(&new, holder.as_deref())?;
        if mirror::read::is_member(conn, &new.conversation_sid, new.to.as_str()).await? {
            return Err(StartTransferError::TargetInGroup);
        }
        if let Some(open) = store::open_on_line(conn, &new.conversation_sid, line.as_str()).await? {
            return Err(StartTransferError::AlreadyOpen {
                transfer_id: open.transfer_id,
                to: open.to_holder.into_string(),
                since: open.created_at,
            });
        }
        let transfer = self.describe(new, conversation.account_sid, line, holder, now);
        store::insert(conn, &transfer).await?;
        if transfer.state == State::Offered {
            put_expiry(conn, &transfer, now).await?;
            tell(
                conn,
                &transfer,
                EventKind::TransferOffered,
                &transfer.requested_by,
                Via::Api,
                now,
            )
            .await?;
        } else {
            put_swap(conn, &transfer, now).await?;
            tell(
                conn,
                &transfer,
                EventKind::TransferStarted,
                &transfer.requested_by,
                Via::Api,
                now,
            )
            .await?;
        }
        Ok(transfer)
    }

    fn describe(
        &self,
        new: NewTransfer,
        account_sid: AccountSid,
        line: PhoneNumber,
        holder: Option<String>,
        now: Timestamp,
    ) -> Transfer {
        let offered = new.kind.is_offered();
        let configured = match new.kind {
            Kind::Escalation => self.settings.escalation_timeout,
            Kind::Assign | Kind::Cold | Kind::Warm => self.settings.offer_timeout,
        };
        let timeout = new.offer_timeout.unwrap_or_else(|| signed(configured));
        Transfer {
            transfer_id: new_id(),
            account_sid: account_sid.into_string(),
            conversation_sid: new.conversation_sid,
            line,
            kind: new.kind,
            from_holder: holder,
            to_holder: new.to,
            state: if offered { State::Offered } else { State::Swapping },
            requested_by: new.requested_by,
            decided_by: None,
            reason: new.reason,
            note: new.note,
            outcome_code: None,
            outcome_detail: None,
            method: None,
            offer_expires_at: offered.then(|| now + timeout),
            swap_deadline_at: (!offered).then(|| now + signed(self.settings.swap_timeout)),
            contested_from: None,
            contested_to: None,
            created_at: now,
            updated_at: now,
            finished_at: None,
        }
    }

    /// The target takes the line; the swap begins.
    pub async fn accept(&self, transfer_id: Uuid, by: &str) -> Result<Transfer, DecideError> {
        let mut transaction = self.pool.begin().await?;
        let transfer = self.accept_in(&mut transaction, transfer_id, by).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// As [`Transfers::accept`], within the caller's transaction.
    pub async fn accept_in(
        &self,
        conn: &mut PgConnection,
        transfer_id: Uuid,
        by: &str,
    ) -> Result<Transfer, DecideError> {
        let now = self.clock.now();
        let mut transfer = lock_offered(conn, transfer_id, now).await?;
        only_the_target(&transfer, by)?;
        transfer.state = State::Swapping;
        transfer.decided_by = Some(by.to_owned());
        transfer.swap_deadline_at = Some(now + signed(self.settings.swap_timeout));
        transfer.updated_at = now;
        store::update(conn, &transfer).await?;
        put_swap(conn, &transfer, now).await?;
        tell(conn, &transfer, EventKind::TransferAccepted, by, Via::Api, now).await?;
        Ok(transfer)
    }

    /// The target does not want it; the line stays as it is.
    pub async fn decline(&self, transfer_id: Uuid, by: &str) -> Result<Transfer, DecideError> {
        let mut transaction = self.pool.begin().await?;
        let transfer = self.decline_in(&mut transaction, transfer_id, by).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// As [`Transfers::decline`], within the caller's transaction.
    pub async fn decline_in(
        &self,
        conn: &mut PgConnection,
        transfer_id: Uuid,
        by: &str,
    ) -> Result<Transfer, DecideError> {
        let now = self.clock.now();
        let transfer = lock_offered(conn, transfer_id, now).await?;
        only_the_target(&transfer, by)?;
        Ok(end_offer(conn, transfer, State::Declined, Some(by), now).await?)
    }

    /// Whoever asked for it takes the offer back.
    pub async fn cancel(&self, transfer_id: Uuid, by: &str) -> Result<Transfer, DecideError> {
        let mut transaction = self.pool.begin().await?;
        let transfer = self.cancel_in(&mut transaction, transfer_id, by).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// As [`Transfers::cancel`], within the caller's transaction.
    pub async fn cancel_in(
        &self,
        conn: &mut PgConnection,
        transfer_id: Uuid,
        by: &str,
    ) -> Result<Transfer, DecideError> {
        let now = self.clock.now();
        let transfer = lock_offered(conn, transfer_id, now).await?;
        Ok(end_offer(conn, transfer, State::Cancelled, Some(by), now).await?)
    }

    /// Ends the offer if its time is up. One that was answered meanwhile is left alone.
    pub(super) async fn expire(&self, transfer_id: Uuid) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let Some(transfer) = store::lock(&mut transaction, transfer_id).await? else {
            return Ok(());
        };
        let due = transfer.offer_expires_at.is_some_and(|at| at <= now);
        if transfer.state == State::Offered && due {
            end_offer(&mut transaction, transfer, State::Expired, None, now).await?;
            transaction.commit().await?;
        }
        Ok(())
    }
}

async fn pick_line(
    conn: &mut PgConnection,
    new: &NewTransfer,
) -> Result<(PhoneNumber, Option<String>), StartTransferError> {
    let mut lines = ledger::lines_of(conn, new.conversation_sid.as_str()).await?;
    if let Some(line) = &new.line {
        lines.retain(|(number, _)| number == line.as_str());
    }
    match lines.len() {
        0 => Err(StartTransferError::LineNotFound),
        1 => {
            let (number, holder) = lines.remove(0);
            let line =
                PhoneNumber::try_from(number.as_str()).map_err(|_| StartTransferError::LineNotFound)?;
            Ok((line, holder))
        }
        _ => Err(StartTransferError::LineAmbiguous {
            lines: lines.into_iter().map(|(number, _)| number).collect(),
        }),
    }
}

fn check_holder(new: &NewTransfer, holder: Option<&str>) -> Result<(), StartTransferError> {
    match (new.kind, holder) {
        (_, Some(holder)) if holder == new.to.as_str() => Err(StartTransferError::AlreadyHolder),
        (Kind::Assign, Some(holder)) => Err(StartTransferError::Staffed {
            holder: holder.to_owned(),
        }),
        (Kind::Cold | Kind::Warm | Kind::Escalation, None) => Err(StartTransferError::Unstaffed),
        (Kind::Assign, None) | (Kind::Cold | Kind::Warm | Kind::Escalation, Some(_)) => Ok(()),
    }
}

async fn lock_offered(
    conn: &mut PgConnection,
    transfer_id: Uuid,
    now: Timestamp,
) -> Result<Transfer, DecideError> {
    let transfer = store::lock(conn, transfer_id)
        .await?
        .ok_or(DecideError::NotFound)?;
    let expired = transfer.offer_expires_at.is_some_and(|at| at <= now);
    if transfer.state != State::Offered || expired {
        let state = if transfer.state == State::Offered {
            State::Expired
        } else {
            transfer.state
        };
        let at = if expired {
            transfer.offer_expires_at.unwrap_or(now)
        } else {
            transfer.updated_at
        };
        return Err(DecideError::NotOpen {
            state,
            by: transfer.decided_by,
            at,
        });
    }
    Ok(transfer)
}

fn only_the_target(transfer: &Transfer, by: &str) -> Result<(), DecideError> {
    if transfer.to_holder.as_str() == by {
        Ok(())
    } else {
        Err(DecideError::NotTheTarget {
            to: transfer.to_holder.as_str().to_owned(),
        })
    }
}

async fn end_offer(
    conn: &mut PgConnection,
    mut transfer: Transfer,
    state: State,
    by: Option<&str>,
    now: Timestamp,
) -> Result<Transfer, sqlx::Error> {
    transfer.state = state;
    transfer.decided_by = by.map(str::to_owned);
    transfer.updated_at = now;
    transfer.finished_at = Some(now);
    store::update(conn, &transfer).await?;
    let kind = match state {
        State::Declined => EventKind::TransferDeclined,
        State::Cancelled => EventKind::TransferCancelled,
        _ => EventKind::TransferExpired,
    };
    let via = if by.is_some() { Via::Api } else { Via::Timer };
    tell(conn, &transfer, kind, by.unwrap_or("timer"), via, now).await?;
    Ok(transfer)
}

async fn put_swap(conn: &mut PgConnection, transfer: &Transfer, now: Timestamp) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: SWAP_TASK,
        // In the order of the conversation's other work: a message must not be written in the middle of a swap.
        order_key: format!("conversation:{}", transfer.conversation_sid),
        unique_key: Some(transfer.transfer_id.to_string()),
        payload: json!({ "transfer_id": transfer.transfer_id }),
        run_at: now,
        // The deadline of the swap ends it, not the number of attempts.
        attempts_max: i32::MAX,
    };
    queue::put(conn, &task, now).await
}

async fn put_expiry(conn: &mut PgConnection, transfer: &Transfer, now: Timestamp) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: EXPIRE_TASK,
        order_key: format!("transfer:{}", transfer.transfer_id),
        unique_key: Some(transfer.transfer_id.to_string()),
        payload: json!({ "transfer_id": transfer.transfer_id }),
        run_at: transfer.offer_expires_at.unwrap_or(now),
        attempts_max: 100,
    };
    queue::put(conn, &task, now).await
}

/// Writes the log entry of a transfer's change.
pub(super) async fn tell(
    conn: &mut PgConnection,
    transfer: &Transfer,
    kind: EventKind,
    actor: &str,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let event = NewEvent {
        kind,
        account_sid: AccountSid::try_from(transfer.account_sid.as_str()).ok(),
        conversation_sid: Some(transfer.conversation_sid.clone()),
        subject: transfer.transfer_id.to_string(),
        actor: Some(actor.to_owned()),
        via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({
            "transfer_id": transfer.transfer_id,
            "kind": transfer.kind,
            "line": transfer.line,
            "from": transfer.from_holder,
            "to": transfer.to_holder,
            "state": transfer.state,
            "offer_expires_at": transfer.offer_expires_at,
            "method": transfer.method,
            "outcome_code": transfer.outcome_code,
        }),
    };
    events::append(conn, &[event]).await
}

fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
