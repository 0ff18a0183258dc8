//! Erasing a person on request: at Twilio first, then here, with a report that does not say who it was. Owns `erasure`.
//!
//! It is durable work in steps ([`work`]), each of which may be stopped at any point and run again: what is erased is not
//! found a second time. A pseudonym stands in the person's place wherever a name is needed, the same everywhere, and
//! nothing keeps whose it is. What holds a person's name is listed in [`places`]; conversations under legal hold are left
//! alone and named.
//!
//! What is erased stays erased ([`crate::mirror::erased`]). Who comes back later is somebody new.

mod places;
mod store;
mod twilio;
mod work;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::new_id;
use crate::mirror::erase::person as mirror;
use crate::person::{Person, Subject};
use crate::queue::{self, Lane, NewTask, TaskKind};
use crate::{group_text, handover, outbox, transfer};

pub use store::{find, page};
pub use work::{BUDGET, Eraser};

/// The kind of task that erases one person.
pub const ERASE_TASK: TaskKind = TaskKind::new("erasure.run", Lane::Background);

/// What is deleted at Twilio; each takes what stands before it too.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// Nothing: erased here alone.
    None,
    /// What the person wrote. The seat is asked for only where the conversation is closed, since a group text without one
    /// of its handsets goes on as a new thread for the others.
    Messages,
    /// The seat in open conversations too.
    Participants,
    /// Closed conversations whole, with what others wrote in them: Twilio changes nothing else about them (50377).
    Conversations,
}

impl Upstream {
    pub const ALL: [Self; 4] = [
        Self::None,
        Self::Messages,
        Self::Participants,
        Self::Conversations,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Messages => "messages",
            Self::Participants => "participants",
            Self::Conversations => "conversations",
        }
    }
}

/// Where the work has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Find,
    Twilio,
    Conversations,
    Webhooks,
    Log,
    Answers,
    Rest,
    Done,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Find,
        Self::Twilio,
        Self::Conversations,
        Self::Webhooks,
        Self::Log,
        Self::Answers,
        Self::Rest,
        Self::Done,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Twilio => "twilio",
            Self::Conversations => "conversations",
            Self::Webhooks => "webhooks",
            Self::Log => "log",
            Self::Answers => "answers",
            Self::Rest => "rest",
            Self::Done => "done",
        }
    }
}

/// How an erasure stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    Completed,
    /// It came to its end, and something was left: `held` and `failures` say what.
    Incomplete,
}

impl State {
    const ALL: [Self; 3] = [Self::Running, Self::Completed, Self::Incomplete];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Something that could not be erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ErasureFailure)]
pub struct Left {
    pub conversation_sid: Option<String>,
    /// Of the message or the participant.
    pub sid: Option<String>,
    /// Twilio's code or status, `holds_line`, or `account_not_configured`: nothing was deleted at Twilio, since the service
    /// has no credentials of the conversation's account.
    pub code: String,
}

/// A request to erase somebody, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Erasure {
    pub erasure_id: Uuid,
    pub subject_kind: String,
    /// None once it is done.
    subject: Option<Subject>,
    pseudonym: String,
    pub upstream: Upstream,
    pub state: State,
    pub asked_by: String,
    pub reason: String,
    pub requested_by: String,
    via: Via,
    pub step: Step,
    place: String,
    pub conversations: Vec<String>,
    pub held: Vec<String>,
    pub counts: BTreeMap<String, i64>,
    pub failures: Vec<Left>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// It was given up, until a person tries again.
    pub stalled_at: Option<Timestamp>,
}

impl Erasure {
    fn person(&self) -> Option<Person> {
        let subject = self.subject.clone()?;
        Some(Person::new(subject, self.pseudonym.clone()))
    }

    fn count(&mut self, what: &str, amount: i64) {
        if amount > 0 {
            *self.counts.entry(what.to_owned()).or_default() += amount;
        }
    }

    fn add(&mut self, counts: Vec<(&'static str, i64)>) {
        for (what, amount) in counts {
            self.count(what, amount);
        }
    }

    fn leave(&mut self, left: Left) {
        if !self.failures.contains(&left) {
            self.failures.push(left);
        }
    }

    /// Whether Twilio refused to delete this already.
    fn has_left(&self, sid: &str) -> bool {
        self.failures.iter().any(|left| left.sid.as_deref() == Some(sid))
    }

    fn hold(&mut self, sid: &str) {
        if !self.held.iter().any(|held| held == sid) {
            self.held.push(sid.to_owned());
        }
    }

    fn go_on(&mut self, step: Step) {
        self.step = step;
        self.place.clear();
    }
}

/// An erasure to be started.
#[derive(Debug, Clone)]
pub struct NewErasure {
    pub subject: Subject,
    pub upstream: Upstream,
    pub asked_by: String,
    pub reason: String,
    /// The API key, or `cli`.
    pub requested_by: String,
    pub via: Via,
}

/// Why an erasure cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("this number is one of our lines, and no person's")]
    OurNumber,
    #[error("this person is being erased already")]
    AlreadyRunning(Uuid),
    #[error("this person holds lines of open conversations; give them to others, or release them, first")]
    HoldsLines(Vec<String>),
    #[error(
        "a transfer, a message or a group text of this person is at work; wait until it ends, or cancel it"
    )]
    AtWork,
    /// The member that does.
    #[error("`{0}` is kept, and must not name the person")]
    Named(&'static str),
    #[error("cannot record the erasure")]
    Database(#[from] sqlx::Error),
}

/// What an erasure would come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    pub conversations: Vec<String>,
    pub held: Vec<String>,
    pub counts: BTreeMap<String, i64>,
}

