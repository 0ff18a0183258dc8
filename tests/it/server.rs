//! The HTTP server against clients that are slow, silent, many or gone. Raw sockets, since a proper client would not
//! behave so; limits are short, since they are settings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use hookswitch::web::server::{Limits, Server, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longer than any limit set here, shorter than any default.
const PATIENCE: Duration = Duration::from_secs(8);
const SHORT: Duration = Duration::from_millis(200);
const GET_HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
const GET_SLOW: &str = "GET /slow HTTP/1.1\r\nhost: h\r\n\r\n";
const HALF_A_HEAD: &str = "POST /echo HTTP/1.1\r\nhost: h\r\n";
const HALF_A_REQUEST: &str = "POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf ";

struct Running {
    server: Server,
    shutdown: CancellationToken,
    /// Requests for `/slow` that have begun.
    begun: Arc<AtomicUsize>,
    /// Opened, it lets them end.
    gate: CancellationToken,
}

impl Running {
    async fn start(limits: Limits) -> Self {
        let (begun, gate) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (counter, opened) = (Arc::clone(&begun), gate.clone());
        let slow = async move || {
            counter.fetch_add(1, Ordering::SeqCst);
            opened.cancelled().await;
            "slow but whole"
        };
        let router = Router::new()
            .route("/healthz", get(async || "healthy"))
            .route("/echo", post(async |body: String| body))
            .route("/large", get(async || vec![b'x'; 64 * 1024 * 1024]))
            .route(
                "/peer",
                get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()),
            )
            .route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = CancellationToken::new();
        let server = serve(listener, router, limits, shutdown.clone()).unwrap();
        Self {
            server,
            shutdown,
            begun,
            gate,
        }
    }

    /// Waits until `number` requests for `/slow` are in progress.
    async fn has_begun(&self, number: usize) {
        let all = async {
            while self.begun.load(Ordering::SeqCst) < number {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, all).await.expect("the requests begin");
    }

    /// Connects, sends, and leaves the connection open.
    async fn send(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// One whole request on a connection of its own, with the time it took.
    async fn exchange(&self, text: &str) -> (String, Duration) {
        let begun = Instant::now();
        let mut stream = self.send(text).await;
        let answer = rest(&mut stream).await;
        (answer, begun.elapsed())
    }

    async fn many(&self, number: usize, text: &str) -> Vec<TcpStream> {
        let mut streams = Vec::new();
        for _ in 0..number {
            streams.push(self.send(text).await);
        }
        streams
    }
}

/// What still comes until the server closes the connection, be it politely or not.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let closed = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    assert!(
        closed.is_ok(),
        "the connection stays open, after {:?}",
        String::from_utf8_lossy(&bytes)
    );
    String::from_utf8(bytes).unwrap()
}

