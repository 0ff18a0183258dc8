//! `hookswitch numbers`: our pool of numbers.

use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use sqlx::PgConnection;

use crate::accounts::Accounts;
use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::events::Via;
use crate::ids::{AccountSid, Identity, MessagingServiceSid, PhoneNumber};
use crate::numbers::form::Wanted;
use crate::numbers::{self, Filter, Listed, NumberKind, Rule};
use crate::people::form::Name;
use crate::people::{Actor, Slug};
use crate::{assignment, db};

/// What to do about numbers.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the numbers of the pool, and those that are lines without being in it
    List {
        /// Only those of this team
        #[arg(long)]
        team: Option<Slug>,
        /// Only those that are lines without being in the pool
        #[arg(long, conflicts_with = "team")]
        unknown: bool,
    },
    /// Add a number to the pool, or replace what is decided about it: what is left out is none
    Put(Put),
    /// Take a number out of the pool
    Remove { number: PhoneNumber },
    /// List lines that nobody holds and that wait for somebody, the oldest first
    Queue {
        /// Only the queue of this team
        #[arg(long)]
        team: Option<Slug>,
    },
}

#[derive(Debug, clap::Args)]
struct Put {
    number: PhoneNumber,
    /// The account that it belongs to; may be left out where the settings name the number
    #[arg(long, value_name = "SID")]
    account: Option<AccountSid>,
    /// What you call it
    #[arg(long)]
    label: Option<Name>,
    /// What sort of number it is; only a long code takes part in group texts
    #[arg(long, value_enum, default_value_t = KindArg::LongCode)]
    kind: KindArg,
    /// It does not send and receive MMS
    #[arg(long)]
    no_mms: bool,
    /// The messaging service that it is in
    #[arg(long, value_name = "SID")]
    messaging_service: Option<MessagingServiceSid>,
    /// Whose it is: for this team it is chosen, and in this team's queue its lines wait
    #[arg(long)]
    team: Option<Slug>,
    /// Who gets a line of it that nobody holds, when a customer writes; left out: nobody
    #[arg(long, value_enum)]
    rule: Option<RuleArg>,
    /// The person, where the rule is `person`
    #[arg(long, value_name = "IDENTITY")]
    person: Option<Identity>,
    /// Not chosen for new group texts
    #[arg(long)]
    disabled: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindArg {
    LongCode,
    TollFree,
    ShortCode,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RuleArg {
    /// The members of the team in turn
    RoundRobin,
    /// The member of the team that holds fewest lines
    LeastLoaded,
    /// Who is on call in the team
    OnCall,
    /// One person
    Person,
    /// Nobody is chosen: it waits until somebody takes it
    Queue,
}

impl From<KindArg> for NumberKind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::LongCode => Self::LongCode,
            KindArg::TollFree => Self::TollFree,
            KindArg::ShortCode => Self::ShortCode,
        }
    }
}

impl From<RuleArg> for Rule {
    fn from(rule: RuleArg) -> Self {
        match rule {
            RuleArg::RoundRobin => Self::RoundRobin,
            RuleArg::LeastLoaded => Self::LeastLoaded,
            RuleArg::OnCall => Self::OnCall,
            RuleArg::Person => Self::Person,
            RuleArg::Queue => Self::Queue,
        }
    }
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let accounts = Accounts::new(&config.twilio)?;
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 2);
    let mut conn = pool.acquire().await?;
    let done = act(&mut conn, &accounts, Clock::system().now(), &args.action).await;
    drop(conn);
    pool.close().await;
    database.close().await?;
    done
}

async fn act(
    conn: &mut PgConnection,
    accounts: &Accounts,
    now: Timestamp,
    action: &Action,
) -> anyhow::Result<()> {
    match action {
        Action::List { team, unknown } => list(conn, team.clone(), *unknown).await,
        Action::Put(put) => add(conn, accounts, put, now).await,
        Action::Remove { number } => {
            numbers::remove_number(conn, number, &actor(), now).await?;
            output::line("it is no longer in the pool");
            Ok(())
        }
        Action::Queue { team } => queue(conn, team.as_ref(), now).await,
    }
}

