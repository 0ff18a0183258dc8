//! Beginning a line of a plan, out or back: what stands against it is seen now, and the transfer starts in the same
//! transaction.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sqlx::{PgConnection, PgTransaction};

use crate::handover::assign::{judge, not_theirs};
use crate::handover::plan::Taker;
use crate::handover::tell::line_ended;
use crate::handover::{Action, BackState, Direction, Handover, Handovers, Line, LineState, store};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::projection::read::Failure;
use crate::transfer::{Actor, GiveUp, IfOpen, Kind, NewTransfer, StartTransferError, Transfer};
use crate::{events, ledger, mirror, transfer};

/// What came of trying to begin a line.
pub(super) enum Begun {
    /// Its transfer is under way.
    Started,
    /// It ended without one, or waits for something of its own; the rate is not used.
    Passed,
    /// Whom it was to go to cannot take it any more.
    DecideAnew,
    /// The plan or the line is not as it was.
    Moved,
}

/// What is known of those who get lines, for as long as it may be relied on: at a high rate they are not looked up for
/// each line. What this run gives them is counted at once.
#[derive(Default)]
pub(super) struct Known {
    since: Option<Timestamp>,
    takers: BTreeMap<String, Taker>,
}

/// Longer than this nothing is relied on.
const KNOWN_FOR: SignedDuration = SignedDuration::from_secs(1);

impl Known {
    fn forget_what_is_old(&mut self, now: Timestamp) {
        if self
            .since
            .is_none_or(|since| now.duration_since(since) > KNOWN_FOR)
        {
            self.takers.clear();
            self.since = Some(now);
        }
    }

    fn count(&mut self, to: &Identity) {
        if let Some(taker) = self.takers.get_mut(to.as_str()) {
            taker.load = taker.load.saturating_add(1);
        }
    }
}

/// Who is on a line now; none: nobody.
struct OnLine {
    holder: Option<String>,
}

/// A conversation, a plan and a line of it, locked in this order.
struct Ground {
    plan: Handover,
    line: Line,
    is_over: bool,
    /// None: there is no such line.
    on_line: Option<OnLine>,
    due_at: Timestamp,
    now: Timestamp,
}

impl Handovers {
    /// Begins a line, if it is still to begin.
    pub(super) async fn begin(
        &self,
        plan: &Handover,
        sid: &ConversationSid,
        line: &PhoneNumber,
        known: &mut Known,
    ) -> Result<Begun, Failure> {
        let mut transaction = self.pool.begin().await?;
        let Some(ground) = self.survey(&mut transaction, plan, sid, line).await? else {
            return Ok(Begun::Moved);
        };
        match ground.plan.direction {
            Direction::Out => self.begin_out(transaction, ground, known).await,
            Direction::Back => self.begin_back(transaction, ground).await,
        }
    }

    /// Locks what a line stands on; none where it is not to begin any more.
    async fn survey(
        &self,
        conn: &mut PgConnection,
        seen: &Handover,
        sid: &ConversationSid,
        line: &PhoneNumber,
    ) -> Result<Option<Ground>, sqlx::Error> {
        let conversation = mirror::read::lock_conversation(conn, sid).await?;
        let Some(plan) = store::lock(conn, seen.handover_id).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let due_at = plan.pace().due(now);
        let (true, Some(due_at)) = (plan.is_on_the_way(seen.direction), due_at) else {
            return Ok(None);
        };
        let Some(line) = store::lock_line(conn, plan.handover_id, sid, line).await? else {
            return Ok(None);
        };
        let is_open = match plan.direction {
            Direction::Out => line.state == LineState::Waiting && !line.is_in_doubt(),
            Direction::Back => line.state == LineState::HandedOver && line.back_state.is_none(),
        };
        if !is_open {
            return Ok(None);
        }
        let holder = ledger::holder_of(conn, sid.as_str(), line.line.as_str()).await?;
        Ok(Some(Ground {
            plan,
            line,
            is_over: conversation.is_none_or(|conversation| conversation.is_over()),
            on_line: holder.map(|holder| OnLine { holder }),
            due_at,
            now,
        }))
    }

