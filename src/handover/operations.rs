//! What people do about plans. Each is one transaction, with its entries of the log.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config;
use crate::events::{Kind, Via};
use crate::handover::assign::assign;
use crate::handover::leaver::{set_leaver, unset_leaver};
use crate::handover::tell::tell;
use crate::handover::{
    Because, Becomes, Direction, Handover, LineState, Otherwise, Phase, RETURN_TASK, Rule, State, WORK_TASK,
    store,
};
use crate::ids::{ConversationSid, Identity, PhoneNumber, new_id};
use crate::people::judge::Needs;
use crate::people::{self, Slug, questions};
use crate::person::is_pseudonym;
use crate::queue::{self, NewTask};
use crate::transfer::Transfers;

/// The operations, and the work, with what they need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handovers {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
    pub transfers: Transfers,
    pub settings: config::Handover,
}

/// A plan that somebody asks for.
#[derive(Debug, Clone)]
pub struct NewHandover {
    pub leaver: Identity,
    /// The first that yields somebody decides about a line.
    pub rules: Vec<Rule>,
    pub otherwise: Otherwise,
    pub lines_per_minute: u32,
    pub return_at: Option<Timestamp>,
    pub leaver_becomes: Option<Becomes>,
    pub reason: Option<String>,
    pub note: Option<String>,
    pub requested_by: String,
}

/// Why a plan cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StartHandoverError {
    #[error("nobody has this identity, here or at Twilio as far as we know")]
    LeaverUnknown,
    #[error("nobody of ours has this identity, so that they cannot be set away or as having left")]
    LeaverNoAgent,
    #[error("somebody named is unknown, here and at Twilio")]
    PersonUnknown { identity: Identity },
    #[error("the leaver cannot get their own lines")]
    LeaverNamed,
    #[error("no such team")]
    TeamUnknown { team: Slug },
    #[error("the return is in the past")]
    ReturnPassed,
    #[error("cannot record the plan")]
    Database(#[from] sqlx::Error),
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
}

/// What somebody decides about one line by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Give(Identity),
    Release,
    Stay,
    /// The rules decide again.
    Rules,
}

/// A line of a plan, and what is decided about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    pub conversation_sid: ConversationSid,
    /// None: the only one that the plan has of the conversation.
    pub line: Option<PhoneNumber>,
    pub action: Action,
}

/// Why lines cannot be decided about by hand. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error("the plan has no such line that is still to be decided about")]
    NoSuchLine { place: usize },
    #[error("the plan has several lines of this conversation: say which")]
    Ambiguous { place: usize },
    #[error("nobody has this identity, here or at Twilio as far as we know")]
    PersonUnknown { place: usize },
    #[error("the leaver cannot get their own lines")]
    LeaverNamed { place: usize },
}

impl From<sqlx::Error> for OverrideError {
    fn from(error: sqlx::Error) -> Self {
        Self::Handover(error.into())
    }
}

impl Handovers {
    /// Makes a plan, within the caller's transaction. Its lines are then looked for; until that is done it is `planning`.
    pub async fn create_in(
        &self,
        conn: &mut PgConnection,
        new: NewHandover,
        via: Via,
    ) -> Result<Handover, StartHandoverError> {
        let now = self.clock.now();
        check(conn, &new, now).await?;
        let plan = Handover {
            handover_id: new_id(),
            leaver: new.leaver,
            state: State::Planning,
            direction: Direction::Out,
            phase: Phase::Listing,
            otherwise: new.otherwise,
            lines_per_minute: new.lines_per_minute.clamp(1, 60_000),
            next_due_at: None,
            return_at: new.return_at,
            back_because: None,
            leaver_becomes: new.leaver_becomes,
            leaver_changed_at: None,
            reason: new.reason,
            note: new.note,
            requested_by: new.requested_by,
            started_by: None,
            waiting_error: None,
            waiting_since: None,
            listed_at: None,
            created_at: now,
            updated_at: now,
            started_at: None,
            finished_at: None,
        };
        store::insert(conn, &plan, &new.rules).await?;
        let (kind, by) = (Kind::HandoverRequested, plan.requested_by.clone());
        tell(conn, &plan, kind, &by, via, json!({}), now).await?;
        put_work(conn, plan.handover_id, now).await?;
        Ok(plan)
    }

