//! What is erased when, and legal hold, which always wins. Owns `legal_hold`,
//! `retention_progress` and `retention_released`.
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
use sqlx::{PgConnection, PgPool};
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
    /// What messages and sends say, what media they had, and what people wrote of transfers and handover plans that
    /// are over.
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
/// Between two batches of a periodic run, so that the service has the database for most of the time.
const PAUSE: Duration = Duration::from_millis(20);

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
    /// As [`Extent::All`], without hurry; what is looked through in rounds from where the last round was left.
    InTheBackground,
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
                // What is cut off is one transaction, which is not committed then.
                let run = cancel
                    .run_until_cancelled(self.run(class, Extent::InTheBackground))
                    .await;
                let Some(ended) = run else { return };
                match ended {
                    Ok(Some(done)) => {
                        let now = self.clock.now().as_duration().as_secs_f64();
                        metrics::gauge!("hookswitch_retention_completed_timestamp_seconds", "class" => class.as_str())
                            .set(now);
                        if done.erased > 0 {
                            info!(
                                class = class.as_str(),
                                erased = done.erased,
                                "erased what was due"
                            );
                        }
                    }
                    Ok(None) => {}
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
            loop {
                let batch = self.batch(class, *place, before, from, extent).await?;
                total.add(batch.erased);
                from = batch.next;
                if from.is_none() {
                    break;
                }
                pause(extent).await;
            }
            if !Place::IN_ORDER.contains(place) {
                continue;
            }
            let mut of = Released::default();
            while let Some((erased, next)) = self.batch_of_released(class, *place, before, of, extent).await?
            {
                total.add(erased);
                of = next;
                pause(extent).await;
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
            (Some(from), Extent::All | Extent::InTheBackground) if place.is_in_rounds() => from,
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
        let erased = erase_looked(&mut transaction, class, place, before, looked, extent, now).await?;
        if extent != Extent::Count {
            store::advance(&mut transaction, place, &last).await?;
            transaction.commit().await?;
        }
        Ok(Batch {
            erased,
            next: Some(last),
        })
    }

    /// As [`Retention::batch`], of a conversation whose hold has ended: of what was passed by. None: there is none left.
    async fn batch_of_released(
        &self,
        class: Class,
        place: Place,
        before: Timestamp,
        of: Released,
        extent: Extent,
    ) -> Result<Option<(Erased, Released)>, sqlx::Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        lock(&mut transaction).await?;
        let until = store::progress(&mut transaction, place).await?;
        let (sid, start) = match of.counted {
            Some(counted) => (of.sid, counted),
            None => match store::next_released(&mut transaction, place, &of.sid).await? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        let looked = places::look_at_released(&mut transaction, place, &sid, &start, &until, BATCH).await?;
        let last = looked.last().map(|one| one.at.clone());
        let erased = erase_looked(&mut transaction, class, place, before, looked, extent, now).await?;
        if extent == Extent::Count {
            return Ok(Some((erased, Released { sid, counted: last })));
        }
        store::advance_released(&mut transaction, place, &sid, last.as_ref()).await?;
        transaction.commit().await?;
        Ok(Some((erased, Released::default())))
    }
}

/// Which released conversation is next: the first after this one. What is only counted is not noted in the database.
#[derive(Debug, Default)]
struct Released {
    sid: String,
    counted: Option<store::Progress>,
}

impl Erased {
    fn add(&mut self, more: Self) {
        self.erased += more.erased;
        self.held += more.held;
    }
}

async fn pause(extent: Extent) {
    if extent == Extent::InTheBackground {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Erases what is due of what was looked at and is not held, and tells it; or only counts it.
async fn erase_looked(
    conn: &mut PgConnection,
    class: Class,
    place: Place,
    before: Timestamp,
    looked: Vec<Due>,
    extent: Extent,
    now: Timestamp,
) -> Result<Erased, sqlx::Error> {
    let due: Vec<Due> = looked.into_iter().filter(|one| !one.is_left).collect();
    let held = held_of(conn, due.iter().filter_map(|one| one.conversation_sid.as_deref())).await?;
    let (kept, gone): (Vec<_>, Vec<_>) = due.into_iter().partition(|one| {
        one.conversation_sid
            .as_ref()
            .is_some_and(|sid| held.contains(sid))
    });
    let mut erased = Erased {
        erased: i64::try_from(gone.len()).unwrap_or(i64::MAX),
        held: i64::try_from(kept.len()).unwrap_or(i64::MAX),
    };
    if extent != Extent::Count && !gone.is_empty() {
        erased.erased = places::erase(conn, place, &gone, before, now).await?;
        let told = told(class, place, before, erased, &gone, now);
        events::append(conn, &[told]).await?;
    }
    Ok(erased)
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
