//! PostgreSQL: the pool, the migrations, the notices, and a private server when none is configured.

pub mod embedded;
mod notices;

use std::str::FromStr as _;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

pub use notices::Notices;

/// The schema, forward only.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// How long a caller waits for a connection. With [`STATEMENT_TIMEOUT`] it stays below the five seconds after which
/// Twilio gives up on a webhook.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one statement may take on a connection of the service.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_millis(2_500);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("setting database.url: expected an address like postgres://user:password@host/database")]
    Url,
    #[error("cannot reach the database: {0}")]
    Unreachable(String),
    #[error("cannot bring the schema up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// A pool whose every wait ends: for a connection, for a statement, for a lock, for a dead peer.
///
/// Connects when first used, so that a process can start before its database.
pub fn pool(url: &SecretString, max_connections: u32) -> Result<PgPool, ConnectError> {
    Ok(pool_with(options(url)?, max_connections))
}

pub fn pool_with(options: PgConnectOptions, max_connections: u32) -> PgPool {
    let statement_ms = STATEMENT_TIMEOUT.as_millis().to_string();
    let options = options.application_name("hookswitch").options([
        ("statement_timeout", statement_ms.as_str()),
        ("lock_timeout", "2000"),
        ("idle_in_transaction_session_timeout", "10000"),
        ("tcp_user_timeout", "4000"),
        ("tcp_keepalives_idle", "10"),
    ]);
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .idle_timeout(Duration::from_mins(5))
        .connect_lazy_with(options)
}

pub fn options(url: &SecretString) -> Result<PgConnectOptions, ConnectError> {
    PgConnectOptions::from_str(url.expose_secret()).map_err(|_| ConnectError::Url)
}

/// Makes the database `name` anew and empty on the server of `options`; what it held is gone. Answers how to reach it.
pub async fn recreate(options: &PgConnectOptions, name: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let mut conn = PgConnection::connect_with(options).await?;
    for statement in ["drop database if exists", "create database"] {
        // A name cannot be bound, so it is quoted.
        let statement = format!("{statement} \"{}\"", name.replace('"', "\"\""));
        conn.execute(AssertSqlSafe(statement)).await?;
    }
    conn.close().await?;
    Ok(options.clone().database(name))
}

/// Brings the schema up to date. Safe to run from several processes at once: one migrates, the others wait.
pub async fn migrate(options: &PgConnectOptions) -> Result<(), ConnectError> {
    use sqlx::ConnectOptions as _;
    let mut conn = options
        .connect()
        .await
        .map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    MIGRATOR.run_direct(None, &mut conn, false).await?;
    if crate::events::lift_above_restored_log(&mut conn)
        .await
        .map_err(|error| ConnectError::Unreachable(error.to_string()))?
    {
        tracing::warn!("the log was restored from a dump; new entries are numbered above it");
    }
    Ok(())
}
