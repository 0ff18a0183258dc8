//! One turn of one contestant: its process started, a load for a time, and what it took and cost.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::contestant::{Contestant, Kind, Memory, Process};
use crate::server::{self, Server};
use crate::{Args, cpu, load, traffic};

/// Processor time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Of the process that takes the webhooks.
    pub(crate) program: Duration,
    /// `None` where the server is not ours.
    pub(crate) postgres: Option<Duration>,
    /// Ours, of the sender.
    pub(crate) sender: Duration,
    /// What others used of the machine meanwhile.
    pub(crate) others: Option<Duration>,
}

pub(crate) struct Turn {
    /// Webhooks that were acked, or rows that were inserted.
    pub(crate) count: u64,
    /// Until the last was acked.
    pub(crate) acked_in: Duration,
    /// Until nothing waited to be mirrored.
    pub(crate) mirrored_in: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) refused: u64,
    pub(crate) first_refusal: Option<String>,
    pub(crate) cost: Cost,
    pub(crate) wal_bytes: u64,
    pub(crate) commits: u64,
    pub(crate) statements: Option<u64>,
    pub(crate) memory: Option<Memory>,
}

impl Turn {
    pub(crate) fn acked_rate(&self) -> f64 {
        rate(self.count, self.acked_in)
    }

    pub(crate) fn mirrored_rate(&self) -> f64 {
        rate(self.count, self.mirrored_in)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts stay far below 2^52, and the answer is rounded"
)]
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Starts the contestant, with its conversations there and its code warm.
pub(crate) async fn ready(contestant: &mut Contestant, args: &Args) -> Result<Process> {
    let process = contestant.start().await?;
    if !contestant.opened {
        let opening = traffic::opening(args.conversations);
        let opened = load::run(process.address, opening, args.connections, Duration::from_mins(5)).await?;
        expect_all(&opened, args.conversations)?;
        contestant.opened = true;
    }
    let warm_up = Duration::from_secs(args.warm_up);
    let webhooks = take(contestant, args, args.warm_up * args.ahead);
    load::run(process.address, webhooks, args.connections, warm_up).await?;
    mirrored(contestant).await?;
    Ok(process)
}

fn expect_all(measured: &load::Measured, count: u64) -> Result<()> {
    ensure!(
        measured.acked() == count,
        "{} of {count} conversations were not taken; the first answer was: {}",
        count - measured.acked(),
        measured.first_refusal.as_deref().unwrap_or("none")
    );
    Ok(())
}

/// So many webhooks that it has not seen.
pub(crate) fn take(contestant: &mut Contestant, args: &Args, count: u64) -> Vec<Vec<u8>> {
    let end = contestant.next + count;
    let webhooks = traffic::mixed(args.conversations, contestant.next..end);
    contestant.next = end;
    webhooks
}

pub(crate) async fn run(
    contestant: &mut Contestant,
    server: &mut Server,
    args: &Args,
    seconds: u64,
) -> Result<Turn> {
    let process = ready(contestant, args).await?;
    let webhooks = take(contestant, args, seconds * args.ahead);
    server.checkpoint().await?;
    let stored_before = mirrored(contestant).await?;
    let before = server.counters(&contestant.database).await?;
    let (program, sender, machine) = (process.cpu()?, cpu::of_us()?, cpu::of_machine()?);

    let time = Duration::from_secs(seconds);
    let measured = load::run(process.address, webhooks, args.connections, time).await?;
    let stored = mirrored(contestant).await? - stored_before;
    let mirrored_in = match contestant.kind {
        Kind::Ours => measured.begun.elapsed(),
        // What these ack is mirrored.
        Kind::NodeNaive | Kind::NodeTuned => measured.took,
    };

    let mut cost = Cost {
        program: process.cpu()?.saturating_sub(program),
        sender: cpu::of_us()?.own.saturating_sub(sender.own),
        ..Cost::default()
    };
    let memory = process.memory()?;
    let machine = cpu::of_machine()?.saturating_sub(machine);
    // Sessions tell what they have counted when they end, at the latest.
    process.stop()?;
    let after = server.counters(&contestant.database).await?;
    cost.postgres = server::spent(&before, &after);
    cost.others = cost
        .postgres
        .map(|postgres| machine.saturating_sub(postgres + cost.program + cost.sender));
    ensure!(
        stored == measured.acked(),
        "{}: {} webhooks were acked and {stored} were mirrored",
        contestant.kind.name(),
        measured.acked()
    );
    Ok(Turn {
        count: stored,
        acked_in: measured.took,
        mirrored_in,
        p50: measured.percentile(50),
        p99: measured.percentile(99),
        refused: measured.refused,
        first_refusal: measured.first_refusal,
        cost,
        wal_bytes: after.wal_bytes - before.wal_bytes,
        commits: after.commits.saturating_sub(before.commits),
        statements: after
            .statements
            .zip(before.statements)
            .map(|(after, before)| after - before),
        memory: Some(memory),
    })
}

/// Waits until nothing waits to be mirrored; answers how many webhooks are.
pub(crate) async fn mirrored(contestant: &Contestant) -> Result<u64> {
    const PATIENCE: Duration = Duration::from_mins(10);
    let mut conn = server::connect(&contestant.database).await?;
    if contestant.kind != Kind::Ours {
        return server::number(&mut conn, "select count(*) from webhook").await;
    }
    let begun = Instant::now();
    while server::number(&mut conn, PENDING).await? > 0 {
        if begun.elapsed() > PATIENCE {
            bail!("the backlog does not come to an end");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server::number(
        &mut conn,
        "select count(*) from webhook_state where state = 'projected'",
    )
    .await
}

/// How many webhooks wait to be mirrored.
pub(crate) const PENDING: &str = "select count(*) from webhook_pending";
