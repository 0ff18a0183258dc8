//! What people do about plans: run, pause, resume, cancel, roll back. Each is one transaction, with its entry of the log.

use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::events::{Kind, Via};
use crate::handover::leaver::{set_leaver, unset_leaver};
use crate::handover::operations::{put_return, put_work};
use crate::handover::tell::tell_counts;
use crate::handover::{Because, Direction, Handover, Handovers, Phase, State, store};
use crate::person::is_pseudonym;

/// What is done about a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// The lines of a draft are handed over from now on.
    Run,
    /// No further line begins; transfers that are under way come to their ends.
    Pause,
    /// It goes on where it was, at the pace from now on.
    Resume,
    /// Nothing begins any more, the return on the day included. What was handed over stays so.
    Cancel,
    /// What was handed over goes back to the leaver, by transfers, as far as it is still with whom it was given to.
    RollBack,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::RollBack => "roll_back",
        }
    }
}

/// Who does it, and through what.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub name: &'a str,
    pub via: Via,
}

/// Why something cannot be done about a plan now.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("no such plan")]
    NotFound,
    #[error("the plan is not in a state for that")]
    WrongState {
        state: State,
        direction: Direction,
        /// Who did something about it last, and when.
        by: String,
        since: Timestamp,
    },
    #[error("the lines are still being looked for")]
    StillPlanning {
        in_doubt: i64,
        waiting_error: Option<String>,
    },
    #[error("another plan of the same person is running or paused")]
    AnotherAtWork { handover_id: Uuid },
    #[error("the day of the return has passed")]
    ReturnPassed { at: Timestamp },
    #[error("the leaver was removed from the people, or erased, meanwhile")]
    LeaverGone,
    #[error("cannot record it")]
    Database(#[from] sqlx::Error),
}

impl HandoverError {
    /// For programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::WrongState { .. } => "handover_state",
            Self::StillPlanning { .. } => "handover_planning",
            Self::AnotherAtWork { .. } => "another_handover_at_work",
            Self::ReturnPassed { .. } => "return_passed",
            Self::LeaverGone => "leaver_unknown",
            Self::Database(_) => "database",
        }
    }

    /// Whether it is the state of things that does not allow it.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::NotFound | Self::Database(_))
    }
}

impl Handovers {
    /// Does something about a plan, within the caller's transaction.
    pub async fn act_in(
        &self,
        conn: &mut PgConnection,
        handover_id: Uuid,
        verb: Verb,
        by: By<'_>,
    ) -> Result<Handover, HandoverError> {
        let held = Held::lock(conn, handover_id, by, self.clock.now()).await?;
        match verb {
            Verb::Run => held.run().await,
            Verb::Pause => held.pause().await,
            Verb::Resume => held.resume().await,
            Verb::Cancel => held.cancel().await,
            Verb::RollBack => held.roll_back().await,
        }
    }
}

/// A plan that the transaction has locked, and what is being done about it.
pub(super) struct Held<'a> {
    pub(super) conn: &'a mut PgConnection,
    pub(super) plan: Handover,
    pub(super) by: By<'a>,
    pub(super) now: Timestamp,
}

impl<'a> Held<'a> {
    pub(super) async fn lock(
        conn: &'a mut PgConnection,
        handover_id: Uuid,
        by: By<'a>,
        now: Timestamp,
    ) -> Result<Self, HandoverError> {
        let plan = store::lock(conn, handover_id).await?;
        Ok(Self {
            plan: plan.ok_or(HandoverError::NotFound)?,
            conn,
            by,
            now,
        })
    }

    async fn run(mut self) -> Result<Handover, HandoverError> {
        if self.plan.state == State::Planning {
            let counts = store::counts(self.conn, self.plan.handover_id).await?;
            return Err(HandoverError::StillPlanning {
                in_doubt: counts.in_doubt,
                waiting_error: self.plan.waiting_error,
            });
        }
        self.only_in(State::Draft)?;
        if let Some(at) = self.plan.return_at.filter(|at| *at <= self.now) {
            return Err(HandoverError::ReturnPassed { at });
        }
        self.take_the_field().await?;
        self.plan.state = State::Running;
        self.plan.phase = Phase::Giving;
        self.plan.started_by = Some(self.by.name.to_owned());
        self.plan.started_at = Some(self.now);
        self.plan.next_due_at = None;
        set_leaver(self.conn, &mut self.plan, self.by, self.now).await?;
        if let Some(at) = self.plan.return_at {
            put_return(self.conn, self.plan.handover_id, at, self.now).await?;
        }
        Ok(self.record(Kind::HandoverStarted).await?)
    }

