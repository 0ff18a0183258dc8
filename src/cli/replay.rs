//! `hookswitch replay`: gives what was put aside another chance, after a fix: webhooks that could not be projected, and
//! tasks that were buried.

use anyhow::Context as _;
use sqlx::PgPool;

use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::Notices;
use crate::events::Via;
use crate::inbox::pace::Pace;
use crate::inbox::process::Projector;
use crate::inbox::replay;
use crate::inbox::set_aside::{self, Reader, Summary};
use crate::{db, queue};

/// What to give another chance.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Numbers of webhooks, as the log names them; all that were set aside where none is given.
    webhook_ids: Vec<i64>,
    /// Instead of webhooks: let the service try buried tasks again, from the beginning.
    #[arg(long, conflicts_with = "webhook_ids")]
    tasks: bool,
    /// Replay nothing: list what is set aside, with the reason.
    #[arg(long, conflicts_with_all = ["webhook_ids", "tasks", "show"])]
    list: bool,
    /// Replay nothing: show one webhook's fields, without what it says.
    #[arg(long, value_name = "ID", conflicts_with_all = ["webhook_ids", "tasks"])]
    show: Option<i64>,
    /// With what it says: messages, names, numbers. That you asked is written in the log.
    #[arg(long, requires = "show")]
    reveal: bool,
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 4);
    let clock = Clock::system();
    if let Some(webhook_id) = args.show {
        show(&pool, &clock, webhook_id, args.reveal).await?;
    } else if args.list {
        list(&pool, None).await?;
    } else if args.tasks {
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
            pace: Pace::default(),
        };
        projector.run_until_idle().await?;
        projector.notices.tell_others_now(&pool).await?;
        let backlog = replay::backlog(&mut *pool.acquire().await?).await?;
        list(&pool, ids).await?;
        output::line(format!(
            "replayed {replayed}; set aside now: {}",
            backlog.set_aside
        ));
    }
    pool.close().await;
    database.close().await
}

/// What is set aside; of these webhooks only, where some are named.
async fn list(pool: &PgPool, only: Option<&[i64]>) -> anyhow::Result<()> {
    const PAGE: i64 = 200;
    let mut conn = pool.acquire().await?;
    let mut after = 0;
    loop {
        let page = set_aside::page(&mut conn, after, PAGE).await?;
        for webhook in &page {
            if only.is_none_or(|ids| ids.contains(&webhook.webhook_id)) {
                output::line(line(webhook));
            }
        }
        match page.last() {
            Some(last) => after = last.webhook_id,
            None => return Ok(()),
        }
    }
}

async fn show(pool: &PgPool, clock: &Clock, webhook_id: i64, reveal: bool) -> anyhow::Result<()> {
    let reader = reveal.then_some(Reader {
        actor: None,
        via: Via::Cli,
    });
    let found = set_aside::look(pool, clock, webhook_id, reader).await?;
    let (webhook, fields) = found.with_context(|| format!("there is no webhook {webhook_id}"))?;
    output::line(line(&webhook));
    for field in fields {
        // Quoted, so that what somebody wrote cannot steer a terminal.
        let value = field.value.map_or_else(
            || format!("({} bytes)", field.bytes),
            |value| format!("{value:?}"),
        );
        output::line(format!("  {:?} {value}", field.key));
    }
    Ok(())
}

fn line(webhook: &Summary) -> String {
    format!(
        "{} {} {:?} {} {} received {}{}",
        webhook.webhook_id,
        webhook.state,
        webhook.event_type,
        webhook.account_sid,
        webhook.conversation_sid.as_deref().unwrap_or("-"),
        webhook.received_at,
        webhook
            .reason
            .as_deref()
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default(),
    )
}
