//! Whether the lines of one leaver are handed over at the rate that is set. See bench/README.md.
//!
//! The service runs as it does in `hookswitch dev`, with a durable PostgreSQL of its own and the sandbox in Twilio's place,
//! which adds no time of its own, unless `--call-ms` says how long each call to it takes.

mod slow;

use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use hookswitch::app::{App, Roles};
use hookswitch::clock::Clock;
use hookswitch::config::{Config, PublicBaseUrl};
use hookswitch::db;
use hookswitch::db::embedded::{self, Options};
use hookswitch::events::Via;
use hookswitch::group_text::{Choice, NewGroupText, NewMember};
use hookswitch::handover::{self, By, Counts, Filter, Handover, NewHandover, Otherwise, Rule, State, Verb};
use hookswitch::ids::Identity;
use hookswitch::ledger;
use hookswitch::people::{self, Actor, Profile};
use hookswitch::sandbox::{Sandbox, Settings};
use hookswitch::setup;
use jiff::Timestamp;
use secrecy::SecretString;
use slow::Slow;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LINE: &str = "+15017122661";
const LEAVER: &str = "maya";
const TAKERS: [&str; 3] = ["ada", "ben", "cyd"];
/// Of the preparations; the run has what its rate asks for, and this.
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(Debug, Parser)]
struct Args {
    /// Lines of the leaver.
    #[arg(long, default_value_t = 1_000)]
    lines: u32,
    /// The rate that is set.
    #[arg(long, default_value_t = 1_200)]
    per_minute: u32,
    /// How long Twilio takes for each call, in milliseconds, while lines are found and handed over.
    #[arg(long, default_value_t = 0)]
    call_ms: u64,
    /// The measured rate may be so many percent off; more fails the run. 0 for no limit.
    #[arg(long, default_value_t = 5.0)]
    limit_percent: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(&args))
}

