//! Sends requests over connections that are kept open, one at a time on each, and measures the answers. A client of few
//! lines, so that it takes little of the cores that it shares with what it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What became of a load.
pub(crate) struct Measured {
    pub(crate) begun: Instant,
    pub(crate) took: Duration,
    /// Of those that were answered 200, sorted.
    latencies: Vec<Duration>,
    pub(crate) refused: u64,
    /// The status line of the first that was not.
    pub(crate) first_refusal: Option<String>,
}

impl Measured {
    pub(crate) fn acked(&self) -> u64 {
        self.latencies.len() as u64
    }

    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        percentile(&self.latencies, percent)
    }
}

/// Of times that are sorted; zero where there are none.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(place).copied().unwrap_or_default()
}

#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    refusals: Vec<String>,
}

/// Sends each request once, until there is none left or the time is over.
pub(crate) async fn run(
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    connections: usize,
    time: Duration,
) -> Result<Measured> {
    let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let mut connection = Connection::open(address).await?;
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        senders.spawn(async move {
            let mut seen = Seen::default();
            while begun.elapsed() < time {
                let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                let sent = Instant::now();
                let status = connection.exchange(request).await?;
                if status.starts_with("HTTP/1.1 200 ") {
                    seen.latencies.push(sent.elapsed());
                } else {
                    seen.refusals.push(status);
                }
            }
            anyhow::Ok(seen)
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = senders.join_next().await {
        let seen = seen.context("a sender panicked")??;
        all.latencies.extend(seen.latencies);
        all.refusals.extend(seen.refusals);
    }
    all.latencies.sort_unstable();
    Ok(Measured {
        begun,
        took: begun.elapsed(),
        latencies: all.latencies,
        refused: all.refusals.len() as u64,
        first_refusal: all.refusals.into_iter().next(),
    })
}

/// Kept open from request to request.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    /// Whether these bytes are in the last answer.
    pub(crate) fn answered(&self, bytes: &[u8]) -> bool {
        self.buffer.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Sends a request, reads the whole answer, and gives its status line.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<String> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the service closed a connection in the middle of an answer");
            }
            if let Some(status) = whole_answer(&self.buffer)? {
                return Ok(status);
            }
        }
    }
}

/// The status line, once head and body are there.
fn whole_answer(bytes: &[u8]) -> Result<Option<String>> {
    let Some(head_end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..head_end])?;
    let length: usize = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        })
        .context("an answer without a length")?;
    let whole = bytes.len() >= head_end + 4 + length;
    Ok(whole.then(|| head.lines().next().unwrap_or_default().to_owned()))
}
