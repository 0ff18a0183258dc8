//! `hookswitch replay`: gives what was put aside another chance, after a fix: webhooks that could not be projected, and
//! tasks that were buried.

use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::Notices;
use crate::inbox::process::Projector;
use crate::inbox::replay;
use crate::{db, queue};

/// What to give another chance.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Numbers of webhooks, as the log names them; all that were set aside where none is given.
    webhook_ids: Vec<i64>,
    /// Instead of webhooks: let the service try buried tasks again, from the beginning.
    #[arg(long, conflicts_with = "webhook_ids")]
    tasks: bool,
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let database = Database::open(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 4);
    let clock = Clock::system();
    if args.tasks {
        let requeued = queue::requeue_dead(&mut *pool.acquire().await?, clock.now()).await?;
        output::line(format!("{requeued} buried tasks wait for the service again"));
    } else {
        let ids = Some(args.webhook_ids.as_slice()).filter(|ids| !ids.is_empty());
        let replayed = replay::replay(&pool, &clock, ids).await?;
        let projector = Projector {
            pool: pool.clone(),
            clock,
            batch: config.projection.batch,
            notices: Notices::default(),
        };
        projector.run_until_idle().await?;
        projector.notices.tell_others_now(&pool).await?;
        let backlog = replay::backlog(&mut *pool.acquire().await?).await?;
        output::line(format!(
            "replayed {replayed}; set aside now: {}",
            backlog.set_aside
        ));
    }
    pool.close().await;
    database.close().await
}
