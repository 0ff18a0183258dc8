//! `hookswitch retention`: the rules run now, and legal hold.

use anyhow::bail;
use clap::Subcommand;
use sqlx::PgPool;

use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::db;
use crate::events::Via;
use crate::ids::ConversationSid;
use crate::retention::{self, Class, Retention};

/// What to do about retention.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Erase what is due by the rules of the settings
    Run {
        /// Only count what would be erased
        #[arg(long)]
        dry_run: bool,
    },
    /// Put a conversation under legal hold: nothing of it is erased
    Hold {
        #[arg(value_name = "CH…")]
        conversation: ConversationSid,
        #[arg(long)]
        reason: String,
    },
    /// End the legal hold of a conversation
    Release {
        #[arg(value_name = "CH…")]
        conversation: ConversationSid,
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
    let clock = Clock::system();
    match action {
        Action::Run { dry_run } => {
            let rules = Retention {
                pool: pool.clone(),
                clock,
                settings: config.retention,
            };
            for class in Class::ALL {
                let told = match rules.run_all(class, *dry_run).await? {
                    None => "kept for good".to_owned(),
                    Some(done) => {
                        let verb = if *dry_run { "would be erased" } else { "erased" };
                        format!("{} {verb}, {} kept by legal hold", done.erased, done.held)
                    }
                };
                output::line(format!("{:14} {told}", class.as_str()));
            }
        }
        Action::Hold { conversation, reason } => {
            let mut conn = pool.acquire().await?;
            let held = retention::hold(&mut conn, conversation, reason, "cli", Via::Cli, clock.now()).await?;
            output::line(format!(
                "{conversation} is under legal hold since {}",
                held.held_since
            ));
        }
        Action::Release { conversation } => {
            let mut conn = pool.acquire().await?;
            if !retention::release(&mut conn, conversation, "cli", Via::Cli, clock.now()).await? {
                bail!("{conversation} is not under legal hold");
            }
            output::line(format!("the legal hold of {conversation} is ended"));
        }
    }
    Ok(())
}
