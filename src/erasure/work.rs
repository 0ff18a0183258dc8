//! Erases one person: step after step, each in small transactions that also note how far it has come.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use serde::Deserialize;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::twilio::Progress;
use super::{Erasure, Left, State, Step, Upstream, is_at_work, places, store, told};
use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::events::{self, Kind, Position};
use crate::ids::ConversationSid;
use crate::mirror::erase::{lock_one, person as of_mirror};
use crate::person::{Person, Subject};
use crate::projection::read::Failure;
use crate::queue::{self, Handler, Outcome, Task};
use crate::{group_text, handover, inbox, retention};

/// How long one run goes on before it lets others have their turn. What one conversation needs comes on top.
pub const BUDGET: Duration = Duration::from_secs(30);
/// Between two looks for what is still at work.
const PAUSE: SignedDuration = SignedDuration::from_secs(2);

/// Runs [`super::ERASE_TASK`].
#[derive(Debug, Clone)]
pub struct Eraser {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
    /// How long one run goes on: [`BUDGET`].
    pub budget: Duration,
}

#[derive(Debug, Deserialize)]
struct Payload {
    erasure_id: Uuid,
}

impl Handler for Eraser {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            Box::pin(self.erase(task, payload.erasure_id))
                .await
                .unwrap_or_else(Failure::outcome)
        })
    }

    fn buried<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        task: &'a Task,
        _error: &'a str,
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let Ok(payload) = serde_json::from_value::<Payload>(task.payload.clone()) else {
                return Ok(());
            };
            if let Some(mut erasure) = store::find(conn, payload.erasure_id).await? {
                erasure.stalled_at = Some(self.clock.now());
                store::save(conn, &erasure).await?;
            }
            Ok(())
        })
    }
}

/// What is to come after a piece of work.
enum Next {
    /// More of it, or the next step.
    GoOn,
    Wait(SignedDuration),
    Finished,
}

impl Eraser {
    async fn erase(&self, task: &Task, erasure_id: Uuid) -> Result<Outcome, Failure> {
        let began = Instant::now();
        loop {
            let found = store::find(&mut *self.pool.acquire().await?, erasure_id).await?;
            let Some((mut erasure, person)) = found.and_then(|one| one.person().map(|person| (one, person)))
            else {
                return Ok(Outcome::Done);
            };
            erasure.stalled_at = None;
            let next = match erasure.step {
                Step::Find => self.find(task, &mut erasure, &person).await?,
                Step::Twilio => self.at_twilio(task, &mut erasure, &person, began).await?,
                Step::Conversations => self.next_conversation(task, &mut erasure, &person).await?,
                Step::Webhooks => self.webhooks(task, &mut erasure, &person).await?,
                Step::Log => self.log(task, &mut erasure, &person).await?,
                Step::Answers => self.answers(task, &mut erasure, &person).await?,
                Step::Rest => self.rest(task, &mut erasure, &person).await?,
                Step::Done => return Ok(Outcome::Done),
            };
            match next {
                Next::Finished => return Ok(Outcome::Finished),
                Next::Wait(pause) => return Ok(Outcome::Wait(pause)),
                Next::GoOn if began.elapsed() > self.budget => {
                    return Ok(Outcome::Wait(SignedDuration::ZERO));
                }
                Next::GoOn => {}
            }
        }
    }