    async fn begin_out(
        &self,
        mut transaction: PgTransaction<'static>,
        mut ground: Ground,
        known: &mut Known,
    ) -> Result<Begun, Failure> {
        let Ground { plan, line, now, .. } = &ground;
        let holder = ground.on_line.as_ref().map(|on_line| &on_line.holder);
        if let Some(why) = not_theirs(&plan.leaver, ground.is_over, holder) {
            return skip(transaction, ground, why).await;
        }
        let started = match (line.action, &line.to) {
            (Some(Action::Give), Some(to)) => {
                if !line.by_hand && is_unfit(&mut transaction, plan, to, known, *now).await? {
                    return Ok(Begun::DecideAnew);
                }
                let new = new_transfer(plan, line, Kind::Cold, to.clone());
                self.transfers.start_in(&mut transaction, new).await
            }
            (Some(Action::Release), _) => {
                let give_up = release(plan, line);
                self.transfers.release_in(&mut transaction, give_up).await
            }
            // It was found without being decided about.
            _ => return Ok(Begun::DecideAnew),
        };
        match started {
            Ok(transfer) => {
                if let Some(to) = &ground.line.to {
                    known.count(to);
                }
                ground.line.state = LineState::Transferring;
                ground.line.transfer_id = Some(transfer.transfer_id);
                ground.line.due_at = Some(ground.due_at);
                ground.line.not_before = None;
                take_place(transaction, ground).await
            }
            Err(StartTransferError::Database(error)) => Err(error.into()),
            Err(StartTransferError::TooManyHops { next_at, .. }) => {
                put_off(transaction, ground, next_at).await
            }
            // Where it is released, the rules would say the same again.
            Err(
                StartTransferError::TargetInGroup
                | StartTransferError::NobodyFree { .. }
                | StartTransferError::AlreadyHolder,
            ) if ground.line.action == Some(Action::Give) && !ground.line.by_hand => Ok(Begun::DecideAnew),
            Err(error) => skip(transaction, ground, code(&error)).await,
        }
    }

    async fn begin_back(
        &self,
        mut transaction: PgTransaction<'static>,
        mut ground: Ground,
    ) -> Result<Begun, Failure> {
        let given = given_to(&mut transaction, &ground.line).await?;
        let why = match &ground.on_line {
            _ if ground.is_over => Some("conversation_closed"),
            None => Some("line_gone"),
            Some(OnLine { holder }) if holder.as_deref() == Some(ground.plan.leaver.as_str()) => {
                Some("already_back")
            }
            Some(OnLine { holder }) if *holder != given => Some("changed_hands"),
            Some(_) => None,
        };
        if let Some(why) = why {
            return keep(transaction, ground, why).await;
        }
        let kind = if given.is_some() { Kind::Cold } else { Kind::Assign };
        let new = new_transfer(&ground.plan, &ground.line, kind, ground.plan.leaver.clone());
        match self.transfers.start_in(&mut transaction, new).await {
            Ok(transfer) => {
                ground.line.back_state = Some(BackState::Transferring);
                ground.line.back_transfer_id = Some(transfer.transfer_id);
                ground.line.back_due_at = Some(ground.due_at);
                ground.line.not_before = None;
                take_place(transaction, ground).await
            }
            Err(StartTransferError::Database(error)) => Err(error.into()),
            Err(StartTransferError::TooManyHops { next_at, .. }) => {
                put_off(transaction, ground, next_at).await
            }
            Err(error) => keep(transaction, ground, code(&error)).await,
        }
    }
}

/// Whether somebody who was decided for cannot take a line now.
async fn is_unfit(
    conn: &mut PgConnection,
    plan: &Handover,
    to: &Identity,
    known: &mut Known,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    known.forget_what_is_old(now);
    if !known.takers.contains_key(to.as_str()) {
        known.takers.extend(judge(conn, plan, &[to.as_str()], now).await?);
    }
    let taker = known.takers.get(to.as_str());
    Ok(taker.is_some_and(|taker| taker.unavailable().is_some()))
}

