//! How complete the mirror is, for whoever asks often: one reading serves all that come within a few seconds.
//!
//! [`completeness::total`] reads a row of every conversation. However many ask at once, a process makes one such reading
//! at a time, and the others wait for it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::sweep::completeness::{self, Total};

/// How old an answer may be.
const FRESH_FOR: SignedDuration = SignedDuration::from_secs(5);

/// Shares readings of the total. Cheap to clone; clones share what was read.
#[derive(Debug, Clone)]
pub struct Totals {
    pool: PgPool,
    clock: Clock,
    last: Arc<Mutex<Option<Reading>>>,
}

/// What was read, and when that began.
#[derive(Debug, Clone)]
pub struct Reading {
    pub read_at: Timestamp,
    pub total: Arc<Total>,
}

impl Reading {
    /// Whether it will still do. One from the future, by a clock that was set back, will not.
    fn is_fresh(&self, now: Timestamp) -> bool {
        let age = now.duration_since(self.read_at);
        !age.is_negative() && age < FRESH_FOR
    }
}

impl Totals {
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        Self {
            pool,
            clock,
            last: Arc::default(),
        }
    }

    /// The total, at most five seconds old.
    ///
    /// A reading goes on when whoever asked has gone, so that the next one finds it.
    pub async fn read(&self) -> Result<Reading, sqlx::Error> {
        let shared = self.clone();
        let reading = tokio::spawn(async move { shared.read_or_share().await });
        reading.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn read_or_share(&self) -> Result<Reading, sqlx::Error> {
        let mut last = self.last.lock().await;
        let read_at = self.clock.now();
        if let Some(reading) = last.as_ref().filter(|reading| reading.is_fresh(read_at)) {
            return Ok(reading.clone());
        }
        let total = completeness::total(&mut *self.pool.acquire().await?).await?;
        let reading = Reading {
            read_at,
            total: Arc::new(total),
        };
        *last = Some(reading.clone());
        Ok(reading)
    }

    /// Sets the gauges that tell how complete the mirror is.
    pub async fn publish(&self) -> Result<(), sqlx::Error> {
        let reading = self.read().await?;
        completeness::publish(&reading.total, self.clock.now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::{Compared, Found};

    #[test]
    fn a_reading_is_fresh_for_a_few_seconds_and_never_before_it_was_made() {
        let read_at: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let total = Total {
            conversations: 0,
            never_verified: 0,
            in_doubt: 0,
            verified_at: None,
            verified_by: None,
            unverified_since: None,
            compared: Compared::default(),
            found: Found::default(),
            webhooks_set_aside: 0,
            webhooks_pending: 0,
            accounts: Vec::new(),
        };
        let reading = Reading {
            read_at,
            total: Arc::new(total),
        };
        let after = |ms| reading.is_fresh(read_at + SignedDuration::from_millis(ms));
        assert!(after(0) && after(4_999));
        assert!(!after(5_000) && !after(-1));
    }
}
