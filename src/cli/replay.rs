//! `hookswitch replay`: projects webhooks again that were set aside, after a fix.

use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::db;
use crate::inbox::process::Projector;
use crate::inbox::replay;

/// Which webhooks to project again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Numbers of webhooks, as the log names them; all that were set aside where none is given.
    webhook_ids: Vec<i64>,
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let database = Database::open(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 4);
    let clock = Clock::system();
    let ids = Some(args.webhook_ids.as_slice()).filter(|ids| !ids.is_empty());
    let replayed = replay::replay(&pool, &clock, ids).await?;
    let projector = Projector {
        pool: pool.clone(),
        clock,
        batch: config.projection.batch,
    };
    projector.run_until_idle().await?;
    let backlog = replay::backlog(&mut *pool.acquire().await?).await?;
    output::line(format!(
        "replayed {replayed}; set aside now: {}",
        backlog.set_aside
    ));
    pool.close().await;
    database.close().await
}