    /// A transaction of this task, with the time to read tables whole. An error where the task went to another worker.
    pub(super) async fn begin(&self, task: &Task) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        places::take_time(&mut transaction).await?;
        if queue::is_held(&mut transaction, task.lease).await? {
            Ok(transaction)
        } else {
            Err(sqlx::Error::Protocol(
                "the task went to another worker".to_owned(),
            ))
        }
    }

    async fn save(&self, conn: &mut PgConnection, erasure: &mut Erasure) -> Result<(), sqlx::Error> {
        erasure.updated_at = self.clock.now();
        store::save(conn, erasure).await
    }

    /// Which conversations name the person: here, and at Twilio. What is under way is waited for.
    async fn find(&self, task: &Task, erasure: &mut Erasure, person: &Person) -> Result<Next, Failure> {
        let listed = match erasure.upstream {
            Upstream::None => Vec::new(),
            Upstream::Messages | Upstream::Participants | Upstream::Conversations => {
                self.listed(person).await?
            }
        };
        let mut transaction = self.begin(task).await?;
        if is_at_work(&mut transaction, person).await?
            || inbox::erase::is_waiting(&mut transaction, person).await?
        {
            return Ok(Next::Wait(PAUSE));
        }
        let mut sids = places::conversations(&mut transaction, person).await?;
        sids.extend(listed.into_iter().map(|one| one.conversation_sid.into_string()));
        erasure.conversations = sids.into_iter().collect();
        erasure.go_on(match erasure.upstream {
            Upstream::None => Step::Conversations,
            Upstream::Messages | Upstream::Participants | Upstream::Conversations => Step::Twilio,
        });
        self.save(&mut transaction, erasure).await?;
        transaction.commit().await?;
        Ok(Next::GoOn)
    }

    async fn at_twilio(
        &self,
        task: &Task,
        erasure: &mut Erasure,
        person: &Person,
        began: Instant,
    ) -> Result<Next, Failure> {
        let Some(sid) = next_of(erasure) else {
            self.delete_user(erasure, person).await?;
            erasure.go_on(Step::Conversations);
            let mut transaction = self.begin(task).await?;
            self.save(&mut transaction, erasure).await?;
            transaction.commit().await?;
            return Ok(Next::GoOn);
        };
        let is_held = is_held(&mut *self.pool.acquire().await?, &sid).await?;
        let mut is_done = true;
        if is_held {
            erasure.hold(&sid);
        } else if let Ok(sid) = ConversationSid::try_from(sid.as_str()) {
            is_done = self.delete_in(task, erasure, person, &sid, began).await? != Progress::TimeIsUp;
        }
        if is_done {
            erasure.place = sid;
        }
        let mut transaction = self.begin(task).await?;
        self.save(&mut transaction, erasure).await?;
        transaction.commit().await?;
        Ok(Next::GoOn)
    }

    async fn next_conversation(
        &self,
        task: &Task,
        erasure: &mut Erasure,
        person: &Person,
    ) -> Result<Next, Failure> {
        let now = self.clock.now();
        let mut transaction = self.begin(task).await?;
        // With this lock no hold begins meanwhile.
        retention::lock(&mut transaction).await?;
        if let Some(sid) = next_of(erasure) {
            if is_held(&mut transaction, &sid).await? {
                erasure.hold(&sid);
            } else if let Ok(parsed) = ConversationSid::try_from(sid.as_str()) {
                lock_one(&mut transaction, &parsed).await?;
                if self.still_holds(&mut transaction, person, &sid).await? {
                    erasure.leave(Left {
                        conversation_sid: Some(sid.clone()),
                        sid: None,
                        code: "holds_line".to_owned(),
                    });
                } else {
                    let counts = places::in_conversation(&mut transaction, &parsed, person, now).await?;
                    // What began since it was looked for needs the name. It was left as it is; the rest is undone, and
                    // waits for it.
                    if is_at_work(&mut transaction, person).await? {
                        return Ok(Next::Wait(PAUSE));
                    }
                    erasure.add(counts);
                }
            }
            erasure.place = sid;
        } else {
            erasure.add(places::users(&mut transaction, person, now).await?);
            erasure.go_on(Step::Webhooks);
        }
        self.save(&mut transaction, erasure).await?;
        transaction.commit().await?;
        Ok(Next::GoOn)
    }

    /// Somebody may have been given a line since it was asked for.
    async fn still_holds(
        &self,
        conn: &mut PgConnection,
        person: &Person,
        sid: &str,
    ) -> Result<bool, sqlx::Error> {
        match person.subject() {
            Subject::Number(_) => Ok(false),
            Subject::Identity(_) => Ok(of_mirror::lines_held(conn, person)
                .await?
                .iter()
                .any(|held| held == sid)),
        }
    }

    async fn webhooks(&self, task: &Task, erasure: &mut Erasure, person: &Person) -> Result<Next, Failure> {
        let after = erasure.place.parse().unwrap_or(0);
        let mut transaction = self.begin(task).await?;
        let kept = Kept::read(&mut transaction, erasure).await?;
        let now = self.clock.now();
        let page = places::in_webhooks(&mut transaction, after, person, &kept.all, now).await?;
        erasure.count("webhooks", page.erased);
        kept.name(erasure, &page.left);
        match page.last {
            // They are projected first; the page is looked at again.
            Some(_) if page.is_waiting => {}
            Some(last) => erasure.place = last.to_string(),
            None => erasure.go_on(Step::Log),
        }
        self.save(&mut transaction, erasure).await?;
        transaction.commit().await?;
        Ok(if page.is_waiting {
            Next::Wait(PAUSE)
        } else {
            Next::GoOn
        })
    }

    async fn log(&self, task: &Task, erasure: &mut Erasure, person: &Person) -> Result<Next, Failure> {
        let after: Position = erasure.place.parse().unwrap_or_default();
        let mut transaction = self.begin(task).await?;
        let kept = Kept::read(&mut transaction, erasure).await?;
        let page = places::in_log(&mut transaction, after, person, &kept.all).await?;
        erasure.count("log_entries", page.erased);
        kept.name(erasure, &page.left);
        match page.end {
            Some(end) => erasure.place = end.to_string(),
            None => erasure.go_on(Step::Answers),
        }
        self.save(&mut transaction, erasure).await?;
        transaction.commit().await?;
        Ok(Next::GoOn)
    }

    async fn answers(&self, task: &Task, erasure: &mut Erasure, person: &Person) -> Result<Next, Failure> {
        let after = erasure.place.parse().unwrap_or(0);
        let mut transaction = self.begin(task).await?;
        let kept = Kept::read(&mut transaction, erasure).await?;
        let now = self.clock.now();
        let page = places::in_answers(&mut transaction, after, person, &kept.all, now).await?;
        erasure.count("answers", page.erased);
        kept.name(erasure, &page.left);
        match page.last {
            Some(last) => erasure.place = last.to_string(),
            None => erasure.go_on(Step::Rest),
        }
        self.save(&mut transaction, erasure).await?;
        transaction.commit().await?;
        Ok(Next::GoOn)
    }

    async fn rest(&self, task: &Task, erasure: &mut Erasure, person: &Person) -> Result<Next, Failure> {
        let now = self.clock.now();
        let mut transaction = self.begin(task).await?;
        let kept = Kept::read(&mut transaction, erasure).await?;
        if group_text::erase::is_at_work(&mut transaction, person).await? {
            return Ok(Next::Wait(PAUSE));
        }
        let counts = places::in_rest(&mut transaction, person, &kept.all, now).await?;
        // A handover plan that began meanwhile was left as it is; the rest is undone, and waits for it.
        if handover::erase::is_at_work(&mut transaction, person).await? {
            return Ok(Next::Wait(PAUSE));
        }
        erasure.add(counts);
        let named = places::conversations(&mut transaction, person).await?;
        kept.name(erasure, &named);
        erasure.go_on(Step::Done);
        erasure.finished_at = Some(now);
        erasure.state = if erasure.held.is_empty() && erasure.failures.is_empty() {
            State::Completed
        } else {
            State::Incomplete
        };
        self.save(&mut transaction, erasure).await?;
        let told = told(Kind::ErasureFinished, erasure, now);
        events::append(&mut transaction, &[told]).await?;
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        }
        Ok(Next::Finished)
    }
}

