//! `hookswitch sends`: messages on their way to Twilio, and those of which nobody knows whether they were sent.

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::cli::database::Database;
use crate::cli::output;
use crate::clock::Clock;
use crate::config::Config;
use crate::db;
use crate::events::Via;
use crate::ids::{Identity, MessageSid};
use crate::outbox::{self, OutboundMessage, Outbox, State, Verdict};

/// What to do about messages.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what is not settled, the oldest first: id, state, conversation, since when, by whom, and why it is not sent
    List {
        /// Only these
        #[arg(long)]
        state: Option<StateArg>,
    },
    /// Say what became of a message that needs attention; look into the thread first
    Resolve {
        /// The id that `list` shows
        id: Uuid,
        #[command(flatten)]
        found: Found,
        /// Who found it out
        #[arg(long, value_name = "IDENTITY")]
        by: Identity,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Found {
    /// It is this message of the conversation
    #[arg(long, value_name = "SID")]
    sent: Option<MessageSid>,
    /// It did not reach the group
    #[arg(long)]
    not_sent: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StateArg {
    /// Twilio has not been asked yet, or did not take it yet
    Queued,
    /// Twilio was asked, and its answer is not known yet
    Sending,
    /// Nobody knows whether it was sent
    NeedsAttention,
}

impl From<StateArg> for State {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Queued => Self::Queued,
            StateArg::Sending => Self::Sending,
            StateArg::NeedsAttention => Self::NeedsAttention,
        }
    }
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 2);
    let mut conn = pool.acquire().await?;
    let done = match &args.action {
        Action::List { state } => list(&mut conn, state.map(State::from)).await,
        Action::Resolve { id, found, by } => {
            let outbox = Outbox {
                pool: pool.clone(),
                clock: Clock::system(),
            };
            let verdict = found.sent.clone().map_or(Verdict::NotSent, Verdict::Sent);
            resolve(&mut conn, &outbox, *id, &verdict, by).await
        }
    };
    drop(conn);
    pool.close().await;
    database.close().await?;
    done
}

async fn resolve(
    conn: &mut PgConnection,
    outbox: &Outbox,
    id: Uuid,
    verdict: &Verdict,
    by: &Identity,
) -> anyhow::Result<()> {
    let mut transaction = conn.begin().await?;
    let message = outbox
        .resolve_in(&mut transaction, id, verdict, by, Via::Cli)
        .await
        .context("nothing was recorded")?;
    transaction.commit().await?;
    output::line(shown(&message));
    Ok(())
}

async fn list(conn: &mut PgConnection, state: Option<State>) -> anyhow::Result<()> {
    const PAGE: usize = 500;
    let mut after: Option<(Timestamp, Uuid)> = None;
    loop {
        let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let page = outbox::page_of_open(conn, state, after, limit).await?;
        for one in &page {
            output::line(shown(one));
        }
        match page.get(PAGE - 1) {
            Some(last) => after = Some((last.created_at, last.outbound_message_id)),
            None => return Ok(()),
        }
    }
}

/// Never what it says, nor to whom.
fn shown(one: &OutboundMessage) -> String {
    let why = match (&one.outcome_code, one.held_since, &one.waiting) {
        (Some(code), _, _) => format!("  {code}"),
        (None, Some(since), _) => format!("  a supervisor has to decide, since {since:.0}"),
        (None, None, Some(waiting)) => format!(
            "  waits for Twilio: {}, since {:.0}",
            waiting.error, waiting.since
        ),
        (None, None, None) => String::new(),
    };
    let sid = one.message_sid.as_deref().map(|sid| format!("  {sid}"));
    format!(
        "{}  {}  {}  {:.0}  {}{}{why}",
        one.outbound_message_id,
        one.state.as_str(),
        one.conversation_sid,
        one.created_at,
        one.requested_by,
        sid.unwrap_or_default(),
    )
}
