//! How fast deadlines are worked off that are due all at once, and what that does to webhooks. See bench/README.md.
//!
//! The service runs with its defaults on a durable PostgreSQL of its own. Lines on which a customer has waited for too long
//! are put into the tables, each with an agent behind it; then all of them are due at one instant. Meanwhile webhooks come
//! at a steady rate, as they did before without any deadline.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use hookswitch::app::{App, Roles};
use hookswitch::clock::Clock;
use hookswitch::config::{Account, Config, OptOutPolicy, PublicBaseUrl, SignatureMode, TransferMethod};
use hookswitch::db::embedded::{self, Options};
use hookswitch::events::Via;
use hookswitch::people::Actor;
use hookswitch::twilio::signature;
use hookswitch::{db, escalation};
use secrecy::SecretString;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "bench-token";
const LINE: &str = "+15017122661";
const PATH: &str = "/webhooks/twilio/conversations";
/// Conversations that the webhooks are about; they have lines under the policy too.
const BUSY: usize = 500;
/// Work that takes so long does not come to its end.
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(Debug, Parser)]
struct Args {
    /// Deadlines that are due at once.
    #[arg(long, default_value_t = 10_000)]
    deadlines: usize,
    /// Webhooks a second, before and meanwhile.
    #[arg(long, default_value_t = 100)]
    rate: usize,
    /// Seconds of webhooks, each time.
    #[arg(long, default_value_t = 20)]
    seconds: usize,
    /// Each is an offer of the line to the holder's backup, which is a transfer, instead of an entry of the log.
    #[arg(long)]
    offer: bool,
    /// Twilio takes calls and answers none; each webhook leaves a gap, so that the service asks for what is missing.
    #[arg(long)]
    away: bool,
    /// Fails below so many a second. 0 for no limit.
    #[arg(long, default_value_t = 0.0)]
    least: f64,
    /// Fails where the p99 of webhooks is more than so many times that without deadlines. 0 for no limit.
    #[arg(long, default_value_t = 0.0)]
    times: f64,
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
    let dir = tempfile::Builder::new()
        .prefix("hookswitch-bench-")
        .tempdir_in("/var/tmp")?;
    // PostgreSQL does not run as root, and its account has to get in.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let server = embedded::start(Options::new(dir.path())).await?;
    let options = server.connect_options();
    db::migrate(&options).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    // Connections to it stand, since the system takes them, and nobody ever reads what they send.
    let twilio = TcpListener::bind("127.0.0.1:0").await?;
    let config = config(&url, &format!("http://{}", twilio.local_addr()?))?;
    let app = App::new(config, options.clone(), Clock::system())?;
    let pool = db::pool_with(options, 2);
    fill(&pool, args).await?;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(app.run(listener, Roles::default(), shutdown.clone()));
    let load = Load::new(&url, args.away)?;
    let mut number = 0;
    load.send(args.rate, args.rate * 3, &mut number).await?;

    let count = args.rate * args.seconds;
    let without = load.send(args.rate, count, &mut number).await?;
    let began = Instant::now();
    execute(
        &pool,
        &format!(
            "insert into escalation_watch (conversation_sid, line, look_at)
            select conversation_sid, line, now() from tenure
            where conversation_sid > '{}' on conflict (conversation_sid, line) do update set look_at = now()",
            sid("CH", BUSY)
        ),
    )
    .await?;
    let put = began.elapsed();
    let began = Instant::now();
    let (with, took) = tokio::join!(
        load.send(args.rate, count, &mut number),
        worked_off(&pool, args, began)
    );
    let (with, took) = (with?, took?);
    report(args, &without, &with, took, put)?;
    shutdown.cancel();
    running.await??;
    pool.close().await;
    server.stop().await?;
    Ok(())
}

