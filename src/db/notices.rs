//! One listening connection per process, which wakes whoever waits for tasks, webhooks or log entries.
//!
//! Notices are a shortcut, never the only way: everybody who waits also looks by the clock.
//!
//! The connection is asked for a sign of life when it has been silent for a while. That is also how we notice a database
//! that is frozen or cut off, and call off work that would wait for it for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use sqlx::{Acquire as _, Connection as _, PgPool};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::db::{ACQUIRE_TIMEOUT, within};
use crate::ids::new_id;
use crate::queue::Wake;

/// How long the connection may be silent before it is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(1);
/// How long it may take to give one.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two rounds of telling others, where there is always something to tell.
const TELL_PAUSE: Duration = Duration::from_millis(10);

/// What can be waited for.
#[derive(Debug, Clone)]
pub struct Notices {
    /// Tasks were put.
    pub tasks: Arc<Wake>,
    /// Webhooks were stored, here or by another replica.
    pub webhooks: Arc<Notify>,
    /// Log entries were committed; the number only grows.
    pub events: watch::Sender<u64>,
    /// The connection that listens was lost or gives no sign of life; whoever waits on the database had better begin
    /// again.
    pub lost: Arc<Notify>,
    /// What other processes have yet to be told.
    untold: Arc<Untold>,
    /// Stands in what is told, so that a process does not take its own news for somebody else's.
    teller: Uuid,
}

/// What can be announced after it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Webhooks,
    Events,
}

#[derive(Debug, Default)]
struct Untold {
    webhooks: AtomicBool,
    events: AtomicBool,
    some: Notify,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            tasks: Arc::default(),
            webhooks: Arc::default(),
            events: watch::Sender::new(0),
            lost: Arc::default(),
            untold: Arc::default(),
            teller: new_id(),
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
                Ok(Ok(Some(notice))) if notice.payload() == self.teller.to_string() => {}
                Ok(Ok(Some(notice))) => self.wake(&notice),
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => within(ANSWER_LIMIT, sign_of_life(&mut listener)).await?,
            }
        }
    }

    /// Wakes those of this process who wait, and has other processes told soon ([`Self::tell_others`]).
    ///
    /// A `NOTIFY` in the transaction itself would be surer and dearer: commits that notify wait for each other.
    pub fn announce(&self, topic: Topic) {
        let untold = match topic {
            Topic::Webhooks => {
                self.webhooks.notify_waiters();
                &self.untold.webhooks
            }
            Topic::Events => {
                self.events.send_modify(|count| *count += 1);
                &self.untold.events
            }
        };
        if !untold.swap(true, Ordering::AcqRel) {
            self.untold.some.notify_one();
        }
    }

    /// Tells other processes what is announced here, at once where nothing was told of late.
    pub async fn tell_others(self, pool: PgPool, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.untold.some.notified() => {}
            }
            let told = within(ACQUIRE_TIMEOUT, self.tell_others_now(&pool)).await;
            if let Err(error) = told {
                // They look by the clock, too.
                debug!(
                    error = &error as &dyn std::error::Error,
                    "cannot tell other processes of news"
                );
            }
            tokio::time::sleep(TELL_PAUSE).await;
        }
    }

    /// Tells other processes what is announced here, for one that is about to end.
    pub async fn tell_others_now(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let webhooks = self.untold.webhooks.swap(false, Ordering::AcqRel);
        let events = self.untold.events.swap(false, Ordering::AcqRel);
        let channels: Vec<&str> = [
            (webhooks, crate::inbox::CHANNEL),
            (events, crate::events::CHANNEL),
        ]
        .into_iter()
        .filter_map(|(is_untold, channel)| is_untold.then_some(channel))
        .collect();
        sqlx::query!(
            "-- notices.tell_others
            select pg_notify(channel, $2) from unnest($1::text[]) as channel",
            &channels as _,
            self.teller.to_string(),
        )
        .execute(pool)
        .await?;
        Ok(())
    }

    fn wake(&self, notice: &PgNotification) {
        match notice.channel() {
            crate::queue::CHANNEL => self.tasks.wake(notice.payload()),
            crate::inbox::CHANNEL => self.webhooks.notify_waiters(),
            crate::events::CHANNEL => self.events.send_modify(|count| *count += 1),
            _ => {}
        }
    }

    fn wake_all(&self) {
        self.tasks.wake_all();
        self.webhooks.notify_waiters();
        self.events.send_modify(|count| *count += 1);
    }
}

async fn sign_of_life(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    listener.acquire().await?.ping().await
}
