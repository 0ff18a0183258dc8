//! `hookswitch check`: settings, database and the Twilio account's set-up, each with what to do about it.

use std::time::Duration;

use anyhow::bail;
use jiff::Timestamp;
use sqlx::ConnectOptions as _;

use crate::accounts::Accounts;
use crate::assignment;
use crate::audit;
use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::db;
use crate::health::{self, Code};
use crate::inbox::replay;
use crate::numbers;
use crate::queue;
use crate::setup::{self, Finding, Severity};
use crate::sweep::completeness::{self, Total};

/// What to check.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Set the Twilio account up: the service's webhooks, and autocreation for numbers that have none.
    #[arg(long)]
    fix: bool,
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let mut findings = vec![check_public_base_url(&config)];
    let accounts = Accounts::new(&config.twilio)?;
    findings.extend(check_database(&config, &accounts).await);
    if config.twilio.accounts.is_empty() {
        findings.push(Finding {
            severity: Severity::Bad,
            subject: "twilio.accounts".to_owned(),
            message: "no account is configured: set TWILIO_ACCOUNT_SID and what belongs to it".to_owned(),
        });
    }
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

async fn check_database(config: &Config, accounts: &Accounts) -> Vec<Finding> {
    match look_at_database(config, accounts).await {
        Ok(looked) => {
            let mut findings = vec![
                judge_backlog(looked.backlog, looked.tasks),
                judge_mirror(&looked.mirror, config.sweep.interval, looked.at),
                judge_lines(&looked.findings),
                judge_roles(&looked.missing_roles),
            ];
            findings.extend(looked.numbers);
            findings.extend(judge_queue(looked.waiting, looked.at));
            findings
        }
        Err(error) => vec![Finding {
            severity: Severity::Bad,
            subject: "database".to_owned(),
            message: format!("{error:#}"),
        }],
    }
}

fn judge_backlog(backlog: replay::Backlog, tasks: queue::Counts) -> Finding {
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
        subject: "database".to_owned(),
        message,
    }
}

/// How far the mirror is verified. Twice the interval of sweeps may pass before that is worth a warning.
fn judge_mirror(mirror: &Total, interval: Duration, now: Timestamp) -> Finding {
    let finding = |severity, message| Finding {
        severity,
        subject: "mirror".to_owned(),
        message,
    };
    let Some(since) = mirror.unverified_since else {
        return finding(Severity::Good, "no conversations yet".to_owned());
    };
    let minutes = now.duration_since(since).as_mins().max(0);
    let found = mirror.found;
    let facts = format!(
        "{} conversations, the longest unverified for {minutes} min, {} never verified, {} in doubt; {} resources \
         compared, found so far: {} missing, {} stale, {} gone",
        mirror.conversations,
        mirror.never_verified,
        mirror.in_doubt,
        mirror.compared.total(),
        found.missing,
        found.stale,
        found.gone
    );
    let allowed = interval.as_secs().saturating_mul(2) / 60;
    let overdue = u64::try_from(minutes).is_ok_and(|minutes| minutes > allowed);
    if mirror.never_verified + mirror.in_doubt > 0 || overdue {
        return finding(Severity::Warning, format!("{facts}; run `hookswitch sweep`"));
    }
    finding(Severity::Good, facts)
}

/// What is wrong with lines, by code.
fn judge_lines(open: &[(Code, i64)]) -> Finding {
    let open: Vec<_> = open.iter().filter(|(_, count)| *count > 0).collect();
    let is_bad = open
        .iter()
        .any(|(code, _)| code.severity() == health::Severity::Bad);
    let subject = "lines".to_owned();
    if open.is_empty() {
        let message = "nothing is known to be wrong with any".to_owned();
        return Finding {
            severity: Severity::Good,
            subject,
            message,
        };
    }
    let counts: Vec<String> = open
        .iter()
        .map(|(code, count)| format!("{} {count}", code.as_str()))
        .collect();
    let counts = counts.join(", ");
    Finding {
        severity: if is_bad { Severity::Bad } else { Severity::Warning },
        subject,
        message: format!("{counts}; see GET /v1/health/lines"),
    }
}

