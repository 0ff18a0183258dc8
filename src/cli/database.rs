//! The database of a command: the configured one, or a private server that lives as long as the command.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;

use crate::config;
use crate::db::embedded::{self, Durability, Embedded, EmbeddedError, Options};
use crate::db::{self};

/// How long a command waits for another process that starts the private server, or stops it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the database is, and the server that has to be stopped in the end where it is our own.
pub(super) struct Database {
    pub(super) options: PgConnectOptions,
    pub(super) embedded: Option<Embedded>,
}

impl Database {
    /// Takes the configured database, or starts a private one.
    pub(super) async fn open(settings: &config::Database) -> anyhow::Result<Self> {
        if let Some(url) = &settings.url {
            return Ok(Self {
                options: db::options(url)?,
                embedded: None,
            });
        }
        Self::embedded(settings.data_dir.clone(), settings).await
    }

    /// As [`Database::open`], for a command that may run beside the service: where another process runs the private server,
    /// as `hookswitch dev` does, that one is used.
    pub(super) async fn join(settings: &config::Database) -> anyhow::Result<Self> {
        if settings.url.is_some() {
            return Self::open(settings).await;
        }
        let begun = Instant::now();
        loop {
            let options = Options {
                lock_time_limit: Duration::ZERO,
                ..options(settings.data_dir.clone(), settings)
            };
            let locked = match embedded::start(options).await {
                Err(locked @ EmbeddedError::Locked { .. }) => locked,
                started => return Ok(Self::of(started?)),
            };
            if let Some(options) = embedded::running(&settings.data_dir)? {
                return Ok(Self {
                    options,
                    embedded: None,
                });
            }
            // It is just starting, or ending.
            if begun.elapsed() > PATIENCE {
                return Err(locked.into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Starts a private server below `data_dir`.
    pub(super) async fn embedded(data_dir: PathBuf, settings: &config::Database) -> anyhow::Result<Self> {
        Ok(Self::of(embedded::start(options(data_dir, settings)).await?))
    }

    fn of(embedded: Embedded) -> Self {
        Self {
            options: embedded.connect_options(),
            embedded: Some(embedded),
        }
    }

    /// Stops the private server, if there is one.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        if let Some(embedded) = self.embedded {
            embedded.stop().await?;
        }
        Ok(())
    }
}

fn options(data_dir: PathBuf, settings: &config::Database) -> Options {
    Options {
        bin_dir: settings.bin_dir.clone(),
        durability: Durability::Durable,
        ..Options::new(data_dir)
    }
}
