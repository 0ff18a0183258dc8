//! What the same PostgreSQL takes at most without us: rows by `pgbench`, from many clients.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use secrecy::{ExposeSecret as _, SecretString};

use crate::contestant::{self, Contestant};
use crate::server::{self, Server};
use crate::turn::{Cost, Turn};
use crate::{Args, cpu, traffic};

pub(crate) const CLIENTS: u16 = 32;
/// Rows that are stored and upserted in one transaction.
pub(crate) const BATCH: u32 = 64;

/// A script, its database, and how many rows a transaction of it stores.
pub(crate) struct Pgbench {
    pub(crate) name: &'static str,
    script: PathBuf,
    database: SecretString,
    rows: u32,
}

impl Pgbench {
    /// One row a transaction into the service's own table. `ours` lends its program, which makes the table.
    pub(crate) async fn single(server: &mut Server, ours: &Contestant, dir: &Path) -> Result<Self> {
        let database = server.fresh("pgbench_single").await?;
        ours.migrate(&database)?;
        let sql = format!(
            "insert into webhook (received_at, account_sid, conversation_sid, event_type, dedupe_key, method, form, \
             token_index, url_candidate, lane) values (now(), '{}', 'CH00000000000000000000000000000001', \
             'onMessageAdded', gen_random_uuid(), 'POST', '{}', 0, '1', (random() * 15)::smallint);\n",
            traffic::ACCOUNT,
            form()?,
        );
        Self::new("pgbench, single rows", dir.join("single.sql"), &sql, database, 1)
    }

    /// Webhooks with their messages, many a transaction, into the tables of the Node contestants.
    pub(crate) async fn batched(server: &mut Server, dir: &Path) -> Result<Self> {
        let database = server.fresh("pgbench_batched").await?;
        contestant::create_node_schema(&database).await?;
        let sql = format!(
            "with stored as (insert into webhook (account_sid, conversation_sid, event_type, dedupe_key, form) \
             select '{}', 'CH' || lpad(to_hex(cast(random() * 1999 as int)), 32, '0'), 'onMessageAdded', gen_random_uuid(), \
             '{}' from generate_series(1, {BATCH}) on conflict (dedupe_key) do nothing \
             returning account_sid, conversation_sid, dedupe_key, webhook_id, received_at) \
             insert into message (conversation_sid, message_sid, account_sid, message_index, author, participant_sid, \
             body, attributes, source, created_at, version_at) \
             select conversation_sid, 'IM' || replace(cast(dedupe_key as text), '-', ''), account_sid, webhook_id, \
             '+15555550101', 'MB00000000000000000000000000000001', \
             'The inspection went well, can we move the closing to the ' || webhook_id || 'th?', '{{}}', 'SMS', \
             received_at, received_at from stored \
             on conflict (conversation_sid, message_sid) do update set body = excluded.body, \
             attributes = excluded.attributes, version_at = excluded.version_at \
             where message.version_at < excluded.version_at;\n",
            traffic::ACCOUNT,
            form()?,
        );
        Self::new("pgbench, batched", dir.join("batched.sql"), &sql, database, BATCH)
    }

    fn new(
        name: &'static str,
        script: PathBuf,
        sql: &str,
        database: SecretString,
        rows: u32,
    ) -> Result<Self> {
        std::fs::write(&script, sql)?;
        Ok(Self {
            name,
            script,
            database,
            rows,
        })
    }

    pub(crate) async fn run(&self, server: &mut Server, args: &Args) -> Result<Turn> {
        server.checkpoint().await?;
        let before = server.counters(&self.database).await?;
        let (sender, machine) = (cpu::of_us()?, cpu::of_machine()?);
        let output = Command::new(&args.pgbench)
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
            .arg(format!("--client={CLIENTS}"))
            .arg(format!("--time={}", args.seconds))
            .arg("--file")
            .arg(&self.script)
            .arg(self.database.expose_secret())
            .output()
            .with_context(|| format!("cannot run {}", args.pgbench.display()))?;
        let sender = cpu::of_us()?.ended_children.saturating_sub(sender.ended_children);
        let machine = cpu::of_machine()?.saturating_sub(machine);
        let after = server.counters(&self.database).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "pgbench failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let tps = value(&text, "tps = ").context("pgbench tells no rate")?;
        let transactions =
            value(&text, "number of transactions actually processed: ").context("pgbench tells no number")?;
        let latency = value(&text, "latency average = ").context("pgbench tells no latency")?;
        let took = Duration::from_secs_f64(transactions / tps);
        let postgres = server::spent(&before, &after);
        Ok(Turn {
            count: whole(transactions) * u64::from(self.rows),
            acked_in: took,
            mirrored_in: took,
            p50: Duration::from_secs_f64(latency / 1_000.0),
            p99: Duration::ZERO,
            refused: 0,
            first_refusal: None,
            cost: Cost {
                program: Duration::ZERO,
                postgres,
                sender,
                others: postgres.map(|postgres| machine.saturating_sub(postgres + sender)),
            },
            wal_bytes: after.wal_bytes - before.wal_bytes,
            commits: after.commits.saturating_sub(before.commits),
            statements: after
                .statements
                .zip(before.statements)
                .map(|(after, before)| after - before),
            memory: None,
        })
    }
}

/// A form that can stand in a script: a colon would begin a variable of pgbench's, and it has none, being percent-encoded.
fn form() -> Result<String> {
    let form = traffic::sample_form();
    ensure!(!form.contains([':', '\'']), "the form cannot stand in a script");
    Ok(form)
}

fn value(text: &str, key: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of transactions"
)]
fn whole(number: f64) -> u64 {
    number as u64
}