/// The first conversation after the place where the step is.
fn next_of(erasure: &Erasure) -> Option<String> {
    erasure
        .conversations
        .iter()
        .find(|sid| **sid > erasure.place)
        .cloned()
}

/// The conversations that are left as they are.
struct Kept {
    /// Those under legal hold.
    held: BTreeSet<String>,
    /// With those of which the person holds a line, and those that were held when they were come to.
    all: Vec<String>,
}

impl Kept {
    /// Reads them; no hold begins until the transaction ends.
    async fn read(conn: &mut PgConnection, erasure: &Erasure) -> Result<Self, sqlx::Error> {
        retention::lock(conn).await?;
        let held = retention::all_held(conn).await?;
        let holding = erasure
            .failures
            .iter()
            .filter(|left| left.code == "holds_line")
            .filter_map(|left| left.conversation_sid.clone());
        let mut all = held.clone();
        all.extend(erasure.held.iter().cloned().chain(holding));
        Ok(Self {
            held,
            all: all.into_iter().collect(),
        })
    }

    /// The report names those of them that are held.
    fn name(&self, erasure: &mut Erasure, named: &BTreeSet<String>) {
        for sid in self.held.intersection(named) {
            erasure.hold(sid);
        }
    }
}

pub(super) async fn is_held(conn: &mut PgConnection, sid: &str) -> Result<bool, sqlx::Error> {
    let held = retention::held_of(conn, std::iter::once(sid)).await?;
    Ok(!held.is_empty())
}
