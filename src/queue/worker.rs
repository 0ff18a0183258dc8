//! Claims tasks and runs them: woken by NOTIFY, by the next due time, or by a slow tick where a notice was lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info_span, warn};

use crate::clock::Clock;
use crate::db::{self, is_passing};
use crate::queue::{Concurrency, Handler, Lane, Outcome, Task, TaskKind, Wake, backoff, store};

/// How long one of our own steps on the database may take; more than a living database ever needs, which has limits of
/// its own.
const STEP_LIMIT: Duration = Duration::from_secs(5);
/// Between two attempts while the database is away.
const PAUSE: Duration = Duration::from_millis(200);
/// The shortest sleep between two looks; and where somebody else holds what is due.
const SLEEP_MIN: Duration = Duration::from_millis(5);
const HELD_PAUSE: Duration = Duration::from_millis(20);
/// The longest sleep between two looks, whatever the settings say. A task that is put with a due time later than that wakes
/// nobody ([`store::put`]).
pub(super) const SLEEP_MAX: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub concurrency: Concurrency,
    /// How long a claim lasts. It is extended while the task runs, so this is how long the work of a process that died
    /// waits for another one.
    pub lease: Duration,
    /// The longest that one run of a task may take.
    pub run_time_limit: Duration,
    /// The longest sleep between two looks.
    pub poll: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: Concurrency::default(),
            lease: Duration::from_secs(20),
            run_time_limit: Duration::from_mins(2),
            poll: Duration::from_secs(5),
        }
    }
}

/// Runs tasks of the kinds that have a handler. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    pool: PgPool,
    clock: Clock,
    handlers: Arc<HashMap<&'static str, Arc<dyn Handler>>>,
    kinds: Arc<[TaskKind]>,
    settings: Settings,
}

impl Worker {
    pub fn new(
        pool: PgPool,
        clock: Clock,
        handlers: Vec<(TaskKind, Arc<dyn Handler>)>,
        settings: Settings,
    ) -> Self {
        let kinds = handlers.iter().map(|(kind, _)| *kind).collect();
        let handlers = handlers.into_iter().map(|(kind, handler)| (kind.name, handler));
        Self {
            pool,
            clock,
            handlers: Arc::new(handlers.collect()),
            kinds,
            settings,
        }
    }

    /// Works until cancelled, then finishes what is running. Each lane goes on by itself.
    pub async fn run(&self, wake: Arc<Wake>, cancel: CancellationToken) {
        let mut lanes = JoinSet::new();
        for lane in Lane::ALL {
            let (worker, wake, cancel) = (self.clone(), Arc::clone(&wake), cancel.clone());
            let kinds = self.names(|kind| kind.lane == lane);
            if !kinds.is_empty() {
                lanes.spawn(async move { worker.run_lane(lane, &kinds, &wake, &cancel).await });
            }
        }
        lanes.join_all().await;
    }

    async fn run_lane(&self, lane: Lane, kinds: &[&str], wake: &Wake, cancel: &CancellationToken) {
        let concurrency = self.settings.concurrency.of(lane);
        let mut running = JoinSet::new();
        while !cancel.is_cancelled() {
            let woken = wake.of(lane).notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let claimed = match self.claim(kinds, concurrency - running.len()).await {
                Ok(tasks) => tasks,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot claim tasks, trying again"
                    );
                    // Soon, and not by the slow tick: the database may be back at any moment.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let found = !claimed.is_empty();
            for task in claimed {
                let worker = self.clone();
                running.spawn(async move { worker.run_one(task).await });
            }
            // It asked for as many as there is room for: where fewer came, no more can be claimed now.
            let pause = if running.len() < concurrency {
                self.until_next(kinds, found).await
            } else {
                SLEEP_MAX
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = woken, if running.len() < concurrency => {}
                Some(_) = running.join_next() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    fn names(&self, of: impl Fn(&TaskKind) -> bool) -> Vec<&'static str> {
        self.kinds
            .iter()
            .filter(|kind| of(kind))
            .map(|kind| kind.name)
            .collect()
    }

    /// Runs what is due, one after the other, until nothing is. Answers how many runs that took.
    pub async fn run_until_idle(&self) -> Result<usize, sqlx::Error> {
        let kinds = self.names(|_| true);
        let mut runs = 0;
        loop {
            let tasks = self.claim(&kinds, 1).await?;
            if tasks.is_empty() {
                return Ok(runs);
            }
            for task in tasks {
                self.run_one(task).await;
                runs += 1;
            }
        }
    }

    async fn claim(&self, kinds: &[&str], limit: usize) -> Result<Vec<Task>, sqlx::Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        db::within(STEP_LIMIT, async {
            let mut conn = self.pool.acquire().await?;
            store::claim(&mut conn, kinds, limit, now, after(now, self.settings.lease)).await
        })
        .await
    }

    async fn until_next(&self, kinds: &[&str], found: bool) -> Duration {
        let longest = self.settings.poll.min(SLEEP_MAX);
        let next = db::within(STEP_LIMIT, async {
            let mut conn = self.pool.acquire().await?;
            store::next_due(&mut conn, kinds).await
        })
        .await;
        let until = match next {
            Ok(Some(at)) => Duration::try_from(at.duration_since(self.clock.now())).unwrap_or_default(),
            Ok(None) => longest,
            Err(_) => PAUSE,
        };
        // What is due and could not be claimed is held by somebody for a moment.
        let shortest = if found || !until.is_zero() {
            SLEEP_MIN
        } else {
            HELD_PAUSE
        };
        until.min(longest).max(shortest)
    }

    async fn run_one(&self, task: Task) {
        let span = info_span!("task.run", task.id = task.lease.task_id, task.kind = %task.kind, task.attempt = task.attempts);
        async {
            let Some(handler) = self.handlers.get(task.kind.as_str()) else {
                return;
            };
            let claimed = Instant::now();
            let Some(outcome) = self.run_leased(handler.as_ref(), &task).await else {
                warn!("the task went to another worker, stopped");
                return;
            };
            if let Err(error) = self
                .settle_while_leased(handler.as_ref(), &task, &outcome, claimed)
                .await
            {
                // The lease runs out and the task is run again.
                warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot record what became of a task"
                );
            }
        }
        .instrument(span)
        .await;
    }

