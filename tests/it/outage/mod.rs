//! The service without its database, or killed itself: whatever happens, each webhook is answered in time, one that was
//! answered 200 is kept once, and all is well soon after.

mod database;
mod full;
mod killed;
mod load;
mod network;
mod process;
mod replicas;
mod twilio;

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hookswitch::app::{App, Roles};
use hookswitch::clock::Clock;
use hookswitch::config::Config;
use hookswitch::db::embedded::{self, Embedded, Options};
use reqwest::{Client, RequestBuilder};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::app::{ACCOUNT, TOKEN};
use crate::support::sql::{assert_webhooks_are_in_one_place, count, values};
use crate::support::webhook::{Webhook, sid};

/// Twilio gives up on a webhook after this.
const TWILIO_PATIENCE: Duration = Duration::from_secs(5);
/// Within this the service is well again once its database is, on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(2);

/// A durable PostgreSQL of the test's own, which may be hurt.
struct Database {
    server: Embedded,
    /// A look from aside, through nothing that the service uses.
    pool: PgPool,
    _dir: tempfile::TempDir,
}

impl Database {
    async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("hookswitch-test-")
            .tempdir_in("/var/tmp")
            .unwrap();
        // The server's account, where it is another one, has to get in.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let server = embedded::start(Options {
            bin_dir: std::env::var_os("PG_BIN_DIR").map(PathBuf::from),
            ..Options::new(dir.path())
        })
        .await
        .unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .connect_lazy_with(server.connect_options());
        Self {
            server,
            pool,
            _dir: dir,
        }
    }

    /// Sends a signal to every process of the server.
    fn signal_all(&self, signal: Signal) {
        let postmaster = self.server.pid().unwrap();
        signal_to(postmaster, signal);
        for child in children(postmaster) {
            // One that ends just now needs no signal.
            kill_process(pid_of(child), signal).ok();
        }
    }

    async fn answers(&self) -> bool {
        use sqlx::{ConnectOptions as _, Connection as _};
        let options = self.server.connect_options();
        let look = async { options.connect().await?.close().await };
        matches!(
            tokio::time::timeout(Duration::from_millis(300), look).await,
            Ok(Ok(()))
        )
    }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

fn signal_to(pid: u32, signal: Signal) {
    kill_process(pid_of(pid), signal).unwrap();
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    tasks.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The settings of a service that is reached at `url`, with a Twilio that never answers.
fn settings(url: &str) -> HashMap<String, String> {
    [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("TWILIO_SERVICE_SID", "IS00000000000000000000000000000001"),
        (
            "TWILIO_MESSAGING_SERVICE_SID",
            "MG00000000000000000000000000000001",
        ),
        ("HOOKSWITCH__HTTP__PUBLIC_BASE_URL", url),
        ("HOOKSWITCH__HTTP__LISTEN", url.strip_prefix("http://").unwrap()),
        ("HOOKSWITCH__TWILIO__BASE_URL", "http://127.0.0.1:1"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// The whole service in this process.
struct Service {
    url: String,
    shutdown: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
}

impl Service {
    async fn start(options: PgConnectOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = Config::load_from(None, &settings(&url)).unwrap();
        let app = App::new(config, options, Clock::system()).unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(app.run(listener, Roles::default(), shutdown.clone()));
        Self {
            url,
            shutdown,
            running,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// What is answered to a caller who does not wait for long; 0 for nothing.
async fn status(request: RequestBuilder) -> u16 {
    let answer = request.timeout(PROBE_LIMIT).send().await;
    answer.map_or(0, |answer| answer.status().as_u16())
}

/// Waits until the service is ready and takes a new webhook, which has to be so within `limit` from `since`.
async fn is_well(client: &Client, url: &str, since: Instant, limit: Duration) {
    let mut seen = (0, 0);
    for probe in 0.. {
        assert!(
            since.elapsed() < limit,
            "not well after {:?}: readyz {}, webhook {}",
            since.elapsed(),
            seen.0,
            seen.1
        );
        // Another one each time: what was stored before its answer came too late would be a duplicate.
        let number = since.duration_since(*EPOCH).as_millis();
        let number = usize::try_from(number).unwrap() * 100 + probe;
        let webhook = Webhook::message(PROBES, number).request_by(client, url);
        seen = tokio::join!(status(client.get(format!("{url}/readyz"))), status(webhook));
        if seen == (200, 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// [`SOON`] on this machine as busy as it is: with the time that a few simple answers take now, while all is well.
async fn soon(client: &Client, url: &str) -> Duration {
    let begun = Instant::now();
    for _ in 0..10 {
        let request = client.get(format!("{url}/readyz")).send();
        assert_eq!(request.await.unwrap().status(), 200);
    }
    SOON + begun.elapsed()
}

/// How long a probe waits: a request that was begun before all was well should not hide that it is.
const PROBE_LIMIT: Duration = Duration::from_millis(700);

/// Numbers the probes.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// These tests hold the service to figures of time, so that they do not run beside each other.
async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    LazyLock::force(&EPOCH);
    TURN.lock().await
}

/// The conversation of the webhooks that only ask whether all is well.
const PROBES: usize = 999;

/// Every webhook that was answered 200 is there once, and is projected soon.
async fn all_kept(pool: &PgPool, acked: &[usize]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while count(pool, "webhook_state where state = 'pending'").await > 0 {
        if Instant::now() >= deadline {
            let states = values(pool, "select state || count(*) from webhook_state group by state").await;
            panic!("webhooks are not projected: {states:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let doubled = "webhook group by account_sid, form having count(*) > 1";
    let doubled = values(pool, &format!("select count(*)::text from {doubled}")).await;
    assert_eq!(doubled, Vec::<String>::new());
    assert_eq!(count(pool, "webhook_state where state <> 'projected'").await, 0);
    assert_webhooks_are_in_one_place(pool).await;
    let mirrored = values(pool, "select message_sid from message").await;
    let mirrored: std::collections::HashSet<String> = mirrored.into_iter().collect();
    let lost: Vec<&usize> = acked
        .iter()
        .filter(|number| !mirrored.contains(&load::message_sid(**number)))
        .collect();
    assert_eq!(lost, Vec::<&usize>::new(), "acked and lost");
    assert!(
        !mirrored.contains(&sid("IM", 0)),
        "the mirror holds what nobody sent"
    );
}