    /// Starts a draft: the lines are handed over from now on.
    pub async fn run_in(
        &self,
        conn: &mut PgConnection,
        handover_id: Uuid,
        by: &str,
        via: Via,
    ) -> Result<Handover, HandoverError> {
        let now = self.clock.now();
        let mut plan = lock(conn, handover_id).await?;
        match plan.state {
            State::Draft => {}
            State::Planning => {
                return Err(HandoverError::StillPlanning {
                    in_doubt: store::counts(conn, handover_id).await?.in_doubt,
                    waiting_error: plan.waiting_error,
                });
            }
            _ => return Err(wrong(&plan)),
        }
        if let Some(at) = plan.return_at.filter(|at| *at <= now) {
            return Err(HandoverError::ReturnPassed { at });
        }
        self.take_the_field(conn, &plan).await?;
        plan.state = State::Running;
        plan.phase = Phase::Giving;
        plan.started_by = Some(by.to_owned());
        plan.started_at = Some(now);
        plan.updated_at = now;
        plan.next_due_at = None;
        set_leaver(conn, &mut plan, by, via, now).await?;
        store::update(conn, &plan).await?;
        let facts = json!({ "counts": store::counts(conn, handover_id).await? });
        tell(conn, &plan, Kind::HandoverStarted, by, via, facts, now).await?;
        put_work(conn, handover_id, now).await?;
        if let Some(at) = plan.return_at {
            put_return(conn, handover_id, at, now).await?;
        }
        Ok(plan)
    }

    /// No further line begins; transfers that are under way come to their ends.
    pub async fn pause_in(
        &self,
        conn: &mut PgConnection,
        handover_id: Uuid,
        by: &str,
        via: Via,
    ) -> Result<Handover, HandoverError> {
        let now = self.clock.now();
        let mut plan = lock(conn, handover_id).await?;
        if plan.state != State::Running {
            return Err(wrong(&plan));
        }
        plan.state = State::Paused;
        self.changed(conn, plan, Kind::HandoverPaused, by, via, now).await
    }

    /// Goes on where it was, at the pace from now on.
    pub async fn resume_in(
        &self,
        conn: &mut PgConnection,
        handover_id: Uuid,
        by: &str,
        via: Via,
    ) -> Result<Handover, HandoverError> {
        let now = self.clock.now();
        let mut plan = lock(conn, handover_id).await?;
        if plan.state != State::Paused {
            return Err(wrong(&plan));
        }
        plan.state = State::Running;
        plan.next_due_at = None;
        self.changed(conn, plan, Kind::HandoverResumed, by, via, now)
            .await
    }

    /// Nothing begins any more, the return on the day included. What was handed over stays so.
    pub async fn cancel_in(
        &self,
        conn: &mut PgConnection,
        handover_id: Uuid,
        by: &str,
        via: Via,
    ) -> Result<Handover, HandoverError> {
        let now = self.clock.now();
        let mut plan = lock(conn, handover_id).await?;
        let waits_for_return = plan.state == State::Completed && plan.return_at.is_some_and(|at| at > now);
        if plan.state.is_final() && !waits_for_return {
            return Err(wrong(&plan));
        }
        store::cancel_waiting(conn, handover_id, "cancelled", now).await?;
        plan.state = State::Cancelled;
        plan.finished_at = Some(now);
        self.changed(conn, plan, Kind::HandoverCancelled, by, via, now)
            .await
    }

    /// What was handed over goes back to the leaver, by transfers, as far as it is still with whom it was given to.
    pub async fn roll_back_in(
        &self,
        conn: &mut PgConnection,
        handover_id: Uuid,
        by: &str,
        via: Via,
    ) -> Result<Handover, HandoverError> {
        let now = self.clock.now();
        let plan = lock(conn, handover_id).await?;
        let stands = match plan.state {
            State::Running | State::Paused => plan.direction == Direction::Out,
            State::Completed => true,
            State::Cancelled => plan.started_at.is_some(),
            State::Planning | State::Draft | State::Returned => false,
        };
        if !stands {
            return Err(wrong(&plan));
        }
        if is_pseudonym(plan.leaver.as_str()) {
            return Err(HandoverError::LeaverGone);
        }
        self.take_the_field(conn, &plan).await?;
        Ok(self
            .turn_round(conn, plan, Because::RollBack, by, via, now)
            .await?)
    }

