//! A fixed rate: each webhook is sent at its time, whatever became of those before it, and is measured from that time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use secrecy::SecretString;
use sqlx::PgConnection;
use tokio::task::JoinSet;

use crate::contestant::{Contestant, Kind};
use crate::load::{Connection, percentile};
use crate::report::{median, say};
use crate::server::{self, Server};
use crate::{Args, Field, traffic, turn};

/// Of the messages, one of so many is looked for in the mirror.
const SAMPLED: usize = 5;

/// The service and the tuned Node in turns.
pub(crate) async fn run(field: &mut Field, server: &mut Server, args: &Args, rate: u32) -> Result<()> {
    say(&format!(
        "\nat {rate}/s, for {} s each             ack p50   ack p99   readable p50   readable p99  (ms)",
        args.seconds
    ))?;
    let tuned = field.node.iter_mut().filter(|node| node.kind == Kind::NodeTuned);
    let mut entrants: Vec<&mut Contestant> = std::iter::once(&mut field.ours).chain(tuned).collect();
    let mut ack_p99: Vec<Vec<f64>> = vec![Vec::new(); entrants.len()];
    for _ in 0..args.rounds.max(1) {
        for (contestant, p99) in entrants.iter_mut().zip(&mut ack_p99) {
            server.checkpoint().await?;
            let paced = one(contestant, args, rate).await?;
            let ms = |times: &[Duration], percent| percentile(times, percent).as_secs_f64() * 1_000.0;
            say(&format!(
                "{:36}{:10.1}{:10.1}{:15.1}{:15.1}",
                contestant.kind.name(),
                ms(&paced.acks, 50),
                ms(&paced.acks, 99),
                ms(&paced.readable, 50),
                ms(&paced.readable, 99),
            ))?;
            p99.push(ms(&paced.acks, 99));
        }
    }
    let mut medians = ack_p99.into_iter().map(median);
    if let (Some(ours), Some(tuned)) = (medians.next(), medians.next()) {
        say(&format!(
            "ack p99, hookswitch / node, tuned {:12.2}",
            ours / tuned
        ))?;
    }
    Ok(())
}

struct Paced {
    acks: Vec<Duration>,
    readable: Vec<Duration>,
}

/// A message that is looked for, and when its webhook is due.
struct Awaited {
    due: Instant,
    conversation_sid: String,
    message_sid: String,
}

async fn one(contestant: &mut Contestant, args: &Args, rate: u32) -> Result<Paced> {
    let process = turn::ready(contestant, args).await?;
    let first = contestant.next;
    let webhooks = turn::take(contestant, args, args.seconds * u64::from(rate));
    let begin = Instant::now() + Duration::from_millis(200);
    let spacing = Duration::from_secs(1) / rate;
    let awaited = (0..)
        .zip(first..contestant.next)
        .filter_map(|(place, number)| {
            let (conversation_sid, message_sid) = traffic::added_message(args.conversations, number)?;
            let due = begin + spacing * place;
            Some(Awaited {
                due,
                conversation_sid,
                message_sid,
            })
        })
        .step_by(SAMPLED)
        .collect();
    let looking = tokio::spawn(look_for(contestant.database.clone(), awaited));
    let mut acks = send(process.address, webhooks, begin, spacing).await?;
    let mut readable = looking.await.context("nobody looks any more")??;
    process.stop()?;
    acks.sort_unstable();
    readable.sort_unstable();
    Ok(Paced { acks, readable })
}

/// Sends each at its time, over connections of which there are as many as it takes.
async fn send(
    address: SocketAddr,
    webhooks: Vec<Vec<u8>>,
    begin: Instant,
    spacing: Duration,
) -> Result<Vec<Duration>> {
    let idle: Arc<Mutex<Vec<Connection>>> = Arc::default();
    let runtime = tokio::runtime::Handle::current();
    // A thread of its own, since the runtime's clock knows no less than a millisecond.
    let dispatching = tokio::task::spawn_blocking(move || {
        let mut sent = JoinSet::new();
        for (place, webhook) in (0..).zip(webhooks) {
            let due = begin + spacing * place;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let idle = Arc::clone(&idle);
            sent.spawn_on(
                async move {
                    let free = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let mut connection = match free {
                        Some(connection) => connection,
                        None => Connection::open(address).await?,
                    };
                    let status = connection.exchange(&webhook).await?;
                    let took = due.elapsed();
                    ensure!(
                        status.starts_with("HTTP/1.1 200 "),
                        "a webhook was refused: {status}"
                    );
                    idle.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(connection);
                    Ok(took)
                },
                &runtime,
            );
        }
        sent
    });
    let mut sent = dispatching.await?;
    let mut acks = Vec::new();
    while let Some(took) = sent.join_next().await {
        acks.push(took??);
    }
    Ok(acks)
}

/// Asks for all that are due and were not seen yet, again and again; answers how long after its time each was seen.
async fn look_for(database: SecretString, awaited: Vec<Awaited>) -> Result<Vec<Duration>> {
    const PAUSE: Duration = Duration::from_millis(1);
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut conn = server::connect(&database).await?;
    server::execute(
        &mut conn,
        "prepare readable (text[], text[]) as select message_sid from unnest($1, $2) as wanted (conversation_sid, message_sid) \
         join message using (conversation_sid, message_sid)",
    )
    .await?;
    let mut to_come: VecDeque<Awaited> = awaited.into();
    let mut waiting: Vec<Awaited> = Vec::new();
    let mut seen = Vec::new();
    loop {
        let now = Instant::now();
        while to_come.front().is_some_and(|next| next.due <= now) {
            waiting.extend(to_come.pop_front());
        }
        if waiting.is_empty() {
            let Some(next) = to_come.front() else {
                return Ok(seen);
            };
            tokio::time::sleep_until(next.due.into()).await;
            continue;
        }
        if waiting.iter().any(|message| message.due.elapsed() > PATIENCE) {
            bail!("a message was not mirrored within {} s", PATIENCE.as_secs());
        }
        let found = readable(&mut conn, &waiting).await?;
        waiting.retain(|message| {
            let is_there = found.contains(&message.message_sid);
            if is_there {
                seen.push(message.due.elapsed());
            }
            !is_there
        });
        tokio::time::sleep(PAUSE).await;
    }
}

async fn readable(conn: &mut PgConnection, waiting: &[Awaited]) -> Result<Vec<String>> {
    let list = |sid: fn(&Awaited) -> &str| waiting.iter().map(sid).collect::<Vec<_>>().join(",");
    let sql = format!(
        "execute readable ('{{{}}}', '{{{}}}')",
        list(|message| &message.conversation_sid),
        list(|message| &message.message_sid)
    );
    server::texts(conn, &sql).await
}
