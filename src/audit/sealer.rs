//! Sealing the log, off the path of those who write it: a loop in every process that works; a lock lets one of them
//! through, so that the chain does not fork.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::audit::canonical::{Batch, Seal};
use crate::audit::{endpoint, file, store};
use crate::clock::Clock;
use crate::events::Position;
use crate::{config, queue};

/// Entries that are read at a time.
pub(super) const PAGE: i64 = 500;

/// What seals the log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sealer {
    pub pool: PgPool,
    pub clock: Clock,
    pub settings: Arc<config::Audit>,
}

/// Why the log could not be sealed for now.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
    #[error("an entry of the log cannot be read as one: somebody changed it; run `hookswitch audit verify`")]
    Unreadable,
    #[error(
        "setting audit.seal_file: the file ends with seal {0}, and the database has no such seal or another one: it was \
         restored from an older dump, or sealed anew; run `hookswitch audit verify --against` the file, keep it, and name \
         a new one"
    )]
    OtherChain(i64),
    #[error("setting audit.seal_file: cannot write the outside copy")]
    File(#[from] file::FileError),
}

impl Sealer {
    /// Seals now and then, until cancelled.
    pub async fn keep_sealing(self, cancel: CancellationToken) {
        let pause = self.settings.seal_every;
        if pause.is_zero() {
            return;
        }
        loop {
            if cancel
                .run_until_cancelled(tokio::time::sleep(pause))
                .await
                .is_none()
            {
                return;
            }
            if let Err(error) = self.seal_all().await {
                warn!(error = &error as &dyn std::error::Error, "the log was not sealed");
            }
        }
    }

    /// Seals all that is complete, and brings the file outside up to date. Answers how many seals were added.
    pub async fn seal_all(&self) -> Result<u64, SealError> {
        let mut added = 0;
        while self.seal_one().await? {
            added += 1;
        }
        if let Some(path) = self.settings.seal_file.clone() {
            self.catch_up(path).await?;
        }
        Ok(added)
    }

    /// Seals the next batch, if there is anything and nobody else is at it.
    async fn seal_one(&self) -> Result<bool, SealError> {
        let mut transaction = self.pool.begin().await?;
        if !store::try_lock(&mut transaction).await? {
            return Ok(false);
        }
        let previous = store::newest(&mut transaction).await?;
        let after = previous.as_ref().map(|seal| seal.last).unwrap_or_default();
        let (mut batch, mut first, mut last) = (Batch::new(), None, after);
        let wanted = i64::from(self.settings.seal_batch);
        while batch.entries < wanted {
            let limit = PAGE.min(wanted - batch.entries);
            let page = store::entries(&mut transaction, last, None, limit).await?;
            for entry in &page {
                batch.add(&entry.hash().ok_or(SealError::Unreadable)?);
                first.get_or_insert(entry.position);
                last = entry.position;
            }
            if page.is_empty() {
                break;
            }
        }
        let Some(first) = first else {
            return Ok(false);
        };
        let seal = self.seal(previous.as_ref(), batch, first, last);
        store::insert(&mut transaction, &seal).await?;
        if self.settings.seal_url.is_some() {
            let now = self.clock.now();
            queue::put(&mut transaction, &endpoint::task(seal.seal, now), now).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    fn seal(&self, previous: Option<&Seal>, batch: Batch, first: Position, last: Position) -> Seal {
        let mut seal = Seal {
            seal: previous.map_or(1, |seal| seal.seal + 1),
            first,
            last,
            entries: batch.entries,
            marks: batch.marks.clone(),
            root: batch.root(),
            previous: previous.map_or([0; 32], |seal| seal.hash),
            hash: [0; 32],
            sealed_at: self.clock.now(),
        };
        seal.hash = seal.expected_hash();
        seal
    }

    /// Appends to the file outside what it does not have yet. Where it has come to is read off the file, so that a crash
    /// between commit and file loses nothing and doubles nothing.
    async fn catch_up(&self, path: PathBuf) -> Result<(), SealError> {
        loop {
            let newest = file::last_seal(path.clone()).await?;
            let last = newest.as_ref().map_or(0, |seal| seal.seal);
            let mut seals = Vec::new();
            let mut conn = self.pool.acquire().await?;
            if let Some(newest) = newest
                && store::find(&mut conn, last)
                    .await?
                    .is_none_or(|seal| seal.hash != newest.hash)
            {
                return Err(SealError::OtherChain(last));
            }
            for number in last + 1..=last + 50 {
                let Some(seal) = store::find(&mut conn, number).await? else {
                    break;
                };
                seals.push(seal);
            }
            drop(conn);
            if seals.is_empty() {
                return Ok(());
            }
            file::append(path.clone(), seals).await?;
        }
    }
}

/// How long a receiver outside may be away before a person has to look: with the queue's growing pauses, days.
pub(super) const POST_ATTEMPTS: i32 = 60;
/// How long one call to it may take.
pub(super) const POST_LIMIT: Duration = Duration::from_secs(10);
