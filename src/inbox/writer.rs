//! Group commit: webhooks that come while a commit is under way are written together by the next one.
//!
//! Nobody waits for a timer: a webhook that finds its writer idle is written at once and alone. The cost of a commit is
//! shared by all that came during the one before.
//!
//! There are two ways to write a batch. A **small** one is stored and nothing else, so that Twilio has its answer soon;
//! a projector takes it from there. A **large** one, which comes of many webhooks at once, is stored *and projected* in
//! the same transaction: one commit instead of two, and no row is written again to say that it was projected. The second
//! way is only a shorter one: whatever stands in its way (a lane that somebody works on, a lock that does not come at
//! once, a webhook that the database refuses), the batch is stored the first way.
//!
//! There is one writer: while it waits for the disk, more webhooks come, and the next statement is the larger for it. Two
//! made batches half as large, and each webhook cost a tenth more (`bench_webhooks`, 64 connections).
//!
//! A write that the database did not take is tried again for a moment: a webhook has one key for ever, so that a second
//! attempt stores nothing twice, and a restart of the database that is over in a second costs no refusal.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, PgPool, Postgres};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::db::{self, Notices, Topic, is_passing};
use crate::inbox::process::Projector;
use crate::inbox::store::Pending;
use crate::inbox::{NewWebhook, Stored, store};

/// Webhooks written in one statement at most.
const BATCH_MAX: usize = 512;

/// From so many webhooks on, a batch is projected as it is stored.
const LARGE: usize = 64;

/// Webhooks that waited in the lanes of a large batch and are projected with it, at most.
const PENDING_MAX: i64 = 256;

/// Webhooks that may wait for the writer; beyond it the answer is 503.
const QUEUE_MAX: usize = 8192;

/// How long a batch is tried. Those who wait behind it are to be answered within five seconds, too.
const WRITE_LIMIT: Duration = Duration::from_secs(3);

/// How much of that may go into projecting a large batch as it is stored. Locks are waited for much shorter than that,
/// see [`BEGIN_LARGE`].
const PROJECT_LIMIT: Duration = Duration::from_millis(1_200);

/// How long one attempt waits for a connection: a database that is back should not wait for an attempt that began
/// before.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(1);

/// How long a writer without work keeps its connection.
const GIVE_BACK_AFTER: Duration = Duration::from_millis(250);

/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Acknowledgements wait for this transaction: it takes no lock that is not to be had at once.
const BEGIN_LARGE: &str = "begin; set local lock_timeout = 100";

/// What the writer needs.
#[derive(Debug, Clone)]
pub struct Writing {
    pub pool: PgPool,
    pub notices: Notices,
    /// Projects large batches as they are stored. Without it, all is left to the projectors.
    pub projector: Option<Projector>,
}

/// Hands webhooks to the task that commits them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    sender: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    webhook: NewWebhook,
    answer: oneshot::Sender<Result<Stored, NotStored>>,
}

/// The webhook was not committed, or we do not know that it was: Twilio is not told 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    #[error("too many webhooks wait to be stored")]
    Overloaded,
    #[error("the database did not take the webhook")]
    Database,
}

impl Writer {
    /// Answers once the webhook is committed.
    pub async fn store(&self, webhook: NewWebhook) -> Result<Stored, NotStored> {
        let (answer, stored) = oneshot::channel();
        self.sender
            .try_send(Request { webhook, answer })
            .map_err(|_| NotStored::Overloaded)?;
        stored.await.unwrap_or(Err(NotStored::Database))
    }
}

impl Writing {
    /// Starts the writer. It ends when the token is cancelled and everything that was handed in is answered.
    pub fn start(self, cancel: &CancellationToken) -> (Writer, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let ended = tokio::spawn(self.write_all(receiver, cancel.clone()));
        (Writer { sender }, ended)
    }

    async fn write_all(self, mut receiver: mpsc::Receiver<Request>, cancel: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        // Kept while there is work, and given back in a pause: the pool knows which ones can be trusted after one.
        let mut conn = None;
        loop {
            tokio::select! {
                biased;
                taken = receiver.recv_many(&mut batch, BATCH_MAX) => {
                    if taken == 0 {
                        return;
                    }
                }
                () = cancel.cancelled(), if !receiver.is_closed() => receiver.close(),
                () = sleep(GIVE_BACK_AFTER), if conn.is_some() => conn = None,
            }
            batch.retain(|request| !request.answer.is_closed());
            if !batch.is_empty() {
                self.write(&mut conn, std::mem::take(&mut batch)).await;
            }
        }
    }

