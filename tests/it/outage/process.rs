//! The service's own process ends: asked to, or killed.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::load::{self, Load};
use super::{Database, all_kept, alone, is_well, settings, signal_to};
use crate::support::webhook::{FORM, PATH, SIGNATURE, Webhook, client};

/// The service as a process of its own. Killed when it is dropped.
pub(super) struct Process {
    child: Child,
    url: String,
}

impl Process {
    pub(super) fn start(database: &Database, url: &str) -> Self {
        Self::start_with(&database.server.url(), url, &[])
    }

    /// With other settings beside, or instead of, [`settings`].
    pub(super) fn start_with(database: &SecretString, url: &str, others: &[(&str, &str)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_hookswitch"))
            .arg("serve")
            .current_dir(std::env::temp_dir())
            .env_clear()
            .envs(settings(url))
            .envs(others.iter().copied())
            .env("DATABASE_URL", database.expose_secret())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            url: url.to_owned(),
        }
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < limit, "still running after {limit:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, as it should.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(super) fn free_url() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A request of which the last byte is not sent yet.
struct Unfinished {
    stream: TcpStream,
    last: u8,
}

impl Unfinished {
    async fn begin(url: &str, number: usize) -> Self {
        let webhook = Webhook::message(1, number);
        let body = webhook.encoded();
        let (last, rest) = body.as_bytes().split_last().unwrap();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: h\r\ncontent-type: {FORM}\r\n{SIGNATURE}: {}\r\ncontent-length: {}\r\n\r\n",
            webhook.signature(&format!("{url}{PATH}")),
            body.len()
        );
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap())
            .await
            .unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(rest).await.unwrap();
        Self { stream, last: *last }
    }

    /// Sends the rest, and reads what is answered until the server closes.
    async fn finish(mut self) -> String {
        self.stream.write_all(&[self.last]).await.unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_asked_to_end_answers_what_has_begun_and_a_killed_one_loses_nothing() {
    let _turn = alone().await;
    let client = client();
    let database = Database::start().await;
    let url = free_url();
    let mut process = Process::start(&database, &url);
    is_well(&client, &process.url, Instant::now(), Duration::from_secs(10)).await;

    // Killed in the middle of it.
    let mut load = Load::start(&url);
    load.has_acked(100).await;
    process.child.kill().unwrap();
    process.ended(Duration::from_secs(5)).await;
    let mut sent = load.end().await;
    assert!(sent.iter().any(|sent| sent.status == 0), "it died in the middle");

    let mut process = Process::start(&database, &url);
    is_well(&client, &process.url, Instant::now(), Duration::from_secs(5)).await;
    all_kept(&database.pool, &load::acked(&sent)).await;

    // Asked to end in the middle of ten requests.
    let mut unfinished = Vec::new();
    for number in 90_000..90_010 {
        unfinished.push(Unfinished::begin(&url, number).await);
    }
    sleep(Duration::from_millis(300)).await;
    signal_to(process.child.id(), Signal::TERM);
    let asked = Instant::now();
    sleep(Duration::from_millis(300)).await;
    for request in unfinished {
        let answer = request.finish().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let status = process.ended(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(0), "after {:?}", asked.elapsed());
    assert!(
        TcpStream::connect(url.strip_prefix("http://").unwrap())
            .await
            .is_err()
    );

    // Another one projects what it left, if it left any.
    let last = Process::start(&database, &url);
    is_well(&client, &last.url, Instant::now(), Duration::from_secs(5)).await;
    sent.retain(|sent| sent.status == 200);
    all_kept(&database.pool, &load::acked(&sent)).await;
    let kept = crate::support::sql::count(
        &database.pool,
        "message where message_index between 90000 and 90009",
    )
    .await;
    assert_eq!(kept, 10);
    drop(last);
    database.server.stop().await.unwrap();
}
