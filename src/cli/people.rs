//! `hookswitch people`: agents and teams, brought in from files and looked at.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sqlx::PgConnection;

use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::events::Via;
use crate::ids::Identity;
use crate::people::import::plan::Plan;
use crate::people::import::{self, Absent, ImportError, Wanted, Wrong, document, table};
use crate::people::judge::{Candidate, Needs};
use crate::people::{self, Actor, Filter, NewAvailability, Slug, Status, questions};
use crate::{assignment, db, ledger};

/// What to do about people.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List agents, and identities at Twilio that are unknown here
    List {
        /// Only the members of this team
        #[arg(long)]
        team: Option<Slug>,
        /// Only identities that are unknown here
        #[arg(long, conflicts_with = "team")]
        unknown: bool,
    },
    /// Show an agent: profile, availability, lines held, the people above them
    Show { identity: Identity },
    /// List teams, and who is on call in each
    Teams {
        /// At this time, instead of now
        #[arg(long, value_name = "TIME")]
        at: Option<Timestamp>,
    },
    /// Bring people in from files: all of it, or nothing where something is wrong
    ///
    /// Agents are CSV with the columns identity, name, team, supervisor, skills, capacity, `left_at` and backup; teams are
    /// JSON. See docs/PEOPLE.md.
    Import {
        /// Agents, as CSV
        #[arg(value_name = "AGENTS.csv", required_unless_present = "teams")]
        agents: Option<PathBuf>,
        /// Teams, as JSON
        #[arg(long, value_name = "TEAMS.json")]
        teams: Option<PathBuf>,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// What becomes of agents that the file does not name
        #[arg(long, value_enum, default_value_t, requires = "agents")]
        absent: Absent,
    },
    /// Write all agents or teams in the form that `import` takes
    Export { what: What },
    /// Say that an agent takes no lines
    Away {
        identity: Identity,
        /// In a few words, for colleagues
        #[arg(long, value_parser = reason)]
        reason: Option<String>,
        /// Available again from then on, by itself
        #[arg(long, value_name = "TIME", conflicts_with = "for")]
        until: Option<Timestamp>,
        /// Available again after so long, like 90m or 2h
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        r#for: Option<SignedDuration>,
    },
    /// Say that an agent takes lines again
    Back { identity: Identity },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// CSV
    Agents,
    /// JSON
    Teams,
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
        Action::List { team, unknown } => list(conn, team.clone(), *unknown, now).await,
        Action::Show { identity } => show(conn, identity, now).await,
        Action::Teams { at } => teams(conn, at.unwrap_or(now)).await,
        Action::Import {
            agents,
            teams,
            dry_run,
            absent,
        } => {
            let wanted = read(agents.as_deref(), teams.as_deref(), *absent)?;
            bring_in(conn, &wanted, *dry_run, now).await
        }
        Action::Export { what } => export(conn, *what).await,
        Action::Away {
            identity,
            reason,
            until,
            r#for,
        } => {
            let until = match r#for {
                Some(time) => Some(now.checked_add(*time).context("--for: too long")?),
                None => *until,
            };
            let new = NewAvailability {
                status: Status::Away,
                reason: reason.clone(),
                until,
                by: None,
            };
            set(conn, identity, new, now).await
        }
        Action::Back { identity } => {
            let new = NewAvailability {
                status: Status::Available,
                reason: None,
                until: None,
                by: None,
            };
            set(conn, identity, new, now).await
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

async fn list(
    conn: &mut PgConnection,
    team: Option<Slug>,
    unknown: bool,
    now: Timestamp,
) -> anyhow::Result<()> {
    let filter = Filter {
        known: unknown.then_some(false),
        team,
        ..Filter::default()
    };
    let mut after: Option<String> = None;
    loop {
        const PAGE: u16 = 500;
        let page = people::page_of_agents(conn, &filter, after.as_deref(), now, i64::from(PAGE)).await?;
        let identities: Vec<&str> = page.iter().map(|listed| listed.identity.as_str()).collect();
        let loads = ledger::loads(conn, &identities).await?;
        let found = questions::candidates(conn, &identities, now, &Needs::a_line()).await?;
        for candidate in &found {
            output::line(line(
                candidate,
                loads.get(&candidate.identity).copied().unwrap_or(0),
            ));
        }
        match page.into_iter().nth(usize::from(PAGE) - 1) {
            Some(last) => after = Some(last.identity),
            None => return Ok(()),
        }
    }
}

fn line(candidate: &Candidate, load: u32) -> String {
    let state = match &candidate.skipped {
        Some(reason) if candidate.person.is_some() => reason.detail(),
        Some(_) => "unknown here".to_owned(),
        None => "available".to_owned(),
    };
    let Some(person) = &candidate.person else {
        return format!("{}  ({state})  {load} lines", candidate.identity);
    };
    let profile = &person.agent.profile;
    let team = profile.team.as_ref().map_or("-", Slug::as_str);
    let of = profile
        .capacity
        .map(|capacity| format!(" of {capacity}"))
        .unwrap_or_default();
    format!(
        "{}  {}  {team}  {load}{of} lines  {state}",
        candidate.identity, profile.name
    )
}

async fn show(conn: &mut PgConnection, identity: &Identity, now: Timestamp) -> anyhow::Result<()> {
    let candidate = questions::candidate(conn, identity.as_str(), now, &Needs::a_line()).await?;
    let loads = ledger::loads(conn, &[identity.as_str()]).await?;
    let load = loads.get(identity.as_str()).copied().unwrap_or(0);
    if candidate.person.is_none() && !people::is_seen(conn, identity.as_str()).await? {
        bail!("nobody has this identity, here or at Twilio as far as we know");
    }
    output::line(line(&candidate, load));
    let Some(person) = candidate.person else {
        return Ok(());
    };
    let profile = person.agent.profile;
    if !profile.skills.is_empty() {
        let skills: Vec<&str> = profile.skills.iter().map(Slug::as_str).collect();
        output::line(format!("skills       {}", skills.join(", ")));
    }
    if let Some(backup) = &profile.backup {
        output::line(format!("backup       {backup}"));
    }
    if let Some(left_at) = profile.left_at {
        output::line(format!("left         {left_at:.0}"));
    }
    let availability = person.agent.availability.at(now);
    let reason = availability
        .reason
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default();
    output::line(format!(
        "{:12} since {:.0}{reason}",
        availability.status.as_str(),
        availability.since
    ));
    for supervisor in questions::supervisors_of(conn, identity, now).await? {
        output::line(format!(
            "supervisor   {}  {}",
            supervisor.identity, supervisor.profile.name
        ));
    }
    output::line(format!("version      {}", person.agent.version));
    Ok(())
}

async fn teams(conn: &mut PgConnection, at: Timestamp) -> anyhow::Result<()> {
    let (_, teams) = import::everybody(conn).await?;
    for team in teams {
        let calendar = team.plan.calendar();
        let open = match (
            calendar.is_open(at),
            calendar.closes_at(at),
            calendar.next_open(at),
        ) {
            (true, Some(closes), _) => format!("open until {closes:.0}"),
            (true, None, _) => "open".to_owned(),
            (false, _, Some(opens)) => format!("closed until {opens:.0}"),
            (false, _, None) => "closed".to_owned(),
        };
        let on_call = questions::on_call(conn, &team.team_id, at).await?;
        let person = on_call
            .as_ref()
            .and_then(|on_call| on_call.person())
            .map_or("nobody", |candidate| candidate.identity.as_str());
        output::line(format!(
            "{}  {}  {}  {open}  on call: {person}",
            team.team_id,
            team.plan.name,
            team.plan.time_zone.name()
        ));
    }
    Ok(())
}

/// All that is wrong with both files, before the database is asked.
fn read(agents: Option<&Path>, teams: Option<&Path>, absent: Absent) -> anyhow::Result<Wanted> {
    let bytes = |path: &Path| fs::read(path).with_context(|| format!("{}: cannot be read", path.display()));
    let mut found = Vec::new();
    let mut wanted = Wanted {
        absent,
        ..Wanted::default()
    };
    if let Some(path) = agents {
        match table::read(&bytes(path)?) {
            Ok(rows) => wanted.agents = Some(rows),
            Err(wrong) => found.extend(wrong),
        }
    }
    if let Some(path) = teams {
        match document::read(&bytes(path)?) {
            Ok(entries) => wanted.teams = Some(entries),
            Err(wrong) => found.extend(wrong),
        }
    }
    if found.is_empty() {
        Ok(wanted)
    } else {
        Err(refuse(&found))
    }
}

fn refuse(found: &[Wrong]) -> anyhow::Error {
    for wrong in found {
        output::line(wrong.to_string());
    }
    anyhow::anyhow!("{} places are wrong; nothing was changed", found.len())
}

async fn bring_in(
    conn: &mut PgConnection,
    wanted: &Wanted,
    dry_run: bool,
    now: Timestamp,
) -> anyhow::Result<()> {
    match import::import(conn, wanted, dry_run, &actor(), now).await {
        Ok(plan) => {
            if !dry_run {
                assignment::look_soon(conn, now).await?;
            }
            print(&plan, dry_run);
            Ok(())
        }
        Err(ImportError::Refused(found)) => Err(refuse(&found)),
        Err(error @ ImportError::Database(_)) => Err(error.into()),
    }
}

fn print(plan: &Plan, dry_run: bool) {
    for step in &plan.teams {
        let sign = if step.before.is_some() { '~' } else { '+' };
        let id = &step.after.team_id;
        output::line(format!(
            "{sign} team {id}: {}",
            differences(&step.differences(), step.before.is_none())
        ));
    }
    for step in &plan.agents {
        let sign = match (&step.before, step.is_absent) {
            (_, true) => '-',
            (Some(_), false) => '~',
            (None, false) => '+',
        };
        let identity = &step.after.identity;
        output::line(format!(
            "{sign} agent {identity}: {}",
            differences(&step.differences(), step.before.is_none())
        ));
    }
    let totals = plan.totals();
    let would = if dry_run {
        "nothing was changed; it would be: "
    } else {
        ""
    };
    output::line(format!(
        "{would}agents {} added, {} changed, {} deactivated, {} unchanged; teams {} added, {} changed, {} unchanged",
        totals.added,
        totals.changed,
        totals.deactivated,
        totals.unchanged,
        totals.teams_added,
        totals.teams_changed,
        totals.teams_unchanged
    ));
}

/// `capacity 3 → 5, team none → sales`; of something new, `capacity 5, team sales`.
fn differences(changes: &Value, is_new: bool) -> String {
    let shown = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let changes = changes.as_object().into_iter().flatten();
    let shown: Vec<String> = changes
        .map(|(name, change)| match (is_new, shown(&change["to"])) {
            (true, to) => format!("{name} {to}"),
            (false, to) => format!("{name} {} → {to}", shown(&change["from"])),
        })
        .collect();
    shown.join(", ")
}

async fn export(conn: &mut PgConnection, what: What) -> anyhow::Result<()> {
    let (agents, teams) = import::everybody(conn).await?;
    let file = match what {
        What::Agents => String::from_utf8(table::write(&agents)?)?,
        What::Teams => document::write(&teams)?,
    };
    output::line(file.trim_end_matches('\n'));
    Ok(())
}

async fn set(
    conn: &mut PgConnection,
    identity: &Identity,
    new: NewAvailability,
    now: Timestamp,
) -> anyhow::Result<()> {
    let agent = people::set_availability(conn, identity, new, &actor(), now).await?;
    assignment::look_soon(conn, now).await?;
    let availability = agent.availability;
    let until = availability
        .until
        .map(|until| format!(" until {until:.0}"))
        .unwrap_or_default();
    output::line(format!("{identity} is {}{until}", availability.status.as_str()));
    Ok(())
}

fn reason(text: &str) -> Result<String, &'static str> {
    let length = text.chars().count();
    if !text.trim().is_empty() && length <= 200 && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 200 characters in one line")
    }
}

fn duration(text: &str) -> Result<SignedDuration, &'static str> {
    text.parse()
        .ok()
        .filter(|time: &SignedDuration| time.is_positive())
        .ok_or("expected a duration like 90m or 2h")
}