fn actor() -> Actor {
    Actor {
        name: "cli".to_owned(),
        via: Via::Cli,
        cause: None,
    }
}

async fn list(conn: &mut PgConnection, team: Option<Slug>, unknown: bool) -> anyhow::Result<()> {
    const PAGE: u16 = 500;
    let filter = Filter {
        known: unknown.then_some(false),
        team,
        enabled: None,
    };
    let mut after: Option<String> = None;
    loop {
        let page = numbers::page(conn, &filter, after.as_deref(), i64::from(PAGE)).await?;
        for listed in &page {
            output::line(line(listed));
        }
        match page.into_iter().nth(usize::from(PAGE) - 1) {
            Some(last) => after = Some(last.number),
            None => return Ok(()),
        }
    }
}

fn line(listed: &Listed) -> String {
    let (number, groups) = (&listed.number, listed.open_groups);
    let Some(known) = &listed.known else {
        return format!("{number}  (not in the pool)  {groups} groups");
    };
    let plan = &known.plan;
    let team = plan.team.as_ref().map_or("-", Slug::as_str);
    let rule = match (plan.rule, &plan.person) {
        (Some(Rule::Person), Some(person)) => format!("person {person}"),
        (Some(rule), _) => rule.as_str().to_owned(),
        (None, _) => "no rule".to_owned(),
    };
    let mut fit = vec![plan.kind.as_str()];
    if !plan.mms_capable {
        fit.push("no MMS");
    }
    if !plan.enabled {
        fit.push("disabled");
    }
    let label = plan
        .label
        .as_ref()
        .map(|label| format!("  {label}"))
        .unwrap_or_default();
    format!(
        "{number}  {team}  {rule}  {}  {groups} groups{label}",
        fit.join(", ")
    )
}

async fn add(conn: &mut PgConnection, accounts: &Accounts, put: &Put, now: Timestamp) -> anyhow::Result<()> {
    let wanted = Wanted {
        account_sid: put.account.clone(),
        label: put.label.clone().map(Name::into_string),
        kind: put.kind.into(),
        mms_capable: !put.no_mms,
        messaging_service_sid: put.messaging_service.clone(),
        team: put.team.clone(),
        rule: put.rule.map(Rule::from),
        person: put.person.clone(),
        enabled: !put.disabled,
        replaces: None,
    };
    if let Some((field, _, message)) = wanted.wrong().first() {
        bail!("--{field}: {message}");
    }
    let number = numbers::put_number(conn, accounts, &put.number, wanted, &actor(), now).await?;
    assignment::look_soon(conn, now).await?;
    let groups = numbers::open_groups(conn, &[number.number.as_str()]).await?;
    output::line(line(&Listed {
        open_groups: groups.get(number.number.as_str()).copied().unwrap_or(0),
        number: number.number.as_str().to_owned(),
        known: Some(number),
    }));
    Ok(())
}

async fn queue(conn: &mut PgConnection, team: Option<&Slug>, now: Timestamp) -> anyhow::Result<()> {
    const PAGE: usize = 500;
    let team = team.map(Slug::as_str);
    let mut after: Option<(Timestamp, String, String)> = None;
    loop {
        let from = after
            .as_ref()
            .map(|(at, sid, line)| (*at, sid.as_str(), line.as_str()));
        let page = assignment::page(conn, team, from, i64::try_from(PAGE).unwrap_or(i64::MAX)).await?;
        for waiting in &page {
            let passed: Vec<String> = waiting
                .passed
                .iter()
                .map(|one| format!("{} {}", one.identity, one.why))
                .collect();
            output::line(format!(
                "{}  {}  {}  {} min  {}{}{}",
                waiting.conversation_sid,
                waiting.line,
                waiting.team_id.as_deref().unwrap_or("-"),
                now.duration_since(waiting.since).as_mins().max(0),
                waiting.reason,
                if passed.is_empty() { "" } else { "  not " },
                passed.join(", "),
            ));
        }
        match page.into_iter().nth(PAGE - 1) {
            Some(last) => {
                let (sid, line) = (last.conversation_sid.to_string(), last.line.into_string());
                after = Some((last.since, sid, line));
            }
            None => return Ok(()),
        }
    }
}
