//! The HTTP server: our own accept loop over hyper, because `axum::serve` waits for ever for slow clients.
//!
//! Every wait on a client has an end here: for the head of a request, for its body, for the client to take the answer,
//! and for the last answers when the process stops. Limits on sizes and on the time that a handler takes are layers of
//! the router and live with it. HTTP/1.1 only: Twilio and its libraries speak it, and a proxy in front speaks the rest.
//!
//! **When all connections are taken,** the one that has waited longest for a request is cut to make room. Nothing is
//! lost by that, since no request has begun on it, and so no number of idle or slow clients keeps a health check or a
//! webhook out. Only when every connection has a request in progress is a new one refused, with 503 and at once: a
//! sender that retries is better told than left in a queue that it cannot see.

mod connection;
mod waiting_room;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use metrics::counter;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use waiting_room::WaitingRoom;

/// What a client may take of us.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once. Each takes a file descriptor, of which the usual limit is 1024 per process.
    pub connections_max: usize,
    /// From the opening of a connection, or the end of the answer before, to the end of a request's head. So this is
    /// also how long a connection may stay idle.
    pub head_time_limit: Duration,
    /// Size of a request's head, 8 KiB at least. A webhook by `GET` has everything in it.
    pub head_bytes_max: usize,
    /// From the end of the head to the end of the body. A request that takes longer is answered 408.
    pub body_time_limit: Duration,
    /// How long a client may take nothing of an answer that is ready for it.
    pub write_time_limit: Duration,
    /// From the start of a shutdown to its end; what is not answered by then is cut.
    pub shutdown_time_limit: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            head_time_limit: Duration::from_secs(15),
            head_bytes_max: 64 * 1024,
            body_time_limit: Duration::from_secs(15),
            write_time_limit: Duration::from_secs(15),
            shutdown_time_limit: Duration::from_secs(25),
        }
    }
}

/// A server that accepts connections until its shutdown is asked for.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<usize>,
}

impl Server {
    /// Where it listens, with the port that the system chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the end of the shutdown, and tells how many connections had to be cut while their requests were in
    /// progress.
    pub async fn ended(self) -> io::Result<usize> {
        self.accepting.await.map_err(io::Error::other)
    }
}

/// Serves `router` on `listener` until `shutdown`, and then lets the requests in progress end.
pub fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<Server> {
    let address = listener.local_addr()?;
    let acceptor = Acceptor {
        router,
        slots: Arc::new(Semaphore::new(limits.connections_max)),
        refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        waiting_room: Arc::new(WaitingRoom::default()),
        limits: Arc::new(limits),
        shutdown,
        abandon: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let accepting = tokio::spawn(acceptor.run(listener));
    Ok(Server { address, accepting })
}

/// What a refused client is sent. It is not parsed for, so it says no more than any request may be answered.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
    content-length: 67\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503}\r\n";
/// Refusals under way at once; beyond that a client is cut without a word.
const REFUSALS_MAX: usize = 64;
const REFUSAL_TIME_LIMIT: Duration = Duration::from_secs(1);
/// A connection that is cut to make room ends as soon as its task runs.
const EVICTION_TIME_LIMIT: Duration = Duration::from_millis(500);
/// Pause after the system could not give us a connection, for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a shutdown waits for heads that are half sent.
const HEAD_GRACE: Duration = Duration::from_secs(1);

struct Acceptor {
    router: Router,
    limits: Arc<Limits>,
    slots: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    waiting_room: Arc<WaitingRoom>,
    shutdown: CancellationToken,
    /// Cuts every connection, whatever it is doing.
    abandon: CancellationToken,
    tasks: TaskTracker,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) -> usize {
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer).await,
                    Err(error) => self.endure(&error).await,
                },
            }
        }
        drop(listener);
        self.drain().await
    }

    async fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(slot) = self.slot().await else {
            self.refuse(stream);
            return;
        };
        let connection = connection::Connection {
            router: self.router.clone(),
            limits: Arc::clone(&self.limits),
            presence: self.waiting_room.enter(self.abandon.child_token()),
            shutdown: self.shutdown.clone(),
        };
        self.tasks.spawn(async move {
            connection.serve(stream, peer).await;
            drop(slot);
        });
    }

    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        if !self.waiting_room.evict_longest_waiting() {
            return None;
        }
        counter!("http_connections_evicted_total").increment(1);
        let slot = Arc::clone(&self.slots).acquire_owned();
        timeout(EVICTION_TIME_LIMIT, slot).await.ok()?.ok()
    }

    /// Answers 503. The client may still be sending, and to close with its bytes unread would reset the connection
    /// before it has read ours, so they are read away for a moment.
    fn refuse(&self, mut stream: TcpStream) {
        counter!("http_connections_refused_total").increment(1);
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else {
            return;
        };
        self.tasks.spawn(async move {
            let answer = async {
                stream.write_all(REFUSAL).await?;
                stream.shutdown().await?;
                let mut unread = [0; 1024];
                while stream.read(&mut unread).await? > 0 {}
                io::Result::Ok(())
            };
            // Whether the client takes it is the client's affair.
            drop(timeout(REFUSAL_TIME_LIMIT, answer).await);
            drop(permit);
        });
    }

    async fn endure(&self, error: &io::Error) {
        // These concern one connection, which was gone before we got to it.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
        ) {
            return;
        }
        tracing::warn!(%error, "cannot accept a connection");
        // Most likely we are out of descriptors: free one, and leave time for more.
        self.waiting_room.evict_longest_waiting();
        sleep(ACCEPT_PAUSE).await;
    }

    /// Lets requests in progress end. Connections have seen the shutdown themselves: idle ones are closed by now.
    async fn drain(self) -> usize {
        self.tasks.close();
        let half_sent = HEAD_GRACE.min(self.limits.shutdown_time_limit);
        if timeout(half_sent, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        self.waiting_room.evict_all();
        let rest = self.limits.shutdown_time_limit.saturating_sub(half_sent);
        if timeout(rest, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let cut = self.tasks.len();
        tracing::warn!("the shutdown takes too long: {cut} connections are cut");
        self.abandon.cancel();
        self.tasks.wait().await;
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_a_whole_answer_of_the_length_it_says() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["status"], 503);
    }
}