/// Lines that wait for somebody, if any do.
fn judge_queue((lines, since): (i64, Option<Timestamp>), now: Timestamp) -> Option<Finding> {
    let minutes = now.duration_since(since?).as_mins().max(0);
    Some(Finding {
        severity: Severity::Warning,
        subject: "queue".to_owned(),
        message: format!(
            "{lines} lines wait for somebody, the oldest for {minutes} min; see `hookswitch numbers queue`"
        ),
    })
}

fn judge_roles(missing: &[String]) -> Finding {
    let subject = "database roles".to_owned();
    if missing.is_empty() {
        return Finding {
            severity: Severity::Good,
            subject,
            message: "auditors and the service have their own".to_owned(),
        };
    }
    Finding {
        severity: Severity::Warning,
        subject,
        message: format!(
            "missing: {}; an administrator has to make them, see docs/AUDIT.md",
            missing.join(", ")
        ),
    }
}

struct Looked {
    missing_roles: Vec<String>,
    backlog: replay::Backlog,
    tasks: queue::Counts,
    mirror: Total,
    findings: Vec<(Code, i64)>,
    numbers: Vec<Finding>,
    waiting: (i64, Option<Timestamp>),
    at: Timestamp,
}

async fn look_at_database(config: &Config, accounts: &Accounts) -> anyhow::Result<Looked> {
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let mut login = database.options.connect().await?;
    let missing_roles = audit::ensure_roles(&mut login).await?;
    drop(login);
    let pool = db::pool_with(database.options.clone(), 1);
    let mut conn = pool.acquire().await?;
    let looked = Looked {
        missing_roles,
        backlog: replay::backlog(&mut conn).await?,
        tasks: queue::counts(&mut conn).await?,
        mirror: completeness::total(&mut conn).await?,
        findings: health::count_open(&mut conn).await?,
        numbers: numbers::check(&mut conn, accounts).await?,
        waiting: assignment::count_waiting(&mut conn).await?,
        at: Clock::system().now(),
    };
    drop(conn);
    pool.close().await;
    database.close().await?;
    Ok(looked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::{Compared, Found};

    fn mirror(since: Option<&str>, never_verified: i64) -> Total {
        Total {
            conversations: 3,
            never_verified,
            in_doubt: 0,
            verified_at: None,
            verified_by: None,
            unverified_since: since.map(|at| at.parse().unwrap()),
            compared: Compared::default(),
            found: Found::default(),
            webhooks_set_aside: 0,
            webhooks_pending: 0,
            accounts: Vec::new(),
        }
    }

    #[test]
    fn a_mirror_that_is_not_verified_in_time_is_worth_a_warning() {
        let now = "2026-01-02T03:00:00Z".parse().unwrap();
        let judged = |mirror: Total| judge_mirror(&mirror, Duration::from_hours(1), now).severity;
        assert_eq!(judged(mirror(None, 0)), Severity::Good);
        assert_eq!(judged(mirror(Some("2026-01-02T01:10:00Z"), 0)), Severity::Good);
        assert_eq!(judged(mirror(Some("2026-01-02T00:50:00Z"), 0)), Severity::Warning);
        assert_eq!(judged(mirror(Some("2026-01-02T02:50:00Z"), 1)), Severity::Warning);
    }

    #[test]
    fn a_line_that_cannot_be_written_in_is_wrong_and_an_unstaffed_one_a_warning() {
        let none = judge_lines(&[(Code::LineUnstaffed, 0)]);
        assert_eq!(none.severity, Severity::Good);
        let unstaffed = judge_lines(&[(Code::LineUnstaffed, 2), (Code::AuthorNotInGroup, 0)]);
        assert_eq!(unstaffed.severity, Severity::Warning);
        assert_eq!(unstaffed.message, "line_unstaffed 2; see GET /v1/health/lines");
        let refused = judge_lines(&[(Code::LineUnstaffed, 2), (Code::AuthorNotInGroup, 1)]);
        assert_eq!(refused.severity, Severity::Bad);
    }
}
