//! `hookswitch escalation`: policies, what is open, what would happen, and what would have happened.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::db;
use crate::escalation::backtest::{AS_NOW, AS_THEN, Backtest, SPAN_MAX, Totals};
use crate::escalation::evaluate::Run;
use crate::escalation::policy::{Policy, Scope};
use crate::escalation::{self, Ask, Filter, PutPolicyError, Stop, dry_run};
use crate::events::Via;
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::people::{Actor, Slug};
use crate::web::problem::FieldError;

/// What to do about escalation policies.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Set a policy from a file of JSON; everything that is wrong with it is named. See docs/ESCALATION.md
    Put {
        /// A name of your own for the policy, like `sales`
        policy_id: Slug,
        #[arg(value_name = "POLICY.json")]
        file: PathBuf,
        /// Only say what is wrong with it, and which version it would be
        #[arg(long)]
        dry_run: bool,
    },
    /// List the policies
    Policies,
    /// Print a policy as it was written
    Show {
        policy_id: Slug,
        /// This version, instead of the newest
        #[arg(long)]
        version: Option<i64>,
    },
    /// Remove a policy; what is open under it stops
    Remove { policy_id: Slug },
    /// List escalations, the newest first
    List {
        /// Only those of this conversation
        #[arg(long, value_name = "SID")]
        conversation: Option<ConversationSid>,
        /// Also those that are over
        #[arg(long)]
        all: bool,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u16,
    },
    /// Begin an escalation of a line by hand: by the rule of its policy that says `asked`
    Ask {
        #[arg(value_name = "CONVERSATION")]
        conversation_sid: ConversationSid,
        line: PhoneNumber,
        /// Who asks for it
        #[arg(long, value_name = "IDENTITY")]
        by: Identity,
        /// Why, for whoever it goes to, in at most 200 characters. It is not sent
        #[arg(long)]
        reason: Option<String>,
        /// This rule, instead of the first one that is for it
        #[arg(long)]
        rule: Option<Slug>,
    },
    /// Stop an escalation by hand; an offer that nobody has answered is withdrawn
    Stop {
        #[arg(value_name = "ESCALATION")]
        escalation_id: Uuid,
        /// Who stops it
        #[arg(long, value_name = "IDENTITY")]
        by: Identity,
    },
    /// Say what would happen in a conversation, when and why, if nothing else did. Changes nothing
    DryRun {
        #[arg(value_name = "CONVERSATION")]
        conversation_sid: ConversationSid,
        /// Only this line
        #[arg(long)]
        line: Option<PhoneNumber>,
        /// By the policy of this file, whatever it is for, instead of the one that counts
        #[arg(long, value_name = "POLICY.json")]
        policy: Option<PathBuf>,
    },
    /// Say what a policy would have done over the mirror's history. Changes nothing
    Backtest {
        /// A policy that is stored
        #[arg(required_unless_present = "policy")]
        policy_id: Option<Slug>,
        /// The policy of a file, instead
        #[arg(long, value_name = "POLICY.json", conflicts_with = "policy_id")]
        policy: Option<PathBuf>,
        /// From then on; 30 days before the end, if not given
        #[arg(long, value_name = "TIME")]
        from: Option<Timestamp>,
        /// Up to then; now, if not given
        #[arg(long, value_name = "TIME")]
        to: Option<Timestamp>,
        /// Name each escalation, too
        #[arg(long)]
        each: bool,
    },
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 2);
    let done = match pool.acquire().await {
        Ok(mut conn) => act(&mut conn, &Clock::system(), &args.action).await,
        Err(error) => Err(error).context("cannot reach the database"),
    };
    pool.close().await;
    database.close().await?;
    done
}

