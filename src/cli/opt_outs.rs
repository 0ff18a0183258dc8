//! `hookswitch opt-outs`: members who want nothing from a number of ours, and what is done about it.

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::db;
use crate::events::Via;
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::opt_out::{self, Decision, Filter, OptOut, OptOuts, Policy};

/// What to do about opt-outs.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List who has opted out, the latest first: id, number of ours, member, since when, by what
    List {
        /// Only of this number of ours
        #[arg(long, value_name = "NUMBER")]
        line: Option<PhoneNumber>,
        /// Only this member
        #[arg(long, value_name = "NUMBER")]
        address: Option<PhoneNumber>,
        /// Those that have ended too
        #[arg(long)]
        all: bool,
    },
    /// Record that a member wants nothing more from a number of ours; Twilio is not told
    Set {
        /// The number of ours
        #[arg(long, value_name = "NUMBER")]
        line: PhoneNumber,
        /// The member
        #[arg(long, value_name = "NUMBER")]
        address: PhoneNumber,
        /// Who says so
        #[arg(long, value_name = "IDENTITY")]
        by: Option<Identity>,
    },
    /// Record that a member wants messages again; Twilio refuses until they write START
    Clear {
        /// The id that `list` shows
        id: Uuid,
        /// Who says so
        #[arg(long, value_name = "IDENTITY")]
        by: Option<Identity>,
    },
    /// Decide whether a group is written to of which a member has opted out, where the policy asks
    Decide {
        conversation: ConversationSid,
        decision: DecisionArg,
        /// The supervisor
        #[arg(long, value_name = "IDENTITY")]
        by: Identity,
    },
    /// Show what happens when a member opts out of a number, or say it
    Policy {
        line: PhoneNumber,
        /// Left out: it is shown
        policy: Option<PolicyArg>,
        /// Who says so
        #[arg(long, value_name = "IDENTITY")]
        by: Option<Identity>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DecisionArg {
    /// The others are written to, and what is held is sent
    Allow,
    /// Nothing is posted, and what is held fails
    Stop,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PolicyArg {
    /// The others are written to; whoever posts is warned
    CarryOn,
    /// Nothing is posted until a supervisor decides
    AskSupervisor,
    /// The conversation is closed
    Close,
    /// What the settings say for the account
    OfAccount,
}

impl PolicyArg {
    fn own(self) -> Option<Policy> {
        match self {
            Self::CarryOn => Some(Policy::CarryOn),
            Self::AskSupervisor => Some(Policy::AskSupervisor),
            Self::Close => Some(Policy::Close),
            Self::OfAccount => None,
        }
    }
}

impl From<DecisionArg> for Decision {
    fn from(decision: DecisionArg) -> Self {
        match decision {
            DecisionArg::Allow => Self::Allow,
            DecisionArg::Stop => Self::Stop,
        }
    }
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let accounts = Accounts::new(&config.twilio)?;
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 2);
    let opt_outs = OptOuts {
        pool: pool.clone(),
        clock: Clock::system(),
        accounts,
        via: Via::Cli,
    };
    let mut conn = pool.acquire().await?;
    let done = act(&mut conn, &opt_outs, &args.action).await;
    drop(conn);
    pool.close().await;
    database.close().await?;
    done
}

async fn act(conn: &mut PgConnection, opt_outs: &OptOuts, action: &Action) -> anyhow::Result<()> {
    let name = |by: &Option<Identity>| by.as_ref().map_or("cli", Identity::as_str).to_owned();
    match action {
        Action::List { line, address, all } => list(conn, line.as_ref(), address.as_ref(), *all).await,
        Action::Set { line, address, by } => {
            let mut transaction = conn.begin().await?;
            let set = opt_outs.set_in(&mut transaction, line, address, &name(by)).await;
            let (lasts, is_new) = set.context("cannot set the opt-out")?;
            transaction.commit().await?;
            output::line(shown(&lasts));
            if !is_new {
                output::line("it lasted already");
            }
            Ok(())
        }
        Action::Clear { id, by } => {
            let mut transaction = conn.begin().await?;
            let cleared = opt_outs.clear_in(&mut transaction, *id, &name(by)).await;
            let ended = cleared.context("cannot clear the opt-out")?;
            transaction.commit().await?;
            output::line(shown(&ended));
            Ok(())
        }
        Action::Decide {
            conversation,
            decision,
            by,
        } => {
            let mut transaction = conn.begin().await?;
            let decided = opt_outs
                .decide_in(&mut transaction, conversation, (*decision).into(), by.as_str())
                .await
                .context("nothing was decided")?;
            transaction.commit().await?;
            for concern in decided {
                output::line(format!("{}  {}", concern.opt_out_id, concern.state.as_str()));
            }
            Ok(())
        }
        Action::Policy { line, policy, by } => {
            let found = match policy {
                None if by.is_some() => bail!("--by: say which policy, or leave it out"),
                None => opt_outs.policy(conn, line).await,
                Some(policy) => {
                    let mut transaction = conn.begin().await?;
                    let set = opt_outs
                        .set_policy_in(&mut transaction, line, policy.own(), &name(by))
                        .await;
                    transaction.commit().await?;
                    set
                }
            };
            let (policy, is_own) = found.context("there is no policy of it")?;
            let whose = if is_own { "its own" } else { "of its account" };
            output::line(format!("{line}  {}  {whose}", policy.as_str()));
            Ok(())
        }
    }
}

async fn list(
    conn: &mut PgConnection,
    line: Option<&PhoneNumber>,
    address: Option<&PhoneNumber>,
    all: bool,
) -> anyhow::Result<()> {
    const PAGE: usize = 500;
    let filter = Filter {
        line: line.map(ToString::to_string),
        address: address.map(ToString::to_string),
        open: (!all).then_some(true),
    };
    let mut before: Option<(Timestamp, Uuid)> = None;
    loop {
        let page = opt_out::page(conn, &filter, before, i64::try_from(PAGE).unwrap_or(i64::MAX)).await?;
        for one in &page {
            output::line(shown(one));
        }
        match page.get(PAGE - 1) {
            Some(last) => before = Some((last.recorded_at, last.opt_out_id)),
            None => return Ok(()),
        }
    }
}

fn shown(one: &OptOut) -> String {
    let told = one.evidence.as_ref().or(one.set_by.as_ref());
    let told = told.map_or("-", String::as_str);
    let until = one.cleared.as_ref().map(|cleared| {
        let by = cleared.evidence.as_ref().or(cleared.by.as_ref());
        let by = by.map_or("-", String::as_str);
        format!("  until {:.0}  {}  {by}", cleared.at, cleared.source.as_str())
    });
    format!(
        "{}  {}  {}  since {:.0}  {}  {told}{}",
        one.opt_out_id,
        one.line,
        one.address,
        one.since,
        one.source.as_str(),
        until.unwrap_or_default(),
    )
}