/// Conversations with a line each, held by one of a hundred agents, in which a customer has waited for an hour; and the
/// policy.
async fn fill(pool: &PgPool, args: &Args) -> Result<()> {
    let all = BUSY + args.deadlines;
    execute(
        pool,
        &format!(
            "insert into agent (identity, name, skills, availability, availability_since, version, created_at, updated_at)
            select 'agent-' || number, 'Agent', '{{}}', 'available', now() - interval '9 days', 1, now(), now()
            from generate_series(0, 99) as number;
            update agent set backup = 'agent-' || ((substr(identity, 7)::int + 1) % 100);
            insert into conversation (conversation_sid, account_sid, state, state_at, created_at, first_seen_at, last_message_at)
            select 'CH' || lpad(to_hex(number), 32, '0'), '{ACCOUNT}', 'active', now() - interval '1 day',
                now() - interval '1 day', now() - interval '1 day', now() - interval '1 hour'
            from generate_series(1, {all}) as number;
            insert into tenure (tenure_id, conversation_sid, line, holder, during, cause, via, recorded_at)
            select gen_random_uuid(), conversation_sid, '{LINE}', 'agent-' || (row_number() over () % 100),
                tstzrange(now() - interval '1 day', null), 'created', 'webhook', now()
            from conversation;
            insert into message (conversation_sid, message_sid, account_sid, message_index, author, body, source, created_at,
                version_at, version_exact)
            select conversation_sid, 'IM' || substr(conversation_sid, 3, 31) || place, account_sid, place,
                case when place < 5 and place % 2 = 1 then (select holder from tenure
                    where tenure.conversation_sid = conversation.conversation_sid) else '+15555550101' end,
                'Can we move the closing?', 'SMS', at, at, true
            from conversation cross join generate_series(0, 5) as place
            cross join lateral (select now() - interval '90 minutes' + place * interval '5 minutes') as times (at)
            where conversation_sid > '{}';
            analyze",
            sid("CH", BUSY)
        ),
    )
    .await?;
    let step = if args.offer {
        json!({ "how": "offer", "to": "backup", "for": "10m" })
    } else {
        json!({ "how": "nudge", "to": "holder", "for": "10m" })
    };
    let policy = json!({
        "name": "Nobody waits",
        "rules": [{ "name": "slow", "when": { "no_answer": "15m" }, "steps": [step] }],
    });
    let by = Actor {
        name: "bench".to_owned(),
        via: Via::Cli,
        cause: None,
    };
    let now = Clock::system().now();
    let mut conn = pool.acquire().await?;
    escalation::put_policy(&mut conn, &"all".parse()?, &policy, None, false, &by, now).await?;
    drop(conn);
    execute(
        pool,
        "update escalation_policy set enabled_since = now() - interval '1 day'",
    )
    .await
}

