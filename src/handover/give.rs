//! Starting the transfers of a plan, one after the other at its pace, and following them to their ends.
//!
//! A line begins in one transaction: its transfer, its own state and the time of the next one. So no line begins twice,
//! whoever else works on the plan, and a run that was killed goes on where it was.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{PgConnection, PgTransaction};

use crate::events::{self, Kind as EventKind, Via};
use crate::handover::assign::{assign, judge, not_theirs};
use crate::handover::plan::Taker;
use crate::handover::store::{Ended, UnderWay};
use crate::handover::tell::{line_ended, tell};
use crate::handover::work::Next;
use crate::handover::{
    Action, BackState, Direction, Handover, Handovers, Line, LineState, Phase, State, store,
};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::projection::read::Failure;
use crate::transfer::{Actor, GiveUp, IfOpen, Kind, NewTransfer, StartTransferError, Transfer};
use crate::{ledger, mirror, transfer};

/// Between two looks how far transfers have come.
const FOLLOW: SignedDuration = SignedDuration::from_millis(500);
/// The same, where none is under way. Whoever does something about the plan has it looked at at once.
const LOOK: SignedDuration = SignedDuration::from_mins(1);
/// A transfer that Twilio keeps waiting for so long is said to be why a plan does not get on.
const STUCK_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// After so long in one run the task is given back, so that others see that it lives.
const RUN_MAX: SignedDuration = SignedDuration::from_secs(20);
/// Before people are judged anew, where somebody changed between deciding and giving.
const DECIDE_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// What came of trying to begin a line.
enum Begun {
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
struct Known {
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
    /// Begins what is due, and says when to look again.
    pub(super) async fn give(&self, plan: &Handover) -> Result<Next, Failure> {
        let mut under_way = self.follow(plan).await?;
        let began = self.clock.now();
        let mut known = Known::default();
        let mut decided_anew = false;
        loop {
            let now = self.clock.now();
            let mut conn = self.pool.acquire().await?;
            let Some(plan) = store::find(&mut conn, plan.handover_id).await? else {
                return Ok(Next::Done);
            };
            if !plan.is_on_the_way(plan.direction) || plan.phase != Phase::Giving {
                return Ok(Next::Again);
            }
            let next = match plan.direction {
                Direction::Out => store::next_waiting(&mut conn, plan.handover_id, now).await?,
                Direction::Back => store::next_to_go_back(&mut conn, plan.handover_id, now).await?,
            };
            drop(conn);
            let Some((sid, line)) = next else {
                return self.nothing_to_begin(&plan).await;
            };
            if plan.pace().due(now).is_none() {
                let due = plan.next_due_at.unwrap_or(now);
                let at_most = if under_way > 0 { FOLLOW } else { LOOK };
                let pause = due.duration_since(now).min(at_most);
                return Ok(Next::Wait(pause.max(SignedDuration::from_millis(1))));
            }
            if under_way >= plan.pace().under_way_max() {
                return Ok(Next::Wait(FOLLOW));
            }
            if now.duration_since(began) > RUN_MAX {
                return Ok(Next::Wait(SignedDuration::ZERO));
            }
            match self.begin(&plan, &sid, &line, &mut known).await? {
                Begun::Started => under_way += 1,
                Begun::Passed | Begun::Moved => {}
                Begun::DecideAnew if decided_anew => return Ok(Next::Wait(DECIDE_AGAIN)),
                Begun::DecideAnew => {
                    decided_anew = true;
                    known = Known::default();
                    self.decide_anew(&plan).await?;
                }
            }
        }
    }

    /// All lines have begun, or something stands against those that have not.
    async fn nothing_to_begin(&self, seen: &Handover) -> Result<Next, Failure> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let Some(mut plan) = store::lock(&mut transaction, seen.handover_id).await? else {
            return Ok(Next::Done);
        };
        if (plan.state, plan.direction, plan.phase) != (seen.state, seen.direction, seen.phase) {
            return Ok(Next::Again);
        }
        let counts = store::counts(&mut transaction, plan.handover_id).await?;
        if counts.under_way() > 0 {
            return Ok(Next::Wait(FOLLOW));
        }
        let left = match plan.direction {
            Direction::Out => counts.waiting,
            Direction::Back => counts.to_go_back,
        };
        if left > 0 {
            let at = store::next_not_before(&mut transaction, plan.handover_id).await?;
            let pause = at.map_or(FOLLOW, |at| at.duration_since(now));
            return Ok(Next::Wait(pause.clamp(SignedDuration::from_millis(1), LOOK)));
        }
        plan.updated_at = now;
        match plan.direction {
            // The leaver may have got lines meanwhile.
            Direction::Out => plan.phase = Phase::Listing,
            Direction::Back => {
                plan.state = State::Returned;
                plan.finished_at = Some(now);
                let by = plan
                    .started_by
                    .clone()
                    .unwrap_or_else(|| plan.requested_by.clone());
                let facts = json!({ "counts": counts });
                let kind = EventKind::HandoverReturned;
                tell(&mut transaction, &plan, kind, &by, Via::Worker, facts, now).await?;
            }
        }
        store::update(&mut transaction, &plan).await?;
        transaction.commit().await?;
        Ok(Next::Again)
    }

