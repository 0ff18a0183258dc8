//! Giving the lines of a plan, one after the other at its pace.
//!
//! A line begins in one transaction: its transfer, its own state and the time of the next one. So no line begins twice,
//! whoever else works on the plan, and a run that was killed goes on where it was.

use jiff::SignedDuration;

use crate::events::Kind;
use crate::handover::assign::assign;
use crate::handover::begin::{Begun, Known};
use crate::handover::tell::tell_counts;
use crate::handover::work::Next;
use crate::handover::{Direction, Handover, Handovers, Phase, State, US, store};
use crate::projection::read::Failure;

/// Between two looks how far transfers have come.
const FOLLOW: SignedDuration = SignedDuration::from_millis(500);
/// The same, where none is under way. Whoever does something about the plan has it looked at at once.
const LOOK: SignedDuration = SignedDuration::from_mins(1);
/// After so long in one run the task is given back, so that others see that it lives.
const RUN_MAX: SignedDuration = SignedDuration::from_secs(20);
/// Before people are judged anew, where somebody changed between deciding and giving.
const DECIDE_AGAIN: SignedDuration = SignedDuration::from_secs(1);

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
                plan.change(US, now);
                let (kind, by) = (Kind::HandoverReturned, plan.by_worker());
                tell_counts(&mut transaction, &plan, kind, by, now).await?;
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
}
