//! What is answered to an offer: accept, decline, cancel, or nothing in time. And reading the thread before answering.

use jiff::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::events::{Kind as EventKind, Via};
use crate::transfer::operations::{Passed, offer, put_swap, signed, tell_passed, why_not};
use crate::transfer::people::{Actor, may_act_for};
use crate::transfer::tell::tell;
use crate::transfer::{Candidate, State, Transfer, Transfers, candidate, store};
use crate::{ledger, mirror};

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
    /// The target takes the line; the swap begins.
    pub async fn accept(&self, transfer_id: Uuid, by: impl Into<Actor>) -> Result<Transfer, DecideError> {
        let actor = by.into();
        let mut transaction = self.pool.begin().await?;
        let transfer = self.accept_in(&mut transaction, transfer_id, actor).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// As [`Transfers::accept`], within the caller's transaction.
    pub async fn accept_in(
        &self,
        conn: &mut PgConnection,
        transfer_id: Uuid,
        by: impl Into<Actor>,
    ) -> Result<Transfer, DecideError> {
        let actor = by.into();
        let now = self.clock.now();
        let mut transfer = lock_offered(conn, transfer_id, now).await?;
        transfer.decided_as = only_the_target(&transfer, &actor)?;
        transfer.state = State::Swapping;
        transfer.decided_by = Some(actor.by.clone());
        transfer.swap_deadline_at = Some(now + signed(self.settings.swap_timeout));
        transfer.updated_at = now;
        store::update(conn, &transfer).await?;
        candidate::settle_all(conn, &transfer, "accepted", Some(&actor.by), now).await?;
        put_swap(conn, &transfer, now).await?;
        let kind = EventKind::TransferAccepted;
        tell(conn, &transfer, kind, &actor.by, Via::Api, now).await?;
        Ok(transfer)
    }

    /// The target does not want it: it is offered to the next one on the list, or ends. The line stays as it is.
    pub async fn decline(&self, transfer_id: Uuid, by: impl Into<Actor>) -> Result<Transfer, DecideError> {
        let actor = by.into();
        let mut transaction = self.pool.begin().await?;
        let transfer = self.decline_in(&mut transaction, transfer_id, actor).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// As [`Transfers::decline`], within the caller's transaction.
    pub async fn decline_in(
        &self,
        conn: &mut PgConnection,
        transfer_id: Uuid,
        by: impl Into<Actor>,
    ) -> Result<Transfer, DecideError> {
        let actor = by.into();
        let now = self.clock.now();
        let mut transfer = lock_offered(conn, transfer_id, now).await?;
        transfer.decided_as = only_the_target(&transfer, &actor)?;
        Ok(go_on(conn, transfer, State::Declined, Some(&actor.by), now).await?)
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
        let mut transfer = lock_offered(conn, transfer_id, now).await?;
        candidate::settle_all(conn, &transfer, "withdrawn", Some(by), now).await?;
        transfer.decided_by = Some(by.to_owned());
        end(conn, &mut transfer, State::Cancelled, now).await?;
        let kind = EventKind::TransferCancelled;
        tell(conn, &transfer, kind, by, Via::Api, now).await?;
        Ok(transfer)
    }

    /// The target reads the thread before answering; that they did is on record. Nobody else may by this, and only while
    /// the offer stands.
    pub async fn read_thread(&self, transfer_id: Uuid, by: &str) -> Result<Transfer, DecideError> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let transfer = lock_offered(&mut transaction, transfer_id, now).await?;
        only_the_target(&transfer, &Actor::from(by))?;
        candidate::brief(&mut transaction, &transfer, now).await?;
        let kind = EventKind::TransferThreadRead;
        tell(&mut transaction, &transfer, kind, by, Via::Api, now).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// The time of an offer is up: the next one on the list is asked, or it ends. One that was answered meanwhile is left
    /// alone.
    pub(super) async fn expire(&self, transfer_id: Uuid) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let Some(transfer) = store::lock(&mut transaction, transfer_id).await? else {
            return Ok(());
        };
        if transfer.is_past_its_time(now) {
            go_on(&mut transaction, transfer, State::Expired, None, now).await?;
            transaction.commit().await?;
        }
        Ok(())
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
    if transfer.is_past_its_time(now) {
        return Err(DecideError::NotOpen {
            state: State::Expired,
            by: None,
            at: transfer.offer_expires_at.unwrap_or(now),
        });
    }
    if transfer.state != State::Offered {
        return Err(not_open(conn, transfer).await?);
    }
    Ok(transfer)
}

/// Who decided, and when: of one that was superseded, whoever asked for the other one.
async fn not_open(conn: &mut PgConnection, transfer: Transfer) -> Result<DecideError, sqlx::Error> {
    let by = match transfer.superseded_by {
        Some(other) => store::find(conn, other).await?.map(|other| other.requested_by),
        None => transfer.decided_by,
    };
    Ok(DecideError::NotOpen {
        state: transfer.state,
        by,
        at: transfer.updated_at,
    })
}

/// Answers with the person whom a supervisor overrode.
fn only_the_target(transfer: &Transfer, actor: &Actor) -> Result<Option<String>, DecideError> {
    let to = transfer.to().unwrap_or_default();
    may_act_for(actor, to).map_err(|_| DecideError::NotTheTarget { to: to.to_owned() })
}

/// Whose turn it was did not take it: the next one is asked, or there is nobody left.
async fn go_on(
    conn: &mut PgConnection,
    mut transfer: Transfer,
    answer: State,
    by: Option<&str>,
    now: Timestamp,
) -> Result<Transfer, sqlx::Error> {
    candidate::settle(conn, &transfer, answer.as_str(), by, now).await?;
    let (kind, via) = match answer {
        State::Declined => (EventKind::TransferDeclined, Via::Api),
        _ => (EventKind::TransferExpired, Via::Timer),
    };
    let actor = by.unwrap_or("timer");
    let sid = transfer.conversation_sid.as_str();
    let list = candidate::candidates(conn, sid, transfer.transfer_id).await?;
    let is_list = list.len() > 1;
    let waiting: Vec<Candidate> = list.into_iter().filter(|one| one.state == "waiting").collect();
    let first_place = waiting.first().map_or(1, |one| one.place);
    let held = ledger::holder_of(conn, sid, transfer.line.as_str()).await?;
    let conversation = mirror::read::conversation(conn, sid).await?;
    let over = match &held {
        _ if conversation.is_none_or(|one| one.is_over()) => Some("conversation_closed"),
        None => Some("line_gone"),
        Some(_) => None,
    };
    let holder = held.flatten();
    let mut passed = Vec::new();
    for one in &waiting {
        let (sid, line) = (&transfer.conversation_sid, &transfer.line);
        let to = &one.identity;
        let why = match over {
            Some(over) => Some(over),
            None => why_not(conn, sid, line, holder.as_deref(), to, now).await?,
        };
        match why {
            Some(why) => passed.push(Passed { to: to.clone(), why }),
            None => break,
        }
    }
    if let Some(next) = waiting.get(passed.len()) {
        transfer.updated_at = now;
        tell(conn, &transfer, kind, actor, via, now).await?;
        tell_passed(conn, &transfer, first_place, &passed, via, now).await?;
        transfer.decided_as = None;
        transfer.to_holder = Some(next.identity.clone());
        transfer.offer_expires_at = Some(now + jiff::SignedDuration::from_secs(next.offer_seconds));
        store::update(conn, &transfer).await?;
        offer(conn, &transfer, next.place, via, now).await?;
        return Ok(transfer);
    }
    transfer.decided_by = by.map(str::to_owned);
    end(
        conn,
        &mut transfer,
        if is_list { State::Exhausted } else { answer },
        now,
    )
    .await?;
    tell(conn, &transfer, kind, actor, via, now).await?;
    tell_passed(conn, &transfer, first_place, &passed, via, now).await?;
    if is_list {
        let kind = EventKind::TransferExhausted;
        tell(conn, &transfer, kind, actor, via, now).await?;
    }
    Ok(transfer)
}

async fn end(
    conn: &mut PgConnection,
    transfer: &mut Transfer,
    state: State,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    transfer.state = state;
    transfer.updated_at = now;
    transfer.finished_at = Some(now);
    metrics::counter!("hookswitch_transfers_total", "state" => state.as_str()).increment(1);
    store::update(conn, transfer).await
}
