//! What is erased when, and legal hold, which always wins. Owns `legal_hold` and `retention_progress`.
//!
//! Each class of data has one rule: how long it is kept. What is due is erased in batches, each in a transaction of its
//! own with an entry of the log; the places that hold a class are named in [`places`], and nowhere else. What is erased
//! from the log leaves its salted hash behind, so that the seals can still be checked ([`crate::audit`]).

mod hold;
mod places;
mod store;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config;
use crate::events::{self, Kind, NewEvent, Via};

pub use hold::{LegalHold, find_hold, hold, release};

/// A class of data that has a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The forms of webhooks, as received.
    Webhooks,
    /// What entries of the log say, and who did it.
    Log,
}

impl Class {
    pub const ALL: [Self; 2] = [Self::Webhooks, Self::Log];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhooks => "webhooks",
            Self::Log => "log",
        }
    }
}

/// Rows that are looked at in one transaction.
const BATCH: i64 = 500;
/// Batches of one periodic run and class; what is left waits for the next.
const BATCHES_MAX: u32 = 200;

/// What one run erased of a class, or would erase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    pub erased: i64,
    /// Due, and kept because of a legal hold.
    pub held: i64,
}

/// What one batch came to.
#[derive(Debug, Default)]
struct Batch {
    erased: Erased,
    /// Where the next batch begins; none at the end of what is due.
    next: Option<store::Progress>,
}

/// What erases. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Retention {
    pub pool: PgPool,
    pub clock: Clock,
    pub settings: config::Retention,
}

impl Retention {
    /// Runs the rules now and then, until cancelled.
    pub async fn keep_running(self, cancel: CancellationToken) {
        let every = self.settings.every;
        if every.is_zero() {
            return;
        }
        while cancel
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            for class in Class::ALL {
                match self.run(class, false, BATCHES_MAX).await {
                    Ok(Some(done)) if done.erased > 0 => {
                        info!(
                            class = class.as_str(),
                            erased = done.erased,
                            "erased what was due"
                        );
                    }
                    Ok(_) => {}
                    Err(error) => warn!(
                        class = class.as_str(),
                        error = &error as &dyn std::error::Error,
                        "could not erase what is due"
                    ),
                }
            }
        }
    }

    /// Erases all of a class that is due, or only counts it. None where the class is kept for good.
    pub async fn run_all(&self, class: Class, dry_run: bool) -> Result<Option<Erased>, sqlx::Error> {
        self.run(class, dry_run, u32::MAX).await
    }

    async fn run(&self, class: Class, dry_run: bool, batches: u32) -> Result<Option<Erased>, sqlx::Error> {
        let kept = match class {
            Class::Webhooks => self.settings.webhooks,
            Class::Log => self.settings.log,
        };
        let Some(before) = kept.and_then(|kept| before(self.clock.now(), kept)) else {
            return Ok(None);
        };
        let (mut total, mut from) = (Erased::default(), None);
        for _ in 0..batches {
            let batch = self.batch(class, before, from, dry_run).await?;
            total.erased += batch.erased.erased;
            total.held += batch.erased.held;
            match batch.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        Ok(Some(total))
    }

    /// One transaction. A dry run goes on from `from`, a real one from where the last one has come to.
    async fn batch(
        &self,
        class: Class,
        before: Timestamp,
        from: Option<store::Progress>,
        dry_run: bool,
    ) -> Result<Batch, sqlx::Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        // With this lock no hold begins meanwhile, and no other process erases.
        store::lock(&mut transaction).await?;
        let start = match from {
            Some(from) if dry_run => from,
            _ => store::progress(&mut transaction, class).await?,
        };
        let due = places::due(&mut transaction, class, start, before, BATCH).await?;
        let Some(next) = due.iter().map(|one| one.place).next_back() else {
            return Ok(Batch::default());
        };
        let held = store::held_of(
            &mut transaction,
            due.iter().filter_map(|one| one.conversation_sid.as_deref()),
        )
        .await?;
        let (kept, gone): (Vec<_>, Vec<_>) = due.into_iter().filter(|one| !one.is_erased).partition(|one| {
            one.conversation_sid
                .as_ref()
                .is_some_and(|sid| held.contains(sid))
        });
        let mut batch = Batch {
            erased: Erased {
                erased: i64::try_from(gone.len()).unwrap_or(i64::MAX),
                held: i64::try_from(kept.len()).unwrap_or(i64::MAX),
            },
            next: Some(next),
        };
        if dry_run {
            return Ok(batch);
        }
        if !gone.is_empty() {
            batch.erased.erased = places::erase(&mut transaction, class, &gone, now).await?;
            events::append(&mut transaction, &[told(class, before, batch.erased, now)]).await?;
        }
        store::advance(&mut transaction, class, next).await?;
        transaction.commit().await?;
        Ok(batch)
    }
}

/// Up to when what is kept so long is due; none where that is before all time.
fn before(now: Timestamp, kept: Duration) -> Option<Timestamp> {
    SignedDuration::try_from(kept)
        .ok()
        .and_then(|kept| now.checked_sub(kept).ok())
}

fn told(class: Class, before: Timestamp, erased: Erased, now: Timestamp) -> NewEvent {
    NewEvent {
        kind: Kind::RetentionErased,
        account_sid: None,
        conversation_sid: None,
        subject: class.as_str().to_owned(),
        actor: None,
        via: Via::Worker,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: serde_json::json!({
            "class": class.as_str(),
            "before": before,
            "erased": erased.erased,
            "held": erased.held,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_longer_than_there_is_time_is_never_due() {
        let now = "2026-03-01T14:00:00Z".parse().unwrap();
        let day = Duration::from_hours(24);
        assert_eq!(before(now, day), Some("2026-02-28T14:00:00Z".parse().unwrap()));
        assert_eq!(before(now, Duration::MAX), None);
        assert_eq!(before(now, day * 100_000_000), None);
    }
}
