//! Group commit: webhooks that come while a commit is under way are written together by the next one.
//!
//! Nobody waits for a timer: a webhook that finds the writer idle is written at once and alone. The cost of a commit is
//! shared by all that came during the one before.
//!
//! A write that the database did not take is tried again for a moment: a webhook has one key for ever, so that a second
//! attempt stores nothing twice, and a restart of the database that is over in a second costs no refusal.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::{Connection as _, PgPool};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::db::{self, is_passing};
use crate::inbox::{NewWebhook, Stored, store};

/// Webhooks written in one statement at most.
const BATCH_MAX: usize = 512;

/// Webhooks that may wait for the writer; beyond it the answer is 503.
const QUEUE_MAX: usize = 8192;

/// How long a batch is tried. Those who wait behind it are to be answered within five seconds, too.
const WRITE_LIMIT: Duration = Duration::from_secs(3);

/// How long one attempt waits for a connection: a database that is back should not wait for an attempt that began
/// before.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(1);

/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

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
    /// Starts the writer. It ends when the token is cancelled and everything that was handed in is answered.
    pub fn start(pool: PgPool, cancel: CancellationToken) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let handle = tokio::spawn(write_all(pool, receiver, cancel));
        (Self { sender }, handle)
    }

    /// Answers once the webhook is committed.
    pub async fn store(&self, webhook: NewWebhook) -> Result<Stored, NotStored> {
        let (answer, stored) = oneshot::channel();
        self.sender
            .try_send(Request { webhook, answer })
            .map_err(|_| NotStored::Overloaded)?;
        stored.await.unwrap_or(Err(NotStored::Database))
    }
}

async fn write_all(pool: PgPool, mut receiver: mpsc::Receiver<Request>, cancel: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        tokio::select! {
            biased;
            taken = receiver.recv_many(&mut batch, BATCH_MAX) => {
                if taken == 0 {
                    return;
                }
            }
            () = cancel.cancelled() => receiver.close(),
        }
        if !batch.is_empty() {
            write(&pool, std::mem::take(&mut batch)).await;
        }
    }
}

async fn write(pool: &PgPool, batch: Vec<Request>) {
    let batch: Vec<Request> = batch
        .into_iter()
        .filter(|request| !request.answer.is_closed())
        .collect();
    if batch.is_empty() {
        return;
    }
    match insert_in_time(pool, &batch).await {
        Ok(new) => answer(batch, &new),
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

async fn insert_in_time(pool: &PgPool, batch: &[Request]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let deadline = Instant::now() + WRITE_LIMIT;
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        match db::within(rest, insert(pool, batch)).await {
            Err(error) if is_passing(&error) && Instant::now() + RETRY_PAUSE < deadline => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "storing webhooks once more"
                );
                sleep(RETRY_PAUSE).await;
            }
            settled => return settled,
        }
    }
}

/// The same webhook may stand in a batch twice; PostgreSQL takes the first.
async fn insert(pool: &PgPool, batch: &[Request]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let webhooks: Vec<&NewWebhook> = batch.iter().map(|request| &request.webhook).collect();
    let mut conn = db::within(ACQUIRE_LIMIT, pool.acquire()).await?;
    let mut transaction = conn.begin().await?;
    let new = store::insert(&mut transaction, &webhooks).await?;
    transaction.commit().await?;
    Ok(new.into_iter().collect())
}

fn answer(batch: Vec<Request>, new: &HashSet<Uuid>) {
    let mut unanswered = new.clone();
    for request in batch {
        let stored = if unanswered.remove(&request.webhook.dedupe_key) {
            Stored::New
        } else {
            Stored::Duplicate
        };
        request.answer.send(Ok(stored)).ok();
    }
}