    /// Runs the task while its lease is kept alive. None: the lease was lost, and the run was stopped where it was.
    async fn run_leased(&self, handler: &dyn Handler, task: &Task) -> Option<Outcome> {
        let limit = self.settings.run_time_limit;
        let run = tokio::time::timeout(limit, handler.run(task));
        tokio::pin!(run);
        let mut beat = tokio::time::interval(self.settings.lease / 3);
        beat.reset();
        loop {
            tokio::select! {
                outcome = &mut run => {
                    let stopped = || Outcome::Retry(anyhow::anyhow!("stopped after {} s", limit.as_secs()));
                    return Some(outcome.unwrap_or_else(|_| stopped()));
                }
                _ = beat.tick() => {
                    let now = self.clock.now();
                    let extended = db::within(STEP_LIMIT, async {
                        let mut conn = self.pool.acquire().await?;
                        store::extend(&mut conn, task.lease, after(now, self.settings.lease)).await
                    });
                    let extended = extended.await;
                    // Without an answer we go on: what is recorded names the token.
                    if matches!(extended, Ok(false)) {
                        return None;
                    }
                }
            }
        }
    }

    /// Records the outcome, for as long as that can still be of use: a database that comes back after a moment should not
    /// have the task wait for the end of its lease.
    async fn settle_while_leased(
        &self,
        handler: &dyn Handler,
        task: &Task,
        outcome: &Outcome,
        claimed: Instant,
    ) -> Result<(), sqlx::Error> {
        loop {
            let settled = db::within(STEP_LIMIT, self.settle(handler, task, outcome)).await;
            match settled {
                Err(error) if is_passing(&error) && claimed.elapsed() < self.settings.lease => {
                    tokio::time::sleep(PAUSE).await;
                }
                settled => return settled,
            }
        }
    }

    async fn settle(&self, handler: &dyn Handler, task: &Task, outcome: &Outcome) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        let mut conn = self.pool.acquire().await?;
        match outcome {
            Outcome::Finished => {}
            Outcome::Done => {
                store::finish(&mut conn, task.lease).await?;
            }
            Outcome::Wait(pause) => {
                store::give_back(&mut conn, task.lease, now + *pause, false, None).await?;
            }
            Outcome::Retry(cause) if task.attempts < task.attempts_max => {
                let text = format!("{cause:#}");
                warn!(error = %text, "task failed, trying again");
                let run_at = now + backoff(task.attempts, rand::random());
                store::give_back(&mut conn, task.lease, run_at, true, Some(&text)).await?;
            }
            Outcome::Retry(cause) | Outcome::Bury(cause) => {
                drop(conn);
                self.bury(handler, task, &format!("{cause:#}"), now).await?;
            }
        }
        Ok(())
    }

    async fn bury(
        &self,
        handler: &dyn Handler,
        task: &Task,
        error: &str,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        error!(error = %error, "task buried, a person has to look");
        let mut transaction = self.pool.begin().await?;
        if store::bury(&mut transaction, task.lease, error, now).await? {
            handler.buried(&mut transaction, task, error).await?;
            transaction.commit().await?;
        }
        Ok(())
    }
}

fn after(now: Timestamp, lease: Duration) -> Timestamp {
    now + SignedDuration::try_from(lease).unwrap_or(SignedDuration::from_mins(5))
}
