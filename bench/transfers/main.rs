//! How long it takes from accepting a transfer until the new holder may write. See bench/README.md.
//!
//! The service runs as it does in `hookswitch dev`, with a durable PostgreSQL of its own and the sandbox in Twilio's place,
//! which adds no time of its own. Accepted is when the call to accept begins; may write is when PostgreSQL tells of the transaction
//! that completes the transfer, since that and the ledger's new tenure are one transaction. What the same three calls take by themselves is
//! measured beside it.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use hookswitch::accounts::{Account, Accounts};
use hookswitch::app::{App, Roles};
use hookswitch::clock::Clock;
use hookswitch::config::{Config, PublicBaseUrl};
use hookswitch::db;
use hookswitch::db::embedded::{self, Options};
use hookswitch::group_text::{Choice, NewGroupText, NewMember};
use hookswitch::ids::{ConversationSid, Identity, ParticipantSid};
use hookswitch::sandbox::{IdentityReplacement, Sandbox, Settings};
use hookswitch::setup;
use hookswitch::transfer::{self, IfOpen, Kind, NewTransfer, State};
use hookswitch::twilio::requests::ParticipantUpdate;
use secrecy::SecretString;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const LINE: &str = "+15017122661";
const PEOPLE: [&str; 2] = ["maya", "jonas"];
/// Group texts that take turns: a line that changed hands hundreds of times is nobody's.
const GROUPS: usize = 20;
/// A transfer that takes so long has not come to its end.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
struct Args {
    /// Transfers that are measured.
    #[arg(long, default_value_t = 300)]
    transfers: usize,
    /// Transfers before that, which are not: until each connection has met each statement.
    #[arg(long, default_value_t = 100)]
    warm_up: usize,
    /// Twilio refuses to replace an identity: the new holder is added and the old one removed, by two calls more.
    #[arg(long)]
    add_remove: bool,
    /// The p99 of what we add to the three calls may be so many milliseconds; more fails the run. 0 for no limit.
    #[arg(long, default_value_t = 0.0)]
    limit_ms: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(&args))
}

/// The service and what it stands on.
struct Stage {
    sandbox: Sandbox,
    app: App,
    account: Account,
    sids: Vec<ConversationSid>,
}

async fn run(args: &Args) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("hookswitch-bench-")
        .tempdir_in("/var/tmp")?;
    // PostgreSQL does not run as root, and its account has to get in.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let server = embedded::start(Options::new(dir.path())).await?;
    let shutdown = CancellationToken::new();
    let stage = Stage::start(args, server.connect_options(), &shutdown).await?;

    let mut took = Vec::new();
    for number in 0..args.warm_up + args.transfers {
        let one = stage
            .transfer(number % GROUPS, PEOPLE[(number / GROUPS + 1) % 2])
            .await?;
        if number >= args.warm_up {
            took.push(one);
        }
    }
    let alone = stage.calls_alone(args.transfers).await?;
    report(args, &took, &alone)?;
    stage.sandbox.stop().await;
    shutdown.cancel();
    stage.app.pool.close().await;
    server.stop().await?;
    Ok(())
}

impl Stage {
    async fn start(
        args: &Args,
        options: sqlx::postgres::PgConnectOptions,
        shutdown: &CancellationToken,
    ) -> Result<Self> {
        db::migrate(&options).await?;
        let settings = Settings {
            identity_replacement: if args.add_remove {
                IdentityReplacement::Refuse
            } else {
                IdentityReplacement::Update
            },
            activation_delay: Duration::from_millis(10),
            ..Settings::default()
        };
        let sandbox = Sandbox::start(settings.clone(), Clock::system()).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let config = config(&sandbox, settings, &url)?;
        let app = App::new(config.clone(), options.clone(), Clock::system())?;
        let accounts = Accounts::new(&config.twilio)?;
        let account = accounts.iter().next().context("there is one account")?.clone();
        // Beside it, to ask and to look, with connections of its own.
        let beside = App::new(config.clone(), options, Clock::system())?;
        tokio::spawn(app.run(listener, Roles::default(), shutdown.clone()));
        setup::apply(&account, &config.http.public_base_url).await?;
        let mut sids = Vec::new();
        for number in 0..GROUPS {
            sids.push(group(&beside, number).await?);
        }
        Ok(Self {
            sandbox,
            app: beside,
            account,
            sids,
        })
    }

    /// Offers the line of a group, and measures from the answer to it until the line is theirs.
    async fn transfer(&self, group: usize, to: &str) -> Result<Duration> {
        let to: Identity = to.parse()?;
        let transfers = &self.app.api.transfers;
        let offered = transfers
            .start(NewTransfer {
                conversation_sid: self.sids[group].clone(),
                line: None,
                kind: Kind::Warm,
                to: to.clone(),
                then: Vec::new(),
                requested_by: "bench".to_owned(),
                reason: None,
                note: None,
                introduction: None,
                offer_timeout: None,
                if_open: IfOpen::Refuse,
            })
            .await?;
        let mut conn = self.app.pool.acquire().await?;
        let mut news = PgListener::connect_with(&self.app.pool).await?;
        news.listen(hookswitch::events::CHANNEL).await?;
        let began = Instant::now();
        transfers.accept(offered.transfer_id, to.as_str()).await?;
        loop {
            tokio::time::timeout(PATIENCE, news.recv()).await??;
            let took = began.elapsed();
            let seen = transfer::find(&mut conn, offered.transfer_id).await?;
            match seen.context("it is there")?.state {
                State::Completed => return Ok(took),
                State::Swapping => {}
                state => bail!("the transfer is {}", state.as_str()),
            }
        }
    }

