//! The database of a command: the configured one, or a private server that lives as long as the command.

use std::path::PathBuf;

use sqlx::postgres::PgConnectOptions;

use crate::config;
use crate::db::embedded::{self, Durability, Embedded, Options};
use crate::db::{self};

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

    /// Starts a private server below `data_dir`.
    pub(super) async fn embedded(data_dir: PathBuf, settings: &config::Database) -> anyhow::Result<Self> {
        let embedded = embedded::start(Options {
            bin_dir: settings.bin_dir.clone(),
            durability: Durability::Durable,
            ..Options::new(data_dir)
        })
        .await?;
        Ok(Self {
            options: embedded.connect_options(),
            embedded: Some(embedded),
        })
    }

    /// Stops the private server, if there is one.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        if let Some(embedded) = self.embedded {
            embedded.stop().await?;
        }
        Ok(())
    }
}
