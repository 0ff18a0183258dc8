//! One listening connection per process, which wakes whoever waits for tasks, webhooks or log entries.
//!
//! Notices are a shortcut, never the only way: everybody who waits also looks by the clock.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What can be waited for.
#[derive(Debug, Clone)]
pub struct Notices {
    /// Tasks were put.
    pub tasks: Arc<Notify>,
    /// Webhooks were stored, here or by another replica.
    pub webhooks: Arc<Notify>,
    /// Log entries were committed; the number only grows.
    pub events: watch::Sender<u64>,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            tasks: Arc::default(),
            webhooks: Arc::default(),
            events: watch::Sender::new(0),
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
                    if let Err(error) = result {
                        warn!(error = &error as &dyn std::error::Error, "lost the connection that listens for notices");
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    async fn listen_once(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener
            .listen_all([
                crate::queue::CHANNEL,
                crate::inbox::CHANNEL,
                crate::events::CHANNEL,
            ])
            .await?;
        self.wake_all();
        // None: the connection was lost and is back; what came in between is unknown.
        while let Some(notice) = listener.try_recv().await? {
            self.wake(notice.channel());
        }
        self.wake_all();
        Ok(())
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
