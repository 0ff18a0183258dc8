//! One long load on the service, and whether its backlog grows meanwhile.

use std::time::Duration;

use anyhow::{Context as _, Result};
use secrecy::SecretString;

use crate::report::{median, say, to_f64};
use crate::server::{self, Server};
use crate::turn::{self, PENDING, rate};
use crate::{Args, Field, load};

pub(crate) async fn run(field: &mut Field, server: &mut Server, args: &Args, seconds: u64) -> Result<()> {
    let contestant = &mut field.ours;
    let process = turn::ready(contestant, args).await?;
    let webhooks = turn::take(contestant, args, seconds * args.ahead);
    server.checkpoint().await?;
    let sampling = tokio::spawn(sample(contestant.database.clone(), seconds));
    let time = Duration::from_secs(seconds);
    let measured = load::run(process.address, webhooks, args.connections, time).await?;
    turn::mirrored(contestant).await?;
    let mirrored_in = measured.begun.elapsed();
    let backlog = sampling.await.context("nobody counts any more")??;
    let memory = process.memory()?;
    process.stop()?;

    say(&format!("\nsustained for {:.0} s", measured.took.as_secs_f64()))?;
    if measured.took < time {
        say("  (the webhooks made ahead did not last: raise --ahead)")?;
    }
    let third = backlog.len().div_ceil(3);
    let part = |part: &[u64]| median(part.iter().map(|count| to_f64(*count)).collect());
    let lines = [
        format!(
            "acked + mirrored   {:8.0} /s",
            rate(measured.acked(), mirrored_in)
        ),
        format!("refused            {:8}", measured.refused),
        format!(
            "backlog            {:8.0} in the first third, {:.0} in the last (medians), {} at most, 0 again {:.2} s after the load",
            part(&backlog[..third]),
            part(&backlog[backlog.len() - third..]),
            backlog.iter().max().unwrap_or(&0),
            (mirrored_in.saturating_sub(measured.took)).as_secs_f64(),
        ),
        format!(
            "service RSS        {:8} MiB at the end, {} MiB at most",
            memory.now_kib / 1024,
            memory.peak_kib / 1024
        ),
    ];
    lines.iter().try_for_each(|line| say(line))
}

/// How many webhooks wait to be mirrored, each second.
async fn sample(database: SecretString, seconds: u64) -> Result<Vec<u64>> {
    let mut conn = server::connect(&database).await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    let mut samples = Vec::new();
    for _ in 0..seconds.max(2) - 1 {
        ticks.tick().await;
        samples.push(server::number(&mut conn, PENDING).await?);
    }
    Ok(samples)
}