/// One answer on a connection that stays open.
async fn one_answer(stream: &mut TcpStream, ending: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.ends_with(ending) {
        let read = timeout(PATIENCE, stream.read(&mut buffer))
            .await
            .expect("an answer in time")
            .unwrap();
        assert_ne!(read, 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    text
}

#[tokio::test]
async fn a_connection_carries_several_requests_and_tells_the_peer() {
    let running = Running::start(Limits::default()).await;
    let mut stream = running.send("GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(
        one_answer(&mut stream, "healthy")
            .await
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody")
        .await
        .unwrap();
    assert!(
        one_answer(&mut stream, "body")
            .await
            .contains("content-length: 4\r\n")
    );
    stream
        .write_all(b"GET /peer HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let own = stream.local_addr().unwrap().to_string();
    assert!(rest(&mut stream).await.ends_with(&own));
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_cut() {
    let running = Running::start(Limits {
        head_time_limit: SHORT,
        ..Limits::default()
    })
    .await;
    for beginning in ["", "G", HALF_A_HEAD] {
        let begun = Instant::now();
        let mut stream = running.send(beginning).await;
        assert_eq!(rest(&mut stream).await, "", "after {beginning:?}");
        assert!(
            begun.elapsed() >= SHORT,
            "{beginning:?} was cut after {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_all_the_same() {
    let running = Running::start(Limits {
        head_time_limit: SHORT,
        ..Limits::default()
    })
    .await;
    let mut stream = running.send(HALF_A_HEAD).await;
    let begun = Instant::now();
    while stream.write_all(b"x: y\r\n").await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still open");
        sleep(SHORT / 10).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_an_early_next_request_is_not() {
    let running = Running::start(Limits {
        head_time_limit: SHORT * 5,
        ..Limits::default()
    })
    .await;
    let mut stream = running.send("GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
    one_answer(&mut stream, "healthy").await;
    sleep(SHORT).await;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    one_answer(&mut stream, "healthy").await;
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_body_that_does_not_come_to_its_end_is_answered_408_and_cut() {
    let running = Running::start(Limits {
        body_time_limit: SHORT,
        ..Limits::default()
    })
    .await;
    let (answer, took) = running.exchange(HALF_A_REQUEST).await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    assert!(
        answer.contains("content-type: application/problem+json\r\n"),
        "{answer}"
    );
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(took >= SHORT, "{took:?}");
}

#[tokio::test]
async fn a_body_that_trickles_in_is_cut_all_the_same() {
    let running = Running::start(Limits {
        body_time_limit: SHORT,
        ..Limits::default()
    })
    .await;
    let mut stream = running
        .send("POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 10000\r\n\r\n")
        .await;
    let begun = Instant::now();
    while stream.write_all(b"x").await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still open");
        sleep(SHORT / 10).await;
    }
}

#[tokio::test]
async fn a_body_in_two_parts_is_whole_within_its_time() {
    let running = Running::start(Limits::default()).await;
    let mut stream = running.send(HALF_A_REQUEST).await;
    sleep(SHORT / 4).await;
    stream.write_all(b"whole").await.unwrap();
    one_answer(&mut stream, "half whole").await;
}

#[tokio::test]
async fn a_head_beyond_its_size_is_refused() {
    let running = Running::start(Limits {
        head_bytes_max: 16 * 1024,
        ..Limits::default()
    })
    .await;
    let (answer, _) = running
        .exchange(&format!(
            "GET /healthz HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n",
            "x".repeat(20_000)
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_keep_its_connection() {
    let limits = Limits {
        write_time_limit: SHORT * 6,
        connections_max: 1,
        ..Limits::default()
    };
    let running = Running::start(limits).await;
    let mut deaf = running.send("GET /large HTTP/1.1\r\nhost: h\r\n\r\n").await;
    // The first bytes show that the answer is under way.
    timeout(PATIENCE, deaf.read_exact(&mut [0; 64]))
        .await
        .unwrap()
        .unwrap();
    let (answer, _) = running.exchange(GET_HEALTH).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 "),
        "the one connection is taken: {answer}"
    );
    let begun = Instant::now();
    while !running.exchange(GET_HEALTH).await.0.ends_with("healthy") {
        assert!(begun.elapsed() < PATIENCE, "still taken");
        sleep(SHORT / 4).await;
    }
}

#[tokio::test]
async fn a_hundred_and_fifty_slow_clients_do_not_delay_a_health_check() {
    let running = Running::start(Limits::default()).await;
    let mut slow = running.many(50, "").await;
    slow.extend(running.many(50, HALF_A_HEAD).await);
    slow.extend(running.many(50, HALF_A_REQUEST).await);
    for _ in 0..5 {
        let (answer, took) = running.exchange(GET_HEALTH).await;
        assert!(answer.ends_with("healthy"), "{answer}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test]
async fn more_silent_clients_than_connections_make_room_for_one_that_asks() {
    let running = Running::start(Limits {
        connections_max: 20,
        ..Limits::default()
    })
    .await;
    let mut silent = running.many(60, HALF_A_HEAD).await;
    let (answer, took) = running.exchange(GET_HEALTH).await;
    assert!(answer.ends_with("healthy"), "{answer}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(
        rest(&mut silent[0]).await,
        "",
        "the one that had waited longest is cut"
    );
    silent[59]
        .write_all(b"content-length: 4\r\n\r\nlast")
        .await
        .unwrap();
    one_answer(&mut silent[59], "last").await;
}

#[tokio::test]
async fn with_a_request_on_every_connection_one_more_is_refused_at_once_and_none_is_cut() {
    let running = Running::start(Limits {
        connections_max: 3,
        ..Limits::default()
    })
    .await;
    let mut busy = running.many(3, GET_SLOW).await;
    running.has_begun(3).await;
    let (answer, _) = running.exchange(GET_HEALTH).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{answer}"
    );
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    running.gate.cancel();
    for stream in &mut busy {
        one_answer(stream, "slow but whole").await;
    }
    let (answer, _) = running.exchange(GET_HEALTH).await;
    assert!(
        answer.ends_with("healthy"),
        "those that have been answered can be cut: {answer}"
    );
}

#[tokio::test]
async fn clients_that_reset_their_connections_do_no_harm() {
    let running = Running::start(Limits {
        connections_max: 10,
        ..Limits::default()
    })
    .await;
    for text in ["", HALF_A_HEAD, HALF_A_REQUEST, GET_SLOW].repeat(10) {
        running.send(text).await.set_zero_linger().unwrap();
    }
    let (answer, _) = running.exchange(GET_HEALTH).await;
    assert!(answer.ends_with("healthy"), "{answer}");
}

#[tokio::test]
async fn a_shutdown_answers_what_is_in_progress_and_closes_the_rest() {
    let running = Running::start(Limits::default()).await;
    let mut idle = running.send("GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
    one_answer(&mut idle, "healthy").await;
    let mut silent = running.send("").await;
    let mut busy = running.send(GET_SLOW).await;
    running.has_begun(1).await;

    running.shutdown.cancel();
    // At once, while the third is still in progress.
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut silent).await, "");
    running.gate.cancel();
    let answer = rest(&mut busy).await;
    assert!(answer.ends_with("slow but whole"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");

    let address = running.server.address();
    assert_eq!(running.server.ended().await.unwrap(), 0);
    TcpStream::connect(address)
        .await
        .expect_err("nobody listens any more");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_half_sent_head() {
    let running = Running::start(Limits::default()).await;
    let mut half = running.send(HALF_A_HEAD).await;
    running.shutdown.cancel();
    let ended = timeout(PATIENCE, running.server.ended())
        .await
        .expect("the server ends");
    assert_eq!(ended.unwrap(), 0);
    assert_eq!(rest(&mut half).await, "");
}

#[tokio::test]
async fn a_shutdown_cuts_what_does_not_end() {
    let limits = Limits {
        shutdown_time_limit: SHORT,
        ..Limits::default()
    };
    let running = Running::start(limits).await;
    let mut busy = running.send(GET_SLOW).await;
    running.has_begun(1).await;
    running.shutdown.cancel();
    let ended = timeout(PATIENCE, running.server.ended())
        .await
        .expect("the server ends");
    assert_eq!(ended.unwrap(), 1);
    assert_eq!(rest(&mut busy).await, "");
}
