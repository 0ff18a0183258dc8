//! `hookswitch check`: settings, database and the Twilio account's set-up, each with what to do about it.

use anyhow::bail;

use crate::accounts::Accounts;
use crate::cli::database::Database;
use crate::cli::output;
use crate::config::Config;
use crate::db;
use crate::inbox::replay;
use crate::queue;
use crate::setup::{self, Finding, Severity};

/// What to check.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Set the Twilio account up: the service's webhooks, and autocreation for numbers that have none.
    #[arg(long)]
    fix: bool,
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let mut findings = vec![check_public_base_url(&config), check_database(&config).await];
    if config.twilio.accounts.is_empty() {
        findings.push(Finding {
            severity: Severity::Bad,
            subject: "twilio.accounts".to_owned(),
            message: "no account is configured: set TWILIO_ACCOUNT_SID and what belongs to it".to_owned(),
        });
    }
    let accounts = Accounts::new(&config.twilio)?;
    for account in accounts.iter() {
        if args.fix {
            setup::apply(account, &config.http.public_base_url).await?;
            output::line(format!("{}  set up", account.account_sid));
        }
        let found = setup::inspect(account, &config.http.public_base_url).await;
        findings.extend(found.into_iter().map(|finding| Finding {
            subject: format!("{} {}", account.account_sid, finding.subject),
            ..finding
        }));
    }
    for finding in &findings {
        output::line(format!(
            "{:8} {}: {}",
            finding.severity.as_str(),
            finding.subject,
            finding.message
        ));
    }
    let wrong = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Bad)
        .count();
    if wrong > 0 {
        bail!("{wrong} of {} checks found something wrong", findings.len());
    }
    Ok(())
}

fn check_public_base_url(config: &Config) -> Finding {
    let base = &config.http.public_base_url;
    let subject = "http.public_base_url".to_owned();
    if base.as_str().starts_with("https://") {
        return Finding {
            severity: Severity::Good,
            subject,
            message: format!("Twilio calls {}", setup::webhook_url(base)),
        };
    }
    let message =
        "is not https: Twilio calls it all the same, and customers' messages cross the network in the clear";
    Finding {
        severity: Severity::Warning,
        subject,
        message: message.to_owned(),
    }
}

async fn check_database(config: &Config) -> Finding {
    let subject = "database".to_owned();
    match look_at_database(config).await {
        Ok((backlog, tasks)) => {
            let severity = if backlog.set_aside + tasks.dead > 0 {
                Severity::Warning
            } else {
                Severity::Good
            };
            let message = format!(
                "schema up to date; webhooks pending {}, set aside {}; tasks ready {}, running {}, buried {}",
                backlog.pending, backlog.set_aside, tasks.ready, tasks.running, tasks.dead
            );
            Finding {
                severity,
                subject,
                message,
            }
        }
        Err(error) => Finding {
            severity: Severity::Bad,
            subject,
            message: format!("{error:#}"),
        },
    }
}

async fn look_at_database(config: &Config) -> anyhow::Result<(replay::Backlog, queue::Counts)> {
    let database = Database::open(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 1);
    let mut conn = pool.acquire().await?;
    let found = (replay::backlog(&mut conn).await?, queue::counts(&mut conn).await?);
    drop(conn);
    pool.close().await;
    database.close().await?;
    Ok(found)
}
