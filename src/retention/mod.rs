//! What is erased when, and legal hold, which always wins. Owns `legal_hold` and `retention_progress`.
//!
//! Each class of data has one rule: how long it is kept. What is due is erased in batches, each in a transaction of its
//! own with an entry of the log; the places that hold a class are named in [`places`], and nowhere else. What is erased
//! from the log leaves its salted hash behind, so that the seals can still be checked ([`crate::audit`]); everything else
//! leaves one by which whoever has the original can show that it was that.

mod hold;
mod places;
mod store;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config;
use crate::events::{self, Kind, NewEvent, Via};
use places::{Due, Place};

pub use hold::{LegalHold, find_hold, hold, release};
pub use store::{all_held, held_of, lock};

/// A class of data that has a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// What Twilio told, word for word: the forms of webhooks, and the recorded answers of our own calls.
    Webhooks,
    /// What messages and sends say, what media they had, and what people wrote of transfers that are over.
    MessageBodies,
    /// Attributes of what is over.
    Attributes,
    /// What was said before.
    Versions,
    /// What did not verify.
    Quarantine,
    /// What entries of the log say, and who did it.
    Log,
}

impl Class {
    pub const ALL: [Self; 6] = [
        Self::Webhooks,
        Self::MessageBodies,
        Self::Attributes,
        Self::Versions,
        Self::Quarantine,
        Self::Log,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhooks => "webhooks",
            Self::MessageBodies => "message_bodies",
            Self::Attributes => "attributes",
            Self::Versions => "versions",
            Self::Quarantine => "quarantine",
            Self::Log => "log",
        }
    }

    fn kept(self, settings: &config::Retention) -> Option<Duration> {
        match self {
            Self::Webhooks => settings.webhooks,
            Self::MessageBodies => settings.message_bodies,
            Self::Attributes => settings.attributes,
            Self::Versions => settings.versions,
            Self::Quarantine => settings.quarantine,
            Self::Log => settings.log,
        }
    }
}

/// Rows that are looked at in one transaction.
const BATCH: i64 = 500;
/// The same where rows are looked through in rounds: most of them are not due.
const BATCH_OF_ROUND: i64 = 2_000;
/// Batches of one periodic run and place; what is left waits for the next.
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

/// How far one run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All that is due is counted, and nothing erased.
    Count,
    All,
    /// As much as one periodic run does.
    Some,
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
                match self.run(class, Extent::Some).await {
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
        let extent = if dry_run { Extent::Count } else { Extent::All };
        self.run(class, extent).await
    }

    async fn run(&self, class: Class, extent: Extent) -> Result<Option<Erased>, sqlx::Error> {
        let kept = class.kept(&self.settings);
        let Some(before) = kept.and_then(|kept| before(self.clock.now(), kept)) else {
            return Ok(None);
        };
        let mut total = Erased::default();
        for place in class.places() {
            // A round that is asked for is whole; the periodic one goes on from where the last one has come to.
            let mut from = (extent == Extent::All && place.is_in_rounds()).then(store::Progress::default);
            let mut batches = 0;
            loop {
                let batch = self.batch(class, *place, before, from, extent).await?;
                total.erased += batch.erased.erased;
                total.held += batch.erased.held;
                from = batch.next;
                batches += 1;
                if from.is_none() || (extent == Extent::Some && batches >= BATCHES_MAX) {
                    break;
                }
            }
        }
        Ok(Some(total))
    }

    /// One transaction. Goes on from `from`, or from where the last one has come to.
    async fn batch(
        &self,
        class: Class,
        place: Place,
        before: Timestamp,
        from: Option<store::Progress>,
        extent: Extent,
    ) -> Result<Batch, sqlx::Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        // With this lock no hold begins meanwhile, and no other process erases.
        lock(&mut transaction).await?;
        let start = match (from, extent) {
            (Some(from), Extent::Count) => from,
            (Some(from), Extent::All | Extent::Some) if place.is_in_rounds() => from,
            (None, Extent::Count) if place.is_in_rounds() => store::Progress::default(),
            _ => store::progress(&mut transaction, place).await?,
        };
        let limit = if place.is_in_rounds() {
            BATCH_OF_ROUND
        } else {
            BATCH
        };
        let looked = places::look(&mut transaction, place, &start, before, limit).await?;
        let Some(last) = looked.last().map(|one| one.at.clone()) else {
            if place.is_in_rounds() && extent != Extent::Count {
                store::advance(&mut transaction, place, &store::Progress::default()).await?;
                transaction.commit().await?;
            }
            return Ok(Batch::default());
        };
        let due: Vec<Due> = looked.into_iter().filter(|one| !one.is_left).collect();
        let held = held_of(
            &mut transaction,
            due.iter().filter_map(|one| one.conversation_sid.as_deref()),
        )
        .await?;
        let (kept, gone): (Vec<_>, Vec<_>) = due.into_iter().partition(|one| {
            one.conversation_sid
                .as_ref()
                .is_some_and(|sid| held.contains(sid))
        });
        let mut batch = Batch {
            erased: Erased {
                erased: i64::try_from(gone.len()).unwrap_or(i64::MAX),
                held: i64::try_from(kept.len()).unwrap_or(i64::MAX),
            },
            next: Some(last.clone()),
        };
        if extent == Extent::Count {
            return Ok(batch);
        }
        if !gone.is_empty() {
            batch.erased.erased = places::erase(&mut transaction, place, &gone, before, now).await?;
            let told = told(class, place, before, batch.erased, &gone, now);
            events::append(&mut transaction, &[told]).await?;
        }
        store::advance(&mut transaction, place, &last).await?;
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

/// Tells how much of what was erased, and of which conversations.
fn told(
    class: Class,
    place: Place,
    before: Timestamp,
    erased: Erased,
    gone: &[Due],
    now: Timestamp,
) -> NewEvent {
    let conversations: BTreeSet<&str> = gone
        .iter()
        .filter_map(|one| one.conversation_sid.as_deref())
        .collect();
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
            "place": place.as_str(),
            "before": before,
            "erased": erased.erased,
            "held": erased.held,
            "conversations": conversations,
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
