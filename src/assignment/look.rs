//! Looks again at lines that wait, and at what became of those that were given.

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tracing::info;

use super::decide::{Again, People, decide};
use super::find::{self, Which};
use super::{LOOK_TASK, Line, store, tell};
use crate::clock::Clock;
use crate::events::Via;
use crate::mirror;
use crate::queue::{self, Handler, NewTask, Outcome, Task};

/// Between two looks, as long as anything waits.
pub(super) const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(15);

/// In one look so many lines are told another reason for waiting, the oldest first. One person who goes away may be the reason
/// of thousands.
const OTHERWISE_MAX: usize = 100;

/// Runs [`LOOK_TASK`].
#[derive(Debug, Clone)]
pub struct Look {
    pub pool: PgPool,
    pub clock: Clock,
}

/// Looks at what waits at once, since somebody may be there now who was not. Where nothing waits, nothing is put.
pub async fn look_soon(conn: &mut PgConnection, now: Timestamp) -> Result<(), sqlx::Error> {
    if store::is_any(conn).await? {
        put(conn, now, now).await?;
    }
    Ok(())
}

pub(super) async fn put(
    conn: &mut PgConnection,
    run_at: Timestamp,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: LOOK_TASK,
        order_key: LOOK_TASK.name.to_owned(),
        unique_key: Some(LOOK_TASK.name.to_owned()),
        payload: json!({}),
        run_at,
        attempts_max: 100,
    };
    queue::put(conn, &task, now).await
}

impl Handler for Look {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match self.look(task).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Retry(error.into()),
            }
        })
    }
}

impl Look {
    async fn look(&self, task: &Task) -> Result<Outcome, sqlx::Error> {
        let now = self.clock.now();
        self.settle(now).await?;
        let given = self.look_at_all(now).await?;
        if given > 0 {
            info!(lines = given, "gave lines that had waited");
        }
        let mut transaction = self.pool.begin().await?;
        if !queue::finish(&mut transaction, task.lease).await? {
            return Ok(Outcome::Finished);
        }
        if store::is_any(&mut transaction).await? {
            put(&mut transaction, now + LOOK_EVERY, now).await?;
        }
        transaction.commit().await?;
        Ok(Outcome::Finished)
    }

    /// Decides again about what waits, the oldest first. Answers of how many lines were given.
    async fn look_at_all(&self, now: Timestamp) -> Result<usize, sqlx::Error> {
        let (mut given, mut otherwise, mut last) = (0, 0, None);
        loop {
            let mut conn = self.pool.acquire().await?;
            let mut lines = find::waiting(&mut conn, Which::After(last.as_ref()), now).await?;
            let mut people = People::load(&mut conn, &lines, now).await?;
            drop(conn);
            for line in &lines {
                let again = people.again(line);
                match again {
                    Again::AsItIs => continue,
                    Again::Otherwise if otherwise == OTHERWISE_MAX => continue,
                    Again::Otherwise => otherwise += 1,
                    Again::Decide => {}
                }
                let to = self.decide_again(line, now).await?;
                given += to.len();
                for one in &to {
                    people.took_one(one);
                }
                if again == Again::Decide && to.is_empty() {
                    // It is not as it was a moment ago, and so may others be.
                    let mut conn = self.pool.acquire().await?;
                    people = People::load(&mut conn, &lines, now).await?;
                }
            }
            last = match lines.pop() {
                Some(line) if lines.len() + 1 == find::TOGETHER => Some(line),
                _ => return Ok(given),
            };
        }
    }

    /// Forgets what somebody has, or what is over, and lets wait what was given in vain.
    async fn settle(&self, now: Timestamp) -> Result<(), sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        let settled = store::settled(&mut conn).await?;
        let failed = store::given_in_vain(&mut conn).await?;
        drop(conn);
        for sid in settled.iter().chain(&failed) {
            let mut transaction = self.pool.begin().await?;
            if mirror::read::lock_conversation(&mut transaction, sid)
                .await?
                .is_some()
            {
                for gone in store::forget_settled(&mut transaction, &[sid.as_str()]).await? {
                    tell::dequeued(&mut transaction, &gone, Via::Timer, now).await?;
                }
                for line in store::let_wait(&mut transaction, sid, now).await? {
                    tell::queued_again(&mut transaction, sid, &line, now).await?;
                }
            }
            transaction.commit().await?;
        }
        Ok(())
    }

    /// One line, with everything read again under its lock.
    async fn decide_again(&self, line: &Line, now: Timestamp) -> Result<Vec<String>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let sid = &line.conversation_sid;
        if mirror::read::lock_conversation(&mut transaction, sid)
            .await?
            .is_none()
        {
            return Ok(Vec::new());
        }
        let mut lines = find::waiting(&mut transaction, Which::Of(sid), now).await?;
        lines.retain(|other| other.line == line.line);
        let given = decide(&mut transaction, lines, Via::Timer, now).await?;
        transaction.commit().await?;
        Ok(given)
    }
}
