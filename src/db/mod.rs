//! PostgreSQL: the pool, the migrations, the notices, and a private server when none is configured.

pub mod embedded;
mod notices;
mod pool;

use std::str::FromStr as _;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool};

pub use notices::{Notices, Topic};
pub use pool::{ACQUIRE_TIMEOUT, BEGIN_RELAXED, STATEMENT_TIMEOUT, lost, pool_with, within};

/// The schema, forward only.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// How long a connection outside of the pool may take to be made, or to give a sign of life.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

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

pub fn options(url: &SecretString) -> Result<PgConnectOptions, ConnectError> {
    let text = url.expose_secret();
    // sqlx takes any scheme, and would look for the host of a MySQL for ever.
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
    {
        return Err(ConnectError::Url);
    }
    PgConnectOptions::from_str(text).map_err(|_| ConnectError::Url)
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
///
/// It has no deadline, since a migration of a large table takes its time and should not be begun again and again; but it
/// is given up where the database falls silent meanwhile.
pub async fn migrate(options: &PgConnectOptions) -> Result<(), ConnectError> {
    // What is there already needs no word, and a migration that takes its time is not told of by its whole text.
    let quiet = options
        .clone()
        .options([("client_min_messages", "warning")])
        .disable_statement_logging();
    let (mut conn, mut beside) = (connect(&quiet).await?, connect(options).await?);
    tokio::select! {
        migrated = bring_up_to_date(&mut conn) => migrated,
        error = silence(&mut beside) => Err(unreachable(&error)),
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, ConnectError> {
    within(CONNECT_LIMIT, options.connect())
        .await
        .map_err(|error| unreachable(&error))
}

async fn bring_up_to_date(conn: &mut PgConnection) -> Result<(), ConnectError> {
    MIGRATOR.run_direct(None, conn, false).await?;
    if crate::events::lift_above_restored_log(conn)
        .await
        .map_err(|error| unreachable(&error))?
    {
        tracing::warn!("the log was restored from a dump; new entries are numbered above it");
    }
    let missing = crate::audit::ensure_roles(conn)
        .await
        .map_err(|error| unreachable(&error))?;
    if !missing.is_empty() {
        let missing = missing.join(", ");
        tracing::warn!("this login may not make database roles; missing: {missing}; see docs/AUDIT.md");
    }
    Ok(())
}

/// Ends when a connection that has nothing else to do gives no sign of life.
async fn silence(conn: &mut PgConnection) -> sqlx::Error {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Err(error) = within(CONNECT_LIMIT, conn.ping()).await {
            return error;
        }
    }
}

fn unreachable(error: &sqlx::Error) -> ConnectError {
    ConnectError::Unreachable(error.to_string())
}

/// Whether the same work may succeed in a moment: the server is away, overloaded, read-only or shutting down.
pub fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connection, transaction rollback, resources, operator intervention, object in use, read-only.
            ["08", "40", "53", "57", "55"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "25006"
        }),
        _ => false,
    }
}