/// Starts erasures. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Erasures {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
}

impl Erasures {
    /// Starts an erasure in a transaction of its own.
    pub async fn start(&self, new: NewErasure) -> Result<Erasure, StartError> {
        let mut conn = self.pool.acquire().await?;
        self.start_in(&mut conn, new).await
    }

    /// Starts an erasure within the caller's transaction.
    pub async fn start_in(&self, conn: &mut PgConnection, new: NewErasure) -> Result<Erasure, StartError> {
        let now = self.clock.now();
        let erasure_id = new_id();
        let pseudonym = format!("erased:{}", erasure_id.simple());
        let person = Person::new(new.subject.clone(), pseudonym.clone());
        let kept = [("asked_by", &new.asked_by), ("reason", &new.reason)];
        if let Some((member, _)) = kept.into_iter().find(|(_, text)| person.is_word_of(text)) {
            return Err(StartError::Named(member));
        }
        let mut transaction = conn.begin().await?;
        self.check(&mut transaction, &person).await?;
        let erasure = Erasure {
            erasure_id,
            subject_kind: new.subject.kind().to_owned(),
            subject: Some(new.subject),
            pseudonym,
            upstream: new.upstream,
            state: State::Running,
            asked_by: new.asked_by,
            reason: new.reason,
            requested_by: new.requested_by,
            via: new.via,
            step: Step::Find,
            place: String::new(),
            conversations: Vec::new(),
            held: Vec::new(),
            counts: BTreeMap::new(),
            failures: Vec::new(),
            created_at: now,
            updated_at: now,
            finished_at: None,
            stalled_at: None,
        };
        if let Some(running) = store::insert(&mut transaction, &erasure).await? {
            return Err(StartError::AlreadyRunning(running));
        }
        let told = told(Kind::ErasureRequested, &erasure, now);
        events::append(&mut transaction, &[told]).await?;
        let task = NewTask {
            kind: ERASE_TASK,
            order_key: format!("erasure:{erasure_id}"),
            unique_key: Some(erasure_id.to_string()),
            payload: json!({ "erasure_id": erasure_id }),
            run_at: now,
            attempts_max: 40,
        };
        queue::put(&mut transaction, &task, now).await?;
        transaction.commit().await?;
        Ok(erasure)
    }

    /// Counts what an erasure would erase here. Everything is done, and undone.
    pub async fn preview(&self, subject: &Subject) -> Result<Preview, StartError> {
        let person = Person::new(subject.clone(), "erased:preview".to_owned());
        let mut conn = self.pool.acquire().await?;
        self.check(&mut conn, &person).await?;
        Ok(places::preview(&mut conn, &person, self.clock.now()).await?)
    }

    async fn check(&self, conn: &mut PgConnection, person: &Person) -> Result<(), StartError> {
        match person.subject() {
            Subject::Number(number) => {
                let is_ours = self
                    .accounts
                    .iter()
                    .any(|account| account.numbers.contains(number));
                if is_ours || mirror::is_a_line(conn, number.as_str()).await? {
                    return Err(StartError::OurNumber);
                }
            }
            Subject::Identity(_) => {
                let lines = mirror::lines_held(conn, person).await?;
                if !lines.is_empty() {
                    return Err(StartError::HoldsLines(lines));
                }
            }
        }
        if is_at_work(conn, person).await? {
            return Err(StartError::AtWork);
        }
        Ok(())
    }
}

/// Whether something is under way in which the person's name is needed.
async fn is_at_work(conn: &mut PgConnection, person: &Person) -> Result<bool, sqlx::Error> {
    Ok(transfer::erase::is_at_work(conn, person).await?
        || outbox::erase::is_at_work(conn, person).await?
        || group_text::erase::is_at_work(conn, person).await?
        || handover::erase::is_at_work(conn, person).await?)
}

/// Never who it is about.
fn told(kind: Kind, erasure: &Erasure, now: Timestamp) -> NewEvent {
    NewEvent {
        kind,
        account_sid: None,
        conversation_sid: None,
        subject: erasure.erasure_id.to_string(),
        actor: Some(erasure.requested_by.clone()),
        via: erasure.via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({
            "subject_kind": erasure.subject_kind,
            "upstream": erasure.upstream,
            "state": erasure.state,
            "conversations": erasure.conversations,
            "held": erasure.held,
            "counts": erasure.counts,
            "failures": erasure.failures,
        }),
    }
}
