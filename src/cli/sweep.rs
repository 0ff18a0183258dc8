//! `hookswitch sweep`: compares the mirror with Twilio now, and repairs it.
//!
//! How far it has come is shown as a bar where standard error is a terminal, and as a line now and then where it is not.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use crate::accounts::{Account, Accounts};
use crate::cli::database::Database;
use crate::cli::progress::bar;
use crate::cli::{output, signals};
use crate::clock::Clock;
use crate::config::Config;
use crate::db;
use crate::health::Health;
use crate::ids::{AccountSid, ConversationSid};
use crate::sweep::{Error, Run, RunState, Sweeper};
use crate::twilio;

/// What to sweep.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this account; all that are configured, where it is not given.
    #[arg(long, value_name = "AC…")]
    account: Option<AccountSid>,
    /// Read every conversation whole, and the receipts of every message.
    #[arg(long)]
    full: bool,
    /// Only these conversations, whole.
    #[arg(long, value_name = "CH…", num_args = 1..)]
    conversation: Vec<ConversationSid>,
}

/// How often in a row a sweep that Twilio or the database stopped is taken up again.
const ATTEMPTS: u32 = 6;

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let accounts = Accounts::new(&config.twilio)?;
    let wanted: Vec<&Account> = match &args.account {
        Some(sid) => vec![
            accounts
                .get(sid.as_str())
                .context("that account is not configured")?,
        ],
        None => accounts.iter().collect(),
    };
    match wanted.len() {
        0 => bail!(
            "setting twilio.accounts: expected at least one account; set TWILIO_ACCOUNT_SID and what belongs to it"
        ),
        1 => {}
        _ if args.conversation.is_empty() => {}
        _ => bail!("--conversation needs --account, since several accounts are configured"),
    }
    let shutdown = signals::shutdown()?;
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 4);
    let clock = Clock::system();
    let health = Health::new(pool.clone(), clock.clone(), accounts.clone(), &config.health)?;
    let sweeper = Sweeper::new(pool.clone(), clock, accounts.clone(), &config.sweep, health);
    let swept = sweep_all(&sweeper, &wanted, args, &shutdown).await;
    pool.close().await;
    database.close().await?;
    swept
}

async fn sweep_all(
    sweeper: &Sweeper,
    accounts: &[&Account],
    args: &Args,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let mut open = 0;
    for account in accounts {
        let swept = shutdown
            .run_until_cancelled(Box::pin(sweep_one(sweeper, account, args)))
            .await;
        let Some(run) = swept else {
            bail!("stopped; what was done is kept, and the next sweep goes on from there");
        };
        let run = run?;
        output::line(summary(&run));
        open += run.failed + run.unsettled;
    }
    if open > 0 {
        bail!(
            "{open} conversations are not verified; the log says why, and the next sweep looks at them again"
        );
    }
    Ok(())
}

async fn sweep_one(sweeper: &Sweeper, account: &Account, args: &Args) -> anyhow::Result<Run> {
    let expected = match args.conversation.len() {
        0 => sweeper.held(account).await?,
        some => i64::try_from(some).unwrap_or(i64::MAX),
    };
    let mut progress = Progress::new(expected);
    let mut attempt = 1;
    let mut done = 0;
    loop {
        let mut watch = |run: &Run| progress.show(run);
        let swept = if args.conversation.is_empty() {
            Box::pin(sweeper.sweep(account, args.full, &mut watch)).await
        } else {
            Box::pin(sweeper.walk(account, &args.conversation, args.full, &mut watch)).await
        };
        // A sweep that gets on is not stuck, however often it is stopped.
        if progress.conversations > done {
            (done, attempt) = (progress.conversations, 1);
        }
        match swept {
            Ok(run) => {
                progress.end();
                return Ok(run);
            }
            Err(Error::Busy(_)) => {
                progress.end();
                bail!(
                    "another process is sweeping account {}; wait for it, or stop it first",
                    account.account_sid
                );
            }
            Err(error) if error.is_passing() && attempt < ATTEMPTS => {
                let pause = pause_after(&error, attempt);
                progress.say(&format!("{error}; going on in {} s", pause.as_secs()));
                tokio::time::sleep(pause).await;
                attempt += 1;
            }
            Err(error) => {
                progress.end();
                return Err(error)
                    .context("not finished; what was done is kept, and the next sweep goes on from there");
            }
        }
    }
}

fn pause_after(error: &Error, attempt: u32) -> Duration {
    let doubled = Duration::from_secs(1 << attempt.min(6));
    match error {
        Error::Twilio(twilio::Error::Throttled {
            retry_after: Some(asked),
            ..
        }) => doubled.max((*asked).min(Duration::from_mins(5))),
        _ => doubled,
    }
}

fn summary(run: &Run) -> String {
    let how = match run.state {
        RunState::Completed => "complete",
        RunState::Incomplete => "incomplete",
        RunState::Running | RunState::Abandoned => "not finished",
    };
    let found = run.found;
    format!(
        "{}  {how}: {} conversations ({} walked, {} probed, {} left alone, {} unsettled, {} failed), {} resources \
         compared; repaired {} missing, {} stale, {} gone; {} extra receipts; {} requests",
        run.account_sid,
        run.conversations(),
        run.walked,
        run.probed,
        run.left_alone,
        run.unsettled,
        run.failed,
        run.compared,
        found.missing,
        found.stale,
        found.gone,
        found.extra,
        run.requests,
    )
}

/// How far a sweep has come, on standard error.
struct Progress {
    /// What the mirror holds; Twilio does not say how many there are.
    expected: i64,
    conversations: i64,
    on_terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    fn new(expected: i64) -> Self {
        Self {
            expected,
            conversations: 0,
            on_terminal: std::io::stderr().is_terminal(),
            shown: None,
        }
    }

    fn show(&mut self, run: &Run) {
        self.conversations = run.conversations();
        let pause = if self.on_terminal {
            Duration::from_millis(100)
        } else {
            Duration::from_secs(10)
        };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let text = progress_text(self.conversations, self.expected, run.found.repaired());
        if self.on_terminal {
            let bar = bar(self.conversations, self.expected);
            write!(std::io::stderr().lock(), "\r\u{1b}[K{bar} {text}").ok();
        } else {
            writeln!(std::io::stderr().lock(), "{text}").ok();
        }
    }

    fn say(&mut self, text: &str) {
        self.end();
        writeln!(std::io::stderr().lock(), "{text}").ok();
    }

    /// Leaves the line of the bar.
    fn end(&mut self) {
        if self.on_terminal && self.shown.take().is_some() {
            writeln!(std::io::stderr().lock()).ok();
        }
    }
}

fn progress_text(conversations: i64, expected: i64, repaired: i64) -> String {
    if conversations > expected {
        format!("{conversations} conversations, {repaired} repaired")
    } else {
        format!("{conversations} of about {expected} conversations, {repaired} repaired")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_is_expected_until_it_is_surpassed() {
        assert_eq!(progress_text(3, 12, 1), "3 of about 12 conversations, 1 repaired");
        assert_eq!(progress_text(13, 12, 1), "13 conversations, 1 repaired");
    }
}