    /// From now on lines go back.
    pub(super) async fn turn_round(
        &self,
        conn: &mut PgConnection,
        mut plan: Handover,
        because: Because,
        by: &str,
        via: Via,
        now: Timestamp,
    ) -> Result<Handover, sqlx::Error> {
        if let Some(other) = store::is_another_at_work(conn, &plan).await? {
            // It is on the way out for the same person: then they are not back.
            tracing::warn!(handover.id = %plan.handover_id, other = %other, "the way back waits for another plan");
            put_return(conn, plan.handover_id, now + SignedDuration::from_mins(5), now).await?;
            return Ok(plan);
        }
        store::cancel_waiting(conn, plan.handover_id, because.as_str(), now).await?;
        plan.state = State::Running;
        plan.direction = Direction::Back;
        plan.phase = Phase::Giving;
        plan.back_because = Some(because);
        plan.next_due_at = None;
        plan.updated_at = now;
        plan.finished_at = None;
        (plan.waiting_error, plan.waiting_since) = (None, None);
        unset_leaver(conn, &mut plan, by, via, now).await?;
        store::update(conn, &plan).await?;
        let facts = json!({ "counts": store::counts(conn, plan.handover_id).await? });
        tell(conn, &plan, Kind::HandoverTurnedRound, by, via, facts, now).await?;
        put_work(conn, plan.handover_id, now).await?;
        Ok(plan)
    }

    /// Decides about lines by hand, and about the others anew, since everybody's load is another. Only of a draft.
    pub async fn override_in(
        &self,
        conn: &mut PgConnection,
        handover_id: Uuid,
        overrides: &[Override],
        by: &str,
        via: Via,
    ) -> Result<Handover, OverrideError> {
        let now = self.clock.now();
        let mut plan = lock(conn, handover_id).await?;
        if plan.state != State::Draft {
            return Err(wrong(&plan).into());
        }
        let open = store::lines_to_assign(conn, handover_id).await?;
        for (place, one) in overrides.iter().enumerate() {
            let mut matching = open.iter().filter(|line| {
                line.conversation_sid == one.conversation_sid
                    && one.line.as_ref().is_none_or(|number| *number == line.line)
            });
            let mut line = matching
                .next()
                .ok_or(OverrideError::NoSuchLine { place })?
                .clone();
            if matching.next().is_some() {
                return Err(OverrideError::Ambiguous { place });
            }
            line.by_hand = one.action != Action::Rules;
            (line.action, line.to) = match &one.action {
                Action::Give(to) if *to == plan.leaver => return Err(OverrideError::LeaverNamed { place }),
                Action::Give(to) if !is_somebody(conn, to).await? => {
                    return Err(OverrideError::PersonUnknown { place });
                }
                Action::Give(to) => (Some(super::Action::Give), Some(to.clone())),
                Action::Release => (Some(super::Action::Release), None),
                Action::Stay => (Some(super::Action::Stay), None),
                Action::Rules => (None, None),
            };
            line.state = LineState::Waiting;
            store::update_line(conn, &line).await?;
        }
        assign(conn, &plan, &self.accounts, now).await?;
        plan.updated_at = now;
        store::update(conn, &plan).await?;
        let facts = json!({ "lines": overrides.len() });
        tell(conn, &plan, Kind::HandoverChanged, by, via, facts, now).await?;
        Ok(plan)
    }

    /// No other plan of the person may be at work.
    async fn take_the_field(&self, conn: &mut PgConnection, plan: &Handover) -> Result<(), HandoverError> {
        match store::is_another_at_work(conn, plan).await? {
            Some(handover_id) => Err(HandoverError::AnotherAtWork { handover_id }),
            None => Ok(()),
        }
    }