    async fn decide_anew(&self, seen: &Handover) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if let Some(plan) = store::lock(&mut transaction, seen.handover_id).await?
            && plan.is_on_the_way(Direction::Out)
        {
            assign(&mut transaction, &plan, &self.accounts, self.clock.now()).await?;
        }
        transaction.commit().await
    }

    async fn begin(
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

    /// Writes down what became of lines whose transfers have ended, and why the others do not get on. Answers how many are
    /// under way.
    pub(super) async fn follow(&self, seen: &Handover) -> Result<i64, sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        let ended = store::ended(&mut conn, seen.handover_id).await?;
        drop(conn);
        if !ended.is_empty() {
            self.end(seen, ended).await?;
        }
        let stuck_since = self.clock.now() - STUCK_AFTER;
        let mut conn = self.pool.acquire().await?;
        let under_way = store::under_way(&mut conn, seen.handover_id, stuck_since).await?;
        drop(conn);
        if seen.waiting_error != under_way.waiting_error {
            self.note_why(seen, &under_way).await?;
        }
        Ok(under_way.lines)
    }

    /// Writes down why the transfers of a plan wait, or that they do not any more.
    async fn note_why(&self, seen: &Handover, under_way: &UnderWay) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let Some(mut plan) = store::lock(&mut transaction, seen.handover_id).await? else {
            return Ok(());
        };
        if (plan.state, plan.phase) != (seen.state, seen.phase) {
            return Ok(());
        }
        plan.waiting_error.clone_from(&under_way.waiting_error);
        plan.waiting_since = under_way.waiting_since;
        store::update(&mut transaction, &plan).await?;
        transaction.commit().await
    }

    async fn end(&self, seen: &Handover, ended: Vec<Ended>) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let Some(plan) = store::lock(&mut transaction, seen.handover_id).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        let mut told = Vec::new();
        for one in ended {
            let id = plan.handover_id;
            let line = store::lock_line(&mut transaction, id, &one.conversation_sid, &one.line).await?;
            let Some(mut line) = line.filter(|line| is_under_way(line, one.is_back)) else {
                continue;
            };
            let state = one.transfer_state.as_str();
            let outcome =
                (state != "completed").then(|| one.outcome_code.unwrap_or_else(|| state.to_owned()));
            if one.is_back {
                line.back_state = Some(match state {
                    "completed" => BackState::Returned,
                    "superseded" | "cancelled" => BackState::Kept,
                    _ => BackState::Failed,
                });
                line.back_outcome = outcome;
            } else {
                line.state = match state {
                    "completed" => LineState::HandedOver,
                    // Somebody else decided about the line.
                    "superseded" | "cancelled" => LineState::Skipped,
                    _ => LineState::Failed,
                };
                line.outcome = outcome;
            }
            line.finished_at = Some(now);
            store::update_line(&mut transaction, &line).await?;
            told.push(line_ended(&plan, &line, now));
        }
        events::append(&mut transaction, &told).await?;
        transaction.commit().await
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

fn is_under_way(line: &Line, is_back: bool) -> bool {
    if is_back {
        line.back_state == Some(BackState::Transferring)
    } else {
        line.state == LineState::Transferring
    }
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
        requested_by: by(plan),
        reason: plan.reason.clone(),
        note: plan.note.clone(),
        introduction: None,
        offer_timeout: None,
        if_open: IfOpen::Refuse,
    }
}

fn release(plan: &Handover, line: &Line) -> GiveUp {
    GiveUp {
        conversation_sid: line.conversation_sid.clone(),
        line: Some(line.line.clone()),
        by: Actor::in_place_of(&by(plan), plan.leaver.as_str()),
        reason: plan.reason.clone(),
        note: plan.note.clone(),
        introduction: None,
        if_open: IfOpen::Refuse,
    }
}

fn by(plan: &Handover) -> String {
    plan.started_by
        .clone()
        .unwrap_or_else(|| plan.requested_by.clone())
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
