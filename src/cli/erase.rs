//! `hookswitch erase`: a person, by number or identity. The work is durable: a run that is stopped is gone on with by the
//! service, or by the next run.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sqlx::PgPool;

use crate::accounts::Accounts;
use crate::cli::database::Database;
use crate::cli::{output, signals};
use crate::clock::Clock;
use crate::config::Config;
use crate::db;
use crate::erasure::{
    self, ERASE_TASK, Eraser, Erasure, Erasures, NewErasure, Preview, StartError, State, Upstream,
};
use crate::events::Via;
use crate::ids::{Identity, PhoneNumber};
use crate::mirror;
use crate::person::Subject;
use crate::queue::{self, Worker};

/// Whom to erase.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("whom").required(true).args(["number", "identity"])))]
pub struct Args {
    /// A customer, by the number of the handset
    #[arg(long, value_name = "+E164")]
    number: Option<PhoneNumber>,
    /// One of ours, by the identity at Twilio
    #[arg(long, value_name = "NAME")]
    identity: Option<Identity>,
    /// Who asked for it; kept, so do not name the person
    #[arg(long, value_name = "WHO", required_unless_present = "dry_run")]
    asked_by: Option<String>,
    /// Why; kept, so do not name the person
    #[arg(long, value_name = "WHY", required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Only count what would be erased here
    #[arg(long)]
    dry_run: bool,
    /// Delete nothing at Twilio
    #[arg(long, conflicts_with = "upstream")]
    only_here: bool,
    /// What to delete at Twilio
    #[arg(long, value_enum, value_name = "WHAT", default_value = "messages")]
    upstream: Upstream,
    /// Do it, and do not only show what would be erased
    #[arg(long)]
    yes: bool,
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let accounts = Accounts::new(&config.twilio)?;
    if !args.only_here && !args.dry_run && accounts.iter().next().is_none() {
        bail!("setting twilio.accounts: expected at least one account; or erase with --only-here");
    }
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 4);
    let done = act(&pool, accounts, args).await;
    pool.close().await;
    database.close().await?;
    done
}

async fn act(pool: &PgPool, accounts: Accounts, args: &Args) -> anyhow::Result<()> {
    let clock = Clock::system();
    let subject = match (&args.number, &args.identity) {
        (Some(number), None) => Subject::Number(number.clone()),
        (None, Some(identity)) => Subject::Identity(identity.clone()),
        _ => bail!("expected either --number or --identity"),
    };
    let erasures = Erasures {
        pool: pool.clone(),
        clock: clock.clone(),
        accounts: accounts.clone(),
    };
    if args.dry_run || !args.yes {
        show_preview(&erasures.preview(&subject).await.map_err(explained)?);
        if args.dry_run {
            return Ok(());
        }
        bail!("nothing was erased; repeat it with --yes");
    }
    let upstream = if args.only_here {
        Upstream::None
    } else {
        args.upstream
    };
    let new = NewErasure {
        subject,
        upstream,
        asked_by: args.asked_by.clone().context("expected --asked-by")?,
        reason: args.reason.clone().context("expected --reason")?,
        requested_by: "cli".to_owned(),
        via: Via::Cli,
    };
    let id = match erasures.start(new).await {
        Ok(erasure) => erasure.erasure_id,
        Err(StartError::AlreadyRunning(id)) => {
            check_running(pool, &accounts, id, upstream).await?;
            output::line(format!("going on with erasure {id}"));
            id
        }
        Err(error) => return Err(explained(error)),
    };
    let eraser = Eraser {
        pool: pool.clone(),
        clock: clock.clone(),
        accounts,
        budget: erasure::BUDGET,
    };
    let worker = Worker::new(
        pool.clone(),
        clock,
        vec![(ERASE_TASK, Arc::new(eraser))],
        queue::Settings::default(),
    );
    let shutdown = signals::shutdown()?;
    let finished = shutdown
        .run_until_cancelled(Box::pin(until_finished(pool, &worker, id)))
        .await;
    match finished {
        Some(erasure) => show(&erasure?),
        None => bail!("stopped; erasure {id} is gone on with by the service, or by the same command"),
    }
}

/// An erasure that somebody else began is gone on with as it was asked for, or not at all.
async fn check_running(
    pool: &PgPool,
    accounts: &Accounts,
    id: uuid::Uuid,
    upstream: Upstream,
) -> anyhow::Result<()> {
    let mut conn = pool.acquire().await?;
    let running = erasure::find(&mut conn, id)
        .await?
        .context("the erasure is gone")?;
    if running.upstream != upstream {
        bail!(
            "erasure {id} of this person is running with --upstream {}, and not with --upstream {}: repeat the command with \
             that, or wait until the service has finished it",
            running.upstream.as_str(),
            upstream.as_str()
        );
    }
    if upstream == Upstream::None {
        return Ok(());
    }
    let needed = mirror::read::account_sids_of(&mut conn, &running.conversations).await?;
    let missing: Vec<String> = needed
        .into_iter()
        .filter(|sid| accounts.iter().all(|account| account.account_sid.as_str() != sid))
        .collect();
    if !missing.is_empty() {
        bail!(
            "erasure {id} deletes in accounts that twilio.accounts does not have here: {}; add them, or leave it to the service",
            missing.join(" ")
        );
    }
    Ok(())
}

async fn until_finished(pool: &PgPool, worker: &Worker, id: uuid::Uuid) -> anyhow::Result<Erasure> {
    loop {
        worker.run_until_idle().await?;
        let erasure = erasure::find(&mut *pool.acquire().await?, id)
            .await?
            .context("the erasure is gone")?;
        if erasure.state != State::Running {
            return Ok(erasure);
        }
        if erasure.stalled_at.is_some() {
            bail!(
                "erasure {id} was given up at step {:?}; `hookswitch replay --tasks` tries it again",
                erasure.step
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn explained(error: StartError) -> anyhow::Error {
    match error {
        StartError::HoldsLines(sids) => anyhow::anyhow!(
            "this person holds lines of open conversations; give them to others, or release them, first: {}",
            sids.join(" ")
        ),
        other => other.into(),
    }
}

fn show_preview(preview: &Preview) {
    output::line(format!("conversations: {}", preview.conversations.len()));
    for sid in &preview.conversations {
        output::line(format!("  {sid}"));
    }
    for sid in &preview.held {
        output::line(format!("  {sid} is under legal hold, and left alone"));
    }
    for (what, amount) in &preview.counts {
        output::line(format!("{what}: {amount} would be erased"));
    }
}

fn show(erasure: &Erasure) -> anyhow::Result<()> {
    output::line(format!(
        "erasure {} is {}",
        erasure.erasure_id,
        erasure.state.as_str()
    ));
    output::line(format!("conversations: {}", erasure.conversations.len()));
    for (what, amount) in &erasure.counts {
        output::line(format!("{what}: {amount}"));
    }
    for sid in &erasure.held {
        output::line(format!("{sid} is under legal hold, and was left alone"));
    }
    for left in &erasure.failures {
        output::line(format!(
            "{} {} was not erased: {}",
            left.conversation_sid.as_deref().unwrap_or("the user"),
            left.sid.as_deref().unwrap_or_default(),
            left.code
        ));
    }
    if erasure.state == State::Incomplete {
        bail!("something was left, see above");
    }
    Ok(())
}
