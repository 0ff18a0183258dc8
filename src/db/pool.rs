//! The pool, of which every wait ends, also when the server is frozen or the network swallows what is sent.
//!
//! PostgreSQL's own timeouts end what a *living* server does for too long. A frozen server does not look at its clock,
//! and a connection whose other end is gone without a word is silent for ever; so there are deadlines on our side as
//! well: [`within`] for a piece of work, and below for what the pool does by itself.
//!
//! **One connection that broke says that all may have.** When a connection comes back broken or silent, the idle ones
//! that lay in the pool at that time are not trusted any more and are replaced as they are asked for. Otherwise each of
//! them would cost somebody an error, or a deadline, after every restart of the database.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};

/// How long a caller waits for a connection. With [`STATEMENT_TIMEOUT`] it stays below the five seconds after which
/// Twilio gives up on a webhook.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one statement may take on a connection of the service, by the server's clock.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_millis(2_500);

/// A connection that has lain in the pool for longer is asked whether it still lives.
const IDLE_TRUST: Duration = Duration::from_secs(1);
/// How long it may take to say so: it has nothing else to do.
const IDLE_ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// How long a connection that is given back may take to end what its user has left behind.
const RELEASE_ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// A pool that connects when it is first used, so that a process can start before its database.
pub fn pool_with(options: PgConnectOptions, max_connections: u32) -> PgPool {
    let trust = Arc::new(Trust::default());
    let (lent, returned) = (Arc::clone(&trust), trust);
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(|conn, _| Box::pin(async move { take_role(conn).await }))
        .before_acquire(move |conn, meta| {
            let trust = Arc::clone(&lent);
            Box::pin(async move { Ok(trust.may_lend(conn, meta).await) })
        })
        .after_release(move |conn, _| {
            let trust = Arc::clone(&returned);
            Box::pin(async move { trust.take_back(conn).await })
        })
        .idle_timeout(Duration::from_mins(5))
        .connect_lazy_with(with_limits(options))
}

/// The service works as a role that may add to the log and not change it, where that role is there and the login may
/// take it; else as the login.
async fn take_role(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    conn.execute(
        "select set_config('role', 'hookswitch_app', false) from pg_roles
        where rolname = 'hookswitch_app' and pg_has_role(session_user, oid, 'member')
          and has_table_privilege(oid, to_regclass('public.seal'), 'insert')",
    )
    .await
    .map(drop)
}

fn with_limits(options: PgConnectOptions) -> PgConnectOptions {
    let statement_ms = STATEMENT_TIMEOUT.as_millis().to_string();
    options.application_name("hookswitch").options([
        ("statement_timeout", statement_ms.as_str()),
        // A rollback where nothing is open is no news: see `Trust::take_back`.
        ("client_min_messages", "error"),
        ("lock_timeout", "2000"),
        ("idle_in_transaction_session_timeout", "10000"),
        ("tcp_user_timeout", "4000"),
        ("tcp_keepalives_idle", "10"),
    ])
}

/// Begins a transaction that is committed without waiting for the disk: where the server crashes within about half a second,
/// it may be forgotten, whole. Whatever is committed after it and waits for the disk puts it there too.
pub const BEGIN_RELAXED: &str = "begin; set local synchronous_commit = off";

/// Does some work on the database, or gives up after `limit`: then the connections that it held do not go back to the
/// pool unless they answer at once, and whether it was committed is not known.
pub async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(sqlx::Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            "the database did not answer in time",
        )))
    })
}

/// What is told of work that was called off because the database is gone.
pub fn lost() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the database was lost meanwhile",
    ))
}

/// Since when connections may be trusted.
#[derive(Debug)]
struct Trust {
    origin: Instant,
    /// When a connection was last found broken or silent; in microseconds since `origin`, 0 for never.
    broken_at_us: AtomicU64,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            broken_at_us: AtomicU64::new(0),
        }
    }
}

impl Trust {
    /// Whether an idle connection may be used. One that may not is closed, and a new one is opened in its place.
    async fn may_lend(&self, conn: &mut PgConnection, meta: PoolConnectionMetadata) -> bool {
        let idle_since_us = self.now_us().saturating_sub(micros(meta.idle_for));
        if idle_since_us < self.broken_at_us.load(Ordering::Relaxed) {
            return false;
        }
        if meta.idle_for < IDLE_TRUST {
            return true;
        }
        let answered = within(IDLE_ANSWER_LIMIT, conn.ping()).await;
        if answered.is_err() {
            self.withdraw();
        }
        answered.is_ok()
    }

    /// Whether a connection may go back to the pool. sqlx asks it too, but would wait for ever.
    ///
    /// It is asked by ending whatever transaction is open: sqlx 0.9 forgets a `BEGIN` whose answer nobody waited for, and
    /// what the next user wrote on such a connection would never be committed.
    async fn take_back(&self, conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let answered = within(RELEASE_ANSWER_LIMIT, conn.execute("rollback"))
            .await
            .map(drop);
        if answered.is_err() {
            self.withdraw();
        }
        answered.map(|()| true)
    }

    fn withdraw(&self) {
        self.broken_at_us.fetch_max(self.now_us(), Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        micros(self.origin.elapsed())
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