    async fn write(&self, conn: &mut Option<PoolConnection<Postgres>>, batch: Vec<Request>) {
        let webhooks: Vec<&NewWebhook> = batch.iter().map(|request| &request.webhook).collect();
        let deadline = Instant::now() + WRITE_LIMIT;
        let written = match self.store_and_project(conn, &webhooks).await {
            Some(new) => Ok(new),
            None => self.store_in_time(conn, &webhooks, deadline).await,
        };
        match written {
            Ok(new) => answer(batch, new),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    webhooks = batch.len(),
                    "cannot store webhooks"
                );
                metrics::counter!("hookswitch_webhooks_not_stored_total").increment(batch.len() as u64);
                for request in batch {
                    request.answer.send(Err(NotStored::Database)).ok();
                }
            }
        }
    }

    /// Stores a large batch as projected, and projects it. None: it is not large, or it has to be stored alone.
    async fn store_and_project(
        &self,
        conn: &mut Option<PoolConnection<Postgres>>,
        webhooks: &[&NewWebhook],
    ) -> Option<New> {
        let projector = self.projector.as_ref().filter(|_| webhooks.len() >= LARGE)?;
        let attempt = Box::pin(self.project_once(conn, projector, webhooks));
        match db::within(PROJECT_LIMIT, attempt).await {
            Ok(new) => Some(new),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    webhooks = webhooks.len(),
                    "storing webhooks without projecting them"
                );
                metrics::counter!("hookswitch_webhook_batches_not_projected_at_once_total").increment(1);
                *conn = None;
                None
            }
        }
    }

    async fn project_once(
        &self,
        conn: &mut Option<PoolConnection<Postgres>>,
        projector: &Projector,
        webhooks: &[&NewWebhook],
    ) -> Result<New, sqlx::Error> {
        let conn = self.connection(conn).await?;
        let now = projector.clock.now();
        let mut transaction = conn.begin_with(BEGIN_LARGE).await?;

        let wanted: BTreeSet<i16> = webhooks.iter().map(|webhook| webhook.lane()).collect();
        let locked = store::lock_lanes(&mut transaction, &wanted.into_iter().collect::<Vec<_>>()).await?;
        let waiting: Vec<i16> = locked
            .iter()
            .filter_map(|lane| lane.has_pending.then_some(lane.lane))
            .collect();
        let pending = if waiting.is_empty() {
            Vec::new()
        } else {
            store::pending(&mut transaction, &waiting, PENDING_MAX).await?
        };
        // Where more wait than are taken now, the new ones wait behind them.
        let caught_up = i64::try_from(pending.len()).is_ok_and(|taken| taken < PENDING_MAX);
        let projected: Vec<i16> = locked
            .iter()
            .filter_map(|lane| (caught_up || !lane.has_pending).then_some(lane.lane))
            .collect();

        let new = New::of(&store::insert(&mut transaction, webhooks, &projected).await?);
        let mut stored: Vec<Pending> = webhooks
            .iter()
            .filter(|webhook| projected.contains(&webhook.lane()))
            .filter_map(|webhook| Some(Pending::of(webhook, new.id_of(webhook)?)))
            .collect();
        // Of two of one key in a batch, one was stored.
        stored.sort_unstable_by_key(|webhook| webhook.webhook_id);
        stored.dedup_by_key(|webhook| webhook.webhook_id);
        projector
            .project_at_once(&mut transaction, &pending, &stored, now)
            .await?;
        transaction.commit().await?;
        projector.announce(pending.len() + stored.len());
        if stored.len() < new.0.len() {
            self.notices.announce(Topic::Webhooks);
        }
        Ok(new)
    }

    async fn store_in_time(
        &self,
        conn: &mut Option<PoolConnection<Postgres>>,
        webhooks: &[&NewWebhook],
        deadline: Instant,
    ) -> Result<New, sqlx::Error> {
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match db::within(rest, Box::pin(self.store_once(conn, webhooks))).await {
                Err(error) if is_passing(&error) && Instant::now() + RETRY_PAUSE < deadline => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "storing webhooks once more"
                    );
                    *conn = None;
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    *conn = None;
                    return Err(error);
                }
                Ok(new) => {
                    self.notices.announce(Topic::Webhooks);
                    return Ok(new);
                }
            }
        }
    }

    async fn store_once(
        &self,
        conn: &mut Option<PoolConnection<Postgres>>,
        webhooks: &[&NewWebhook],
    ) -> Result<New, sqlx::Error> {
        let conn = self.connection(conn).await?;
        // One statement is a transaction of its own.
        Ok(New::of(&store::insert(conn, webhooks, &[]).await?))
    }

    async fn connection<'a>(
        &self,
        conn: &'a mut Option<PoolConnection<Postgres>>,
    ) -> Result<&'a mut PoolConnection<Postgres>, sqlx::Error> {
        match conn {
            Some(conn) => Ok(conn),
            none => Ok(none.insert(db::within(ACQUIRE_LIMIT, self.pool.acquire()).await?)),
        }
    }
}

/// The webhooks of a batch that had not been stored before, by their keys.
struct New(HashMap<Uuid, i64>);

impl New {
    fn of(inserted: &[store::Inserted]) -> Self {
        let ids = inserted.iter().map(|one| (one.dedupe_key, one.webhook_id));
        Self(ids.collect())
    }

    fn id_of(&self, webhook: &NewWebhook) -> Option<i64> {
        self.0.get(&webhook.dedupe_key).copied()
    }
}

/// The same webhook may stand in a batch twice; PostgreSQL takes the first.
fn answer(batch: Vec<Request>, mut new: New) {
    for request in batch {
        let stored = if new.0.remove(&request.webhook.dedupe_key).is_some() {
            Stored::New
        } else {
            Stored::Duplicate
        };
        request.answer.send(Ok(stored)).ok();
    }
}
