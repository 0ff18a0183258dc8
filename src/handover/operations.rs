//! Making a plan: one transaction, with its entry of the log.

use jiff::Timestamp;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config;
use crate::events::{Kind, Via};
use crate::handover::tell::tell;
use crate::handover::{
    Becomes, By, Direction, Handover, Otherwise, Phase, RETURN_TASK, Rule, State, WORK_TASK, store,
};
use crate::ids::{Identity, new_id};
use crate::people::judge::Needs;
use crate::people::{self, Slug, questions};
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
    /// What each new holder says to the group once the line is theirs.
    pub introduction: Option<String>,
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

impl StartHandoverError {
    /// For programs, where it is the state of things that does not allow it; none, where it is what was asked for.
    pub fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::LeaverUnknown => Some("leaver_unknown"),
            Self::LeaverNoAgent => Some("leaver_no_agent"),
            Self::PersonUnknown { .. } => Some("person_unknown"),
            Self::TeamUnknown { .. } => Some("team_unknown"),
            Self::LeaverNamed | Self::ReturnPassed | Self::Database(_) => None,
        }
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
            introduction: new.introduction,
            changed_by: new.requested_by.clone(),
            changed_at: now,
            requested_by: new.requested_by,
            started_by: None,
            turned_by: None,
            waiting_error: None,
            waiting_since: None,
            listed_at: None,
            created_at: now,
            updated_at: now,
            started_at: None,
            finished_at: None,
        };
        store::insert(conn, &plan, &new.rules).await?;
        let by = By {
            name: &plan.requested_by,
            via,
        };
        tell(conn, &plan, Kind::HandoverRequested, by, json!({}), now).await?;
        put_work(conn, plan.handover_id, now).await?;
        Ok(plan)
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
pub(super) async fn is_somebody(conn: &mut PgConnection, identity: &Identity) -> Result<bool, sqlx::Error> {
    Ok(people::find_agent(conn, identity.as_str()).await?.is_some()
        || people::is_seen(conn, identity.as_str()).await?)
}

/// Has the work on a plan done, or looked at, now.
pub(super) async fn put_work(
    conn: &mut PgConnection,
    handover_id: Uuid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
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

/// Has the way back begin then.
pub(super) async fn put_return(
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
