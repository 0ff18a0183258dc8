//! How many webhooks the service takes and mirrors, beside receivers in Node and beside what PostgreSQL alone could take
//! at most, in one run. See bench/README.md.
//!
//! [`traffic`] makes the webhooks, [`load`] sends them, [`contestant`] is who takes them, [`pgbench`] who needs none,
//! [`server`] the PostgreSQL of them all. [`rounds`] lets them take [`turn`]s; [`paced`], [`sustain`] and [`stored`] ask
//! what a full load does not tell: latencies, whether a backlog grows, and what a full database changes.

mod contestant;
mod cpu;
mod load;
mod paced;
mod pgbench;
mod report;
mod rounds;
mod server;
mod stored;
mod sustain;
mod traffic;
mod turn;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;
use secrecy::SecretString;

use contestant::{Contestant, Kind};
use pgbench::Pgbench;
use report::say;
use server::Server;

#[derive(Debug, Parser)]
struct Args {
    /// How long each turn lasts.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// How often everybody has a turn; 0 leaves the comparison out.
    #[arg(long, default_value_t = 2)]
    rounds: u64,
    /// Connections that are kept open, each with one request at a time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Conversations that the webhooks are spread over.
    #[arg(long, default_value_t = 2_000)]
    conversations: u64,
    /// Webhooks made ahead for each second. A turn ends early where they do not last.
    #[arg(long, default_value_t = 12_000)]
    ahead: u64,
    /// Seconds of load before each turn that are not measured.
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Then send so many a second on schedule, to the service and to the tuned Node in turns; tells their latencies.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Then load the service for so many seconds; tells whether its backlog grows.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..))]
    sustain: Option<u64>,
    /// Then compare a database that holds so many messages with an empty one, and time reads of it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    stored: Option<u64>,
    /// Leave the Node contestants out.
    #[arg(long)]
    no_node: bool,
    /// A server to use, as one who may create databases; without it, a durable PostgreSQL is started in a directory of its
    /// own.
    #[arg(long)]
    database_url: Option<SecretString>,
    /// The program to measure; without it, the `hookswitch` that was built beside this one.
    #[arg(long)]
    program: Option<PathBuf>,
    #[arg(long, default_value = "pgbench")]
    pgbench: PathBuf,
}

/// All who take part.
struct Field {
    ours: Contestant,
    /// The naive and the tuned, unless there is no Node.
    node: Vec<Contestant>,
    pgbench: Vec<Pgbench>,
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
    let mut server = Server::start(args.database_url.as_ref(), dir.path()).await?;
    say(&format!(
        "PostgreSQL {}, fsync on, synchronous_commit on",
        server.version().await?
    ))?;
    let mut field = Field::gather(&mut server, args, dir.path()).await?;
    if args.rounds > 0 {
        rounds::run(&mut field, &mut server, args).await?;
    }
    if let Some(rate) = args.rate {
        paced::run(&mut field, &mut server, args, rate).await?;
    }
    if let Some(seconds) = args.sustain {
        sustain::run(&mut field, &mut server, args, seconds).await?;
    }
    if let Some(messages) = args.stored {
        stored::run(&mut server, args, messages, dir.path()).await?;
    }
    server.stop().await
}

impl Field {
    async fn gather(server: &mut Server, args: &Args, dir: &Path) -> Result<Self> {
        let program = args.program.as_deref();
        let ours = Contestant::new(Kind::Ours, server, "ours", program, dir).await?;
        let missing = if args.no_node {
            Some("--no-node".to_owned())
        } else {
            contestant::install_node()
        };
        let mut node = Vec::new();
        match missing {
            Some(reason) => say(&format!("Node is skipped: {reason}"))?,
            None => {
                for (kind, purpose) in [(Kind::NodeNaive, "node_naive"), (Kind::NodeTuned, "node_tuned")] {
                    node.push(Contestant::new(kind, server, purpose, program, dir).await?);
                }
            }
        }
        let pgbench = vec![
            Pgbench::single(server, &ours, dir).await?,
            Pgbench::batched(server, dir).await?,
        ];
        Ok(Self { ours, node, pgbench })
    }
}
