//! The durable work on a plan: preparing it, running it, following its transfers, and the way back on the day.

use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use serde::Deserialize;
use uuid::Uuid;

use crate::events::Via;
use crate::handover::verbs::Held;
use crate::handover::{By, Handovers, Phase, State, US, store};
use crate::projection::read::Failure;
use crate::queue::{Handler, Outcome, Task};

/// Runs [`super::WORK_TASK`].
#[derive(Debug, Clone)]
pub struct Work(pub Handovers);

/// Runs [`super::RETURN_TASK`].
#[derive(Debug, Clone)]
pub struct Return(pub Handovers);

#[derive(Debug, Deserialize)]
struct Payload {
    handover_id: Uuid,
}

/// What comes after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Again,
    Wait(SignedDuration),
    /// There is nothing to do until somebody does something about the plan.
    Done,
}

/// Between two looks at transfers of a plan that does not go on by itself.
const FOLLOW: SignedDuration = SignedDuration::from_millis(500);
/// So many steps in one run; a plan has a handful.
const STEPS_MAX: usize = 64;

impl Handler for Work {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            match self.0.work(payload.handover_id).await {
                Ok(Next::Done) => Outcome::Done,
                Ok(Next::Wait(pause)) => Outcome::Wait(pause),
                Ok(Next::Again) => Outcome::Wait(SignedDuration::ZERO),
                Err(failure) => failure.outcome(),
            }
        })
    }
}

impl Handler for Return {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            match self.0.return_on_the_day(payload.handover_id).await {
                Ok(None) => Outcome::Done,
                Ok(Some(rest)) => Outcome::Wait(rest),
                Err(error) => Outcome::Retry(error.into()),
            }
        })
    }
}

impl Handovers {
    /// Does what can be done about a plan now.
    pub(super) async fn work(&self, handover_id: Uuid) -> Result<Next, Failure> {
        for _ in 0..STEPS_MAX {
            match Box::pin(self.step(handover_id)).await? {
                Next::Again => {}
                next => return Ok(next),
            }
        }
        Ok(Next::Again)
    }

    async fn step(&self, handover_id: Uuid) -> Result<Next, Failure> {
        let mut conn = self.pool.acquire().await?;
        let plan = store::find(&mut conn, handover_id).await?;
        drop(conn);
        let Some(plan) = plan else {
            return Ok(Next::Done);
        };
        match (plan.state, plan.phase) {
            (State::Planning | State::Running, Phase::Listing) => self.list(&plan).await,
            (State::Planning | State::Running, Phase::Reading) => self.read(&plan).await,
            (State::Running, Phase::Giving) => self.give(&plan).await,
            (State::Planning, Phase::Giving)
            | (State::Draft | State::Paused | State::Completed | State::Cancelled | State::Returned, _) => {
                let under_way = self.follow(&plan).await?;
                Ok(if under_way > 0 {
                    Next::Wait(FOLLOW)
                } else {
                    Next::Done
                })
            }
        }
    }

    /// It is the day: what is still with whom it was given to goes back. Another end of the plan came first, or not. Answers how
    /// long it is until then, where the clock says that it is too early.
    async fn return_on_the_day(&self, handover_id: Uuid) -> Result<Option<SignedDuration>, sqlx::Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let Some(plan) = store::lock(&mut transaction, handover_id).await? else {
            return Ok(None);
        };
        let Some(return_at) = plan.return_at.filter(|_| plan.back_because.is_none()) else {
            return Ok(None);
        };
        let stands = matches!(plan.state, State::Running | State::Paused | State::Completed);
        if stands && return_at > now {
            return Ok(Some(return_at.duration_since(now)));
        }
        if stands {
            let by = By {
                name: US,
                via: Via::Timer,
            };
            let held = Held {
                conn: &mut transaction,
                plan,
                by,
                now,
            };
            held.return_now().await?;
        }
        transaction.commit().await?;
        Ok(None)
    }
}