    async fn pause(mut self) -> Result<Handover, HandoverError> {
        self.only_in(State::Running)?;
        self.plan.state = State::Paused;
        Ok(self.record(Kind::HandoverPaused).await?)
    }

    async fn resume(mut self) -> Result<Handover, HandoverError> {
        self.only_in(State::Paused)?;
        self.plan.state = State::Running;
        self.plan.next_due_at = None;
        Ok(self.record(Kind::HandoverResumed).await?)
    }

    async fn cancel(mut self) -> Result<Handover, HandoverError> {
        let is_to_return = self.plan.return_at.is_some_and(|at| at > self.now);
        if self.plan.state.is_final() && !(self.plan.state == State::Completed && is_to_return) {
            return Err(self.wrong());
        }
        store::cancel_waiting(self.conn, self.plan.handover_id, "cancelled", self.now).await?;
        self.plan.state = State::Cancelled;
        self.plan.finished_at = Some(self.now);
        Ok(self.record(Kind::HandoverCancelled).await?)
    }

    async fn roll_back(mut self) -> Result<Handover, HandoverError> {
        let stands = match self.plan.state {
            State::Running | State::Paused => self.plan.direction == Direction::Out,
            State::Completed => true,
            State::Cancelled => self.plan.started_at.is_some(),
            State::Planning | State::Draft | State::Returned => false,
        };
        if !stands {
            return Err(self.wrong());
        }
        if is_pseudonym(self.plan.leaver.as_str()) {
            return Err(HandoverError::LeaverGone);
        }
        self.take_the_field().await?;
        self.plan.turned_by = Some(self.by.name.to_owned());
        Ok(self.turn_round(Because::RollBack).await?)
    }

    /// It is the day of the return.
    pub(super) async fn return_now(mut self) -> Result<(), sqlx::Error> {
        if let Some(other) = store::is_another_at_work(self.conn, &self.plan).await? {
            // It is on the way out for the same person: then they are not back.
            tracing::warn!(handover.id = %self.plan.handover_id, other = %other, "the way back waits for another plan");
            let later = self.now + SignedDuration::from_mins(5);
            return put_return(self.conn, self.plan.handover_id, later, self.now).await;
        }
        self.plan.turned_by = None;
        self.turn_round(Because::Return).await.map(|_| ())
    }

    /// From now on lines go back.
    async fn turn_round(mut self, because: Because) -> Result<Handover, sqlx::Error> {
        store::cancel_waiting(self.conn, self.plan.handover_id, because.as_str(), self.now).await?;
        self.plan.state = State::Running;
        self.plan.direction = Direction::Back;
        self.plan.phase = Phase::Giving;
        self.plan.back_because = Some(because);
        self.plan.next_due_at = None;
        self.plan.finished_at = None;
        (self.plan.waiting_error, self.plan.waiting_since) = (None, None);
        unset_leaver(self.conn, &mut self.plan, self.by, self.now).await?;
        self.record(Kind::HandoverTurnedRound).await
    }

    /// Writes what was done, tells it, and has the work looked at.
    async fn record(mut self, kind: Kind) -> Result<Handover, sqlx::Error> {
        self.plan.change(self.by.name, self.now);
        store::update(self.conn, &self.plan).await?;
        tell_counts(self.conn, &self.plan, kind, self.by, self.now).await?;
        put_work(self.conn, self.plan.handover_id, self.now).await?;
        Ok(self.plan)
    }

    /// No other plan of the person may be at work.
    async fn take_the_field(&mut self) -> Result<(), HandoverError> {
        match store::is_another_at_work(self.conn, &self.plan).await? {
            Some(handover_id) => Err(HandoverError::AnotherAtWork { handover_id }),
            None => Ok(()),
        }
    }

    pub(super) fn only_in(&self, state: State) -> Result<(), HandoverError> {
        if self.plan.state == state {
            Ok(())
        } else {
            Err(self.wrong())
        }
    }

    fn wrong(&self) -> HandoverError {
        HandoverError::WrongState {
            state: self.plan.state,
            direction: self.plan.direction,
            by: self.plan.changed_by.clone(),
            since: self.plan.changed_at,
        }
    }
}
