//! The mirror, the ledger and the log's mirror entries made anew beside the old ones, from the webhooks and the recorded
//! answers; compared; and swapped in only when asked. Owns no table: what is made anew lies in temporary tables of one
//! session, so that nothing is left of a run that was killed, and nothing of it is ever in the way of the service.
//!
//! [`replay`] takes all statements in the order of their numbers, which they drew while their conversation was locked;
//! [`compare`] holds old and new against each other as of one snapshot, while the service goes on; [`swap`] stops the
//! writers for a moment, catches up, and writes the rows that differ. [`tables`] says what is compared.

pub mod compare;
mod numbers;
mod replay;
pub mod report;
mod shadow;
mod swap;
pub mod tables;

use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;

use crate::clock::Clock;
use compare::Wanted;
use replay::Replay;
use report::Report;
use shadow::Session;

pub use replay::{Progress, Stage};

/// Makes the mirror anew.
#[derive(Debug, Clone)]
pub struct Rebuild {
    /// Reached as the owner of the tables, not as the service's role.
    pub options: PgConnectOptions,
    pub clock: Clock,
    /// How long the service's writers may be kept waiting by a swap.
    pub locked_max: Duration,
}

/// What a run is to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Write the differences into the live tables.
    pub swap: bool,
    /// Differences named for each table.
    pub examples: usize,
    /// Name them with what the rows say.
    pub reveal: bool,
}

/// Why there is no result. Nothing was changed, but where that is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another rebuild is running on this database; wait for it, or stop it first")]
    Busy,
    #[error(
        "this login may not {0}: run it as the owner of the tables, the login that `hookswitch migrate` uses"
    )]
    Forbidden(&'static str),
    #[error(
        "the swap would have kept the service waiting for longer than {} s, and was given up; nothing is changed. \
         Try again at a quieter time",
        .0.as_secs()
    )]
    TooLong(Duration),
    #[error(
        "the connection was lost while the swap was being committed, and whether it was done is not known: run \
         `hookswitch rebuild` again, which compares"
    )]
    OutcomeUnknown(#[source] sqlx::Error),
    #[error("{0} rows still differed after the swap, which was taken back; nothing is changed")]
    NotRepaired(u64),
    #[error("the database did not answer as hoped")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(DatabaseError::code) {
            Some(code) if code == "42501" => Self::Forbidden("do that"),
            _ => Self::Database(error),
        }
    }
}

impl Rebuild {
    /// Replays everything and compares; with `swap`, writes the differences. `watch` hears of every piece.
    pub async fn run(
        &self,
        wanted: Options,
        watch: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<Report, Error> {
        let mut session = Session::open(&self.options, wanted.swap).await?;
        let mut replay = Replay::begin(&mut session).await?;
        replay.catch_up(&mut session, watch).await?;
        let mut report = self.look(&mut session, &mut replay, wanted, watch).await?;
        if wanted.swap && report.damaged() > 0 {
            report.swapped = Some(swap::swap(self, &mut session, &mut replay).await?);
        }
        session.close().await?;
        Ok(report)
    }

    /// Old and new as of one snapshot: what is committed after it is in neither.
    async fn look(
        &self,
        session: &mut Session,
        replay: &mut Replay,
        wanted: Options,
        watch: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<Report, Error> {
        session.begin_snapshot().await?;
        replay.catch_up_within(session, watch).await?;
        let sources = replay.sources(session).await?;
        let compared = compare::all(
            session,
            Wanted {
                examples: wanted.examples,
                reveal: wanted.reveal,
            },
            &mut |done, total| watch(&Progress::comparing(done, total)),
        )
        .await?;
        // The new tables stay, with what was replayed within the snapshot.
        session.commit().await?;
        Ok(Report {
            replayed: replay.replayed,
            sources,
            tables: compared,
            swapped: None,
        })
    }
}
