//! `hookswitch audit`: sealing the log now, checking it against its seals, exporting it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use jiff::Timestamp;
use sqlx::PgPool;

use crate::audit::{self, Copy, Sealer, Span, UNSEALED_COUNTED};
use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::db;

/// What to do with the log.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check the log against its seals; name the first entry that differs
    Verify {
        /// The copy of the seals outside of the database: what is sealed anew is found by it
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// The first seal to check; those before are taken for good
        #[arg(long, value_name = "SEAL", default_value_t = 1)]
        from: i64,
    },
    /// Seal now what is not sealed yet
    Seal,
    /// Print the log as lines of JSON
    Export {
        /// Entries recorded at or after this time
        #[arg(long, value_name = "TIME")]
        from: Option<Timestamp>,
        /// Entries recorded before this time
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
    },
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 2);
    let done = act(&config, &pool, &args.action).await;
    pool.close().await;
    database.close().await?;
    done
}

async fn act(config: &Config, pool: &PgPool, action: &Action) -> anyhow::Result<()> {
    match action {
        Action::Verify { against, from } => {
            let copy = match against {
                Some(path) => Some(
                    Copy::open(path)
                        .with_context(|| format!("--against {}: cannot be read", path.display()))?,
                ),
                None => None,
            };
            let verified = match audit::verify(pool, copy, *from).await? {
                Ok(verified) => verified,
                Err(difference) => bail!("the log was changed: {difference}"),
            };
            let more = if verified.unsealed == UNSEALED_COUNTED {
                " or more"
            } else {
                ""
            };
            output::line(format!(
                "{} entries under {} seals are as they were sealed ({} with something erased); {}{more} not sealed yet",
                verified.entries, verified.seals, verified.erased, verified.unsealed
            ));
        }
        Action::Seal => {
            let sealer = Sealer {
                pool: pool.clone(),
                clock: Clock::system(),
                settings: Arc::new(config.audit.clone()),
            };
            let added = sealer.seal_all().await?;
            output::line(format!("{added} seals added"));
        }
        Action::Export { from, until } => {
            let span = Span {
                from: *from,
                until: *until,
            };
            audit::export(pool, span, io::BufWriter::new(io::stdout().lock())).await?;
        }
    }
    Ok(())
}