/// Looks every 50 ms until each has had its step.
async fn worked_off(pool: &PgPool, args: &Args, began: Instant) -> Result<Duration> {
    let outcome = if args.offer { "started" } else { "told" };
    let sql = format!("select count(*) from escalation_step where outcome = '{outcome}'");
    loop {
        let row = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_one(pool).await?;
        let done: i64 = row.get(0);
        if usize::try_from(done)? >= args.deadlines {
            return Ok(began.elapsed());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "only {done} of {} were worked off",
            args.deadlines
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Webhooks at a steady rate: each is sent at its time, whatever became of those before it.
struct Load {
    client: reqwest::Client,
    url: String,
    with_gaps: bool,
}

impl Load {
    fn new(url: &str, with_gaps: bool) -> Result<Self> {
        hookswitch::twilio::install_tls();
        Ok(Self {
            client: reqwest::Client::builder().build()?,
            url: format!("{url}{PATH}"),
            with_gaps,
        })
    }

    /// How long each waited for its answer, from the time at which it was to be sent.
    async fn send(&self, rate: usize, count: usize, number: &mut usize) -> Result<Vec<Duration>> {
        let requests: Vec<reqwest::Request> = (0..count)
            .map(|_| {
                *number += 1;
                self.message(*number)
            })
            .collect::<Result<_>>()?;
        let began = tokio::time::Instant::now();
        let mut sent = JoinSet::new();
        for (place, request) in requests.into_iter().enumerate() {
            let due = began + Duration::from_secs_f64(to_f64(place) / to_f64(rate));
            tokio::time::sleep_until(due).await;
            let client = self.client.clone();
            sent.spawn(async move {
                let answer = client.execute(request).await?;
                ensure!(
                    answer.status() == 200,
                    "a webhook was answered {}",
                    answer.status()
                );
                Ok(due.elapsed())
            });
        }
        let mut took = Vec::with_capacity(count);
        while let Some(one) = sent.join_next().await {
            took.push(one??);
        }
        took.sort_unstable();
        Ok(took)
    }

    fn message(&self, number: usize) -> Result<reqwest::Request> {
        let (conversation, at) = (sid("CH", 1 + number % BUSY), Clock::system().now());
        let of_conversation = (number - 1) / BUSY;
        let index = if self.with_gaps {
            of_conversation * 2 + 1
        } else {
            of_conversation
        };
        let form: Vec<(String, String)> = [
            ("AccountSid", ACCOUNT.to_owned()),
            ("EventType", "onMessageAdded".to_owned()),
            ("ConversationSid", conversation),
            ("MessageSid", sid("IM", 0xfff_0000_0000 + number)),
            ("Index", index.to_string()),
            ("Author", "+15555550101".to_owned()),
            ("Body", "The inspection went well".to_owned()),
            ("Attributes", "{}".to_owned()),
            ("Source", "SMS".to_owned()),
            ("RetryCount", "0".to_owned()),
            ("DateCreated", format!("{at:.3}")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let signature = signature::sign(TOKEN, &self.url, &form);
        let request = self
            .client
            .post(&self.url)
            .header("X-Twilio-Signature", signature);
        Ok(request.form(&form).build()?)
    }
}

fn sid(prefix: &str, number: usize) -> String {
    format!("{prefix}{number:032x}")
}

async fn execute(pool: &PgPool, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(format!("set statement_timeout = 0; {sql}")))
        .execute(pool)
        .await
        .context("cannot fill the tables")?;
    Ok(())
}

fn config(url: &str, twilio: &str) -> Result<Config> {
    let mut config = Config::load_from(None, &HashMap::new())?;
    config.sweep.interval = Duration::ZERO;
    config.twilio.base_url = twilio.parse()?;
    config.http.public_base_url = PublicBaseUrl::try_from(url).map_err(|error| anyhow::anyhow!("{error}"))?;
    config.twilio.accounts = vec![Account {
        account_sid: ACCOUNT.parse()?,
        auth_tokens: vec![SecretString::from(TOKEN)],
        api_key_sid: None,
        api_key_secret: None,
        service_sid: "IS00000000000000000000000000000001".parse()?,
        messaging_service_sid: "MG00000000000000000000000000000001".parse()?,
        numbers: vec![LINE.parse()?],
        signatures: SignatureMode::default(),
        transfer_method: TransferMethod::default(),
        opt_out: OptOutPolicy::default(),
        max_in_flight: 10,
    }];
    Ok(config)
}

fn report(args: &Args, without: &[Duration], with: &[Duration], took: Duration, put: Duration) -> Result<()> {
    let rate = to_f64(args.deadlines) / took.as_secs_f64();
    let what = if args.offer {
        "offers of the line"
    } else {
        "entries of the log"
    };
    say(&format!(
        "{} deadlines due at once, each {what}: {:.2} s, {rate:.0} a second (marking them took {:.2} s)",
        args.deadlines,
        took.as_secs_f64(),
        put.as_secs_f64()
    ))?;
    say(&format!(
        "webhooks, {} a second for {} s; ms until answered",
        args.rate, args.seconds
    ))?;
    say("                       p50      p90      p99      max")?;
    let (before, meanwhile) = (row("without deadlines", without)?, row("with them", with)?);
    let times = meanwhile / before;
    say(&format!("p99 with them: {times:.2} times that without"))?;
    ensure!(
        args.least <= 0.0 || rate >= args.least,
        "that is less than {} a second",
        args.least
    );
    ensure!(
        args.times <= 0.0 || times <= args.times,
        "that is more than {} times",
        args.times
    );
    Ok(())
}

/// Prints a line of times, and answers the p99.
fn row(what: &str, sorted: &[Duration]) -> Result<f64> {
    let at = |percent: usize| {
        let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(place).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    say(&format!(
        "{what:<18} {:>8.2} {:>8.2} {:>8.2} {:>8.2}",
        at(50),
        at(90),
        at(99),
        at(100)
    ))?;
    Ok(at(99))
}

#[expect(clippy::cast_precision_loss, reason = "a count of some thousands")]
fn to_f64(number: usize) -> f64 {
    number as f64
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("nobody reads what is measured")
}