async fn act(conn: &mut PgConnection, clock: &Clock, action: &Action) -> anyhow::Result<()> {
    let now = clock.now();
    match action {
        Action::Put {
            policy_id,
            file,
            dry_run,
        } => put(conn, policy_id, &document(file)?, *dry_run, now).await,
        Action::Policies => policies(conn).await,
        Action::Show { policy_id, version } => show(conn, policy_id, *version).await,
        Action::Remove { policy_id } => {
            escalation::remove_policy(conn, policy_id, &actor(), now).await?;
            output::line(format!("{policy_id} is removed"));
            Ok(())
        }
        Action::List {
            conversation,
            all,
            limit,
        } => list(conn, conversation.as_ref(), *all, *limit).await,
        Action::Ask {
            conversation_sid,
            line,
            by,
            reason,
            rule,
        } => {
            let is_fit = |reason: &String| {
                (1..=200).contains(&reason.chars().count()) && !reason.chars().any(char::is_control)
            };
            if reason.as_ref().is_some_and(|reason| !is_fit(reason)) {
                bail!("--reason: expected 1 to 200 characters in one line");
            }
            let wanted = Ask {
                conversation_sid: conversation_sid.clone(),
                line: line.clone(),
                by: by.clone(),
                reason: reason.clone(),
                rule: rule.clone(),
            };
            let mut transaction = conn.begin().await?;
            let begun = escalation::ask(&mut transaction, wanted, Via::Cli, now).await?;
            transaction.commit().await?;
            output::line(format!(
                "{} begins: {} {}",
                begun.escalation_id, begun.policy_id, begun.rule
            ));
            Ok(())
        }
        Action::Stop { escalation_id, by } => {
            let stop = Stop {
                escalation_id: *escalation_id,
                by: by.clone(),
            };
            let mut transaction = conn.begin().await?;
            escalation::stop(&mut transaction, stop, Via::Cli, now).await?;
            transaction.commit().await?;
            output::line(format!("{escalation_id} is stopped"));
            Ok(())
        }
        Action::DryRun {
            conversation_sid,
            line,
            policy,
        } => {
            let policy = match policy {
                Some(file) => Some(read(conn, &document(file)?).await?),
                None => None,
            };
            forecast(conn, conversation_sid, line.as_ref(), policy, now).await
        }
        Action::Backtest {
            policy_id,
            policy,
            from,
            to,
            each,
        } => {
            let policy = match (policy, policy_id) {
                (Some(file), _) => read(conn, &document(file)?).await?,
                (None, Some(policy_id)) => {
                    let stored = escalation::find_policy(conn, policy_id.as_str()).await?;
                    stored.context("there is no such policy")?.policy
                }
                (None, None) => bail!("name a policy, or a file with --policy"),
            };
            let to = to.unwrap_or(now);
            let from = from.unwrap_or(to - SignedDuration::from_hours(30 * 24));
            if from >= to || to > now || from.duration_until(to) > SPAN_MAX {
                bail!("--from, --to: expected a stretch of time that has passed, of at most 400 days");
            }
            look_back(conn, Backtest { policy, from, to }, *each).await
        }
    }
}

fn actor() -> Actor {
    Actor {
        name: "cli".to_owned(),
        via: Via::Cli,
        cause: None,
    }
}

fn document(file: &PathBuf) -> anyhow::Result<Value> {
    let text = fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{}: is not JSON", file.display()))
}

async fn read(conn: &mut PgConnection, document: &Value) -> anyhow::Result<Policy> {
    let known = escalation::known(conn).await?;
    Policy::read(document, Some(&known)).map_err(|found| refuse(&found))
}

fn refuse(found: &[FieldError]) -> anyhow::Error {
    for error in found {
        let place = if error.field.is_empty() { "/" } else { &error.field };
        output::line(format!("{place}: {}", error.message));
    }
    anyhow::anyhow!("{} places are wrong; nothing was changed", found.len())
}

async fn put(
    conn: &mut PgConnection,
    policy_id: &Slug,
    document: &Value,
    dry_run: bool,
    now: Timestamp,
) -> anyhow::Result<()> {
    match escalation::put_policy(conn, policy_id, document, None, dry_run, &actor(), now).await {
        Ok(stored) => {
            let would = if dry_run {
                "nothing was changed; it would be: "
            } else {
                ""
            };
            let state = if stored.policy.enabled { "on" } else { "off" };
            output::line(format!("{would}{policy_id} version {}, {state}", stored.version));
            Ok(())
        }
        Err(PutPolicyError::Invalid(found)) => Err(refuse(&found)),
        Err(error) => Err(error.into()),
    }
}

async fn policies(conn: &mut PgConnection) -> anyhow::Result<()> {
    for stored in escalation::policies(conn, None, i64::from(i32::MAX)).await? {
        let state = match stored.enabled_since {
            Some(since) => format!("on since {since:.0}"),
            None => "off".to_owned(),
        };
        let rules: Vec<&str> = stored
            .policy
            .rules
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        output::line(format!(
            "{}  version {}  {state}  {}  rules: {}",
            stored.policy_id,
            stored.version,
            stored.policy.name,
            rules.join(", ")
        ));
    }
    Ok(())
}

async fn show(conn: &mut PgConnection, policy_id: &Slug, version: Option<i64>) -> anyhow::Result<()> {
    let document = match version {
        Some(version) => escalation::document_of(conn, policy_id.as_str(), version)
            .await?
            .map(|(document, ..)| document),
        None => escalation::find_policy(conn, policy_id.as_str())
            .await?
            .map(|stored| stored.document),
    };
    let document = document.context("there is no such policy, or no such version of it")?;
    output::line(serde_json::to_string_pretty(&document)?);
    Ok(())
}