/// Who the plan gave a line to; none where it is left to nobody.
async fn given_to(conn: &mut PgConnection, line: &Line) -> Result<Option<String>, sqlx::Error> {
    let transfer: Option<Transfer> = match line.transfer_id {
        Some(id) => transfer::find(conn, id).await?,
        None => None,
    };
    Ok(transfer.and_then(|transfer| transfer.to().map(str::to_owned)))
}

fn new_transfer(plan: &Handover, line: &Line, kind: Kind, to: Identity) -> NewTransfer {
    NewTransfer {
        conversation_sid: line.conversation_sid.clone(),
        line: Some(line.line.clone()),
        kind,
        to,
        then: Vec::new(),
        requested_by: plan.in_the_name_of().to_owned(),
        reason: plan.reason.clone(),
        note: plan.note.clone(),
        introduction: match plan.direction {
            Direction::Out => plan.introduction.clone(),
            Direction::Back => None,
        },
        offer_timeout: None,
        if_open: IfOpen::Refuse,
    }
}

fn release(plan: &Handover, line: &Line) -> GiveUp {
    GiveUp {
        conversation_sid: line.conversation_sid.clone(),
        line: Some(line.line.clone()),
        by: Actor::in_place_of(plan.in_the_name_of(), plan.leaver.as_str()),
        reason: plan.reason.clone(),
        note: plan.note.clone(),
        introduction: None,
        if_open: IfOpen::Refuse,
    }
}

/// The line has begun: the next one is due after its place in the rate.
async fn take_place(mut transaction: PgTransaction<'static>, ground: Ground) -> Result<Begun, Failure> {
    let Ground {
        mut plan,
        line,
        due_at,
        now,
        ..
    } = ground;
    plan.next_due_at = plan.pace().after(due_at).next_due_at;
    plan.updated_at = now;
    store::update_line(&mut transaction, &line).await?;
    store::update(&mut transaction, &plan).await?;
    transaction.commit().await?;
    Ok(Begun::Started)
}

async fn put_off(
    mut transaction: PgTransaction<'static>,
    mut ground: Ground,
    next_at: Timestamp,
) -> Result<Begun, Failure> {
    ground.line.not_before = Some(next_at);
    store::update_line(&mut transaction, &ground.line).await?;
    transaction.commit().await?;
    Ok(Begun::Passed)
}

async fn skip(transaction: PgTransaction<'static>, mut ground: Ground, why: &str) -> Result<Begun, Failure> {
    ground.line.state = LineState::Skipped;
    ground.line.outcome = Some(why.to_owned());
    end_here(transaction, ground).await
}

async fn keep(transaction: PgTransaction<'static>, mut ground: Ground, why: &str) -> Result<Begun, Failure> {
    ground.line.back_state = Some(BackState::Kept);
    ground.line.back_outcome = Some(why.to_owned());
    end_here(transaction, ground).await
}

async fn end_here(mut transaction: PgTransaction<'static>, ground: Ground) -> Result<Begun, Failure> {
    let Ground {
        plan, mut line, now, ..
    } = ground;
    line.finished_at = Some(now);
    store::update_line(&mut transaction, &line).await?;
    events::append(&mut transaction, &[line_ended(&plan, &line, now)]).await?;
    transaction.commit().await?;
    Ok(Begun::Passed)
}

/// Why a transfer did not start, for programs.
fn code(error: &StartTransferError) -> &'static str {
    match error {
        StartTransferError::ConversationNotFound | StartTransferError::ConversationClosed => {
            "conversation_closed"
        }
        StartTransferError::LineNotFound | StartTransferError::LineAmbiguous { .. } => "line_gone",
        StartTransferError::Unstaffed | StartTransferError::Staffed { .. } => "changed_hands",
        StartTransferError::NotTheHolder { .. } => "not_the_leavers",
        StartTransferError::AlreadyHolder => "already_holder",
        StartTransferError::TargetInGroup => "target_in_group",
        StartTransferError::NobodyFree { .. } => "left",
        StartTransferError::AlreadyOpen { .. } => "in_transfer",
        StartTransferError::TooManyHops { .. } => "too_many_hops",
        StartTransferError::NoPreviousHolder | StartTransferError::PreviousHolderGone { .. } => {
            "no_previous_holder"
        }
        StartTransferError::Database(_) => "database",
    }
}
