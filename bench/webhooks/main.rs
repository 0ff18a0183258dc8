//! How many webhooks the service takes and mirrors, and what PostgreSQL alone could take at most. See bench/README.md.
//!
//! [`traffic`] makes the webhooks, [`load`] sends them, [`service`] is the process that is measured, and [`pgbench`] asks
//! the same database for as many single-row inserts of the same row.

mod load;
mod pgbench;
mod service;
mod traffic;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use hookswitch::db::embedded::{self, Embedded, Options};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row as _};

use load::Measured;
use service::Service;

#[derive(Debug, Parser)]
struct Args {
    /// How long the load lasts, and pgbench after it.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Connections that are kept open, each with one request at a time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Conversations that the webhooks are spread over.
    #[arg(long, default_value_t = 2_000)]
    conversations: u64,
    /// Webhooks made ahead for each second. The load ends early where they do not last.
    #[arg(long, default_value_t = 12_000)]
    ahead: u64,
    /// An empty database to use; without it, a durable PostgreSQL is started in a directory of its own.
    #[arg(long)]
    database_url: Option<SecretString>,
    /// The program to measure; without it, the `hookswitch` that was built beside this one.
    #[arg(long)]
    program: Option<PathBuf>,
    #[arg(long, default_value = "pgbench")]
    pgbench: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    // As many threads as the machine has cores for all of it: service, database and this.
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
    let (url, server) = database(args, dir.path().to_owned()).await?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy(url.expose_secret())?;
    let service = Service::start(args.program.as_deref(), &url, dir.path()).await?;

    say("making webhooks")?;
    let opening = traffic::opening(args.conversations, &service.url);
    let webhooks = traffic::mixed(args.conversations, args.seconds * args.ahead, &service.url);
    say("opening the conversations")?;
    load::run(&service, opening, args.connections, Duration::from_mins(5)).await?;
    let before = mirrored(&pool).await?;

    say("sending")?;
    let measured = load::run(
        &service,
        webhooks,
        args.connections,
        Duration::from_secs(args.seconds),
    )
    .await?;
    let busy = service.memory()?;
    let after = mirrored(&pool).await?;
    let all_mirrored_in = measured.begun.elapsed();
    let tasks = number(&pool, "select count(*) from task").await?;
    service.stop()?;

    let ceiling = pgbench::inserts_per_second(&args.pgbench, &url, args.seconds, dir.path())?;
    report(&measured, after - before, all_mirrored_in, tasks, &busy, ceiling)?;
    ensure!(
        after - before == measured.acked(),
        "{} webhooks were acked and {} were mirrored",
        measured.acked(),
        after - before
    );
    pool.close().await;
    if let Some(server) = server {
        server.stop().await?;
    }
    Ok(())
}

async fn database(args: &Args, data_dir: PathBuf) -> Result<(SecretString, Option<Embedded>)> {
    if let Some(url) = &args.database_url {
        return Ok((url.clone(), None));
    }
    let server = embedded::start(Options::new(data_dir)).await?;
    Ok((server.url(), Some(server)))
}

/// Waits until nothing waits to be projected; answers how many webhooks are.
async fn mirrored(pool: &PgPool) -> Result<u64> {
    const PATIENCE: Duration = Duration::from_mins(10);
    let begun = Instant::now();
    while number(pool, "select count(*) from webhook where state = 'pending'").await? > 0 {
        ensure!(begun.elapsed() < PATIENCE, "the backlog does not come to an end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    number(pool, "select count(*) from webhook where state = 'projected'").await
}

async fn number(pool: &PgPool, sql: &str) -> Result<u64> {
    let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_one(pool)
        .await?;
    Ok(u64::try_from(row.try_get::<i64, _>(0)?)?)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts stay far below 2^52, and the answer is rounded"
)]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn report(
    measured: &Measured,
    mirrored: u64,
    all_mirrored_in: Duration,
    tasks: u64,
    memory: &service::Memory,
    ceiling: f64,
) -> Result<()> {
    let acked = per_second(measured.acked(), measured.took);
    let mirrored_rate = per_second(mirrored, all_mirrored_in);
    let ms = |latency: Duration| latency.as_secs_f64() * 1_000.0;
    let lines = [
        format!(
            "acked             {acked:10.0} /s   ({} in {:.1} s)",
            measured.acked(),
            measured.took.as_secs_f64()
        ),
        format!(
            "acked + mirrored  {mirrored_rate:10.0} /s   (backlog 0 after {:.1} s)",
            all_mirrored_in.as_secs_f64()
        ),
        format!(
            "refused           {:10}      {}",
            measured.refused,
            measured.first_refusal.as_deref().unwrap_or_default()
        ),
        format!("ack latency p50   {:10.1} ms", ms(measured.percentile(50))),
        format!("ack latency p99   {:10.1} ms", ms(measured.percentile(99))),
        format!(
            "service RSS       {:10} MiB  (peak {} MiB)",
            memory.now_kib / 1024,
            memory.peak_kib / 1024
        ),
        format!("reads put off     {tasks:10}      (tasks that wait for a Twilio which is not there)"),
        format!(
            "pgbench inserts   {ceiling:10.0} /s   (single rows, {} clients)",
            pgbench::CLIENTS
        ),
        format!("acked / pgbench   {:10.2}", acked / ceiling),
        format!("mirrored / pgbench{:10.2}", mirrored_rate / ceiling),
    ];
    lines.iter().try_for_each(|line| say(line))
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("nobody reads what is measured")
}