async fn list(
    conn: &mut PgConnection,
    conversation: Option<&ConversationSid>,
    all: bool,
    limit: u16,
) -> anyhow::Result<()> {
    let filter = Filter {
        conversation_sid: conversation.map(|sid| sid.as_str().to_owned()),
        state: (!all).then(|| "open".to_owned()),
        ..Filter::default()
    };
    for one in escalation::page(conn, &filter, None, i64::from(limit)).await? {
        let goes_on = match (&one.why, one.next_at) {
            (Some(why), _) => why.clone(),
            (None, Some(next)) => format!("next step at {next:.0}"),
            (None, None) => "waits for a transfer".to_owned(),
        };
        output::line(format!(
            "{}  {}  {}  {} {}  {} since {:.0}  {}: {goes_on}",
            one.escalation_id,
            one.conversation_sid,
            one.line,
            one.policy_id,
            one.rule,
            one.cause,
            one.cause_at,
            one.state
        ));
    }
    Ok(())
}

async fn forecast(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    line: Option<&PhoneNumber>,
    policy: Option<Policy>,
    now: Timestamp,
) -> anyhow::Result<()> {
    let instead = policy.map(|policy| {
        let anywhere = Policy {
            applies_to: Scope::default(),
            ..policy
        };
        ("the file", 0, anywhere)
    });
    let found = dry_run::dry_run(conn, sid, line, instead, now).await?;
    if found.is_empty() {
        bail!("the conversation is unknown, or has no such line");
    }
    for forecast in found {
        let holder = forecast.holder.as_deref().unwrap_or("nobody");
        let by = match &forecast.in_force {
            Some((policy, 0)) => policy.clone(),
            Some((policy, version)) => format!("{policy} version {version}"),
            None => "no policy".to_owned(),
        };
        output::line(format!("{}  held by {holder}  {by}", forecast.line));
        if forecast.runs.is_empty() {
            output::line("  nothing would happen");
        }
        for (_, _, run) in &forecast.runs {
            print(run, "  ");
        }
    }
    Ok(())
}

fn print(run: &Run, indent: &str) {
    output::line(format!(
        "{indent}{:.0}  {}  since {}: {:.0}",
        run.started_at, run.rule, run.cause.kind, run.cause.at
    ));
    for taken in &run.steps {
        let to = match &taken.to {
            Ok(to) => to.to_string(),
            Err(why) => format!("nobody ({why})"),
        };
        let (how, whom) = (taken.how.as_str(), &taken.whom);
        output::line(format!("{indent}  {:.0}  {how} {whom}: {to}", taken.at));
    }
    if let Some(end) = run.end {
        output::line(format!("{indent}  {:.0}  {}", end.at, end.why.as_str()));
    }
}

async fn look_back(conn: &mut PgConnection, backtest: Backtest, each: bool) -> anyhow::Result<()> {
    const PART: i64 = 1_000;
    let world = backtest.world(conn).await?;
    let mut totals = Totals::default();
    let mut after = String::new();
    loop {
        let part = backtest.part(conn, &world, &after, PART).await?;
        totals.conversations += part.conversations;
        for would in part.would {
            totals.add(&would.run);
            if each {
                output::line(format!("{}  {}", would.conversation_sid, would.line));
                print(&would.run, "  ");
            }
        }
        match part.next {
            Some(next) => after = next,
            None => break,
        }
    }
    output::line(format!(
        "{:.0} to {:.0}: {} conversations, {} escalations",
        backtest.from, backtest.to, totals.conversations, totals.escalations
    ));
    for (rule, count) in &totals.by_rule {
        output::line(format!("  {count} by {rule}"));
    }
    for (end, count) in &totals.by_end {
        output::line(format!("  {count} {}", in_words(end)));
    }
    for (how, count) in &totals.steps {
        output::line(format!("  {count} steps: {how}"));
    }
    output::line(format!(
        "As they were: {}. As they are now: {}.",
        AS_THEN.join(", "),
        AS_NOW.join(", ")
    ));
    Ok(())
}

fn in_words(end: &str) -> &str {
    match end {
        "answered" => "stopped by an answer",
        "handed_over" => "stopped by a hand-over",
        "unstaffed" => "stopped: nobody held the line any more",
        "closed" => "stopped by closing",
        "line_gone" => "stopped: the line was removed",
        "back" => "stopped: the holder was back",
        "steps_taken" => "ended: all steps were taken",
        "needs_person" => "left to a person",
        "open" => "still open at the end",
        other => other,
    }
}