    async fn changed(
        &self,
        conn: &mut PgConnection,
        mut plan: Handover,
        kind: Kind,
        by: &str,
        via: Via,
        now: Timestamp,
    ) -> Result<Handover, HandoverError> {
        plan.updated_at = now;
        store::update(conn, &plan).await?;
        let facts = json!({ "counts": store::counts(conn, plan.handover_id).await? });
        tell(conn, &plan, kind, by, via, facts, now).await?;
        put_work(conn, plan.handover_id, now).await?;
        Ok(plan)
    }
}

async fn lock(conn: &mut PgConnection, handover_id: Uuid) -> Result<Handover, HandoverError> {
    store::lock(conn, handover_id)
        .await?
        .ok_or(HandoverError::NotFound)
}

fn wrong(plan: &Handover) -> HandoverError {
    HandoverError::WrongState {
        state: plan.state,
        direction: plan.direction,
        since: plan.updated_at,
    }
}

async fn check(conn: &mut PgConnection, new: &NewHandover, now: Timestamp) -> Result<(), StartHandoverError> {
    if new.return_at.is_some_and(|at| at <= now) {
        return Err(StartHandoverError::ReturnPassed);
    }
    let agent = people::find_agent(conn, new.leaver.as_str()).await?;
    if agent.is_none() && !is_somebody(conn, &new.leaver).await? {
        return Err(StartHandoverError::LeaverUnknown);
    }
    if agent.is_none() && new.leaver_becomes.is_some() {
        return Err(StartHandoverError::LeaverNoAgent);
    }
    for rule in &new.rules {
        match rule {
            Rule::People(people) => {
                if people.contains(&new.leaver) {
                    return Err(StartHandoverError::LeaverNamed);
                }
                if let Some(identity) = unknown(conn, people, now).await? {
                    return Err(StartHandoverError::PersonUnknown { identity });
                }
            }
            Rule::Team { team, .. } => {
                if people::find_team(conn, team.as_str()).await?.is_none() {
                    return Err(StartHandoverError::TeamUnknown { team: team.clone() });
                }
            }
            Rule::LastHolder | Rule::Supervisor => {}
        }
    }
    Ok(())
}

/// The first of them whom nobody has.
async fn unknown(
    conn: &mut PgConnection,
    people: &[Identity],
    now: Timestamp,
) -> Result<Option<Identity>, sqlx::Error> {
    let identities: Vec<&str> = people.iter().map(Identity::as_str).collect();
    let judged = questions::candidates(conn, &identities, now, &Needs::default()).await?;
    for stranger in judged.iter().filter(|one| one.person.is_none()) {
        if !people::is_seen(conn, &stranger.identity).await? {
            return Ok(people
                .iter()
                .find(|one| one.as_str() == stranger.identity)
                .cloned());
        }
    }
    Ok(None)
}

/// One of ours, or somebody who is in a conversation or holds a line: a name that nobody has is a slip.
async fn is_somebody(conn: &mut PgConnection, identity: &Identity) -> Result<bool, sqlx::Error> {
    Ok(people::find_agent(conn, identity.as_str()).await?.is_some()
        || people::is_seen(conn, identity.as_str()).await?)
}

/// Has the work on a plan done, or looked at, now.
async fn put_work(conn: &mut PgConnection, handover_id: Uuid, now: Timestamp) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: WORK_TASK,
        order_key: format!("handover:{handover_id}"),
        unique_key: Some(handover_id.to_string()),
        payload: json!({ "handover_id": handover_id }),
        run_at: now,
        // It ends with the plan, however long Twilio is away.
        attempts_max: i32::MAX,
    };
    queue::put(conn, &task, now).await
}

async fn put_return(
    conn: &mut PgConnection,
    handover_id: Uuid,
    at: Timestamp,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: RETURN_TASK,
        // Not in the order of the work, which would wait for it.
        order_key: format!("handover_return:{handover_id}"),
        unique_key: Some(handover_id.to_string()),
        payload: json!({ "handover_id": handover_id }),
        run_at: at,
        attempts_max: i32::MAX,
    };
    queue::put(conn, &task, now).await
}
