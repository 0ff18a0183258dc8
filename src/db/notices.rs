//! One listening connection per process, which wakes whoever waits for tasks, webhooks or log entries.
//!
//! Notices are a shortcut, never the only way: everybody who waits also looks by the clock.
//!
//! The connection is asked for a sign of life when it has been silent for a while. That is also how we notice a database
//! that is frozen or cut off, and call off work that would wait for it for ever.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Acquire as _, Connection as _, PgPool};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::db::{ACQUIRE_TIMEOUT, within};

/// How long the connection may be silent before it is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(1);
/// How long it may take to give one.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);

/// What can be waited for.
#[derive(Debug, Clone)]
pub struct Notices {
    /// Tasks were put.
    pub tasks: Arc<Notify>,
    /// Webhooks were stored, here or by another replica.
    pub webhooks: Arc<Notify>,
    /// Log entries were committed; the number only grows.
    pub events: watch::Sender<u64>,
    /// The connection that listens was lost or gives no sign of life; whoever waits on the database had better begin
    /// again.
    pub lost: Arc<Notify>,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            tasks: Arc::default(),
            webhooks: Arc::default(),
            events: watch::Sender::new(0),
            lost: Arc::default(),
        }
    }
}

impl Notices {
    /// Listens until cancelled, and connects again where the connection is lost.
    pub async fn listen(self, pool: PgPool, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            tokio::select! {
                () = cancel.cancelled() => return,
                result = self.listen_once(&pool) => {
                    self.lost.notify_waiters();
                    if let Err(error) = result {
                        warn!(error = &error as &dyn std::error::Error, "lost the connection that listens for notices");
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn listen_once(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        // A pool of its own: a listener that is dropped says goodbye first and waits for the answer, which, where none
        // comes, would keep a place in the common pool until the system gives the connection up.
        let own = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(pool.connect_options().as_ref().clone());
        let mut listener = PgListener::connect_with(&own).await?;
        listener.eager_reconnect(false);
        let channels = [
            crate::queue::CHANNEL,
            crate::inbox::CHANNEL,
            crate::events::CHANNEL,
        ];
        within(ANSWER_LIMIT, listener.listen_all(channels)).await?;
        // What came while nobody listened is unknown.
        self.wake_all();
        loop {
            match tokio::time::timeout(SILENCE, listener.try_recv()).await {
                Ok(Ok(Some(notice))) => self.wake(notice.channel()),
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => within(ANSWER_LIMIT, sign_of_life(&mut listener)).await?,
            }
        }
    }

    fn wake(&self, channel: &str) {
        match channel {
            crate::queue::CHANNEL => self.tasks.notify_one(),
            crate::inbox::CHANNEL => self.webhooks.notify_waiters(),
            crate::events::CHANNEL => self.events.send_modify(|count| *count += 1),
            _ => {}
        }
    }

    fn wake_all(&self) {
        self.tasks.notify_one();
        self.webhooks.notify_waiters();
        self.events.send_modify(|count| *count += 1);
    }
}

async fn sign_of_life(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    listener.acquire().await?.ping().await
}