    /// The calls of a transfer, with nobody between them: a read, a write that changes nothing, a read.
    async fn calls_alone(&self, times: usize) -> Result<Vec<Duration>> {
        let (client, of_sid) = (&self.account.client, &self.sids[0]);
        let mut took = Vec::new();
        for _ in 0..times {
            let began = Instant::now();
            let members = client.list_participants(of_sid).all().await?;
            let holder = members.iter().find(|one| one.identity.is_some());
            let holder = holder.context("somebody holds the line")?;
            let sid: ParticipantSid = holder.sid.clone();
            let update = ParticipantUpdate {
                identity: holder
                    .identity
                    .as_ref()
                    .map(|identity| identity.as_str().parse())
                    .transpose()?,
                ..ParticipantUpdate::default()
            };
            client.update_participant(of_sid, &sid, &update).await?;
            client.list_participants(of_sid).all().await?;
            took.push(began.elapsed());
        }
        Ok(took)
    }
}

/// A group of two handsets and our line, active.
async fn group(app: &App, number: usize) -> Result<ConversationSid> {
    let handset = |number: &str| NewMember {
        address: Some(number.to_owned()),
        ..NewMember::default()
    };
    let new = NewGroupText {
        friendly_name: None,
        attributes: None,
        members: vec![
            handset(&format!("+155555501{:02}", 2 * number)),
            handset(&format!("+155555501{:02}", 2 * number + 1)),
            NewMember {
                line: Some(LINE.to_owned()),
                holder: Some(PEOPLE[0].to_owned()),
                address: None,
            },
        ],
        choice: Choice::default(),
        requested_by: "bench".to_owned(),
    };
    let asked = app.api.group_texts.start(new).await?;
    let sid = wait_for_line(&app.pool, asked.group_text_id).await?;
    Ok(sid)
}

async fn wait_for_line(pool: &PgPool, group_text_id: uuid::Uuid) -> Result<ConversationSid> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let mut conn = pool.acquire().await?;
        let found = hookswitch::group_text::find(&mut conn, group_text_id).await?;
        let sid = found.and_then(|group| group.conversation_sid);
        if let Some(sid) = sid
            && !hookswitch::ledger::lines_of(&mut conn, &sid).await?.is_empty()
        {
            return Ok(sid.parse()?);
        }
        drop(conn);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("the group text does not become active")
}

fn config(sandbox: &Sandbox, settings: Settings, url: &str) -> Result<Config> {
    let mut config = Config::load_from(None, &HashMap::new())?;
    config.transfer.hops_per_hour = 0;
    config.sweep.interval = Duration::ZERO;
    config.twilio.base_url = sandbox.base_url().parse()?;
    config.http.public_base_url = PublicBaseUrl::try_from(url).map_err(|error| anyhow::anyhow!("{error}"))?;
    config.twilio.accounts = vec![hookswitch::config::Account {
        account_sid: settings.account_sid,
        auth_tokens: vec![SecretString::from("sandbox-auth-token")],
        api_key_sid: None,
        api_key_secret: None,
        service_sid: settings.service_sid,
        messaging_service_sid: settings.messaging_service_sid,
        numbers: settings.numbers,
        signatures: hookswitch::config::SignatureMode::default(),
        transfer_method: hookswitch::config::TransferMethod::default(),
        opt_out: hookswitch::config::OptOutPolicy::default(),
        max_in_flight: 10,
    }];
    Ok(config)
}

fn report(args: &Args, took: &[Duration], alone: &[Duration]) -> Result<()> {
    let (took, alone) = (Sorted::new(took), Sorted::new(alone));
    let method = if args.add_remove {
        "add and remove"
    } else {
        "update"
    };
    say(&format!(
        "{} transfers by {method}, one after the other; milliseconds",
        args.transfers
    ))?;
    say("                                   p50      p90      p99      max")?;
    took.say("accept until may write")?;
    alone.say("the three calls by themselves")?;
    let added = took.at(0.99) - alone.at(0.5);
    say(&format!(
        "added at p99, beyond the median of the calls: {added:.2} ms (p50: {:.2} ms)",
        took.at(0.5) - alone.at(0.5)
    ))?;
    ensure!(
        args.limit_ms <= 0.0 || added <= args.limit_ms,
        "that is more than {} ms",
        args.limit_ms
    );
    Ok(())
}

/// Times in milliseconds, in order.
struct Sorted(Vec<f64>);

impl Sorted {
    fn new(times: &[Duration]) -> Self {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// The smallest time that so large a part does not exceed.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a place among a few hundred"
    )]
    fn at(&self, part: f64) -> f64 {
        let place = (self.0.len() as f64 * part).ceil() as usize;
        self.0.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }

    fn say(&self, what: &str) -> Result<()> {
        say(&format!(
            "{what:<30} {:>8.2} {:>8.2} {:>8.2} {:>8.2}",
            self.at(0.5),
            self.at(0.9),
            self.at(0.99),
            self.at(1.0)
        ))
    }
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("nobody reads what is measured")
}