async fn run(args: &Args) -> Result<()> {
    ensure!((2..=8_000).contains(&args.lines), "--lines: expected 2 to 8000");
    let dir = tempfile::Builder::new()
        .prefix("hookswitch-bench-")
        .tempdir_in("/var/tmp")?;
    // PostgreSQL does not run as root, and its account has to get in.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let server = embedded::start(Options::new(dir.path())).await?;
    let options = server.connect_options();
    db::migrate(&options).await?;
    let settings = Settings {
        activation_delay: Duration::from_millis(10),
        ..Settings::default()
    };
    let sandbox = Sandbox::start(settings.clone(), Clock::system()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let twilio = Slow::new(&sandbox.base_url())?;
    let at = if args.call_ms > 0 {
        twilio.serve().await?
    } else {
        sandbox.base_url()
    };
    let config = config(&at, settings, &url)?;
    let app = App::new(config.clone(), options.clone(), Clock::system())?;
    // Beside it, to ask and to look, with connections of its own.
    let beside = App::new(config.clone(), options, Clock::system())?;
    let shutdown = CancellationToken::new();
    tokio::spawn(app.run(listener, Roles::default(), shutdown.clone()));
    for account in beside.accounts.iter() {
        setup::apply(account, &config.http.public_base_url).await?;
    }
    prepare(&beside, args.lines).await?;
    twilio.hold(args.call_ms);
    let measured = hand_over(&beside, args).await?;
    sandbox.stop().await;
    shutdown.cancel();
    beside.pool.close().await;
    server.stop().await?;
    report(args, &measured)
}

/// People, and groups of two handsets and our line each.
async fn prepare(app: &App, lines: u32) -> Result<()> {
    let by = Actor {
        name: "bench".to_owned(),
        via: Via::Cli,
        cause: None,
    };
    let mut conn = app.pool.acquire().await?;
    for name in TAKERS.iter().chain(&[LEAVER]) {
        let profile = Profile {
            name: (*name).to_owned(),
            team: None,
            supervisor: None,
            backup: None,
            skills: std::collections::BTreeSet::new(),
            capacity: None,
            left_at: None,
        };
        people::put_agent(&mut conn, &name.parse()?, profile, None, &by, app.clock.now()).await?;
    }
    drop(conn);
    for number in 0..lines {
        let handset = |number: String| NewMember {
            address: Some(number),
            ..NewMember::default()
        };
        let line = NewMember {
            line: Some(LINE.to_owned()),
            holder: Some(LEAVER.to_owned()),
            address: None,
        };
        let new = NewGroupText {
            friendly_name: None,
            attributes: None,
            members: vec![
                handset(format!("+1555555{:04}", 1_000 + number)),
                handset("+15555550101".to_owned()),
                line,
            ],
            choice: Choice::default(),
            requested_by: "bench".to_owned(),
        };
        app.api.group_texts.start(new).await?;
    }
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let mut conn = app.pool.acquire().await?;
        let held = ledger::held_by(&mut conn, LEAVER).await?;
        if held.len() == lines as usize && held.iter().all(|line| !line.is_in_doubt) {
            return Ok(());
        }
        drop(conn);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!("the group texts do not become active")
}

/// What came of a run.
struct Measured {
    counts: Counts,
    /// From making the plan until it was a draft.
    planned: Duration,
    /// When the transfers began, and when they ended.
    began: Vec<Timestamp>,
    ended: Vec<Timestamp>,
    transfers: i64,
}

async fn hand_over(app: &App, args: &Args) -> Result<Measured> {
    let handovers = &app.api.handovers;
    let asked = Instant::now();
    let mut transaction = app.pool.begin().await?;
    let new = NewHandover {
        leaver: LEAVER.parse()?,
        rules: vec![Rule::People(
            TAKERS
                .iter()
                .map(|name| name.parse::<Identity>())
                .collect::<Result<_, _>>()?,
        )],
        otherwise: Otherwise::Stay,
        lines_per_minute: args.per_minute,
        return_at: None,
        leaver_becomes: None,
        reason: None,
        note: None,
        introduction: None,
        requested_by: "bench".to_owned(),
    };
    let id = handovers
        .create_in(&mut transaction, new, Via::Cli)
        .await?
        .handover_id;
    transaction.commit().await?;
    until(&app.pool, id, PATIENCE, |plan| plan.state == State::Draft).await?;
    let planned = asked.elapsed();

    let mut transaction = app.pool.begin().await?;
    let by = By {
        name: "bench",
        via: Via::Cli,
    };
    handovers.act_in(&mut transaction, id, Verb::Run, by).await?;
    transaction.commit().await?;
    let at_most = PATIENCE + Duration::from_mins(1) * args.lines / args.per_minute;
    until(&app.pool, id, at_most, |plan| plan.state == State::Completed).await?;

    let mut conn = app.pool.acquire().await?;
    let lines = handover::page_of_lines(&mut conn, id, &Filter::default(), None, i64::MAX).await?;
    let (mut began, mut ended) = (Vec::new(), Vec::new());
    for line in &lines {
        let transfer_id = line.transfer_id.context("every line has its transfer")?;
        let transfer = hookswitch::transfer::find(&mut conn, transfer_id).await?;
        let transfer = transfer.context("the transfer is there")?;
        began.push(transfer.created_at);
        ended.push(transfer.finished_at.context("it is finished")?);
    }
    began.sort();
    ended.sort();
    Ok(Measured {
        counts: handover::counts(&mut conn, id).await?,
        planned,
        transfers: i64::try_from(began.len())?,
        began,
        ended,
    })
}

async fn until(pool: &PgPool, id: Uuid, at_most: Duration, is_so: impl Fn(&Handover) -> bool) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < at_most {
        let mut conn = pool.acquire().await?;
        if is_so(&handover::find(&mut conn, id).await?.context("it is there")?) {
            return Ok(());
        }
        drop(conn);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the plan does not get there in {} s", at_most.as_secs())
}

fn report(args: &Args, measured: &Measured) -> Result<()> {
    let spread = |times: &[Timestamp]| {
        let (first, last) = (times.first().copied(), times.last().copied());
        match (first, last) {
            (Some(first), Some(last)) => last.duration_since(first).as_secs_f64(),
            _ => 0.0,
        }
    };
    let intervals = f64::from(args.lines - 1);
    let rate = |seconds: f64| intervals / seconds * 60.0;
    let (began, ended) = (rate(spread(&measured.began)), rate(spread(&measured.ended)));
    let off = |rate: f64| (rate / f64::from(args.per_minute) - 1.0) * 100.0;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} lines of one leaver, {} handed over; planned in {:.1} s",
        args.lines,
        measured.counts.handed_over,
        measured.planned.as_secs_f64()
    )?;
    writeln!(out, "set     {} lines per minute", args.per_minute)?;
    writeln!(out, "begun   {began:.1} ({:+.2} %)", off(began))?;
    writeln!(out, "done    {ended:.1} ({:+.2} %)", off(ended))?;
    let most = most_in_a_minute(&measured.began);
    writeln!(out, "most begun in any minute: {most}")?;
    let all = i64::from(args.lines);
    ensure!(measured.counts.handed_over == all, "not all were handed over");
    ensure!(measured.transfers == all, "not every line has one transfer");
    for rate in [began, ended] {
        ensure!(
            args.limit_percent <= 0.0 || off(rate).abs() <= args.limit_percent,
            "that is more than {} % off",
            args.limit_percent
        );
    }
    Ok(())
}

fn most_in_a_minute(began: &[Timestamp]) -> usize {
    let minute = jiff::SignedDuration::from_mins(1);
    (0..began.len())
        .map(|first| {
            began[first..]
                .iter()
                .take_while(|at| at.duration_since(began[first]) < minute)
                .count()
        })
        .max()
        .unwrap_or(0)
}

fn config(twilio: &str, settings: Settings, url: &str) -> Result<Config> {
    let mut config = Config::load_from(None, &HashMap::new())?;
    config.sweep.interval = Duration::ZERO;
    config.twilio.base_url = twilio.parse()?;
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
