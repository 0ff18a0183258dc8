//! `hookswitch rebuild`: makes the mirror, the ledger and the log's mirror entries anew beside the old ones, compares,
//! and swaps them in only when asked. Ends with 0 where they are equal, 1 where they differ, 2 where that is not known.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::cli::database::Database;
use crate::cli::progress::bar;
use crate::cli::{output, signals};
use crate::clock::Clock;
use crate::config::Config;
use crate::db;
use crate::rebuild::{Options, Progress, Rebuild, Stage};

/// What to do with what was made anew.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the rows that differ into the live tables; the log is only added to. The service's writers wait meanwhile
    #[arg(long)]
    swap: bool,
    /// Differences named for each table
    #[arg(long, value_name = "N", default_value_t = 10)]
    examples: usize,
    /// Name them with what the rows say: messages, names, numbers
    #[arg(long)]
    reveal: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// How long a swap may keep the service's writers waiting, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    locked_max: u64,
}

/// There is no result: the process ends with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct NoResult(anyhow::Error);

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let damaged = rebuild(config, args).await.map_err(NoResult)?;
    if damaged > 0 && !args.swap {
        bail!("the mirror is not what its sources say; --swap writes what is");
    }
    Ok(())
}

/// Answers how many rows are, or were, not what they should be.
async fn rebuild(config: Config, args: &Args) -> anyhow::Result<u64> {
    let shutdown = signals::shutdown()?;
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let rebuild = Rebuild {
        options: database.options.clone(),
        clock: Clock::system(),
        locked_max: Duration::from_secs(args.locked_max),
    };
    let options = Options {
        swap: args.swap,
        examples: args.examples,
        reveal: args.reveal,
    };
    let mut shown = Shown::new();
    let mut watch = |progress: &Progress| shown.show(progress);
    let made = shutdown
        .run_until_cancelled(Box::pin(rebuild.run(options, &mut watch)))
        .await;
    shown.end();
    database.close().await?;
    let Some(made) = made else {
        bail!("stopped; nothing is changed, and nothing is left of it");
    };
    let report = made?;
    if args.json {
        output::line(serde_json::to_string(&report)?);
    } else {
        output::line(report.to_string());
    }
    Ok(report.damaged())
}

/// How far it has come, on standard error.
struct Shown {
    on_terminal: bool,
    last: Option<Instant>,
}

impl Shown {
    fn new() -> Self {
        Self {
            on_terminal: std::io::stderr().is_terminal(),
            last: None,
        }
    }

    fn show(&mut self, progress: &Progress) {
        let pause = Duration::from_millis(if self.on_terminal { 100 } else { 10_000 });
        if self.last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last = Some(Instant::now());
        let text = text(progress);
        if self.on_terminal {
            let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
            let bar = bar(signed(progress.done), signed(progress.total));
            write!(std::io::stderr().lock(), "\r\u{1b}[K{bar} {text}").ok();
        } else {
            writeln!(std::io::stderr().lock(), "{text}").ok();
        }
    }

    /// Leaves the line of the bar.
    fn end(&mut self) {
        if self.on_terminal && self.last.take().is_some() {
            writeln!(std::io::stderr().lock()).ok();
        }
    }
}

fn text(progress: &Progress) -> String {
    let Progress { stage, done, total } = progress;
    match stage {
        Stage::Replaying if done <= total => format!("{done} of {total} webhooks and answers replayed"),
        // Some came since they were counted.
        Stage::Replaying => format!("{done} webhooks and answers replayed"),
        Stage::Comparing if done <= total => format!("{done} of {total} conversations compared"),
        Stage::Comparing => format!("{done} conversations compared"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_is_expected_until_it_is_surpassed() {
        let at = |stage, done| {
            text(&Progress {
                stage,
                done,
                total: 12,
            })
        };
        assert_eq!(at(Stage::Replaying, 3), "3 of 12 webhooks and answers replayed");
        assert_eq!(at(Stage::Replaying, 13), "13 webhooks and answers replayed");
        assert_eq!(at(Stage::Comparing, 4), "4 of 12 conversations compared");
    }
}
